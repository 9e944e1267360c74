"""Which model is champion, and which one it replaced: a refit takes over at once, and must not prove worse than before.

No day is left that a fresh refit has not seen, so nothing can be asked of it before it forecasts. Instead the model it
replaced forecasts on in its shadow. From the 20th due day on, and at each later evening up to the 60th, a champion
that is worse than its predecessor at the 1 % level is rolled back.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from lasps.evaluation.significance import Difference
from lasps.files import write_atomically
from lasps.live.day_scores import difference

PROBATION = (20, 60)
"""From how many due days on a champion is held against its predecessor, and until how many."""
LEVEL = 0.01
"""Of the two-sided test over days. It is asked at up to 41 evenings, so that more than 1 % of equal refits fall."""
KIND, FILE = "lasps succession 1", "succession.json"
REFIT, ROLLBACK, PROMOTION = "refit", "rollback", "promotion"


@dataclass(frozen=True)
class Decision:
    """One change of champion: on which evening, what it was, from which model to which, and why.

    difference, low, high: of a rollback, the fallen champion minus its predecessor in log loss, with a 95 % interval.
    """

    day: dt.date
    what: str
    champion: str
    before: str | None
    reason: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Succession:
    """The models of an evening, by the names of their folders, and every decision that led there.

    since: the first evening that the champion forecast as champion; predecessor: None where nothing is in its shadow.
    """

    champion: str | None = None
    predecessor: str | None = None
    since: dt.date | None = None
    decisions: tuple[Decision, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Succession:
        """From a file; without one, nobody is champion yet. Raises ValueError for a file that cannot be read."""
        if not path.is_file():
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("kind") != KIND:
                raise ValueError("another kind of file")
            since = content.pop("since")
            decisions = [Decision(**{**d, "day": dt.date.fromisoformat(d["day"])}) for d in content.pop("decisions")]
            return cls(since=since and dt.date.fromisoformat(since), decisions=tuple(decisions), **content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: expected which model is champion, cannot read it ({error})") from error

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        content = json.dumps({"kind": KIND} | asdict(self), indent=1, default=str)
        write_atomically(path, content + "\n")

    def refitted(self, name: str, day: dt.date) -> Succession:
        """A fresh refit is champion from `day` on."""
        reason = f"trained on every label that had ended by {day}"
        return self._led_by(Decision(day, REFIT, name, self.champion, reason), shadow=self.champion)

    def promoted(self, name: str, day: dt.date, reason: str) -> Succession:
        """A model was made champion by hand; the one before forecasts on in its shadow."""
        return self._led_by(Decision(day, PROMOTION, name, self.champion, reason), shadow=self.champion)

    def rolled_back(self, day: dt.date, reason: str, worse_by: Difference | None = None) -> Succession:
        """The predecessor is champion again, and nothing in its shadow.

        Raises:
            ValueError: there is no predecessor.
        """
        if self.predecessor is None:
            raise ValueError(f"expected a model that {self.champion} has replaced, found none to go back to")
        found = worse_by and (worse_by.difference, worse_by.low, worse_by.high)
        return self._led_by(Decision(day, ROLLBACK, self.predecessor, self.champion, reason, *(found or ())), None)

    def without_shadow(self) -> Succession:
        """The predecessor no longer forecasts."""
        return replace(self, predecessor=None)

    def _led_by(self, decision: Decision, shadow: str | None) -> Succession:
        decisions = (*self.decisions, decision)
        return Succession(decision.champion, shadow, decision.day, decisions)


def refit_is_due(last_refit: dt.date | None, day: dt.date, calendar: np.ndarray, every: int) -> bool:
    """Whether `every` market days have gone by since the last refit's evening, or there was none.

    Args:
        calendar: the market's days, datetime64[D] sorted.
    """
    if last_refit is None:
        return True
    since = calendar[(calendar > np.datetime64(last_refit, "D")) & (calendar <= np.datetime64(day, "D"))]
    return len(since) >= every


def after_probation(succession: Succession, champion: pl.DataFrame, shadow: pl.DataFrame, day: dt.date) -> Succession:
    """The succession after an evening's look at what has come due.

    Args:
        champion, shadow: scores by day (`day_scores.SCORES`) of both, of due days.
        day: the evening.
    """
    if succession.predecessor is None or succession.since is None:
        return succession
    own, before = (scores.filter(pl.col("date") >= succession.since) for scores in (champion, shadow))
    n_days = own.join(before, on="date").height
    if n_days < PROBATION[0]:
        return succession
    found = difference(own, before, "log_loss")
    if n_days <= PROBATION[1] and found.p_value is not None and found.difference > 0 and found.p_value < LEVEL:
        reason = f"worse than its predecessor over {n_days} due days (p {found.p_value:.4f}, limit {LEVEL})"
        return succession.rolled_back(day, reason, found)
    return succession.without_shadow() if n_days >= PROBATION[1] else succession
