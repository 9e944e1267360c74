"""Plots of an Optuna study: history, slices with the plateau, importance, and the evaluation on unseen days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from lasps.plots.colors import CLASS_COLORS, MARK_COLOR, VAL_COLOR
from lasps.plots.style import new_figure, set_title


def study_plots(
    trials: pd.DataFrame,
    plateau: Mapping[str, tuple[float, float]] | None = None,
    importance: Mapping[str, float] | None = None,
) -> dict[str, Figure]:
    """An Optuna study's history and slices (and importance, if given), from `study.trials_dataframe()`.

    Args:
        trials: columns number, value, state and params_*.
        plateau: hyperparameter -> (low, high) of trials within one standard error of the best, shaded.
    """
    found = {"study_history": study_history(trials), "study_slices": study_slices(trials, plateau or {})}
    if importance:
        found["study_importance"] = study_importance(importance)
    return found


def study_history(trials: pd.DataFrame) -> Figure:
    """Every trial's value in order, and the best so far."""
    figure, axes = new_figure(9, 3.4)
    ax, complete = axes[0, 0], trials[trials["state"] == "COMPLETE"]
    pruned = trials[trials["state"] == "PRUNED"]
    ax.plot(
        pruned["number"],
        pruned["value"],
        "x",
        color=CLASS_COLORS["HOLD"],
        markersize=4,
        label="pruned (every new head counted)",
    )
    ax.plot(complete["number"], complete["value"], "o", color="black", markersize=4, label="completed")
    ax.step(complete["number"], complete["value"].cummin(), where="post", color=MARK_COLOR, label="best so far")
    for row, name in zip(trials.head(2).itertuples(), ("default", "no penalty"), strict=False):
        ax.annotate(name, (row.number, row.value), xytext=(0, 6), fontsize=8, textcoords="offset points", ha="center")
    ax.set(xlabel="trial", ylabel="log loss on the study's half of val")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=8, frameon=False)
    set_title(figure, "The study, trial by trial")
    return figure


def study_slices(trials: pd.DataFrame, plateau: Mapping[str, tuple[float, float]]) -> Figure:
    """Value against each hyperparameter; default as a square, best in red, plateau shaded."""
    complete = trials[trials["state"] == "COMPLETE"]
    names = [column for column in trials.columns if column.startswith("params_")]
    figure, axes = new_figure(3.2 * len(names), 3.4, 1, len(names), sharey=True)
    best = complete.loc[complete["value"].idxmin()] if len(complete) else None
    for ax, column in zip(axes[0], names, strict=True):
        name = column.removeprefix("params_")
        if name in plateau:
            ax.axvspan(*plateau[name], color=VAL_COLOR, alpha=0.12)
        ax.plot(complete[column], complete["value"], "o", color="black", markersize=3.5, alpha=0.7)
        first = trials.iloc[0]
        ax.plot(first[column], first["value"], "s", color=CLASS_COLORS["SELL"], markersize=7)
        if best is not None:
            ax.plot(best[column], best["value"], "o", color=MARK_COLOR, markersize=7)
        if name != "epochs" and trials[column].nunique() > 1:
            ax.set_xscale("log")
        if name == "min_samples":
            ax.xaxis.set_major_formatter(ScalarFormatter())
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.set_xlabel(name)
    axes[0, 0].set_ylabel("log loss on the study's half of val")
    set_title(figure, "Slices (red: best; blue square: default; green: indistinguishable from the best)")
    return figure


def study_importance(importance: Mapping[str, float]) -> Figure:
    """Shares of importance as bars."""
    figure, axes = new_figure(7, 1 + 0.4 * len(importance))
    ax, names = axes[0, 0], sorted(importance, key=lambda name: -importance[name])
    ax.barh(names, [100 * importance[name] for name in names], color="black")
    ax.invert_yaxis()
    ax.set_xlabel("share of importance (PED-ANOVA), %")
    set_title(figure, "What decides whether a trial is among the best")
    return figure


def final_evaluation(log_loss: Mapping[str, float], difference: float, interval: Sequence[float] | None) -> Figure:
    """Default against best on unseen days: the three log losses, and best minus default with its interval."""
    figure, axes = new_figure(9, 2.6, 1, 2)
    left, right = axes[0]
    colors = ("black", CLASS_COLORS["SELL"], MARK_COLOR)
    for y, (value, color) in enumerate(zip(log_loss.values(), colors, strict=False)):
        left.plot(value, y, "o", color=color, markersize=8)
        left.annotate(f"{value:.4f}", (value, y), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=8)
    left.set_yticks(range(len(log_loss)), list(log_loss))
    left.margins(x=0.15)
    left.set_ylim(len(log_loss) - 0.6, -0.7)
    left.set_xlabel("log loss, nats")
    if interval is not None:
        right.plot(list(interval), [0, 0], color="black", linewidth=2)
    right.plot(difference, 0, "o", color=MARK_COLOR, markersize=8)
    right.axvline(0, color="black", linewidth=0.9)
    right.set_yticks([])
    right.set_xlabel("best minus default, nats, with its 95 % interval (left of 0: best is better)", fontsize=8)
    set_title(figure, "On the half of val that no trial saw")
    return figure
