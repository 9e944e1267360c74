"""The part of val that is looked at between epochs."""

import numpy as np
import polars as pl
import pytest

from lasps.data.datasets.samples import SampleDataset, whole_days


class Dated(SampleDataset):
    samples = None

    def __init__(self, days: np.ndarray | None, n: int) -> None:
        self.labels = self.sector_ids = np.zeros(n, dtype=np.int64)
        self.num_features, self.window, self.chart_size = 3, 60, (16, 180)
        self.fingerprint = "x"
        self.samples = None if days is None else pl.DataFrame({"date": days}).cast(pl.Date)


@pytest.mark.parametrize("at_most", [100, 250, 999])
def test_days_are_whole_evenly_spaced_and_always_the_same(at_most: int) -> None:
    rng = np.random.default_rng(0)
    days = np.sort(rng.integers(0, 100, 1000)) * 3
    found = whole_days(Dated(days, 1000), at_most)
    chosen = np.unique(days[found.indices])
    assert np.array_equal(found.indices, np.flatnonzero(np.isin(days, chosen)))
    assert set(np.diff(np.searchsorted(np.unique(days), chosen))) == {-(-1000 // at_most)}
    assert 0.5 * at_most < len(found) < 1.5 * at_most
    assert np.array_equal(found.indices, whole_days(Dated(days, 1000), at_most).indices)


def test_a_small_dataset_is_looked_at_whole() -> None:
    small = Dated(np.arange(50), 50)
    assert whole_days(small, 50) is small


def test_without_dates_it_is_every_kth_sample() -> None:
    assert np.array_equal(whole_days(Dated(None, 10), 4).indices, [1, 4, 7])
