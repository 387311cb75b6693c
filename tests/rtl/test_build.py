"""``python -m rtl.build``: what it writes, that C accepts it, and how it refuses."""

import json
import re
import subprocess
from typing import Any

import pytest
from amaranth.hdl import Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from rtl.block import Block
from rtl.build import TOP, configure, elaborate, main
from rtl.config import PRESETS, Config, ConfigError, preset
from rtl.control.commands import Fault, LoadTarget, Opcode, Queue, Stage, encode
from rtl.headers import c_header, describe
from rtl.interface.register_map import IDENTITY, REGISTERS, Control
from rtl.sparsity.pattern import Pattern
from rtl.systemrdl import register_header, systemrdl
from rtl.technology import Technology, technology_of

LOAD: dict[str, Any] = {
    "target": LoadTarget.STREAM, "pattern": Pattern.N2M8, "base": 0x1234, "rows": 0xFEDC,
    "descriptor": {
        "address": 0x0123_4567_89AB_CDEF,
        "counts": [1, 2, 3, 0xFFFF],
        "strides": [-64, 1 << 30, -(1 << 31)],
    },
}  # fmt: skip


COMPUTE: dict[str, Any] = {
    "s_base": 0xABCD,
    "d_rows": {"counts": [4, 5, 0xFFFF], "steps": [-1, 0x7FFF, -(1 << 15)]},
    "d_reduction": {"counts": [6, 7, 8], "steps": [1, -2, 3]},
    "a_contexts": 5, "tail_entries": 19,
}  # fmt: skip


def compute_command() -> bytes:
    return encode(Opcode.COMPUTE, **COMPUTE)


def load_command() -> bytes:
    return encode(Opcode.LOAD, wait=0b110, signal=0b010, stage=Stage.WU, **LOAD)


def test_describe_places_every_field_of_a_command():
    fields = describe(preset("tiny"))["command"]["fields"]
    load, compute = (
        int.from_bytes(command, "little") for command in (load_command(), compute_command())
    )

    def read(part, name):
        place = fields[part][name]
        bits = compute if part == "compute" else load
        value = bits >> place["bit"] & (1 << place["width"]) - 1
        negative = place["signed"] and value >> place["width"] - 1
        return value - (1 << place["width"]) if negative else value

    assert read("header", "opcode") == Opcode.LOAD.value
    assert read("header", "wait") == 0b110
    assert read("load", "target") == LoadTarget.STREAM.value
    assert read("load", "base") == 0x1234
    assert read("load", "descriptor_address") == 0x0123_4567_89AB_CDEF
    assert [read("load", f"descriptor_counts_{i}") for i in range(4)] == [1, 2, 3, 0xFFFF]
    assert [read("load", f"descriptor_strides_{i}") for i in range(3)] == [
        -64, 1 << 30, -(1 << 31),
    ]  # fmt: skip
    for name in ("d_rows", "d_reduction"):
        for kind in ("counts", "steps"):
            found = [read("compute", f"{name}_{kind}_{i}") for i in range(3)]
            assert found == COMPUTE[name][kind]
    assert read("compute", "tail_entries") == COMPUTE["tail_entries"]
    assert set(fields) == {"header", "load", "compute", "store", "update", "vector"}
    assert {"a_kind", "b_negative", "c_value", "descriptor_counts_3"} <= set(fields["vector"])


def test_fields_of_a_body_do_not_overlap():
    for part, fields in describe(preset("sim"))["command"]["fields"].items():
        used = 0
        for name, place in fields.items():
            mask = ((1 << place["width"]) - 1) << place["bit"]
            assert not used & mask, f"{part}.{name} overlaps"
            used |= mask
        assert used < 1 << 512


