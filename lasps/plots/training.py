"""Learning curves of phases and of Phase 2's heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lasps.plots.colors import GRID_COLOR, MARK_COLOR, TRAIN_COLOR, VAL_COLOR
from lasps.plots.style import new_figure, sector_name, set_title


def learning_curves(name: str, history: Mapping[str, Any]) -> Figure:
    """Learning curves of a phase, from its checkpoint's training history.

    Args:
        name: the phase's checkpoint, e.g. "phase1_best".
        history: of Phase 1 or 3 train_loss and val_loss per epoch (E,); of Phase 2 `sectors`: sector -> n, losses (E,),
            val_losses (E + 1,) from epoch 0 on, and kept_start (val refused its new head); of a common change
            val_log_loss (E + 1,) alone, from epoch 0 on.
    """
    if "sectors" in history:
        curves = {int(sector): head_frame(entry) for sector, entry in history["sectors"].items()}
        sizes = {int(sector): entry["n"] for sector, entry in history["sectors"].items()}
        refused = {int(sector) for sector, entry in history["sectors"].items() if entry.get("kept_start")}
        return head_curves(curves, history.get("best_epoch"), sizes, refused=refused)
    if "train_loss" not in history:
        val = history["val_log_loss"]
        return phase_curves({name: pd.DataFrame({"step": range(len(val)), "train": np.nan, "val": val})})
    epochs = len(history["train_loss"])
    val = history.get("val_loss") or [np.nan] * epochs
    frame = pd.DataFrame({"step": range(1, epochs + 1), "train": history["train_loss"], "val": val})
    return phase_curves({name: frame})


def head_frame(entry: Mapping[str, Any]) -> pd.DataFrame:
    """A head's losses by epoch: step 0 is the initial head, which has a val loss only."""
    train = [np.nan, *entry["losses"]]
    val = entry["val_losses"] or [np.nan] * len(train)
    return pd.DataFrame({"step": range(len(train)), "train": train, "val": val})


def head_curves(
    curves: Mapping[int, pd.DataFrame],
    best_epoch: int | None = None,
    sizes: Mapping[int, int] | None = None,
    title: str = "Phase 2: the heads of the sectors",
    refused: Collection[int] = (),
) -> Figure:
    """Learning curves, one small panel per sector.

    Args:
        curves: sector -> frame with columns step, train (focal loss) and val (calibrated log loss), NaN where unknown.
        best_epoch: the stopping epoch, marked.
        sizes: sector -> training samples, for the titles.
        refused: sectors whose new head val did not accept, so that they keep their initial head.
    """
    columns = 5
    rows = max(1, -(-len(curves) // columns))
    figure, axes = new_figure(13, 0.6 + 1.5 * rows)
    ax = axes[0, 0]  # one for all panels: twenty axes with two scales each take four seconds
    ax.set_axis_off()
    ax.set(xlim=(-0.02, columns - 0.06), ylim=(-rows + 1.25, 1.3))
    for place, (sector, frame) in enumerate(sorted(curves.items())):
        left, bottom = place % columns, -(place // columns)
        n = f"  n {sizes[sector]:,}" if sizes and sector in sizes else ""
        ax.text(
            left,
            bottom + 1.13,
            f"{sector_name(sector)}{n}{'  (refused)' if sector in refused else ''}",
            fontsize=8.5,
            color=MARK_COLOR if sector in refused else "black",
            clip_on=True,
        )  # constrained layout skips clipped text
        _head_panel(ax, frame, left, bottom + 0.5, best_epoch)
    set_title(
        figure, f"{title} (grey: training loss; green: log loss on val, each on its own scale; dotted: stopping epoch)"
    )
    return figure


def _head_panel(ax: Axes, frame: pd.DataFrame, left: float, bottom: float, best_epoch: int | None) -> None:
    """Train and val loss in a panel of 0.92 x 0.45, with their values at epoch 0 and at the stopping epoch."""
    step = frame["step"].to_numpy()
    last = max(int(step.max()), 1)
    ax.plot([left, left + 0.92], [bottom - 0.04] * 2, color=GRID_COLOR, linewidth=0.8)
    for x, text in ((left, "epoch 0"), (left + 0.92, str(last))):
        ax.text(
            x,
            bottom - 0.06,
            text,
            fontsize=7,
            color=TRAIN_COLOR,
            va="top",
            ha="left" if x == left else "right",
            clip_on=True,
        )
    if best_epoch is not None:
        ax.plot(
            [left + 0.92 * best_epoch / last] * 2,
            [bottom - 0.04, bottom + 0.5],
            color=MARK_COLOR,
            linewidth=0.9,
            linestyle=":",
        )
    for name, color, x, side in (("train", TRAIN_COLOR, left, "left"), ("val", VAL_COLOR, left + 0.92, "right")):
        y = frame[name].to_numpy(dtype=float)
        known = np.flatnonzero(np.isfinite(y))
        if not len(known):
            continue
        span = np.ptp(y[known]) or 1.0
        ax.plot(
            left + 0.92 * step / last,
            bottom + 0.45 * (y - y[known].min()) / span,
            color=color,
            marker=".",
            markersize=3,
            linewidth=1.2,
        )
        stop = known[-1] if best_epoch is None else known[np.abs(step[known] - best_epoch).argmin()]
        ax.text(x, bottom + 0.52, f"{y[known[0]]:.3f} → {y[stop]:.3f}", fontsize=7, color=color, ha=side, clip_on=True)


def phase_curves(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Focal loss of whole phases on train and val: name -> frame with columns step, train and val."""
    figure, axes = new_figure(4.6 * max(len(curves), 1), 3.2, 1, max(len(curves), 1))
    for ax, (name, frame) in zip(axes[0], curves.items(), strict=False):
        ax.plot(frame["step"], frame["train"], color=TRAIN_COLOR, marker="o", markersize=3, label="train")
        ax.plot(frame["step"], frame["val"], color=VAL_COLOR, marker="o", markersize=3, label="val")
        if frame["val"].notna().any():
            best = frame.loc[frame["val"].idxmin()]
            ax.plot(best["step"], best["val"], "o", color=MARK_COLOR, markersize=6, label="lowest on val")
        ax.set(xlabel="epoch", ylabel="focal loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_title(name, loc="left", fontsize=10)
        ax.legend(fontsize=8, frameon=False)
    set_title(figure, "Learning curves")
    return figure
