"""Plots of the market and its labels for the integrity page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from lasps.config.sectors import SECTORS
from lasps.config.settings import CLASS_NAMES
from lasps.plots.vega.spec import Spec, nominal, quantity, spec, tooltip

ROW_STEP = 19
"""Pixels of a row of bars."""


def coverage(table: pl.DataFrame) -> Spec | None:
    """Stocks that traded on each day, before the stocks listed then: columns date, traded, listed."""
    if table.is_empty():
        return None
    x = {"field": "date", "type": "temporal", "axis": {"title": None}}
    told = [{"field": "date", "type": "temporal", "format": "%Y-%m-%d"}, *tooltip(traded="traded", listed="listed")]
    y = quantity("traded", "stocks", zero=True)
    return spec(
        table.select("date", "traded", "listed"),
        200,
        [
            {"mark": {"type": "area", "color": "var(--grid)"}, "encoding": {"x": x, "y": y | {"field": "listed"}}},
            {"mark": {"type": "line", "color": "var(--accent)", "strokeWidth": 1.2}, "encoding": {"x": x, "y": y}},
            {"mark": {"type": "rule", "opacity": 0, "strokeWidth": 3}, "encoding": {"x": x, "tooltip": told}},
        ],
    )


def moves(counts: np.ndarray, edges: np.ndarray) -> Spec | None:
    """Histogram of close-to-close moves on a logarithmic scale; the outer bars hold everything beyond."""
    bars = pl.DataFrame({"from": 100 * edges[:-1], "to": 100 * edges[1:], "rows": counts, "one": 0.5})
    bars = bars.filter(pl.col("rows") > 0).with_columns(
        rise=pl.when(pl.col("from") + pl.col("to") > 0).then(pl.lit("rise")).otherwise(pl.lit("fall")),
        move=pl.format("{} to {} %", pl.col("from").round(2), pl.col("to").round(2)),
    )
    if bars.is_empty():
        return None
    color = nominal(
        "rise",
        ["fall", "rise"],
        legend=None,
        scale={"domain": ["fall", "rise"], "range": ["var(--sell)", "var(--buy)"]},
    )
    return spec(
        bars,
        200,
        [
            {
                "mark": "bar",
                "encoding": {
                    "x": quantity("from", "move, %"),
                    "x2": {"field": "to"},
                    "color": color,
                    "y": {
                        "field": "rows",
                        "type": "quantitative",
                        "scale": {"type": "log", "domainMin": 0.5},
                        "axis": {"title": "rows", "tickCount": 4},
                    },
                    "y2": {"field": "one"},
                    "tooltip": tooltip(move="move", rows="rows"),
                },
            }
        ],
    )


def sector_sizes(rows: Sequence[dict[str, Any]]) -> Spec | None:
    """Stocks per sector: rows with sector and stocks."""
    if not rows:
        return None
    names = {s.id: s for s in SECTORS}
    table = pl.DataFrame(
        [{"name": names[r["sector"]].english, "korean": names[r["sector"]].korean, "stocks": r["stocks"]} for r in rows]
    )
    return spec(
        table,
        ROW_STEP * len(table),
        [
            {
                "mark": {"type": "bar", "color": "var(--accent)"},
                "encoding": {
                    "y": nominal("name", table["name"].to_list()),
                    "x": quantity("stocks", "stocks", zero=True),
                    "tooltip": tooltip(sector="name", Korean="korean", stocks="stocks"),
                },
            }
        ],
    )


def label_shares(table: pl.DataFrame) -> Spec | None:
    """Class shares as stacked bars: columns group, n, SELL, HOLD, BUY (0..1)."""
    if table.is_empty():
        return None
    groups = [f"{group} (n {n:,})" for group, n in table.select("group", "n").iter_rows()]
    long = table.with_columns(group=pl.Series(groups)).unpivot(
        CLASS_NAMES, index="group", variable_name="class", value_name="share"
    )
    long = long.with_columns(
        shown=pl.format("{} %", (100 * pl.col("share")).round(1)),
        order=pl.col("class").replace_strict({c: i for i, c in enumerate(CLASS_NAMES)}, return_dtype=pl.Int64),
    )
    color = nominal(
        "class", CLASS_NAMES, scale={"domain": list(CLASS_NAMES), "range": [f"var(--{c.lower()})" for c in CLASS_NAMES]}
    )
    return spec(
        long,
        ROW_STEP * len(table),
        [
            {
                "mark": "bar",
                "encoding": {
                    "y": nominal("group", groups),
                    "color": color,
                    "order": {"field": "order", "type": "quantitative"},
                    "x": quantity("share", "share of samples", ".0%", domain=[0, 1]) | {"stack": "zero"},
                    "tooltip": tooltip(group="group", label="class", share="shown"),
                },
            }
        ],
    )
