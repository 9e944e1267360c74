"""Candlestick charts as tensors, drawn in a few comparisons per image, on CPU or GPU, bit for bit the same.

The layout is that of Jiang, Kelly & Xiu, "(Re-)Imag(in)ing Price Trends", Journal of Finance 2023: 3 pixels a day
(open tick, high-low bar, close tick), prices scaled to the window's own low..high, a moving average line, a volume
strip below; in Korean colours: rising days red, falling days blue, on black.

    rows 0 .. H-H//5-2       prices; row 0 is the window's highest high, the last one its lowest low
    row  H-H//5-1            a gap, black
    rows H-H//5 .. H-1       volume bars in the days' middle columns; the window's largest volume fills the strip

In every column of a picture each layer (candles, volume, average) is at most one run of rows, so a layer is a pair of
numbers per column (first row, length - 1), and drawing it is one comparison, `row - first <= length - 1`, in unsigned
bytes that wrap around above the first row.

Shapes: B batch, T days, H x W chart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lasps.config.dataset_config import CHART_SIZE

PIXELS_PER_DAY = 3
VOLUME_SHARE = 5
"""The volume strip takes one fifth of the height (Jiang, Kelly & Xiu 2023)."""

AVERAGE_DAYS = 20
MIN_HEIGHT = 16

LARGEST_VALUE = 1e30
"""Prices and volumes stay far from overflow in float32."""

FALLING_GREEN = 96
"""Green in a falling day's blue, so that it can be read on black (guess, by eye)."""

COLUMN_CHUNK = 512
"""Windows whose columns are worked out at once on a CPU (measured)."""

RASTER_BYTES = 1 << 20
"""Bytes per channel drawn at once on a CPU, so that they stay in its second-level cache (measured)."""


class Runs(NamedTuple):
    """One run of rows per column. uint8: the first row and length - 1, no run is (255, 0), below 256 rows.

    int16, for taller pictures: first + last row and last - first, no run is (-1, 0).
    """

    origin: Tensor
    extent: Tensor


class Columns(NamedTuple):
    """Pictures as numbers per column, W' = 3 T, for red, green and blue."""

    prices: Runs
    """(B,3,1,W'): candles in red and blue, the average in green"""
    volume: Runs
    """(B,3,1,W'), rows of the volume strip and the gap above it; green has none"""
    tint: Tensor
    """uint8 (B,1,W'): the green that a candle lit in blue adds"""


