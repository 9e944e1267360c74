"""Several checkpoints as one model: the mean of their calibrated probabilities.

An ensemble is a list of checkpoints, or a .json that names them relative to itself with the digest of each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lasps.config.settings import settings
from lasps.evaluation.combined import mean_of
from lasps.evaluation.forecast import Forecast
from lasps.files import write_atomically
from lasps.models.sector_aware_model import SectorAwareFusionModel
from lasps.reproducibility import sha256_of
from lasps.tracking.queries import RUN_ID, download_checkpoint
from lasps.training.checkpoints import Card, Checkpoint

KIND = "lasps ensemble"
SHARED = ("features", "scaler", "window", "warm_up", "chart_size", "horizon", "threshold", "universe")
"""What of the data all members must have been trained on alike."""


@dataclass(frozen=True)
class Ensemble:
    """Checkpoints trained on the same features; used as a `Checkpoint` is.

    path: of the .json; of a list that no file holds, of its first checkpoint.
    """

    path: Path
    members: tuple[Checkpoint, ...]
    name: str = "ensemble"

    @classmethod
    def of(cls, members: Sequence[Checkpoint], path: Path | None = None, name: str = "ensemble") -> Ensemble:
        """Raises ValueError for fewer than two members, one twice, or members of different features."""
        if len(members) < 2:
            raise ValueError(f"{name}: expected at least two checkpoints, got {[str(m.path) for m in members]}")
        first = members[0]
        for i, member in enumerate(members):
            if member.path.resolve() in {other.path.resolve() for other in members[:i]}:
                raise ValueError(f"{name}: {member.path} is named twice")
            differ = [key for key in SHARED if member.card.data.get(key) != first.card.data.get(key)]
            if differ:
                raise ValueError(
                    f"{name}: expected checkpoints that were trained on the same features, but {member.path} and "
                    f"{first.path} differ in {', '.join(differ)}. Train them on one dataset"
                )
        return cls(path or first.path, tuple(members), name)

    @classmethod
    def open(cls, path: str | Path, device: str = "cpu") -> Ensemble:
        """The ensemble that a .json names.

        Raises:
            ValueError: not such a file, or a member that has changed since it was written.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            members = [(path.parent / member["path"], member["sha256"]) for member in content["members"]]
            kind, name = content["kind"], str(content["name"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: expected an ensemble as `make seeds` writes it, cannot read it ({error})"
            ) from error
        if kind != KIND:
            raise ValueError(f"{path}: expected the kind {KIND!r}, found {kind!r}")
        for file, digest in members:
            if file.is_file() and sha256_of(file) != digest:
                raise ValueError(
                    f"{path}: {file} is not the checkpoint that the ensemble was made of (its digest is another). Put "
                    "it back, or make the ensemble again with `make seeds`"
                )
        return cls.of([Checkpoint.open(file, device) for file, _ in members], path, name)

    @property
    def model(self) -> SectorAwareFusionModel:
        """The first member's: all read the same features."""
        return self.members[0].model

    @property
    def card(self) -> Card:
        """The first member's, without what is of that one alone."""
        first = self.members[0].card
        training = {key: value for key, value in first.training.items() if key != "seed"}
        return replace(first, name=self.name, training=training, metrics={}, history={}, mlflow={}, sha256="")

    def gammas_of(self, sector_ids: ArrayLike) -> np.ndarray:
        """As `Checkpoint.gammas_of`, the first member's."""
        return self.members[0].gammas_of(sector_ids)

    def predict(self, data: Any, split: str | None = None, batch_size: int = 512) -> Forecast:
        """The mean of the members' calibrated probabilities.

        Args:
            data: a dataset, which each member reads once.
        """
        return mean_of([member.predict(data, split, batch_size) for member in self.members], self.name)


def write_ensemble(path: Path, members: Sequence[Path], name: str = "ensemble") -> None:
    """Write the .json of checkpoints that lie beside or below it."""
    named = [{"path": str(member.relative_to(path.parent)), "sha256": sha256_of(member)} for member in members]
    write_atomically(path, json.dumps({"kind": KIND, "name": name, "members": named}, indent=1) + "\n")


def open_model(where: str | Path, device: str = "cpu") -> Checkpoint | Ensemble:
    """A checkpoint, also by the id of the run that made it; or several, by commas or in an ensemble's .json, as one."""
    text = str(where)
    if re.fullmatch(RUN_ID, text) and not Path(text).exists():
        return Checkpoint.open(download_checkpoint(text, settings.CHECKPOINT_DIR / "runs"), device)
    if text.endswith(".json"):
        return Ensemble.open(text, device)
    if "," in text and not Path(text).exists():
        return Ensemble.of([Checkpoint.open(part, device) for part in text.split(",")])
    return Checkpoint.open(text, device)
