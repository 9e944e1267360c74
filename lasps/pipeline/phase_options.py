"""What a run of phases can be told, and what that makes of the config's hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lasps.config.model_config import THREE_PHASE_CONFIG, TRAINING_CONFIG
from lasps.training.ranks import Ranks


@dataclass(frozen=True)
class PhaseOptions:
    """What a run of phases needs to know; the defaults are the configs'."""

    data_dir: Path
    output_dir: Path
    device: str = "cpu"
    batch_size: int = TRAINING_CONFIG["batch_size"]
    seed: int = TRAINING_CONFIG["seed"]
    resume: bool = False
    cache: bool = True
    checkpoint: Path | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    """Hyperparameters of the phase given on the command line, by their name in THREE_PHASE_CONFIG."""
    phase2_holdout: float | None = None
    """Share of train's last days that Phases 1 and 3 do not see and Phase 2 alone trains on; None: the input
    checkpoint's, or, without one, the config's."""
    epoch_samples: int | None = TRAINING_CONFIG["epoch_samples"]
    """Of an epoch of Phases 1 and 3; None is all of train."""
    focal_gamma: float | None = None
    """Exponent of the focal loss of Phases 1 and 3, 0 is the cross-entropy; None: the input checkpoint's, or, without
    one, the config's."""
    charts: bool = True
    """Whether a fresh model has the CNN; the others are as their checkpoint is."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that train Phases 1 and 3 together."""


def phase_config(phase: int, options: PhaseOptions) -> dict[str, Any]:
    """The phase's section of THREE_PHASE_CONFIG with the command line's overrides."""
    section = {1: "phase1_backbone", 2: "phase2_sector_heads", 3: "phase3_finetune"}[phase]
    config = dict(THREE_PHASE_CONFIG[section])
    return config | {name: value for name, value in options.overrides.items() if name in config and value is not None}
