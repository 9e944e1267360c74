"""Shuffled batches of series and charts on one core, against one item after the other from the four arrays."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.benchmarks.build import build
from experiments.benchmarks.markets import borders_of, median_seconds, one_thread, random_panel, rate_row
from experiments.benchmarks.measure import anonymous_memory
from lasps.data.build import build_dataset
from lasps.data.datasets.description import load_split
from lasps.data.datasets.window_dataset import WindowDataset
from lasps.data.spec import DatasetSpec

STOCKS, DAYS = 1429, 1390
BATCH = 512
BATCHES = 8
SMALL_STOCKS, SMALL_DAYS = 24, 240


def run() -> list[dict[str, Any]]:
    """Samples per second, shuffled and in order, and anonymous memory per window while reading all over the market."""
    with tempfile.TemporaryDirectory() as folder, one_thread():
        reference = seed_rate(Path(folder) / "small")
        build(random_panel(STOCKS, DAYS), Path(folder) / "large")
        before = anonymous_memory()
        dataset = load_split(Path(folder) / "large", "train")
        order = np.random.default_rng(7).permutation(len(dataset))[: BATCH * BATCHES]
        shuffled, ordered = rate(dataset, order), rate(dataset, np.arange(BATCH * BATCHES))
        rows = [
            rate_row(f"shuffled batches of {BATCH} from {len(dataset):,} windows", shuffled, reference, "samples/s"),
            rate_row("the same in order", ordered, reference, "samples/s"),
        ]
        after = anonymous_memory()
        if before is not None and after is not None:
            grown = max(0, after - before - order.nbytes) / len(dataset)
            rows.append(
                {
                    "what": "anonymous memory per window",
                    "ours": grown,
                    "reference": 8.0,
                    "ratio": 8.0 / max(grown, 1e-3),
                    "unit": "bytes",
                }
            )
    return rows


def rate(dataset: WindowDataset | Any, order: np.ndarray) -> float:
    """Samples per second of `dataset.batch` over `order`."""

    def read() -> None:
        for start in range(0, len(order), BATCH):
            dataset.batch(order[start : start + BATCH])

    return len(order) / median_seconds(read)


def seed_rate(out: Path) -> float:
    """Samples per second item by item from the four arrays, after 512 of them were compared with ours."""
    panel = random_panel(SMALL_STOCKS, SMALL_DAYS)
    build_dataset(panel, out, DatasetSpec(borders=borders_of(panel), materialize=True), source={})
    arrays = [
        np.load(out / "train" / f"{name}.npy", mmap_mode="r")
        for name in ("time_series", "chart_images", "sector_ids", "labels")
    ]
    dataset = load_split(out, "train")
    order = np.random.default_rng(7).permutation(len(dataset))[:BATCH]
    ours, theirs = dataset.batch(order), item_by_item(arrays, order)
    assert torch.equal(ours[1].float() / 255, theirs[1])
    assert all(torch.equal(ours[i], theirs[i]) for i in (0, 2, 3))
    return len(order) / median_seconds(lambda: item_by_item(arrays, order))


def item_by_item(arrays: list[np.ndarray], order: np.ndarray) -> list[Tensor]:
    """The original specification's dataset and collate function: a dict of tensors per sample, stacked."""
    items = []
    for i in order:
        series, chart, sector, label = (array[i] for array in arrays)
        items.append(
            (
                torch.from_numpy(np.array(series)),
                torch.from_numpy(np.array(chart)).float() / 255,
                torch.tensor(int(sector)),
                torch.tensor(int(label)),
            )
        )
    return [torch.stack(parts) for parts in zip(*items, strict=True)]
