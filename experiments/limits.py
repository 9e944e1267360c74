#!/usr/bin/env python
"""Where Phase 2 stops helping: planted sector effects of several ranks and sizes, shared directions against rank 0.

    python experiments/limits.py --checkpoint checkpoints/phase3_final.pt --json experiments/results/limits.json

The shared features are those of a real checkpoint. Labels are drawn anew from known probabilities: the calibrated ones
of the initial heads with an effect of each sector's own on BUY against SELL, spread over 1, 2, 4 or 8 random directions
among the features. So the best possible log loss is known, no label of the dataset is used, and test is not looked at.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments._cli import add_data_flags, resolve_device, run_script
from experiments._results import write_result
from lasps.config.model_config import TRAINING_CONFIG
from lasps.config.settings import settings

RANKS = (1, 2, 4, 8)
SIZES = (0.6, 0.3, 0.15)
"""Standard deviation of the effect on half of the log odds of BUY against SELL; 0.6 is about the default market's."""
TRAINED = {"shared directions": {}, "independent heads": {"rank": 0}}


def main() -> None:
    """Train both on every effect; print and keep the share of the gap to the known best that each closes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=settings.CHECKPOINT_DIR / "phase3_final.pt")
    parser.add_argument("--figure", type=Path, default=None, help="also draw it, as PNG")
    add_data_flags(parser, batch_size=TRAINING_CONFIG["eval_batch_size"])
    args = parser.parse_args()
    data, test = load(args, resolve_device(args.device))
    rows = [row_of(data, test, rank, size) for size in SIZES for rank in RANKS]
    for row in rows:
        shares = ", ".join(f"{name} {100 * row['gap_closed'][name]:.0f} %" for name in TRAINED)
        print(f"rank {row['rank']}, size {row['size']:g}, gap {row['gap']:.4f}: {shares}", flush=True)
    nothing = false_acceptances(data)
    print("nothing planted: " + ", ".join(f"{name} {value}" for name, value in nothing.items()))
    if args.json:
        write_result(args.json, {"rows": rows, "nothing_planted": nothing}, seeds=[7])
    if args.figure is not None:
        draw(rows, args.figure)


def load(args: argparse.Namespace, device: str) -> tuple[Any, Any]:
    """(shared features of train and val with the checkpoint's heads, test's)."""
    from lasps.data.datasets.description import load_split
    from lasps.training.checkpoints import Checkpoint
    from lasps.training.heads.shared_features import shared_samples
    from lasps.training.phase2 import head_data

    checkpoint = Checkpoint.open(args.checkpoint, device)
    model, gamma = checkpoint.model, checkpoint.card.focal_gamma
    train, val, test = (load_split(args.data_dir, split) for split in ("train", "val", "test"))
    data = head_data(model, train, val, device=device, cache=False, start_gamma=gamma)
    return data, shared_samples(model, test, device=device, desc="shared features, test")


def row_of(data: Any, test: Any, rank: int, size: float, seed: int = 7) -> dict[str, Any]:
    """One planted effect: the gap between the initial heads and the known best on test, and the share closed."""
    from lasps.training.heads.nested import train_nested
    from lasps.training.heads.settings import HeadSettings

    rng = np.random.default_rng([seed, rank, int(1000 * size)])
    effect = Effect(rng, data, rank, size)
    train, val = (replace(split, labels=effect.labels(split, rng), fingerprint="") for split in (data.train, data.val))
    planted, known = replace(data, train=train, val=val), effect.log_probabilities(test)
    y = effect.labels(test, rng)
    before = log_loss(effect.start(test), y)
    gap = before - log_loss(known, y)
    closed = {}
    for name, changed in TRAINED.items():
        heads = train_nested(planted, HeadSettings(**changed)).heads
        closed[name] = (before - log_loss(calibrated(data, test, heads), y)) / gap
    return {"rank": rank, "size": size, "gap": gap, "gap_closed": closed}


def false_acceptances(data: Any, draws: int = 20) -> dict[str, int]:
    """How often val accepts what is not there: labels drawn from the initial heads' own probabilities."""
    from lasps.training.heads.nested import train_nested
    from lasps.training.heads.settings import HeadSettings

    found = {"markets": draws, "sector part accepted": 0, "sectors accepted": 0, "common change accepted": 0}
    for seed in range(draws):
        rng = np.random.default_rng([seed, 0])
        effect = Effect(rng, data, rank=1, size=0.0)
        train, val = (replace(s, labels=effect.labels(s, rng), fingerprint="") for s in (data.train, data.val))
        nested = train_nested(replace(data, train=train, val=val), HeadSettings())
        found["sector part accepted"] += bool(nested.accepted)
        found["sectors accepted"] += len(nested.accepted)
        found["common change accepted"] += nested.common_accepted
    return found


