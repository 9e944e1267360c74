"""The integrity gate on bars: every kind of damage is found, named and counted; a clean market passes."""

from __future__ import annotations

import json
from datetime import date

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lasps.data import integrity
from lasps.data.integrity import bars as bar_checks
from lasps.data.integrity import prices
from lasps.data.panel import make_panel
from tests.factories import FIRST_DAY, halted, market, put, scaled, signed, weekdays


def noteworthy(report: integrity.IntegrityReport) -> set[str]:
    return {f.name for f in report.findings if f.count and f.severity != "info"}


def test_a_clean_market_has_no_finding_at_all() -> None:
    report = integrity.check(raw=market())
    assert [f.name for f in report.findings if f.count] == ["missing_days"]  # it knows no holidays, and says so
    report.raise_if_fatal()


def test_duplicate_keys_stop_the_build_and_are_repaired_by_dropping_the_second_row() -> None:
    raw = market()
    twice = pl.concat(
        [
            raw,
            raw.filter((pl.col("code") == "000010") & (pl.col("date") == FIRST_DAY)).with_columns(pl.col("close") + 50),
        ]
    )
    finding = integrity.check(raw=twice)["duplicate_keys"]
    assert (finding.severity, finding.count) == ("fatal", 1)
    assert finding.examples == (("000010", "2018-01-02", "2 rows, 2 different closes"),)
    repaired, counts = integrity.apply_repairs(twice, finding.repairs)
    assert repaired.equals(raw) and counts["rows"] == {"drop_row": 1}


def test_rows_out_of_order_are_a_warning() -> None:
    raw = market()
    assert integrity.check(raw=pl.concat([raw[60:], raw[:60]]))["unsorted_keys"].count == 1


@pytest.mark.parametrize("by", [["code", "date"], ["date", "code"]])
@pytest.mark.parametrize("newest_first", [False, True])
def test_every_way_of_sorting_a_file_is_no_finding(by: list[str], newest_first: bool) -> None:
    raw = market().sort(by, descending=[newest_first and c == "date" for c in by])
    assert integrity.check(raw=raw)["unsorted_keys"].count == 0


def test_rows_without_any_value_are_no_days_for_the_gate_as_for_the_panel() -> None:
    raw = market().with_columns(pl.col("volume").cast(pl.Float64))
    nan, null = [float("nan")] * 2, [None] * 2
    for values in (nan, null):
        blank = raw[:2].with_columns(pl.Series(c, values, dtype=pl.Float64) for c in (*bar_checks.PRICES, "volume"))
        blank = blank.with_columns(date=pl.Series(weekdays(122)[-2:]))
        both = pl.concat([raw, blank])
        assert [f.name for f in integrity.check(raw=both).findings if f.count] == ["missing_days"]
        panel, report = make_panel(both)
        assert (panel.height, report.empty_rows) == (raw.height, 2)


def test_shares_without_a_price_are_no_empty_row_for_the_gate_nor_the_panel() -> None:
    raw = market().with_columns(
        pl.when(pl.int_range(pl.len()) == 7).then(None).otherwise(pl.col(c)).alias(c) for c in bar_checks.PRICES
    )
    assert integrity.check(raw=raw)["non_positive_prices"].count == 1
    with pytest.raises(ValueError, match="1 bars have some values missing"):
        make_panel(raw)


def test_signs_before_prices_are_diagnosed_and_no_day_is_suggested_to_be_masked() -> None:
    finding = integrity.check(raw=signed(market()))["non_positive_prices"]
    assert finding.severity == "fatal" and "--signed-prices" in finding.advice and finding.repairs == ()


def test_a_few_negative_prices_are_errors_and_no_convention() -> None:
    raw = put(put(market(), "000010", 5, close=-1), "000020", 9, low=-5)
    finding = integrity.check(raw=raw)["non_positive_prices"]
    assert len(finding.repairs) == 2 and "sign" not in finding.advice
    noise = pl.when(pl.int_range(pl.len()) % 3 == 0).then(-1.0).otherwise(pl.col("close"))
    assert "sign" not in integrity.check(raw=market().with_columns(close=noise))["non_positive_prices"].advice


def test_a_suggested_list_of_repairs_is_complete_and_its_repairs_work() -> None:
    every_third = pl.when(pl.int_range(pl.len()) % 3 == 0).then(0.0).otherwise(pl.col("close"))
    raw = market(n_stocks=30).with_columns(close=every_third)
    finding = integrity.check(raw=raw)["non_positive_prices"]
    assert len(finding.repairs) == finding.count == 1200
    repaired, counts = integrity.apply_repairs(raw, finding.repairs)
    assert counts["rows"] == {"mask_day": 1200}
    assert integrity.check(raw=repaired)["non_positive_prices"].count == 0


