"""Many pulls into one folder: at any time of day, failing, killed at any write. Nothing unfinished, nothing lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from functools import partial
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from lasps.config import clock
from lasps.config.clock import SEOUL
from lasps.data.sources import krx, krx_store
from lasps.data.sources.krx_adjustments import compare_adjustment, joined
from lasps.data.sources.krx_requests import DownloadError, to_bars

DAYS = [day.date() for day in pd.bdate_range("2024-01-01", periods=40)]
FIRST_PULL = datetime.combine(DAYS[15], time(10), SEOUL)


@dataclass(frozen=True)
class Stock:
    """A stock of the exchange: listed on days[first:last], 5:1 split on `split` if any; None: for ever, never."""

    first: int = 0
    last: int | None = None
    split: int | None = None


STOCKS = {
    "000010": Stock(),
    "000020": Stock(split=22),
    "000030": Stock(last=19),
    "000040": Stock(first=20),
    "000050": Stock(first=14, last=27, split=25),
}


def bars_at(code: str, moment: datetime) -> pd.DataFrame:
    """What the source says about a stock at a moment: adjusted as of then, and with a running bar while it trades."""
    moment = clock.in_seoul(moment)
    stock, today = STOCKS[code], moment.date()
    days = [day for day in DAYS[stock.first : stock.last] if day < today or (day == today and moment.hour >= 9)]
    close = [1_000 * (10 + (DAYS.index(day) * int(code[4]) * 7) % 11) for day in days]
    frame = pd.DataFrame({"Close": close, "Volume": 5_000}, index=pd.DatetimeIndex(days, name="Date"))
    if days and days[-1] == today and moment < clock.day_ends(today):
        frame.loc[frame.index[-1], ["Close", "Volume"]] = [close[-1] + 10 * moment.hour, 100 * moment.hour]
    if stock.split is not None and DAYS[stock.split] <= today:
        frame.loc[frame.index < pd.Timestamp(DAYS[stock.split]), "Close"] //= 5
    return frame.assign(Open=frame["Close"], High=frame["Close"], Low=frame["Close"])


def listing_at(moment: datetime) -> Callable[[str], pd.DataFrame]:
    """KOSPI's stocks of the day, and KONEX's, which nobody asks for."""

    def read(market: str) -> pd.DataFrame:
        codes = [
            code
            for code, stock in STOCKS.items()
            if DAYS[stock.first] <= moment.date() <= [*DAYS, date.max][stock.last or -1]
        ]
        markets = ["KOSPI"] * len(codes) + ["KONEX"] * 20
        codes += [f"9{i:04d}0" for i in range(20)]
        return pd.DataFrame({"Code": codes, "Name": "가나", "Market": markets, "Sector": "보험업"})

    return read


class Killed(BaseException):
    """The process is gone: nothing that follows is written."""


@dataclass
class Disk:
    """Writes until the `kill_at`-th file, from which on every write fails as in a process that is no more."""

    kill_at: int | None = None
    writes: int = 0

    def write(self, path: Path, content: object) -> None:
        self.writes += 1
        if self.kill_at is not None and self.writes > self.kill_at:
            raise Killed
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_text(str(content), encoding="utf-8")


def pull(
    folder: Path,
    moment: datetime,
    start: date = DAYS[0],
    failing: tuple[str, ...] = (),
    listing: object = None,
    kill_at: int | None = None,
    **more: object,
) -> krx.DownloadResult | None:
    """One run of the download; None where it was killed."""

    def reader(code: str, first: str, last: str) -> pd.DataFrame:
        if code in failing:
            raise ConnectionResetError
        return bars_at(code, moment).loc[first:last]

    given = {"listing_reader": listing or listing_at(moment), "pause_s": 0.0, "attempts": 1, **more}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(krx_store, "write_atomically", Disk(kill_at).write)
        try:
            return krx.download(start, None, folder, reader=reader, now=lambda: moment, **given)
        except Killed:
            return None


def table(folder: Path, name: str = "bars.parquet") -> pl.DataFrame | None:
    path = folder / name
    if not path.exists():
        return None
    if path.suffix == ".csv":
        return pl.read_csv(path, schema_overrides={"code": pl.String})
    return pl.read_parquet(path)


def assert_true_at(bars: pl.DataFrame, moment: datetime) -> None:
    """Every row is a finished day's, and each stock is on one adjustment: that of some day up to now."""
    over = clock.last_day_over(moment)
    for (code,), rows in bars.group_by("code"):
        dates, closes = rows["date"].to_list(), rows.sort("date")["close"].to_list()
        assert max(dates) <= over and len(set(dates)) == len(dates)
        asked = [datetime.combine(day, time(20), SEOUL) for day in DAYS if max(dates) <= day <= moment.date()]
        truths = [bars_at(code, evening)["Close"] for evening in asked]
        assert any(closes == truth.loc[[str(day) for day in sorted(dates)]].to_list() for truth in truths)
        assert rows["volume"].unique().to_list() == [5_000]


