"""Carries out many jobs: in processes, or on a Dask cluster; what was computed before isn't again.

Results are kept by what they depend on: sources, network, card with its memory, and batch.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from firmware.errors import AllocationError, CardError, ModelError, ScheduleError

from ..cache import digest
from .evaluate import Job, evaluate

__all__ = ["CACHE", "Result", "Runner", "in_processes", "on_cluster", "sources_key", "sweep"]

Result = dict[str, Any]
"""What `evaluate` returns, or of a job that can't be done its fields and ``error``."""

CACHE = Path(os.environ.get("SAT_BUILD", "build")) / "networks"

_ROOT = Path(__file__).parents[2]

_SOURCES = ("rtl", "firmware", "sim/cycles", "sim/networks/evaluate.py", "sim/networks/timeline.py")
"""What a result depends on."""

Runner = Callable[[Sequence[Job]], Iterator[tuple[Job, Result]]]
"""Yields jobs with their results as they come."""


def sources_key() -> str:
    """Return a short name for the sources that decide what a job's result is."""
    files: list[Path] = []
    for name in _SOURCES:
        path = _ROOT / name
        found = [path] if path.is_file() else path.rglob("*")
        files += [file for file in found if file.suffix in (".py", ".hpp", ".cpp")]
    return digest([[str(file.relative_to(_ROOT)), file.read_text()] for file in sorted(files)])


def sweep(
    jobs: Iterable[Job], run: Runner, done: Callable[[Job, Result], None]
) -> dict[Job, Result]:
    """Return the result of every job, from the cache or else from `run`.

    Parameters
    ----------
    jobs
        What is wanted.
    run
        `in_processes` or `on_cluster`, with its options.
    done
        Is told of each result as it comes.
    """
    sources = sources_key()
    results: dict[Job, Result] = {}
    missing: list[Job] = []
    for job in dict.fromkeys(jobs):
        path = _path(job, sources)
        if path.exists():
            results[job] = json.loads(path.read_text())
            done(job, results[job])
        else:
            missing.append(job)
    for job, result in run(missing) if missing else ():
        results[job] = result
        # A job that failed unexpectedly is tried again the next time.
        if not result.get("unexpected"):
            _keep(_path(job, sources), result)
        done(job, result)
    return results


def in_processes(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, Result]]:
    """Carry out jobs in processes of this machine; the longest of them first."""
    # A process for each job: what one has allocated doesn't add up with the others'.
    context = multiprocessing.get_context("spawn")
    workers = min(processes, len(jobs))
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        futures = {pool.submit(_carry_out, job): job for job in _longest_first(jobs)}
        for future in as_completed(futures):
            job = futures[future]
            error = future.exception()
            yield job, _unexpected(job, error) if error else future.result()


def on_cluster(jobs: Sequence[Job], address: str) -> Iterator[tuple[Job, Result]]:
    """Carry out jobs on the workers of the Dask scheduler at `address`.

    Workers need this version of the project, and a directory of their own that they may write to.

    Raises
    ------
    ImportError
        Dask isn't installed.
    OSError
        No scheduler answers at that address.
    """
    from distributed import Client
    from distributed import as_completed as completed

    with Client(address) as client:
        ordered = _longest_first(jobs)
        # The same job may have other results with other sources: no result is to be reused there.
        futures = {client.submit(_carry_out, job, pure=False): job for job in ordered}
        for future in completed(list(futures)):
            job = futures[future]
            error = future.exception()
            yield job, _unexpected(job, error) if error else future.result()


def _carry_out(job: Job) -> Result:
    try:
        return evaluate(job)
    except (ScheduleError, AllocationError, ModelError, CardError) as error:
        return _fields(job) | {"error": str(error)}


def _unexpected(job: Job, error: BaseException) -> Result:
    return _fields(job) | {"error": f"{type(error).__name__}: {error}", "unexpected": True}


def _fields(job: Job) -> Result:
    return {
        "network": job.network,
        "method": job.method,
        "preset": job.preset,
        "batch": job.batch,
    }


def _longest_first(jobs: Sequence[Job]) -> list[Job]:
    """Return jobs by the layers that their networks have, which most of the time goes into."""
    return sorted(jobs, key=lambda job: -len(job.model().layers) * job.batch)


def _path(job: Job, sources: str) -> Path:
    return CACHE / f"{job.key(sources)}.json"


def _keep(path: Path, result: Result) -> None:
    """Write a result so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(result))
    partial.replace(path)
