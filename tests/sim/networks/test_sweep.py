"""Sweeps carry out what is missing, wherever that is, and go on after failures."""

import pytest

from firmware.models import NETWORKS
from sim.networks import sweep as module
from sim.networks.evaluate import Job
from sim.networks.sweep import in_processes, on_cluster, sources_key, sweep

from .small import small

GOOD = Job("resnet9", "dense", "vcu1525-1k", 1)
REFUSED = Job("resnet9", "bdwp-2:16", "vcu1525-1k", 1)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CACHE", tmp_path / "networks")


class _Inline:
    """Carries jobs out here, and counts them."""

    def __init__(self):
        self.carried_out = []

    def __call__(self, jobs):
        for job in jobs:
            self.carried_out.append(job)
            yield job, module._carry_out(job)


def test_results_are_kept(monkeypatch):
    monkeypatch.setitem(NETWORKS, "small", small)
    jobs = [Job("small", method, "sim", 32) for method in ("dense", "bdwp-2:8", "bdwp-2:16")]
    run, told = _Inline(), []
    first = sweep(jobs[:2], run, lambda job, result: told.append(job))
    assert run.carried_out == told == jobs[:2]
    second = sweep(jobs + jobs[:1], run, lambda job, result: told.append(job))
    assert run.carried_out == jobs
    assert sorted(map(str, told[2:])) == sorted(map(str, jobs))
    assert {job: second[job] for job in jobs[:2]} == first
    # What can't be scheduled is kept as well: it won't be better the next time.
    assert "doesn't support 2:16" in second[jobs[2]]["error"]
    assert sweep(jobs, run, lambda job, result: None) == second
    assert run.carried_out == jobs


def test_unexpected_failures_are_tried_again():
    calls = []

    def run(jobs):
        calls.extend(jobs)
        for job in jobs:
            yield job, module._unexpected(job, RuntimeError("a worker has died"))

    for _ in range(2):
        results = sweep([GOOD], run, lambda job, result: None)
        assert results[GOOD]["error"] == "RuntimeError: a worker has died"
    assert calls == [GOOD, GOOD]


def test_sources_count(monkeypatch, tmp_path):
    key = sources_key()
    assert key == sources_key()
    (tmp_path / "changed.py").write_text("changed")
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    monkeypatch.setattr(module, "_SOURCES", ("changed.py",))
    changed = sources_key()
    (tmp_path / "changed.py").write_text("again")
    assert len({key, changed, sources_key()}) == 3


def _check(results):
    """Check those of a network and of one that isn't possible."""
    assert set(results) == {GOOD, REFUSED}
    assert results[GOOD]["cycles"]["total"] > 100_000
    assert results[GOOD]["network"] == "resnet9"
    assert "2:16" in results[REFUSED]["error"] and "unexpected" not in results[REFUSED]


def test_in_processes():
    _check(dict(in_processes([REFUSED, GOOD], processes=2)))


def test_on_a_cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        _check(dict(on_cluster([REFUSED, GOOD], cluster.scheduler_address)))
