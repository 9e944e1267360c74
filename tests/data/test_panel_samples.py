"""Samples straight from a panel: the dataset's own, and never anything that a later bar could tell."""

from datetime import date

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lasps.data.build import build_dataset
from lasps.data.datasets.dataset import Dataset
from lasps.data.datasets.panel_samples import PanelRows, PanelSamples
from lasps.data.panel import Panel
from lasps.data.spec import DatasetSpec
from lasps.window_parts import Reads
from tests.factories import BORDERS, small_panel

INPUTS = ("features", "scaler", "window", "warm_up", "chart_size", "horizon", "threshold")


@pytest.fixture(scope="module")
def panel() -> Panel:
    return Panel(small_panel())


@pytest.fixture(scope="module")
def dataset(panel, tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("data") / "set"
    build_dataset(panel, folder, DatasetSpec(borders=BORDERS), source={"name": "made up"})
    return Dataset.open(folder)


@pytest.fixture(scope="module")
def inputs(dataset) -> dict:
    return {key: dataset.description[key] for key in INPUTS}


@pytest.fixture(scope="module")
def rows(panel, inputs) -> PanelRows:
    return PanelRows(panel, inputs)


def matched(own: PanelSamples, theirs) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the samples that both have, in the same order."""
    a, b = (table.samples.select("code", "date").with_row_index() for table in (own, theirs))
    both = a.join(b, on=["code", "date"], suffix="_b").sort("code", "date")
    return both["index"].to_numpy(), both["index_b"].to_numpy()


def test_a_sample_is_the_one_of_the_dataset_bit_by_bit(rows, dataset) -> None:
    own = rows.ended_by(date(2021, 12, 31))
    for split in ("train", "val", "test"):
        theirs = dataset.split(split)
        a, b = matched(own, theirs)
        assert len(a) == len(theirs) > 0
        for x, y in zip(own.batch(a), theirs.batch(b), strict=True):
            assert torch.equal(x, y)
        reads = Reads((0, 3, 5), True)
        for x, y in zip(own.read(a, reads)[0], theirs.read(b, reads)[0], strict=True):
            assert torch.equal(x, y)
        assert np.array_equal(own.last_days_means()[a], theirs.last_days_means()[b])
        assert own.samples[a].drop("date").equals(theirs.samples[b].select(own.samples.columns).drop("date"))


@settings(max_examples=15, deadline=None)
@given(row=st.integers(100, 239), seed=st.integers(0, 5))
def test_what_has_ended_by_a_day_does_not_change_with_later_bars(row: int, seed: int) -> None:
    frame = small_panel(stocks=4)
    days = frame["date"].unique().sort()
    day = days[row]
    inputs = {"features": ["return_1", "score_return_1"], "window": 20, "warm_up": 0, "chart_size": (16, 60)}
    scaler = {"names": ["return_1"], "center": [0.0], "scale": [0.02], "clip": 5.0}
    inputs |= {"scaler": scaler, "horizon": 5, "threshold": 0.03}
    later = pl.col("date") > day
    factor = 1 + 0.05 * np.random.default_rng(seed).random(frame.height)
    moved = frame.with_columns(
        pl.when(later).then(pl.col(name) * pl.Series(factor)).otherwise(name)
        for name in ("open", "high", "low", "close")
    )
    stopped = frame.filter(~(later & (pl.col("code") == frame["code"][0])))
    expected = PanelRows(Panel(frame.filter(~later)), inputs).ended_by(day)
    for changed in (frame, moved, stopped):
        found = PanelRows(Panel(changed), inputs).ended_by(day)
        assert found.samples.equals(expected.samples)
        everything = np.arange(len(expected))
        assert all(torch.equal(x, y) for x, y in zip(found.batch(everything), expected.batch(everything), strict=True))
        assert found.samples["label_end"].max() <= day


def test_a_stock_that_resumes_later_is_known_as_it_was_on_the_day(panel, inputs) -> None:
    code, days = panel.frame["code"][0], panel.calendar
    stopped = panel.frame.filter(~((pl.col("code") == code) & pl.col("date").is_between(days[150], days[170])))
    as_known = PanelRows(Panel(stopped), inputs).ended_by(days[160].item())
    label = as_known.samples.filter(code=code, date=days[149].item())
    assert label["label_cut_short"].item() and label["forward_return"].item() == 0.0
    assert (
        not PanelRows(Panel(stopped), inputs)
        .ended_by(days[180].item())
        .samples.filter(code=code, date=days[149].item())["label_cut_short"]
        .item()
    )


def test_a_day_has_every_stock_with_a_full_window_and_no_other(rows, panel) -> None:
    day = panel.calendar[100].item()
    samples = rows.on(day)
    assert samples.table()["code"].to_list() == panel.frame.filter(date=day)["code"].to_list()
    assert (samples.labels == 1).all() and samples.samples is None
    with pytest.raises(ValueError, match="at least 60 traded days"):
        rows.on(panel.calendar[30].item())


def test_a_fraction_keeps_that_part_of_the_rows_always_the_same(rows, panel) -> None:
    last = panel.calendar[-1].item()
    whole, part, again = rows.ended_by(last), rows.ended_by(last, 0.5), rows.ended_by(last, 0.5)
    assert 0.4 * len(whole) < len(part) < 0.6 * len(whole) and np.array_equal(part.ends, again.ends)
    assert set(part.ends) < set(whole.ends) and part.fingerprint == again.fingerprint != whole.fingerprint


def test_the_fingerprint_follows_prices_and_labels(rows, panel, inputs) -> None:
    last = panel.calendar[-1].item()
    other = panel.frame.with_columns(close=pl.col("close") * 1.0001)
    assert PanelRows(Panel(other), inputs).ended_by(last).fingerprint != rows.ended_by(last).fingerprint
