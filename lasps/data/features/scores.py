"""Gauss scores in one byte: a dataset has 64 of them in a row, and as float32 they would be more than all else in it.

A code is the score in steps of 1/40, rounded, from -127 to 127: -3.175 to 3.175. The error is at most half a step,
0.0125, up to there; beyond (the first or last of more than about 700 stocks; the very first of 2,700 has 3.57) the
score is held at the end of the range.
"""

from __future__ import annotations

import numpy as np

CODES_PER_UNIT = 40
LARGEST_CODE = 127
MISSING = -128
"""The code of NaN."""


def encoded(scores: np.ndarray) -> np.ndarray:
    """Codes int8 of scores of any shape; NaN as MISSING."""
    codes = np.clip(np.rint(scores * CODES_PER_UNIT), -LARGEST_CODE, LARGEST_CODE)
    return np.asarray(np.where(np.isnan(codes), MISSING, codes).astype(np.int8))


def decoded(codes: np.ndarray) -> np.ndarray:
    """Scores float32 of codes; MISSING as NaN."""
    scores = codes.astype(np.float32) / np.float32(CODES_PER_UNIT)
    return np.asarray(np.where(codes == MISSING, np.float32(np.nan), scores))
