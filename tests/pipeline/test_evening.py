"""Evenings one after another: repeated, missed, with a fatal finding, and scored when their days have come."""

from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from experiments import daily
from lasps.config import clock
from lasps.config.clock import SEOUL
from lasps.data.integrity import IntegrityError
from lasps.data.sources import krx
from lasps.files import InUseError
from lasps.live.evening import EveningResult, run_evening
from lasps.live.folder import LiveFolder
from lasps.live.ledger import Ledger
from lasps.live.model import EveningModel
from lasps.pipeline.forecast import forecast
from lasps.training.checkpoints import Checkpoint
from tests.factories import put
from tests.pipeline.conftest import call


@pytest.fixture(scope="module")
def champion(job) -> Checkpoint:
    return Checkpoint.open(job.output_dir / "phase2_best.pt")


@pytest.fixture(scope="module")
def bars(job) -> pl.DataFrame:
    return job.market.panel.select("code", "date", "open", "high", "low", "close", "volume")


def days_of(bars: pl.DataFrame) -> list[date]:
    return bars["date"].unique().sort().to_list()


def at_six(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), SEOUL) + timedelta(hours=18)


def evening(job, bars, champion, folder: Path, day: date, moment: datetime | None = None, **options) -> EveningResult:
    known = bars.filter(pl.col("date") <= day)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: moment or at_six(day))
        return run_evening(known, job.market.listing, LiveFolder(folder), EveningModel.of(champion), **options)


def test_an_evening_writes_the_forecast_that_predict_makes_beside_the_prior(job, bars, champion, tmp_path) -> None:
    day = days_of(bars)[-10]
    (written,) = evening(job, bars, champion, tmp_path, day).written
    expected, _ = forecast(champion, bars.filter(pl.col("date") <= day), job.market.listing, day.isoformat())
    own = written.table.filter(model="champion")
    assert own.select("code", "p_sell", "p_hold", "p_buy").equals(
        expected.sort("code").select("code", "p_sell", "p_hold", "p_buy")
    )
    prior = written.table.filter(model="prior")
    assert prior["p_buy"].n_unique() == 1 and prior["code"].equals(own["code"])
    assert written.versions["champion"] == EveningModel.of(champion).name and not written.late
    closes = bars.filter(date=day).sort("code").filter(pl.col("code").is_in(own["code"].implode()))["close"]
    assert own["close"].equals(closes.cast(pl.Float64))


def test_the_same_evening_again_writes_nothing(job, bars, champion, tmp_path) -> None:
    day = days_of(bars)[-10]
    evening(job, bars, champion, tmp_path, day)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = evening(job, bars, champion, tmp_path, day, at_six(day) + timedelta(hours=1))
    assert not again.is_new and again.record is not None
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_missed_days_are_caught_up_in_order_and_the_old_ones_are_late(job, bars, champion, tmp_path) -> None:
    days = days_of(bars)[-12:]
    evening(job, bars, champion, tmp_path, days[0])
    found = evening(job, bars, champion, tmp_path, days[3])
    assert [(e.day, e.late) for e in found.written] == [(days[1], True), (days[2], True), (days[3], False)]


def test_a_day_caught_up_has_the_forecast_of_its_own_evening(job, bars, champion, tmp_path) -> None:
    days = days_of(bars)[-12:]
    for folder, evenings in (("each", days[:4]), ("missed", [days[0], days[3]])):
        for day in evenings:
            evening(job, bars, champion, tmp_path / folder, day)
    each, missed = (list(Ledger(tmp_path / folder / "forecasts").verified()) for folder in ("each", "missed"))
    assert all(a.same_forecasts(b) for a, b in zip(each, missed, strict=True))


def test_a_dry_run_says_what_it_would_write_and_writes_nothing(job, bars, champion, tmp_path) -> None:
    day = days_of(bars)[-10]
    found = evening(job, bars, champion, tmp_path, day, dry_run=True)
    assert found.would_write == (day,) and not list(tmp_path.rglob("*.parquet"))


