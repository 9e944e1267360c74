"""The gate that market data passes before anything is trained on it.

`check` looks at bars, listing, sectors and, if given, a finished dataset, and returns an `IntegrityReport`. Fatal
findings stop a build unless that check is waived by name. Repairs (`drop_row`, `mask_day`, `rescale_segment`) change
the raw table only when asked, and are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from lasps.config.sectors import SECTORS, sector_of_industry
from lasps.data.integrity import bars as _bars
from lasps.data.integrity import dataset_folder as _folder
from lasps.data.integrity import industries as _industries
from lasps.data.integrity import inputs as _inputs
from lasps.data.integrity import moves as _moves
from lasps.data.integrity import samples as _samples
from lasps.data.integrity import trading_days as _days
from lasps.data.integrity.figures import bar_figures, dataset_figures
from lasps.data.integrity.findings import Finding, IntegrityError, IntegrityReport, validate_waivers
from lasps.data.integrity.repairs import accept, apply_repairs, drop_row, mask_day, read_repairs, rescale_segment

__all__ = [
    "CHECK_NAMES", "Finding", "IntegrityError", "IntegrityReport", "accept", "apply_repairs", "check", "drop_row",
    "mask_day", "read_repairs", "rescale_segment", "validate_waivers",
]  # fmt: skip

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
          "sector_values", "small_sectors", "dominant_sector")  # fmt: skip
CHECK_NAMES: tuple[str, ...] = (
    *(c.__name__ for c in BAR_CHECKS), *_OTHER, *(c.__name__ for c in DATASET_CHECKS)
)  # fmt: skip
"""The names that findings carry and waivers use."""


def check(
    panel: pl.DataFrame | None = None,
    listing: pl.DataFrame | None = None,
    dataset: str | Path | None = None,
    *,
    raw: pl.DataFrame | None = None,
    window: int = 60,
    horizon: int = 5,
) -> IntegrityReport:
    """Look at everything that is given.

    Args:
        panel: the validated panel; with the column `sector`, the sector checks run on it.
        listing: code, name, market, industry.
        dataset: a finished dataset folder (with or without dataset.json).
        raw: the raw long table before `make_panel`, halted rows included; the panel where it is missing.
        window, horizon: how many traded rows a labelled sample needs.

    Returns:
        The report; nothing is raised for bad data, see `IntegrityReport.raise_if_fatal`.

    Raises:
        ValueError: nothing to look at, columns missing, or a folder that is no dataset.
    """
    if panel is None and raw is None and dataset is None:
        raise ValueError("nothing to check: give raw bars, a panel or a dataset folder")
    findings: list[Finding] = []
    figures: dict[str, Any] = {}
    table = raw if raw is not None else panel
    if table is not None:
        bars = _bars.prepare(table)
        findings += [run(bars) for run in BAR_CHECKS] + [_days.short_histories(bars, window, horizon)]
        figures |= bar_figures(bars)
        if listing is not None:
            findings += _listing_checks(bars.rows["code"].unique(), listing)
    if panel is not None and "sector" in panel.columns:
        findings += _sector_checks(panel)
    if dataset is not None:
        data = _folder.open_dataset(dataset)
        findings += [run(data) for run in DATASET_CHECKS]
        figures |= dataset_figures(data)
    return IntegrityReport(findings, figures)


def _listing_checks(codes: pl.Series, listing: pl.DataFrame) -> list[Finding]:
    return [
        _industries.codes_without_industry(codes, listing),
        _industries.industries_without_sector(codes, listing, sector_of_industry),
    ]


def _sector_checks(panel: pl.DataFrame) -> list[Finding]:
    n = len(SECTORS)
    return [
        _industries.sector_values(panel, n), _industries.small_sectors(panel, n), _industries.dominant_sector(panel, n)
    ]  # fmt: skip
