"""Reports of a training: JSON, a picture, and one page of HTML with both."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rtl.config import Config
from rtl.interface.register_map import STAGE_NAMES

from . import page
from .training import Outcome, Settings

__all__ = ["rows", "summary", "write"]

_STAGES = [stage.lower() for stage in STAGE_NAMES]

_RUNS = ("dense", "sparse")

_TITLES = {
    "ff": "FF, forward",
    "bp": "BP, data gradient",
    "wu": "WU, weight gradient",
    "update": "update",
}

_STAGE_COLOURS = {"ff": "#2a6f97", "bp": "#61a5c2", "wu": "#e09f3e", "update": "#9e2a2b"}

_RUN_COLOURS = ("#6c757d", "#d1495b")

_PRUNED = {
    "bdwp": "forward and backward weights",
    "ff": "forward weights only",
    "bp": "backward weights only",
}

_SLOTS = {
    "useful": ("useful", "#2b7a3d"),
    "edge": ("padding, biases", "#7a9e1f"),
    "filler": ("empty lanes", "#cf9a20"),
    "fill": ("filling", "#f78154"),
    "drain": ("draining", "#b5446e"),
    "operand": ("no product ready", "#8d959d"),
}
"""Where the array's multiply-adds go: words and colour."""


def summary(
    settings: Settings, config: Config, dense: Outcome, sparse: Outcome, seconds: float
) -> dict[str, Any]:
    """Return the figures of both runs; see docs for each one's meaning."""
    compared = [run.mismatches for run in (dense, sparse) if run.mismatches is not None]
    return {
        "accuracy_dense": dense.accuracy,
        "accuracy_sparse": sparse.accuracy,
        "cycles_dense": dense.cycles,
        "cycles_sparse": sparse.cycles,
        "utilisation_dense": dense.utilisation,
        "utilisation_sparse": sparse.utilisation,
        "lost": {"dense": dense.lost, "sparse": sparse.lost},
        "slots_add_up": None if dense.adds_up is None else dense.adds_up and bool(sparse.adds_up),
        "speedup": _ratio(dense.cycles["total"], sparse.cycles["total"]),
        "ceiling": sparse.dense_useful / sparse.useful,
        "bit_exact": not any(compared) if compared else None,
        "mismatches": {"dense": dense.mismatches, "sparse": sparse.mismatches},
        "compared_bytes": dense.compared_bytes + sparse.compared_bytes,
        "model": settings.model,
        "method": settings.method,
        "pattern": sparse.pattern,
        "dense_layers": "first and last",
        "card": settings.card,
        "seed": settings.seed,
        "epochs": settings.epochs,
        "steps": len(dense.losses),
        "seconds": round(seconds, 1),
        "settings": dataclasses.asdict(settings),
        "config": dataclasses.asdict(config),
        "config_hash": f"{config.hash:#010x}",
        "loss_dense": dense.losses,
        "loss_sparse": sparse.losses,
        "loss_scale_dense": dense.loss_scale,
        "loss_scale_sparse": sparse.loss_scale,
        "skipped_steps_dense": dense.skipped,
        "skipped_steps_sparse": sparse.skipped,
        "test_cycles_dense": dense.test_cycles,
        "test_cycles_sparse": sparse.test_cycles,
        "counters_dense": dense.counters,
        "counters_sparse": sparse.counters,
    }


