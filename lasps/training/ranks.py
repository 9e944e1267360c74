"""Several processes that train one model, as torchrun starts them: each takes its share of every batch.

The gradients of a step are those of one process on the whole batch, to rounding; so are the order of samples and the
learning rate. Dropout draws other noise on each rank, so that with it results are alike in distribution only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

WAITING = timedelta(days=7)
"""How long a rank waits for the others: Phase 2 runs on the first one alone, for as long as it takes."""


@dataclass(frozen=True)
class Ranks:
    """This process among `size`; without torchrun it is the only one, and nothing here does anything."""

    rank: int = 0
    size: int = 1

    @classmethod
    def started(cls, device: str) -> Ranks:
        """What torchrun started (RANK and WORLD_SIZE in the environment): nccl on a GPU, gloo on processors."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=WAITING)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process evaluates, writes checkpoints and logs."""
        return self.rank == 0

    def device(self, device: str) -> str:
        """The device, `cuda` as the card of this rank on its machine."""
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if self.size > 1 and device == "cuda" else device

    def share(self, n: int) -> slice:
        """This rank's part of n samples: all parts together are all of them, in order, and as even as can be."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over the ranks, its weights those of the first."""
        return model if self.size == 1 else DistributedDataParallel(model, find_unused_parameters=True)

    def told(self, message: Any = None) -> Any:
        """What the first rank says, on all of them; waits for it."""
        if self.size == 1:
            return message
        box = [message]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def total(self, *values: float) -> list[float]:
        """Sums over the ranks."""
        if self.size == 1:
            return list(values)
        on = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
        sums: Tensor = torch.tensor(values, dtype=torch.float64, device=on)
        dist.all_reduce(sums)
        return [float(x) for x in sums]
