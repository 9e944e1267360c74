"""One evening: new bars, the gate, a refit if one is due, forecasts of every missing day, and what has come due."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl
from loguru import logger

from lasps.config import clock
from lasps.data.datasets.panel_samples import PanelRows
from lasps.data.datasets.scan import frame_digest
from lasps.data.integrity import IntegrityReport
from lasps.data.panel import Panel
from lasps.data.universe import stored_markets
from lasps.live.day_scores import day_scores
from lasps.live.folder import LiveFolder
from lasps.live.ledger import Evening
from lasps.live.model import CHAMPION, SHADOW, EveningModel, table_of, train
from lasps.live.outcomes import Pull
from lasps.live.scoring import TrackRecord, track_record
from lasps.live.succession import REFIT, Succession, after_probation, refit_is_due
from lasps.pipeline.forecast import gated, trading_day
from lasps.pipeline.recipe import Recipe

READ = ("features", "scaler", "window", "warm_up", "chart_size")
"""What of a panel two models must read alike to share its rows."""


@dataclass(frozen=True)
class Refits:
    """When a model is trained again, and from what.

    every: market days between two refits; fraction: of the rows, by a hash of code and date.
    """

    recipe: Recipe
    every: int = 60
    fraction: float = 1.0


@dataclass(frozen=True)
class EveningResult:
    """What an evening came to.

    Attributes:
        written: days appended to the ledger, oldest first.
        would_write: days that the ledger lacked.
        would_refit: of these, the days on whose evenings a refit is due.
        record: what has come due; None in a dry run.
        report: the integrity gate's, of the newest day.
        panel, listing: of the newest day's universe.
        succession: who is champion after this evening.
    """

    written: tuple[Evening, ...]
    would_write: tuple[dt.date, ...]
    would_refit: tuple[dt.date, ...]
    record: TrackRecord | None
    report: IntegrityReport
    panel: Panel = field(repr=False)
    listing: pl.DataFrame = field(repr=False)
    succession: Succession

    @property
    def is_new(self) -> bool:
        """Whether there was a day to forecast."""
        return bool(self.would_write)


def run_evening(
    bars: pl.DataFrame,
    listing: pl.DataFrame,
    live: LiveFolder,
    model: EveningModel | None = None,
    refits: Refits | None = None,
    waive: Sequence[str] = (),
    dry_run: bool = False,
    device: str = "cpu",
) -> EveningResult:
    """Forecast every market day that the ledger lacks, oldest first, and score what has come due.

    A day that was missed is caught up in order, with the refit that was due on it; the ledger marks what is written
    after the next session's opening as late. Nothing is written before the gate has passed for all days; the same
    evening again changes nothing, and one that was killed goes on where it stood.

    Args:
        bars, listing: as a source reads them, the whole market.
        model: what forecasts until a refit of this folder is there; with `refits` it may be left out.
        refits: train again on a schedule; None: `model` forecasts for ever.
        dry_run: write nothing, train nothing.

    Raises:
        ValueError: no whole day in the bars, inputs that the model cannot use, neither model nor refits, or a ledger
            that does not verify.
        IntegrityError: a fatal finding in the bars that one of the days, or a refit, reads.
        InUseError: another process is at work in the folder.
    """
    with live.in_use():
        return _evening(bars, listing, live, model, refits, waive, dry_run, device)


def _evening(
    bars: pl.DataFrame,
    listing: pl.DataFrame,
    live: LiveFolder,
    model: EveningModel | None,
    refits: Refits | None,
    waive: Sequence[str],
    dry_run: bool,
    device: str,
) -> EveningResult:
    if model is None and refits is None:
        raise ValueError("expected a model that forecasts, or a recipe to train one from; got neither")
    inputs = dict(refits.recipe.data if model is None else model.inputs)  # type: ignore[union-attr]
    listing = live.with_known(listing, stored_markets(inputs["universe"]))

    def seen_on(day: dt.date, whole: bool) -> tuple[IntegrityReport, Panel]:
        report, panel = gated(bars, listing, inputs, day, waive, whole)
        return report, Panel(panel)

    newest = trading_day(bars, "latest", clock.now())
    seen = {newest: seen_on(newest, whole=False)}
    report, panel = seen[newest]
    missing = _missing_days(live, panel, newest)
    due = () if refits is None else _refits_due(live.succession(), missing, panel, refits.every)
    seen |= {day: seen_on(day, day in due) for day in missing if day in due or day != newest}
    if dry_run:
        return EveningResult((), missing, due, None, report, panel, listing, live.succession())
    written = []
    for day in missing:
        own = seen[day][1]
        if refits is not None and day in due:
            _refit(live, refits, own, day, device)
        written.append(_write_day(live, model, bars, own, day, device))
    live.remember(listing)
    record = track_record(live.ledger, live.outcomes, Pull(panel))
    live.write_succession(_after_probation(live.succession(), record, newest))
    return EveningResult(tuple(written), missing, due, record, report, panel, listing, live.succession())


def forecasts_on(
    champion: EveningModel, panel: Panel, day: dt.date, shadow: EveningModel | None = None
) -> tuple[pl.DataFrame, dict[str, str]]:
    """A day's rows of the ledger, and the version of every model in them.

    Args:
        panel: as the gate passed it for that day, with `sector`.
        shadow: the model that the champion has replaced; its forecast stands beside.
    """
    rows = PanelRows(panel, champion.inputs)
    samples = rows.on(day)
    found = champion.predict(samples)
    versions = dict.fromkeys(found, champion.name)
    if shadow is not None:
        same = {key: shadow.inputs.get(key) for key in READ} == {key: champion.inputs.get(key) for key in READ}
        theirs = samples if same else PanelRows(panel, shadow.inputs).on(day)
        found |= {SHADOW: shadow.predict(theirs)[CHAMPION]}
        versions[SHADOW] = shadow.name
    return table_of(found, samples), versions


def _write_day(
    live: LiveFolder, model: EveningModel | None, bars: pl.DataFrame, panel: Panel, day: dt.date, device: str
) -> Evening:
    """Forecast a day with whoever is champion, and append it to the ledger."""
    succession = live.succession()
    champion = model if succession.champion is None else live.model(succession.champion, device)
    assert champion is not None  # without a model the first day has a refit
    shadow = None if succession.predecessor is None else live.model(succession.predecessor, device)
    table, versions = forecasts_on(champion, panel, day, shadow)
    data = frame_digest(bars.filter(pl.col("date").cast(pl.Date) <= day))
    evening = live.ledger.append(day, table, versions, data, clock.now())
    late = ", late: it is not scored" if evening.late else ""
    logger.info(f"Ledger: {day}, {table['code'].n_unique():,} stocks{late}")
    return evening


def _missing_days(live: LiveFolder, panel: Panel, newest: dt.date) -> tuple[dt.date, ...]:
    known = live.ledger.days()
    days: list[dt.date] = panel.calendar.astype(object).tolist()
    return tuple(day for day in days if (day > known[-1] if known else day == newest))


def _refits_due(succession: Succession, missing: Sequence[dt.date], panel: Panel, every: int) -> tuple[dt.date, ...]:
    last = max((decision.day for decision in succession.decisions if decision.what == REFIT), default=None)
    due = []
    for day in missing:
        if refit_is_due(last, day, panel.calendar, every):
            due.append(day)
            last = day
    return tuple(due)


def _refit(live: LiveFolder, refits: Refits, panel: Panel, day: dt.date, device: str) -> None:
    name = day.isoformat()
    train(refits.recipe, PanelRows(panel, refits.recipe.data), day, live.models / name, device, refits.fraction)
    live.write_succession(live.succession().refitted(name, day))


def _after_probation(succession: Succession, record: TrackRecord, day: dt.date) -> Succession:
    """Hold the champion against its predecessor on what has come due."""
    if not {CHAMPION, SHADOW} <= record.forecasts.keys():
        return succession
    champion, shadow = (day_scores(name, record.forecasts[name]) for name in (CHAMPION, SHADOW))
    held = after_probation(succession, champion, shadow, day)
    if held.champion != succession.champion:
        logger.warning(
            f"{day}: {held.champion} is champion again, {succession.champion} is {held.decisions[-1].reason}"
        )
    return held
