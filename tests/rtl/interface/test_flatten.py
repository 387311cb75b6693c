"""Names and directions of flattened AXI ports; the tests of memory and card drive them."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl.interface.axi import AXI4LiteSignature, AXI4ReadSignature, AXI4WriteSignature
from rtl.interface.flatten import Flattened


class Core(wiring.Component):
    """A component with every kind of port."""

    def __init__(self):
        super().__init__(
            {
                "read": Out(AXI4ReadSignature(256)),
                "write": Out(AXI4WriteSignature(256)),
                "control": In(AXI4LiteSignature()),
                "interrupt": Out(1),
            }
        )

    def elaborate(self, platform):
        return Module()


def ports(component):
    return {
        name: ("out" if member.flow is Out else "in", member.shape)
        for name, member in component.signature.members.items()
        if member.is_port
    }


def test_master_has_every_axi4_port():
    names = ports(Flattened(Core(), read="m_axi", write="m_axi", control="s_axi_control"))
    address = {
        "addr": 64, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3, "qos": 4,
        "id": 1, "valid": 1,
    }  # fmt: skip
    outputs = {f"m_axi_{c}{field}": width for c in ("ar", "aw") for field, width in address.items()}
    outputs |= {"m_axi_wdata": 256, "m_axi_wstrb": 32, "m_axi_wlast": 1, "m_axi_wvalid": 1}
    outputs |= {"m_axi_rready": 1, "m_axi_bready": 1}
    inputs = {f"m_axi_{c}ready": 1 for c in ("ar", "aw", "w")}
    inputs |= {"m_axi_rdata": 256, "m_axi_rresp": 2, "m_axi_rlast": 1, "m_axi_rid": 1}
    inputs |= {"m_axi_rvalid": 1, "m_axi_bvalid": 1, "m_axi_bresp": 2, "m_axi_bid": 1}
    expected = {name: ("out", width) for name, width in outputs.items()}
    expected |= {name: ("in", width) for name, width in inputs.items()}
    assert {name: port for name, port in names.items() if name.startswith("m_axi")} == expected


def test_ports_of_an_array_are_numbered():
    class Striped(Core):
        def __init__(self):
            wiring.Component.__init__(
                self,
                {
                    "read": Out(AXI4ReadSignature(256)).array(2),
                    "write": Out(AXI4WriteSignature(256)).array(2),
                },
            )

    single = ports(Flattened(Core(), read="m_axi", write="m_axi"))
    expected = {
        name.replace("m_axi", f"m_axi_{number}"): port
        for number in range(2)
        for name, port in single.items()
        if name.startswith("m_axi")
    }
    assert ports(Flattened(Striped(), read="m_axi", write="m_axi")) == expected


def test_slave_has_every_lite_port():
    flattened = Flattened(Core(), control="s_axi_control")
    names = ports(flattened)
    assert flattened.signature.members["read"].signature.members == AXI4ReadSignature(256).members
    inputs = {"awaddr": 12, "awprot": 3, "awvalid": 1, "wdata": 32, "wstrb": 4, "wvalid": 1}
    inputs |= {"bready": 1, "araddr": 12, "arprot": 3, "arvalid": 1, "rready": 1}
    outputs = {"awready": 1, "wready": 1, "bresp": 2, "bvalid": 1}
    outputs |= {"arready": 1, "rdata": 32, "rresp": 2, "rvalid": 1}
    expected = {f"s_axi_control_{name}": ("in", width) for name, width in inputs.items()}
    expected |= {f"s_axi_control_{name}": ("out", width) for name, width in outputs.items()}
    assert {name: port for name, port in names.items() if name.startswith("s_axi")} == expected
    assert names["interrupt"] == ("out", 1)


def test_refuses_what_it_cannot_flatten():
    with pytest.raises(ValueError, match="no port 'memory' to flatten; there are: read, write"):
        Flattened(Core(), memory="m_axi")
    with pytest.raises(TypeError, match="not an AXI port"):
        Flattened(Core(), interrupt="irq")

    class Twice(Core):
        def __init__(self):
            wiring.Component.__init__(
                self, {"a": Out(AXI4ReadSignature(64)), "b": Out(AXI4ReadSignature(64))}
            )

    with pytest.raises(ValueError, match="two ports would be called 'm_axi_arvalid'"):
        Flattened(Twice(), a="m_axi", b="m_axi")
