"""Labels and coverage of a dataset."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lasps.config.settings import CLASS_NAMES
from lasps.plots.colors import CLASS_COLORS, MARK_COLOR
from lasps.plots.style import new_figure, set_title


def label_shares(frame: pd.DataFrame, by: str, title: str) -> Figure:
    """Class shares per group as stacked bars: columns `by`, n, SELL, HOLD and BUY (shares 0..1)."""
    figure, axes = new_figure(9, 1.2 + 0.28 * len(frame))
    ax, left = axes[0, 0], np.zeros(len(frame))
    for name in CLASS_NAMES:
        ax.barh(range(len(frame)), 100 * frame[name], left=left, color=CLASS_COLORS[name], label=name)
        for y, (share, start) in enumerate(zip(100 * frame[name], left, strict=True)):
            ax.text(start + share / 2, y, f"{share:.0f}", ha="center", va="center", fontsize=7, color="white")
        left += 100 * frame[name].to_numpy()
    ax.set_yticks(range(len(frame)), [f"{key}  (n {n:,})" for key, n in zip(frame[by], frame["n"], strict=True)])
    ax.margins(y=0.3 / max(len(frame), 1))
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of samples, %")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=8, frameon=False)
    set_title(figure, title)
    return figure


def coverage(
    frame: pd.DataFrame, borders: Mapping[str, object] | None = None, what: str = "stocks with a traded row, per day"
) -> Figure:
    """Stocks over time: columns date and stocks; borders: name -> date, marked."""
    figure, axes = new_figure(11, 3.2)
    ax = axes[0, 0]
    ax.plot(frame["date"], frame["stocks"], color="black", linewidth=0.9)
    ax.set_ylim(0, 1.15 * frame["stocks"].max())
    for name, day in (borders or {}).items():
        ax.axvline(day, color=MARK_COLOR, linewidth=0.9, linestyle=":")
        ax.annotate(
            name,
            (day, 1.07 * frame["stocks"].max()),
            fontsize=8,
            color=MARK_COLOR,
            xytext=(4, 0),
            textcoords="offset points",
        )
    ax.set_ylabel("stocks")
    set_title(figure, f"Coverage: {what}")
    return figure
