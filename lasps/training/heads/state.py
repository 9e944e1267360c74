"""What both trainings of heads share: the loop over epochs, pruning, and the state of an interrupted training."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from tqdm import tqdm

from lasps.training.heads.data import HeadData, HeadResult
from lasps.training.heads.settings import HeadSettings
from lasps.training.resume import DamagedStateError, read_state, write_state

OnEpoch = Callable[[int, np.ndarray], set[int] | None]
"""(epoch from 1, pooled calibrated val log loss (1,), NaN without val) -> {0} to stop."""


class EpochTraining(ABC):
    """One setting's training; whoever derives from it trains, measures, and says what must be kept.

    Attributes:
        version: of the state's content and of what distinguishes this training, part of the key.
    """

    version: tuple[Any, ...]
    data: HeadData
    settings: HeadSettings
    device: torch.device
    result: HeadResult
    epoch: int = 0

    @abstractmethod
    def train_epoch(self) -> None:
        """One more epoch of every head."""

    @abstractmethod
    def measure_val(self) -> None:
        """Calibrated val log loss after this epoch, by sector and pooled; keep the best."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What must be kept to continue after this epoch, beside its number."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`; its result is in place."""

    def run(self, on_epoch: OnEpoch | None, state_file: Path | None, desc: str | None) -> None:
        """All epochs that are left; desc: what the progress bar says, None shows none."""
        total, hidden = self.settings.epochs, True if desc is None else None
        with tqdm(total=total, initial=self.epoch, unit="epoch", disable=hidden, desc=desc) as bar:
            while self.epoch < total and not self.result.stopped:
                self.train_epoch()
                self.measure_val()
                if on_epoch is not None:
                    value = self.result.val_log_loss[-1] if self.result.val_log_loss else math.nan
                    self.result.stopped = bool(on_epoch(self.epoch, np.array([value]))) and self.epoch < total
                if state_file is not None:
                    write_state(state_file, self.key, {"epoch": self.epoch} | self.state())
                bar.update()

    def record(self, sector: int, loss: float) -> None:
        """Append an epoch's training loss to the result; ValueError unless it is finite."""
        self.result.losses[sector].append(loss)
        if not math.isfinite(loss):
            raise ValueError(
                f"Phase 2: expected a finite loss, got {loss} in epoch {self.epoch} of sector "
                f"{sector} with {self.settings}: lower lr; no head was changed"
            )

    @cached_property
    def key(self) -> str:
        """Digest of everything the result depends on."""
        parts = [
            *self.version,
            asdict(self.settings),
            list(self.data.class_weights),
            self.device.type,
            np.broadcast_to(self.data.start_gamma, self.data.num_sectors).tolist(),
        ]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
        for samples in (self.data.train, self.data.val):
            digest.update(b"none" if samples is None else samples.digest().encode())
        for name in sorted(self.data.start):
            digest.update(self.data.start[name].numpy().tobytes())
        return digest.hexdigest()

    def resume(self, state_file: Path | None) -> None:
        """Go on from `state_file` if it is this very job's."""
        state = None if state_file is None else read_head_state(state_file, self.key, self.device)
        if state is None:
            return
        self.epoch = state["epoch"]
        for name, value in state["result"].items():
            setattr(self.result, name, value)
        self.load_state(state)
        logger.info(f"Phase 2: resuming after epoch {self.epoch}")


def read_head_state(state_file: Path, key: str, device: str | torch.device = "cpu") -> dict[str, Any] | None:
    """The state of an interrupted training of this `key`; None, with a log line, where it is damaged or another's."""
    if not state_file.is_file():
        return None
    try:
        found_key, state = read_state(state_file, device)
    except DamagedStateError as error:
        logger.warning(f"{error}. Phase 2 starts from its beginning")
        return None
    if found_key != key:
        logger.info(f"{state_file.name}: of other data or settings, Phase 2 starts from its beginning")
        return None
    return state
