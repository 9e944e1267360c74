"""Charts per second and core: the rasteriser against mplfinance, after an exact comparison with a loop over pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.benchmarks.markets import median_seconds, one_thread, random_windows, rate_row
from experiments.benchmarks.reference_charts import draw_all
from lasps.data import charts

SIZES = ((96, 180), (224, 224))
WINDOWS = 4096
COMPARED = 512
MPLFINANCE_WINDOWS = 8
DPI = 100


def run() -> list[dict[str, Any]]:
    """Charts per second at each size; on a GPU too, where there is one."""
    bars = random_windows(WINDOWS)
    rows = []
    with one_thread():
        for size in SIZES:
            expected = draw_all(bars[:COMPARED].numpy(), *size)
            np.testing.assert_array_equal(charts.render(bars[:COMPARED], size).numpy(), expected)
            ours = rate_into(bars, size)
            reference = MPLFINANCE_WINDOWS / median_seconds(lambda s=size: draw_with_mplfinance(bars, s))  # type: ignore[misc]
            rows.append(rate_row(f"{size[0]} x {size[1]}, one core", ours, reference, "charts/s"))
    if torch.cuda.is_available():
        rows += [gpu_row(bars, size) for size in SIZES]
    return rows


def rate_into(bars: Tensor, size: tuple[int, int]) -> float:
    """Charts per second into memory that is there already."""
    out = torch.empty(len(bars), 3, *size, dtype=torch.uint8, device=bars.device)

    def draw() -> None:
        charts.render(bars, size, out)
        if bars.is_cuda:
            torch.cuda.synchronize()

    return len(bars) / median_seconds(draw)


def gpu_row(bars: Tensor, size: tuple[int, int]) -> dict[str, Any]:
    """The same function on the GPU, compared with the CPU's pictures first."""
    assert torch.equal(charts.render(bars.cuda(), size).cpu(), charts.render(bars, size))
    return rate_row(
        f"{size[0]} x {size[1]}, {torch.cuda.get_device_name()}", rate_into(bars.cuda(), size), None, "charts/s"
    )


def draw_with_mplfinance(bars: Tensor, size: tuple[int, int]) -> list[bytes]:
    """Candles, 20-day average and volume, to a buffer of `size` pixels, as such systems are usually built."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import mplfinance as mpf

    days = pd.date_range("2024-01-01", periods=bars.shape[1], freq="B")
    pictures = []
    for window in bars[:MPLFINANCE_WINDOWS].double().numpy():
        table = pd.DataFrame(window, index=days, columns=["Open", "High", "Low", "Close", "Volume"])
        buffer = io.BytesIO()
        figure, _ = mpf.plot(
            table,
            type="candle",
            mav=20,
            volume=True,
            axisoff=True,
            returnfig=True,
            figsize=(size[1] / DPI, size[0] / DPI),
        )
        figure.savefig(buffer, dpi=DPI, format="raw")
        plt.close(figure)
        pictures.append(buffer.getvalue())
    return pictures
