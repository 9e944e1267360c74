"""The report as one HTML file: findings, examples, advice, and pictures embedded as base64."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lasps.config.sectors import SECTORS
from lasps.config.settings import CLASS_COLORS, CLASS_NAMES
from lasps.data.integrity.figures import MOVE_EDGES
from lasps.data.integrity.report import IntegrityReport
from lasps.reproducibility import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
SHEET_COLUMNS = 6
SHOWN_WIDTH = 180
"""Pixels that a chart of the contact sheet is about as wide as, in whole multiples of its own: a caption's width."""
CAPTION_PIXELS, GAP_PIXELS = 20, 12
"""Above each chart of the contact sheet, and to its right."""


def write_html(report: IntegrityReport, path: str | Path, title: str = "Data integrity") -> Path:
    """Write the report with its pictures as one self-contained file, in one step; an error leaves an older page."""
    return write_atomically(path, render_html(report, title))


def render_html(report: IntegrityReport, title: str) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(
        title=title, findings=report.sorted(), waived=report.waived, counts=report.to_dict()["counts"],
        pictures=pictures(report),
    )  # fmt: skip


def pictures(report: IntegrityReport) -> list[dict[str, str]]:
    """title, caption and PNG (base64) of every picture that the report has the numbers for."""
    figures = dict(report.figures)
    for finding in report.findings:
        if finding.name == "small_sectors" and finding.table:
            figures["sectors"] = finding.table
    painters: dict[str, tuple[str, str, Callable[[Any], Figure]]] = {
        "coverage": ("Coverage", "Stocks that traded on each date, and stocks listed in the file then.", _coverage),
        "moves": ("Daily moves", "Close to close, logarithmic counts; the price limits are the walls.", _moves),
        "sectors": ("Sectors", "Stocks in each sector.", _sectors),
        "label_shares": ("Labels", "Share of each class by split, year and sector; n above the bars.", _labels),
        "charts": ("Charts", "A contact sheet, as the network sees them.", _sheet),
    }
    out = []
    for key, (name, caption, paint) in painters.items():
        content = figures.get(key)
        if content is not None and len(content):
            out.append({"title": name, "caption": caption, "png": _png(paint(content))})
    return out


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _coverage(table: Any) -> Figure:
    figure, axes = _figure(9, 2.6)
    axes.fill_between(table["date"].to_list(), table["listed"].to_numpy(), color="#e3e5e9", label="listed")
    axes.plot(table["date"].to_list(), table["traded"].to_numpy(), color="#3b4252", lw=1, label="traded")
    axes.set_ylabel("stocks")
    axes.legend(frameon=False, loc="lower right")
    return figure


def _moves(counts: np.ndarray) -> Figure:
    figure, axes = _figure(9, 2.6)
    mid = 50 * (MOVE_EDGES[1:] + MOVE_EDGES[:-1])
    colors = np.where(mid > 0, CLASS_COLORS["BUY"], CLASS_COLORS["SELL"])
    axes.bar(mid, counts, width=0.48, color=colors, log=bool(counts.any()))
    axes.set_xlabel("move, % (the outer bars hold everything beyond)")
    axes.set_ylabel("rows")
    return figure


def _sectors(rows: Any) -> Figure:
    figure, axes = _figure(9, 2.6)
    axes.bar([r["sector"] for r in rows], [r["stocks"] for r in rows], color="#5b6b8c")
    names = [SECTORS[r["sector"]].english for r in rows]
    axes.set_xticks([r["sector"] for r in rows], names, rotation=40, ha="right", fontsize=7)
    axes.set_ylabel("stocks")
    return figure


def _labels(table: Any) -> Figure:
    figure, axes = _figure(9, 3.4)
    places, bottom = np.arange(len(table)), np.zeros(len(table))
    for name in CLASS_NAMES:
        share = 100 * table[name].to_numpy()
        axes.bar(places, share, bottom=bottom, color=CLASS_COLORS[name], label=name)
        bottom = bottom + share
    for place, n in zip(places, table["n"], strict=True):
        axes.text(place, 102, f"{n:,}", ha="center", fontsize=6, rotation=90)
    axes.set_xticks(places, table["group"].to_list(), rotation=40, ha="right", fontsize=7)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("%")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _sheet(charts: list[tuple[str, np.ndarray]]) -> Figure:
    """All charts in one image, pixel by pixel: an axes each would take matplotlib seconds to lay out."""
    from matplotlib.figure import Figure

    scale = max(1, round(SHOWN_WIDTH / charts[0][1].shape[1]))
    height, width = (scale * pixels for pixels in charts[0][1].shape[:2])
    down, right = height + CAPTION_PIXELS, width + GAP_PIXELS
    wall = np.full((-(-len(charts) // SHEET_COLUMNS) * down, SHEET_COLUMNS * right, 3), 255, dtype=np.uint8)
    figure = Figure(figsize=(wall.shape[1] / DPI, wall.shape[0] / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for position, (caption, picture) in enumerate(charts):
        y, x = position // SHEET_COLUMNS * down + CAPTION_PIXELS, position % SHEET_COLUMNS * right
        wall[y : y + height, x : x + width] = picture.repeat(scale, axis=0).repeat(scale, axis=1)
        axes.text(x, y - 4, caption, fontsize=7)
    axes.imshow(wall, interpolation="nearest", aspect="auto")
    return figure