RUN = st.fixed_dictionaries(
    {
        "wait": st.integers(1, 90),
        "start": st.sampled_from([DAYS[0], DAYS[5], DAYS[12]]),
        "failing": st.lists(st.sampled_from(sorted(STOCKS)), unique=True, max_size=3).map(tuple),
        "listing": st.sampled_from([None, None, None, lambda market: pd.DataFrame()]),
        "kill_at": st.one_of(st.none(), st.integers(0, 14)),
    }
)


def run(wait: int, **more: object) -> dict[str, object]:
    return {"wait": wait, "start": DAYS[0], "failing": (), "listing": None, "kill_at": None} | more


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)  # shrinking takes minutes
@given(runs=st.lists(RUN, min_size=1, max_size=5))
@example(runs=[run(wait=110, kill_at=1), run(wait=5, start=DAYS[12]), run(wait=8)])  # a pull begun before the newest
@example(runs=[run(wait=98, start=DAYS[5]), run(wait=97, start=DAYS[12])])  # then an earlier start, with one stock gone
@example(  # its last day comes after a pull that had no listing, and the next request fails: it is asked for again
    runs=[
        run(wait=6, start=DAYS[12], failing=("000050",)),
        run(wait=55, failing=("000020",), listing=lambda market: pd.DataFrame()),
        run(wait=66, start=DAYS[5], failing=("000030",)),
        run(wait=12, start=DAYS[5]),
    ]
)
def test_any_pulls_at_any_time_killed_anywhere_keep_no_unfinished_bar_and_lose_no_row(
    runs: list[dict], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, moment = tmp_path_factory.mktemp("krx"), FIRST_PULL
    keys: set[tuple[str, date]] = set()
    listed: set[str] = set()
    for run in runs:
        moment += timedelta(hours=run["wait"])
        try:
            pull(folder, moment, **{name: value for name, value in run.items() if name != "wait"})
        except DownloadError as error:
            assert "listing could not be read" in str(error) and not keys
        bars, names = table(folder), table(folder, "listing.csv")
        if bars is not None:
            assert_true_at(bars, moment)
            now = set(bars.select("code", "date").iter_rows())
            assert keys <= now
            keys = now
        if names is not None:
            assert listed <= set(names["code"]) and names["industry"].null_count() == 0
            listed = set(names["code"])

    moment += timedelta(hours=1)
    assert pull(folder, moment).ok
    bars, over = table(folder), str(clock.last_day_over(moment))
    seen = table(folder, "listing.csv").filter(pl.col("market") == "KOSPI")["code"].to_list()
    expected = {code: len(bars_at(code, moment).loc[:over]) for code in seen}
    assert dict(bars.group_by("code").len().iter_rows()) == {c: n for c, n in expected.items() if n}
    assert_true_at(bars, moment)


def at(day: int, hour: int) -> datetime:
    return datetime.combine(DAYS[day], time(hour), SEOUL)


def test_the_day_is_kept_from_16_00_in_seoul_on_whatever_clock_that_is_read(tmp_path: Path) -> None:
    for hour, last in ((9, 15), (15, 15), (16, 16)):
        moment = at(16, hour)
        for name, offset in (("seoul", 9), ("utc", 0), ("hawaii", -10)):
            elsewhere = moment.astimezone(timezone(timedelta(hours=offset)))
            pull(tmp_path / f"{hour}{name}", elsewhere)
            assert table(tmp_path / f"{hour}{name}")["date"].max() == DAYS[last]
    with pytest.raises(ValueError, match="a moment with a time zone"):
        pull(tmp_path / "naive", datetime(2024, 1, 23, 18))


def test_examination_days_end_an_hour_later_and_weekends_belong_to_friday() -> None:
    over = lambda *moment: clock.last_day_over(datetime(*moment, tzinfo=SEOUL))  # noqa: E731
    assert over(2025, 11, 13, 16, 30) == date(2025, 11, 12) and over(2025, 11, 13, 17) == date(2025, 11, 13)
    assert over(2020, 12, 3, 16, 30) == date(2020, 12, 2)  # the examination of 2020 was put off to December
    assert over(2025, 6, 17, 16) == date(2025, 6, 17) and over(2025, 6, 17, 15, 59) == date(2025, 6, 16)
    assert {over(2025, 6, day, 12) for day in (14, 15)} | {over(2025, 6, 16, 12)} == {date(2025, 6, 13)}


def test_an_evening_run_fetches_again_what_a_run_of_the_morning_could_not_have(tmp_path: Path) -> None:
    morning, evening, night = (pull(tmp_path, at(16, hour)) for hour in (10, 17, 22))
    assert morning.fetched == evening.fetched == ["000010", "000020", "000030", "000050"]
    assert (night.fetched, len(night.kept)) == ([], 4)
    assert evening.changes == [] and evening.corrected == {}


def test_a_weekend_asks_for_nothing_that_friday_evening_had(tmp_path: Path) -> None:
    friday = at(next(i for i, day in enumerate(DAYS) if i > 15 and day.weekday() == 4), 18)
    pull(tmp_path, friday)
    assert pull(tmp_path, friday + timedelta(days=2)).fetched == []


def old_folder(folder: Path, day: int) -> None:
    """What version 1 left behind after a pull in the morning of a day: running bars as finished ones."""
    for code in ("000010", "000030"):
        path = folder / "bars" / str(DAYS[day]) / f"{code}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        to_bars(code, bars_at(code, at(day, 10)).iloc[3:]).write_parquet(path)
    names = pl.DataFrame({"code": ["000010", "000030"], "name": "가나", "market": "KOSPI", "industry": "보험업"})
    (folder / "listing").mkdir()
    names.write_csv(folder / "listing" / f"{DAYS[day]}.csv")
    entry = {
        "name": str(DAYS[day]),
        "start": str(DAYS[3]),
        "end": str(DAYS[day]),
        "complete": True,
        "finished": True,
        "files": {"000010": "2024-01-23T10:00:00", "000030": "2024-01-23T10:00:00"},
        "failed": {},
        "changes": [],
    }
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, "pulls": [entry]}))


