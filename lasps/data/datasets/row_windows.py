"""Windows of rows that are stored once: whole ones, or the parts that a network reads.

Shapes: R rows, V features that are not scores, F features, B batch, T days, E columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lasps.data.features.scores import CODES_PER_UNIT
from lasps.window_parts import SKIP_DAYS, WindowParts, means_of_last_days

CHUNK = 128
"""Windows whose means are taken at once."""


class RowWindows:
    """Windows of T rows over features (R, V) and the codes of scores (R, F - V); nothing is copied before it is asked.

    Args:
        values: float32 (R,V), C-contiguous, no NaN.
        codes: int8 (R,F-V), C-contiguous, 0 where a score is missing.
        window: T.

    Raises:
        ValueError: fewer than T rows.
    """

    def __init__(self, values: np.ndarray, codes: np.ndarray, window: int) -> None:
        if len(values) < window:
            raise ValueError(
                f"expected at least {window} rows for windows of {window} days, found {len(values)}. Build the "
                "dataset again"
            )
        self.values, self.codes, self.window = torch.from_numpy(values), torch.from_numpy(codes), window
        self.num_features = values.shape[1] + codes.shape[1]

    def whole(self, ends: np.ndarray) -> Tensor:
        """The windows that end at the rows `ends`: float32 (B,T,F)."""
        return self._last_days(ends, self.window)

    def parts(self, ends: np.ndarray, columns: Sequence[int]) -> WindowParts:
        """What a network reads of them whose transformer has these columns: as `parts_of(whole(ends), columns)`."""
        means = means_of_last_days(self._last_days(ends, min(max(SKIP_DAYS), self.window)))
        first, last = columns[0], columns[-1] + 1
        if list(columns) == list(range(first, last)) and last <= self.values.shape[1]:
            rows, width = self.values.shape
            view = self.values.as_strided((rows - self.window + 1, self.window, last - first), (width, width, 1), first)
            return WindowParts(view.index_select(0, torch.from_numpy(ends - (self.window - 1))), means)
        return WindowParts(self.whole(ends).index_select(2, torch.tensor(columns)), means)

    def means(self, ends: np.ndarray, days: Sequence[int] = SKIP_DAYS) -> np.ndarray:
        """The features' means over the last `days` of the windows that end at the rows `ends`: float32 (B, len F)."""
        out = np.empty((len(ends), len(days) * self.num_features), dtype=np.float32)
        for start in range(0, len(ends), CHUNK):
            part = slice(start, start + CHUNK)
            out[part] = means_of_last_days(self._last_days(ends[part], min(max(days), self.window)), days).numpy()
        return out

    def _last_days(self, ends: np.ndarray, days: int) -> Tensor:
        starts = torch.from_numpy(ends - (days - 1))
        values = _rows_from(self.values, starts, days)
        if not self.codes.shape[1]:
            return values
        scores = _rows_from(self.codes, starts, days)
        out = values.new_empty((len(starts), days, self.num_features))
        out[..., : values.shape[2]] = values
        torch.div(scores, CODES_PER_UNIT, out=out[..., values.shape[2] :])
        return out


def _rows_from(rows: Tensor, starts: Tensor, days: int) -> Tensor:
    """`days` rows from each start on: (B, days, k) of rows (R, k), each window one run of memory."""
    count, width = rows.shape
    runs = rows.as_strided((count - days + 1, days * width), (width, 1))
    return runs.index_select(0, starts).view(len(starts), days, width)
