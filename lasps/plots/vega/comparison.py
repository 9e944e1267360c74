"""Plots of a Comparison's frames, of one split each; None where there is nothing to see: no rows, or all alike.

Columns are those of lasps.evaluation.comparison.Comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lasps.config.settings import CLASS_NAMES
from lasps.plots.vega.spec import Spec, by_model, dash_by_model, nominal, quantity, spec, tooltip

ANSWER_COLORS = {
    "better": "var(--better)",
    "worse": "var(--worse)",
    "undecided": "var(--unsure)",
    "not tested": "var(--unsure)",
    "still to gain": "var(--unsure)",
}
ROW_STEP = 66
"""Pixels of a row of differences: a line of text over an interval."""
CLASS_STEP = 15


def differences(rows: pl.DataFrame) -> Spec | None:
    """Differences with intervals, one row each: its name, its numbers and the answer in words above the interval.

    Args:
        rows: name, difference, low, high, shown (the numbers as text), answer (of ANSWER_COLORS).
    """
    rows = rows.filter(pl.col("difference").is_not_null())
    if not len(rows):
        return None
    y = nominal("name", rows["name"].to_list(), axis=None, scale={"paddingInner": 0, "paddingOuter": 0})
    color = {
        "field": "answer",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": list(ANSWER_COLORS), "range": list(ANSWER_COLORS.values())},
    }
    values = tooltip(against="name", difference="shown", answer="answer")
    x = quantity("difference", "difference in log loss, nats; left of 0 is better")
    text = {"type": "text", "baseline": "middle", "fontSize": 12, "dy": -13}
    layer = [
        {"data": {"values": [{"zero": 0}]}, **_zero("x")},
        {
            "mark": {"type": "rule", "strokeWidth": 3, "yOffset": 9},
            "encoding": {"y": y, "x": x | {"field": "low"}, "x2": {"field": "high"}, "color": color, "tooltip": values},
        },
        {
            "mark": {"type": "point", "size": 90, "yOffset": 9},
            "encoding": {"y": y, "x": x, "color": color, "tooltip": values},
        },
        {
            "mark": text | {"align": "left", "fontWeight": "bold"},
            "encoding": {"y": y, "x": {"value": 0}, "text": {"field": "label"}, "color": color},
        },
        {"mark": text | {"align": "right"}, "encoding": {"y": y, "x": {"value": "width"}, "text": {"field": "shown"}}},
    ]
    labelled = rows.with_columns(label=pl.format("{}: {}", "name", "answer"))
    return spec(labelled, ROW_STEP * len(rows), layer)


def _zero(axis: str) -> Spec:
    return {
        "mark": {"type": "rule", "color": "var(--ink)", "strokeWidth": 1},
        "encoding": {axis: {"field": "zero", "type": "quantitative"}},
    }


def class_accuracy(classes: pl.DataFrame, models: Sequence[str]) -> Spec | None:
    """Class-wise accuracy with intervals: a row per model, a line per class in the class's colour."""
    rows = classes.filter(pl.col("model").is_in(list(models)), pl.col("accuracy").is_not_null())
    if not len(rows):
        return None
    rows = rows.with_columns(pl.col("accuracy", "low", "high") * 100, shown=_interval_text(rows, "accuracy", 1))
    color = nominal(
        "class", CLASS_NAMES, scale={"domain": list(CLASS_NAMES), "range": [f"var(--{c.lower()})" for c in CLASS_NAMES]}
    )
    base = {
        "y": nominal("model", models, scale={"paddingInner": 0.25}),
        "color": color,
        "yOffset": nominal("class", CLASS_NAMES),
        "tooltip": tooltip(model="model", true_class="class", accuracy="shown"),
    }
    x = quantity("accuracy", "accuracy within the true class, %", zero=True)
    return spec(
        rows,
        (len(CLASS_NAMES) + 1) * CLASS_STEP * rows["model"].n_unique(),
        [
            {
                "mark": {"type": "rule", "strokeWidth": 2.5},
                "encoding": base | {"x": x | {"field": "low"}, "x2": {"field": "high"}},
            },
            {"mark": {"type": "point"}, "encoding": base | {"x": x}},
        ],
    )