class Effect:
    """An effect of each sector's own: unit combinations of `rank` standardised directions, the same for all."""

    def __init__(self, rng: np.random.Generator, data: Any, rank: int, size: float) -> None:
        self.data, self.size = data, size
        x = data.train.features.double()
        directions = torch.from_numpy(rng.standard_normal((x.shape[1], rank))) / x.std(dim=0).clamp_min(1e-3)[:, None]
        read = x @ directions
        self.mean, self.directions = read.mean(dim=0), directions / read.std(dim=0)
        self.mean = self.mean / read.std(dim=0)
        loadings = rng.standard_normal((data.num_sectors, rank))
        loadings -= loadings.mean(axis=0)
        self.loadings = torch.from_numpy(loadings / np.linalg.norm(loadings, axis=1, keepdims=True))

    def start(self, samples: Any) -> Tensor:
        """Log probabilities (N, C) of the initial heads."""
        return calibrated(self.data, samples, {})

    def log_probabilities(self, samples: Any) -> Tensor:
        """The known ones (N, C)."""
        read = samples.features.double() @ self.directions - self.mean
        push = self.size * (read * self.loadings[samples.sector_ids]).sum(dim=1)
        return (self.start(samples) + push[:, None] * torch.tensor([-1.0, 0.0, 1.0])).log_softmax(dim=1)

    def labels(self, samples: Any, rng: np.random.Generator) -> Tensor:
        """Drawn labels (N,)."""
        p = self.log_probabilities(samples).exp()
        drawn = torch.from_numpy(rng.random(len(p)))
        return (drawn[:, None] > p.cumsum(dim=1)[:, :-1]).sum(dim=1)


def calibrated(data: Any, samples: Any, heads: dict[int, dict[str, Tensor]]) -> Tensor:
    """Calibrated log probabilities float64 (N, C) of the initial heads, those in `heads` instead where given."""
    from lasps.evaluation.focal_calibration import calibrated_log_probabilities
    from lasps.training.heads.acceptance import logits_of

    found = torch.empty(len(samples), len(data.class_weights), dtype=torch.float64)
    for sector, rows in samples.rows_by_sector().items():
        start, gamma = data.initial_head(sector)
        logits = logits_of(heads.get(sector, start), samples.features[rows]).double().numpy()
        found[rows] = torch.from_numpy(calibrated_log_probabilities(logits, gamma, data.class_weights))
    return found


def log_loss(log_p: Tensor, y: Tensor) -> float:
    """Mean of -log p of the labels."""
    return float(-log_p.gather(1, y[:, None]).mean())


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Share of the gap closed by rank, a panel per size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(SIZES), figsize=(9, 2.8), sharey=True, layout="constrained")
    for axis, size in zip(axes, SIZES, strict=True):
        own = [row for row in rows if row["size"] == size]
        for name in TRAINED:
            axis.plot([r["rank"] for r in own], [100 * r["gap_closed"][name] for r in own], marker="o", label=name)
        axis.set(
            xscale="log",
            xticks=RANKS,
            xticklabels=RANKS,
            xlabel="rank of the planted effect",
            title=f"size {size:g}, gap {np.mean([r['gap'] for r in own]):.3f}",
        )
        axis.minorticks_off()
        axis.axhline(0, color="0.7", linewidth=0.8)
    axes[0].set_ylabel("gap closed on test, %")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    run_script(main)
