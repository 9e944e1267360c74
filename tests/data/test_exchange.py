"""The exchange's rules, each once: labels, gate and synthetic market take limits, ticks and days from one place."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lasps.data import exchange
from lasps.data.integrity import bars as gate
from lasps.data.panel import Panel, make_panel, market_calendar
from tests.factories import make_raw_market


def days(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[D]")


def test_the_new_limit_holds_from_15_june_2015() -> None:
    assert exchange.price_limit(days("2015-06-12", "2015-06-15")).tolist() == [0.15, 0.30]


@given(st.integers(1, 2_000_000))
def test_the_old_tick_is_nowhere_finer_than_the_new_one(price: int) -> None:
    new, old = (
        exchange.tick_size(np.array([price], dtype=float), borders)[0]
        for borders in (exchange.TICK_BORDERS, exchange.OLD_TICK_BORDERS)
    )
    assert new <= old and old <= max(1, 0.005 * price)


@pytest.mark.parametrize(
    ("before", "after", "jumps"),
    [
        (1_000, 1_300, False),
        (1_000, 1_306, True),
        (1_000, 694, True),
        (607, 790, False),
        (100_000, 130_500, False),
        (100_000, 130_501, True),
        (float("nan"), 500, False),
    ],
)
def test_a_jump_is_what_exceeds_the_limit_by_more_than_a_tick(before: float, after: float, jumps: bool) -> None:
    assert exchange.beyond_limit(np.array([after], float), np.array([before], float), days("2020-03-02"))[0] == jumps


@given(st.integers(0, 10_000), st.integers(1, 9), st.floats(0.3, 3.0))
@settings(max_examples=10, deadline=None)
def test_labels_and_gate_agree_on_every_market_day_and_every_jump(seed: int, stocks: int, ratio: float) -> None:
    raw = make_raw_market(seed, stocks=stocks, days=60)
    late = pl.int_range(pl.len()).over("code") >= 30
    raw = raw.with_columns(
        (pl.when(late).then(pl.col(c) * ratio).otherwise(pl.col(c))).alias(c) for c in ("open", "high", "low", "close")
    )
    panel, prepared = make_panel(raw)[0], gate.prepare(raw)
    of_gate = prepared.calendar.filter("is_market_day")["date"].to_numpy()
    assert np.array_equal(market_calendar(panel), of_gate)
    jumps = prepared.jumps.select("code", "date").sort("code", "date")
    assert panel.filter(pl.Series(Panel(panel).limit_breaks)).select("code", "date").equals(jumps)


def test_a_last_day_that_few_stocks_have_is_no_market_day() -> None:
    raw = make_raw_market(2, stocks=8, days=40)
    last = raw["date"].max()
    raw = raw.filter((pl.col("date") < last) | (pl.col("code") == "000000"))
    raw = raw.with_columns(volume=pl.col("volume").clip(1), high=pl.max_horizontal("high", "close"))
    assert not gate.prepare(raw).calendar.sort("date")["is_market_day"][-1]


def test_the_exchange_is_closed_on_holidays_and_weekends_and_was_open_on_saturdays_until_december_1998() -> None:
    sessions = exchange.known_sessions(dt.date(2025, 5, 30), dt.date(2025, 6, 9))
    assert sessions is not None
    assert [str(day) for day in sessions] == ["2025-05-30", "2025-06-02", "2025-06-04", "2025-06-05", "2025-06-09"]
    assert exchange.may_be_open(days("1998-12-05", "1998-12-06", "1998-12-12", "2024-01-02")).tolist() == [
        True,
        False,
        False,
        True,
    ]


def test_outside_the_years_of_the_table_nothing_is_claimed() -> None:
    assert exchange.known_sessions(dt.date(1997, 1, 3), dt.date(2020, 1, 3)) is None
    assert exchange.known_sessions(dt.date(2020, 1, 3), dt.date(2060, 1, 3)) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Series.values")  # exchange_calendars' own use of pandas
def test_the_shipped_holidays_are_those_of_exchange_calendars() -> None:
    pytest.importorskip("exchange_calendars")
    from experiments import krx_holidays

    shipped = [line for line in krx_holidays.TABLE.read_text().splitlines() if line[:1].isdigit()]
    assert shipped == krx_holidays.holidays()
