"""Class-wise accuracy with its interval, the confusion matrix, and the samples that changed their class."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from lasps.evaluation.class_accuracy import class_accuracy, class_changes, confusion
from lasps.evaluation.forecast import Forecast


def made_up_forecast(seed: int, n_days: int = 60, n_stocks: int = 20) -> Forecast:
    random = np.random.default_rng(seed)
    days = np.arange("2024-01-01", np.datetime64("2024-01-01") + n_days, dtype="datetime64[D]")
    codes = np.tile([f"{i:06d}" for i in range(n_stocks)], n_days)
    keys = pl.DataFrame({"code": codes, "date": np.repeat(days, n_stocks)})
    labels = np.random.default_rng(0).integers(0, 3, len(keys))
    logits = random.normal(size=(len(keys), 3)) + np.eye(3)[labels]
    return Forecast.from_logits(logits, labels, labels, samples=keys)


def test_class_accuracy_is_the_share_of_a_class_that_was_predicted_so():
    f = made_up_forecast(1)
    for c, (name, share) in enumerate(class_accuracy(f).items()):
        own = f.labels == c
        assert (name, share.n) == (("SELL", "HOLD", "BUY")[c], own.sum())
        assert share.difference == pytest.approx((f.predicted[own] == c).mean())
        assert share.low < share.difference < share.high


def test_the_interval_of_independent_days_has_the_width_of_the_binomial():
    f = made_up_forecast(1, n_days=400)
    share = class_accuracy(f)["BUY"]
    binomial = np.sqrt(share.difference * (1 - share.difference) / share.n)
    assert 0.6 < (share.high - share.low) / (2 * 1.96 * binomial) < 1.8


def test_few_days_have_no_interval_and_an_absent_class_no_accuracy():
    f = made_up_forecast(1, n_days=10)
    assert class_accuracy(f)["SELL"].low is None
    assert np.isnan(class_accuracy(f.where(f.labels != 0))["SELL"].difference)


def test_the_confusion_matrix_has_truth_in_rows():
    f = made_up_forecast(1)
    matrix = confusion(f)
    assert matrix[0, 2] == ((f.labels == 0) & (f.predicted == 2)).sum() and matrix.sum() == f.n
    assert np.trace(matrix) / f.n == pytest.approx((f.predicted == f.labels).mean())


def test_changed_samples_are_counted_by_pair_with_who_was_right():
    a, b = made_up_forecast(1), made_up_forecast(2)
    table, samples = class_changes(a, b)
    before, after = a, b
    assert len(samples) == table["n"].sum() == (before.predicted != after.predicted).sum()
    row = table.filter((pl.col("from") == "SELL") & (pl.col("to") == "BUY")).row(0, named=True)
    own = (before.predicted == 0) & (after.predicted == 2)
    assert row["n"] == own.sum()
    assert row["right"] == pytest.approx((after.labels[own] == 2).mean())
    assert row["before"] == pytest.approx((before.labels[own] == 0).mean())
    assert class_changes(a, a)[0].is_empty()
