import datetime as dt

import numpy as np
import polars as pl
import pytest

from lasps.data.panel import (
    BAR_COLUMNS,
    Panel,
    make_panel,
    market_calendar,
    segment_starts,
    validate_panel,
)
from tests.factories import make_raw_market

DAY = dt.date(2024, 1, 2)


def bars(*rows) -> pl.DataFrame:
    """(code, day number, open, high, low, close, volume)"""
    return pl.DataFrame(
        [(c, DAY + dt.timedelta(d), *rest) for c, d, *rest in rows], schema=list(BAR_COLUMNS), orient="row"
    )


def test_a_halted_day_is_not_a_row_however_it_is_written() -> None:
    raw = bars(
        ("A", 0, 10, 12, 9, 11, 5), ("A", 1, 0, 0, 0, 11, 0), ("A", 2, 11, 11, 11, 11, 0), ("A", 3, 0, 0, 0, 11, 7)
    )
    panel, report = make_panel(raw)
    assert panel.height == report.rows == 1
    assert report.halted_rows == 3
    assert report.halts["date"].to_list() == [DAY + dt.timedelta(d) for d in (1, 2, 3)]


def test_types_and_order_are_made_right_and_counted() -> None:
    raw = bars(("B", 0, 10, 12, 9, 11, 5), ("A", 1, 10, 12, 9, 11, 5), ("A", 0, 10, 12, 9, 11, 5))
    panel, report = make_panel(raw)
    assert panel["code"].to_list() == ["A", "A", "B"]
    assert report.unsorted_rows == 2
    assert panel.schema == {
        "code": pl.String,
        "date": pl.Date,
        **dict.fromkeys(("open", "high", "low", "close"), pl.Float64),
        "volume": pl.Int64,
    }
    assert validate_panel(panel) is panel
    assert make_panel(panel)[1].unsorted_rows == 0


def test_a_key_that_occurs_twice_is_refused_with_its_name() -> None:
    raw = bars(("A", 0, 10, 12, 9, 11, 5), ("A", 0, 10, 12, 9, 11, 5), ("B", 0, 10, 12, 9, 11, 5))
    with pytest.raises(ValueError, match=r"1 \(code, date\) keys.*A 2024-01-02 x2"):
        make_panel(raw)


def test_rounding_is_widened_and_anything_larger_is_left_for_the_gate() -> None:
    raw = bars(
        ("A", 0, 9000, 9050, 8950, 9060, 5),
        ("A", 1, 9000, 9050, 8950, 9500, 5),
        ("A", 2, 9000, 9050, 8950, 9050, 5),
        ("A", 3, 50, 50, 49, 48, 5),
    )
    panel, report = make_panel(raw)
    assert (report.widened_rows, report.outside_rows) == (2, 1)
    assert panel["high"].to_list() == [9060, 9050, 9050, 50]
    assert panel["low"].to_list() == [8950, 8950, 8950, 48]


def test_a_row_without_prices_is_empty_and_a_row_with_holes_is_refused() -> None:
    raw = bars(("A", 0, 10, 12, 9, 11, 5), ("A", 1, None, None, None, None, None))
    assert make_panel(raw)[1].empty_rows == 1
    with pytest.raises(ValueError, match="1 bars have some values missing.*'A'"):
        make_panel(bars(("A", 0, 10, 12, 9, 11, 5), ("A", 1, 10, 12, 9, float("nan"), 5)))


@pytest.mark.parametrize(("day", "rule"), [((10, 9, 12, 11), "high_not_below_low"), ((10, 12, 9, -11), "close")])
def test_bars_that_no_day_can_have_make_no_panel(day, rule) -> None:
    with pytest.raises(ValueError, match=f"{rule}.*'A'.*mask these days"):
        make_panel(bars(("A", 0, *day, 5), ("B", 0, 10, 12, 9, 11, 5)))


def test_bars_without_a_column_or_a_traded_day_are_refused() -> None:
    with pytest.raises(ValueError, match=r"missing: \['volume'\]"):
        make_panel(bars(("A", 0, 10, 12, 9, 11, 5)).drop("volume"))
    with pytest.raises(ValueError, match="no traded bar among 1 rows: 1 halted"):
        make_panel(bars(("A", 0, 0, 0, 0, 11, 0)))
    with pytest.raises(ValueError, match="date must hold dates"):
        make_panel(bars(("A", 0, 10, 12, 9, 11, 5)).with_columns(pl.col("date").cast(pl.String)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.col("open") - 10, "'open|min_exclusive': 1"),
        (pl.col("close") * float("inf"), "close"),
        (pl.col("high") - 5, "high_not_below_low"),
        (pl.col("volume") * 0, "volume"),
        (pl.col("code").replace("B", "A"), "primary_key"),
        (pl.col("close").cast(pl.Float32), "types"),
    ],
)
def test_a_broken_panel_is_refused_with_the_rule_it_breaks(change, message) -> None:
    panel, _ = make_panel(bars(("A", 0, 10, 12, 9, 11, 5), ("B", 0, 20, 22, 19, 21, 5)))
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        validate_panel(panel.with_columns(change))


def test_an_unsorted_panel_is_refused() -> None:
    panel, _ = make_panel(bars(("A", 0, 10, 12, 9, 11, 5), ("B", 0, 20, 22, 19, 21, 5)))
    with pytest.raises(ValueError, match="sorted by"):
        validate_panel(panel.reverse())


def test_segments_are_the_stocks_rows() -> None:
    panel, _ = make_panel(make_raw_market(stocks=4))
    starts = segment_starts(panel)
    assert [panel["code"][int(s)] for s in starts[:-1]] == panel["code"].unique().sort().to_list()
    assert starts[-1] == panel.height
    assert len(starts) == 4 + 1


def test_the_markets_calendar_leaves_out_days_on_which_few_stocks_trade() -> None:
    rows = [(code, day, 10, 12, 9, 11, 5) for code in "ABCD" for day in range(10) if not (day == 4 and code != "A")]
    calendar = market_calendar(make_panel(bars(*rows))[0])
    assert np.datetime64(DAY + dt.timedelta(4)) not in calendar
    assert len(calendar) == 9


def test_a_jump_beyond_the_days_limit_is_known_by_the_limit_of_that_date() -> None:
    raw = bars(
        ("A", 0, 1000, 1200, 1000, 1000, 5),
        ("A", 1, 1200, 1200, 1200, 1200, 5),
        ("A", 2, 900, 900, 800, 800, 5),
        ("B", 0, 9, 9, 9, 9, 5),
    )
    panel, _ = make_panel(raw)
    assert Panel(panel).limit_breaks.tolist() == [False, False, True, False]
    before_2015 = panel.with_columns(pl.col("date").dt.offset_by("-10y"))
    assert Panel(before_2015).limit_breaks.tolist() == [False, True, True, False]