@pytest.mark.parametrize(("bad_thirds", "refused"), [(2, True), (1, False)])
def test_a_waiver_that_leaves_less_than_half_of_the_rows_is_refused(bad_thirds: int, refused: bool) -> None:
    bad = pl.int_range(pl.len()) % 3 < bad_thirds
    raw = market().with_columns(close=pl.when(bad).then(0.0).otherwise(pl.col("close")))
    if refused:
        with pytest.raises(ValueError, match=r"non_positive_prices would leave 480 of 1,440 traded rows \(33 %\)"):
            integrity.accept(raw, ["non_positive_prices"])
    else:
        assert integrity.accept(raw, ["non_positive_prices"])[1] == {"non_positive_prices": 480}


def test_a_segment_is_dropped_between_its_days() -> None:
    raw, days = market(), weekdays(120)
    out, counts = integrity.drop_segment(raw, "000010", since=days[3], before=str(days[10]))
    gone = raw.join(out, on=["code", "date"], how="anti")
    assert gone["date"].to_list() == days[3:10] and set(gone["code"]) == {"000010"} and counts == {"drop_segment": 7}
    assert integrity.apply_repairs(raw, [{"repair": "drop_segment", "code": "000010", "before": str(days[5])}])[1][
        "rows"
    ] == {"drop_segment": 5}


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([pl.Int32, pl.UInt32, pl.Int64, pl.Float32]), st.sampled_from([0.02, 50.0, 1 / 3]))
def test_rescaling_a_table_of_any_numeric_type_gives_what_float64_gives(dtype: pl.DataType, ratio: float) -> None:
    raw = market(n_stocks=2).with_columns(volume=pl.col("volume") * 3_000)
    narrow = raw.with_columns(pl.col(*bar_checks.PRICES, "volume").cast(dtype))
    wide = narrow.with_columns(pl.col(*bar_checks.PRICES).cast(pl.Float64))
    ours, _ = integrity.rescale_segment(narrow, "000010", weekdays(120)[50], ratio)
    plain, _ = integrity.rescale_segment(wide, "000010", weekdays(120)[50], ratio)
    assert ours.select(pl.col(*bar_checks.PRICES, "volume").cast(pl.Float64)).equals(
        plain.select(pl.col(*bar_checks.PRICES, "volume").cast(pl.Float64))
    )


def test_volume_alone_can_be_rescaled() -> None:
    raw = market()
    out, _ = integrity.rescale_segment(raw, "000010", weekdays(120)[10], 0.02, columns=["volume"])
    assert out.drop("volume").equals(raw.drop("volume"))
    assert out["volume"][:11].to_list() == [*(raw["volume"][:10] * 50).to_list(), raw["volume"][10]]


def test_a_close_outside_the_range_is_a_warning_and_says_by_how_much() -> None:
    raw = put(market(), "000030", 10, open=20_000, high=20_100, low=19_900, close=20_250)
    finding = integrity.check(raw=raw)["prices_outside_range"]
    assert (finding.severity, finding.count) == ("warning", 1)
    assert finding.examples[0][0] == "000030" and "outside by 0.74 %" in finding.examples[0][2]


def test_splits_applied_to_open_high_and_low_only_are_fatal_diagnosed_and_repaired_at_the_closes() -> None:
    raw = market(n_days=300)
    broken = raw
    for stock in range(6):  # half of the stocks split 5:1 on day 200; their closes before it stay on the old scale
        here = (pl.col("code") == f"{stock + 1:05d}0") & (pl.int_range(pl.len()).over("code") < 200)
        broken = broken.with_columns(close=pl.when(here).then(pl.col("close") * 5).otherwise("close"))
    report = integrity.check(raw=broken)
    finding = report["prices_outside_range"]
    assert finding.severity == "fatal" and finding.count == 1200 and finding.repairs == ()
    assert "splits were applied to open, high and low only" in finding.advice
    repairs = report["scale_breaks"].repairs
    assert len(repairs) == 6 and repairs[0] == {
        "repair": "rescale_segment",
        "code": "000010",
        "since": "2018-01-02",
        "before": "2018-10-09",
        "ratio": 0.2,
        "columns": ["close"],
    }
    repaired, _ = integrity.apply_repairs(broken, repairs)
    assert repaired.equals(raw)


