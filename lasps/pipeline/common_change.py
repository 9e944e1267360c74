"""The control for sector heads: what Phase 2 does without knowing sectors, as a checkpoint of its own.

`common_change.pt` is Phase 2's input with the change common to all sectors, where val accepted one; else its weights
are the input's. `phase2_best` minus it is the sector effect: the samples, the loss and the method are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loguru import logger
from torch import Tensor

from lasps.reproducibility import sha256_of
from lasps.training.checkpoints import Card, read_card, save_checkpoint
from lasps.training.heads.acceptance import Acceptance
from lasps.training.heads.nested import NestedResult

COMMON_CHANGE = "common_change"


def save_common_change(phase2: Path, before: Mapping[str, Tensor], nested: NestedResult, card: Card) -> dict[str, Any]:
    """Save it beside `phase2`, and return what that one's card says of it; nothing for independent heads.

    Args:
        before: the weights that Phase 2 started from.
        card: of phase2_best.
    """
    if nested.common is None:
        return {}
    path = phase2.with_name(f"{COMMON_CHANGE}.pt")
    state = dict(before) | {
        f"sector_heads.{sector}.{name}": value
        for sector, head in nested.common_heads.items()
        for name, value in head.items()
    }
    best_epoch = nested.common.best_epoch if nested.common_accepted else 0
    gamma = nested.base.start_gamma
    own = replace(
        card,
        name=COMMON_CHANGE,
        calibration=card.calibration | {"focal_gamma": gamma if isinstance(gamma, float) else list(gamma)},
        history={
            "accepted": nested.common_accepted,
            "val_log_loss": nested.common.val_log_loss,
            "best_epoch": best_epoch,
        },
        key=None,
        mlflow={},
        metrics={"best_epoch": best_epoch},
    )
    digest = save_checkpoint(path, state, own.as_json())
    logger.info(f"Saved: {path}")
    return {"path": path.name, "sha256": digest}


def common_change_of(phase2: Path) -> Path | None:
    """The common change that was made with a Phase 2 checkpoint; None where there is none, or another run's."""
    made = read_card(phase2).common_change
    path = phase2.with_name(f"{COMMON_CHANGE}.pt")
    return path if made and path.is_file() and sha256_of(path) == made["sha256"] else None


def nested_history(nested: NestedResult) -> dict[str, Any]:
    """What of the nested models goes into a checkpoint's .json: what was accepted, and the shared directions."""
    found = nested.sectors.directions
    directions = (
        None
        if found is None
        else {
            "sectors": list(found.sectors),
            **{
                name: [[round(value, 6) for value in row] for row in getattr(found, name).tolist()]
                for name in ("loadings", "classes", "features", "biases")
            },
            "mean": [round(value, 6) for value in found.mean.tolist()],
        }
    )
    return {
        "common_change_accepted": nested.common_accepted,
        "common_change_epoch": nested.common.best_epoch if nested.common_accepted and nested.common else None,
        "common_change_gain": gain_row(nested.common_gain),
        "sector_part_gain": gain_row(nested.sector_gain),
        "directions": directions,
    }


def gain_row(gain: Acceptance | None) -> dict[str, Any] | None:
    """A gain on val as JSON."""
    if gain is None:
        return None
    return {
        "gain": gain.gain,
        "standard_error": gain.standard_error,
        "blocks": gain.blocks,
        "n": gain.n,
        "significant": gain.significant,
    }