@pytest.mark.parametrize("name", PRESETS)
def test_header_agrees_with_python_when_compiled(name, tmp_path):
    config = preset(name)
    (tmp_path / "sat.h").write_text(c_header(config))
    (tmp_path / "sat_registers.h").write_text(register_header(config))
    (tmp_path / "main.c").write_text(r"""
        #include "sat.h"
        #include <stddef.h>
        #include <stdio.h>
        #include <string.h>

        static uint8_t command[SAT_COMMAND_BYTES];

        static void put(uint32_t bit, uint32_t width, uint64_t value) {
            for (uint32_t i = 0; i < width; i++)
                command[(bit + i) / 8] |= (uint8_t)(((value >> i) & 1) << ((bit + i) % 8));
        }
        #define PUT(field, value) put(field##_BIT, field##_WIDTH, (uint64_t)(value))

        static void finish(void) {
            for (unsigned i = 0; i < sizeof command; i++)
                printf("%02x", command[i]);
            printf("\n");
            memset(command, 0, sizeof command);
        }

        int main(void) {
            printf("%s %s %lx %lx %lx %lu %lu %lu\n", SAT_CONFIG_NAME, SAT_DEVICE,
                (unsigned long)SAT_IDENTITY,
                (unsigned long)SAT_CONFIG_HASH, (unsigned long)offsetof(sat_t, FAULT_ADDRESS_HIGH),
                (unsigned long)SAT_MACS, (unsigned long)SAT_CHANNELS,
                (unsigned long)SAT__CONTROL__SOFT_RESET_bm);
            PUT(SAT_HEADER_OPCODE, SAT_OPCODE_LOAD);
            PUT(SAT_HEADER_WAIT, 6);
            PUT(SAT_HEADER_SIGNAL, 2);
            PUT(SAT_HEADER_STAGE, SAT_STAGE_WU);
            PUT(SAT_LOAD_TARGET, SAT_LOAD_TARGET_STREAM);
            PUT(SAT_LOAD_PATTERN, SAT_PATTERN_N2M8);
            PUT(SAT_LOAD_BASE, 0x1234);
            PUT(SAT_LOAD_ROWS, 0xFEDC);
            PUT(SAT_LOAD_DESCRIPTOR_ADDRESS, 0x0123456789ABCDEF);
            PUT(SAT_LOAD_DESCRIPTOR_COUNTS_0, 1);
            PUT(SAT_LOAD_DESCRIPTOR_COUNTS_1, 2);
            PUT(SAT_LOAD_DESCRIPTOR_COUNTS_2, 3);
            PUT(SAT_LOAD_DESCRIPTOR_COUNTS_3, 0xFFFF);
            PUT(SAT_LOAD_DESCRIPTOR_STRIDES_0, -64);
            PUT(SAT_LOAD_DESCRIPTOR_STRIDES_1, 1 << 30);
            PUT(SAT_LOAD_DESCRIPTOR_STRIDES_2, INT32_MIN);
            finish();
            PUT(SAT_HEADER_OPCODE, SAT_OPCODE_COMPUTE);
            PUT(SAT_COMPUTE_S_BASE, 0xABCD);
            PUT(SAT_COMPUTE_D_ROWS_COUNTS_0, 4);
            PUT(SAT_COMPUTE_D_ROWS_COUNTS_1, 5);
            PUT(SAT_COMPUTE_D_ROWS_COUNTS_2, 0xFFFF);
            PUT(SAT_COMPUTE_D_ROWS_STEPS_0, -1);
            PUT(SAT_COMPUTE_D_ROWS_STEPS_1, 0x7FFF);
            PUT(SAT_COMPUTE_D_ROWS_STEPS_2, INT16_MIN);
            PUT(SAT_COMPUTE_D_REDUCTION_COUNTS_0, 6);
            PUT(SAT_COMPUTE_D_REDUCTION_COUNTS_1, 7);
            PUT(SAT_COMPUTE_D_REDUCTION_COUNTS_2, 8);
            PUT(SAT_COMPUTE_D_REDUCTION_STEPS_0, 1);
            PUT(SAT_COMPUTE_D_REDUCTION_STEPS_1, -2);
            PUT(SAT_COMPUTE_D_REDUCTION_STEPS_2, 3);
            PUT(SAT_COMPUTE_A_CONTEXTS, 5);
            PUT(SAT_COMPUTE_TAIL_ENTRIES, 19);
            finish();
            return 0;
        }
    """)
    subprocess.run(
        ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "main.c", "-o", "main"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    output = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout
    constants, load, compute = output.splitlines()
    assert constants == (
        f"{config.name} {config.device} {IDENTITY:x} {config.hash:x} "
        f"{REGISTERS['FAULT_ADDRESS_HIGH'].offset:x} {config.macs} {config.channels} "
        f"{Control.SOFT_RESET.value}"
    )
    assert bytes.fromhex(load) == load_command()
    assert bytes.fromhex(compute) == compute_command()


def test_no_macro_is_defined_twice():
    names = [line.split()[1] for line in c_header(preset("sim")).splitlines() if "define" in line]
    assert len(names) == len(set(names))


def test_writes_verilog_register_map_and_header(tmp_path, capsys):
    out = tmp_path / "new" / "directory"
    assert main(["--preset", "tiny", "--set", "s_depth=128", "--out", str(out), "--pages"]) == 0
    config = configure("tiny", ["s_depth=128"])
    card = json.loads((out / "sat_tiny.json").read_text())
    assert card.pop("technology") == "generic"
    assert card == json.loads(json.dumps(describe(config)))
    assert card["config"]["s_depth"] == 128
    assert card["config_hash"] == config.hash != preset("tiny").hash
    assert card["enumerations"]["Fault"] == {fault.name: fault.value for fault in Fault}
    assert card["enumerations"]["Queue"] == {queue.name: queue.value for queue in Queue}
    assert card["patterns"] == ["dense", "1:4", "2:4", "1:8", "2:8", "4:8"]
    assert f"module {TOP}(" in (out / "sat.v").read_text()
    assert "DSP48E2" not in "".join(file.read_text() for file in out.glob("*.v"))
    assert (out / "sat_tiny.h").read_text() == c_header(config)
    assert (out / "sat_registers.h").read_text() == register_header(config)
    assert (out / "sat.rdl").read_text() == systemrdl(config)
    assert (out / "registers" / "index.html").exists()
    pages = "".join(file.read_text() for file in (out / "registers" / "data").rglob("*.js*"))
    assert "FAULT_ADDRESS_HIGH" in pages
    output = capsys.readouterr().out
    assert "tiny for generic, generic technology" in output
    assert str(out / "sat.v") in output


@pytest.mark.parametrize(
    ("arguments", "technology"),
    [
        (["--set", "device=xcvu9p"], Technology.ULTRASCALE_PLUS),
        (["--technology", "ultrascale_plus"], Technology.ULTRASCALE_PLUS),
        (["--set", "device=xcvu9p", "--technology", "generic"], Technology.GENERIC),
        (["--set", "device=lfe5u-85f"], Technology.ECP5),
    ],
)
def test_technology_is_the_devices_unless_told(
    arguments, technology, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("rtl.top.Top", Probe)
    assert main(["--preset", "tiny", *arguments, "--out", str(tmp_path)]) == 0
    device = arguments[1].removeprefix("device=") if "--set" in arguments else "generic"
    output = capsys.readouterr().out
    assert f"tiny for {device}, {technology.value} technology" in output
    assert json.loads((tmp_path / "sat_tiny.json").read_text())["technology"] == technology.value
    files = {file.name: file.read_text() for file in tmp_path.glob("*.v")}
    uses_dsp = technology is Technology.ULTRASCALE_PLUS
    assert ("DSP48E2" in files["inner.v"]) == uses_dsp
    assert set(files) == {"sat.v", "inner.v"}, "models of primitives are for simulation only"


class Probe(wiring.Component):
    """Stands for the top level: one block, which uses a primitive where it may."""

    y: Out(1)

    def __init__(self, config: Config, *, inner: bool = False) -> None:
        super().__init__()
        self._config = config
        self._inner = inner

    def elaborate(self, platform):
        m = Module()
        if not self._inner:
            block = Block("inner", Probe(self._config, inner=True))
            m.submodules.inner = inner = block.place(platform)
            m.d.comb += self.y.eq(inner.y)
        elif technology_of(platform) is Technology.ULTRASCALE_PLUS:
            m.submodules.dsp = Instance("DSP48E2", o_OVERFLOW=self.y)
        return m


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if config.macs <= 32 else pytest.mark.long)
        for name, config in PRESETS.items()
    ],
)
def test_every_preset_elaborates(name, tmp_path):
    assert main(["--preset", name, "--out", str(tmp_path)]) == 0
    text = "".join(file.read_text() for file in tmp_path.glob("*.v"))
    bodies = re.findall(r"^module (\S+?) ?\((.*?)^endmodule", text, re.M | re.S)
    inside = {module: re.findall(r"^  (\S+)  ?\S+  ?\($", body, re.M) for module, body in bodies}

    def places(module: str, placed: str) -> int:
        return (module == placed) + sum(places(part, placed) for part in inside.get(module, ()))

    element = f"{name.replace('-', '_')}_pe"
    assert places(TOP, element) == preset(name).rows * preset(name).cols


