"""A study's worth of settings, as its trials train them, against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.benchmarks.heads import assert_equal_to_plain_joint_loop, random_head_data, sector_sizes
from experiments.benchmarks.heads_reference import plain_joint_loop
from experiments.benchmarks.measure import peak_anonymous_memory, row, timed
from lasps.training.heads.joint import train_directions
from lasps.training.heads.settings import HeadSettings


def drawn_settings(count: int, epochs: int, seed: int = 7) -> list[HeadSettings]:
    """Settings as a study draws them, epochs and seed fixed."""
    rng = np.random.default_rng(seed)
    return [
        HeadSettings(
            lr=float(10 ** rng.uniform(-4, -2.5)),
            rank=int(rng.integers(2, 33)),
            epochs=epochs,
            penalty=float(10 ** rng.uniform(0, 3)),
            min_samples=int(rng.integers(20, 500)),
        )
        for _ in range(count)
    ]


def run(
    count: int = 100, samples: int = 20_000, val: int = 4_000, epochs: int = 10, few: int = 2
) -> list[dict[str, Any]]:
    """`count` settings x 20 sectors on `samples` samples with val; the reference trains `few` settings, scaled."""
    settings = drawn_settings(count, epochs)
    worst = max(assert_equal_to_plain_joint_loop(setting) for setting in settings[:few])
    data = random_head_data(sector_sizes(samples), val)
    (_, ours), memory = peak_anonymous_memory(lambda: timed(lambda: [train_directions(data, s) for s in settings]))
    _, plain = timed(lambda: [plain_joint_loop(data, setting) for setting in settings[:few]])
    what = f"{count} settings x 20 sectors x {epochs} epochs, {samples:,} samples, one after the other, against"
    rows = [
        row(f"{what} plain loops (without val)", ours, plain * count / few),
        row("largest difference to the plain loop, float64", worst, unit="weight or loss"),
    ]
    if memory is not None:
        rows.append(row("anonymous memory over the features", memory / 2**20, unit="MB"))
    return rows
