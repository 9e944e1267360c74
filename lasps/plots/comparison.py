"""Plots of a Comparison's frames for runs, notebooks and files; `lasps.plots.vega.comparison` has those of the page.

Frames are polars, of one split each; columns as in lasps.evaluation.frames.SCHEMAS, null where undefined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lasps.config.settings import CLASS_NAMES
from lasps.plots.colors import CLASS_COLORS, MODEL_COLORS
from lasps.plots.style import new_figure, sector_name, set_title

SIDE_COLORS = {"b": CLASS_COLORS["BUY"], "a": CLASS_COLORS["SELL"], None: CLASS_COLORS["HOLD"]}
"""Which side of a pair is better: b red, a blue, neither grey."""


def class_accuracy(classes: pl.DataFrame, title: str = "Class-wise accuracy") -> Figure:
    """Class-wise accuracy of one or several models side by side, with 95 % intervals over days."""
    figure, axes = new_figure(9.5, 3.8)
    _class_bars(axes[0, 0], classes)
    set_title(figure, f"{title}, with 95 % intervals over days")
    return figure


def _class_bars(ax: Axes, classes: pl.DataFrame, fontsize: float = 7) -> None:
    models = classes["model"].unique(maintain_order=True).to_list()
    width = 0.8 / len(models)
    places = []
    for c, name in enumerate(CLASS_NAMES):
        rows = classes.filter(pl.col("class") == name).to_dicts()
        for i, row in enumerate(rows):
            accuracy, x = 100 * (row["accuracy"] or 0.0), c + (i - (len(models) - 1) / 2) * width
            places.append(x)
            ax.bar(x, accuracy, 0.9 * width, color=CLASS_COLORS[name], alpha=0.4 + 0.6 * (i + 1) / len(models))
            if row["low"] is not None:
                ax.plot([x, x], [100 * row["low"], 100 * row["high"]], color="black", linewidth=1.2)
            ax.annotate(
                "-" if row["accuracy"] is None else f"{accuracy:.1f} %",
                (x, accuracy if row["high"] is None else 100 * row["high"]),
                xytext=(0, 3),
                ha="center",
                fontsize=fontsize,
                textcoords="offset points",
            )
        ax.text(
            c,
            0.99,
            f"{name} (n {rows[0]['n']:,})",
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=fontsize + 2,
            fontweight="bold",
            color=CLASS_COLORS[name],
        )
    ax.set_xticks(places, models * len(CLASS_NAMES), fontsize=fontsize, rotation=30, ha="right")
    ax.set_ylim(0, 122 * (classes.select(pl.max_horizontal("accuracy", "high").max()).item() or 1.0))
    ax.set_ylabel("recall, %")


def confusion(cells: pl.DataFrame) -> Figure:
    """One matrix per model: counts and, as colour, the share of the true class."""
    models = cells["model"].unique(maintain_order=True).to_list()
    figure, axes = new_figure(3.7 * len(models), 3.8, 1, len(models))
    for ax, name in zip(axes[0], models, strict=True):
        rows = cells.filter(model=name)
        counts, shares = (rows[column].fill_null(0.0).to_numpy().reshape(3, 3) for column in ("n", "share"))
        ax.imshow(shares, cmap="Greys", vmin=0, vmax=1)
        for (i, j), share in np.ndenumerate(shares):
            color = "white" if share > 0.55 else "black"
            text = f"{100 * share:.0f} %\n{counts[i, j]:,.0f}"
            ax.text(j, i, text, ha="center", va="center", fontsize=9, color=color)
        _class_ticks(ax)
        ax.set_title(f"{name}: accuracy {100 * np.trace(counts) / max(counts.sum(), 1):.2f} %", loc="left", fontsize=10)
    set_title(figure, "Confusion: rows are the true class, columns the predicted class")
    return figure


def _class_ticks(ax: Axes) -> None:
    ax.grid(False)
    ax.set_xticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    ax.set_yticks(range(len(CLASS_NAMES)), CLASS_NAMES)
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        for label, name in zip(labels, CLASS_NAMES, strict=True):
            label.set_color(CLASS_COLORS[name])
            label.set_fontweight("bold")


def sector_differences(sectors: pl.DataFrame, a: str, b: str, names: Sequence[str] | None = None) -> Figure:
    """Log loss of b minus a per sector, best first, with n and 95 % intervals.

    Args:
        names: sector names of foreign data.
    """
    figure, axes = new_figure(8.5, 1.2 + 0.28 * len(sectors))
    _sector_intervals(axes[0, 0], sectors, a, b, names)
    set_title(figure, f"{b} against {a}, sector by sector, with 95 % intervals over days")
    return figure


def _sector_intervals(ax: Axes, sectors: pl.DataFrame, a: str, b: str, names: Sequence[str] | None) -> None:
    rows = sectors.sort("difference", nulls_last=True).to_dicts()
    for y, row in enumerate(rows):
        color = SIDE_COLORS[row["better"]]
        if row["low"] is not None:
            ax.plot([row["low"], row["high"]], [y, y], color=color, linewidth=2)
        ax.plot(row["difference"], y, "o", color=color, markersize=5)
    ax.axvline(0, color="black", linewidth=0.9)
    ax.set_yticks(range(len(rows)), [f"{sector_name(row['sector'], names)}  (n {row['n']:,})" for row in rows])
    ax.invert_yaxis()
    ax.set_xlabel(
        f"{b} minus {a}, log loss, nats; left of 0 is better\n"
        "red: better, blue: worse, grey: neither (Holm's correction)",
        fontsize=8,
    )


def calibration(curves: pl.DataFrame) -> Figure:
    """Predicted probability against observed share, per class; a calibrated model lies on the diagonal."""
    figure, axes = new_figure(11, 3.8, 1, len(CLASS_NAMES))
    for ax, name in zip(axes[0], CLASS_NAMES, strict=True):
        points = curves.filter(pl.col("class") == name)
        by_model = points.partition_by("model", maintain_order=True, as_dict=True)
        for ((model,), rows), color in zip(by_model.items(), MODEL_COLORS, strict=False):
            ax.plot(rows["probability"], rows["share"], color=color, marker="o", markersize=3.5, label=str(model))
        top = 1.05 * points.select(pl.max_horizontal("probability", "share").max()).item()
        ax.plot([0, top], [0, top], color="black", linewidth=0.8)
        ax.set(xlim=(0, top), ylim=(0, top), xlabel=f"predicted P({name})", ylabel="observed share")
        ax.set_title(name, color=CLASS_COLORS[name], loc="left", fontsize=10, fontweight="bold")
    axes[0, 0].legend(fontsize=8, frameon=False)
    set_title(figure, "Calibration: equal-mass bins; on the diagonal, a predicted 30 % happens 30 times in 100")
    return figure


def changed_classes(changes: pl.DataFrame, a: str, b: str) -> Figure:
    """Samples whose predicted class changed from a to b, and how often each was right: from, to, n, right, before."""
    figure, axes = new_figure(9, 1.3 + 0.42 * max(len(changes), 1))
    ax = axes[0, 0]
    if changes.is_empty():
        ax.set_axis_off()
        same = f"no predicted class changed: {a} and {b} predict the same class for every sample"
        ax.text(0.5, 0.5, same, ha="center", va="center", transform=ax.transAxes)
    for y, row in enumerate(changes.to_dicts()):
        ax.barh(y, row["n"], color=CLASS_COLORS[row["to"]])
        text = f"{100 * row['right']:.0f} % right now, {100 * row['before']:.0f} % before"
        ax.annotate(text, (row["n"], y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(range(len(changes)), [f"{row['from']} → {row['to']}" for row in changes.to_dicts()])
    ax.invert_yaxis()
    ax.set_xlabel("samples whose predicted class changed")
    ax.margins(x=0.3)
    set_title(figure, f"From {a} to {b}: which predicted classes changed, and were they better?")
    return figure


def overview(
    classes: pl.DataFrame, sectors: pl.DataFrame, a: str | None, b: str, names: Sequence[str] | None = None
) -> Figure:
    """Two plots in one: class-wise accuracy of every model, and b against a sector by sector (where there are rows)."""
    figure, axes = new_figure(14, 5.6, 1, 2, width_ratios=(1.5, 1))
    left, right = axes[0]
    _class_bars(left, classes, fontsize=6.5)
    left.set_title("Class-wise accuracy", loc="left", fontsize=11)
    right.set_visible(len(sectors) > 0)
    if len(sectors):
        _sector_intervals(right, sectors, str(a), b, names)
        right.set_title(f"{b} against {a}, sector by sector", loc="left", fontsize=11)
    set_title(figure, f"Comparison on {classes['split'][0]}, with 95 % intervals over days")
    return figure