@pytest.mark.parametrize("manifest", [True, False])
def test_running_bars_of_an_older_version_are_fetched_again_and_are_no_adjustment(
    tmp_path: Path, manifest: bool
) -> None:
    old_folder(tmp_path, 16)
    if not manifest:  # moved away, as the message about an unreadable one advises
        (tmp_path / "manifest.json").unlink()
    result = pull(tmp_path, at(16, 17), start=DAYS[10], failing=("000030",))
    bars = table(tmp_path)
    assert result.changes == [] and result.corrected == {} and "000010" in result.fetched
    assert_true_at(bars, at(16, 17))
    ends = dict(bars.group_by("code").agg(pl.col("date").max()).iter_rows())
    assert (ends["000010"], ends["000030"]) == (DAYS[16], DAYS[15])  # the failed one lacks the day that nobody trusts
    assert bars.filter(pl.col("code") == "000010")["date"].min() == DAYS[3]


def test_a_folder_of_version_2_whose_files_hold_only_their_replies_loses_no_day(tmp_path: Path) -> None:
    pull(tmp_path, at(18, 18))
    pull(tmp_path, at(19, 18))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for entry in manifest["pulls"]:
        entry["short"] = ["000020"] if entry["name"] == str(DAYS[19]) else []
        del entry["merged"], entry["set_aside"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 2}))
    newest = tmp_path / "bars" / str(DAYS[19]) / "000020.parquet"
    pl.read_parquet(newest).filter(pl.col("date") >= DAYS[10]).write_parquet(newest)
    assert pull(tmp_path, at(24, 18), failing=("000010",)).changes[0].code == "000020"  # split on day 22
    assert_true_at(table(tmp_path), at(24, 18))
    ends = table(tmp_path).group_by("code").agg(first=pl.col("date").min(), last=pl.col("date").max())
    assert ends.filter(pl.col("code") == "000020").row(0)[1:] == (DAYS[0], DAYS[24])
    assert ends.filter(pl.col("code") == "000010").row(0)[1:] == (DAYS[0], DAYS[19])


