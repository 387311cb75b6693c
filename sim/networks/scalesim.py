"""SCALE-Sim 3 beside the cycle model: the same products on as many multipliers.

SCALE-Sim models a systolic array, here of 32 x 32 processing elements and weight stationary: of
each fold of the weights, 32 of the reduction by 32 outputs, the weights are loaded, all rows of the
other operand stream through, and the sums drain, before the next fold begins. Memory never makes it
wait. With its sparsity support a fold holds the kept weights of a longer piece of the reduction,
for which it selects the operands. (R. Raj et al., "SCALE-Sim v3: a modular cycle-accurate systolic
accelerator simulator for end-to-end system analysis", 2025.)

It needs NumPy before 2, and so an environment of its own, which is made here when it's missing.
"""

from __future__ import annotations

import csv
import functools
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware.cards.cycles import CycleCard
from firmware.driver import Driver
from firmware.layers import ConvolutionTensors
from firmware.model import Convolution, Input, Method
from firmware.program import Program
from firmware.schedule import Assembly, ConvolutionSchedule, emit
from firmware.tensor import Activations
from rtl.config import preset
from rtl.sparsity.pattern import Pattern

from ..cache import digest, locked
from .points import POINTS, timing_for
from .sweep import CACHE

__all__ = ["PATTERNS", "PRODUCTS", "QUICK_PRODUCTS", "Product", "ScaleSimError", "compare"]

PATTERNS = ("dense", "2:8")

_REQUIREMENTS = Path(__file__).with_name("scalesim-requirements.txt")

_IMAGES = 64
"""As many as a word of the design points' cards holds."""

_SIDE = 32
"""Rows and columns of its array: as many elements as the smaller design point has multipliers."""

_LONGEST = 3600
"""Seconds that a product may take there."""


class ScaleSimError(RuntimeError):
    """SCALE-Sim couldn't be installed or run; the message ends with what it wrote."""


@dataclass(frozen=True)
class Product:
    """The forward product of a layer, for as many of its outputs as SCALE-Sim can finish.

    Parameters
    ----------
    name
        Network and layer.
    kernel, inputs, outputs
        Of the convolution.
    height, width
        Of the part of an image's outputs that is computed, for 64 images.
    """

    name: str
    kernel: int
    inputs: int
    outputs: int
    height: int
    width: int

    @property
    def m(self) -> int:
        """Rows of the dense operand: outputs of all images."""
        return _IMAGES * self.height * self.width

    @property
    def n(self) -> int:
        """Columns of the result."""
        return self.outputs

    @property
    def k(self) -> int:
        """Length of the reduction."""
        return self.kernel**2 * self.inputs

    def convolution(self, pattern: Pattern) -> Convolution:
        """Return the layer: what its kernel meets of the image has no padding."""
        border = self.kernel - 1
        images = Input("images", self.height + border, self.width + border, self.inputs)
        return Convolution(
            self.name, images, self.outputs, kernel=self.kernel, method=Method.ff(pattern)
        )


PRODUCTS = (
    Product("ResNet-9 layer1, 3 x 3", 3, 64, 128, 2, 4),
    Product("ResNet-9 layer1 residual, 3 x 3", 3, 128, 128, 2, 4),
    Product("VGG-19 conv1_2, 3 x 3", 3, 64, 64, 4, 4),
    Product("VGG-19 conv3_2, 3 x 3", 3, 256, 256, 1, 2),
    Product("ResNet-18 conv4_1 first, 3 x 3", 3, 128, 256, 2, 2),
    Product("ResNet-50 conv2_1 third, 1 x 1", 1, 64, 256, 4, 4),
    Product("ResNet-50 conv3_1 first, 1 x 1", 1, 256, 128, 4, 4),
    Product("ResNet-50 conv4_2 first, 1 x 1", 1, 1024, 256, 2, 2),
    Product("ViT small block queries, keys, values", 1, 384, 1152, 1, 2),
    Product("ViT small block mlp outputs", 1, 1536, 384, 1, 2),
)
"""What is compared: short and long reductions, few and many outputs."""

QUICK_PRODUCTS = (PRODUCTS[5],)
"""One that takes seconds."""


