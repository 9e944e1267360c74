"""A study's worth of settings side by side against one setting after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.benchmarks.heads import assert_equal_to_plain_loops, random_head_data, sector_sizes
from experiments.benchmarks.heads_reference import plain_loops
from experiments.benchmarks.measure import peak_anonymous_memory, row, timed
from lasps.training.heads.independent import train_heads
from lasps.training.heads.settings import HeadSettings


def drawn_settings(count: int, epochs: int, seed: int = 7) -> list[HeadSettings]:
    """Settings as a study draws them, epochs and seed fixed."""
    rng = np.random.default_rng(seed)
    return [
        HeadSettings(
            lr=float(10 ** rng.uniform(-4, -2.5)), l2_sp=float(10 ** rng.uniform(-1, 2)), epochs=epochs,
            weight_decay=float(rng.choice([0.0, 0.01])), dropout=float(rng.uniform(0, 0.4)),
            gamma=float(rng.choice([0.0, 1.0, 2.0])), batch_size=int(rng.choice([32, 64])), min_samples=100,
        )
        for _ in range(count)
    ]


def run(
    count: int = 100, samples: int = 20_000, val: int = 4_000, epochs: int = 10, few: int = 2
) -> list[dict[str, Any]]:
    """`count` settings x 20 sectors on `samples` samples with val; references train `few` settings, scaled."""
    assert_equal_to_plain_loops(HeadSettings(dropout=0.0, epochs=3, min_samples=1))
    data, settings = random_head_data(sector_sizes(samples), val), drawn_settings(count, epochs)
    (together, ours), memory = peak_anonymous_memory(lambda: timed(lambda: train_heads(data, settings)))
    alone, one_by_one = timed(lambda: [train_heads(data, [setting])[0] for setting in settings[:few]])
    for setting, beside, single in zip(settings[:few], together, alone, strict=False):
        difference = np.abs(np.subtract(beside.val_log_loss, single.val_log_loss)).max()
        assert difference < 1e-4, f"{setting}: beside others it differs by {difference}"
    _, plain = timed(lambda: [plain_loops(data, setting) for setting in settings[:few]])
    what = f"{count} settings x 20 sectors x {epochs} epochs, {samples:,} samples, against"
    rows = [
        row(f"{what} one stacked setting after the other", ours, one_by_one * count / few),
        row(f"{what} plain loops (without val)", ours, plain * count / few),
    ]
    if memory is not None:
        rows.append(row("anonymous memory over the features", memory / 2**20, unit="MB"))
    return rows
