"""What an interrupted phase needs to go on to the same bits as one that never stopped.

The state of a phase is written whole, in one step, at the end of each epoch. No random generator is in it: every epoch
starts by seeding all of them from (seed, phase, epoch), and the learning rate depends on the step alone.

A state file is one line, `lasps-state 2 SHA256`, and what torch.save wrote of {"key": ..., "state": ...}. The digest is
checked before a byte of the rest is used, and the key says to which job the state belongs.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch.utils.data import DataLoader

from lasps.files import write_atomically

MAGIC = b"lasps-state 2 "


class DamagedStateError(ValueError):
    """A state file that was altered, cut off, or written by another version of lasps."""


def resume_path(folder: Path, phase: int) -> Path:
    """Where a phase's state is kept."""
    return folder / f"phase{phase}.resume.pt"


def write_state(path: Path, key: Any, state: Any) -> None:
    """Replace a state file in one step.

    Args:
        key: of the job that the state belongs to; plain values.
        state: tensors and plain containers.
    """
    buffer = io.BytesIO()
    torch.save({"key": key, "state": state}, buffer)
    content = buffer.getvalue()
    write_atomically(path, MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def read_state(path: Path, device: str | torch.device = "cpu") -> tuple[Any, dict[str, Any]]:
    """(key, state) of a state file; not a byte of a file whose digest is wrong is used.

    Raises:
        FileNotFoundError: there is none.
        DamagedStateError: see there.
    """
    head, _, content = path.read_bytes().partition(b"\n")
    if not head.startswith(MAGIC):
        raise DamagedStateError(
            f"{path}: expected a state that begins with '{MAGIC.decode().strip()}', got something "
            "else: it is damaged or of another version of lasps"
        )
    digest = hashlib.sha256(content).hexdigest()
    if head != MAGIC + digest.encode():
        raise DamagedStateError(
            f"{path}: expected SHA-256 {head[len(MAGIC) :].decode(errors='replace')}, its content "
            f"has {digest}: it was altered or cut off"
        )
    found = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    return found["key"], found["state"]


def write_resume_state(path: Path, key: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Replace a phase's state in one step."""
    write_state(path, dict(key), dict(state))


def read_resume_state(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state written for exactly this `key`; None where there is none.

    Raises:
        ValueError: the file is damaged, or belongs to a run with other settings, data or starting weights (named).
    """
    advice = f"Start afresh without --resume, or remove {path}."
    if not path.is_file():
        logger.info(f"nothing to resume in {path}: starting afresh")
        return None
    try:
        found_key, state = read_state(path)
    except DamagedStateError as error:
        raise ValueError(f"{error}. {advice}") from error
    differing = sorted(name for name in {*key, *found_key} if key.get(name) != found_key.get(name))
    if differing:
        said = "; ".join(f"{name} was {found_key.get(name)!r}, is {key.get(name)!r}" for name in differing)
        raise ValueError(
            f"{path}: expected the state of this run, but it was interrupted with other settings: {said}. {advice}"
        )
    return state


def data_key(loader: Any) -> dict[str, Any]:
    """What tells a loader's data apart: fingerprint (where the dataset has one), samples, batch size and order."""
    dataset = getattr(loader, "dataset", None)
    key = {
        "fingerprint": getattr(dataset, "fingerprint", None),
        "samples": len(dataset) if hasattr(dataset, "__len__") else None,  # type: ignore[arg-type]
        "batches": len(loader),
        "batch_size": getattr(loader, "batch_size", None),
        "seed": getattr(loader, "seed", None),
    }
    if isinstance(loader, DataLoader):
        key["sampler"] = type(loader.sampler).__name__
    return key
