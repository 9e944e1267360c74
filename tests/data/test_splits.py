import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lasps.data.labels import make_labels
from lasps.data.panel import make_panel
from lasps.data.splits import (
    PROTOCOLS,
    SPLITS,
    Borders,
    assign_splits,
    fraction_borders,
    subsample,
    walk_forward_borders,
)
from tests.factories import make_raw_market

DAYS = np.arange(np.datetime64("2024-01-01"), np.datetime64("2024-01-31"))  # 30 days
BORDERS = Borders.from_dict(
    {
        "train_end": "2024-01-10",
        "val_start": "2024-01-11",
        "val_end": "2024-01-20",
        "test_start": "2024-01-21",
        "test_end": "2024-01-28",
    }
)


def test_a_sample_belongs_to_a_split_iff_its_day_and_its_labels_last_day_do() -> None:
    splits = assign_splits(DAYS, DAYS + 3, BORDERS)
    assert np.flatnonzero(splits == "train").tolist() == list(range(7))
    assert np.flatnonzero(splits == "val").tolist() == list(range(10, 17))
    assert np.flatnonzero(splits == "test").tolist() == list(range(20, 25))
    assert np.flatnonzero(splits == "").tolist() == [7, 8, 9, 17, 18, 19, 25, 26, 27, 28, 29]


def test_an_embargo_keeps_days_free_before_the_next_split() -> None:
    splits = assign_splits(DAYS, DAYS + 3, BORDERS, embargo_days=2)
    assert np.flatnonzero(splits == "train").tolist() == list(range(5))
    assert np.flatnonzero(splits == "val").tolist() == list(range(10, 15))
    assert np.flatnonzero(splits == "test").tolist() == list(range(20, 25))


def test_a_sample_without_a_label_belongs_nowhere() -> None:
    dates = pl.Series([dt.date(2024, 1, 2), dt.date(2024, 1, 3)])
    assert assign_splits(dates, pl.Series([None, dt.date(2024, 1, 8)]), BORDERS).tolist() == ["", "train"]


def test_train_may_have_a_start() -> None:
    borders = Borders.from_dict(BORDERS.to_dict() | {"train_start": "2024-01-03"})
    assert np.flatnonzero(assign_splits(DAYS, DAYS + 3, borders) == "train").tolist() == list(range(2, 7))
    assert Borders.from_dict(borders.to_dict()) == borders


@pytest.mark.parametrize("swap", [{"val_start": "2024-01-10"}, {"val_end": "2024-01-05"}, {"test_start": "2024-01-15"}])
def test_borders_out_of_order_are_refused(swap) -> None:
    with pytest.raises(ValueError, match="follow one another"):
        Borders.from_dict(BORDERS.to_dict() | swap)


def test_borders_with_a_missing_or_unknown_name_are_refused() -> None:
    with pytest.raises(ValueError, match="borders need"):
        Borders.from_dict({"train_end": "2024-01-10"})
    with pytest.raises(ValueError, match="borders need"):
        Borders.from_dict(BORDERS.to_dict() | {"valid_end": "2024-01-10"})


def test_the_protocols_are_the_designs() -> None:
    assert PROTOCOLS["krx-2010s"].span("test") == (dt.date(2015, 1, 1), dt.date(2016, 6, 30))
    assert PROTOCOLS["krx-2010s"].span("val") == (dt.date(2014, 1, 1), dt.date(2014, 12, 31))
    assert PROTOCOLS["krx-2020s"].span("train") == (dt.date.min, dt.date(2024, 12, 2))
    assert PROTOCOLS["krx-2020s"].span("test") == (dt.date(2025, 3, 10), dt.date(2025, 6, 17))


def test_fractions_cut_the_distinct_days() -> None:
    borders = fraction_borders(np.repeat(DAYS, 3), train=0.5, val=0.2)
    assert borders.span("train")[1] == dt.date(2024, 1, 15)
    assert borders.span("val") == (dt.date(2024, 1, 16), dt.date(2024, 1, 21))
    assert borders.span("test") == (dt.date(2024, 1, 22), dt.date(2024, 1, 30))
    with pytest.raises(ValueError, match="leaves a split empty"):
        fraction_borders(DAYS[:3], 0.9, 0.05)