def test_a_clock_that_ran_ahead_covers_nothing(tmp_path: Path) -> None:
    ahead = at(30, 18)
    krx.download(
        DAYS[0],
        None,
        tmp_path,
        reader=lambda code, a, b: bars_at(code, at(16, 10)).loc[a:b],
        pause_s=0,
        listing_reader=listing_at(at(16, 10)),
        now=lambda: ahead,
    )
    assert pull(tmp_path, at(16, 18)).ok
    assert_true_at(table(tmp_path), at(16, 18))


def test_a_stock_that_leaves_keeps_its_listing_row_and_is_asked_once_more_for_its_last_days(tmp_path: Path) -> None:
    pull(tmp_path, at(16, 18))  # 000030 trades until day 18
    later = pull(tmp_path, at(24, 18))
    again = pull(tmp_path, at(26, 18))
    assert "000030" in later.fetched and "000030" not in again.tried
    row = table(tmp_path, "listing.csv").filter(pl.col("code") == "000030").row(0, named=True)
    assert (row["industry"], row["first_seen"], row["last_seen"]) == ("보험업", str(DAYS[16]), str(DAYS[16]))
    assert table(tmp_path).filter(pl.col("code") == "000030")["date"].max() == DAYS[18]


def test_a_stock_that_left_and_that_the_source_no_longer_knows_ends_and_is_no_failure(tmp_path: Path) -> None:
    pull(tmp_path, at(16, 18))
    gone = lambda code, a, b: pd.DataFrame() if code == "000030" else bars_at(code, at(24, 18)).loc[a:b]  # noqa: E731
    given = {"reader": gone, "listing_reader": listing_at(at(24, 18)), "pause_s": 0, "now": lambda: at(24, 18)}
    result = krx.download(DAYS[0], None, tmp_path, **given)
    assert result.ok and result.ended == ["000030"]
    assert "their bars and listing rows stay, 1: 000030" in result.summary()
    assert krx.download(DAYS[0], None, tmp_path, **given).ended == []  # it is not asked for again
    assert table(tmp_path).filter(pl.col("code") == "000030")["date"].max() == DAYS[16]


def test_a_stock_listed_today_is_no_failure_before_its_first_day_is_over(tmp_path: Path) -> None:
    result = pull(tmp_path, at(20, 11))
    assert result.ok and result.too_new == ["000040"]
    assert "none of their days is over yet, 1: 000040" in result.summary()
    assert pull(tmp_path, at(20, 17)).too_new == [] and "000040" in table(tmp_path)["code"]


def short_listing(market: str) -> pd.DataFrame:
    return listing_at(at(17, 18))(market).head(1)


def test_a_listing_that_lost_most_of_its_stocks_is_not_believed_however_often_it_comes(tmp_path: Path, caplog) -> None:
    pull(tmp_path, at(16, 18))
    for day in (17, 18):
        result = pull(tmp_path, at(day, 18), listing=short_listing)
        assert result.ok and len(result.fetched) == 4 and result.ended == []
    assert table(tmp_path, "listing.csv").height == 24


def test_a_listing_that_loses_industries_keeps_the_last_known_ones_and_the_renamed_are_named(tmp_path: Path) -> None:
    pull(tmp_path, at(16, 18))
    blank = lambda market: listing_at(at(17, 18))(market).assign(  # noqa: E731
        Name=["새이름"] + ["가나"] * 23, Sector=[None, "은행", None] + [None] * 21
    )
    result = pull(tmp_path, at(17, 18), listing=blank)
    assert result.renamed == ["000010 가나 -> 새이름"]
    rows = dict(table(tmp_path, "listing.csv").select("code", "industry").iter_rows())
    assert rows.pop("000020") == "은행" and set(rows.values()) == {"보험업"} and len(rows) == 23


def bars(closes: dict[int, float], volume: int = 100) -> pl.DataFrame:
    days = [DAYS[i] for i in closes]
    price = pl.Series("close", list(closes.values()), dtype=pl.Float64)
    return pl.DataFrame(
        {"code": "000010", "date": days, "open": price, "high": price, "low": price, "close": price, "volume": volume},
        schema_overrides={"volume": pl.Int64},
    )


@settings(deadline=None, max_examples=50)
@given(
    factor=st.sampled_from([0.2, 0.5, 0.909, 5.0]),
    from_day=st.integers(0, 10),
    prices=st.lists(st.integers(5_000, 50_000), min_size=14, max_size=14),
)
def test_older_rows_take_the_newer_adjustment_wherever_the_newer_reply_begins(factor, from_day, prices) -> None:
    before = bars(dict(enumerate(prices[:12])))
    adjusted = {i: round(p * factor) if i < 12 else p for i, p in enumerate(prices) if i >= from_day}
    newer = bars(adjusted, volume=round(100 / factor))
    table, left_out = joined(newer, before)
    assert left_out is None and table["date"].to_list() == DAYS[:14]
    expected = [p * factor if i < 12 else p for i, p in enumerate(prices)]
    assert all(abs(a - b) <= 0.5 + 2e-4 * b for a, b in zip(table["close"], expected, strict=True))
    assert table["volume"].unique().len() == 1