def rows(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table of dense against sparse: a heading, the two figures, and their ratio."""
    dense, sparse = figures["cycles_dense"], figures["cycles_sparse"]
    table: list[tuple[str, ...]] = [
        (
            "test accuracy",
            f"{figures['accuracy_dense']:.1%}",
            f"{figures['accuracy_sparse']:.1%}",
            f"{100 * (figures['accuracy_sparse'] - figures['accuracy_dense']):+.1f} points",
        )
    ]
    if not dense["total"]:
        return [*table, ("cycles", "no clock", "no clock", "")]
    for stage in [*_STAGES, "total"]:
        table.append(
            (
                f"cycles, {_TITLES.get(stage, stage)}",
                f"{dense[stage]:,}",
                f"{sparse[stage]:,}",
                f"{_ratio(dense[stage], sparse[stage]):.2f}x",
            )
        )
    table += [
        (f"cycles with operands, {stage}", *(_share(figures, run, stage) for run in _RUNS), "")
        for stage in ("FF", "BP", "WU")
    ]
    shares = [_slots(figures, run) for run in _RUNS]
    table += [
        (
            "useful MACs of all" if kind == "useful" else f"lost MACs, {words}",
            *(f"{share[kind]:.1%}" for share in shares),
            "",
        )
        for kind, (words, _) in _SLOTS.items()
    ]
    table.append(
        (
            "speedup",
            "1.00x",
            f"{figures['speedup']:.2f}x",
            f"ceiling by MAC count {figures['ceiling']:.2f}x",
        )
    )
    return table


def write(figures: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write ``train.json``, ``train.png`` and ``train.html``; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"train.{kind}" for kind in ("json", "png", "html")]
    paths[0].write_text(json.dumps(figures, indent=2) + "\n")
    _draw(figures, paths[1])
    paths[2].write_text(_page(figures, paths[1].read_bytes()))
    return paths


def _ratio(dense: int, sparse: int) -> float | None:
    return dense / sparse if sparse else None


def _share(figures: Mapping[str, Any], run: str, stage: str) -> str:
    """Return in how many of a stage's cycles the array took operands."""
    counters = figures[f"counters_{run}"]
    cycles = counters[f"CYCLES_{stage}"]
    return f"{counters[f'MAC_SLOTS_{stage}'] / cycles:.1%}" if cycles else ""


def _slots(figures: Mapping[str, Any], run: str) -> dict[str, float]:
    """Return the share of each of `_SLOTS`."""
    return {"useful": figures[f"utilisation_{run}"], **figures["lost"][run]}


def _draw(figures: Mapping[str, Any], path: Path) -> None:
    """Draw the loss curves; with a clock the cycles of each stage and the use of the MACs too."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    style: dict[Any, Any] = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#495057",
        "axes.titleweight": "bold",
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.titlepad": 12,
        "text.color": "#212529",
        "axes.labelcolor": "#343a40",
        "xtick.color": "#495057",
        "ytick.color": "#495057",
    }
    with plt.rc_context(style):
        if figures["cycles_dense"]["total"]:
            figure, axes = plt.subplot_mosaic(
                [["losses", "cycles"], ["slots", "slots"]],
                figsize=(11, 6.2),
                width_ratios=[1.45, 1],
                height_ratios=[3, 1],
            )
            _draw_cycles(axes["cycles"], figures)
            _draw_slots(axes["slots"], figures)
        else:
            figure, axes = plt.subplot_mosaic([["losses"]], figsize=(6.5, 4.4))
        _draw_losses(axes["losses"], figures)
        figure.set_layout_engine("constrained", wspace=0.06, hspace=0.06)
        figure.savefig(path, dpi=160)
        plt.close(figure)


def _draw_losses(axes: Any, figures: Mapping[str, Any]) -> None:
    pattern = figures["pattern"]
    for name, label, colour in zip(
        ("dense", "sparse"), ("dense", pattern), _RUN_COLOURS, strict=True
    ):
        losses = np.maximum(figures[f"loss_{name}"], 1e-4)
        steps = np.arange(1, len(losses) + 1)
        axes.plot(steps, losses, color=colour, alpha=0.25, linewidth=0.9)
        accuracy = figures[f"accuracy_{name}"]
        axes.plot(
            steps,
            _smooth(losses),
            color=colour,
            linewidth=2,
            label=f"{label}: {accuracy:.1%} test accuracy",
        )
    axes.set(yscale="log", xlabel="step", ylabel="training loss (cross-entropy)")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(1, max(2, len(figures["loss_dense"])))
    axes.set_title(f"Training on {figures['card']}")
    axes.grid(axis="y", color="#dee2e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="upper right")


def _smooth(values: np.ndarray, span: int = 9) -> np.ndarray:
    """Return the geometric moving average over up to `span` values."""
    half = span // 2
    logs = np.log(values)
    return np.exp([logs[max(0, i - half) : i + half + 1].mean() for i in range(len(logs))])


def _draw_cycles(axes: Any, figures: Mapping[str, Any]) -> None:
    runs = (("dense", "dense"), (figures["pattern"], "sparse"))
    steps = figures["steps"]
    bottoms = np.zeros(len(runs))
    for stage in _STAGES:
        heights = np.array([figures[f"cycles_{name}"][stage] / steps / 1e3 for _, name in runs])
        bars = axes.bar(
            [label for label, _ in runs],
            heights,
            bottom=bottoms,
            width=0.55,
            color=_STAGE_COLOURS[stage],
            edgecolor="white",
            linewidth=1,
            label=_TITLES[stage],
        )
        largest = figures["cycles_dense"]["total"] / steps / 1e3
        axes.bar_label(
            bars,
            [f"{height:.1f}" if height > 0.05 * largest else "" for height in heights],
            label_type="center",
            color="white",
            fontsize=9,
        )
        bottoms += heights
    for index, (_, name) in enumerate(runs):
        axes.annotate(
            f"{figures[f'utilisation_{name}']:.0%} of MACs useful",
            (index, bottoms[index]),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes.set_ylabel("thousand cycles per training step")
    axes.set_ylim(0, bottoms.max() * 1.12)
    axes.set_xlim(-0.5, len(runs) - 0.5)
    axes.set_title(f"{figures['speedup']:.2f}x faster ({figures['ceiling']:.2f}x by MAC count)")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1], labels[::-1], frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
    )


def _draw_slots(axes: Any, figures: Mapping[str, Any]) -> None:
    shares = [_slots(figures, run) for run in _RUNS]
    labels = ["dense", figures["pattern"]]
    lefts = np.zeros(len(_RUNS))
    for kind, (words, colour) in _SLOTS.items():
        widths = np.array([100 * share[kind] for share in shares])
        bars = axes.barh(
            labels,
            widths,
            left=lefts,
            height=0.62,
            color=colour,
            edgecolor="white",
            linewidth=1,
            label=words,
        )
        axes.bar_label(
            bars,
            [f"{width:.0f}" if width >= 3 else "" for width in widths],
            label_type="center",
            color="white",
            fontsize=9,
        )
        lefts += widths
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("percent of cycles x MACs")
    axes.set_title("Where the multiply-adds go")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


_CONTENT = """<p class="lead">{lead}</p>
<p class="{verdict_class}">{verdict}</p>
<img alt="Loss curves, cycles by stage, use of the MACs" src="data:image/png;base64,{picture}">
<h2>Dense against {pattern}</h2>
{table}
<h2>Settings</h2>
{settings}
<details><summary>Counters of the card</summary>
{counters}
</details>"""


def _page(figures: Mapping[str, Any], picture: bytes) -> str:
    """Return one self-contained page."""
    settings = figures["settings"]
    layers = {
        "mlp": f"Perceptron, hidden layers {_text(settings['hidden'])}",
        "cnn": f"Residual network, blocks of {_text(settings['widths'])} channels",
    }
    exact = figures["bit_exact"]
    verdicts = {
        None: ("", "Not compared with the golden model."),
        True: (
            "exact",
            f"Bit for bit equal to the golden model: {figures['compared_bytes']:,} bytes of "
            "weights, momentum and compressed copies.",
        ),
        False: ("wrong", "Differs from the golden model."),
    }
    log = {
        name: ", ".join(f"2^{exponent} from step {step}" for step, exponent in changes)
        + f"; {figures[f'skipped_steps_{name}']} steps skipped"
        for name, changes in (
            ("dense", figures["loss_scale_dense"]),
            ("sparse", figures["loss_scale_sparse"]),
        )
    }
    values = [(name.replace("_", " "), _text(value)) for name, value in settings.items()]
    values += [
        ("loss scale, dense", log["dense"]),
        ("loss scale, sparse", log["sparse"]),
        ("configuration", ", ".join(f"{k} {v}" for k, v in figures["config"].items())),
        ("configuration hash", figures["config_hash"]),
    ]
    counters = [
        (name, f"{value:,}", f"{figures['counters_sparse'][name]:,}")
        for name, value in figures["counters_dense"].items()
    ]
    pattern = figures["pattern"]
    content = _CONTENT.format(
        pattern=html.escape(pattern),
        lead=html.escape(
            f"{layers[settings['model']]}; the first and the last layer are dense. "
            f"Pruned: {_PRUNED[settings['method']]}. "
            f"{figures['epochs']} epochs of {settings['batch']}-image batches, seed "
            f"{figures['seed']}, on card {figures['card']}."
        ),
        verdict_class=verdicts[exact][0],
        verdict=html.escape(verdicts[exact][1]),
        picture=base64.b64encode(picture).decode(),
        table=page.table(("", "dense", pattern, ""), rows(figures)),
        settings=page.table(("setting", "value"), values),
        counters=page.table(("counter", "dense", pattern), counters),
    )
    return page.page("training report", f"Training with {pattern} weights", content)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
