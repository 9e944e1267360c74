"""Sixty evenings, one after another, with a split, a halt, a delisting and a turn of the market among them."""

import json
import shutil
import time
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from experiments import daily, ledger_verify, score
from lasps.config import clock
from lasps.data.labels import make_labels
from lasps.data.panel import Panel, make_panel
from lasps.evaluation.metrics import log_losses
from lasps.live.alarm import Alarm, AlarmState, state
from lasps.live.evening import EveningResult, run_evening
from lasps.live.folder import LiveFolder
from lasps.live.model import EveningModel, with_seeds
from lasps.live.scoring import alarm_state, edge
from lasps.live.screen import alarm_line
from lasps.live.succession import REFIT
from lasps.pipeline.recipe import Recipe
from lasps.tracking.location import connect, location_of
from lasps.training.checkpoints import Checkpoint
from tests.market_by_day import MarketByDay, at_six, eventful
from tests.pipeline.conftest import call

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


def test_make_score_holds_the_ledger_to_account(lived, tmp_path, monkeypatch, capsys) -> None:
    lived.market.bars.write_parquet(tmp_path / "bars.parquet")
    options = ("--live-dir", lived.live.root, "--source", tmp_path / "bars.parquet")
    page, numbers = tmp_path / "live.html", tmp_path / "live.json"
    assert call(monkeypatch, score, *options, "--html", page, "--json", numbers) == 0
    out = capsys.readouterr().out
    assert "60 evenings in the ledger: 55 scored, 5 not due yet, 0 late" in out and "alarm: none is calibrated" in out
    assert "prices were adjusted again since" in out and "champion" in page.read_text()
    found = json.loads(numbers.read_text())
    f = lived.last.record.forecasts["champion"]
    assert found["models"]["champion"]["test"]["log_loss"] == pytest.approx(log_losses(f.p, f.labels).mean())
    assert len(found["evenings"]) == EVENINGS
    pair = next(p for p in found["pairs"] if {p["a"], p["b"]} == {"champion", "prior"} and p["metric"] == "log_loss")
    prior = lived.last.record.forecasts["prior"]
    expected = (log_losses(f.p, f.labels) - log_losses(prior.p, prior.labels)).mean()
    assert pair["difference"] * (1 if pair["b"] == "champion" else -1) == pytest.approx(expected)


def test_a_mixture_of_ledger_and_simulation_is_refused(lived, tmp_path, monkeypatch, capsys) -> None:
    lived.market.bars.write_parquet(tmp_path / "bars.parquet")
    options = ("--live-dir", lived.live.root, "--source", tmp_path / "bars.parquet")
    assert call(monkeypatch, score, *options, "--simulation") != 0
    assert call(monkeypatch, ledger_verify, "--live-dir", lived.live.root, "--simulation") != 0
    assert "never mixed" in capsys.readouterr().err


def test_the_alarm_is_shown_where_one_is_calibrated(lived) -> None:
    calm, loud = (Alarm(limit, limit - 0.1, -1.0, 0.5, 300) for limit in (9.0, -9.0))
    record = lived.last.record.forecasts
    assert alarm_state(record, calm) == AlarmState(None, None)  # 55 due days, it needs 60
    assert "needs 60 due days" in alarm_line(alarm_state(record, calm))
    monthly = edge(record)
    assert monthly["date"].to_list() == lived.evenings[:55] and monthly["difference"].is_finite().all()
    twice = pl.concat([monthly, monthly.with_columns(pl.col("date").dt.offset_by("1y"))])
    shown = state(twice["date"].to_list(), twice["difference"].to_numpy(), loud)
    assert shown.since == twice["date"][59] and f"ALARM since {twice['date'][59]}" in alarm_line(shown)


def test_make_ledger_verify_says_that_the_chain_is_whole_or_where_it_is_not(
    lived, tmp_path, monkeypatch, capsys
) -> None:
    copy = tmp_path / "live"
    shutil.copytree(lived.live.root, copy)
    assert call(monkeypatch, ledger_verify, "--live-dir", copy) == 0
    out = capsys.readouterr().out
    assert f"60 evenings from {lived.evenings[0]} to {lived.evenings[-1]}, 0 of them late: the chain is whole" in out
    (copy / "forecasts" / f"{lived.evenings[7]}.parquet").unlink()
    assert call(monkeypatch, ledger_verify, "--live-dir", copy) != 0
    assert str(lived.evenings[8]) in capsys.readouterr().err
    shutil.copy(lived.live.root / "forecasts" / f"{lived.evenings[7]}.parquet", copy / "forecasts")
    part = next((copy / "outcomes").iterdir())
    part.write_bytes(part.read_bytes()[:50])
    assert call(monkeypatch, ledger_verify, "--live-dir", copy) != 0
    assert part.name in capsys.readouterr().err
    assert call(monkeypatch, ledger_verify, "--live-dir", tmp_path / "none") != 0


# ---------------------------------------------------------------------------------- with refits and MLflow's registry


def evenings_by_script(market: MarketByDay, days: list[date], recipe: Recipe, folder: Path, every: int) -> list[int]:
    """`make daily` with a recipe on each of some days: its exit codes."""
    recipe.write(folder / "recipe.json")
    files = ("--source", folder / "bars.parquet", "--listing", folder / "listing.csv", "--device", "cpu")
    where = ("--live-dir", folder / "live", "--page", folder / "today.html", "--recipe", folder / "recipe.json")
    status = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        for day in days:
            market.bars_on(day).write_parquet(folder / "bars.parquet")
            market.listing_on(day).write_csv(folder / "listing.csv")
            patch.setattr(clock, "now", lambda day=day: at_six(day))
            status.append(call(patch, daily, *where, *files, "--refit-every", every))
    return status


def test_three_evenings_by_script_refit_publish_and_show_the_page(lived, tiny_recipe, tmp_path, capsys) -> None:
    days = lived.evenings[:3]
    status = evenings_by_script(lived.market, [*days, days[-1]], with_seeds(tiny_recipe, 1), tmp_path, every=2)
    out = capsys.readouterr().out
    assert status == [0, 0, 0, daily.NOTHING_NEW] and f"Written: {days[2]}, after a refit" in out
    live = LiveFolder(tmp_path / "live")
    assert live.succession().champion == str(days[2]) and live.succession().predecessor == str(days[0])
    client = connect(location_of(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path))
    registered = client.get_registered_model("lasps").aliases
    assert set(registered) == {"champion", "shadow"} and len(client.search_model_versions("name = 'lasps'")) == 2
    page = (tmp_path / "today.html").read_text()
    assert str(days[2]) in page and "network (1 seed) and LightGBM (1 seed), half each" in page
    assert pl.read_parquet(tmp_path / "today.parquet").height == 38


@pytest.mark.slow
def test_sixty_evenings_with_refits_hold_the_champion_to_account(lived, tiny_recipe, tmp_path) -> None:
    status = evenings_by_script(lived.market, lived.evenings, with_seeds(tiny_recipe, 1), tmp_path, every=20)
    live = LiveFolder(tmp_path / "live")
    assert status == [0] * EVENINGS and len(list(live.ledger.verified())) == EVENINGS
    refits = [d for d in live.succession().decisions if d.what == REFIT]
    assert [str(d.day) for d in refits] == [str(lived.evenings[i]) for i in (0, 20, 40)]
    for before, after in pairwise(live.succession().decisions):
        assert after.before == before.champion
    shadows = [e.day for e in live.ledger.verified() if "shadow" in e.versions]
    assert shadows and min(shadows) == lived.evenings[20]