def _interval_text(rows: pl.DataFrame, column: str, digits: int) -> pl.Series:
    """'53.2 [51.0, 55.4] %' per row, from a share and its low and high."""

    def text(*known: float | None) -> str:
        value, *ends = (None if v is None else f"{100 * v:,.{digits}f}" for v in known)
        return f"{value} %" if None in ends else f"{value} [{ends[0]}, {ends[1]}] %"

    return pl.Series([text(*values) for values in rows.select(column, "low", "high").iter_rows()], dtype=pl.String)


def cumulated_gain(days: pl.DataFrame, models: Sequence[str], deployed: str) -> Spec | None:
    """Cumulated gain in log loss over the baseline, day by day; hovering tells every model's value on that day."""
    rows = days.filter(pl.col("model").is_in(list(models)), pl.col("cumulated_gain").is_not_null())
    return _over_time(
        rows,
        "date",
        "cumulated_gain",
        models,
        deployed,
        f"cumulated gain over {rows['baseline'][0]}, nats" if len(rows) else "",
        ".4f",
    )


def monthly_rank_ic(months: pl.DataFrame, models: Sequence[str], deployed: str) -> Spec | None:
    """Rank IC month by month."""
    rows = months.filter(pl.col("model").is_in(list(models)), pl.col("rank_ic").is_not_null())
    if rows["month"].n_unique() < 2:
        return None
    shown = rows.with_columns(
        text=pl.col("rank_ic").round(3).cast(pl.String), name=pl.col("month").dt.to_string("%Y-%m")
    )
    order = shown["name"].unique().sort().to_list()
    names = [m for m in models if m in shown["model"].unique()]
    base = {
        "x": nominal("name", order, axis={"title": None, "labelAngle": -45, "labelOverlap": True}),
        "y": quantity("rank_ic", "rank IC, mean over the month's days"),
        "color": by_model(names, deployed),
    }
    marks = [
        {"mark": {"type": "line"}, "encoding": base | {"strokeDash": dash_by_model(names)}},
        {
            "mark": {"type": "point"},
            "encoding": base | {"tooltip": tooltip(model="model", month="name", rank_IC="text", days="n_days")},
        },
    ]
    return spec(
        shown.select("model", "name", "rank_ic", "text", "n_days"),
        230,
        [{"data": {"values": [{"zero": 0}]}, **_zero("y")}, *marks],
    )


def _over_time(
    rows: pl.DataFrame, time: str, value: str, models: Sequence[str], deployed: str, title: str, form: str
) -> Spec | None:
    if rows[time].n_unique() < 2 or rows[value].n_unique() < 2:
        return None
    names = [m for m in models if m in rows["model"].unique()]
    x = {"field": time, "type": "temporal", "axis": {"title": None, "labelOverlap": True}}
    hover = {
        "name": "near",
        "select": {"type": "point", "fields": [time], "nearest": True, "on": "pointerover", "clear": "pointerout"},
    }
    told = [
        {"field": time, "type": "temporal", "title": time, "format": "%Y-%m-%d"},
        *({"field": m.replace(".", "\\."), "type": "quantitative", "format": form, "title": m} for m in names),
    ]
    return spec(
        rows.select("model", time, value),
        230,
        [
            {"data": {"values": [{"zero": 0}]}, **_zero("y")},
            {
                "mark": "line",
                "encoding": {
                    "x": x,
                    "y": quantity(value, title),
                    "color": by_model(names, deployed),
                    "strokeDash": dash_by_model(names),
                },
            },
            {
                "transform": [{"pivot": "model", "value": value, "groupby": [time]}],
                "params": [hover],
                "mark": {"type": "rule", "color": "var(--muted)"},
                "encoding": {
                    "x": x,
                    "tooltip": told,
                    "opacity": {"condition": {"param": "near", "value": 0.7, "empty": False}, "value": 0},
                },
            },
        ],
    )


