"""Two halves of val: trials are chosen on one, best and default settings are compared on the other."""

from __future__ import annotations

import numpy as np
import torch
from loguru import logger

from lasps.training.heads.acceptance import BLOCK_DAYS, equal_blocks
from lasps.training.heads.data import HeadSamples

FEWEST_BLOCKS = 6  # guess, not tuned: three on each side


def split_val(val: HeadSamples) -> tuple[HeadSamples, HeadSamples]:
    """Alternating blocks of BLOCK_DAYS trading days: even blocks for the study, odd ones for the evaluation.

    Blocks, because labels of neighbouring days overlap; alternating, because a regime that comes once would otherwise
    lie in one half only. Fewer than FEWEST_BLOCKS blocks make them shorter, with a warning. Samples without dates
    are cut into equal blocks in file order.

    Raises:
        ValueError: fewer than two days.
    """
    even = _blocks(val) % 2 == 0
    if even.all() or not len(val):
        raise ValueError(
            "expected a val split of at least two days, to choose on one half and evaluate on the other; got "
            f"{len(val)} samples of one day"
        )
    return _rows(val, np.flatnonzero(even), "study"), _rows(val, np.flatnonzero(~even), "unseen")


def _blocks(val: HeadSamples) -> np.ndarray:
    if val.days is None:
        return equal_blocks(len(val))
    unique, day = np.unique(val.days, return_inverse=True)
    length = max(1, min(BLOCK_DAYS, len(unique) // FEWEST_BLOCKS))
    if length < BLOCK_DAYS:
        logger.warning(
            f"val has {len(unique)} days: the study's halves alternate every {length} days instead of every "
            f"{BLOCK_DAYS}, and the labels at the seams overlap"
        )
    return day // length


def _rows(samples: HeadSamples, rows: np.ndarray, name: str) -> HeadSamples:
    index = torch.from_numpy(rows)
    days = None if samples.days is None else samples.days[rows]
    fingerprint = f"{samples.fingerprint}-{name}" if samples.fingerprint else ""
    return HeadSamples(samples.features[index], samples.labels[index], samples.sector_ids[index], days, fingerprint)
