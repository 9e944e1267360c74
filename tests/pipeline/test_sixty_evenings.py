"""Sixty evenings, one after another, with a split, a halt, a delisting and a turn of the market among them."""

import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lasps.config import clock
from lasps.data.labels import make_labels
from lasps.data.panel import Panel, make_panel
from lasps.live.evening import EveningResult, run_evening
from lasps.live.folder import LiveFolder
from lasps.live.model import EveningModel
from lasps.training.checkpoints import Checkpoint
from tests.market_by_day import MarketByDay, at_six, eventful

EVENINGS = 60


@dataclass(frozen=True)
class Lived:
    """What sixty evenings left behind."""

    market: MarketByDay
    evenings: list[date]
    live: LiveFolder
    last: EveningResult
    seconds: float  # of processor time, whatever else the machine does


@pytest.fixture(scope="module")
def lived(job, tmp_path_factory) -> Lived:
    bars = job.market.panel.select("code", "date", "open", "high", "low", "close", "volume")
    market = eventful(bars, job.market.listing, EVENINGS)
    live = LiveFolder(tmp_path_factory.mktemp("live"))
    model = EveningModel.of(Checkpoint.open(job.output_dir / "phase2_best.pt"))
    evenings, start = market.days[-EVENINGS:], time.process_time()
    with pytest.MonkeyPatch.context() as patch:
        for day in evenings:
            patch.setattr(clock, "now", lambda day=day: at_six(day))
            last = run_evening(market.bars_on(day), market.listing_on(day), live, model)
    return Lived(market, evenings, live, last, time.process_time() - start)


def test_they_take_less_than_thirty_seconds(lived) -> None:
    assert lived.seconds < 30


def test_every_evening_stands_in_the_ledger_on_time(lived) -> None:
    evenings = list(lived.live.ledger.verified())
    assert [e.day for e in evenings] == lived.evenings and not any(e.late for e in evenings)


def test_the_delisted_stock_is_no_longer_forecast_and_its_last_labels_end_at_its_last_price(lived) -> None:
    code, last = lived.market.delisted
    forecast = {e.day for e in lived.live.ledger.verified() if code in e.table["code"].to_list()}
    assert max(forecast) == last
    outcome = lived.live.outcomes.read().filter(date=last, code=code)
    assert outcome["label_cut_short"].item() and outcome["forward_return"].item() == 0.0


def test_a_halted_stock_is_not_forecast_on_its_days_and_its_labels_end_later(lived) -> None:
    table = lived.market.bars.filter(pl.col("volume") == 0, pl.col("open") == 0)
    codes = table.filter(pl.col("date").is_in(lived.evenings))["code"].unique().to_list()
    assert codes
    for code in codes:
        days = table.filter(code=code)["date"].to_list()
        for evening in lived.live.ledger.verified():
            assert not (evening.day in days and code in evening.table["code"].to_list())
    assert lived.live.outcomes.read()["label_spans_halt"].sum() > 0


def test_the_split_is_noticed_and_moves_no_return(lived) -> None:
    code, since = lived.market.split
    days = lived.last.record.days
    before = lived.evenings.index(since)
    assert (days["readjusted"][:before] >= 1).all() and (days["readjusted"][before:] == 0).all()
    day = lived.evenings[before - 2]
    closes = lived.market.bars.filter(code=code).sort("date")
    row = closes["date"].to_list().index(day)
    expected = closes["close"][row + 5] / closes["close"][row] - 1
    assert lived.live.outcomes.read().filter(date=day, code=code)["forward_return"].item() == pytest.approx(
        expected, abs=3e-3
    )


def test_what_is_scored_are_the_labels_that_the_last_bars_tell(lived) -> None:
    panel = Panel.of(make_panel(lived.market.bars)[0])
    labels = panel.frame.select("code", "date").hstack(make_labels(panel).select("label"))
    f = lived.last.record.forecasts["champion"]
    known = f.keys.with_columns(label=pl.Series(f.labels)).join(labels, on=["code", "date"], suffix="_now")
    code, since = lived.market.split
    assert len(known) == f.n and f.dates == lived.evenings[: EVENINGS - 5]
    other = known.filter(pl.col("label") != pl.col("label_now"))
    assert set(other["code"]) <= {code}  # whose closes were whole on another scale then
    assert lived.last.record.days["due"].sum() == EVENINGS - 5 and not np.isnan(f.p).any()
    assert since in lived.evenings


def test_the_same_last_evening_again_changes_no_file(lived, job, monkeypatch) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in lived.live.root.rglob("*") if path.is_file()}

    before, day = files(), lived.evenings[-1]
    monkeypatch.setattr(clock, "now", lambda: at_six(day))
    model = EveningModel.of(Checkpoint.open(job.output_dir / "phase2_best.pt"))
    again = run_evening(lived.market.bars_on(day), lived.market.listing_on(day), lived.live, model)
    assert not again.is_new and files() == before
