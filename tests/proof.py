"""Proofs by Yosys that a component's version for an FPGA does the same as its generic one.

A proof holds for all inputs and for all time: by induction over the clock cycles, from the state
after power-up.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtl.block import find_yosys
from rtl.build import elaborate
from rtl.technology import Technology
from sim.primitives import models

__all__ = ["ProofError", "Versions", "run"]

_VENDOR_MODELS = {
    Technology.ULTRASCALE_PLUS: "+/xilinx/cells_sim.v",
    Technology.ECP5: "+/ecp5/common_sim.vh",
}
"""Yosys' own models of primitives."""

STEPS = 8
"""Cycles that an induction may reach back; more than the depth of any pipeline here."""


class ProofError(AssertionError):
    """Yosys didn't find a proof."""


def run(directory: Path, *commands: str) -> None:
    """Run Yosys `commands` on files in `directory`.

    Raises
    ------
    ProofError
        It fails; the message has the end of its log.
    """
    result = subprocess.run(
        [find_yosys(), "-p", "; ".join(commands)],
        cwd=directory, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if result.returncode:
        raise ProofError(result.stdout[-4000:])


class Versions:
    """The netlists of a component: ``gold`` is the generic one, ``gate`` that for `technology`.

    Parameters
    ----------
    make
        Returns the component.
    technology
        Family of FPGAs.
    directory
        Where the netlists go, as ``gold.json`` and ``gate.json``.
    vendor_models
        Take the models of the primitives from Yosys, instead of the project's own.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        technology: Technology,
        directory: Path,
        *,
        vendor_models: bool = False,
    ) -> None:
        self.directory = directory
        for name, version in (("gold", Technology.GENERIC), ("gate", technology)):
            files = elaborate(make(), name, version)
            primitives = {} if vendor_models else models(version)
            for file, text in (files | primitives).items():
                (directory / file).write_text(text)
            run(
                directory,
                *(f"read_verilog {file}" for file in files),
                *(f"read_verilog -defer {file}" for file in primitives),
                *([f"read_verilog {_VENDOR_MODELS[technology]}"] if vendor_models else []),
                f"prep -flatten -top {name}",
                f"select {name}",
                f"write_json -selected {name}.json",
            )

    def cut_multiplier(self) -> dict[str, int]:
        """Make ports of the one multiplier's operands and result, and return their widths.

        The ports ``multiply_a`` and ``multiply_b`` are outputs, ``multiply_y`` is an input; the
        widths are by names such as ``gold_a``.
        """
        widths = {}
        for name in ("gold", "gate"):
            path = self.directory / f"{name}.json"
            netlist = json.loads(path.read_text())
            (module,) = netlist["modules"].values()
            (cell,) = (key for key, cell in module["cells"].items() if cell["type"] == "$mul")
            for port, bits in module["cells"].pop(cell)["connections"].items():
                direction = "input" if port == "Y" else "output"
                port = port.lower()
                module["ports"][f"multiply_{port}"] = {"direction": direction, "bits": bits}
                widths[f"{name}_{port}"] = len(bits)
            path.write_text(json.dumps(netlist))
        return widths

    def prove(self, check: str) -> None:
        """Prove the assertions of the Verilog module ``check``, which places the netlists.

        Raises
        ------
        ProofError
            One of them doesn't hold, or not by induction.
        """
        (self.directory / "check.v").write_text(check)
        run(
            self.directory,
            "read_json gold.json",
            "read_json gate.json",
            "read_verilog -formal check.v",
            "prep -flatten -top check",
            "memory_map",
            "opt_clean",
            "dffunmap",
            "chformal -lower",
            f"sat -verify -tempinduct -prove-asserts -maxsteps {STEPS} check",
        )
