"""Memory of bins: each version against a list, and both against each other."""

import cocotb
import pytest
from cocotb.triggers import RisingEdge, Timer

from rtl.arithmetic.bin_memory import BinMemory
from rtl.technology import Technology
from tests.harness import parameters, rng, simulate, start
from tests.proof import ProofError, Versions

CHECK = """
// Holds for any addresses that stay, and so for any: what is read changes nothing.
module check #(parameter BITS = 0, ADDRESS_BITS = 0, MIXED_UP = 0) (
    input clk,
    input [ADDRESS_BITS-1:0] write_address,
    input [BITS-1:0] write_data,
    input write_enable
);
    reg [ADDRESS_BITS-1:0] a, b;
    always @(posedge clk) begin
        a <= a;
        b <= b;
    end
    wire [BITS-1:0] expected_a, expected_b, read_a, read_b;
    gold gold(
        .clk(clk), .rst(1'b0),
        .write_address(write_address), .write_data(write_data), .write_enable(write_enable),
        .read_a_address(a), .read_b_address(MIXED_UP ? a : b),
        .read_a_data(expected_a), .read_b_data(expected_b)
    );
    gate gate(
        .clk(clk), .rst(1'b0),
        .write_address(write_address), .write_data(write_data), .write_enable(write_enable),
        .read_a_address(a), .read_b_address(b),
        .read_a_data(read_a), .read_b_data(read_b)
    );
    always @* assert (read_a == expected_a && read_b == expected_b);
endmodule
"""


def check(bits, depth, mixed_up=0):
    return (
        CHECK.replace("ADDRESS_BITS = 0", f"ADDRESS_BITS = {(depth - 1).bit_length()}")
        .replace("BITS = 0", f"BITS = {bits}", 1)
        .replace("MIXED_UP = 0", f"MIXED_UP = {mixed_up}")
    )


@pytest.mark.parametrize(
    "bits, depth, vendor_models", [(48, 32, False), (15, 16, False), (15, 16, True)]
)
def test_is_the_same_in_ultrascale_plus(bits, depth, vendor_models, tmp_path):
    versions = Versions(
        lambda: BinMemory(bits, depth), Technology.ULTRASCALE_PLUS, tmp_path,
        vendor_models=vendor_models,
    )  # fmt: skip
    versions.prove(check(bits, depth))


def test_ports_mixed_up_have_no_proof(tmp_path):
    versions = Versions(lambda: BinMemory(9, 16), Technology.ULTRASCALE_PLUS, tmp_path)
    with pytest.raises(ProofError, match="proof did fail"):
        versions.prove(check(9, 16, mixed_up=1))


@pytest.mark.parametrize(
    "depth, ports, technology",
    [
        (32, 2, Technology.GENERIC), (32, 2, Technology.ULTRASCALE_PLUS),
        (64, 2, Technology.ULTRASCALE_PLUS), (32, 1, Technology.ECP5),
    ],
)  # fmt: skip
def test_against_a_list(depth, ports, technology):
    simulate(
        BinMemory(48, depth, ports), name=f"bin_memory_{ports}", testbench=__name__,
        parameters={"depth": depth, "ports": ports}, technology=technology,
    )  # fmt: skip


def test_refuses_other_ports():
    with pytest.raises(ValueError, match="ports is 3, must be 1 or 2"):
        BinMemory(48, 32, 3)


@cocotb.test()
async def reads_what_was_written(dut):
    random, depth = rng(), parameters()["depth"]
    await start(dut)
    bins = [0] * depth
    for _ in range(3000):
        write, a, b = (int(address) for address in random.integers(0, depth, 3))
        # Often the bin that is being written: it's still read as it was before.
        a = write if random.random() < 0.3 else a
        of_b = int(random.integers(2))
        if parameters()["ports"] == 1 and of_b:
            b ^= (a ^ b ^ depth // 2) & depth // 2
        value, enable = int(random.integers(1 << 48)), int(random.integers(2))
        dut.write_address.value, dut.write_data.value = write, value
        dut.write_enable.value = enable
        dut.read_a_address.value, dut.read_b_address.value = a, b
        dut.read_b_enable.value = of_b
        await Timer(1, "ns")
        assert dut.read_a_data.value == bins[a]
        if of_b:
            assert dut.read_b_data.value == bins[b]
        await RisingEdge(dut.clk)
        if enable:
            bins[write] = value
