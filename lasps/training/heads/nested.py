"""Phase 2's three nested models on val: the initial heads, + a change common to all sectors, + the sectors' own part.

What Phase 2 gains over its initial heads may come from training longer or from another loss, without any sector. So the
sector part has to be better than the *common change*, the same method without sectors: first as a whole, then sector by
sector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from lasps.training.heads.acceptance import Acceptance, accept_heads, accept_together, gains_of
from lasps.training.heads.data import HeadData, HeadResult
from lasps.training.heads.independent import train_heads
from lasps.training.heads.joint import train_directions
from lasps.training.heads.settings import HeadSettings
from lasps.training.heads.state import OnEpoch


@dataclass(frozen=True)
class NestedResult:
    """What Phase 2 came to.

    base: the data with the heads that the sector part starts from: the initial ones with the common change if val
    accepted it; sectors: the sector part's training; common: the common change's (None for independent heads or without
    val); common_gain, sector_gain: over the initial heads and over base, all sectors together (None likewise);
    by_sector: sector -> its gain over base (empty without val).
    """

    base: HeadData
    sectors: HeadResult
    common: HeadResult | None = None
    common_gain: Acceptance | None = None
    sector_gain: Acceptance | None = None
    by_sector: Mapping[int, Acceptance] = field(default_factory=dict)

    @property
    def common_accepted(self) -> bool:
        """The base is the initial heads with the common change."""
        return self.common_gain is not None and self.common_gain.significant

    @property
    def accepted(self) -> list[int]:
        """Sectors that keep their own part; all of them where there is no val to tell."""
        if not self.by_sector:
            return sorted(self.sectors.best_heads)
        return sorted(accepted_gains(self.base, self.sectors, self.by_sector, self.sector_gain))

    @property
    def common_heads(self) -> dict[int, dict[str, Tensor]]:
        """sector -> the head with the common change; empty where val did not accept it."""
        return {} if self.common is None or not self.common_accepted else self.common.best_heads

    @property
    def heads(self) -> dict[int, dict[str, Tensor]]:
        """sector -> the head that Phase 2 leaves behind, where it is not the initial one."""
        return self.common_heads | {sector: self.sectors.best_heads[sector] for sector in self.accepted}


def train_nested(
    data: HeadData,
    settings: HeadSettings,
    *,
    resume_dir: Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> NestedResult:
    """Train the common change and then, from what val accepts of it, the sector part.

    Args:
        resume_dir: where the state after each epoch is kept; whoever calls removes `state_files` when all is saved.
    """
    common_file, sector_file = (None, None) if resume_dir is None else state_files(resume_dir)
    base, common, common_gain = data, None, None
    if settings.rank > 0 and data.val is not None:
        base, common, common_gain = common_change(
            data, settings, state_file=common_file, device=device, progress=progress
        )
    result = train_head(base, settings, state_file=sector_file, device=device, progress=progress)
    if data.val is None:
        return NestedResult(base, result)
    gains = gains_of(base, result)
    sector_gain = accept_together(base, result, gains) if settings.rank > 0 else None
    return NestedResult(base, result, common, common_gain, sector_gain, accept_heads(base, result, gains))


def common_change(
    data: HeadData,
    settings: HeadSettings,
    *,
    state_file: Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> tuple[HeadData, HeadResult, Acceptance]:
    """(the data with the initial heads that the sector part starts from, the common change, its gain on val)."""
    result = train_directions(data, settings, common=True, state_file=state_file, device=device, progress=progress)
    gain = accept_together(data, result)
    return (with_heads(data, result.best_heads) if gain.significant else data), result, gain


def train_head(
    data: HeadData,
    settings: HeadSettings,
    on_epoch: OnEpoch | None = None,
    *,
    state_file: Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> HeadResult:
    """The sector part of one setting: shared directions, or, at rank 0, independent heads."""
    if settings.rank > 0:
        return train_directions(data, settings, on_epoch, state_file=state_file, device=device, progress=progress)
    return train_heads(data, settings, on_epoch, state_file=state_file, device=device, progress=progress)


def accepted_gains(
    data: HeadData,
    result: HeadResult,
    by_sector: Mapping[int, Acceptance] | None = None,
    together: Acceptance | None = None,
) -> dict[int, Acceptance]:
    """sector -> its gain on val over `data`'s initial heads, where it is accepted.

    Shared directions are accepted as a whole first (one-sided 5 %); independent heads share nothing to accept.
    """
    as_a_whole = result.settings.rank > 0
    gains = gains_of(data, result) if by_sector is None or (as_a_whole and together is None) else {}
    by_sector = accept_heads(data, result, gains) if by_sector is None else by_sector
    if as_a_whole and not (together or accept_together(data, result, gains)).significant:
        return {}
    return {sector: gain for sector, gain in by_sector.items() if gain.accepted}


def with_heads(data: HeadData, heads: Mapping[int, Mapping[str, Tensor]]) -> HeadData:
    """The same samples with other initial heads for the sectors in `heads`."""
    names = {name: value for head in heads.values() for name, value in head.items()}
    start = {
        name: data.start[name].clone() if name in data.start else value.new_zeros(data.num_sectors, *value.shape)
        for name, value in names.items()
    }
    for sector, head in heads.items():
        for name, value in head.items():
            start[name][sector] = value
    return replace(data, start=start)


def state_files(resume_dir: Path) -> tuple[Path, Path]:
    """Where the common change's and the sector part's state are kept."""
    return resume_dir / "phase2.common.state.pt", resume_dir / "phase2.state.pt"