def test_closes_that_missed_two_splits_get_a_ratio_for_each_segment() -> None:
    raw = market(n_days=300)
    place = pl.int_range(pl.len()).over("code")
    missed = pl.when(place < 100).then(10.0).when(place < 200).then(2.0).otherwise(1.0)
    here = pl.col("code") == "000020"
    broken = raw.with_columns(close=pl.when(here).then(pl.col("close") * missed).otherwise("close"))
    repairs = integrity.check(raw=broken)["scale_breaks"].repairs
    assert [repair["ratio"] for repair in repairs] == [0.1, 0.5]
    assert integrity.apply_repairs(broken, repairs)[0].equals(raw)


def test_a_price_far_outside_the_range_is_suggested_to_be_masked_and_rounding_is_not() -> None:
    raw = put(market(), "000030", 10, open=20_000, high=20_100, low=19_900, close=20_250)
    assert integrity.check(raw=raw)["prices_outside_range"].repairs == ()
    raw = put(raw, "000030", 12, open=20_000, high=20_100, low=19_900, close=21_500)
    assert integrity.check(raw=raw)["prices_outside_range"].repairs == (
        {"repair": "mask_day", "code": "000030", "date": str(weekdays(120)[12])},
    )


@pytest.mark.parametrize("bad", [0.0, -5.0, float("nan"), float("inf"), None])
def test_a_price_that_is_no_positive_number_on_a_traded_day_is_fatal(bad: float | None) -> None:
    finding = integrity.check(raw=put(market(), "000010", 5, close=bad))["non_positive_prices"]  # type: ignore[arg-type]
    assert (finding.severity, finding.count) == ("fatal", 1)


def test_halted_days_with_zero_prices_are_halts_and_no_errors() -> None:
    report = integrity.check(raw=halted(market(), "000010", range(30, 40)))
    assert report["halts"].count == 10 and report["halts"].severity == "info"
    assert report["non_positive_prices"].count == 0 and noteworthy(report) == set()


def test_a_volume_column_of_zeros_is_fatal() -> None:
    assert integrity.check(raw=market().with_columns(volume=pl.lit(0)))["halts"].severity == "fatal"


@pytest.mark.parametrize(
    ("start", "factor", "found"),
    [
        (date(2014, 1, 2), 1.149, 0),
        (date(2014, 1, 2), 1.18, 1),
        (date(2016, 1, 4), 1.18, 0),
        (date(2016, 1, 4), 1.299, 0),
        (date(2016, 1, 4), 1.33, 1),
        (date(2016, 1, 4), 0.67, 1),
    ],
)
def test_the_limit_is_15_percent_until_june_2015_and_30_percent_since(start: date, factor: float, found: int) -> None:
    raw = market(start=start)
    before = raw.filter(pl.col("code") == "000010")["close"][49]
    here = scaled(raw, "000010", 50, factor * before / raw.filter(pl.col("code") == "000010")["close"][50])
    assert integrity.check(raw=here)["limit_moves"].count == found


def test_a_limit_move_rounded_up_by_one_tick_is_within_the_limit() -> None:
    raw = put(market(), "000010", 50, open=607, high=607, low=607, close=607)
    raw = put(raw, "000010", 51, open=700, high=790, low=700, close=790)  # 607 * 1.3 = 789.1, as in a real file
    hits = bar_checks.prepare(raw).jumps
    assert date.isoformat(weekdays(120)[51]) not in {str(d) for d in hits["date"]}


def test_moves_after_a_long_halt_of_new_listings_and_in_liquidation_are_exempt_and_listed() -> None:
    raw = market(n_days=150)
    raw = scaled(halted(raw, "000010", range(40, 60)), "000010", 60, 0.5)  # relisting
    listed_late = raw.filter((pl.col("code") != "000020") | (pl.int_range(pl.len()).over("code") >= 50))
    raw = scaled(listed_late, "000020", 1, 1.6)  # second day of a listing
    gone = raw.filter((pl.col("code") != "000030") | (pl.int_range(pl.len()).over("code") < 100))
    raw = scaled(gone, "000030", 93, 0.3)  # the last seven rows of a stock that leaves
    report = integrity.check(raw=raw)
    assert report["limit_moves"].count == 0
    kinds = {row["why"]: row["moves"] for row in report["limit_moves_exempt"].table}
    assert kinds == {"after market days without trading": 1, "first listing days": 1, "liquidation trading": 1}


def test_the_eighth_last_row_of_a_leaving_stock_is_not_exempt() -> None:
    raw = market()
    gone = raw.filter((pl.col("code") != "000030") | (pl.int_range(pl.len()).over("code") < 100))
    assert integrity.check(raw=scaled(gone, "000030", 92, 0.3))["limit_moves"].count == 1


