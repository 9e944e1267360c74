"""A model over a whole dataset: logits or shared features, in eval mode, without gradients, in float32.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lasps.config.model_config import TRAINING_CONFIG
from lasps.models.sector_aware_model import SectorAwareFusionModel
from lasps.training.batches import Batch, as_loader, iterate


@dataclass(frozen=True)
class Predictions:
    """What a model says of each sample, in the loader's order."""

    logits: np.ndarray
    """float32 (N,C)"""
    labels: np.ndarray
    """int64 (N,)"""
    sector_ids: np.ndarray
    """int64 (N,)"""


def predict(
    model: SectorAwareFusionModel,
    data: Any,
    device: str | torch.device = "cpu",
    phase: int = 3,
    batch_size: int = TRAINING_CONFIG["eval_batch_size"],
    desc: str = "predict",
    autocast: bool = False,
) -> Predictions:
    """Logits of every sample.

    Args:
        model: moved to `device`; every module is back in its mode afterwards.
        data: a dataset (read in order) or a loader (read as it comes).
        phase: 1 the common head, 2 and 3 the sector heads.
        batch_size: for a dataset; a loader has its own.
        desc: what the progress bar says.
        autocast: bfloat16 where torch does so; off by default, for exactness.

    Raises:
        ValueError: nothing to predict, or an input that the model refuses.
    """

    def run(batch: Batch) -> Tensor:
        shared = model.encode(batch.time_series, batch.charts)
        return model.classify(shared, batch.sector_ids, phase)

    return Predictions(*_over_batches(model, run, data, device, batch_size, desc, autocast))


def shared_features(
    model: SectorAwareFusionModel,
    data: Any,
    device: str | torch.device = "cpu",
    batch_size: int = TRAINING_CONFIG["eval_batch_size"],
    desc: str = "shared features",
    autocast: bool = False,
) -> np.ndarray:
    """The backbone's output of every sample, float32 (N, 128); arguments as in `predict`."""

    def run(batch: Batch) -> Tensor:
        return model.encode(batch.time_series, batch.charts)

    return _over_batches(model, run, data, device, batch_size, desc, autocast)[0]


def _over_batches(
    model: SectorAwareFusionModel,
    run: Callable[[Batch], Tensor],
    data: Any,
    device: str | torch.device,
    batch_size: int,
    desc: str,
    autocast: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`run`'s outputs, the labels and the sectors of all batches."""
    loader = as_loader(data, batch_size)
    outputs, labels, sectors = [], [], []
    model.to(device)
    device_type = torch.device(device).type
    with evaluating(model), torch.inference_mode(), torch.autocast(device_type, torch.bfloat16, enabled=autocast):
        for batch in tqdm(
            iterate(loader, device, model.reads), desc=desc, total=_length(loader), disable=None, leave=False
        ):
            outputs.append(run(batch).float().cpu().numpy())
            labels.append(batch.labels.cpu().numpy())
            sectors.append(batch.sector_ids.cpu().numpy())
    if not outputs:
        raise ValueError(f"{desc}: expected at least one sample, got an empty dataset or loader")
    return np.concatenate(outputs), np.concatenate(labels), np.concatenate(sectors)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _length(loader: Any) -> int | None:
    return len(loader) if hasattr(loader, "__len__") else None
