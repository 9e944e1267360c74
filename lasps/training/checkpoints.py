"""Checkpoints: a bare state_dict in NAME.pt, its card (how to use it, where it came from) in NAME.json beside it.

Saving replaces both in an order that a kill at any moment leaves loadable: (1) both temporary files are written and
synchronised, (2) the old .json is removed, (3) the .pt is renamed into place, (4) the .json is. Between 2 and 4 there
is a .pt without a .json: that loads, on the weaker checks and with a warning. A .json never describes another .pt.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from numpy.typing import ArrayLike
from torch import Tensor

from lasps.config.model_config import TRAINING_CONFIG
from lasps.config.settings import settings
from lasps.evaluation.forecast import Forecast
from lasps.files import sync, temporary_beside, told, write_synced
from lasps.models.sector_aware_model import SectorAwareFusionModel
from lasps.reproducibility import json_text
from lasps.training.checkpoint_formats import checked_state, weights_in
from lasps.training.inference import predict

MADE_BY = {
    "phase1_best": "python experiments/train.py --phase 1",
    "phase3_final": "python experiments/train.py --phase 3",
    "phase2_best": "python experiments/train_phase2.py --checkpoint checkpoints/phase3_final.pt",
}
MAKE_ANEW = "Make it anew with"
DIGEST, OWN_DIGEST = "sha256", "json_sha256"
"""In the .json: of the .pt beside it, and of everything else in the .json itself."""
OBJECTS = ("model", "training", "phase", "data", "calibration", "metrics", "history", "mlflow")
"""What is an object in the .json, where it is there."""
PLAIN_NAME = r"\w[\w .=+-]*"
"""A checkpoint's name becomes part of a file's name."""
Section = dict[str, Any]


@dataclass(frozen=True)
class Card:
    """What stands in the .json beside a checkpoint, by the same names; what nobody wrote (bare weights) is empty.

    data: features, scaler, window, ... of the dataset; calibration: focal_gamma (one, or one per sector) and
    class_weights of the loss; input: the checkpoint it started from; key: a digest of everything it depends on.
    """

    name: str = ""
    model: Section = field(default_factory=dict)
    training: Section = field(default_factory=dict)
    phase: Section = field(default_factory=dict)
    data: Section = field(default_factory=dict)
    calibration: Section = field(default_factory=dict)
    metrics: Section = field(default_factory=dict)
    history: Section = field(default_factory=dict)
    input: Section | None = None
    key: str | None = None
    git_commit: str | None = None
    mlflow: Section = field(default_factory=dict)
    common_change: Section = field(default_factory=dict)
    sha256: str = ""

    @classmethod
    def of(cls, meta: Mapping[str, Any] | None) -> Card:
        """From a .json's content; None: an empty card."""
        known = {part.name for part in fields(cls)}
        return cls(**{name: value for name, value in (meta or {}).items() if name in known})

    def as_json(self) -> dict[str, Any]:
        """What `save_checkpoint` takes."""
        return {name: value for name, value in vars(self).items() if value or name not in ("common_change", DIGEST)}

    @property
    def focal_gamma(self) -> float | list[float]:
        """The focal exponent that the heads were trained with, one or one per sector; the project's own if unknown."""
        gamma: float | list[float] | None = self.calibration.get("focal_gamma")
        return TRAINING_CONFIG["focal_gamma"] if gamma is None else gamma

    @property
    def class_weights(self) -> tuple[float, ...]:
        """Of the loss; the project's own if unknown."""
        return tuple(self.calibration.get("class_weights") or settings.CLASS_WEIGHTS)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model on its device, and its card."""

    path: Path
    model: SectorAwareFusionModel
    card: Card
    device: str = "cpu"

    @classmethod
    def open(cls, path: str | Path, device: str = "cpu") -> Checkpoint:
        """Load and check a checkpoint file; raises as `load_checkpoint`."""
        model, card = load_model(path)
        logger.info(f"Loaded: {path}")
        return cls(Path(path), model.to(device), card, device)

    @property
    def name(self) -> str:
        """phase2_best, ...: its name in tables."""
        return self.card.name or self.path.stem

    def gammas_of(self, sector_ids: ArrayLike) -> np.ndarray:
        """The focal exponent that each sample's head was trained with: float64 (N,)."""
        gammas: np.ndarray = np.broadcast_to(np.asarray(self.card.focal_gamma, dtype=float), self.model.num_sectors)
        return np.take(gammas, np.asarray(sector_ids))

    def predict(self, data: Any, split: str | None = None, batch_size: int = 512) -> Forecast:
        """Calibrated probabilities of every sample, each through its sector's head.

        Args:
            data: a dataset, or batches as `lasps.training.inference.predict` takes them.
        """
        found = predict(
            self.model, data, self.device, batch_size=batch_size, desc=f"{self.name} on {split or 'new data'}"
        )
        forecast = Forecast.from_logits(
            found.logits,
            found.labels,
            found.sector_ids,
            samples=getattr(data, "samples", None),
            gamma=self.gammas_of(found.sector_ids),
            class_weights=self.card.class_weights,
        )
        return forecast.named(self.name, split, self.card.training.get("seed"))