def test_a_stock_that_falls_3_6_fold_overnight_is_a_fatal_break_and_rescaling_repairs_it() -> None:
    raw = market()
    broken = scaled(raw, "000040", 70, 1 / 3.6)
    report = integrity.check(raw=broken)
    finding = report["scale_breaks"]
    assert (finding.severity, finding.count) == ("fatal", 1)
    assert finding.examples[0][:2] == ("000040", str(weekdays(120)[70])) and "overnight" in finding.examples[0][2]
    repaired, counts = integrity.apply_repairs(broken, finding.repairs)
    assert counts["rows"] == {"rescale_segment": 70}
    assert integrity.check(raw=repaired)["scale_breaks"].count == 0
    with pytest.raises(integrity.IntegrityError, match="scale_breaks.*000040"):
        report.raise_if_fatal()


def test_many_stocks_breaking_on_one_date_are_two_pulls_joined() -> None:
    raw = market(n_stocks=40)
    for stock in range(6):
        raw = scaled(raw, f"{stock + 1:05d}0", 70, 0.5)
    assert "6 of them on 2018-04-10" in integrity.check(raw=raw)["scale_breaks"].summary


def test_one_break_in_a_large_market_is_a_warning() -> None:
    raw = scaled(market(n_stocks=500, n_days=30), "000040", 15, 0.4)
    report = integrity.check(raw=raw)
    assert report["scale_breaks"].severity == report["limit_moves"].severity == "warning"


def test_a_capital_reduction_that_nobody_adjusted_is_found_across_the_halt() -> None:
    raw = scaled(halted(market(), "000010", range(40, 60)), "000010", 60, 10)
    finding = integrity.check(raw=raw)["scale_breaks"]
    assert finding.count == 1 and "near 10, halt" in finding.examples[0][2] and finding.severity == "warning"


def test_a_single_day_on_another_scale_is_a_stray_day_and_masking_makes_it_a_halt() -> None:
    raw = market()
    close = raw.filter(pl.col("code") == "000010")["close"][50]
    broken = put(raw, "000010", 50, **dict.fromkeys(bar_checks.PRICES, close * 2))
    report = integrity.check(raw=broken)
    assert report["stray_days"].count == 1 and report["scale_breaks"].count == 0
    repaired, _ = integrity.apply_repairs(broken, report["stray_days"].repairs)
    after = integrity.check(raw=repaired)
    assert noteworthy(after) == set() and after["halts"].count == 1


@given(st.sampled_from([0.1, 0.2, 0.25, 1 / 3.6, 0.5, 2.0, 3.0, 5.0, 10.0]), st.integers(10, 110))
@settings(max_examples=8, deadline=None)
def test_every_split_ratio_at_any_place_is_found_with_its_ratio(ratio: float, row: int) -> None:
    finding = integrity.check(raw=scaled(market(n_stocks=3), "000020", row, ratio))["scale_breaks"]
    assert finding.count == 1
    assert finding.repairs[0]["ratio"] == pytest.approx(ratio, rel=0.06)


@pytest.mark.parametrize(("ratio", "name"), [(0.51, "1/2"), (0.198, "1/5"), (10.2, "10"), (1.49, "3/2"), (30.0, "")])
def test_ratios_near_a_split_are_named(ratio: float, name: str) -> None:
    assert prices.nearest_simple_ratio(ratio) == name


def test_frozen_prices_volume_outliers_and_missing_days_are_noted() -> None:
    raw = market()
    for row in range(30, 45):
        raw = put(raw, "000010", row, open=20_000, high=20_100, low=19_900, close=20_000)
    raw = put(raw, "000020", 100, volume=9_000_000)
    gone = (pl.col("code") == "000030") & pl.int_range(pl.len()).over("code").is_between(50, 52)
    report = integrity.check(raw=raw.filter(~gone))
    assert "15 closes of 20000.0" in report["frozen_prices"].examples[0][2]
    assert report["volume_outliers"].examples[0][0] == "000020"
    assert (report["calendar_gaps"].count, report["calendar_gaps"].examples[0][0]) == (3, "000030")


def test_a_date_on_which_nobody_trades_is_no_market_day_and_no_gap() -> None:
    raw = market()
    day = weekdays(120)[60]
    holiday = raw.with_columns(volume=pl.when(pl.col("date") == day).then(0).otherwise(pl.col("volume")))
    holiday = holiday.filter((pl.col("code") != "000010") | (pl.col("date") != day))
    report = integrity.check(raw=holiday)
    assert report["calendar_holes"].examples == (("market", str(day), "0 of 12 stocks traded"),)
    assert report["calendar_gaps"].count == 0


def test_a_missing_month_is_a_hole() -> None:
    raw = market().filter(pl.col("date").dt.month() != 3)
    assert "without a market day" in integrity.check(raw=raw)["calendar_holes"].examples[0][2]


