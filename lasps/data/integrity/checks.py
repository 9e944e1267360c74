"""Every check by its name: those of bars, those of a listing and its sectors, those of a finished dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
from loguru import logger

from lasps.data.integrity import bars as _bars
from lasps.data.integrity import calendar_days as _calendar
from lasps.data.integrity import dataset_folder as _folder
from lasps.data.integrity import inputs as _inputs
from lasps.data.integrity import moves as _moves
from lasps.data.integrity import rows as _rows
from lasps.data.integrity import samples as _samples
from lasps.data.integrity import trading_days as _days
from lasps.data.integrity import volumes as _volumes
from lasps.data.integrity.findings import Finding

BAR_CHECKS: tuple[Callable[[_bars.Bars], Finding], ...] = (
    _rows.duplicate_keys,
    _rows.unsorted_keys,
    _rows.malformed_codes,
    _calendar.stray_dates,
    _rows.non_positive_prices,
    _rows.prices_outside_range,
    _moves.limit_moves,
    _moves.limit_moves_exempt,
    _moves.impossible_ranges,
    _moves.scale_breaks,
    _moves.stray_days,
    _days.halts,
    _volumes.unread_volume,
    _days.frozen_prices,
    _days.repeated_bars,
    _volumes.volume_outliers,
    _volumes.volume_levels,
    _calendar.calendar_gaps,
    _calendar.calendar_holes,
    _calendar.missing_days,
    _calendar.unfinished_last_day,
)
DATASET_CHECKS: tuple[Callable[[_folder.Dataset], Finding], ...] = (
    _folder.array_agreement,
    _samples.label_balance,
    _samples.sample_sectors,
    _samples.split_overlap,
    _samples.label_leaks,
    _inputs.feature_values,
    _inputs.duplicated_features,
    _inputs.blank_charts,
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
