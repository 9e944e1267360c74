"""Pictures of a comparison. Each takes the comparison's dictionary and returns a matplotlib Figure, or None."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lasps.config.settings import CLASS_COLORS, CLASS_NAMES
from lasps.evaluation.class_accuracy import Share
from lasps.evaluation.figures import MODEL_COLORS, draw_class_accuracy, draw_sector_differences, new_figure

BASELINE_COLOR = "#9aa0a8"
SHOWN_BASELINES = ("lightgbm", "volatility_bins")
Result = Mapping[str, Any]


def as_base64(figure: Figure) -> str:
    """The figure as a PNG data URI, so that a report is one file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def shown_models(result: Result, split: str) -> list[tuple[str, Mapping[str, Any], str]]:
    """(name, figures, color) of the models on this split, then LightGBM and volatility bins in grey."""
    present = {n: m[split] for n, m in result["models"].items() if split in m}
    models = [n for n in present if not present[n]["baseline"]]
    colored = [(n, present[n], MODEL_COLORS[i % len(MODEL_COLORS)]) for i, n in enumerate(models)]
    return colored + [(n, present[n], BASELINE_COLOR) for n in SHOWN_BASELINES if n in present]


def _axes(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="#e8eaed", linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, list(axes)


def _style(name: str) -> dict[str, Any]:
    return {"linestyle": "--" if name in SHOWN_BASELINES[1:] else "-", "marker": "o", "markersize": 3.5}


def _forest(ax: Axes, labels: Sequence[str], rows: Sequence[Mapping[str, Any]], better_below: bool) -> None:
    """One line per row: difference and interval; red where b is better, blue where worse, grey where neither."""
    for y, row in enumerate(rows):
        low, high = row["interval"] or [row["difference"]] * 2
        color = CLASS_COLORS["HOLD"]
        if row["better"] is not None:
            color = CLASS_COLORS["BUY"] if row["better"] == "b" else CLASS_COLORS["SELL"]
        ax.plot([low, high], [y, y], color=color, linewidth=2.2)
        ax.plot(row["difference"], y, "o", color=color, markersize=5)
    ax.axvline(0, color="black", linewidth=0.9)
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set_xlabel(f"difference in log loss; left of 0 is {'better' if better_below else 'worse'}")


def difference_figure(result: Result, split: str) -> Figure | None:
    """Log-loss differences of every pair with their 95 % intervals."""
    rows = [p for p in result["pairs"] if p["split"] == split and p["metric"] == "log_loss"]
    rows = [p for p in rows if p["difference"] is not None]
    if not rows:
        return None
    figure, (ax,) = _axes(8.2, 0.9 + 0.32 * len(rows))
    _forest(ax, [f"{p['b']} minus {p['a']}" for p in rows], rows, better_below=True)
    over = "seeds and days" if any(p["n_seeds"] > 1 for p in rows) else "days"
    ax.set_title(f"{split}: b minus a, 95 % intervals over {over}", loc="left", fontsize=10)
    return figure


def sector_figure(result: Result, split: str, a: str, b: str) -> Figure | None:
    """Log-loss differences per sector; coloured where they differ after Holm's correction."""
    rows = [s for s in result["sectors"] if (s["split"], s["a"], s["b"]) == (split, a, b)]
    if not rows or all(s["interval"] is None for s in rows):
        return None
    names = result.get("sector_names") or []
    labels = [f"{sector_name(names, s['sector'])}  (n {s['n']:,})" for s in rows]
    figure, (ax,) = _axes(8.2, 0.9 + 0.26 * len(rows))
    _forest(ax, labels, rows, better_below=True)
    ax.set_title(f"{split}: {b} minus {a} per sector", loc="left", fontsize=10)
    return figure


def sector_name(names: Sequence[str], sector: int) -> str:
    return f"{sector:2d} {names[sector]}" if sector < len(names) else f"sector {sector}"


def calibration_figure(result: Result, split: str) -> Figure | None:
    """Per class: stated probability against observed share."""
    models = shown_models(result, split)
    figure, axes = _axes(10, 3.6, len(CLASS_NAMES))
    for ax, name in zip(axes, CLASS_NAMES, strict=True):
        top = 0.0
        for model, m, color in models:
            points = m["calibration"][name]
            x, y = [p["probability"] for p in points], [p["share"] for p in points]
            top = max(top, *x, *y)
            ax.plot(x, y, color=color, label=model, **_style(model))
        ax.plot([0, 1], [0, 1], color="black", linewidth=0.8)
        ax.set(xlim=(0, top * 1.05), ylim=(0, top * 1.05), xlabel=f"stated P({name})")
        ax.set_title(name, color=CLASS_COLORS[name], loc="left", fontsize=10)
    axes[0].set_ylabel("observed share")
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def coverage_figure(result: Result, split: str) -> Figure | None:
    """Accuracy on the samples that the model is surest of."""
    figure, (ax,) = _axes(5.4, 3.4)
    for model, m, color in shown_models(result, split):
        curve = m["coverage"]
        x, y = [100 * c["coverage"] for c in curve], [100 * c["accuracy"] for c in curve]
        ax.plot(x, y, color=color, label=model, **_style(model))
    ax.set(xlabel="share of samples acted on, surest first, %", ylabel="accuracy, %")
    ax.legend(fontsize=7, frameon=False)
    return figure


def decile_figure(result: Result, split: str) -> Figure | None:
    """Mean 5-day forward return by decile of P(BUY) - P(SELL), minus the equal-weight universe."""
    models = [x for x in shown_models(result, split) if x[1].get("portfolio")]
    if not models:
        return None
    figure, (ax,) = _axes(5.4, 3.4)
    for model, m, color in models:
        book = m["portfolio"]
        excess = [np.nan if decile["mean"] is None else 100 * decile["mean"] for decile in book["deciles"]]
        ax.plot(range(1, 11), excess, color=color, label=model, **_style(model))
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xlabel="decile of the score (10: most bullish)", ylabel="5-day return above the universe, %")
    ax.set_xticks(range(1, 11))
    ax.legend(fontsize=7, frameon=False)
    return figure


