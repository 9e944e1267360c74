"""Rank 0: each sector's head on its own, all heads of a setting side by side on the same shared features.

Shapes: N samples, S sectors, P parameters of a head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lasps.training.heads.acceptance import log_losses, logits_of
from lasps.training.heads.data import HeadData, HeadResult, HeadSamples
from lasps.training.heads.gradients import Gradients, written_out_gradients
from lasps.training.heads.joint import trained_sectors
from lasps.training.heads.settings import HeadSettings
from lasps.training.heads.stack import HeadLayout, HeadStack, SectorBatches, one_thread_on_a_processor
from lasps.training.heads.state import EpochTraining, OnEpoch

STATE_VERSION = 3
VAL_ROWS = 16_384  # samples of one val product: bounds the memory of hidden units to 4 MB


def train_heads(
    data: HeadData,
    settings: HeadSettings,
    on_epoch: OnEpoch | None = None,
    *,
    state_file: Path | None = None,
    device: str | torch.device = "cpu",
    gradients: Gradients = written_out_gradients,
    progress: bool = False,
) -> HeadResult:
    """Train every sector's head; arguments as `joint.train_directions`.

    Raises:
        ValueError: no sector reaches min_samples, a loss is not finite, or the initial heads have a linear path.
    """
    training = HeadTraining(data, settings, torch.device(device), gradients)
    training.resume(state_file)
    with one_thread_on_a_processor(training.device):
        training.run(on_epoch, state_file, "sector heads" if progress else None)
    return training.finish()


class HeadTraining(EpochTraining):
    """All state of `train_heads`: the stack of heads and the result so far."""

    version = (STATE_VERSION,)

    def __init__(self, data: HeadData, settings: HeadSettings, device: torch.device, gradients: Gradients) -> None:
        if "linear.weight" in data.start:
            raise ValueError(
                "expected initial heads without a linear path for independent heads (rank 0), got those "
                "of an earlier Phase 2: start from phase3_final, or set rank to 1 or more"
            )
        self.data, self.settings, self.device = data, settings, device
        self.layout = HeadLayout(data.start)
        self.start = self.layout.pack(data.start, data.train.features.dtype)
        self.val = None if data.val is None or len(data.val) == 0 else _on_device(data.val, device)
        self.val_rows = {} if data.val is None else data.val.rows_by_sector()
        self.start_losses = self._losses_of_start()
        rows = trained_sectors(data.train, settings.min_samples)
        self.stack = self._stack(rows, gradients)
        self.result = HeadResult(
            settings, losses={sector: [] for sector in rows}, gammas=dict.fromkeys(rows, settings.gamma)
        )
        if self.val is not None:
            self.result.val_losses = {s: [self.start_losses[s]] for s in rows if s in self.start_losses}
            self.result.val_log_loss = [self._pooled()]
        self.result.best_heads = self._heads()

    def _stack(self, rows: dict[int, np.ndarray], gradients: Gradients) -> HeadStack:
        """The heads of all trained sectors, the largest sector first."""
        sectors = sorted(rows, key=lambda sector: (-len(rows[sector]), sector))
        hidden = self.data.start["fc1.bias"].shape[-1] if self.settings.dropout > 0 else 0
        batches = SectorBatches(
            _on_device(self.data.train, self.device),
            [rows[s] for s in sectors],
            sectors,
            self.data.class_weights,
            self.settings,
            hidden,
            self.device,
        )
        return HeadStack(self.layout, self.start[sectors], batches, self.settings, gradients)

    # ------------------------------------------------------------------------------------------------ one epoch

    def train_epoch(self) -> None:
        """One epoch of every head; the training criterion's sample means into the result."""
        self.epoch += 1
        for sector, loss in zip(self.stack.batches.sectors, self.stack.train_epoch(self.epoch).tolist(), strict=True):
            self.record(sector, loss)

    def measure_val(self) -> None:
        """Calibrated val log loss after this epoch, by sector and pooled over all val samples; keep the best heads."""
        result = self.result
        if self.val is not None:
            heads = self.layout.views(self.stack.params)
            for row, sector in enumerate(self.stack.batches.sectors):
                if sector in result.val_losses:
                    result.val_losses[sector].append(self._val_loss({n: v[row] for n, v in heads.items()}, sector))
            result.val_log_loss.append(self._pooled())
        if self.val is None or result.val_log_loss[-1] < result.best_val_log_loss:
            result.best_epoch, result.best_heads = self.epoch, self._heads()

    def _val_loss(self, head: dict[str, Tensor], sector: int) -> float:
        assert self.val is not None and self.data.val is not None
        own, total = self.val_rows[sector], 0.0
        for part in np.array_split(own, -(-len(own) // VAL_ROWS)):
            logits = logits_of(head, self.val.features[torch.from_numpy(part)])
            labels = self.data.val.labels[part].numpy()
            total += float(log_losses(logits, labels, self.settings.gamma, self.data.class_weights).sum())
        return total / len(own)

    def _pooled(self) -> float:
        """Mean over all val samples; sectors that are not trained count with their start."""
        assert self.data.val is not None
        last = {sector: losses[-1] for sector, losses in self.result.val_losses.items()}
        losses = self.start_losses | last
        return sum(len(own) * losses[sector] for sector, own in self.val_rows.items()) / len(self.data.val)

    def finish(self) -> HeadResult:
        """The result, with the heads after the last epoch."""
        self.result.heads = self._heads()
        return self.result

    def _heads(self) -> dict[int, dict[str, Tensor]]:
        rows = dict(zip(self.stack.batches.sectors, self.stack.params, strict=True))
        return {sector: self.layout.unpack(row) for sector, row in sorted(rows.items())}

    def _losses_of_start(self) -> dict[int, float]:
        """sector -> mean calibrated val log loss of the head it starts from: epoch 0."""
        found = {}
        for sector, own in self.val_rows.items():
            head, gamma = self.data.initial_head(sector)
            logits = logits_of(head, self.data.val.features[own])  # type: ignore[union-attr]
            labels = self.data.val.labels[own].numpy()  # type: ignore[union-attr]
            found[sector] = float(log_losses(logits, labels, gamma, self.data.class_weights).mean())
        return found

    # ------------------------------------------------------------------------------------------------ resume

    def state(self) -> dict[str, Any]:
        """The result so far and the stack."""
        result = {name: value for name, value in vars(self.result).items() if name != "settings"}
        return {"result": result, "stack": self.stack.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.stack.load_state(state["stack"])


def _on_device(samples: HeadSamples, device: torch.device) -> HeadSamples:
    if device.type == "cpu":
        return samples
    return HeadSamples(
        samples.features.to(device), samples.labels.to(device), samples.sector_ids, samples.days, samples.fingerprint
    )
