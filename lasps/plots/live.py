"""A ledger's track record day by day."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lasps.plots.colors import MARK_COLOR, MODEL_COLORS
from lasps.plots.style import new_figure, set_title


def cumulative_gain(days: pd.DataFrame, against: str = "prior") -> Figure:
    """What the champion has lost less than another, summed over due days: columns date, gain (nats)."""
    figure, axes = new_figure(10, 3.4)
    ax = axes[0, 0]
    ax.plot(days["date"], days["gain"].cumsum(), color=MODEL_COLORS[0], linewidth=1.6)
    ax.axhline(0, color="black", linewidth=0.7)
    ax.set_ylabel("log loss saved, nats")
    set_title(figure, f"What the champion has lost less than {against}, summed over {len(days)} due days")
    return figure


def daily_rank_ic(days: pd.DataFrame, window: int = 20) -> Figure:
    """Rank IC of each day and its mean over the last `window`: columns date, rank_ic (NaN where undefined)."""
    figure, axes = new_figure(10, 3.4)
    ax = axes[0, 0]
    ax.bar(days["date"], days["rank_ic"], color=np.where(days["rank_ic"] >= 0, MODEL_COLORS[2], MARK_COLOR), width=0.9)
    ax.plot(days["date"], days["rank_ic"].rolling(window, min_periods=5).mean(), color="black", linewidth=1.2)
    ax.axhline(0, color="black", linewidth=0.7)
    ax.set_ylabel("rank IC")
    set_title(figure, f"Rank IC by day, and its mean over the last {window}")
    return figure
