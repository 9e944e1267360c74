"""A grid of candlestick charts, drawn without matplotlib: training logs one at its start and must not wait for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lasps.config.settings import CLASS_NAMES
from lasps.plots.colors import CLASS_COLORS

SHOWN_WIDTH = 360  # about what a chart is drawn at, in whole multiples of its own pixels
FRAME, GAP, LINE = 5, 16, 22  # px: around a chart, between charts, of text
TITLE, TEXT = 24, 15  # px


def chart_grid(
    charts: Sequence[NDArray[np.generic]],
    labels: Sequence[int],
    predicted: Sequence[int] | None = None,
    captions: Sequence[str] | None = None,
    columns: int = 6,
    title: str = "Charts",
) -> Image.Image:
    """Charts side by side: the true class and, if given, the predicted one.

    Args:
        charts: (3, H, W) each, at least one, all of one size; uint8, or floats in 0..1.
        labels: the true class, 0..2; the frame has its colour.
        predicted: the predicted class, 0..2, written below in its colour.
        captions: a line above each, e.g. code and date (Latin letters).
    """
    columns = min(columns, len(charts))
    _, height, width = charts[0].shape
    scale = max(1, round(SHOWN_WIDTH / width))
    right, down = scale * width + 2 * FRAME + GAP, scale * height + 2 * FRAME + 2 * LINE + GAP
    grid = Image.new("RGB", (GAP + columns * right, TITLE + 2 * GAP + -(-len(charts) // columns) * down), "white")
    draw = ImageDraw.Draw(grid)
    note = f"(frame: true class{'' if predicted is None else '; text: predicted class'})"
    draw.text((GAP, GAP // 2), f"{title} {note}", "black", ImageFont.load_default(TITLE))
    font = ImageFont.load_default(TEXT)
    for i, chart in enumerate(charts):
        x, y = GAP + i % columns * right, TITLE + 2 * GAP + i // columns * down
        true, guess = CLASS_NAMES[labels[i]], None if predicted is None else CLASS_NAMES[predicted[i]]
        picture = _picture(chart, scale)
        draw.text((x, y), captions[i] if captions else "", "black", font)
        draw.rectangle(
            (x, y + LINE, x + picture.width + 2 * FRAME - 1, y + LINE + picture.height + 2 * FRAME - 1),
            CLASS_COLORS[true],
        )
        grid.paste(picture, (x + FRAME, y + LINE + FRAME))
        draw.text(
            (x + FRAME + picture.width // 2, y + LINE + picture.height + 2 * FRAME + 2),
            true if guess is None else f"{true}, predicted {guess}",
            CLASS_COLORS[guess or true],
            font,
            "ma",
        )
    return grid


def _picture(chart: NDArray[np.generic], scale: int) -> Image.Image:
    """A chart (3, H, W) with every pixel `scale` pixels wide and high."""
    pixels = np.asarray(chart) if chart.dtype == np.uint8 else np.rint(255 * np.asarray(chart, dtype=np.float64))
    return Image.fromarray(np.moveaxis(pixels.astype(np.uint8), 0, -1).repeat(scale, axis=0).repeat(scale, axis=1))
