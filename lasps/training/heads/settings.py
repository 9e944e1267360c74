"""Phase 2's hyperparameters, one name each from the config to the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loguru import logger

from lasps.config.model_config import THREE_PHASE_CONFIG, TRAINING_CONFIG

PHASE2 = THREE_PHASE_CONFIG["phase2_sector_heads"]
CONFIG_NAMES = {"epochs_per_sector": "epochs", "focal_gamma": "gamma"}
"""Where the original specification's config has another name."""
INDEPENDENT_ONLY = ("l2_sp", "weight_decay", "dropout", "gamma")
"""Settings of independent heads (rank 0) that shared directions do not have."""
JOINT_ONLY = ("penalty",)


@dataclass(frozen=True)
class HeadSettings:
    """One setting of Phase 2's hyperparameters. Defaults: THREE_PHASE_CONFIG["phase2_sector_heads"].

    rank: number of directions that all sectors share (`directions`); 0 trains each sector's head on its own.
    penalty: of shared directions. n samples minimise their mean loss + penalty / (2 n) * ||w||^2 over all weights, that
    is a Gaussian prior of that precision around no change; on the product of two factors it acts as a trace norm, which
    keeps few directions (Srebro, Rennie & Jaakkola 2004; Argyriou, Evgeniou & Pontil 2008).
    lr, batch_size: of one sector's head; `joint.JOINT` maps them to a step over all sectors.
    l2_sp: of independent heads, strength of the pull towards the initial head w0 (Xuhong, Grandvalet & Davoine 2018). A
    sector of n samples minimises its mean loss + l2_sp / (2 n) * ||w - w0||^2, that is n times its mean loss + l2_sp /
    2 * ||w - w0||^2: a Gaussian prior of precision l2_sp around the start, the same for every sector, which 150 samples
    hardly move and 100,000 samples overrule (partial pooling). It enters the gradient, not AdamW's decoupled decay.
    weight_decay, gamma, dropout: of independent heads too. Shared directions minimise the log loss of the calibrated
    probabilities, whatever focal exponent the initial heads were trained with.
    """

    lr: float = PHASE2["lr"]
    epochs: int = PHASE2["epochs_per_sector"]
    min_samples: int = PHASE2["min_samples"]
    l2_sp: float = PHASE2["l2_sp"]
    weight_decay: float = PHASE2["weight_decay"]
    batch_size: int = PHASE2["batch_size"]
    gamma: float = PHASE2["focal_gamma"]
    dropout: float = PHASE2["dropout"]
    seed: int = TRAINING_CONFIG["seed"]
    rank: int = PHASE2["rank"]
    penalty: float = PHASE2["penalty"]

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("rank", 0)):
            if int(getattr(self, name)) != getattr(self, name) or getattr(self, name) < least:
                raise ValueError(f"{name}: expected a whole number of {least} or more, got {getattr(self, name)}")
        for name in ("l2_sp", "weight_decay", "gamma", "min_samples", "penalty"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected a finite number of 0 or more, got {getattr(self, name)}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr: expected a finite number above 0, got {self.lr}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a probability of 0 or more and below 1, got {self.dropout}")

    @classmethod
    def of(cls, config: Mapping[str, Any], seed: int = TRAINING_CONFIG["seed"]) -> HeadSettings:
        """The settings that a section of THREE_PHASE_CONFIG stands for; other entries of it are left out."""
        named = {CONFIG_NAMES.get(name, name): value for name, value in config.items()}
        return cls(**{name: named[name] for name in cls.__dataclass_fields__ if name in named} | {"seed": seed})


def warn_of_ignored(given: Mapping[str, Any], rank: int) -> None:
    """Name the settings in `given` (by either name, None is not given) that a training of this rank does not have."""
    unused = JOINT_ONLY if rank == 0 else INDEPENDENT_ONLY
    names = [name for name, value in given.items() if value is not None and CONFIG_NAMES.get(name, name) in unused]
    if names:
        kind = "independent heads" if rank == 0 else "shared directions"
        logger.warning(f"{', '.join(names)}: no effect on {kind} (rank {rank}); ignored")
