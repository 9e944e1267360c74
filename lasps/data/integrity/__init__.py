"""The gate that market data passes before anything is trained on it.

`check` looks at bars, listing, sectors and, if given, a finished dataset, and returns an `IntegrityReport`, which
`as_text` and `write_html` show. Fatal findings stop a build unless that check is waived by name. Repairs (`drop_row`,
`mask_day`, `drop_segment`, `rescale_segment`) change the raw table only when asked, and are counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from lasps.config.dataset_config import HORIZON, WINDOW
from lasps.config.sectors import SECTORS, sector_of_industry
from lasps.data.integrity import dataset as _dataset
from lasps.data.integrity import days
from lasps.data.integrity import listing as _listing
from lasps.data.integrity.bars import prepare
from lasps.data.integrity.findings import Finding
from lasps.data.integrity.repairs import (
    accept,
    apply_repairs,
    drop_row,
    drop_segment,
    mask_day,
    read_repairs,
    rescale_segment,
)
from lasps.data.integrity.report import (
    BAR_CHECKS,
    CHECK_NAMES,
    DATASET_CHECKS,
    PANEL,
    IntegrityError,
    IntegrityReport,
    run,
    validate_waivers,
)
from lasps.data.integrity.show import as_text, bar_plot_data, dataset_plot_data, write_html

__all__ = [
    "CHECK_NAMES",
    "Finding",
    "IntegrityError",
    "IntegrityReport",
    "accept",
    "apply_repairs",
    "as_text",
    "check",
    "drop_row",
    "drop_segment",
    "mask_day",
    "no_panel",
    "read_repairs",
    "rescale_segment",
    "validate_waivers",
    "write_html",
]


def check(
    panel: pl.DataFrame | None = None,
    listing: pl.DataFrame | None = None,
    dataset: str | Path | None = None,
    *,
    raw: pl.DataFrame | None = None,
    window: int = WINDOW,
    horizon: int = HORIZON,
    deep: bool = False,
    forecast_rows: int | None = None,
) -> IntegrityReport:
    """Look at everything that is given.

    Args:
        panel: the validated panel; with the column `sector`, the sector checks run on it.
        listing: code, name, market, industry.
        dataset: a finished dataset folder (with or without dataset.json).
        raw: the raw long table before `make_panel`, halted rows included; the panel where it is missing.
        window, horizon: how many traded rows a labelled sample needs.
        deep: also compare every byte of the dataset with the digests in its dataset.json.
        forecast_rows: look only at what a forecast of the last day reads, so many traded rows of every stock.

    Returns:
        The report; nothing is raised for bad data, see `IntegrityReport.raise_if_fatal`.

    Raises:
        ValueError: nothing to look at, columns missing, or a folder that is no dataset.
    """
    if panel is None and raw is None and dataset is None:
        raise ValueError("nothing to check: give raw bars, a panel or a dataset folder")
    findings: list[Finding] = []
    plot_data: dict[str, Any] = {}
    table = raw if raw is not None else panel
    if table is not None:
        bars = prepare(table)
        if forecast_rows is not None:
            bars = bars.read_by_forecast(forecast_rows)
        findings += [run(one, bars) for one in BAR_CHECKS] + [run(days.short_histories, bars, window, horizon)]
        plot_data |= bar_plot_data(bars)
        if listing is not None:
            findings += _listing_checks(bars.rows["code"].unique(), listing)
    if panel is not None and "sector" in panel.columns:
        findings += _sector_checks(panel)
    if dataset is not None:
        data = _dataset.open_dataset(dataset)
        findings += [run(one, data) for one in DATASET_CHECKS]
        if deep:
            findings.append(run(_dataset.altered_files, data))
        plot_data |= dataset_plot_data(data)
    return IntegrityReport(findings, plot_data)


def no_panel(failure: Exception) -> Finding:
    """The fatal finding of bars that make no panel although no other check says why."""
    return Finding(
        PANEL,
        "fatal",
        1,
        1,
        f"no panel can be made of these bars: {failure}.",
        "Repair what it names; a build stops here too, whatever is waived.",
    )


def _listing_checks(codes: pl.Series, listing: pl.DataFrame) -> list[Finding]:
    return [
        run(_listing.codes_without_industry, codes, listing),
        run(_listing.industries_without_sector, codes, listing, sector_of_industry),
    ]


def _sector_checks(panel: pl.DataFrame) -> list[Finding]:
    checks = (_listing.sector_values, _listing.small_sectors, _listing.dominant_sector)
    return [run(check, panel, len(SECTORS)) for check in checks]