def render(bars: Tensor, size: tuple[int, int] = CHART_SIZE, out: Tensor | None = None) -> Tensor:
    """Draw windows of daily bars.

    A day rises if it closes above its open, or, at its open, above the close before it in the window; it falls
    likewise; else it is unchanged. Rising days are red, falling ones blue, unchanged ones white, the average of the
    last 20 closes (early in the window of those there are) is green; where it crosses a candle the colours add up. A
    window without any range is a line in the middle row of the price area. A day without volume has no volume bar,
    any other one at least a pixel. An open or close outside low..high is drawn where it is, at most at the edge.

    Args:
        bars: float32 (B,T,5): open, high, low, close, volume; finite, below 1e30.
        size: (H, W), W >= 3 T; in a wider picture the chart stands centred between black margins.
        out: contiguous uint8 (B,3,H,W) to draw into: fresh memory costs more than the drawing.

    Returns:
        uint8 (B,3,H,W): red, green, blue; `out` if given.

    Raises:
        ValueError: a wrong shape, a size too small, a value that is not finite, or an `out` that does not fit.
    """
    _check(bars, size)
    out = _output(bars, size, out)
    many = max(1, len(bars))
    chunk, block = (many, many) if bars.is_cuda else (COLUMN_CHUNK, max(1, RASTER_BYTES // (size[0] * size[1])))
    scratch = _scratch(min(block, many), bars, size[0])
    for start in range(0, len(bars), chunk):
        columns = _columns(bars[start : start + chunk], size[0])
        target = out[start : start + chunk]
        for first in range(0, len(target), block):
            _draw(columns, first, target[first : first + block], scratch)
    return out


def _check(bars: Tensor, size: tuple[int, int]) -> None:
    if bars.ndim != 3 or bars.shape[2] != 5 or bars.shape[1] < 1 or bars.dtype != torch.float32:
        raise ValueError(
            f"bars: expected float32 (B,T,5) of open, high, low, close, volume, got {bars.dtype} {tuple(bars.shape)}"
        )
    least, (height, width) = PIXELS_PER_DAY * bars.shape[1], size
    if width < least or height < MIN_HEIGHT:
        raise ValueError(
            f"chart size: expected at least {MIN_HEIGHT} x {least} for {bars.shape[1]} days of "
            f"{PIXELS_PER_DAY} pixels, got {height} x {width}. Use {CHART_SIZE[0]} x {least} and let the "
            "network shrink it, or a shorter window"
        )
    usable = bars.abs() < LARGEST_VALUE  # false for NaN
    if not bool(usable.all()):
        place = torch.nonzero(~usable)[0].tolist()
        raise ValueError(
            f"bars: expected finite values, found {bars[tuple(place)].item()} at {place}. Halted and "
            "missing days are no rows of a panel"
        )


def _output(bars: Tensor, size: tuple[int, int], out: Tensor | None) -> Tensor:
    shape = (len(bars), 3, *size)
    if out is None:
        return torch.empty(shape, dtype=torch.uint8, device=bars.device)
    if out.shape != shape or out.dtype != torch.uint8 or out.device != bars.device or not out.is_contiguous():
        raise ValueError(
            f"out: expected contiguous uint8 {shape} on {bars.device}, got {out.dtype} "
            f"{tuple(out.shape)} on {out.device}"
        )
    return out


def _scratch(block: int, bars: Tensor, height: int) -> Tensor:
    """Room for the three channels of `block` charts, in the integers of their runs."""
    pixels = 3 * block * height * PIXELS_PER_DAY * bars.shape[1]
    return torch.empty(pixels, dtype=torch.int16 if height > 255 else torch.uint8, device=bars.device)


def price_rows(height: int) -> int:
    """Rows of the price area of a picture of `height` rows; one black row and the volume strip follow."""
    return height - height // VOLUME_SHARE - 1


def _columns(bars: Tensor, height: int) -> Columns:
    """Each column's runs, (B,T) at a time. Divisions are tensor by tensor: a GPU rounds others differently."""
    dtype = torch.int16 if height > 255 else torch.uint8
    up, down = _directions(bars)
    dark = torch.stack([down, torch.ones_like(up), up], 1).to(dtype).neg_()  # (B,3,T): all bits where a colour is off
    position = _positions(bars, price_rows(height))
    prices = _candle_runs(_round(position[:, :4], price_rows(height)).to(dtype), dark)
    average = _average_runs(position[:, 4], price_rows(height), dtype)
    prices.origin[:, 1, 0], prices.extent[:, 1, 0] = average
    tint = torch.where(down, FALLING_GREEN, 255).to(torch.uint8).repeat_interleave(PIXELS_PER_DAY, 1)
    return Columns(prices, _volume_runs(bars[:, :, 4], dark, height // VOLUME_SHARE), tint[:, None])


def _directions(bars: Tensor) -> tuple[Tensor, Tensor]:
    """Which days rise and which fall, bool (B,T) each."""
    opens, closes = bars[:, :, 0], bars[:, :, 3]
    before = torch.cat([closes[:, :1], closes[:, :-1]], 1)
    same = opens == closes
    return (closes > opens) | (same & (closes > before)), (closes < opens) | (same & (closes < before))


def _positions(bars: Tensor, rows: int) -> Tensor:
    """Rows, not yet rounded, of open, high, low, close and the average: float32 (B,5,T)."""
    prices = torch.cat([bars[:, :, :4].transpose(1, 2), _average(bars[:, :, 3])[:, None]], 1)
    top, bottom = prices[:, 1].amax(1), prices[:, 2].amin(1)
    spread = top - bottom
    flat = ~(spread > 0)
    scale = torch.full_like(spread, rows - 1) / torch.where(flat, 1.0, spread)
    scale = torch.where(flat, 0.0, scale.clamp(max=torch.finfo(torch.float32).max))
    middle = torch.where(flat, float((rows - 1) // 2), 0.0)
    return (top[:, None, None] - prices).mul_(scale[:, None, None]).add_(middle[:, None, None])


def _average(closes: Tensor) -> Tensor:
    """Mean of the last 20 closes, of fewer at the start: float32 (B,T), summed in float64, newest first."""
    days = closes.shape[1]
    exact = closes.double()
    total = exact.clone()
    for lag in range(1, min(AVERAGE_DAYS, days)):
        total[:, lag:] += exact[:, : days - lag]
    counts = torch.arange(1, days + 1, device=closes.device).clamp(max=AVERAGE_DAYS)
    return (total / counts.double()).float()


def _round(position: Tensor, rows: int) -> Tensor:
    return (position + 0.5).floor_().clamp_(0, rows - 1)


def _candle_runs(rows: Tensor, dark: Tensor) -> Runs:
    """rows (B,4,T) of open, high, low, close -> per day: open tick, bar from high to low, close tick."""
    first, last = rows[:, [0, 1, 3]], rows[:, [0, 2, 3]]
    first, last = torch.minimum(first, last), torch.maximum(first, last)
    origin, extent = _ends(first, last)
    dark = dark[:, :, None]
    days_first = (origin[:, None] | dark).transpose(2, 3), (extent[:, None] & ~dark).transpose(2, 3)
    return Runs(*(x.flatten(2)[:, :, None] for x in days_first))


def _volume_runs(volume: Tensor, dark: Tensor, strip: int) -> Runs:
    """volume (B,T) -> bars in the days' middle columns, as rows of the gap and the volume strip below it."""
    largest = volume.amax(1)
    scale = torch.full_like(largest, strip) / torch.where(largest > 0, largest, 1.0)
    length = (volume * scale[:, None] + 0.5).floor_().clamp_(1, strip)
    first = (strip + 1 - length).to(dark.dtype)
    dark = dark | (volume <= 0).to(dark.dtype).neg_()[:, None]
    origin, extent = _ends(first, torch.full_like(first, strip))
    columns = Runs(*(dark.new_empty(*dark.shape, PIXELS_PER_DAY) for _ in range(2)))
    columns.origin.fill_(-1 if dark.dtype == torch.int16 else 255)[..., PIXELS_PER_DAY // 2] = origin[:, None] | dark
    columns.extent.zero_()[..., PIXELS_PER_DAY // 2] = extent[:, None] & ~dark
    return Runs(*(x.flatten(2)[:, :, None] for x in columns))


def _average_runs(position: Tensor, rows: int, dtype: torch.dtype) -> Runs:
    """position (B,T) -> a connected line through the days' middle columns, level at both ends."""
    step = torch.diff(position, dim=1, append=position[:, -1:]) * (1 / 3)
    left = torch.cat([position[:, :1], (position + step + step)[:, :-1]], 1)
    row = _round(torch.stack([left, position, position + step], 2).flatten(1), rows)
    before = torch.cat([row[:, :1], row[:, :-1]], 1)
    first, last = torch.minimum(row, before + 1), torch.maximum(row, before - 1)
    return Runs(*_ends(first.to(dtype), last.to(dtype)))


def _ends(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """First and last rows -> origin and extent as `Runs` holds them."""
    return (first + last if first.dtype == torch.int16 else first), last - first


def _draw(columns: Columns, start: int, target: Tensor, scratch: Tensor) -> None:
    """Draw windows start.. of `columns` into target, uint8 (b,3,H,W)."""
    stop, width = start + len(target), columns.tint.shape[2]
    left, prices = (target.shape[3] - width) // 2, price_rows(target.shape[2])
    inner = target[..., left : left + width]
    _mark(inner[:, :, :prices], columns.prices, start, scratch)
    _mark(inner[:, :, prices:], columns.volume, start, scratch)
    if width < target.shape[3]:
        target[..., :left] = 0
        target[..., left + width :] = 0
    target.neg_()  # 1 -> 255
    shade = scratch.view(torch.uint8)[: inner[:, 1].numel()].view(inner[:, 1].shape)
    torch.bitwise_and(inner[:, 2], columns.tint[start:stop], out=shade)
    inner[:, 1].bitwise_or_(shade)


def _mark(plane: Tensor, runs: Runs, start: int, scratch: Tensor) -> None:
    """Set plane (b,3,rows,W') to 1 within each column's run, to 0 elsewhere."""
    origin, extent = (x[start : start + len(plane)] for x in runs)
    rows = torch.arange(plane.shape[2], device=plane.device, dtype=origin.dtype)[:, None]
    distance = scratch[: plane.numel()].view(plane.shape)
    if origin.dtype == torch.int16:
        torch.sub(2 * rows, origin, out=distance).abs_()
    else:
        torch.sub(rows, origin, out=distance)
    torch.le(distance, extent, out=plane)
