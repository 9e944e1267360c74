"""The style of every matplotlib plot: colours, fonts, axes and sector names.

A class has one colour everywhere (Korean convention: BUY red, SELL blue, HOLD grey). Sector names are Korean where a
Korean font is installed, else English.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from lasps.config.sectors import SECTORS
from lasps.plots.colors import GRID_COLOR

KOREAN_FONTS = (
    "NanumGothic",
    "Nanum Gothic",
    "Noto Sans CJK KR",
    "Noto Sans KR",
    "Noto Sans CJK JP",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "AppleGothic",
    "NanumBarunGothic",
    "UnDotum",
    "Baekmuk Gulim",
)


@cache
def korean_font() -> str | None:
    """The name of an installed font with Hangul, None where there is none."""
    found = _known_korean_font()
    if found is None:
        _learn_newly_installed_fonts()
        found = _known_korean_font()
    if found is not None:  # NanumGothic's bold calls itself semibold, which matplotlib reports for every plot
        logging.getLogger(font_manager.__name__).setLevel(logging.ERROR)
    return found


def _known_korean_font() -> str | None:
    known = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in KOREAN_FONTS if name in known), None)


def _learn_newly_installed_fonts() -> None:
    """Add fonts that were installed after matplotlib cached its list of fonts, which it never updates."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        try:
            font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):  # a broken font file must not stop a plot
            continue


def sector_name(sector: int, names: Sequence[str] | None = None) -> str:
    """A sector's name in plots: Korean where a font has it, else English; own names of foreign data, or its number."""
    if names is not None:
        name = names[sector] if sector < len(names) else f"sector {sector}"
        return name if korean_font() or name.isascii() else sector_name(sector)
    if sector >= len(SECTORS):
        return f"sector {sector}"
    return SECTORS[sector].korean if korean_font() else SECTORS[sector].english


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **keywords: Any
) -> tuple[Figure, NDArray[Any]]:
    """A figure and its axes (rows, columns), with a light grid and no box."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **keywords)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color=GRID_COLOR, linewidth=0.8)
        ax.set_axisbelow(True)
        ax.tick_params(labelsize=8)
    return figure, axes


def set_title(figure: Figure, text: str) -> None:
    """Set the title, a sentence that says what the figure shows. Call it last: it also sets the font of every text."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, fontweight="bold")
    if font := korean_font():
        for part in figure.findobj(Text):
            part.set_fontfamily(["DejaVu Sans", font])  # in this order: Korean fonts lack the minus of 10^-3
