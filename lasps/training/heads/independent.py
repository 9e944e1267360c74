"""Train the sector heads of many settings side by side on the same shared features.

`train_heads` is the whole of it: one setting is Phase 2, a hundred are a study. Shapes: N samples, S sectors, K
settings, P parameters of a head.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from loguru import logger
from torch import Tensor
from tqdm import tqdm

from lasps.training.heads.acceptance import log_losses, logits_of
from lasps.training.heads.data import HeadData, HeadResult, HeadSamples
from lasps.training.heads.gradients import Gradients, written_out_gradients
from lasps.training.heads.settings import HeadSettings
from lasps.training.heads.stack import HeadLayout, HeadStack, SectorBatches
from lasps.training.heads.state import read_head_state
from lasps.training.resume import write_state

MAX_ROWS = 64  # heads trained in one stack: fewer waste calls (16 rows take 1.4 times as long). Measured, flat 32..64
STATE_VERSION = 2
VAL_ROWS = 16_384  # samples x settings of one val product: bounds the memory of hidden units to 4 MB

OnEpoch = Callable[[int, np.ndarray], set[int] | None]
"""(epoch from 1, pooled corrected val log loss (K,), NaN for settings that are over) -> positions to stop."""


def train_heads(
    data: HeadData,
    settings: Sequence[HeadSettings],
    on_epoch: OnEpoch | None = None,
    *,
    state_file: Path | None = None,
    device: str | torch.device = "cpu",
    gradients: Gradients = written_out_gradients,
    progress: bool = False,
) -> list[HeadResult]:
    """Train the heads of every setting x sector; a setting's result does not depend on the settings beside it.

    Args:
        data: shared features, start heads and, for choosing epochs, val.
        settings: one result each, in this order. Settings that share seed and batch size share their batches.
        on_epoch: called after every epoch; what it returns is stopped there (pruning).
        state_file: the state after each finished epoch, replaced atomically. A repeated call with the same data and
            settings goes on from it to the same bits; another call's state is ignored and replaced.
        gradients: `vmap_gradients` is the readable reference.

    Raises:
        ValueError: no sector reaches min_samples, or a loss is not finite (named; nothing is returned).
    """
    training = HeadTraining(data, settings, device, gradients)
    training.resume(state_file)
    bar = tqdm(total=training.last_epoch, initial=training.epoch, desc="sector heads", unit="epoch",
               disable=None if progress else True)
    with bar, stacks_side_by_side(training.device) as pool:
        while not training.finished():
            training.train_epoch(pool)
            training.measure_val()
            training.stop(on_epoch)
            training.save(state_file)
            bar.update()
    return training.results


@contextmanager
def stacks_side_by_side(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch uses, each of which computes alone while the pool is open.

    A stack's operations are too small to be shared out: 100 settings took 27 s with a thread per stack, 36 s with two
    threads per operation; with other processes on both cores 70 s and 297 s. On a GPU there is one thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the pool's threads take it over when they start
    try:
        with ThreadPoolExecutor(threads if device.type == "cpu" else 1) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


class HeadTraining:
    """All state of `train_heads`: the stacks that still train, and each setting's result so far."""

    def __init__(
        self, data: HeadData, settings: Sequence[HeadSettings], device: str | torch.device, gradients: Gradients
    ) -> None:
        if "linear.weight" in data.start:
            raise ValueError("expected initial heads without a linear path for independent heads (rank 0), got those "
                             "of an earlier Phase 2: start from phase3_final, or set rank to 1 or more")
        self.data, self.settings, self.device, self.gradients = data, list(settings), torch.device(device), gradients
        self.layout, self.epoch = HeadLayout(data.start), 0
        self.start = self.layout.pack(data.start, data.train.features.dtype)
        self.rows = data.train.rows_by_sector()
        self.train = _on_device(data.train, self.device)
        self.results = [HeadResult(setting) for setting in self.settings]
        self.trained = [self._sectors_of(setting) for setting in self.settings]
        self.val = None if data.val is None or len(data.val) == 0 else _on_device(data.val, self.device)
        self.val_rows = {} if data.val is None else data.val.rows_by_sector()
        self.start_losses = self._losses_of_start()
        self.stacks = [stack for group in self._groups() for stack in self._stacks(group)]
        for result, sectors in zip(self.results, self.trained, strict=True):
            result.losses = {sector: [] for sector in sectors}
            result.gammas = dict.fromkeys(sectors, result.settings.gamma)
            if self.val is not None:
                result.val_losses = {s: [self.start_losses[s]] for s in sectors if s in self.start_losses}
                result.val_log_loss = [self._pooled(result)]
            self._snapshot(result, {sector: self.start[sector] for sector in sectors}, best=True)

    # ------------------------------------------------------------------------------------------------ set-up

    def _sectors_of(self, setting: HeadSettings) -> list[int]:
        sectors = [sector for sector, rows in self.rows.items() if len(rows) >= max(setting.min_samples, 1)]
        if not sectors:
            largest = max((len(rows) for rows in self.rows.values()), default=0)
            raise ValueError(
                f"expected at least one sector with min_samples={setting.min_samples} samples, the largest has "
                f"{largest}: lower min_samples or bring more data"
            )
        return sectors

    def _groups(self) -> list[list[int]]:
        """Settings that can share batches, by position."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for position, setting in enumerate(self.settings):
            groups[setting.seed, setting.batch_size].append(position)
        return list(groups.values())

    def _stacks(self, group: list[int]) -> list[HeadStack]:
        """Cut settings x sectors into stacks of at most MAX_ROWS heads, each with large and small sectors."""
        stacks = []
        for part in np.array_split(group, math.ceil(len(group) / MAX_ROWS)):
            block = part.tolist()
            wanted = {sector for position in block for sector in self.trained[position]}
            sectors = sorted(wanted, key=lambda sector: (-len(self.rows[sector]), sector))
            count = math.ceil(len(sectors) / max(1, MAX_ROWS // len(block)))
            stacks += [self._stack(block, sectors[first::count]) for first in range(count)]
        return stacks

    def _stack(self, block: list[int], sectors: list[int]) -> HeadStack:
        settings = [self.settings[position] for position in block]
        hidden = self.data.start["fc1.bias"].shape[-1] if any(s.dropout > 0 for s in settings) else 0
        batches = SectorBatches(
            self.train, [self.rows[s] for s in sectors], sectors, self.data.class_weights,
            settings[0].batch_size, settings[0].seed, hidden, self.device,
        )
        return HeadStack(self.layout, self.start[sectors], batches, settings, block, self.gradients)

    # ------------------------------------------------------------------------------------------------ one epoch

    @property
    def last_epoch(self) -> int:
        return max((setting.epochs for setting in self.settings), default=0)

    def finished(self) -> bool:
        return not self.stacks

    def train_epoch(self, pool: Executor) -> None:
        """One epoch of every setting that is not over, the longest stacks first."""
        self.epoch += 1
        stacks = sorted(self.stacks, key=lambda stack: stack.updates, reverse=True)
        for stack, losses in zip(stacks, pool.map(self._train_stack, stacks), strict=True):
            self._refuse_non_finite(stack, losses)
            for column, position in enumerate(stack.indices):
                for row, sector in enumerate(stack.batches.sectors):
                    if sector in self.results[position].losses:
                        self.results[position].losses[sector].append(float(losses[row, column]))

    def _train_stack(self, stack: HeadStack) -> Tensor:
        return stack.train_epoch(self.epoch)

    def _refuse_non_finite(self, stack: HeadStack, losses: Tensor) -> None:
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            sector, setting = stack.batches.sectors[int(bad[0, 0])], stack.settings[int(bad[0, 1])]
            raise ValueError(
                f"Phase 2: expected a finite loss, got {float(losses[tuple(bad[0])])} in epoch {self.epoch} of sector "
                f"{sector} with {setting}: lower lr; no head was changed"
            )

    def measure_val(self) -> None:
        """Corrected val log loss of every running setting, pooled over all val samples; keep the best heads."""
        running = self._running()
        if self.val is not None:
            for stack in self.stacks:
                self._measure_stack(stack)
        for position in running:
            result = self.results[position]
            if self.val is not None:
                result.val_log_loss.append(self._pooled(result))
            if self.val is None or result.val_log_loss[-1] < result.best_val_log_loss:
                result.best_epoch = self.epoch
                self._snapshot(result, self._heads_of(position), best=True)

    def _measure_stack(self, stack: HeadStack) -> None:
        assert self.val is not None
        heads = self.layout.views(stack.params)
        k = len(stack.settings)
        for row, sector in enumerate(stack.batches.sectors):
            own = self.val_rows.get(sector)
            if own is None:
                continue
            sums = np.zeros(k)
            head = {name: value[row * k : (row + 1) * k] for name, value in heads.items()}
            for part in np.array_split(own, -(-len(own) * k // VAL_ROWS)):
                logits = logits_of(head, self.val.features[torch.from_numpy(part)])
                labels = self.data.val.labels[part].numpy()  # type: ignore[union-attr]
                for gamma in {setting.gamma for setting in stack.settings}:  # one call per gamma, not per setting
                    columns = [c for c, setting in enumerate(stack.settings) if setting.gamma == gamma]
                    sums[columns] += log_losses(logits[columns], labels, gamma, self.data.class_weights).sum(axis=1)
            for column, position in enumerate(stack.indices):
                if sector in self.results[position].val_losses:
                    self.results[position].val_losses[sector].append(float(sums[column]) / len(own))

    def _pooled(self, result: HeadResult) -> float:
        """Mean over all val samples; sectors that are not trained count with their start."""
        start = self.start_losses
        total = sum(
            len(own) * (result.val_losses[sector][-1] if sector in result.val_losses else start[sector])
            for sector, own in self.val_rows.items()
        )
        return total / len(self.data.val)  # type: ignore[arg-type, operator]

    def stop(self, on_epoch: OnEpoch | None) -> None:
        """Take settings that have had their epochs, or that the callback stops, out of their stacks."""
        running = self._running()
        pruned: set[int] = set()
        if on_epoch is not None:
            values = np.full(len(self.settings), np.nan)
            for position in running:
                if self.results[position].val_log_loss:
                    values[position] = self.results[position].val_log_loss[-1]
            pruned = set(on_epoch(self.epoch, values) or ()) & set(running)
        over = {position for position in running if self.settings[position].epochs <= self.epoch}
        for position in over | pruned:
            self._snapshot(self.results[position], self._heads_of(position), best=False)
            self.results[position].stopped = position not in over
        for stack in self.stacks if over or pruned else []:
            stack.keep_settings([p for p, i in enumerate(stack.indices) if i not in over | pruned])
        self.stacks = [stack for stack in self.stacks if stack.indices]

    def _running(self) -> list[int]:
        return sorted({position for stack in self.stacks for position in stack.indices})

    def _heads_of(self, position: int) -> dict[int, Tensor]:
        """sector -> row (P,) of a running setting."""
        return {
            sector: rows[row]
            for stack in self.stacks
            if position in stack.indices
            for rows in [stack.rows_of(stack.indices.index(position))]
            for row, sector in enumerate(stack.batches.sectors)
            if sector in self.results[position].losses
        }

    def _snapshot(self, result: HeadResult, rows: dict[int, Tensor], best: bool) -> None:
        heads = {sector: self.layout.unpack(row) for sector, row in sorted(rows.items())}
        if best:
            result.best_heads = heads
        else:
            result.heads = heads

    def _losses_of_start(self) -> dict[int, float]:
        """sector -> mean corrected val log loss of the head it starts from: epoch 0."""
        found = {}
        for sector, own in self.val_rows.items():
            head, gamma = self.data.start_head(sector)
            logits = logits_of(head, self.data.val.features[own])  # type: ignore[union-attr]
            labels = self.data.val.labels[own].numpy()  # type: ignore[union-attr]
            found[sector] = float(log_losses(logits, labels, gamma, self.data.class_weights).mean())
        return found

    # ------------------------------------------------------------------------------------------------ resume

    @cached_property
    def key(self) -> str:
        """Digest of everything the result depends on."""
        digest = hashlib.sha256()
        settings = [asdict(setting) for setting in self.settings]
        parts = [STATE_VERSION, settings, list(self.data.class_weights), self.device.type,
                 np.broadcast_to(self.data.start_gamma, self.data.num_sectors).tolist()]
        digest.update(json.dumps(parts, sort_keys=True).encode())
        for samples in (self.data.train, self.data.val):
            digest.update(b"none" if samples is None else samples.digest().encode())
        digest.update(self.start.numpy().tobytes())
        return digest.hexdigest()

    def resume(self, state_file: Path | None) -> None:
        """Go on from `state_file` if it is this very job's."""
        state = None if state_file is None else read_head_state(state_file, self.key, self.device)
        if state is None:
            return
        self.epoch = state["epoch"]
        for result, kept in zip(self.results, state["results"], strict=True):
            for name, value in kept.items():
                setattr(result, name, value)
        alive = {index for stack in state["stacks"] for index in stack["indices"]}
        self.stacks = [stack for stack in self.stacks if alive & set(stack.indices)]
        for stack, kept in zip(self.stacks, state["stacks"], strict=True):
            stack.load_state(kept)
        logger.info(f"Phase 2: resuming after epoch {self.epoch}")

    def save(self, state_file: Path | None) -> None:
        """Replace `state_file` by the state after this epoch, in one step."""
        if state_file is None:
            return
        kept = [{name: value for name, value in vars(result).items() if name != "settings"} for result in self.results]
        state = {"epoch": self.epoch, "results": kept, "stacks": [stack.state() for stack in self.stacks]}
        write_state(state_file, self.key, state)


def _on_device(samples: HeadSamples, device: torch.device) -> HeadSamples:
    if device.type == "cpu":
        return samples
    return HeadSamples(
        samples.features.to(device), samples.labels.to(device), samples.sector_ids, samples.days, samples.fingerprint
    )
