"""Windows cut from rows: whole ones hold the rows, and the parts are those of the whole ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lasps.data.datasets.row_windows import RowWindows
from lasps.data.features.scores import CODES_PER_UNIT, decoded, encoded
from lasps.window_parts import parts_of

VALUES, SCORES = 6, 4


def windows_of(rows: int, window: int, seed: int = 0) -> tuple[RowWindows, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, VALUES)).astype(np.float32)
    codes = rng.integers(-127, 128, (rows, SCORES)).astype(np.int8)
    return RowWindows(values, codes, window), values, codes


@settings(max_examples=40, deadline=None)
@given(window=st.integers(1, 30), data=st.data())
def test_whole_windows_are_the_rows_and_parts_are_those_of_whole_windows(window, data) -> None:
    windows, values, codes = windows_of(40, window)
    ends = np.array(data.draw(st.lists(st.integers(window - 1, 39), min_size=1, max_size=8)))
    columns = data.draw(st.lists(st.integers(0, VALUES + SCORES - 1), min_size=1, max_size=6, unique=True))
    whole = windows.whole(ends)
    for end, found in zip(ends, whole.numpy(), strict=True):
        rows = slice(end - window + 1, end + 1)
        assert np.array_equal(found, np.hstack([values[rows], codes[rows].astype(np.float32) / CODES_PER_UNIT]))
    parts, expected = windows.parts(ends, columns), parts_of(whole, torch.tensor(columns))
    assert torch.equal(parts.days, expected.days)
    assert torch.equal(parts.means, expected.means)
    assert np.array_equal(windows.means(ends), expected.means.numpy())


def test_columns_side_by_side_are_read_without_the_rest_to_the_same_bits() -> None:
    windows, _, _ = windows_of(200, 60)
    ends = np.arange(59, 200)
    for columns in ([1, 2, 3], [0, 1, 2, 3, 4, 5], [5]):
        assert torch.equal(windows.parts(ends, columns).days, windows.whole(ends)[:, :, columns])


@given(st.lists(st.floats(-4, 4) | st.just(float("nan")), min_size=1, max_size=50))
def test_a_score_in_one_byte_is_within_half_a_step_and_nan_stays_nan(scores) -> None:
    x = np.array(scores)
    found = decoded(encoded(x))
    assert np.array_equal(np.isnan(found), np.isnan(x))
    np.testing.assert_allclose(found, np.clip(x, -3.175, 3.175), rtol=0, atol=0.0125 + 1e-6)


def test_fewer_rows_than_a_window_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 60 rows"):
        windows_of(59, 60)
