"""Where a model's life is kept: forecasts, what became of them, models, who is champion, the stocks known so far."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lasps.config import clock
from lasps.data.extension import with_former
from lasps.files import held, write_atomically
from lasps.live.alarm import Alarm
from lasps.live.ledger import LEDGER, Ledger
from lasps.live.model import FILE as MODEL
from lasps.live.model import EveningModel
from lasps.live.outcomes import Outcomes
from lasps.live.succession import FILE, Succession


@dataclass(frozen=True)
class LiveFolder:
    """forecasts/ (the ledger), outcomes/, models/ (AS_OF each), succession.json, listing.parquet, alarm.json;
    registry.json of `live.registry`.

    kind: of the ledger; a simulation's folder is never a living one's.
    """

    root: Path
    kind: str = LEDGER

    @property
    def ledger(self) -> Ledger:
        """Every evening's forecasts."""
        return Ledger(self.root / "forecasts", self.kind)

    @property
    def outcomes(self) -> Outcomes:
        """What became of them."""
        return Outcomes(self.root / "outcomes")

    @property
    def models(self) -> Path:
        """One folder per refit, named after its evening."""
        return self.root / "models"

    def model(self, name: str, device: str = "cpu") -> EveningModel:
        """A model by its folder's name. Raises ModelError where it is not there whole."""
        return EveningModel.open(self.models / name, device)

    def about(self, version: str) -> dict[str, Any]:
        """model.json of a version as the ledger names it; empty for a checkpoint that no folder here holds."""
        for path in sorted(self.models.glob(f"*/{MODEL}")):
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if found.get("name") == version:
                return found
        return {}

    def succession(self) -> Succession:
        """Who is champion."""
        return Succession.read(self.root / FILE)

    def in_use(self) -> AbstractContextManager[None]:
        """Hold the folder for one process. Raises InUseError where another one is at work in it."""
        return held(self.root / ".lock", f"{self.root}", "Wait for it, or give --live-dir another folder")

    def next_evening(self) -> dt.date:
        """The day after the ledger's last evening: from when on a decision that is made now holds."""
        days = self.ledger.days()
        return days[-1] + dt.timedelta(days=1) if days else clock.now().date()

    def promoted(self, name: str, reason: str) -> Succession:
        """The succession with a model made champion by hand, from the next evening on.

        Raises:
            ValueError: no such model, or it is champion already.
            ModelError: it is not there whole.
        """
        succession, known = self.succession(), sorted(path.parent.name for path in self.models.glob(f"*/{MODEL}"))
        if name not in known:
            raise ValueError(f"{self.models}: expected one of {', '.join(known) or 'no model yet'}, got {name!r}")
        if name == succession.champion:
            raise ValueError(f"{name} is champion already: expected another one of {', '.join(known)}")
        self.model(name)
        return succession.promoted(name, self.next_evening(), reason)

    def rolled_back(self, reason: str) -> Succession:
        """The succession with the predecessor champion again by hand, from the next evening on.

        Raises:
            ValueError: there is no predecessor.
            ModelError: it is not there whole.
        """
        found = self.succession().rolled_back(self.next_evening(), reason)
        self.model(str(found.champion))
        return found

    def write_succession(self, succession: Succession) -> None:
        """Write down who is champion, if it is another than before."""
        if succession != self.succession():
            succession.write(self.root / FILE)

    def alarm(self, path: Path | None = None) -> Alarm | None:
        """The alarm that a walk-forward calibrated: of `path`, else alarm.json here; None where there is none."""
        own = self.root / "alarm.json" if path is None else path
        return None if path is None and not own.is_file() else Alarm.read(own)

    def with_known(self, listing: pl.DataFrame, markets: Sequence[str] | None) -> pl.DataFrame:
        """The listing with the stocks of earlier evenings that it no longer names (`with_former`)."""
        path = self.root / "listing.parquet"
        return with_former(listing, pl.read_parquet(path), markets) if path.is_file() else listing

    def remember(self, listing: pl.DataFrame) -> None:
        """Keep the listing for the evenings to come."""
        columns = [name for name in ("code", "name", "industry", "market") if name in listing.columns]
        table = listing.select(columns).unique("code", keep="first").sort("code")
        path = self.root / "listing.parquet"
        if not path.is_file() or not pl.read_parquet(path).equals(table):
            write_atomically(path, table.write_parquet)
