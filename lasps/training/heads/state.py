"""The state of an interrupted training of heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from loguru import logger

from lasps.training.resume import DamagedStateError, read_state


def read_head_state(state_file: Path, key: str, device: str | torch.device = "cpu") -> dict[str, Any] | None:
    """The state of an interrupted training of this `key`; None, said in a line, where it is damaged or another's."""
    if not state_file.is_file():
        return None
    try:
        found_key, state = read_state(state_file, device)
    except DamagedStateError as error:
        logger.warning(f"{error}. Phase 2 starts from its beginning")
        return None
    if found_key != key:
        logger.info(f"{state_file.name}: of other data or settings, Phase 2 starts from its beginning")
        return None
    return dict(state)
