"""Sector heads on given features: shared directions against autograd, independent heads against vmap and plain loops.

Slow references train fewer epochs; their times are scaled to all epochs (an epoch costs what every other costs).
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.benchmarks.heads_reference import plain_joint_loop, plain_loops
from experiments.benchmarks.measure import peak_anonymous_memory, row, timed
from lasps.models.sector_aware_model import ClassificationHead
from lasps.training.heads import directions
from lasps.training.heads.data import HeadData, as_samples, stacked_heads_of
from lasps.training.heads.gradients import vmap_gradients
from lasps.training.heads.independent import train_heads
from lasps.training.heads.joint import JOINT, train_directions
from lasps.training.heads.settings import HeadSettings

SHARES = (100, 80, 70, 60, 50, 45, 40, 35, 30, 25, 20, 15, 12, 10, 7, 5, 3, 2, 0.8, 0.15)
"""Twenty sectors as uneven as the market's; the smallest has 150 of 610,000 samples."""


def sector_sizes(samples: int, smallest: int = 100) -> list[int]:
    """SHARES of `samples`, none below `smallest`."""
    shares = np.array(SHARES) / sum(SHARES)
    return np.maximum(shares * samples, smallest).astype(int).tolist()


def random_head_data(
    sizes: list[int], val: int = 0, dtype: str = "float32", folder: Path | None = None, seed: int = 7
) -> HeadData:
    """Random features (N, 128) with a linear rule per sector, memory-mapped under `folder` if given."""
    rng, n = np.random.default_rng(seed), sum(sizes)
    if folder is None:
        features = np.empty((n, 128), dtype=dtype)
    else:
        features = np.lib.format.open_memmap(folder / "features.npy", mode="w+", dtype=dtype, shape=(n, 128))
    sectors = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    rules, labels = rng.normal(size=(len(sizes), 128, 3)).astype(dtype), np.empty(n, dtype=np.int64)
    for first in range(0, n, 65_536):
        part = slice(first, first + 65_536)
        features[part] = rng.standard_normal((len(sectors[part]), 128), dtype=np.float32)
        scores = np.einsum("nd,ndc->nc", features[part], rules[sectors[part]], optimize=True)
        labels[part] = (0.1 * scores + rng.normal(size=scores.shape)).argmax(axis=1)
    torch.manual_seed(seed)
    start = stacked_heads_of(ClassificationHead() for _ in sizes)
    start = {name: value.to(getattr(torch, dtype)) for name, value in start.items()}
    chosen = None
    if val:
        chosen = as_samples(features[:val].copy(), labels[:val], sectors[:val], np.arange(val) // max(val // 60, 1))
    return HeadData(as_samples(features, labels, sectors), start, chosen)


def assert_equal_to_plain_loops(setting: HeadSettings) -> float:
    """Largest difference of any weight or loss after `setting.epochs` epochs, float64; above 1e-6 is an error."""
    data = random_head_data([150, 33, 1, 700], dtype="float64")
    expected = plain_loops(data, setting)
    worst = 0.0
    for options in ({}, {"gradients": vmap_gradients}):
        found = train_heads(data, setting, **options)  # type: ignore[arg-type]
        for sector, (losses, head) in expected.items():
            worst = max(worst, float(np.abs(np.subtract(found.losses[sector], losses)).max()))
            worst = max([worst, *(float((found.heads[sector][n] - v).abs().max()) for n, v in head.items())])
    assert worst < 1e-6, f"stacked heads differ from plain loops by {worst}"
    return worst


def assert_equal_to_plain_joint_loop(setting: HeadSettings) -> float:
    """Largest difference of any linear path or loss of shared directions, float64; above 1e-6 is an error."""
    data = random_head_data([150, 33, 1, 700], dtype="float64")
    found, worst = train_directions(data, setting), 0.0
    for sector, (losses, weight, bias) in plain_joint_loop(data, setting).items():
        path, ours = found.heads[sector], found.losses[sector]
        pairs = (ours, losses), (path["linear.weight"], weight), (path["linear.bias"], bias)
        worst = max([worst, *(float(np.abs(np.subtract(a, b)).max()) for a, b in pairs)])
    assert worst < 1e-6, f"shared directions differ from the plain loop by {worst}"
    return worst


def joint_rows(data: HeadData, setting: HeadSettings, what: str, autograd_epochs: int = 1) -> list[dict[str, Any]]:
    """The sector part, and with the common change before it as Phase 2 trains them, against the same with autograd."""

    def seconds(common: bool, few: HeadSettings, gradients: Any) -> float:
        return timed(lambda: train_directions(data, few, common=common, gradients=gradients))[1]

    worst = assert_equal_to_plain_joint_loop(replace(setting, epochs=3))
    few, scale = replace(setting, epochs=autograd_epochs), setting.epochs / autograd_epochs
    common, sectors = (seconds(part, setting, directions.written_out_gradients) for part in (True, False))
    slow_common, slow = (scale * seconds(part, few, directions.autograd_gradients) for part in (True, False))
    what = f"{what} rank {setting.rank}, joint batches of {JOINT * setting.batch_size},"
    return [
        row(f"{what} sectors, against autograd", sectors, slow),
        row(f"{what} common change and sectors, against autograd", common + sectors, slow_common + slow),
        row("largest difference of shared directions to the plain loop, float64", worst, unit="weight or loss"),
    ]


def run(samples: int = 610_000, epochs: int = 10, vmap_epochs: int = 1, loop_epochs: int = 1) -> list[dict[str, Any]]:
    """`samples` samples, 20 uneven sectors, `epochs` epochs: shared directions in batches of 128 a sector (2,048 of
    all), independent heads in batches of 64, all else as configured.
    """
    setting = HeadSettings(batch_size=64, epochs=epochs, min_samples=1)
    worst = assert_equal_to_plain_loops(replace(setting, dropout=0.0, batch_size=32, epochs=min(epochs, 10)))
    with tempfile.TemporaryDirectory() as folder:
        data = random_head_data(sector_sizes(samples), folder=Path(folder))
        what = f"{samples:,} samples, {len(SHARES)} sectors, {epochs} epochs,"
        joint = joint_rows(data, replace(setting, batch_size=128), what)
        (_, ours), memory = peak_anonymous_memory(lambda: timed(lambda: train_heads(data, setting)))

        def scaled(few: int, call: Any) -> float:
            return timed(lambda: call(replace(setting, epochs=few)))[1] * epochs / few

        stacked = scaled(vmap_epochs, lambda s: train_heads(data, s, gradients=vmap_gradients))
        tensors = scaled(loop_epochs, lambda s: plain_loops(data, s))
        loaders = scaled(loop_epochs, lambda s: plain_loops(data, s, through_data_loader=True))
    what = f"{what} independent heads, against"
    rows = [
        *joint,
        row(f"{what} stacked vmap", ours, stacked),
        row(f"{what} {len(SHARES)} loops over tensors in memory", ours, tensors),
        row(f"{what} {len(SHARES)} loops over DataLoaders", ours, loaders),
        row("largest difference to plain loops without dropout, float64", worst, unit="weight or loss"),
    ]
    if memory is not None:
        rows.append(row("anonymous memory over the features", memory / 2**20, unit="MB"))
    return rows
