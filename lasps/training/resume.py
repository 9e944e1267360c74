"""What an interrupted phase needs to go on to the same bits as one that never stopped.

The state of a phase is written whole, in one step, at the end of each epoch. No random generator is in it: every epoch
starts by seeding all of them from (seed, phase, epoch), and the learning rate depends on the step alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch.utils.data import DataLoader

from lasps.reproducibility import write_atomically

FORMAT = 1


def resume_path(folder: Path, phase: int) -> Path:
    """Where a phase's state is kept."""
    return folder / f"phase{phase}.resume.pt"


def write_resume_state(path: Path, key: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Replace the state in one step."""
    write_atomically(path, lambda file: torch.save({"format": FORMAT, "key": dict(key), "state": dict(state)}, file))


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
        found = torch.load(path, map_location="cpu", weights_only=True)
        found_key, state, version = found["key"], found["state"], found["format"]
    except Exception as error:
        raise ValueError(f"{path}: expected the state of an interrupted run, got a damaged file "
                         f"({str(error).partition(chr(10))[0]}). {advice}") from error
    if version != FORMAT:
        raise ValueError(f"{path}: expected a state of format {FORMAT}, got {version}. {advice}")
    differing = sorted(name for name in {*key, *found_key} if key.get(name) != found_key.get(name))
    if differing:
        said = "; ".join(f"{name} was {found_key.get(name)!r}, is {key.get(name)!r}" for name in differing)
        raise ValueError(f"{path}: expected the state of this run, but it was interrupted with other settings: {said}. "
                         f"{advice}")
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
