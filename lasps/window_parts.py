"""What the network reads of a window: some columns of every day, and the means of all columns over the last days.

Shapes: B batch, T days, F features, E columns that the transformer reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SKIP_DAYS = (1, 5, 20)
"""The skip carries the features' means over the last day, week and month."""


class WindowParts(NamedTuple):
    """A batch of windows, reduced to what the network reads: a third of the bytes of whole windows."""

    days: Tensor
    """float32 (B,T,E), the transformer's columns, the newest day last"""
    means: Tensor
    """float32 (B, 3 F), the features' means over the last 1, 5 and 20 days"""

    def to(self, device: str | torch.device, non_blocking: bool = False) -> WindowParts:
        """The same parts on another device."""
        return WindowParts(*(part.to(device, non_blocking=non_blocking) for part in self))


class Reads(NamedTuple):
    """What of a sample a model reads."""

    columns: tuple[int, ...]
    """the transformer's, of 0..F-1"""
    charts: bool


def parts_of(time_series: Tensor, columns: Tensor) -> WindowParts:
    """The parts of whole windows (B, T, F)."""
    return WindowParts(time_series.index_select(2, columns), means_of_last_days(time_series))


def means_of_last_days(time_series: Tensor, days: Sequence[int] = SKIP_DAYS) -> Tensor:
    """The means over the last `days` of (B, T, F), one after the other: (B, 3 F); fewer days where T is shorter."""
    return torch.cat([time_series[:, -n:].mean(dim=1) for n in days], dim=1)
