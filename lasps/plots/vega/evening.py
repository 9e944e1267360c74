"""Plots of the evening's page: candles small enough for a line of text, and what the champion has been worth."""

from __future__ import annotations

import polars as pl

from lasps.plots.vega.spec import Spec, quantity, spec, tooltip

CANDLE, HEIGHT = 3.1, 46
"""Width of a day and height of the picture, in pixels."""


def candles(bars: pl.DataFrame) -> str:
    """A stock's candles as an SVG element, rising days in BUY's colour; made of numbers alone.

    Args:
        bars: open, high, low, close, oldest first.
    """
    low, high = bars["low"].cast(pl.Float64).min(), bars["high"].cast(pl.Float64).max()
    assert isinstance(low, float) and isinstance(high, float)
    room = high - low or 1.0

    def y(price: float) -> float:
        return round(1 + (HEIGHT - 2) * (high - price) / room, 1)

    parts = []
    for i, (open_, top, bottom, close) in enumerate(bars.select("open", "high", "low", "close").iter_rows()):
        color = "buy" if close >= open_ else "sell"
        x, (begin, end) = round(i * CANDLE, 1), sorted((y(open_), y(close)))
        tall = round(max(end - begin, 0.7), 1)
        parts.append(
            f'<path d="M{x + 1:g} {y(top):g}V{y(bottom):g}" stroke="var(--{color})" stroke-width=".8"/>'
            f'<rect x="{x:g}" y="{begin:g}" width="2.1" height="{tall:g}" fill="var(--{color})"/>'
        )
    first, last = bars["close"][0], bars["close"][-1]
    told = f"{bars.height} days: {first:,.0f} to {last:,.0f}, {100 * (last / first - 1):+.1f} %"
    width = round(CANDLE * bars.height, 1)
    start = f'<svg viewBox="0 0 {width:g} {HEIGHT}" role="img" aria-label="{told}"><title>{told}</title>'
    return f"{start}{''.join(parts)}</svg>"


def cumulative_edge(table: pl.DataFrame) -> Spec:
    """What the champion has lost less than others, summed over due days: columns date, against, edge."""
    shown = table.with_columns(told=pl.format("{} nats", pl.col("edge").round(3)))
    x = {"field": "date", "type": "temporal", "axis": {"title": None}}
    color = {"field": "against", "type": "nominal", "title": None}
    day = {"field": "date", "type": "temporal", "format": "%Y-%m-%d"}
    return spec(
        shown,
        220,
        [
            {"mark": {"type": "rule", "color": "var(--line)"}, "encoding": {"y": {"datum": 0}}},
            {
                "mark": {"type": "line", "point": False},
                "encoding": {
                    "x": x,
                    "y": quantity("edge", "log loss saved, summed over days", zero=True),
                    "color": color | {"scale": {"range": ["var(--model-1)", "var(--baseline)", "var(--model-4)"]}},
                    "tooltip": [day, *tooltip(against="against", sum="told")],
                },
            },
        ],
    )
