"""What becomes of a day's forecasts: due, ended, open, delisted, and prices that were adjusted since."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lasps.data.labels import make_labels
from lasps.data.panel import Panel, make_panel
from lasps.live.outcomes import VALUES, Outcomes, Pull, readjusted
from tests.factories import halted, market, scaled

DAY_ROW = 100


@pytest.fixture(scope="module")
def raw() -> pl.DataFrame:
    return market(n_stocks=12, n_days=120)


def days_of(raw: pl.DataFrame) -> list[date]:
    return raw["date"].unique().sort().to_list()


def panel_until(raw: pl.DataFrame, last: date) -> Panel:
    return Panel.of(make_panel(raw.filter(pl.col("date") <= last))[0])


def asked(raw: pl.DataFrame) -> pl.DataFrame:
    """All stocks on day DAY_ROW."""
    return pl.DataFrame({"code": sorted(raw["code"].unique())}).with_columns(date=pl.lit(days_of(raw)[DAY_ROW]))


def seen(raw: pl.DataFrame, after: int) -> pl.DataFrame:
    """The outcomes of day DAY_ROW for all stocks, `after` market days later."""
    days = days_of(raw)
    return Pull(panel_until(raw, days[DAY_ROW + after])).outcomes(asked(raw))


def test_a_day_is_due_at_its_fifth_market_day(raw) -> None:
    days = days_of(raw)
    for after, due in ((0, False), (4, False), (5, True), (6, True)):
        assert Pull(panel_until(raw, days[DAY_ROW + after])).is_due(days[DAY_ROW]) is due
        assert (seen(raw, after)["status"] == ("ended" if due else "open")).all()


def test_the_return_is_of_the_closes_of_one_pull(raw) -> None:
    found, days = seen(raw, 6), days_of(raw)
    closes = raw.pivot("date", index="code", values="close").sort("code")
    expected = closes[str(days[DAY_ROW + 5])] / closes[str(days[DAY_ROW])] - 1
    np.testing.assert_allclose(found["forward_return"], expected, rtol=1e-12)
    skip = closes[str(days[DAY_ROW + 6])] / closes[str(days[DAY_ROW + 1])] - 1
    np.testing.assert_allclose(found["forward_return_skip1"], skip, rtol=1e-12)
    assert found["close"].to_list() == closes[str(days[DAY_ROW])].to_list()


def test_a_split_within_the_five_days_moves_no_return_and_is_told_by_the_close(raw) -> None:
    code = min(raw["code"].unique())
    then = seen(raw, 0)["close"].to_numpy()
    before = scaled(raw, code, 0, 0.2)  # the new pull has all of its prices on the scale after the split
    found, plain = seen(before, 5), seen(raw, 5)
    np.testing.assert_allclose(found["forward_return"], plain["forward_return"], atol=2e-3)
    assert readjusted(then, found["close"].to_numpy()).tolist() == [True] + [False] * 11


def test_a_halted_stock_stays_open_until_it_has_traded_five_days(raw) -> None:
    code = sorted(raw["code"].unique())[3]
    stopped = halted(raw, code, range(DAY_ROW + 2, DAY_ROW + 5))
    due = seen(stopped, 5)
    assert due.filter(code=code)["status"].item() == "open" and due.filter(status="ended").height == 11
    assert due.filter(code=code)["last_day"].item() == days_of(raw)[DAY_ROW + 5]
    ended = seen(stopped, 8).filter(code=code)
    assert ended["status"].item() == "ended" and ended["label_spans_halt"].item()


def test_a_delisted_stock_is_told_with_its_last_return_and_ends_with_it(raw) -> None:
    code, days = sorted(raw["code"].unique())[5], days_of(raw)
    gone = raw.filter(~((pl.col("code") == code) & (pl.col("date") > days[DAY_ROW + 2])))
    due = seen(gone, 5).filter(code=code)
    closes = gone.filter(code=code)["close"].to_list()
    assert due["status"].item() == "open" and due["last_day"].item() == days[DAY_ROW + 2]
    assert due["last_return"].item() == pytest.approx(closes[-1] / closes[-3] - 1)
    ended = seen(gone, 8).filter(code=code)
    assert ended["label_cut_short"].item() and ended["forward_return"].item() == pytest.approx(
        closes[-1] / closes[-3] - 1
    )


def test_a_stock_that_the_bars_no_longer_have_is_gone_not_dropped(raw) -> None:
    code, days = sorted(raw["code"].unique())[5], days_of(raw)
    panel = panel_until(raw.filter(pl.col("code") != code), days[DAY_ROW + 5])
    found = Pull(panel).outcomes(asked(raw))
    assert found.height == 12 and found.filter(code=code)["status"].item() == "gone"


def test_what_ends_later_is_added_and_nothing_that_was_written_changes(raw, tmp_path: Path) -> None:
    code, day = sorted(raw["code"].unique())[3], days_of(raw)[DAY_ROW]
    stopped, outcomes = halted(raw, code, range(DAY_ROW + 2, DAY_ROW + 5)), Outcomes(tmp_path)
    assert outcomes.read().is_empty()
    assert outcomes.record(seen(stopped, 5)) == 11
    first = outcomes.read()
    assert first["forward_return_skip1"].null_count() == 11
    assert outcomes.record(seen(stopped, 5)) == 0 and len(outcomes.parts(day)) == 1
    written = outcomes.parts(day)[0].read_bytes()
    assert outcomes.record(seen(stopped, 6)) == 11  # the returns from the next day on
    other_pull = scaled(stopped, min(raw["code"].unique()), DAY_ROW + 1, 2.0)
    assert outcomes.record(seen(other_pull, 10)) == 1
    found = outcomes.read()
    assert outcomes.parts(day)[0].read_bytes() == written and found.height == 12
    labels = make_labels(panel_until(stopped, days_of(raw)[DAY_ROW + 10]))
    expected = (
        panel_until(stopped, days_of(raw)[DAY_ROW + 10]).frame.select("code", "date").hstack(labels).filter(date=day)
    )
    for name in VALUES:
        assert found[name].to_list() == expected.sort("code")[name].to_list(), name


def test_a_value_stays_as_it_was_first_written_whatever_a_later_part_says(raw, tmp_path: Path) -> None:
    outcomes, day = Outcomes(tmp_path), days_of(raw)[DAY_ROW]
    outcomes.record(seen(raw, 6))
    first = outcomes.read()
    (part,) = outcomes.parts(day)
    other = pl.read_parquet(part).with_columns(label=2 - pl.col("label"), forward_return=pl.col("forward_return") + 1)
    other.write_parquet(tmp_path / f"{day}.1.parquet")
    assert outcomes.read().equals(first)