def save_checkpoint(path: str | Path, state_dict: Mapping[str, Tensor], meta: Mapping[str, Any]) -> str:
    """Replace NAME.pt and NAME.json; an error before the first rename leaves both as they were.

    Args:
        path: NAME.pt; its folder is made where it is missing.
        state_dict: finite tensors by name; kept on the CPU, without wrappers' prefixes.
        meta: what can be written as JSON; NaN and infinities become null. `sha256` (of the .pt) is added.

    Returns:
        The SHA-256 of NAME.pt.

    Raises:
        ValueError: no state_dict, or values that are not finite.
    """
    path = checked_path(path)
    state = checked_state(state_dict, f"the state to be saved as {path}", "")
    buffer = io.BytesIO()
    torch.save({name: tensor.detach().cpu().clone() for name, tensor in state.items()}, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    with told(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace_both(path, content, described({**meta, DIGEST: digest}))
    return digest


def described(meta: Mapping[str, Any]) -> str:
    """The .json's text: `meta` and a digest of it."""
    plain = json.loads(json_text({name: value for name, value in meta.items() if name != OWN_DIGEST}))
    return json_text({**plain, OWN_DIGEST: meta_digest(plain)})


def meta_digest(meta: Mapping[str, Any]) -> str:
    """SHA-256 of what a .json says, but this digest itself."""
    rest = {name: value for name, value in meta.items() if name != OWN_DIGEST}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _replace_both(path: Path, content: bytes, text: str) -> None:
    companion = path.with_suffix(".json")
    with temporary_beside(path) as new_path, temporary_beside(companion) as new_companion:
        write_synced(new_path, content)
        write_synced(new_companion, text)
        companion.unlink(missing_ok=True)
        sync(path.parent)
        os.replace(new_path, path)
        os.replace(new_companion, companion)
    sync(path.parent)


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Read and verify a checkpoint; code in it is never executed.

    With a .json of lasps beside it the file must have the SHA-256 written there. Without one (weights from elsewhere,
    in any form that `checkpoint_formats` reads) checksums, names, types and finite values are all that can be checked;
    one warning says so.

    Returns:
        The state_dict on the CPU, in float32, without wrappers' prefixes; and the .json's content or None.

    Raises:
        FileNotFoundError: there is no such file; names the command that makes it.
        ValueError: truncated, altered, not finite, pickled code, or no state_dict; says what to do.
    """
    path = checked_path(path)
    advice = f"{MAKE_ANEW} '{MADE_BY.get(path.stem, 'python experiments/train.py')}' or name another checkpoint."
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: expected a file, found nothing. {advice}")
    content = path.read_bytes()
    meta = read_meta(path)
    if meta is None:
        companion = path.with_suffix(".json")
        said = (
            f"{companion.name} beside it has no sha256: it is not of lasps and not used"
            if companion.is_file()
            else f"no {companion.name} beside it"
        )
        logger.warning(
            f"{path}: {said}. Only checksums, shapes and finite values are checked; where the weights came "
            "from is unknown"
        )
    else:
        digest = hashlib.sha256(content).hexdigest()
        if digest != meta[DIGEST]:
            raise ValueError(
                f"checkpoint {path}: expected SHA-256 {meta['sha256']} (from its .json), the file of "
                f"{len(content)} bytes has {digest}: it was altered or cut off. {advice}"
            )
    return weights_in(content, path, advice), meta


def load_model(path: str | Path) -> tuple[SectorAwareFusionModel, Card]:
    """The model in a checkpoint file, in eval mode on the CPU, and its card.

    Raises:
        ValueError, FileNotFoundError: see `load_checkpoint`; or the tensors are those of another model.
    """
    state, meta = load_checkpoint(path)
    try:
        return SectorAwareFusionModel.from_state_dict(state), Card.of(meta)
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}") from error


def checked_path(path: str | Path) -> Path:
    """The path of a .pt file.

    Raises:
        ValueError: it ends in .json (the companion's name) or is a folder.
    """
    path = Path(path)
    if path.suffix == ".json" or path.is_dir():
        raise ValueError(f"checkpoint {path}: expected a .pt file, got a {'folder' if path.is_dir() else '.json'}")
    return path


def read_card(path: str | Path | None) -> Card:
    """The card beside a checkpoint, empty where there is none (or no checkpoint); raises as `read_meta`."""
    return Card.of(None if path is None else read_meta(path))


def read_meta(path: str | Path) -> dict[str, Any] | None:
    """The content of the .json beside a checkpoint; None where there is none, or one that lasps did not write.

    Raises:
        ValueError: it is no JSON, not as it was written, or a part of it is of another type than lasps writes.
    """
    companion = Path(path).with_suffix(".json")
    if not companion.is_file():
        return None
    try:
        meta = json.loads(companion.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{companion}: expected JSON, got {error}. {REMEDY}") from error
    if not isinstance(meta, dict) or not {DIGEST, OWN_DIGEST} & meta.keys():
        return None
    _check_meta(meta, companion)
    return meta


REMEDY = "Remove it to load the checkpoint on the weaker checks, or make both anew."


def _check_meta(meta: Mapping[str, Any], companion: Path) -> None:
    if DIGEST not in meta or (OWN_DIGEST in meta and meta[OWN_DIGEST] != meta_digest(meta)):
        raise ValueError(
            f"{companion}: expected the content of {OWN_DIGEST} {str(meta.get(OWN_DIGEST))[:12]}, it has "
            f"{meta_digest(meta)[:12]}: it was changed by hand or damaged. {REMEDY}"
        )
    for name in OBJECTS:
        if not isinstance(meta.get(name, {}), dict):
            raise ValueError(f"{companion}: expected '{name}' to be an object, got {meta[name]!r}. {REMEDY}")
    name = meta.get("name", "unnamed")
    if not isinstance(name, str) or not re.fullmatch(PLAIN_NAME, name):
        raise ValueError(
            f"{companion}: expected a plain 'name' (letters, digits, _ . = + - and spaces), got {name!r}. {REMEDY}"
        )
