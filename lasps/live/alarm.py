"""An alarm for a champion that has stopped being worth more than the prior, with a limit set by its own history.

Statistic: the mean over the last 60 due days of the champion's daily log loss minus the prior's. Limit: bootstrapped
years of the walk-forward's own daily differences (stationary bootstrap: Politis & Romano, JASA 89, 1994) raise the
alarm less than once on average. Labels of neighbouring days share days, and markets have moods, so whole runs of days
are drawn. Measured on simulated markets in docs/usage.md.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lasps.files import write_atomically

Array = NDArray[np.float64]
WINDOW = 60
"""Due days in the statistic: about a quarter of a year, the longest time between two refits that was measured."""
YEAR = 250
"""Evenings, of a market that does not change, in which one false alarm is accepted."""
RUN = 20
"""Mean length of the runs that are drawn: four times the label's five days, so that their overlap is kept (guess)."""
YEARS_DRAWN = 2_000
IN_DRAWN_YEARS = 0.7
"""False alarms per YEAR in the drawn years. With 1.0 there, simulated markets had 1.0 to 1.3 in years that the limit
had not been set on: 368 days calibrate only so well."""
MIN_DAYS = 2 * WINDOW
"""Fewer days do not tell how much a mean over WINDOW of them varies."""
KIND = "lasps alarm 1"


@dataclass(frozen=True)
class Alarm:
    """Raised where the statistic is above `limit`, and quiet again where it is below `clear`.

    Attributes:
        limit, clear: in nats; clear lies half-way from the limit to the calibrating days' own mean.
        mean: of the calibrating days.
        false_alarms: per YEAR evenings, in the bootstrapped years.
        days: how many it was calibrated on.
        source: where they are from.
    """

    limit: float
    clear: float
    mean: float
    false_alarms: float
    days: int
    source: str = ""

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_atomically(path, json.dumps({"kind": KIND} | asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Alarm:
        """Raises ValueError for a file that is none."""
        try:
            content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if content["kind"] != KIND:
                raise ValueError(f"kind {content['kind']!r}")
            return cls(**{name: value for name, value in content.items() if name != "kind"})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: expected an alarm as `make walk-forward` writes it ({error})") from error


@dataclass(frozen=True)
class AlarmState:
    """How an alarm stands after the last due day.

    value: the statistic; None under WINDOW due days. since: the due day that raised it; None where it is quiet.
    """

    value: float | None
    since: dt.date | None

    @property
    def is_raised(self) -> bool:
        """Whether it is raised."""
        return self.since is not None


def statistic(daily: Array) -> Array:
    """Means over the last WINDOW of (..., T) daily differences: (..., T - WINDOW + 1)."""
    sums = np.cumsum(np.concatenate([np.zeros((*daily.shape[:-1], 1)), daily], axis=-1), axis=-1)
    return (sums[..., WINDOW:] - sums[..., :-WINDOW]) / WINDOW


def raised(values: Array, limit: float, clear: float) -> NDArray[np.bool_]:
    """Whether the alarm is raised after each of (..., T) values of the statistic."""
    out = np.zeros(values.shape, dtype=bool)
    now = np.zeros(values.shape[:-1], dtype=bool)
    for t in range(values.shape[-1]):
        now = (values[..., t] > limit) | (now & (values[..., t] >= clear))
        out[..., t] = now
    return out


def onsets(states: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How often (..., T) states turn from quiet to raised, the first included."""
    before = np.concatenate([np.zeros((*states.shape[:-1], 1), dtype=bool), states[..., :-1]], axis=-1)
    return np.asarray((states & ~before).sum(axis=-1))


def calibrated(daily: Array, source: str = "", seed: int = 0) -> Alarm:
    """The lowest limit with at most one false alarm in YEAR evenings, in years drawn from the days themselves.

    Args:
        daily: (T,) champion minus prior in log loss by due day, oldest first, of a time in which the model was as good
            as it is expected to be: a walk-forward's test.

    Raises:
        ValueError: fewer than MIN_DAYS days, or one that is not finite.
    """
    daily = np.asarray(daily, dtype=np.float64)
    if daily.ndim != 1 or len(daily) < MIN_DAYS or not np.isfinite(daily).all():
        raise ValueError(
            f"alarm: expected at least {MIN_DAYS} finite daily differences to calibrate on, got shape {daily.shape}. "
            "Walk forward over more days"
        )
    values = statistic(daily[_runs(len(daily), np.random.default_rng(seed))])
    mean = float(daily.mean())
    low, high = mean, float(values.max())
    for _ in range(40):
        middle = (low + high) / 2
        if _false_alarms(values, middle, mean) > IN_DRAWN_YEARS:
            low = middle
        else:
            high = middle
    return Alarm(high, (high + mean) / 2, mean, _false_alarms(values, high, mean), len(daily), source)


def state(dates: list[dt.date], daily: Array, alarm: Alarm) -> AlarmState:
    """How the alarm stands after the due days so far.

    Args:
        dates, daily: the due days and champion minus prior in log loss on each, oldest first.
    """
    if len(daily) < WINDOW:
        return AlarmState(None, None)
    values = statistic(np.asarray(daily, dtype=np.float64))
    states = raised(values, alarm.limit, alarm.clear)
    if not states[-1]:
        return AlarmState(float(values[-1]), None)
    quiet = np.flatnonzero(~states)
    first = 0 if not len(quiet) else int(quiet[-1]) + 1
    return AlarmState(float(values[-1]), dates[first + WINDOW - 1])


def _false_alarms(values: Array, limit: float, mean: float) -> float:
    return float(onsets(raised(values, limit, (limit + mean) / 2)).mean())


def _runs(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Days of YEARS_DRAWN years and the WINDOW before each: runs of geometric length, wrapped around at the end."""
    length = YEAR + WINDOW - 1
    fresh = rng.integers(0, n, (YEARS_DRAWN, length))
    begins = rng.random((YEARS_DRAWN, length)) < 1 / RUN
    begins[:, 0] = True
    start = np.maximum.accumulate(np.where(begins, np.arange(length), 0), axis=1)
    return (np.take_along_axis(fresh, start, axis=1) + np.arange(length) - start) % n
