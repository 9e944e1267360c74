"""The kinds of damage that real files came with, each made on a clean market: found, named, mostly repaired."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lasps.data import integrity
from lasps.data.exchange import known_sessions
from lasps.data.integrity import bars as bar_checks
from lasps.data.integrity import days, volumes
from lasps.data.integrity import report as checks
from lasps.data.panel import PRICES
from tests.factories import halted, market, put, scaled, weekdays

CODES = [f"{stock + 1:05d}0" for stock in range(12)]


def krx_market(n_stocks: int = 12, n_days: int = 120, seed: int = 3) -> pl.DataFrame:
    """A clean market on the days on which KRX was open in 2018."""
    sessions = known_sessions(date(2018, 1, 2), date(2018, 12, 31))
    assert sessions is not None
    days = dict(zip(weekdays(n_days), sessions[:n_days].tolist(), strict=True))
    return market(n_stocks, n_days, seed=seed).with_columns(pl.col("date").replace_strict(days, return_dtype=pl.Date))


def found(raw: pl.DataFrame, name: str) -> integrity.Finding:
    return integrity.check(raw=raw)[name]


def rows_of(code: str, since: int, before: int) -> pl.Expr:
    return (pl.col("code") == code) & pl.int_range(pl.len()).over("code").is_between(since, before - 1)


def raw_volume(raw: pl.DataFrame, code: str, row: int, factor: int) -> pl.DataFrame:
    """The volume of the days before a split as it was traded then, beside adjusted prices."""
    old = pl.when(rows_of(code, 0, row)).then(pl.col("volume") // factor + 1).otherwise(pl.col("volume"))
    return raw.with_columns(volume=old)


def test_a_clean_market_on_krx_days_has_no_finding_at_all() -> None:
    assert [f for f in integrity.check(raw=krx_market()).findings if f.count] == []


def test_splits_missed_across_a_halt_are_fatal_when_many_and_a_warning_when_one() -> None:
    raw = market(n_stocks=40, n_days=60)
    for stock, row in enumerate(range(20, 24)):
        raw = scaled(halted(raw, f"{stock + 1:05d}0", range(row, row + 3)), f"{stock + 1:05d}0", row + 3, 0.2)
        finding = found(raw, "scale_breaks")
        assert (finding.count, finding.severity) == (stock + 1, "fatal" if stock else "warning")
    repaired, _ = integrity.apply_repairs(raw, finding.repairs)
    assert found(repaired, "scale_breaks").count == 0


def test_a_few_relistings_at_no_whole_ratio_in_a_large_market_are_a_warning() -> None:
    raw = market(n_stocks=300, n_days=30)
    for stock in range(2):
        raw = scaled(halted(raw, f"{stock + 1:05d}0", range(10, 14)), f"{stock + 1:05d}0", 14, 2.45)
    assert found(raw, "scale_breaks").severity == "warning"


@given(st.integers(40, 80), st.sampled_from([20, 50, 100]))
@settings(max_examples=10, deadline=None)
def test_raw_volume_beside_adjusted_prices_is_fatal_wherever_it_ends_and_rescaling_repairs_it(row, factor) -> None:
    raw = krx_market(n_stocks=6)
    for code in CODES[:6]:
        raw = raw_volume(raw, code, row, factor)
    finding = found(raw, "volume_levels")
    assert (finding.severity, finding.count) == ("fatal", 6) and len(finding.repairs) == 6
    assert all(repair["columns"] == ["volume"] for repair in finding.repairs)
    repaired, _ = integrity.apply_repairs(raw, finding.repairs)
    assert found(repaired, "volume_levels").count == 0


@pytest.mark.parametrize("evidence", ["halt", "ticks"])
def test_one_stock_with_raw_volume_is_named_where_the_prices_show_the_adjustment(evidence) -> None:
    raw = krx_market(n_days=150)
    if evidence == "halt":
        raw = halted(raw, "000050", range(70, 73))
    else:  # prices of 20,000 won trade at multiples of 50, adjusted ones do not
        on_ticks = [(pl.col(c) / 50).round() * 50 for c in PRICES]
        late = pl.int_range(pl.len()).over("code") >= 73
        raw = raw.with_columns(pl.when(late).then(p).otherwise(pl.col(p.meta.output_name())) for p in on_ticks)
    finding = found(raw_volume(raw, "000050", 73, 10), "volume_levels")
    assert (finding.severity, finding.count) == ("warning", 1)
    assert finding.examples[0][0] == "000050" and "adjusted or the stock had rested" in finding.examples[0][2]
    assert finding.repairs[0]["ratio"] == pytest.approx(0.1)


def test_volume_that_only_rises_for_some_days_is_no_change_of_level() -> None:
    raw = krx_market()
    busy = rows_of("000050", 60, 68)
    raw = raw.with_columns(volume=pl.when(busy).then(pl.col("volume") * 80).otherwise(pl.col("volume")))
    assert found(raw, "volume_levels").count == 0


def test_a_holiday_filled_with_the_day_before_is_fatal_and_masking_makes_it_no_market_day() -> None:
    raw = krx_market()
    day, after = raw["date"].unique().sort()[49:51]
    assert (after - day).days == 1
    copied = raw.filter(pl.col("date") == day).drop("date").with_columns(date=pl.lit(after))
    filled = pl.concat([raw.filter(pl.col("date") != after), copied.select(raw.columns)]).sort("code", "date")
    finding = found(filled, "repeated_bars")
    assert (finding.severity, finding.count) == ("fatal", 12) and str(after) in finding.summary
    repaired, _ = integrity.apply_repairs(filled, finding.repairs)
    assert found(repaired, "repeated_bars").count == 0
    assert str(after) not in {str(d) for d in bar_checks.prepare(repaired).calendar.filter("is_market_day")["date"]}


def test_one_stock_that_repeats_a_bar_is_a_note_and_one_without_a_range_is_none() -> None:
    raw = market(n_stocks=40)
    bar = raw.filter(pl.col("code") == "000010").row(20, named=True)
    values = {name: bar[name] for name in (*PRICES, "volume")}
    finding = found(put(raw, "000010", 21, **values), "repeated_bars")
    assert (finding.severity, finding.count) == ("info", 1)
    flat = dict.fromkeys(PRICES, bar["close"]) | {"volume": 3}
    assert found(put(put(raw, "000010", 20, **flat), "000010", 21, **flat), "repeated_bars").count == 0


def test_two_holes_in_the_calendar_are_a_warning() -> None:
    raw = market().filter(~pl.col("date").dt.month().is_in([3, 5]))
    finding = found(raw, "calendar_holes")
    assert (finding.severity, finding.count) == ("warning", 2)


@pytest.mark.parametrize("error", [RuntimeError("broken"), pl.exceptions.PanicException("index out of bounds")])
def test_a_check_that_fails_itself_is_a_fatal_finding_of_its_name_and_all_others_run(error, monkeypatch) -> None:
    def halts(bars):
        raise error

    broken = tuple(halts if c.__name__ == "halts" else c for c in checks.BAR_CHECKS)
    monkeypatch.setattr(integrity, "BAR_CHECKS", broken)
    report = integrity.check(raw=scaled(market(), "000040", 70, 0.3))
    assert report["halts"].severity == "fatal" and str(error) in report["halts"].summary
    assert report["scale_breaks"].count == 1
    assert {f.name for f in integrity.check(raw=market()).findings} == {f.name for f in report.findings}


@pytest.mark.parametrize(("every", "severity"), [(5, "fatal"), (400, "warning"), (10_000, "info")])
def test_volume_0_with_moving_prices_is_not_called_normal(every, severity) -> None:
    hit = pl.int_range(pl.len()) % every == 3
    lost = market(n_stocks=30).with_columns(volume=pl.when(hit).then(0).otherwise(pl.col("volume")))
    assert found(lost, "unread_volume").severity == severity


def test_every_missing_market_day_is_named_and_a_holiday_is_none() -> None:
    raw = krx_market()
    gone = [raw["date"].unique().sort()[row] for row in (30, 31, 77)]
    finding = found(raw.filter(~pl.col("date").is_in(gone)), "missing_days")
    assert (finding.severity, finding.count) == ("warning", 3)
    assert {example[1] for example in finding.examples} == {str(day) for day in gone}


@pytest.mark.parametrize(("n", "count"), [(4, 4), (5, 5)])
def test_trading_on_krx_holidays_is_a_note_and_five_such_days_make_the_calendar_the_data_s_own(n, count) -> None:
    raw, dates = krx_market(), weekdays(120)
    sessions = known_sessions(dates[0], dates[-1])
    assert sessions is not None
    holidays = [day for day in dates if np.datetime64(day) not in sessions][:n]
    assert len(holidays) == n
    extra = [raw.filter(pl.col("date") == raw["date"].min()).with_columns(date=pl.lit(day)) for day in holidays]
    raw = pl.concat([raw, *extra]).filter(pl.col("date") != date(2018, 3, 2)).sort("code", "date")
    finding = found(raw, "missing_days")
    if n < 5:
        assert (finding.severity, finding.count) == ("warning", count + 1)
    else:
        assert (finding.severity, finding.count) == ("info", count) and "its own calendar" in finding.summary


def test_saturdays_were_trading_days_until_december_1998() -> None:
    days = [date(1998, 9, 1) + timedelta(d) for d in range(80)]
    days = [day for day in days if day.weekday() < 6]
    raw = market(n_days=len(days)).with_columns(
        pl.col("date").replace_strict(dict(zip(weekdays(len(days)), days, strict=True)), return_dtype=pl.Date)
    )
    assert found(raw, "stray_dates").count == 0
    assert found(raw.with_columns(pl.col("date").dt.offset_by("364d")), "stray_dates").count > 0


def test_dates_in_utc_are_a_day_early_and_fatal() -> None:
    finding = found(market().with_columns(pl.col("date").dt.offset_by("-1d")), "stray_dates")
    assert finding.severity == "fatal" and "a day early" in finding.summary and "nine hours" in finding.advice


def test_bars_of_hours_are_called_that() -> None:
    raw = market(n_stocks=3, n_days=80)
    hours = pl.concat([raw.with_columns((pl.col(c) + hour).alias(c) for c in PRICES) for hour in range(6)])
    finding = found(hours.sort("code", "date"), "duplicate_keys")
    assert finding.severity == "fatal" and "hours or minutes" in finding.advice and finding.repairs == ()


@pytest.mark.parametrize("kind", ["few stocks", "little volume"])
def test_a_last_day_that_was_not_over_is_named(kind) -> None:
    raw = krx_market()
    last = pl.col("date") == raw["date"].max()
    if kind == "few stocks":
        raw = raw.filter(~last | pl.col("code").is_in(CODES[:9]))
    else:
        raw = raw.with_columns(volume=pl.when(last).then(pl.col("volume") // 10).otherwise(pl.col("volume")))
    finding = found(raw, "unfinished_last_day")
    assert (finding.severity, finding.examples[0][1]) == ("warning", str(raw["date"].max()))


def test_what_a_forecast_does_not_read_is_not_looked_at() -> None:
    raw = krx_market(n_days=200)
    early, late = (put(raw, "000010", row, close=-1.0) for row in (20, 190))
    for broken, fatal in ((early, False), (late, True)):
        report = integrity.check(raw=broken, forecast_rows=100)
        assert (report["non_positive_prices"].severity == "fatal") == fatal
    rested = halted(put(raw, "000010", 60, close=-1.0), "000010", range(100, 150))  # its last 100 rows begin at row 50
    assert integrity.check(raw=rested, forecast_rows=100)["non_positive_prices"].count == 1


def test_checks_of_a_part_know_the_whole_history() -> None:
    bars = bar_checks.prepare(krx_market(n_days=200))
    part = bars.read_by_forecast(50)
    assert part.traded.height == 12 * 50 and part.calendar.height == 50
    assert part.place.max() == 49 and part.traded["rank"].min() == 150
    for check in checks.BAR_CHECKS:
        assert checks.run(check, part).count == 0
    assert volumes.volume_outliers(part).count == 0 and days.unfinished_last_day(part).count == 0
