"""The library of the model: what it is made from, and what is said if it can't be."""

import shutil

import pytest

from rtl.config import PRESETS
from sim.cycles import build
from sim.cycles.build import BuildError, build_library
from sim.cycles.gateware import Parameters, header, parameters


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "CACHE", tmp_path)
    return tmp_path


def test_a_missing_compiler(cache, monkeypatch):
    monkeypatch.setattr(build, "_COMPILER", "no-such-compiler")
    with pytest.raises(BuildError, match="needs no-such-compiler, which isn't there"):
        build_library()


def test_a_failing_compiler(cache, monkeypatch, tmp_path):
    sources = tmp_path / "sources"
    shutil.copytree(build.SOURCES, sources)
    (sources / "core.cpp").write_text("nonsense;")
    monkeypatch.setattr(build, "SOURCES", sources)
    with pytest.raises(BuildError, match=r"(?s)failed:.*nonsense"):
        build_library()
    assert not list(cache.glob("*/libcycles.so"))


def test_sources_make_the_name(monkeypatch):
    library = build_library()
    assert library == build_library() and library.exists()
    monkeypatch.setattr(build, "header", lambda: header() + "// other\n")
    monkeypatch.setattr(build, "_compile", lambda folder, library: None)
    assert build_library() != library


@pytest.mark.parametrize("config", PRESETS.values(), ids=lambda config: config.name)
def test_parameters_of_every_preset(config):
    if config.update_slices > 1:
        with pytest.raises(ValueError, match="slices"):
            parameters(config)
        return
    made = parameters(config)
    assert made.macs == config.macs and made.floats == config.floats
    assert all(getattr(made, name) >= 0 for name, kind in Parameters._fields_[:-3])
    # Patterns that aren't supported have no beats.
    assert sum(beats > 0 for beats in made.tile_beats) == (7 if config.group == 16 else 6)
