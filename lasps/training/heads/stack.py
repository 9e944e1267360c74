"""Many heads trained at once: the heads of A sectors as rows of one matrix.

Independent heads are small (128 -> 64 -> 3), so one head after the other spends its time on calls, not on arithmetic.
A `HeadStack` keeps A heads as rows, sorted by the sector's size: at step t the sectors that still have a t-th batch are
a prefix of the rows, and shrinking that prefix is a slice, not a copy. Every row has its own batches, order, dropout,
step count and optimiser state, exactly as if it were trained alone.

Shapes: A sectors, T steps of a segment, B batch, D width, H hidden, P parameters of one head (padded to a multiple of
16, so that every row starts on a cache line).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lasps.training.heads.data import HeadSamples
from lasps.training.heads.gradients import Gradients, HeadBatch, written_out_gradients
from lasps.training.heads.settings import HeadSettings

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # AdamW's defaults (Loshchilov & Hutter 2019; Kingma & Ba 2015)
SEGMENT_FLOATS = 2**21  # 8 MB of gathered features at a time: stays in the cache. Measured, flat around it
NOISE_LEVELS = 2**16  # dropout probabilities are rounded to this grid, so that noise + keep rate is exact in float32
NOISE_STREAM = 1  # keeps a sector's dropout noise apart from its order


Made = TypeVar("Made")


class HeadLayout:
    """Where each parameter of a head lies in its row of P numbers."""

    def __init__(self, stacked: Mapping[str, Tensor]) -> None:
        self.shapes = {name: value.shape[1:] for name, value in stacked.items()}
        self.size = sum(shape.numel() for shape in self.shapes.values())
        self.padded = math.ceil(self.size / 16) * 16

    def pack(self, stacked: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """name -> (S, ...) to rows (S, P)."""
        rows = torch.zeros(len(next(iter(stacked.values()))), self.padded, dtype=dtype)
        for name, view in self.views(rows).items():
            view.copy_(stacked[name])
        return rows

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """Rows (R, P) to name -> (R, ...), sharing memory."""
        sizes = [shape.numel() for shape in self.shapes.values()] + [self.padded - self.size]
        parts = torch.split(rows, sizes, dim=1)
        return {
            name: part.view(len(rows), *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=False)
        }

    def unpack(self, row: Tensor) -> dict[str, Tensor]:
        """One row (P,) to name -> copied parameter on the cpu."""
        return {name: value[0].detach().cpu().clone() for name, value in self.views(row.unsqueeze(0)).items()}


def epoch_order(seed: int, sector: int, epoch: int, n: int) -> np.ndarray:
    """The order in which epoch `epoch` (from 1) visits a sector's n samples: a permutation of 0..n-1.

    It depends on nothing else, so a sector trains alike alone, beside others and after a restart.
    """
    return np.random.default_rng([seed, sector, epoch]).permutation(n)


@dataclass
class Segment:
    """T consecutive steps of the same active sectors: x (T, A, B, D), y, weight (T, A, B), noise (T, A, B, H) or None.

    weight is a sample's alpha_t / (real size of its batch), 0 where a short batch is padded; noise is uniform in
    [0, 1); sizes (T, A) are the real batch sizes; steps (T, A) the optimiser's step number, from 1.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    noise: Tensor | None
    sizes: Tensor
    steps: Tensor

    def __len__(self) -> int:
        return len(self.x)


