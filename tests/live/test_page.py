"""The page of the day: the right names in the right order, what changed, and that files cannot write into it."""

import re
from datetime import date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lasps.config.clock import SEOUL
from lasps.data.integrity import IntegrityReport
from lasps.data.integrity.findings import Finding
from lasps.data.panel import Panel, make_panel
from lasps.live.alarm import AlarmState
from lasps.live.ledger import Ledger, next_open
from lasps.live.outcomes import Outcomes, Pull
from lasps.live.page import Today, _sessions, stocks_of, today_page, write_today
from lasps.live.scoring import track_record
from lasps.plots.vega.evening import CANDLE, candles
from tests.factories import market

EVIL = "<script>alert(1)</script>"
FORMULA = "=HYPERLINK(1)"


@pytest.fixture(scope="module")
def raw() -> pl.DataFrame:
    return market(n_stocks=30, n_days=110, start=date(2025, 1, 6))


def forecasts(raw: pl.DataFrame, day: date, seed: int) -> pl.DataFrame:
    closes = raw.filter(date=day).select("code", "close").sort("code")
    p = np.random.default_rng(seed).dirichlet((3, 4, 3), closes.height)
    own = closes.with_columns(
        sector=pl.Series(np.arange(closes.height) % 20),
        model=pl.lit("champion"),
        **{name: pl.Series(p[:, i]) for i, name in enumerate(("p_sell", "p_hold", "p_buy"))},
    )
    prior = own.with_columns(p_sell=pl.lit(0.2), p_hold=pl.lit(0.6), p_buy=pl.lit(0.2), model=pl.lit("prior"))
    return pl.concat([own, prior])


@pytest.fixture(scope="module")
def today(raw, tmp_path_factory) -> Today:
    folder, days = tmp_path_factory.mktemp("live"), raw["date"].unique().sort().to_list()[-40:]
    ledger, names = Ledger(folder / "forecasts"), {"champion": "2025-03-03 abcd", "prior": "2025-03-03 abcd"}
    for i, day in enumerate(days):
        table = forecasts(raw, day, i)
        if i == len(days) - 2:  # one stock was not forecast on the evening before
            table = table.filter(pl.col("code") != "000010")
        ledger.append(day, table, names, "x", datetime.combine(day, time(18), SEOUL))
    panel = Panel.of(make_panel(raw)[0])
    listing = pl.DataFrame({"code": sorted(raw["code"].unique())}).with_columns(name=pl.format("회사 {}", "code"))
    listing = listing.with_columns(
        name=pl.when(pl.col("code") == "000020").then(pl.lit(EVIL)).otherwise("name")
    ).with_columns(name=pl.when(pl.col("code") == "000030").then(pl.lit(FORMULA)).otherwise("name"))
    report = IntegrityReport([Finding("stale_prices", "warning", 3, 30, "3 stocks of 30 have not moved <b>.")])
    about = {
        "as_of": str(days[10]),
        "networks": ["a", "b"],
        "trees": ["c"],
        "fraction": 0.5,
        "samples": 12345,
        "last_label_end": str(days[10]),
    }
    record = track_record(ledger, Outcomes(folder / "outcomes"), Pull(panel))
    return Today(ledger.read(days[-1]), ledger.read(days[-2]), panel, listing, record, report, about)


def test_the_table_holds_every_stock_most_bullish_first_with_what_changed(today) -> None:
    stocks, own = stocks_of(today), today.evening.table.filter(model="champion")
    assert stocks.height == 30 and stocks["score"].is_sorted(descending=True)
    before = today.before.table.filter(model="champion")
    for row in stocks.iter_rows(named=True):
        now, then = own.filter(code=row["code"]).row(0, named=True), before.filter(code=row["code"])
        assert row["score"] == pytest.approx(now["p_buy"] - now["p_sell"]) and row["close"] == now["close"]
        assert row[f"p_{row['class'].lower()}"] == max(now["p_sell"], now["p_hold"], now["p_buy"])
        if then.is_empty():
            assert row["code"] == "000010" and row["score_change"] is None and row["class_before"] is None
            continue
        assert row["score_change"] == pytest.approx(row["score"] - (then["p_buy"] - then["p_sell"]).item())


