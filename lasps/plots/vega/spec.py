"""Vega-Lite specifications in the pages' style: colours are CSS variables, so that light and dark need no redrawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

Spec = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans KR", NanumGothic, sans-serif'
CONFIG: Spec = {
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--grid)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 220,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "orient": "top",
        "title": None,
        "labelLimit": 240,
        "symbolStrokeWidth": 2.5,
        "columns": 3,
        "offset": 6,
    },
    "text": {"color": "var(--ink)", "fontSize": 12},
    "line": {"strokeWidth": 2},
    "point": {"size": 55, "filled": True, "opacity": 1},
}
MODEL_COLORS = tuple(f"var(--model-{i})" for i in range(1, 7))
OF_BASELINE = {"lightgbm": "var(--model-4)", "blend": "var(--model-5)", "volatility_bins": "var(--baseline)"}
DASHED = "volatility_bins"


def spec(frame: pl.DataFrame, height: int, layer: Sequence[Spec], **more: Any) -> Spec:
    """A layered plot as wide as its place on the page; `frame` is its data, dates as text."""
    dated = frame.with_columns(pl.col(pl.Date).dt.to_string("%Y-%m-%d"))
    rounded = dated.with_columns(pl.col(pl.Float64).round_sig_figs(6))
    return {
        "$schema": SCHEMA,
        "config": CONFIG,
        "width": "container",
        "height": height,
        "data": {"values": rounded.to_dicts()},
        "layer": list(layer),
        **more,
    }


def quantity(field: str, title: str | None, form: str = "", **scale: Any) -> Spec:
    """A quantitative channel; `form` is a d3 format of its axis."""
    axis = {"title": title, "tickCount": 7} | ({"format": form} if form else {})
    return {"field": field, "type": "quantitative", "axis": axis, "scale": {"zero": False, "nice": True} | scale}


def nominal(field: str, order: Sequence[str], **more: Any) -> Spec:
    """A nominal channel in the order given."""
    return {"field": field, "type": "nominal", "sort": list(order), "title": None} | more


def tooltip(**fields: str) -> list[Spec]:
    """What hovering tells: title (underscores are spaces) -> field of text."""
    return [{"field": field, "type": "nominal", "title": title.replace("_", " ")} for title, field in fields.items()]


def model_colors(models: Sequence[str], deployed: str) -> dict[str, str]:
    """A colour per model: the deployed one the first, the oracle as text; none is a class's."""
    free = [color for color in MODEL_COLORS[1:] if color not in OF_BASELINE.values()]
    others = iter(free * (1 + len(models) // len(free)))
    return {
        m: MODEL_COLORS[0]
        if m == deployed
        else "var(--oracle)"
        if m == "oracle"
        else OF_BASELINE.get(m) or next(others)
        for m in models
    }


def by_model(models: Sequence[str], deployed: str) -> Spec:
    """Colour by model."""
    colors = model_colors(models, deployed)
    return nominal("model", models, scale={"domain": list(colors), "range": list(colors.values())})


def dash_by_model(models: Sequence[str]) -> Spec:
    """Volatility bins dashed, the oracle dotted."""
    dashes = [[5, 4] if m == DASHED else [2, 2] if m == "oracle" else [1, 0] for m in models]
    return nominal("model", models, scale={"domain": list(models), "range": dashes})
