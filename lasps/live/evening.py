"""One evening: new bars -> gate -> forecasts of every day that is missing -> the ledger -> what has come due."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import polars as pl
from loguru import logger

from lasps.data.datasets.scan import frame_digest
from lasps.data.panel import Panel
from lasps.live.ledger import P_COLUMNS, Evening, Ledger
from lasps.live.outcomes import Outcomes
from lasps.live.scoring import TrackRecord, track_record
from lasps.pipeline.forecast import DayWindows, gated, inputs_of, rows_at, trading_day
from lasps.training.checkpoints import Checkpoint
from lasps.training.ensembles import Ensemble

CHAMPION, PRIOR = "champion", "prior"


@dataclass(frozen=True)
class EveningResult:
    """What an evening came to. written: days appended to the ledger, oldest first; record: None in a dry run."""

    written: tuple[Evening, ...]
    would_write: tuple[date, ...]
    record: TrackRecord | None

    @property
    def is_new(self) -> bool:
        """Whether there was a day to forecast."""
        return bool(self.would_write)


def run_evening(
    bars: pl.DataFrame,
    listing: pl.DataFrame,
    champion: Checkpoint | Ensemble,
    ledger: Ledger,
    outcomes: Outcomes,
    moment: datetime,
    waive: Sequence[str] = (),
    dry_run: bool = False,
) -> EveningResult:
    """Forecast every market day that the ledger lacks, oldest first, and score what has come due.

    A day that was missed is caught up in order; the ledger marks what is written after the next session's opening as
    late. Nothing is written before the gate has passed for all days; the same evening again changes nothing.

    Args:
        bars, listing: as a source reads them, the whole market.
        moment: when it is, with a time zone.
        dry_run: write nothing.

    Raises:
        ValueError: no whole day in the bars, inputs that the champion cannot use, or a ledger that does not verify.
        IntegrityError: a fatal finding in the bars that one of the days reads.
    """
    newest = trading_day(bars, "latest", moment)
    known = ledger.days()
    data = inputs_of(champion)
    _, panel = gated(bars, listing, data, newest, waive)
    calendar: list[date] = Panel.of(panel).calendar.astype(object).tolist()
    missing = [day for day in calendar if (day > known[-1] if known else day == newest)]
    panels = {day: panel if day == newest else gated(bars, listing, data, day, waive)[1] for day in missing}
    found = {day: forecasts_on(champion, own, day) for day, own in panels.items()}
    if dry_run:
        return EveningResult((), tuple(missing), None)
    versions = {CHAMPION: version_of(champion), PRIOR: "training frequencies"}
    written = []
    for day, table in found.items():
        own = bars.filter(pl.col("date").cast(pl.Date) <= day)
        evening = ledger.append(day, table, versions, frame_digest(own), moment)
        late = ", late: it is not scored" if evening.late else ""
        logger.info(f"Ledger: {day}, {table['code'].n_unique():,} stocks{late}")
        written.append(evening)
    return EveningResult(tuple(written), tuple(missing), track_record(ledger, outcomes, Panel.of(panel)))


def forecasts_on(champion: Checkpoint | Ensemble, panel: pl.DataFrame, day: date) -> pl.DataFrame:
    """A day's rows of the ledger: the champion's probabilities, and the class frequencies that it was trained with.

    Args:
        panel: as `gated` gives it for that day.
    """
    data = inputs_of(champion)
    ends = rows_at(panel, day, data["window"], data.get("warm_up") or 0)
    p = champion.predict(DayWindows(panel, ends, data)).p
    rows = panel[ends].select("code", "sector", "close")
    shares = np.array(data["train_class_frequencies"], dtype=np.float64)
    constant = np.tile(shares / shares.sum(), (len(rows), 1))
    return pl.concat(
        rows.with_columns(pl.lit(model).alias("model"), *(pl.Series(c, q[:, i]) for i, c in enumerate(P_COLUMNS)))
        for model, q in ((CHAMPION, p), (PRIOR, constant))
    )


def version_of(champion: Checkpoint | Ensemble) -> str:
    """Its name and a digest of its weights."""
    members = champion.members if isinstance(champion, Ensemble) else (champion,)
    digest = hashlib.sha256("|".join(member.card.sha256 for member in members).encode()).hexdigest()
    return f"{champion.name} {digest[:12]}"
