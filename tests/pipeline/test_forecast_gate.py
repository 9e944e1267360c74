"""A forecast is made of a day that is whole, and only of bars that pass the gate."""

from __future__ import annotations

import datetime as dt
import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import predict
from lasps.config.clock import SEOUL
from lasps.data.integrity import IntegrityError
from lasps.pipeline.forecast import gated, trading_day
from tests.factories import halted, market, put, scaled
from tests.pipeline.conftest import call

DATA = {"features": ["return_1", "log_volatility_20"], "window": 60, "warm_up": 0, "universe": {"name": "common"}}
READ = 60 + 20


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return market(n_stocks=10, n_days=160)


@pytest.fixture(scope="module")
def listing(bars) -> pl.DataFrame:
    codes = bars["code"].unique().sort()
    return pl.DataFrame({"code": codes, "name": "회사", "market": "KOSPI", "industry": ["보험", "종합 소매업"] * 5})


def last_days(bars: pl.DataFrame, n: int = 1) -> list[dt.date]:
    return bars["date"].unique().sort().tail(n).to_list()


@given(st.integers(0, 10))
@settings(max_examples=11, deadline=None)
def test_latest_is_the_last_day_that_80_percent_of_the_stocks_of_the_days_before_have(present: int) -> None:
    bars = market(n_stocks=10, n_days=40)
    before, last = last_days(bars, 2)
    chosen = bars["code"].unique().sort().head(present).implode()
    partial = bars.filter((pl.col("date") < last) | pl.col("code").is_in(chosen))
    assert trading_day(partial, "latest") == (last if present >= 8 else before)


def test_a_stray_row_an_empty_row_and_a_day_without_trading_are_not_today(bars) -> None:
    last = last_days(bars)[0]
    sunday = last + dt.timedelta(days=6 - last.weekday())
    first = bars.filter(pl.col("date") == last).with_columns(date=pl.lit(sunday))
    for extra in (
        first.head(1),
        first.with_columns(pl.lit(None, pl.Float64).alias(c) for c in ("open", "high", "low", "close")).with_columns(
            volume=pl.lit(None, pl.Int64)
        ),
        first.with_columns(volume=pl.lit(0, pl.Int64)),
    ):
        assert trading_day(pl.concat([bars, extra]), "latest") == last


def test_a_day_that_is_not_over_in_seoul_is_neither_latest_nor_to_be_had_by_name(bars) -> None:
    before, last = last_days(bars, 2)
    noon, evening = (dt.datetime.combine(last, dt.time(hour), SEOUL) for hour in (12, 18))
    assert trading_day(bars, "latest", noon) == before
    assert trading_day(bars, "latest", evening) == trading_day(bars, str(last), evening) == last
    with pytest.raises(ValueError, match="over in Seoul"):
        trading_day(bars, str(last), noon)


def test_most_stocks_gone_for_good_are_no_reason_to_forecast_an_old_day(bars) -> None:
    last = last_days(bars)[0]
    left = bars["code"].unique().sort().head(3).implode()
    gone = bars.filter((pl.col("date") <= last_days(bars, 30)[0]) | pl.col("code").is_in(left))
    assert trading_day(gone, "latest") == last


@pytest.mark.parametrize(("row", "stops"), [(159 - READ - 5, False), (159 - READ + 5, True), (150, True)])
def test_only_damage_in_the_rows_that_a_forecast_reads_stops_it(bars, listing, row, stops) -> None:
    broken = scaled(bars, "000040", row, 0.2)
    if not stops:
        report, panel = gated(broken, listing, DATA, last_days(bars)[0])
        assert report["scale_breaks"].count == 0 and panel["code"].n_unique() == 10
        return
    with pytest.raises(IntegrityError, match="scale_breaks.*000040"):
        gated(broken, listing, DATA, last_days(bars)[0])
    report, _ = gated(broken, listing, DATA, last_days(bars)[0], ["scale_breaks", "limit_moves"])
    assert report["scale_breaks"].count == 1


def test_a_stock_that_rested_is_read_further_back(bars, listing) -> None:
    broken = halted(scaled(bars, "000040", 40, 0.2), "000040", range(90, 140))
    with pytest.raises(IntegrityError, match="scale_breaks.*000040"):
        gated(broken, listing, DATA, last_days(bars)[0])


def test_later_bars_are_not_looked_at(bars, listing) -> None:
    day = last_days(bars, 20)[0]
    report, _ = gated(scaled(bars, "000040", 150, 0.2), listing, DATA, day)
    assert report["scale_breaks"].count == 0


def test_predict_stops_at_fatal_findings_and_shows_the_others(job, tmp_path, monkeypatch, capsys) -> None:
    raw = job.market.panel.select("code", "date", "open", "high", "low", "close", "volume")
    job.market.listing.write_csv(tmp_path / "listing.csv")
    code = raw.filter(pl.col("date") == raw["date"].max())["code"][0]
    of_code = raw.filter(pl.col("code") == code)
    files = {
        "stray": put(raw, code, of_code.height - 3, high=float(of_code["high"][-3] * 3)),
        "split": scaled(raw, code, of_code.height - 8, 0.2),
    }
    status = {}
    for name, table in files.items():
        table.write_parquet(tmp_path / f"{name}.parquet")
        status[name] = call(
            monkeypatch,
            predict,
            "--checkpoint",
            job.output_dir / "phase2_best.pt",
            "--device",
            "cpu",
            "--source",
            tmp_path / f"{name}.parquet",
            "--listing",
            tmp_path / "listing.csv",
            "--out",
            tmp_path / f"{name}.csv",
        )
    assert status == {"stray": 0, "split": 2}
    assert "impossible_ranges" in capsys.readouterr().out
    beside = json.loads((tmp_path / "stray.csv.integrity.json").read_text())
    assert {f["name"]: f["count"] for f in beside["findings"]}["impossible_ranges"] == 1
    assert not (tmp_path / "split.csv").exists()
