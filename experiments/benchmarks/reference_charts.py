"""The chart that `lasps.data.charts` draws, pixel by pixel, in loops that anyone can read.

Its arithmetic is float32, step by step in the documented order, so that the two can be compared exactly.
"""

from __future__ import annotations

import math

import numpy as np

f32 = np.float32
BLACK, RED, BLUE, WHITE = (0, 0, 0), (255, 0, 0), (0, 96, 255), (255, 255, 255)


def draw(bars: np.ndarray, height: int, width: int) -> np.ndarray:
    """One window, float32 (T,5) -> uint8 (3,H,W)."""
    days = len(bars)
    strip = height // 5
    price_rows = height - strip - 1
    left = (width - 3 * days) // 2
    picture = np.zeros((3, height, width), np.uint8)

    def light(row: int, column: int, colour: tuple[int, int, int]) -> None:
        for channel in range(3):
            picture[channel, row, left + column] |= colour[channel]

    top, bottom = f32(max(bars[:, 1])), f32(min(bars[:, 2]))
    largest_volume = f32(max(bars[:, 4]))

    def position(price: np.float32) -> np.float32:
        if not top > bottom:
            return f32((price_rows - 1) // 2)
        return f32(top - price) * f32(f32(price_rows - 1) / f32(top - bottom))

    def row_of(place: np.float32) -> int:
        return min(max(math.floor(f32(place + f32(0.5))), 0), price_rows - 1)

    for day in range(days):
        opening, high, low, close, volume = bars[day]
        colour = colour_of(opening, close, bars[day - 1, 3] if day else close)
        light(row_of(position(opening)), 3 * day, colour)
        ends = sorted((row_of(position(high)), row_of(position(low))))
        for row in range(ends[0], ends[1] + 1):
            light(row, 3 * day + 1, colour)
        light(row_of(position(close)), 3 * day + 2, colour)
        if volume > 0:
            pixels = math.floor(f32(f32(volume * f32(f32(strip) / largest_volume)) + f32(0.5)))
            for row in range(height - min(max(pixels, 1), strip), height):
                light(row, 3 * day + 1, colour)

    before = None
    for column, place in enumerate(average_line(bars[:, 3], position)):
        row = row_of(place)
        nearest = row if before is None else before
        if nearest < row:  # the line falls: fill from just below the last column's row
            covered = range(nearest + 1, row + 1)
        elif nearest > row:
            covered = range(row, nearest)
        else:
            covered = range(row, row + 1)
        for r in covered:
            light(r, column, (0, 255, 0))
        before = row
    return picture


def colour_of(opening: np.float32, close: np.float32, before: np.float32) -> tuple[int, int, int]:
    """Rising red, falling blue; at the same price against the close before; else white."""
    reference = opening if close != opening else before
    if close > reference:
        return RED
    return BLUE if close < reference else WHITE


def average_line(closes: np.ndarray, position) -> list[np.float32]:  # type: ignore[no-untyped-def]
    """The 20-day average's place in each of the 3 T columns: exact in the middle of a day, straight in between."""
    averages = []
    for day in range(len(closes)):
        recent = [float(closes[d]) for d in range(day, max(-1, day - 20), -1)]
        total = 0.0
        for close in recent:
            total += close
        averages.append(position(f32(total / len(recent))))
    places = [averages[0]]
    for day, place in enumerate(averages):
        following = averages[min(day + 1, len(averages) - 1)]
        step = f32(f32(following - place) * f32(1 / 3))
        places += [place, f32(place + step), f32(f32(place + step) + step)]
    return places[: 3 * len(closes)]


def draw_all(bars: np.ndarray, height: int, width: int) -> np.ndarray:
    """Windows float32 (B,T,5) -> uint8 (B,3,H,W)."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.stack([draw(window, height, width) for window in bars])