@contextmanager
def one_thread_on_a_processor(device: torch.device) -> Iterator[None]:
    """A stack's operations are too small to be shared out: two threads wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def made_ahead(segments: Iterator[Made]) -> Iterator[Made]:
    """The same segments; the next one is gathered in a thread of its own while this one trains."""
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, segments, None)
        while (segment := coming.result()) is not None:
            coming = maker.submit(next, segments, None)
            yield segment


class SectorBatches:
    """The batches of A sectors, sorted by size."""

    def __init__(
        self,
        samples: HeadSamples,
        rows: Sequence[np.ndarray],
        sectors: Sequence[int],
        class_weights: Sequence[float],
        settings: HeadSettings,
        noise_width: int,
        device: str | torch.device = "cpu",
    ) -> None:
        self.samples, self.rows, self.sectors = samples, rows, sectors
        self.batch_size, self.seed, self.noise_width, self.device = (
            settings.batch_size,
            settings.seed,
            noise_width,
            device,
        )
        self.class_weights = torch.tensor(class_weights, dtype=samples.features.dtype, device=device)
        self.sizes = np.array([len(own) for own in rows])
        self.steps = -(-self.sizes // self.batch_size)

    def segments(self, epoch: int) -> Iterator[Segment]:
        """One epoch (from 1) in segments of steps between which no sector finishes."""
        orders = [
            own[epoch_order(self.seed, sector, epoch, len(own))]
            for own, sector in zip(self.rows, self.sectors, strict=True)
        ]
        streams = [np.random.SFC64([self.seed, sector, epoch, NOISE_STREAM]) for sector in self.sectors]
        first = 0
        for last in sorted(set(self.steps.tolist())):
            active = int((self.steps >= last).sum())
            stride = max(1, SEGMENT_FLOATS // (active * self.batch_size * self.samples.features.shape[1]))
            for begin in range(first, last, stride):
                end = min(begin + stride, last)
                yield self._segment(epoch, begin, end, orders[:active], streams[:active])
            first = last

    def _segment(
        self, epoch: int, begin: int, end: int, orders: list[np.ndarray], streams: list[np.random.SFC64]
    ) -> Segment:
        active, steps, batch = len(orders), end - begin, self.batch_size
        taken = np.zeros((active, steps * batch), dtype=np.int64)
        for position, order in enumerate(orders):
            part = order[begin * batch : end * batch]
            taken[position, : len(part)] = part
            taken[position, len(part) :] = order[0]  # padding of a short last batch: any row, its weight is 0
        index = torch.from_numpy(taken.reshape(active, steps, batch).transpose(1, 0, 2).copy()).to(self.device)
        step = np.arange(begin, end)[:, None]
        sizes = np.minimum(self.sizes[:active] - step * batch, batch)
        y = self.samples.labels[index]
        real = torch.from_numpy(np.arange(batch) < sizes[..., None]).to(self.device)
        count = torch.from_numpy(sizes).to(self.device, self.class_weights.dtype)
        x = self.samples.features.index_select(0, index.view(-1)).view(steps, active, batch, -1)
        return Segment(
            x=x,
            y=y,
            weight=self.class_weights[y] * real / count.unsqueeze(-1),
            noise=self._noise(streams, steps),
            sizes=count,
            steps=torch.from_numpy((epoch - 1) * self.steps[:active] + step + 1).to(self.device, torch.float64),
        )

    def _noise(self, streams: list[np.random.SFC64], steps: int) -> Tensor | None:
        """(T, A, B, H), uniform over the NOISE_LEVELS multiples of 1 / NOISE_LEVELS: 4 numbers of each 64-bit draw."""
        if self.noise_width == 0:
            return None
        wanted = self.batch_size * self.noise_width
        draws = -(-wanted // 4)  # whole draws per step: where segments begin changes nothing
        noise = np.empty((steps, len(streams), wanted), dtype=np.float32)
        for position, stream in enumerate(streams):
            raw = stream.random_raw(steps * draws).view(np.uint16).reshape(steps, draws * 4)
            np.multiply(raw[:, :wanted], np.float32(1 / NOISE_LEVELS), out=noise[:, position])
        shape = (steps, len(streams), self.batch_size, self.noise_width)
        return torch.from_numpy(noise).view(shape).to(self.device, self.samples.features.dtype)


class HeadStack:
    """A heads and their AdamW state, trained together one epoch at a time.

    Args:
        start: (A, P) initial heads of the sectors, in the order of `batches.sectors`.
    """

    def __init__(
        self,
        layout: HeadLayout,
        start: Tensor,
        batches: SectorBatches,
        settings: HeadSettings,
        gradients: Gradients = written_out_gradients,
    ) -> None:
        self.layout, self.batches, self.settings, self.gradients = layout, batches, settings, gradients
        self.start = start.to(batches.device)
        self.params = self.start.clone()
        self.first, self.second = torch.zeros_like(self.params), torch.zeros_like(self.params)
        self.grads, self.work = torch.zeros_like(self.params), torch.zeros_like(self.params)
        dtype, device = self.params.dtype, self.params.device
        pull = settings.l2_sp / torch.from_numpy(batches.sizes).double().unsqueeze(1)
        self.pull = None if settings.l2_sp == 0 else pull.to(device, dtype)
        kept = 1 - round(settings.dropout * NOISE_LEVELS) / NOISE_LEVELS
        self.drops = kept < 1
        self.keep_rate = torch.full((len(self.params), 1, 1), max(kept, 1 / NOISE_LEVELS), dtype=dtype, device=device)
        self.prefixes: dict[int, tuple[dict[str, Tensor], dict[str, Tensor]]] = {}

    def train_epoch(self, epoch: int) -> Tensor:
        """One epoch (from 1) of every row; returns the training criterion's sample means, (A,) float64."""
        total = torch.zeros(len(self.params), dtype=torch.float64, device=self.params.device)
        for segment in made_ahead(self.batches.segments(epoch)):
            rows = segment.x.shape[1]
            scale, offset = self._adamw_tables(segment.steps)
            for t in range(len(segment)):
                loss = self._gradients(segment, t, rows)
                total[:rows] += loss * segment.sizes[t]
                self.adamw(rows, scale[t], offset[t])
        return (total / torch.from_numpy(self.batches.sizes).to(total.device)).cpu()

    def _gradients(self, segment: Segment, t: int, rows: int) -> Tensor:
        keep = None
        if self.drops and segment.noise is not None:  # u + keep rate reaches 1 with probability keep rate
            keep = (segment.noise[t] + self.keep_rate[:rows]).floor_()
        if rows not in self.prefixes:
            self.prefixes[rows] = self.layout.views(self.params[:rows]), self.layout.views(self.grads[:rows])
        batch = HeadBatch(segment.x[t], segment.y[t], segment.weight[t], keep, self.keep_rate[:rows])
        return self.gradients(*self.prefixes[rows], batch, self.settings.gamma)

    def _adamw_tables(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Bias corrections of T steps as (T, A, 1): w += m / (scale * sqrt(v) + offset) is AdamW's step."""
        correction1, correction2 = 1 - BETA1**steps, 1 - BETA2**steps
        scale = (correction1 / correction2.sqrt()).unsqueeze(2) / -self.settings.lr
        offset = (EPSILON * correction1).unsqueeze(2) / -self.settings.lr
        return scale.to(self.params.dtype), offset.to(self.params.dtype)

    def adamw(self, rows: int, scale: Tensor, offset: Tensor) -> None:
        """One AdamW step of the first `rows` rows, the L2-SP pull added to the gradient."""
        params, grads, work = self.params[:rows], self.grads[:rows], self.work[:rows]
        first, second = self.first[:rows], self.second[:rows]
        if self.pull is not None:
            torch.sub(params, self.start[:rows], out=work)
            grads.addcmul_(work, self.pull[:rows])
        if self.settings.weight_decay:
            params.mul_(1 - self.settings.lr * self.settings.weight_decay)
        first.lerp_(grads, 1 - BETA1)
        second.mul_(BETA2).addcmul_(grads, grads, value=1 - BETA2)
        torch.sqrt(second, out=work)
        params.addcdiv_(first, work.mul_(scale).add_(offset))

    def state(self) -> dict[str, Tensor]:
        """What must be kept to continue after an epoch."""
        return {"params": self.params, "first": self.first, "second": self.second}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state`."""
        for name, value in state.items():
            getattr(self, name).copy_(value)