def compare(products: Sequence[Product], workers: int) -> Iterator[dict[str, Any]]:
    """Yield what both models say of each product, dense and pruned.

    Parameters
    ----------
    products
        What is compared.
    workers
        Runs of SCALE-Sim at once.

    Raises
    ------
    ScaleSimError
        It couldn't be installed or run.
    """
    point = POINTS["1k"]
    jobs = [(product, Pattern.parse(pattern)) for product in products for pattern in PATTERNS]
    python = _environment()
    with ThreadPoolExecutor(workers) as pool:
        theirs = pool.map(functools.partial(_scalesim_cycles, python), *zip(*jobs))
        for (product, pattern), cycles in zip(jobs, theirs):
            yield {
                "layer": product.name,
                "m": product.m,
                "n": product.n,
                "k": product.k,
                "pattern": str(pattern),
                "macs": point.macs,
                "cycles_scalesim": cycles,
                **_model_cycles(product, pattern, point.preset),
            }


def _model_cycles(product: Product, pattern: Pattern, name: str) -> dict[str, int]:
    """Return what the cycle model says: in all, and cycles in which the array multiplied."""
    config = preset(name)
    driver = Driver(CycleCard(config, timing=timing_for(config)))
    layer = product.convolution(pattern)
    assembly = Assembly(Program(config, product.name))
    tensors = ConvolutionTensors(layer, config, driver.memory, has_backward=False)
    x, y = (
        Activations(config, driver.memory, _IMAGES, shape)
        for shape in (layer.source.shape, layer.shape)
    )
    emit(ConvolutionSchedule(assembly, layer, tensors).forward(x, y))
    counters = driver.run(assembly.program).counters
    return {"cycles_model": counters["CYCLES"], "slots_model": counters["MAC_SLOTS_FF"]}


# SCALE-Sim

_CONFIGURATION = """\
[general]
run_name = product
[architecture_presets]
ArrayHeight = {side}
ArrayWidth = {side}
IfmapSramSzkB = 1024
FilterSramSzkB = 1024
OfmapSramSzkB = 1024
IfmapOffset = 0
FilterOffset = 100000000
OfmapOffset = 200000000
Dataflow = ws
ReadRequestBuffer = 64
WriteRequestBuffer = 64
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = {sparse}
SparseRep = ellpack_block
OptimizedMapping = false
BlockSize = 8
RandomNumberGeneratorSeed = 40
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""
"""Bandwidth is as much as is asked for (CALC). Every layer has the N:M ratio that its line in the
topology names; `OptimizedMapping` would draw a ratio for each row instead."""

_RUN = """\
import sys
from scalesim.scale_sim import scalesim
folder = sys.argv[1]
scalesim(
    save_disk_space=True, verbose=False, config=folder + "/array.cfg",
    topology=folder + "/product.csv", layout=folder + "/layout.csv", input_type_gemm=True,
).run_scale(top_path=folder)
"""


def _scalesim_cycles(python: Path, product: Product, pattern: Pattern) -> int:
    """Return the cycles that SCALE-Sim takes, from the cache or by running it."""
    dense = pattern is Pattern.DENSE
    ratio = "1:1" if dense else str(pattern)
    files = {
        "array.cfg": _CONFIGURATION.format(side=_SIDE, sparse=str(not dense).lower()),
        "product.csv": f"Layer,M,N,K,Sparsity,\nproduct,{product.m},{product.n},{product.k},"
        f"{ratio},\n",
        # It reads one even if it uses none.
        "layout.csv": "Layer,\n",
    }
    key = digest([_REQUIREMENTS.read_text(), _RUN, files])
    kept = CACHE / "scalesim" / f"{key}.json"
    if kept.exists():
        return int(json.loads(kept.read_text())["cycles"])
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_text(content)
        _check(
            f"SCALE-Sim: {product.name}, {pattern}",
            [str(python), "-c", _RUN, folder],
        )
        with open(Path(folder) / "product" / "COMPUTE_REPORT.csv", newline="") as report:
            [row] = csv.DictReader(report, skipinitialspace=True)
    cycles = round(float(row["Total Cycles"]))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"cycles": cycles}) + "\n")
    return cycles


def _environment() -> Path:
    """Return the Python of SCALE-Sim's environment, making it if it isn't there."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = CACHE / f"scalesim-{digest([version, _REQUIREMENTS.read_text()])}"
    python = folder / "bin" / "python"
    with locked(folder):
        if not (folder / "complete").exists():
            venv.create(folder, with_pip=True, clear=True)
            _check(
                "installing SCALE-Sim",
                [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                 "--requirement", str(_REQUIREMENTS)],
            )  # fmt: skip
            (folder / "complete").touch()
    return python


def _check(what: str, command: list[str]) -> None:
    """Run a command; refuse to go on if it fails."""
    try:
        run = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ScaleSimError(f"{what} didn't end within {_LONGEST} seconds") from None
    if run.returncode:
        raise ScaleSimError(f"{what} failed:\n{run.stdout[-2000:]}")
