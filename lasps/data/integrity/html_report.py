"""The report as one HTML page: findings, examples, advice, plots of the data and a sample of the charts."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lasps.data.integrity.figures import MOVE_EDGES
from lasps.data.integrity.findings import Finding
from lasps.data.integrity.report import IntegrityReport
from lasps.pages import Cell, Column, Figure, Table, make_table, render
from lasps.plots.vega import market
from lasps.reproducibility import write_atomically

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
        figures=figures(report),
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


def figures(report: IntegrityReport) -> list[Figure]:
    """The plots that the report has the numbers for."""
    known = dict(report.figures)
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
    return report.figures.get("charts") or []


def _png(pixels: np.ndarray) -> str:
    """A chart (H, W, 3) uint8 as base64."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
