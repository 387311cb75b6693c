"""Figures, tables and the page of a sweep."""

import copy
import json
import math
import re
import xml.etree.ElementTree as ET

import pytest

from firmware.models import NETWORKS
from sim.networks import charts, report
from sim.networks.evaluate import Job, evaluate
from sim.networks.figures import jobs, summary
from sim.networks.points import POINTS, Point
from sim.networks.tables import tables

from .small import small

METHODS = ("dense", "bdwp-2:8", "bdwp-1:8")
# As large as each other, the second pretends to be twice as fast.
ONE, TWO = Point("one", "sim"), Point("two", "sim-wide")
BATCHES = {"small": 16, "other": 16}


@pytest.fixture(scope="module")
def results():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "small", small)
        patch.setitem(NETWORKS, "other", small)
        measured = {method: evaluate(Job("small", method, "sim", 16)) for method in METHODS}
        found = {}
        for job in jobs((ONE, TWO), BATCHES, METHODS):
            source = copy.deepcopy(measured[job.method])
            result = source | {"network": job.network, "preset": job.preset}
            if job.preset == "sim-wide":
                result["cycles"] = {name: n // 2 for name, n in result["cycles"].items()}
            found[job] = result
        refused = Job("other", "bdwp-2:8", "sim", 16)
        found[refused] = {"error": "conv 1: does not fit"}
        return found


@pytest.fixture(scope="module")
def figures(results):
    return summary((ONE, TWO), BATCHES, METHODS, results)


def test_every_method_is_compared_with_dense_training():
    found = jobs(POINTS.values(), {"resnet9": 8}, ("bdwp-1:8",))
    assert set(found) == {
        Job("resnet9", method, preset, 8)
        for method in ("dense", "bdwp-1:8")
        for preset in ("u250-1k", "u250")
    }


def test_speedups_and_their_means(figures, results):
    one, two = figures["points"]
    record = one["networks"]["small"]["bdwp-1:8"]
    cycles = [results[Job("small", m, "sim", 16)]["cycles"] for m in ("dense", "bdwp-1:8")]
    assert record["speedup"] == cycles[0]["total"] / cycles[1]["total"] > 1
    assert record["ceiling"] == pytest.approx(small_ceiling("bdwp-1:8"))
    assert record["images_per_s"] == pytest.approx(16 * one["clock_hz"] / cycles[1]["total"])
    assert one["geomean"]["dense"] == 1
    # Of those that could be done.
    assert "bdwp-2:8" not in one["networks"]["other"]
    assert one["geomean"]["bdwp-2:8"] == one["networks"]["small"]["bdwp-2:8"]["speedup"]
    means = [two["networks"][name]["bdwp-2:8"]["speedup"] for name in BATCHES]
    assert two["geomean"]["bdwp-2:8"] == pytest.approx(math.sqrt(math.prod(means)))


def small_ceiling(method):
    from firmware.model import Method

    return small(Method.parse(method)).ceiling


def test_points_are_compared(figures):
    one, two = figures["points"]
    assert "over_first" not in one["networks"]["small"]["dense"]
    record = two["networks"]["small"]["bdwp-2:8"]
    assert record["over_first"] == pytest.approx(2, rel=1e-4)
    assert two["geomean_over_first"]["bdwp-2:8"] == pytest.approx(2, rel=1e-4)
    for limit, rate in record["images_per_s_allowed"].items():
        before = one["networks"]["small"]["bdwp-2:8"]["images_per_s"]
        assert record["over_first_allowed"][limit] == pytest.approx(rate / before)


def test_gaps_are_explained(figures):
    records = [
        record
        for point in figures["points"]
        for methods in point["networks"].values()
        for record in methods.values()
    ]
    explained = [record for record in records if "gap" in record]
    assert len(explained) > 1
    for record in records:
        assert ("gap" in record) == (record["shortfall"] > 0.03)
        assert record["shortfall"] == pytest.approx(1 - record["speedup"] / record["ceiling"])


def test_failures_are_told(figures):
    [failed] = figures["failed"]
    assert failed["reason"] == "conv 1: does not fit"
    assert "other, bdwp-2:8, sim" in failed["job"]
    assert "conv 1: does not fit" in report.text(figures)


def test_tables_have_no_ragged_rows(figures):
    shown = figures | {"scalesim": [_PRODUCT]}
    for table in tables(shown):
        assert table.rows and {len(row) for row in table.rows} == {len(table.heads)}
    assert "1.75" in report.text(shown) and "ViT mlp" in report.text(shown)


_PRODUCT = {
    "layer": "ViT mlp", "m": 128, "n": 384, "k": 1536, "pattern": "2:8", "macs": 1024,
    "cycles_scalesim": 30_000, "cycles_model": 20_000, "slots_model": 18_432,
}  # fmt: skip


def test_the_page_needs_nothing_else(figures, results, tmp_path):
    paths = report.write(figures | {"scalesim": [_PRODUCT]}, results, tmp_path / "out")
    assert [path.name for path in paths] == ["networks.json", "networks.txt", "networks.html"]
    content = json.loads(paths[0].read_text())
    assert [point["macs"] for point in content["points"]] == [256, 256]
    page = paths[2].read_text()
    assert not re.search(r"""(src|href)\s*=|url\(|@import|<script""", page)
    assert "prefers-color-scheme: dark" in page
    drawn = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    # For each point causes and roofline, and timelines of dense and 2:8 where both were done.
    assert len(drawn) == 4 + 3 + 4
    for svg in drawn:
        assert svg.get("aria-label")
        for shape in (*svg.iter("rect"), *svg.iter("circle")):
            numbers = [float(shape.get(name, 0)) for name in ("x", "y", "width", "height", "r")]
            assert all(map(math.isfinite, numbers)) and min(numbers) >= 0


def test_bars_are_as_long_as_what_they_show():
    bars = [charts.Bar("a", {"x": 0.25, "y": 0.75}), charts.Bar("b", {"y": 0.5})]
    svg = ET.fromstring(charts.stacked_bars(bars, ["x", "y"], "words"))
    widths = {r.find("title").text: float(r.get("width")) for r in svg.iter("rect") if len(r)}
    assert widths["a: y 75.0%"] == pytest.approx(3 * widths["a: x 25.0%"], rel=1e-3)
    assert widths["b: y 50.0%"] == pytest.approx(2 * widths["a: x 25.0%"], rel=1e-3)


def test_bounds_of_a_roofline_meet_where_both_allow_as_much():
    dots = [charts.Dot(1.0, 100.0, "a", "first"), charts.Dot(1000.0, 1000.0, "a", "second")]
    roofs = [charts.Roof("flat", constant=1000.0), charts.Roof("slope", slope=10.0)]
    svg = ET.fromstring(charts.roofline(dots, roofs, ["a"], ("x", "y"), "words"))
    flat, slope = [line for line in svg.iter("line") if line.get("class") == "roof"]
    assert flat.get("y1") == flat.get("y2")
    # At x = 100 the slope reaches the flat one: there it ends, the chart's upper edge.
    first, second = svg.iter("circle")
    assert float(slope.get("y2")) == pytest.approx(float(flat.get("y1")), abs=0.5)
    middle = (float(first.get("cx")) + 2 * float(second.get("cx"))) / 3
    assert float(slope.get("x2")) == pytest.approx(middle, abs=0.5)
    assert float(first.get("cy")) > float(second.get("cy")) == float(flat.get("y1"))
