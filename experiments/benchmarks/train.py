"""Phase 1 with its looks at val, against the loop of commit 9cef49f.

That loop read whole windows of all features, drew the charts even for a model without a CNN, and looked at all of val
after each epoch. The market has the proportions of krx-2010s at a tenth: an epoch of 10,000 samples, 30,000 of val. The
reference reads the 50 features of its time, ours all 114.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.benchmarks.markets import random_panel
from experiments.benchmarks.measure import row, timed
from lasps.config.dataset_config import WINDOW
from lasps.config.model_config import MODEL_CONFIG, TRAINING_CONFIG
from lasps.config.sectors import SECTORS
from lasps.data.datasets.samples import Tensors, whole_days
from lasps.data.datasets.window_dataset import WindowDataset
from lasps.data.features import DEFAULT_FEATURES, score_columns, window_columns
from lasps.data.panel import bar_rows
from lasps.models.dropout import ByteDropout
from lasps.models.sector_aware_model import SectorAwareFusionModel
from lasps.training.batches import BatchLoader
from lasps.training.schedule import make_optimizer
from lasps.training.trainer import ThreePhaseTrainer, TrainerOptions

SCORES = score_columns(DEFAULT_FEATURES)
STOCKS, DAYS = 150, 420
EPOCH, VAL, VAL_SAMPLES = 10_000, 30_110, 6_000
ROUNDS = 3


def run() -> list[dict[str, Any]]:
    """Seconds for an epoch of Phase 1 and its look at val, without and with charts: the median of three rounds."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for charts in (False, True):
            times = [
                (ours(Path(folder), charts, number), reference(Path(folder), charts, number))
                for number in range(ROUNDS)
            ]
            own, theirs = (float(np.median(seconds)) for seconds in zip(*times, strict=True))
            what = f"{EPOCH:,} samples {'with' if charts else 'without'} charts and a look at val's {VAL:,}"
            rows.append(row(what, own, theirs, "s"))
    return rows


def dataset(folder: Path, samples: int, scores: bool) -> WindowDataset:
    """Samples all over a random market of 150 stocks."""
    split = folder / f"{samples}-{scores}"
    if not split.exists():
        rng = np.random.default_rng(7)
        panel, n = random_panel(STOCKS, DAYS), STOCKS * DAYS
        split.mkdir()
        arrays: dict[str, np.ndarray] = {
            "features": rng.standard_normal((n, len(DEFAULT_FEATURES) - len(SCORES))).astype(np.float32),
            "scores": rng.integers(-100, 101, (n, len(SCORES) * scores)).astype(np.int8),
            "bars": bar_rows(panel),
            "stock_starts": np.arange(0, n, DAYS),
            "ends": rng.integers(0, STOCKS, samples) * DAYS + rng.integers(WINDOW - 1, DAYS, samples),
            "sector_ids": rng.integers(0, len(SECTORS), samples),
            "labels": rng.integers(0, 3, samples),
        }
        for name, array in arrays.items():
            np.save(split / f"{name}.npy", array)
    return WindowDataset(split, split)


def model_of(data: WindowDataset, charts: bool) -> SectorAwareFusionModel:
    """A fresh model for the dataset's features."""
    every = data.num_features == len(DEFAULT_FEATURES)
    names = [name for i, name in enumerate(DEFAULT_FEATURES) if every or i not in SCORES]
    torch.manual_seed(7)
    return SectorAwareFusionModel(
        MODEL_CONFIG["num_sectors"],
        len(names),
        encoder_columns=window_columns(names),
        score_columns=score_columns(names),
        uses_charts=charts,
    )


def ours(folder: Path, charts: bool, seed: int) -> float:
    """Seconds of the trainer's epoch."""
    train, val = dataset(folder, EPOCH, scores=True), whole_days(dataset(folder, VAL, scores=True), VAL_SAMPLES)
    trainer = ThreePhaseTrainer(model_of(train, charts), seed=seed)
    loaders = (
        BatchLoader(train, TRAINING_CONFIG["batch_size"], shuffle=True, seed=seed),
        BatchLoader(val, TRAINING_CONFIG["eval_batch_size"]),
    )
    _, seconds = timed(lambda: trainer.train_phase1(*loaders, epochs=1))
    return seconds


def reference(folder: Path, charts: bool, seed: int) -> float:
    """Seconds of the earlier loop's epoch: whole windows, charts always drawn, all of val."""
    train, val = dataset(folder, EPOCH, scores=False), dataset(folder, VAL, scores=False)
    model, options = model_of(train, charts), TrainerOptions()

    def read(data: WindowDataset, rows: np.ndarray) -> Tensors:
        series, drawn, sectors, labels = data.batch(rows)
        return series, drawn if charts else drawn.float().div_(255), sectors, labels  # floats, though nobody reads them

    optimizer = make_optimizer(model.named_parameters(), 1e-3, options.weight_decay)
    criterion = options.criterion()

    for module in model.modules():
        if isinstance(module, ByteDropout):
            object.__setattr__(module, "__class__", nn.Dropout)  # as then

    def epoch() -> None:
        model.train()
        order = np.random.default_rng(seed).permutation(len(train))
        for start in range(0, len(order), TRAINING_CONFIG["batch_size"]):
            series, drawn, sectors, labels = read(train, order[start : start + TRAINING_CONFIG["batch_size"]])
            optimizer.zero_grad(set_to_none=True)
            loss = criterion(model(series, drawn, sectors, phase=1)["logits"], labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), options.gradient_clip)
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            for start in range(0, len(val), TRAINING_CONFIG["eval_batch_size"]):
                rows = np.arange(start, min(start + TRAINING_CONFIG["eval_batch_size"], len(val)))
                series, drawn, sectors, _ = read(val, rows)
                model(series, drawn, sectors, phase=1)

    _, seconds = timed(epoch)
    return seconds