def test_a_reply_that_ends_early_or_has_holes_loses_no_day(tmp_path: Path) -> None:
    older = bars({i: 1_000.0 + i for i in range(10)})
    table, left_out = joined(bars({0: 1_000.0, 1: 1_001.0, 5: 1_005.0}), older)
    assert left_out is None and table.equals(older)


def test_a_day_that_comes_back_blank_or_as_zeros_keeps_the_close_that_was_there() -> None:
    older = bars({i: 1_000.0 + i for i in range(6)})
    for nothing in (0.0, float("nan"), None):
        newer = bars({i: nothing if i in (0, 3) else 1_000.0 + i for i in range(8)})
        table, left_out = joined(newer, older)
        assert left_out is None and table["close"].to_list() == [1_000.0 + i for i in range(8)]


def test_a_suspended_stock_and_a_holiday_go_through_as_the_source_has_them(tmp_path: Path) -> None:
    """Suspended: open = high = low = 0, volume 0 and the last close; on a holiday there is no row at all."""

    def read(code: str, start: str, end: str) -> pd.DataFrame:
        frame = bars_at(code, evening).loc[start:end].drop(index=pd.Timestamp(DAYS[17]), errors="ignore")
        if code == "000010":
            frame.loc[frame.index >= pd.Timestamp(DAYS[12]), ["Open", "High", "Low", "Volume"]] = 0
        return frame

    for day in (15, 17, 18):
        evening = at(day, 18)
        result = krx.download(
            DAYS[0],
            None,
            tmp_path,
            reader=read,
            listing_reader=listing_at(evening),
            pause_s=0,
            now=partial(at, day, 18),
        )
        assert result.ok and not (result.changes or result.corrected or result.set_aside)
    rows = table(tmp_path).filter(pl.col("code") == "000010")
    assert rows["date"].to_list() == [day for day in DAYS[:19] if day != DAYS[17]]
    assert rows.filter(pl.col("volume") == 0).height == 6


def test_days_without_a_common_one_are_another_company_or_a_gap_and_are_named(tmp_path: Path) -> None:
    """000030 ends on day 18; its code is given to another company that trades from day 30."""
    pull(tmp_path, at(18, 18))
    other = bars_at("000010", at(33, 18)).iloc[30:]
    given = {"listing_reader": listing_at(at(18, 18)), "pause_s": 0, "now": lambda: at(33, 18), "codes": ["000030"]}
    result = krx.download(DAYS[0], None, tmp_path, reader=lambda code, a, b: other.loc[a:b], **given)
    rows = table(tmp_path).filter(pl.col("code") == "000030")
    assert rows["date"].min() == DAYS[30] and rows.height == 4
    assert list(result.set_aside) == ["000030"] and "Left out of bars.parquet: 000030, 19 days from" in result.summary()
    again = krx.download(DAYS[0], None, tmp_path, reader=lambda code, a, b: other.loc[a:b], **given)
    assert (again.fetched, list(again.set_aside)) == ([], ["000030"])


def test_closes_that_differ_after_equal_ones_are_corrections_and_no_adjustment() -> None:
    old = bars({i: 10_000.0 + i for i in range(10)})
    last = old.with_columns(close=pl.when(pl.col("date") == DAYS[9]).then(11_000.0).otherwise("close"))
    assert compare_adjustment("000010", last, old) is None
    late = old.with_columns(close=pl.when(pl.col("date") >= DAYS[2]).then(11_000.0).otherwise("close"))
    assert compare_adjustment("000010", late, old) is None
    early = old.with_columns(close=pl.when(pl.col("date") < DAYS[2]).then(pl.col("close") * 5).otherwise("close"))
    assert compare_adjustment("000010", early, old).ratio == pytest.approx(0.2)


def test_a_raw_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    pull(tmp_path, at(16, 18))
    path = tmp_path / "bars" / str(DAYS[16]) / "000020.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"000020\.parquet: expected the bars of 000020.*Remove it and run"):
        pull(tmp_path, at(17, 18))