def test_walk_forward_tests_lie_end_to_end() -> None:
    folds = walk_forward_borders(DAYS, folds=3, val_days=4, test_days=5)
    assert [f.span("test")[0].day for f in folds] == [16, 21, 26]
    assert [f.span("test")[1].day for f in folds] == [20, 25, 30]
    assert [f.span("train")[1].day for f in folds] == [11, 16, 21]
    rolling = walk_forward_borders(DAYS, folds=3, val_days=4, test_days=5, train_days=8)
    assert [f.train_start.day for f in rolling] == [4, 9, 14]
    with pytest.raises(ValueError, match="need 20 days"):
        walk_forward_borders(DAYS[:19], folds=3, val_days=4, test_days=5, train_days=1)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10),
    kind=st.sampled_from(["literal", "fraction", "expanding", "rolling"]),
    embargo=st.integers(0, 9),
)
def test_every_label_of_a_split_ends_before_the_next_splits_first_day(seed, kind, embargo) -> None:
    panel, _ = make_panel(make_raw_market(seed=seed))
    labels, dates = make_labels(panel), panel["date"]
    days = np.unique(dates.to_numpy())
    borders = {
        "literal": lambda: [Borders(*(days[i].astype(object) for i in (60, 61, 90, 91, 129)))],
        "fraction": lambda: [fraction_borders(dates, 0.6, 0.2)],
        "expanding": lambda: walk_forward_borders(dates, 3, 15, 15),
        "rolling": lambda: walk_forward_borders(dates, 3, 15, 15, train_days=30),
    }[kind]()
    for fold in borders:
        splits = assign_splits(dates, labels["label_end"], fold, embargo)
        assert set(SPLITS) <= set(splits)
        for before, after in zip(SPLITS, SPLITS[1:], strict=False):
            last = labels["label_end"].to_numpy()[splits == before].max()
            first = dates.to_numpy()[splits == after].min()
            assert last + embargo < first
        for split in SPLITS:
            first, last = fold.span(split)
            inside = dates.filter(pl.Series(splits == split))
            assert first <= inside.min() and inside.max() <= last


def test_new_days_leave_old_samples_in_their_splits() -> None:
    panel, _ = make_panel(make_raw_market(stocks=4))
    borders = fraction_borders(panel["date"][:60], 0.6, 0.2)
    short = panel.filter(pl.col("date") <= borders.test_end)
    whole = assign_splits(panel["date"], make_labels(panel)["label_end"], borders)
    kept = (panel["date"] <= borders.test_end).to_numpy()
    cut_short = make_labels(panel)["label_cut_short"].to_numpy()
    before = assign_splits(short["date"], make_labels(short)["label_end"], borders)
    assert not cut_short[kept].any()
    assert (whole[kept] == before).all()


def test_a_subsample_depends_on_code_and_day_alone_and_nests() -> None:
    rng = np.random.default_rng(0)
    codes = rng.choice(["005930", "000660", "00088K"], 6000)
    dates = np.datetime64("2020-01-01") + rng.integers(0, 5000, 6000)
    tenth, third = subsample(codes, dates, 0.1), subsample(codes, dates, 0.3)
    assert abs(tenth.mean() - 0.1) < 0.02 and abs(third.mean() - 0.3) < 0.03
    assert not (tenth & ~third).any()
    assert (subsample(codes[::-1], dates[::-1], 0.1) == tenth[::-1]).all()
    assert subsample(codes, dates, 1.0).all()
    for code in np.unique(codes):
        assert abs(tenth[codes == code].mean() - 0.1) < 0.03
    with pytest.raises(ValueError, match="fraction"):
        subsample(codes, dates, 0)


def test_assignment_refuses_other_lengths_and_a_negative_embargo() -> None:
    with pytest.raises(ValueError, match="as many days"):
        assign_splits(DAYS, DAYS[:-1], BORDERS)
    with pytest.raises(ValueError, match="embargo"):
        assign_splits(DAYS, DAYS, BORDERS, -1)