def test_a_fatal_finding_stops_before_anything_is_written(job, bars, champion, tmp_path) -> None:
    days = days_of(bars)
    code = bars.filter(date=days[-10])["code"][0]
    row = bars.filter(code=code)["date"].to_list().index(days[-11])
    damaged = put(bars, code, row, close=float(bars.filter(code=code)["close"][row]) * 30)
    with pytest.raises(IntegrityError):
        evening(job, damaged, champion, tmp_path, days[-10])
    assert not list(tmp_path.rglob("*.parquet"))


def test_what_comes_due_is_scored(job, bars, champion, tmp_path) -> None:
    days = days_of(bars)[-12:]
    for day in days[:7]:
        record = evening(job, bars, champion, tmp_path, day).record
    assert record is not None and record.forecasts["champion"].dates == days[:2]
    assert record.days["due"].sum() == 2


def test_the_script_tells_cron_what_happened(job, bars, tmp_path, monkeypatch, capsys) -> None:
    days = days_of(bars)
    job.market.listing.write_csv(tmp_path / "listing.csv")
    status = []
    for day in (days[-10], days[-10], days[-4]):
        bars.filter(pl.col("date") <= day).write_parquet(tmp_path / "bars.parquet")
        monkeypatch.setattr(clock, "now", lambda day=day: at_six(day))
        arguments = ("--source", tmp_path / "bars.parquet", "--listing", tmp_path / "listing.csv", "--device", "cpu")
        checkpoint = ("--checkpoint", job.output_dir / "phase2_best.pt", "--live-dir", tmp_path / "live")
        monkeypatch.setattr("sys.argv", ["daily.py", *map(str, (*checkpoint, *arguments))])
        with pytest.raises(SystemExit) as end:
            daily.run_script(daily.main, failed=1)
        status.append(end.value.code)
    out = capsys.readouterr().out
    assert status == [0, 3, 0] and f"Written: {days[-4]}" in out and "late and not scored" in out
    assert (
        call(monkeypatch, daily, *checkpoint, "--source", tmp_path / "none", "--listing", tmp_path / "listing.csv") != 0
    )


def test_a_download_from_krx_is_brought_up_to_date_first_and_stops_where_it_is_incomplete(
    job, bars, tmp_path, monkeypatch, capsys
) -> None:
    day, asked = days_of(bars)[-10], []

    def download(start, end, folder):
        asked.append((start, end))
        folder.mkdir(parents=True, exist_ok=True)
        bars.filter(pl.col("date") <= day).write_parquet(folder / "bars.parquet")
        job.market.listing.write_csv(folder / "listing.csv")
        failed = {} if len(asked) == 1 else {"000010": "timed out"}
        return krx.DownloadResult(folder, "2020-01-01", failed=failed)

    monkeypatch.setattr(krx, "download", download)
    monkeypatch.setattr(clock, "now", lambda: at_six(day))
    arguments = ("--checkpoint", job.output_dir / "phase2_best.pt", "--source", "krx", "--folder", tmp_path / "raw")
    where = ("--live-dir", tmp_path / "live", "--page", tmp_path / "today.html", "--device", "cpu")
    assert call(monkeypatch, daily, *arguments, *where, "--start", "2019-01-01") == 0
    assert asked == [("2019-01-01", None)]
    assert call(monkeypatch, daily, *arguments, *where) != 0
    assert "incomplete" in capsys.readouterr().err


def test_two_evenings_at_once_in_one_folder_are_refused(job, bars, champion, tmp_path) -> None:
    day = days_of(bars)[-10]
    with LiveFolder(tmp_path).in_use(), pytest.raises(InUseError, match="in use|another"):
        evening(job, bars, champion, tmp_path, day)
    assert evening(job, bars, champion, tmp_path, day).is_new
