"""The directions that sectors share: a heat map of weights, how far each sector moved, the features followed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram, leaves_list, linkage

from lasps.plots.colors import CLASS_COLORS
from lasps.plots.style import new_figure, sector_name, set_title

READ = 3
"""Input features shown per direction"""
UNUSED = 0.1
"""Directions whose root mean square weight is below this share of the largest: what they follow is not listed. Guess"""


def shared_directions(
    weights: pd.DataFrame, readings: pd.DataFrame, movement: pd.DataFrame, names: Sequence[str] | None = None
) -> Figure:
    """Sectors x directions, similar sectors side by side; how far each moved; the features that directions follow.

    Args:
        weights, readings, movement: of `lasps.evaluation.directions`.
        names: sector names of foreign data.
    """
    table = weights.pivot(index="sector", columns="direction", values="weight")
    tree, order = clustered(table.to_numpy())
    table = table.iloc[order]
    strength = np.sqrt((table**2).mean())
    shown = most_followed(readings, set(table.columns[strength >= UNUSED * strength.max()]))
    figure, axes = new_figure(
        4.6 + 0.75 * max(table.shape[1], 6),
        2.2 + 0.24 * (len(table) + len(shown)),
        2,
        3,
        width_ratios=(0.14, 1, 0.42),
        height_ratios=(len(table), max(len(shown), 1)),
    )
    refused = set(weights.loc[weights["refused"], "sector"])
    labels = [sector_name(sector, names) + (" (refused)" if sector in refused else "") for sector in table.index]
    _draw_tree(axes[0, 0], tree)
    toward = weights.drop_duplicates("direction").set_index("direction")["toward"]
    _heat_map(figure, axes[0, 1], table, labels, "logits per standard deviation")
    axes[0, 1].set_xticks(range(table.shape[1]), [f"{d}\n{toward[d]}" for d in table.columns])
    axes[0, 1].set_title("Weight on each direction: red, more of it raises the class below", loc="left", fontsize=9)
    _draw_movement(axes[0, 2], movement.set_index("sector").reindex(table.index))
    _heat_map(figure, axes[1, 1], shown, list(shown.index), "correlation", limit=1.0, values=True)
    axes[1, 1].set_xticks(range(shown.shape[1]), [str(d) for d in shown.columns])
    axes[1, 1].set_title("Features of the last day that the directions follow most", loc="left", fontsize=9)
    for ax in (axes[1, 0], axes[1, 2]):
        ax.set_visible(False)
    set_title(figure, "What the sectors share, and what each makes of it")
    return figure


def clustered(values: np.ndarray) -> tuple[np.ndarray | None, list[int]]:
    """(Ward's linkage of the rows (S, R), their order in it); None for fewer than two rows."""
    if len(values) < 2:
        return None, list(range(len(values)))
    tree = linkage(values, method="ward", optimal_ordering=True)
    return tree, leaves_list(tree).tolist()


def most_followed(readings: pd.DataFrame, used: Collection[int], per_direction: int = READ) -> pd.DataFrame:
    """Correlations (features x directions) of the strongest features of the directions in `used`, in their order."""
    strength = readings[readings["direction"].isin(list(used))].assign(size=readings["correlation"].abs())
    top = strength.sort_values(["direction", "size"], ascending=[True, False]).groupby("direction").head(per_direction)
    table = readings.pivot(index="feature", columns="direction", values="correlation")
    return table.loc[list(dict.fromkeys(top["feature"]))]


def _draw_tree(ax: Axes, tree: np.ndarray | None) -> None:
    ax.set_axis_off()
    if tree is not None:
        dendrogram(
            tree,
            orientation="left",
            no_labels=True,
            ax=ax,
            color_threshold=0,
            above_threshold_color=CLASS_COLORS["HOLD"],
        )
        ax.invert_yaxis()


def _heat_map(
    figure: Figure,
    ax: Axes,
    table: pd.DataFrame,
    labels: Sequence[str],
    what: str,
    limit: float | None = None,
    values: bool = False,
) -> None:
    """Red above 0, blue below, on one scale around 0; with the numbers, if asked for."""
    numbers = table.to_numpy(dtype=float)
    limit = limit or float(np.nanmax(np.abs(numbers), initial=1e-9))
    image = ax.imshow(numbers, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    ax.grid(visible=False)
    ax.set_yticks(range(len(labels)), labels)
    figure.colorbar(image, ax=ax, pad=0.01, aspect=30, label=what).ax.tick_params(labelsize=7)
    if values:
        for (y, x), value in np.ndenumerate(numbers):
            ax.text(
                x,
                y,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if abs(value) > 0.6 * limit else "black",
            )


def _draw_movement(ax: Axes, movement: pd.DataFrame) -> None:
    """Bars beside the heat map's rows; hollow where val refused the sector's part."""
    places = np.arange(len(movement))
    refused = movement["refused"].fillna(value=False).to_numpy(dtype=bool)
    colors = np.where(refused, "white", "black").tolist()
    ax.barh(places, movement["mean_kl"].fillna(0.0).to_numpy(), height=0.7, color=colors, edgecolor="black")
    ax.set_ylim(len(movement) - 0.5, -0.5)
    ax.set_yticks([])
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("mean KL(initial || new) on val, nats", fontsize=8)
    ax.set_title("How far each sector moved", loc="left", fontsize=9)
