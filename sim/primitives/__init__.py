"""Models of FPGA primitives that gateware places, for simulators and for proofs."""

from pathlib import Path

from rtl.technology import Technology

__all__ = ["models"]


def models(technology: Technology) -> dict[str, str]:
    """Return the Verilog models of a technology's primitives, by file name."""
    path = Path(__file__).with_name(f"{technology.value}.v")
    return {path.name: path.read_text()} if path.exists() else {}