def test_short_histories_and_codes_that_are_no_codes_are_noted() -> None:
    raw = market()
    short = (pl.col("code") == "000010") & (pl.int_range(pl.len()).over("code") >= 64)
    raw = raw.filter(~short).with_columns(pl.col("code").replace("000020", "kospi"))
    report = integrity.check(raw=raw)
    assert (report["short_histories"].count, report["short_histories"].examples[0][0]) == (1, "000010")
    assert report["malformed_codes"].examples[0][0] == "kospi"


def test_weekend_rows_are_found() -> None:
    raw = market().with_columns(date=pl.col("date").dt.offset_by("1d"))
    assert integrity.check(raw=raw)["stray_dates"].count > 0


def test_a_waiver_lets_that_check_pass_and_no_other() -> None:
    raw = put(scaled(market(), "000040", 70, 0.3), "000010", 5, close=-1)
    report = integrity.check(raw=raw)
    names = {f.name for f in report.fatal}
    assert {"scale_breaks", "non_positive_prices"} <= names
    with pytest.raises(integrity.IntegrityError) as stopped:
        report.raise_if_fatal(["scale_breaks"])
    assert "non_positive_prices" in str(stopped.value) and "\n  scale_breaks" not in str(stopped.value)
    report.raise_if_fatal(names)
    assert set(report.to_dict()["waived"]) == names


def test_an_unknown_waiver_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(ValueError, match="no check is named limit_move; the checks are: .*limit_moves"):
        integrity.check(raw=market()).raise_if_fatal(("limit_move",))


@pytest.mark.parametrize(
    ("repair", "message"),
    [
        ({"repair": "mask_day", "code": "999999", "date": "2018-01-02"}, "no row of 999999"),
        ({"repair": "polish", "code": "000010"}, "unknown repair 'polish'"),
        ({"repair": "mask_day", "code": "000010"}, "missing a required"),
        ({"repair": "mask_day", "code": "000010", "date": "02.01.2018"}, "expected a date"),
        ({"repair": "rescale_segment", "code": "000010", "before": "2018-03-01", "ratio": 0}, "positive number"),
        ({"repair": "drop_segment", "code": "000010"}, "expected since, before or both"),
        ({"repair": "drop_segment", "code": "000010", "since": "2031-01-01"}, "no row of 000010 since 2031-01-01"),
    ],
)
def test_a_repair_that_cannot_be_done_is_an_error(repair: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        integrity.apply_repairs(market(), [repair])


def test_rescaling_divides_the_volume_and_touches_nothing_else() -> None:
    raw = market()
    out, _ = integrity.rescale_segment(raw, "000010", str(weekdays(120)[10]), 0.5, since=FIRST_DAY)
    changed = raw.join(out, on=list(raw.columns), how="anti")
    assert changed.height == 10 and set(changed["code"]) == {"000010"}
    assert out["close"][0] == raw["close"][0] * 0.5 and out["volume"][0] == raw["volume"][0] * 2


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (market().drop("volume"), r"missing: \['volume'\]"),
        (market().head(0), "no rows"),
        (market().with_columns(close=pl.lit("x")), "numbers in the other columns"),
    ],
)
def test_a_table_that_is_none_is_refused(raw: pl.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        integrity.check(raw=raw)


def test_nothing_to_check_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to check"):
        integrity.check()


def test_the_report_is_json_text_and_a_page_with_pictures(tmp_path) -> None:
    report = integrity.check(raw=scaled(market(), "000040", 70, 0.3))
    assert json.loads(json.dumps(report.to_dict()))["counts"]["fatal"] >= 1
    text = integrity.as_text(report, 100)
    assert text.splitlines()[0].startswith("FATAL") and max(map(len, text.splitlines())) <= 100
    page = integrity.write_html(report, tmp_path / "reports" / "integrity.html", title="A <market>").read_text("utf-8")
    assert page.count('class="chart" data-spec=') == 2 and "A &lt;market&gt;" in page and "scale_breaks" in page
    assert [p.name for p in (tmp_path / "reports").iterdir()] == ["integrity.html"]


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch) -> None:
    target = tmp_path / "integrity.html"
    target.write_text("old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        integrity.write_html(integrity.check(raw=market(2, 70)), target)
    assert target.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_every_finding_carries_a_name_that_can_be_waived() -> None:
    report = integrity.check(raw=market())
    assert {f.name for f in report.findings} <= set(integrity.CHECK_NAMES)
    assert len(set(integrity.CHECK_NAMES)) == len(integrity.CHECK_NAMES)
