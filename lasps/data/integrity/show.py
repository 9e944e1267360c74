"""The report in the terminal and as one HTML page, with the small tables that its plots are drawn from."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from lasps.config.sectors import SECTORS
from lasps.data.integrity.bars import Bars
from lasps.data.integrity.dataset import DatasetFolder, label_shares, label_table
from lasps.data.integrity.findings import Finding
from lasps.data.integrity.inputs import contact_sheet
from lasps.data.integrity.report import IntegrityReport
from lasps.pages import Cell, Column, Figure, Table, make_table, render
from lasps.plots.vega import market
from lasps.reproducibility import write_atomically

MOVE_EDGES = np.linspace(-0.35, 0.35, 141)
"""Histogram edges of daily moves, 0.5 points wide: the limits show as walls at 15 and 30 %."""


def bar_plot_data(bars: Bars) -> dict[str, Any]:
    """coverage: (date, traded, listed); moves: histogram counts of close-to-close moves, the ends collect the rest."""
    moves = (bars.traded["change"].drop_nulls() - 1).clip(MOVE_EDGES[0], MOVE_EDGES[-1]).to_numpy()
    return {
        "coverage": bars.calendar.select("date", "traded", "listed"),
        "moves": np.histogram(moves, MOVE_EDGES)[0],
    }


def dataset_plot_data(data: DatasetFolder) -> dict[str, Any]:
    """label_shares: group (a split, a year, a sector), n and the share of each class; charts: [(caption, picture)]."""
    table = label_table(data)
    names = {sector.id: sector.english for sector in SECTORS}
    shares = [
        label_shares(table.filter(pl.col(by).is_not_null()), by)
        .rename({by: "group"})
        .with_columns(
            pl.col("group").replace_strict(names, default=pl.col("group").cast(pl.String), return_dtype=pl.String)
            if by == "sector"
            else pl.col("group").cast(pl.String)
        )
        for by in ("split", "year", "sector")
    ]
    return {"label_shares": pl.concat(shares), "charts": contact_sheet(data)}


SHOWN = ("fatal", "waived", "warning", "info", "clean")


def write_html(report: IntegrityReport, path: str | Path, title: str = "Data integrity") -> Path:
    """Write the report as one self-contained page, in one step; an error leaves an older page."""
    return write_atomically(path, render_html(report, title))


def render_html(report: IntegrityReport, title: str) -> str:
    """The page as text."""
    rows = [_shown(f, report.waived) for f in report.sorted()]
    counts = report.to_dict()["counts"]
    return render(
        "integrity.html.j2",
        title,
        headline=headline(report),
        waived=report.waived,
        counts=f"{title}: {counts['fatal']} fatal, {counts['warning']} warnings, {counts['info']} notes.",
        findings=[r for r in rows if r["shown"] != "clean"],
        clean=[r["name"] for r in rows if r["shown"] == "clean"],
        figures=report_plots(report),
        charts=[{"caption": c, "png": _png(pixels)} for c, pixels in _charts(report)],
    )


def headline(report: IntegrityReport) -> str:
    """Whether training may start, in words."""
    fatal = [f.name for f in report.findings if f.severity == "fatal" and f.name not in report.waived]
    if fatal:
        return f"Not fit to train on: {', '.join(dict.fromkeys(fatal))}"
    return "Fit to train on" + (", with the checks waived below" if report.waived else "")


def _shown(f: Finding, waived: Sequence[str]) -> dict[str, Any]:
    """A finding as the template takes it."""
    clean = f.count == 0 and f.severity == "info"
    shown = "waived" if f.severity == "fatal" and f.name in waived else "clean" if clean else f.severity
    return {
        "shown": shown,
        "order": SHOWN.index(shown),
        "name": f.name,
        "count": f.count,
        "n_checked": f.n_checked,
        "summary": f.summary,
        "advice": f.advice,
        "table": _table(f.table),
        "examples": [" ".join(str(x) for x in example if x) for example in f.examples],
    }


def _table(rows: Sequence[Mapping[str, Any]] | None) -> Table | None:
    def column(key: str) -> Column:
        number = isinstance(rows[0][key], int | float)  # type: ignore[index]
        return Column(
            key,
            lambda r: Cell(f"{r[key]:,}" if number else str(r[key]), r[key] if number else None),
            text=not number,
            always=True,
        )

    return make_table(rows, [column(key) for key in rows[0]]) if rows else None


def report_plots(report: IntegrityReport) -> list[Figure]:
    """The plots that the report has the numbers for."""
    known = dict(report.plot_data)
    sizes = next((f.table for f in report.findings if f.name == "small_sectors" and f.table), None)
    made = [
        (
            "Coverage",
            "Stocks that traded on each day, and stocks listed in the file then (shaded).",
            market.coverage(known["coverage"]) if "coverage" in known else None,
        ),
        (
            "Daily moves",
            "Close to close, logarithmic counts; the price limits are the walls.",
            market.moves(known["moves"], MOVE_EDGES) if "moves" in known else None,
        ),
        ("Sectors", "Stocks in each sector.", market.sector_sizes(sizes) if sizes else None),
        (
            "Labels",
            "Share of each class by split, year and sector.",
            market.label_shares(known["label_shares"]) if "label_shares" in known else None,
        ),
    ]
    return [Figure(title, spec, caption) for title, caption, spec in made if spec is not None]


def _charts(report: IntegrityReport) -> Sequence[tuple[str, np.ndarray]]:
    return report.plot_data.get("charts") or []


def _png(pixels: np.ndarray) -> str:
    """A chart (H, W, 3) uint8 as base64."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


MARKS = {"fatal": "FATAL", "warning": "warn", "info": "info"}


def as_text(report: IntegrityReport, width: int = 100) -> str:
    """Findings first, the worst on top, with examples and advice; clean checks as one line at the end."""
    shown = [f for f in report.sorted() if f.count or f.severity != "info"]
    clean = [f.name for f in report.sorted() if not (f.count or f.severity != "info")]
    lines = [line for finding in shown for line in _finding(finding, report.waived, width)]
    if clean:
        lines += textwrap.wrap(f"clean  {', '.join(clean)}", width, subsequent_indent="       ")
    counts = report.to_dict()["counts"]
    lines.append(f"{counts['fatal']} fatal, {counts['warning']} warnings, {counts['info']} notes, {len(clean)} clean")
    return "\n".join(lines)


def _finding(finding: Finding, waived: tuple[str, ...], width: int) -> list[str]:
    mark = "waived" if finding.name in waived and finding.severity == "fatal" else MARKS[finding.severity]
    head = f"{mark:<6} {finding.name:<26} {finding.summary}"
    lines = textwrap.wrap(head, width, subsequent_indent=" " * 34)
    if finding.severity != "info":
        lines += textwrap.wrap(f"-> {finding.advice}", width, initial_indent=" " * 7, subsequent_indent=" " * 10)
        lines += [f"{' ' * 9}{' '.join(filter(None, example))}"[:width] for example in finding.examples]
    return lines