def quintile_figure(result: Result, split: str) -> Figure | None:
    """Rank IC within daily volatility quintiles: what is left once volatility is known."""
    models = [x for x in shown_models(result, split) if x[1]["rank_ic_in_volatility_quintiles"][0] is not None]
    if not models:
        return None
    figure, (ax,) = _axes(5.4, 3.4)
    for model, m, color in models:
        values = [np.nan if v is None else v for v in m["rank_ic_in_volatility_quintiles"]]
        ax.plot(range(1, 6), values, color=color, label=model, **_style(model))
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xlabel="quintile of 20-day volatility (5: wildest)", ylabel="rank IC")
    ax.set_xticks(range(1, 6))
    ax.legend(fontsize=7, frameon=False)
    return figure


def recall_figure(result: Result, split: str) -> Figure | None:
    """Class-wise accuracy, one group of bars per model."""
    models = shown_models(result, split)
    figure, (ax,) = _axes(5.4, 3.4)
    for i, name in enumerate(CLASS_NAMES):
        heights = [100 * (m["class_accuracy"][name] or 0.0) for _, m, _ in models]
        ax.bar(np.arange(len(models)) + 0.27 * (i - 1), heights, 0.25, color=CLASS_COLORS[name], label=name)
    ax.set_xticks(range(len(models)), [n for n, _, _ in models], fontsize=7, rotation=15, ha="right")
    ax.set_ylabel("class-wise accuracy, %")
    ax.set_ylim(0, 118)
    ax.legend(fontsize=7, frameon=False, ncols=len(CLASS_NAMES), loc="upper left")
    return figure


def comparison_picture(result: Result, shares: Mapping[str, Mapping[str, Share]], split: str) -> Figure:
    """Two pictures in one: class-wise accuracy of every model, and the last model against the one before per sector.

    Args:
        shares: model -> class -> its accuracy with an interval over days.
    """
    a, b = ([None, None, *shares])[-2:]
    rows = [row for row in result["sectors"] if (row["split"], row["a"], row["b"]) == (split, a, b)]
    figure, axes = new_figure(14, 5.6, 1, 2, width_ratios=(1.5, 1))
    draw_class_accuracy(axes[0, 0], shares, fontsize=6.5)
    axes[0, 0].set_title(f"Class-wise accuracy on {split}, 95 % intervals over days", loc="left", fontsize=11)
    if rows:
        bounds = [row["interval"] or (np.nan, np.nan) for row in rows]
        frame = pd.DataFrame(rows).assign(low=[low for low, _ in bounds], high=[high for _, high in bounds],
                                          significant=[row["better"] is not None for row in rows])
        draw_sector_differences(axes[0, 1], frame, str(a), str(b), names=result.get("sector_names") or None)
        axes[0, 1].set_title(f"{b} against {a}, sector by sector", loc="left", fontsize=11)
    else:
        axes[0, 1].set_visible(False)
    return figure
