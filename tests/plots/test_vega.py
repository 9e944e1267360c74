"""Specifications of plots: what they hold, and that nothing is drawn where there is nothing to see."""

import datetime as dt
import json

import numpy as np
import polars as pl

from lasps.plots.colors import CLASS_COLORS
from lasps.plots.vega import comparison, market
from lasps.plots.vega.spec import model_colors

DAYS = [dt.date(2025, 1, 2) + dt.timedelta(days=i) for i in range(5)]


def gains(values: list[float]) -> pl.DataFrame:
    return pl.DataFrame({"model": "phase2_best", "date": DAYS, "baseline": "prior", "cumulated_gain": values})


def test_a_constant_line_one_day_or_nothing_is_not_drawn() -> None:
    models = ["phase2_best"]
    assert comparison.cumulated_gain(gains([0.0] * 5), models, "phase2_best") is None
    assert comparison.cumulated_gain(gains([0.0, 1, 2, 3, 4]).head(1), models, "phase2_best") is None
    assert comparison.cumulated_gain(gains([0.0] * 5).head(0), models, "phase2_best") is None
    drawn = comparison.cumulated_gain(gains([0.0, 1, 2, 3, 4]), models, "phase2_best")
    assert drawn is not None and [v["date"] for v in drawn["data"]["values"]] == [str(d) for d in DAYS]


def test_a_specification_is_json_without_nan() -> None:
    row = {"name": "a", "difference": 0.1, "low": None, "high": None, "shown": "+0.1", "answer": "not tested"}
    frame = pl.DataFrame([row], schema_overrides={"low": pl.Float64, "high": pl.Float64})
    assert '"label": "a: not tested"' in json.dumps(comparison.differences(frame), allow_nan=False)
    assert comparison.differences(frame.with_columns(difference=pl.lit(None, pl.Float64))) is None


def test_no_model_has_a_class_s_colour_and_the_deployed_one_is_always_the_same() -> None:
    models = ["phase1_best", "phase3_final", "phase2_best", "lightgbm", "volatility_bins", "oracle"]
    colors = model_colors(models, "phase2_best")
    assert colors["phase2_best"] == model_colors(["phase2_best"], "phase2_best")["phase2_best"]
    assert len(set(colors.values())) == len(models)
    assert not {f"var(--{name.lower()})" for name in CLASS_COLORS} & set(colors.values())


def test_moves_keep_their_counts_and_leave_empty_bars_out() -> None:
    drawn = market.moves(np.array([3, 0, 7]), np.array([-0.3, -0.1, 0.1, 0.3]))
    assert drawn is not None
    assert [(v["rows"], v["rise"]) for v in drawn["data"]["values"]] == [(3, "fall"), (7, "rise")]
    assert market.moves(np.zeros(3, dtype=int), np.array([-0.3, -0.1, 0.1, 0.3])) is None