def calibration(curves: pl.DataFrame, name: str, models: Sequence[str], deployed: str) -> Spec | None:
    """Predicted probability of one class against its observed share; a calibrated model lies on the diagonal."""
    rows = curves.filter(pl.col("model").is_in(list(models)), pl.col("class") == name)
    if rows.is_empty() or rows["probability"].n_unique() < 2:
        return None
    names = [m for m in models if m in rows["model"].unique()]
    top = 1.05 * max(rows["probability"].max(), rows["share"].max())  # type: ignore[type-var, operator]
    shown = rows.with_columns(
        p=pl.format("{} %", (100 * pl.col("probability")).round(1)),
        s=pl.format("{} %", (100 * pl.col("share")).round(1)),
    )
    base = {
        "x": quantity("probability", f"predicted P({name})", ".0%", domain=[0, top]),
        "y": quantity("share", "observed share", ".0%", domain=[0, top]),
        "color": by_model(names, deployed),
    }
    diagonal = {
        "data": {"values": [{"v": 0}, {"v": top}]},
        "mark": {"type": "line", "color": "var(--ink)", "strokeWidth": 1},
        "encoding": {axis: {"field": "v", "type": "quantitative"} for axis in "xy"},
    }
    return spec(
        shown.select("model", "probability", "share", "p", "s", "n"),
        240,
        [
            diagonal,
            {"mark": "line", "encoding": base | {"strokeDash": dash_by_model(names)}},
            {
                "mark": {"type": "point", "size": 35},
                "encoding": base | {"tooltip": tooltip(model="model", predicted="p", observed="s", n="n")},
            },
        ],
    )


def deciles(frame: pl.DataFrame, models: Sequence[str], deployed: str) -> Spec | None:
    """5-day return above the universe by decile of the score, with intervals."""
    rows = frame.filter(pl.col("model").is_in(list(models)), pl.col("excess_return").is_not_null())
    if rows.is_empty():
        return None
    names = [m for m in models if m in rows["model"].unique()]
    rows = rows.with_columns(shown=_interval_text(rows, "excess_return", 2))
    y = quantity("excess_return", "5-day return above the universe", ".1%")
    base = {
        "x": {
            "field": "decile",
            "type": "ordinal",
            "axis": {"title": "decile of the score (10: most bullish)", "labelAngle": 0},
        },
        "xOffset": nominal("model", names),
        "color": by_model(names, deployed),
        "tooltip": tooltip(model="model", decile="decile", excess="shown"),
    }
    return spec(
        rows.select("model", "decile", "excess_return", "low", "high", "shown"),
        260,
        [
            {"data": {"values": [{"zero": 0}]}, **_zero("y")},
            {
                "mark": {"type": "rule", "strokeWidth": 1.5},
                "encoding": base | {"y": y | {"field": "low"}, "y2": {"field": "high"}},
            },
            {"mark": {"type": "point", "size": 40}, "encoding": base | {"y": y}},
        ],
    )


def coverage(curves: pl.DataFrame, models: Sequence[str], deployed: str) -> Spec | None:
    """Accuracy on the most confident share of samples."""
    rows = curves.filter(pl.col("model").is_in(list(models)), pl.col("accuracy").is_not_null())
    shown = rows.with_columns(
        s=pl.format("{} %", (100 * pl.col("coverage")).round(0)),
        a=pl.format("{} %", (100 * pl.col("accuracy")).round(1)),
    )
    return _lines(
        shown,
        quantity("coverage", "share of samples acted on, most confident first", ".0%"),
        quantity("accuracy", "accuracy", ".0%"),
        tooltip(model="model", share="s", accuracy="a", n="n"),
        models,
        deployed,
    )


def quintiles(frame: pl.DataFrame, models: Sequence[str], deployed: str) -> Spec | None:
    """Rank IC within fifths of the day's volatility: what is left once volatility is known."""
    rows = frame.filter(pl.col("model").is_in(list(models)), pl.col("rank_ic").is_not_null())
    shown = rows.with_columns(r=pl.col("rank_ic").round(3).cast(pl.String))
    x = {
        "field": "quintile",
        "type": "ordinal",
        "axis": {"title": "fifth of 20-day volatility (5: most volatile)", "labelAngle": 0},
    }
    return _lines(
        shown,
        x,
        quantity("rank_ic", "rank IC"),
        tooltip(model="model", fifth="quintile", rank_IC="r"),
        models,
        deployed,
    )


def _lines(rows: pl.DataFrame, x: Spec, y: Spec, told: list[Spec], models: Sequence[str], deployed: str) -> Spec | None:
    if rows.is_empty() or rows[y["field"]].n_unique() < 2:
        return None
    names = [m for m in models if m in rows["model"].unique()]
    base = {"x": x, "y": y, "color": by_model(names, deployed)}
    return spec(
        rows,
        230,
        [
            {"mark": "line", "encoding": base | {"strokeDash": dash_by_model(names)}},
            {"mark": {"type": "point", "size": 35}, "encoding": base | {"tooltip": told}},
        ],
    )