def test_the_page_shows_both_ends_the_day_the_model_and_how_it_has_done(today) -> None:
    page, stocks = today_page(today, stocks_of(today)), stocks_of(today)
    first = page.split('id="first"')[1].split('id="map"')[0]
    shown = re.findall(r"<small>(\d{5}0) ·", first)
    assert shown == [*stocks["code"].head(10), *stocks["code"].reverse().head(10)]
    counts = dict(stocks["class"].value_counts().iter_rows())
    assert f"{counts['BUY']} BUY, {counts['HOLD']} HOLD, {counts['SELL']} SELL" in page
    assert f"{today.evening.day:%A, %Y-%m-%d}" in page and "2025-03-03 abcd" in page and "29 trading days old" in page
    assert "over the last 35 due days" in page and "12,345 samples (50 % of the rows)" in page
    assert first.count("<svg") == 20 and "Nothing here is investment advice" in page
    assert "40 evenings in the ledger: 35 scored, 5 not due yet" in page and "stale_prices" in page


def test_what_files_say_stays_text(today, tmp_path: Path) -> None:
    (page, csv, parquet) = write_today(today, tmp_path / "today.html")
    text = page.read_text()
    assert EVIL not in text and "&lt;script&gt;alert(1)" in text and "not moved &lt;b&gt;" in text
    assert f"'{FORMULA}" in csv.read_text(encoding="utf-8-sig")
    assert pl.read_parquet(parquet).equals(stocks_of(today))
    before = page.read_bytes()
    write_today(today, page)
    assert page.read_bytes() == before


def test_sectors_are_counted_and_averaged(today) -> None:
    page, stocks = today_page(today, stocks_of(today)), stocks_of(today)
    tiles = re.findall(r'<div class="tile".*?<b>(.*?)</b>.*?<span>(.*?)</span>', page)
    means = stocks.group_by("sector").agg(pl.col("score").mean()).sort("score", "sector", descending=[True, False])
    assert [name for name, _ in tiles] == means["sector"].to_list()
    assert tiles[0][1] == f"{means['score'][0]:+.3f}"


def test_a_late_evening_and_a_raised_alarm_are_said_at_the_top(today, tmp_path, raw) -> None:
    from dataclasses import replace

    day = today.evening.day
    ledger = Ledger(tmp_path)
    late = ledger.append(day, forecasts(raw, day, 0), today.evening.versions, "x", next_open(day) + timedelta(hours=1))
    shown = today_page(replace(today, evening=late, before=None, alarm=AlarmState(0.1, day)), stocks_of(today))
    top = shown.split('id="first"')[0]
    assert "is late, and is not scored" in top and f"ALARM since {day}" in top
    calm = today_page(today, stocks_of(today)).split('id="first"')[0]
    assert "not scored" not in calm and "ALARM" not in calm


def test_the_first_evening_says_that_nothing_has_come_due(today, tmp_path, raw) -> None:
    from dataclasses import replace

    empty = track_record(Ledger(tmp_path / "l"), Outcomes(tmp_path / "o"), Pull(today.panel))
    first = replace(today, before=None, record=empty, about={})
    page = today_page(first, stocks_of(first))
    assert "Nothing has come due yet" in page and "new today" not in page
    assert not re.search(r"\bnan\b", page.split("<script")[0])


@pytest.mark.parametrize(
    ("day", "told"),
    [
        (date(2025, 10, 2), "for the 5 trading days 2025-10-10 to 2025-10-16"),  # Chuseok
        (date(2399, 1, 5), "for the 5 trading days after it"),  # beyond the table of holidays
    ],
)
def test_the_sessions_are_those_of_the_exchange(day: date, told: str) -> None:
    assert _sessions(day) == told


def test_candles_stand_side_by_side_and_reach_from_low_to_high() -> None:
    bars = pl.DataFrame({"open": [10, 12], "high": [13, 12], "low": [9, 10], "close": [12, 11]})
    picture = candles(bars)
    assert re.findall(r'fill="var\(--(\w+)\)"', picture) == ["buy", "sell"]
    tops = [float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)V", picture)]
    bottoms = [float(y) for y in re.findall(r"V([\d.]+)", picture)]
    assert tops[0] == 1.0 and bottoms[0] == 45.0 and tops[0] < tops[1] < bottoms[1] < bottoms[0]
    assert f'<rect x="{CANDLE:g}"' in picture and "10 to" not in picture and "12 to 11, -8.3 %" in picture
    flat = candles(pl.DataFrame({"open": [5], "high": [5], "low": [5], "close": [5]}))
    assert "nan" not in flat and 'height="0.7"' in flat
