"""Every check by its name, and the report that holds their findings and stops a build at fatal ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import polars as pl
from loguru import logger

from lasps.data.integrity import bars, dataset, days, inputs, prices, volumes
from lasps.data.integrity.findings import Finding

BAR_CHECKS: tuple[Callable[[bars.Bars], Finding], ...] = (
    prices.duplicate_keys,
    prices.unsorted_keys,
    prices.malformed_codes,
    days.stray_dates,
    prices.non_positive_prices,
    prices.prices_outside_range,
    prices.limit_moves,
    prices.limit_moves_exempt,
    prices.impossible_ranges,
    prices.scale_breaks,
    prices.stray_days,
    days.halts,
    volumes.unread_volume,
    days.frozen_prices,
    days.repeated_bars,
    volumes.volume_outliers,
    volumes.volume_levels,
    days.calendar_gaps,
    days.calendar_holes,
    days.missing_days,
    days.unfinished_last_day,
)
DATASET_CHECKS: tuple[Callable[[dataset.DatasetFolder], Finding], ...] = (
    dataset.array_agreement,
    dataset.label_balance,
    dataset.sample_sectors,
    dataset.split_overlap,
    dataset.label_leaks,
    inputs.feature_values,
    inputs.duplicated_features,
    inputs.blank_charts,
)
PANEL = "panel"
"""The finding of bars from which no panel can be made."""
_OTHER = (
    PANEL,
    "short_histories",
    "codes_without_industry",
    "industries_without_sector",
    "sector_values",
    "small_sectors",
    "dominant_sector",
    "altered_files",
)
CHECK_NAMES: tuple[str, ...] = (*(c.__name__ for c in BAR_CHECKS), *_OTHER, *(c.__name__ for c in DATASET_CHECKS))
"""The names that findings carry and waivers use."""


def run(check: Callable[..., Finding], *given: Any) -> Finding:
    """What the check finds. A check that fails itself is a fatal finding of its name: no file brings the gate down."""
    try:
        return check(*given)
    except (Exception, pl.exceptions.PanicException) as error:  # a panic of polars is no Exception
        logger.opt(exception=True).debug("where the check failed:")
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return Finding(
            check.__name__,
            "fatal",
            1,
            1,
            f"this check could not be made: {what}.",
            "An error of lasps, not necessarily of the data: please report it (LASPS_LOG=DEBUG shows where). Waive the "
            "check by its name to go on without it.",
        )


_RANK = {"fatal": 0, "warning": 1, "info": 2}


class IntegrityError(ValueError):
    """Fatal findings that nobody waived."""


@dataclass
class IntegrityReport:
    """All findings of one look at the data, and what the pictures of the HTML page are drawn from."""

    findings: list[Finding]
    plot_data: dict[str, Any] = field(default_factory=dict)
    waived: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Finding:
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"no finding named {name!r}; this report has {', '.join(f.name for f in self.findings)}")

    @property
    def fatal(self) -> list[Finding]:
        """Fatal findings, the waived ones included."""
        return [f for f in self.findings if f.severity == "fatal"]

    def sorted(self) -> list[Finding]:
        """Fatal first, then warnings, then what was found but is normal, then what is clean."""
        return sorted(self.findings, key=lambda f: (_RANK[f.severity], f.count == 0))

    def raise_if_fatal(self, waived: Iterable[str] = ()) -> None:
        """Stop here unless every fatal finding is waived by its name.

        Raises:
            ValueError: a waiver that names no check.
            IntegrityError: (a ValueError) fatal findings that are not waived, each with what to do.
        """
        waived = validate_waivers(waived)
        self.waived = tuple(dict.fromkeys((*self.waived, *waived)))
        stop = [f for f in self.fatal if f.name not in self.waived]
        if not stop:
            return
        lines = [f"{len(stop)} fatal finding(s) in the data:"]
        for finding in stop:
            first = f" First: {' '.join(filter(None, finding.examples[0]))}." if finding.examples else ""
            lines.append(f"  {finding.name}: {finding.summary} {finding.advice}{first}")
        names = " ".join(f.name for f in stop)
        lines.append(f"Repair the data, or accept it knowingly by waiving the check by name: {names}")
        raise IntegrityError("\n".join(lines))

    def to_dict(self) -> dict[str, Any]:
        """For dataset.json: every finding, the waivers, and how many of each severity. Plain JSON types."""
        counts = {s: sum(f.severity == s and f.count > 0 for f in self.findings) for s in _RANK}
        return {"counts": counts, "waived": list(self.waived), "findings": [f.to_dict() for f in self.findings]}


def validate_waivers(waived: Iterable[str]) -> tuple[str, ...]:
    """The waivers as a tuple. Raises ValueError for a name that no check has, listing the names."""
    if isinstance(waived, str):
        waived = (waived,)
    names = tuple(waived)
    unknown = [name for name in names if name not in CHECK_NAMES]
    if unknown:
        raise ValueError(f"no check is named {', '.join(unknown)}; the checks are: {', '.join(CHECK_NAMES)}")
    return names
