"""Every check by its name: those of bars, those of a listing and its sectors, those of a finished dataset."""

from __future__ import annotations

from collections.abc import Callable

from lasps.data.integrity import bars as _bars
from lasps.data.integrity import dataset_folder as _folder
from lasps.data.integrity import inputs as _inputs
from lasps.data.integrity import moves as _moves
from lasps.data.integrity import samples as _samples
from lasps.data.integrity import trading_days as _days
from lasps.data.integrity.findings import Finding

BAR_CHECKS: tuple[Callable[[_bars.Bars], Finding], ...] = (
    _bars.duplicate_keys, _bars.unsorted_keys, _bars.malformed_codes, _bars.stray_dates, _bars.non_positive_prices,
    _bars.prices_outside_range, _moves.limit_moves, _moves.limit_moves_exempt, _moves.impossible_ranges,
    _moves.scale_breaks, _moves.stray_days, _days.halts, _days.frozen_prices, _days.volume_outliers,
    _days.calendar_gaps, _days.calendar_holes,
)  # fmt: skip
DATASET_CHECKS: tuple[Callable[[_folder.Dataset], Finding], ...] = (
    _folder.array_agreement, _samples.label_balance, _samples.sample_sectors, _samples.split_overlap,
    _samples.label_leaks, _inputs.feature_values, _inputs.duplicated_features, _inputs.blank_charts,
)  # fmt: skip
_OTHER = ("short_histories", "codes_without_industry", "industries_without_sector",
          "sector_values", "small_sectors", "dominant_sector", "altered_files")  # fmt: skip
CHECK_NAMES: tuple[str, ...] = (
    *(c.__name__ for c in BAR_CHECKS), *_OTHER, *(c.__name__ for c in DATASET_CHECKS)
)  # fmt: skip
"""The names that findings carry and waivers use."""