def test_list_names_every_preset_and_its_device(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    for line, config in zip(lines, PRESETS.values(), strict=True):
        assert f" {config.device}," in line


def test_yosys_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.setenv("YOSYS", "/nowhere/yosys")
    with pytest.raises(RuntimeError, match="cannot start Yosys as '/nowhere/yosys': No such file"):
        elaborate(Probe(preset("tiny")), "probe")


def test_yosys_that_fails_is_reported_with_its_output(tmp_path, monkeypatch):
    yosys = tmp_path / "yosys"
    yosys.write_text("#!/bin/sh\necho no such pass; exit 1\n")
    yosys.chmod(0o755)
    monkeypatch.setenv("YOSYS", str(yosys))
    with pytest.raises(RuntimeError, match="Yosys failed on probe, inner:\nno such pass"):
        elaborate(Probe(preset("tiny")), "probe")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "huge"], "no preset 'huge'; choose from: tiny, sim"),
        (["--set", "rows=3"], "rows is 3, must be a power of two"),
        (["--set", "rows=many"], "rows is 'many', must be an integer"),
        (["--set", "lanes=1"], "lanes is 1, must be 2 to 16"),
        (["--set", "rows"], "--set takes field=value, got 'rows'; fields are: name, rows"),
        (["--set", "device=card"], "device is 'card', must be one of generic, xcvu9p"),
        (["--set", "drain_rows=1"], "drain_rows is 1, must be 4 to 4 (rows)"),
        (["--technology", "coal"], "invalid choice: 'coal' (choose from"),
        (["--set", "wheels=4"], "--set takes field=value, got 'wheels=4'; fields are: name"),
        (["--set", "name=../x"], "name is '../x', must be lower-case"),
    ],
)
def test_impossible_request_is_refused_with_the_valid_choices(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_configure_changes_what_was_asked_for():
    config = configure("tiny", ["name=small", "d_depth=0x80", "device=xcu250"])
    changes = {"name": "small", "d_depth": 128, "device": "xcu250"}
    assert config == Config(**vars(preset("tiny")) | changes)
    with pytest.raises(ConfigError):
        configure("tiny", ["macs=1"])
