import datetime as dt

import numpy as np
import polars as pl
import pytest

from lasps.data.labels import classify, make_labels
from lasps.data.panel import make_panel, market_calendar
from tests.factories import make_raw_market

DAY = dt.date(2024, 1, 1)


def panel_of(**closes: list[float | None]) -> pl.DataFrame:
    """Closes by stock, one per day; None is a halted day."""
    rows = [
        (code, DAY + dt.timedelta(i), *[float(c)] * 4, 1)
        for code, series in closes.items()
        for i, c in enumerate(series)
        if c is not None
    ]
    schema = ["code", "date", "open", "high", "low", "close", "volume"]
    return make_panel(pl.DataFrame(rows, schema=schema, orient="row"))[0]


def test_the_worked_example() -> None:
    # c0 = 10,000: +3.00 % is BUY, one won less is HOLD; -3.00 % is SELL, one won more is HOLD.
    for last, label in ((10_300, 2), (10_299, 1), (9_701, 1), (9_700, 0)):
        labels = make_labels(panel_of(A=[10_000, 1, 2, 3, 4, last]))
        assert labels["label"].to_list() == [label, None, None, None, None, None]
        assert labels["forward_return"][0] == last / 10_000 - 1
        assert labels["label_end"][0] == DAY + dt.timedelta(5)


def test_the_rule_is_exact_for_every_price_where_floats_are_not() -> None:
    start = np.arange(100, 200_001, 100, dtype=np.float64)
    end = start // 100 * 103
    assert (classify(start, end) == 2).all()
    assert (classify(start, end - 1) == 1).all()
    assert (classify(start, start // 100 * 97) == 0).all()
    seven_down = start // 100 * 93
    assert (classify(start, seven_down, 0.07) == 0).all()
    assert not (seven_down / start - 1 <= -0.07).all()


def test_horizon_and_threshold_are_parameters() -> None:
    labels = make_labels(panel_of(A=[100, 105, 110]), horizon=1, threshold=0.05)
    assert labels["label"].to_list() == [2, 1, None]
    with pytest.raises(ValueError, match="horizon=0"):
        make_labels(panel_of(A=[100]), horizon=0)
    with pytest.raises(ValueError, match="threshold=-0.1"):
        make_labels(panel_of(A=[100]), threshold=-0.1)


def test_the_skipped_day_return_starts_one_day_later() -> None:
    labels = make_labels(panel_of(A=[100, 110, 100, 100, 100, 100, 121, 100]))
    assert labels["forward_return_skip1"].to_list()[:2] == [pytest.approx(0.1), pytest.approx(0.0)]
    assert labels["forward_return_skip1"].to_list()[2:] == [None] * 6


def test_a_label_counts_traded_rows_and_a_halt_inside_is_flagged() -> None:
    steady = [100.0] * 12
    labels = make_labels(panel_of(A=[100, 100, None, None, 100, 100, 100, 103, 100, 100, 100, 100], B=steady, C=steady))
    first = labels.row(0, named=True)
    assert first["label_end"] == DAY + dt.timedelta(7)
    assert (first["label"], first["label_spans_halt"]) == (2, True)
    assert labels["label_spans_halt"].to_list()[:10] == [True, True] + [False] * 8
    assert not labels["label_spans_halt"][10:].any()


def test_a_close_that_jumps_beyond_the_limit_flags_the_labels_that_span_it() -> None:
    labels = make_labels(panel_of(A=[100] * 4 + [500] * 8))
    assert labels["label_spans_break"].to_list() == [True] * 4 + [False] * 8


def test_a_stock_that_stops_trading_counts_with_its_last_price_once_the_market_went_on() -> None:
    def stopped(market_days: int) -> pl.DataFrame:
        long = [100.0] * (8 + market_days)
        return make_labels(panel_of(A=[100.0] * 7 + [90.0], B=long, C=long))[:8]

    labels = stopped(5)
    assert labels["label"].to_list() == [1, 1, 0, 0, 0, 0, 0, 1]
    assert labels["label_cut_short"].to_list() == [False] * 3 + [True] * 5
    assert labels["label_end"].to_list() == [DAY + dt.timedelta(d) for d in (5, 6, 7, 12, 12, 12, 12, 12)]
    assert labels["forward_return"][3] == pytest.approx(-0.1)
    assert labels["forward_return_skip1"].to_list()[5:] == [pytest.approx(-0.1), 0.0, None]
    not_yet = stopped(4)
    assert not_yet["label"].to_list() == [1, 1, 0] + [None] * 5
    assert not not_yet["label_cut_short"].any()


def test_labels_equal_a_plain_loop() -> None:
    panel, _ = make_panel(make_raw_market(seed=3))
    labels, calendar = make_labels(panel), market_calendar(panel)
    row = 0
    for _, stock in panel.group_by("code", maintain_order=True):
        close, dates = stock["close"].to_list(), stock["date"].to_list()
        after = [d.astype(object) for d in calendar if d.astype(object) > dates[-1]]
        for i, c0 in enumerate(close):
            got = labels.row(row + i, named=True)
            if i + 5 < len(close):
                end, day, cut = close[i + 5], dates[i + 5], False
            elif len(after) >= 5:
                end, day, cut = close[-1], after[4], True
            else:
                assert got["label"] is None and got["forward_return"] is None and got["label_end"] is None
                continue
            change = 100 * int(end - c0)
            assert got["label"] == (2 if change >= 3 * c0 else 0 if change <= -3 * c0 else 1)
            assert got["forward_return"] == end / c0 - 1
            assert (got["label_end"], got["label_cut_short"]) == (day, cut)
            last = dates[min(i + 5, len(dates) - 1)]
            between = sum(dates[i] < d.astype(object) <= last for d in calendar)
            assert got["label_spans_halt"] == (between > 5)
        row += len(close)
