"""Multiply-add: each version against integers, and both against each other."""

import cocotb
import pytest
from cocotb.triggers import RisingEdge

from rtl.arithmetic.multiply_add import MultiplyAdd
from rtl.technology import Technology
from tests.harness import parameters, rng, simulate, start
from tests.proof import ProofError, Versions

CHECK = """
// Products are taken as unknown, but equal where the factors are.
module check #(parameter BITS = 48, WRONG = 0) (
    input clk,
    input [17:0] a,
    input high,
    input [13:0] b,
    input [BITS-1:0] c,
    input accumulate,
    input negative,
    input [GOLD_Y-1:0] product,
    input [GATE_Y-1:0] other
);
    wire [GOLD_A-1:0] gold_a;
    wire [GOLD_B-1:0] gold_b;
    wire signed [GATE_A-1:0] gate_a;
    wire signed [GATE_B-1:0] gate_b;
    wire equal = gate_a == $signed({1'b0, gold_a}) && gate_b == $signed({1'b0, gold_b});
    wire [GATE_Y-1:0] gate_product = equal ? product : other;
    wire [BITS-1:0] expected, p;
    gold gold(
        .clk(clk), .rst(1'b0), .a(a), .high(high), .b(b), .c(c), .accumulate(accumulate),
        .negative(negative), .p(expected),
        .multiply_a(gold_a), .multiply_b(gold_b), .multiply_y(product)
    );
    gate gate(
        .clk(clk), .rst(1'b0), .a(a), .high(high), .b(b), .c(c), .accumulate(accumulate),
        .negative(negative ^ (WRONG & accumulate)), .p(p),
        .multiply_a(gate_a), .multiply_b(gate_b), .multiply_y(gate_product)
    );
    always @* assert (p == expected);
endmodule
"""


def prove(bits, directory, wrong=0):
    versions = Versions(lambda: MultiplyAdd(bits), Technology.ULTRASCALE_PLUS, directory)
    widths = versions.cut_multiplier()
    # As many as an unsigned product has; those of a signed one above are copies of a zero sign.
    assert widths["gold_y"] == widths["gold_a"] + widths["gold_b"] <= widths["gate_y"]
    check = CHECK.replace("BITS = 48, WRONG = 0", f"BITS = {bits}, WRONG = {wrong}")
    for name, width in widths.items():
        check = check.replace(name.upper(), str(width))
    versions.prove(check)


@pytest.mark.parametrize("bits", [42, 44, 48])
def test_is_the_same_in_ultrascale_plus(bits, tmp_path):
    prove(bits, tmp_path)


def test_a_wrong_sign_has_no_proof(tmp_path):
    with pytest.raises(ProofError, match="proof did fail"):
        prove(48, tmp_path, wrong=1)


@pytest.mark.parametrize("technology", list(Technology))
@pytest.mark.parametrize("bits", [44, 48])
def test_against_integers(bits, technology):
    simulate(
        MultiplyAdd(bits), name="multiply_add", testbench=__name__, parameters={"bits": bits},
        technology=technology,
    )  # fmt: skip


@pytest.mark.parametrize("bits", [41, 49])
def test_refuses_widths_that_do_not_hold_a_product_or_exceed_the_adder(bits):
    with pytest.raises(ValueError, match=f"bits is {bits}, must be 42 to 48"):
        MultiplyAdd(bits)


@cocotb.test()
async def multiplies_and_adds(dut):
    random, bits = rng(), parameters()["bits"]
    top = 1 << bits - 1
    corners = {
        "a": [0, 1, (1 << 18) - 1, 1 << 17],
        "b": [0, 1, (1 << 14) - 1, 1 << 13],
        "c": [0, 1, -1, top - 1, -top, 1 << 40, -(1 << 40)],
    }

    def draw(name, low, high):
        if random.random() < 0.3:
            return int(random.choice(corners[name]))
        return int(random.integers(low, high))

    work = [
        {
            "a": draw("a", 0, 1 << 18),
            "high": int(random.integers(2)),
            "b": draw("b", 0, 1 << 14),
            "c": draw("c", -top, top),
            "accumulate": int(random.integers(2)),
            "negative": int(random.integers(2)),
        }
        for _ in range(3000)
    ]
    # Every combination of controls with the largest factors and sums.
    work += [
        {"a": a, "high": high, "b": b, "c": c, "accumulate": accumulate, "negative": negative}
        for a in corners["a"]
        for b in corners["b"]
        for c in corners["c"]
        for high in (0, 1)
        for accumulate in (0, 1)
        for negative in (0, 1)
    ]
    await start(dut)
    idle = [dict.fromkeys(work[0], 0)] * MultiplyAdd.LATENCY
    for cycle, item in enumerate(work + idle):
        # The factors go in one after the other, before what belongs to their product.
        dut.b.value = item["b"]
        earlier = (work + idle)[cycle - 1] if cycle >= 1 else idle[0]
        dut.a.value, dut.high.value = earlier["a"], earlier["high"]
        earlier = (work + idle)[cycle - 2] if cycle >= 2 else idle[0]
        dut.c.value = earlier["c"]
        dut.accumulate.value, dut.negative.value = earlier["accumulate"], earlier["negative"]
        await RisingEdge(dut.clk)
        if cycle >= MultiplyAdd.LATENCY:
            done = work[cycle - MultiplyAdd.LATENCY]
            product = (done["a"] << 8 * done["high"]) * done["b"]
            total = done["c"] * done["accumulate"] + (-product if done["negative"] else product)
            expected = (total + top) % (2 * top) - top
            assert dut.p.value.to_signed() == expected, done
