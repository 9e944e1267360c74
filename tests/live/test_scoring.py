"""A ledger's track record: only what is due, on time and ended counts; the rest is counted and shown."""

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lasps.config.clock import SEOUL
from lasps.data.panel import Panel, make_panel
from lasps.evaluation import metrics
from lasps.live.ledger import Ledger, next_open
from lasps.live.outcomes import Outcomes, Pull
from lasps.live.scoring import TrackRecord, track_record
from tests.factories import halted, market

ROW, EVENINGS = 100, 6
VERSIONS = {"champion": "1", "prior": "1"}


@pytest.fixture(scope="module")
def raw() -> pl.DataFrame:
    return market(n_stocks=12, n_days=125)


def days_of(raw: pl.DataFrame) -> list[date]:
    return raw["date"].unique().sort().to_list()


def tables_of(raw: pl.DataFrame, day: date, seed: int) -> pl.DataFrame:
    closes = raw.filter(date=day).select("code", "close").sort("code")
    p = np.random.default_rng(seed).dirichlet((3, 5, 3), closes.height)
    columns = {"p_sell": p[:, 0], "p_hold": p[:, 1], "p_buy": p[:, 2]}
    own = closes.with_columns(
        **{k: pl.Series(v) for k, v in columns.items()}, sector=pl.lit(1), model=pl.lit("champion")
    )
    prior = own.with_columns(p_sell=pl.lit(0.25), p_hold=pl.lit(0.5), p_buy=pl.lit(0.25), model=pl.lit("prior"))
    return pl.concat([own, prior])


@pytest.fixture
def ledger(raw, tmp_path: Path) -> Ledger:
    """Six evenings, the third of them late."""
    ledger = Ledger(tmp_path / "ledger")
    for i, day in enumerate(days_of(raw)[ROW : ROW + EVENINGS]):
        moment = next_open(day) if i == 2 else datetime.combine(day, datetime.min.time(), SEOUL) + timedelta(hours=18)
        ledger.append(day, tables_of(raw, day, i), VERSIONS, "x", moment)
    return ledger


def record_at(raw: pl.DataFrame, ledger: Ledger, tmp_path: Path, row: int) -> TrackRecord:
    panel = Panel.of(make_panel(raw.filter(pl.col("date") <= days_of(raw)[row]))[0])
    return track_record(ledger, Outcomes(tmp_path / "outcomes"), Pull(panel))


def test_nothing_is_scored_before_its_fifth_market_day(raw, ledger, tmp_path) -> None:
    assert record_at(raw, ledger, tmp_path, ROW + 4).forecasts == {}
    assert record_at(raw, ledger, tmp_path, ROW + 5).forecasts["champion"].dates == [days_of(raw)[ROW]]


def test_late_evenings_are_kept_and_not_scored(raw, ledger, tmp_path) -> None:
    found, days = record_at(raw, ledger, tmp_path, ROW + 12), days_of(raw)
    assert found.days["late"].to_list() == [False, False, True, False, False, False]
    assert found.forecasts["champion"].dates == [d for i, d in enumerate(days[ROW : ROW + EVENINGS]) if i != 2]


def test_probabilities_stand_beside_the_outcome_of_their_own_stock_and_day(raw, ledger, tmp_path) -> None:
    forecast, days = record_at(raw, ledger, tmp_path, ROW + 12).forecasts["champion"], days_of(raw)
    closes = {(code, day): close for code, day, close in raw.select("code", "date", "close").iter_rows()}
    given = {
        (row["code"], day): [row["p_sell"], row["p_hold"], row["p_buy"]]
        for i, day in enumerate(days[ROW : ROW + EVENINGS])
        for row in tables_of(raw, day, i).filter(model="champion").iter_rows(named=True)
    }
    for (code, day), p, outcome in zip(forecast.keys.iter_rows(), forecast.p, forecast.forward_return, strict=True):
        assert p.tolist() == pytest.approx(given[code, day])
        assert outcome == pytest.approx(closes[code, days[days.index(day) + 5]] / closes[code, day] - 1)


def test_open_labels_are_counted_shown_and_bounded_as_sell(raw, ledger, tmp_path) -> None:
    code = raw["code"].unique().sort()[4]
    stopped = halted(raw, code, range(ROW + 3, ROW + 8))
    found = record_at(stopped, ledger, tmp_path, ROW + 9)
    due = found.days.filter(pl.col("due"))
    assert due.select("open", "gone").rows() == [(1, 0), (1, 0), (1, 0), (0, 1), (0, 1)]  # no bar on a halted day
    assert (due["stocks"] == due["ended"] + due["open"] + due["gone"]).all()
    assert found.open["code"].unique().to_list() == [code] and found.open.height == 4
    scored, worst = found.with_open_as_sell["prior"]
    n = 4 * 12
    assert worst == pytest.approx((scored * (n - 4) - 4 * np.log(0.25)) / n)


def test_the_metrics_are_those_of_any_other_forecast(raw, ledger, tmp_path) -> None:
    found = record_at(raw, ledger, tmp_path, ROW + 12).forecasts["prior"]
    expected = -np.log(np.where(found.labels == 1, 0.5, 0.25)).mean()
    assert metrics.summary(found, (0.25, 0.5, 0.25))["log_loss"] == pytest.approx(expected)
