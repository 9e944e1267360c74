from datetime import timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.benchmarks.reference_features import all_features, base_of
from lasps.data import features
from lasps.data.charts import render
from lasps.data.features import DEFAULT_FEATURES, FEATURES, LONGEST, compute_features, volatility, window_columns
from lasps.data.labels import make_labels
from lasps.data.panel import make_panel
from lasps.data.sampling import choose_samples
from lasps.data.spec import DatasetSpec
from lasps.data.splits import Borders, assign_splits
from tests.factories import RAW_FIRST_DAY as FIRST_DAY
from tests.factories import make_raw_market

NAMES = [feature.name for feature in FEATURES]
REMEMBERS_EVERYTHING = {"rsi_14", "macd", "macd_signal", "macd_histogram"}


def make(raw: pl.DataFrame) -> pl.DataFrame:
    """The panel of raw bars, with the sector that the market gives each code."""
    sectors = raw.group_by("code").agg(pl.col("sector").first())
    return make_panel(raw)[0].join(sectors, on="code", how="left", maintain_order="left")


def bits(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values).tobytes()


@pytest.fixture(scope="module")
def panel() -> pl.DataFrame:
    return make(make_raw_market(seed=1, stocks=12, days=150))


@pytest.fixture(scope="module")
def everything(panel) -> np.ndarray:
    return compute_features(panel, NAMES)


@pytest.fixture(scope="module")
def reference(panel) -> pd.DataFrame:
    bars, bases = panel.to_pandas(), sorted({base_of(name) for name in NAMES})
    rounded = pd.DataFrame(all_features(bars, bases).astype(np.float32), columns=bases)  # ranks are of what is stored
    return pd.DataFrame(all_features(bars, NAMES, ranked=rounded), columns=NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_feature_equals_its_plain_pandas_version(reference, everything, name) -> None:
    expected = reference[name].to_numpy()
    found, feature = everything[:, NAMES.index(name)], FEATURES[NAMES.index(name)]
    if feature.is_score:  # stored in steps of 1/40, held at +-3.175
        np.testing.assert_allclose(found, np.clip(expected, -3.175, 3.175), rtol=0, atol=0.0125 + 1e-6)
        return
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


def test_a_feature_is_missing_exactly_where_its_look_back_is(panel, everything) -> None:
    position = panel.select(pl.int_range(pl.len()).over("code")).to_series().to_numpy()
    for feature, values in zip(FEATURES, everything.T, strict=True):
        assert (np.isnan(values) == (position < feature.lookback)).all(), feature.name
    assert not np.isinf(everything).any()


def test_every_feature_is_named_documented_and_fits_into_the_window() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(feature.doc and 0 <= feature.lookback <= LONGEST for feature in FEATURES)
    assert all((feature.of_stock is None) == (feature.of_day is not None) for feature in FEATURES)
    assert set(DEFAULT_FEATURES) <= set(NAMES) and "observed" in DEFAULT_FEATURES


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_bar_after_a_day_changes_a_bit_of_anything_up_to_it(data) -> None:
    seed, part = data.draw(st.integers(0, 5), "seed"), data.draw(st.floats(0.1, 1.0), "part")
    raw = make_raw_market(seed=seed, stocks=6, days=100)
    day = FIRST_DAY + (raw["date"].max() - FIRST_DAY) * part
    other = change_the_future(raw, day, data)
    before, after = make(raw), make(other)
    past, past_after = before["date"] <= day, after["date"] <= day
    assert before.filter(past).equals(after.filter(past_after))
    for compute in (lambda p: compute_features(p, NAMES), volatility):
        assert bits(compute(before)[past.to_numpy()]) == bits(compute(after)[past_after.to_numpy()])
    known, known_after = labels_known_by(before, day), labels_known_by(after, day)
    assert known.equals(known_after)
    if part >= 0.4:  # every split has samples by then
        for ours, theirs in zip(samples_known_by(before, day), samples_known_by(after, day), strict=True):
            assert ours.equals(theirs) if isinstance(ours, pl.DataFrame) else bits(ours) == bits(theirs)


def samples_known_by(panel: pl.DataFrame, day) -> tuple[pl.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    """Samples whose label is known on `day`: code, date, split, label; their bars, features with mask, and charts."""
    days = [FIRST_DAY + timedelta(days=d) for d in (21, 22, 31, 32, 400)]
    labels = make_labels(panel)
    ends = choose_samples(
        panel, labels, DatasetSpec(borders=Borders(*days), window=10, stride=2, train_fraction=0.7)
    ).ends
    table = panel.select("code", "date").hstack(labels.select("label", "label_end", "label_cut_short"))
    samples = pl.concat(
        table[rows].with_columns(split=pl.lit(name), row=pl.Series(rows)) for name, rows in ends.items()
    ).filter((pl.col("label_end") <= day) & ~pl.col("label_cut_short"))
    window = samples["row"].to_numpy()[:, None] + np.arange(-9, 1)
    bars = panel.select("open", "high", "low", "close", "volume").to_numpy().astype(np.float32)[window]
    charts = render(torch.from_numpy(bars), (20, 30)).numpy()
    assert samples["split"].n_unique() == 3
    return samples.drop("row"), bars, compute_features(panel, NAMES)[window], charts


def change_the_future(raw: pl.DataFrame, day, data) -> pl.DataFrame:
    """Change, delete or add bars and stocks after `day`."""
    past, future = raw.filter(pl.col("date") <= day), raw.filter(pl.col("date") > day)
    rng = np.random.default_rng(data.draw(st.integers(0, 99), "noise"))
    what = data.draw(
        st.sampled_from(["delete all", "delete some", "delete a stock", "change", "halt", "add a stock"]), "what"
    )
    future = future.with_columns(chance=pl.Series(rng.random(future.height)))
    prices = ["open", "high", "low", "close"]
    changed = {
        "delete all": lambda: future.clear(),
        "delete some": lambda: future.filter(pl.col("chance") < 0.7),
        "delete a stock": lambda: future.filter(pl.col("code") != "000020"),
        "change": lambda: future.with_columns(pl.col(prices) * (1 + pl.col("chance")), pl.col("volume") + 7),
        "halt": lambda: future.with_columns(volume=pl.when(pl.col("chance") < 0.3).then(0).otherwise("volume")),
        "add a stock": lambda: pl.concat(
            [future, future.filter(pl.col("code") == "000000").with_columns(code=pl.lit("0000A0"))]
        ),
    }[what]()
    return pl.concat([past, changed.drop("chance")]).sort("code", "date")


def labels_known_by(panel: pl.DataFrame, day) -> pl.DataFrame:
    """Labels known on `day`; a stock that only seems to have stopped is not yet known."""
    labels = make_labels(panel)
    keys = panel.select("code", "date")
    return pl.concat([keys, labels.drop("forward_return_skip1")], how="horizontal").filter(
        (pl.col("label_end") <= day) & ~pl.col("label_cut_short")
    )


def test_the_samples_of_a_split_do_not_change_when_days_are_added() -> None:
    panel = make(make_raw_market(seed=2, stocks=8))
    days = panel["date"].unique().sort()
    borders = Borders(days[60], days[61], days[80], days[81], days[100])
    short = panel.filter(pl.col("date") <= days[115])

    def samples(p: pl.DataFrame) -> pl.DataFrame:
        labels = make_labels(p)
        splits = pl.Series("split", assign_splits(p["date"], labels["label_end"], borders))
        table = pl.concat([p.select("code", "date"), labels, splits.to_frame()], how="horizontal")
        return table.filter((pl.col("split") != "") & ~pl.col("label_cut_short"))

    assert samples(panel).drop("forward_return_skip1").equals(samples(short).drop("forward_return_skip1"))


def test_rows_before_the_look_back_change_no_bit_except_of_what_remembers_everything(panel) -> None:
    position = panel.select(pl.int_range(pl.len()).over("code")).to_series()
    names = [
        n for n in NAMES if n not in REMEMBERS_EVERYTHING and FEATURES[NAMES.index(n)].of_stock and n != "observed"
    ]
    whole = compute_features(panel, names)[(position >= 7 + LONGEST).to_numpy()]
    later = panel.filter(position >= 7)
    place = later.select(pl.int_range(pl.len()).over("code")).to_series()
    assert bits(compute_features(later, names)[(place >= LONGEST).to_numpy()]) == bits(whole)


def test_the_size_of_the_chunks_changes_no_bit(panel, everything, monkeypatch) -> None:
    for rows in (1, 200, 333):
        monkeypatch.setattr(features, "CHUNK_ROWS", rows)
        assert bits(compute_features(panel, NAMES)) == bits(everything)


def test_a_stock_at_eight_times_the_price_has_the_same_features(panel, everything) -> None:
    scaled = panel.with_columns(pl.col("open", "high", "low", "close") * 8, pl.col("volume") * 4)
    np.testing.assert_allclose(compute_features(scaled, NAMES), everything, rtol=1e-5, atol=1e-5)


def test_a_frozen_price_has_no_undefined_feature(panel, everything) -> None:
    rows = (panel["code"] == "000030").to_numpy().nonzero()[0][LONGEST:]
    frozen = dict(zip(NAMES, everything[rows].T, strict=True))
    assert not np.isnan(everything[rows]).any()
    assert (frozen["log_volatility_20"] == np.float32(np.log(1e-3))).all()
    for name in ("return_20", "rsi_14", "macd", "upper_shadow", "gap_share", "obv_20", "ma_20"):
        np.testing.assert_allclose(frozen[name], 0, atol=1e-7, err_msg=name)


def test_how_volatile_a_stock_is_survives(panel) -> None:
    wild = panel.with_columns(pl.col("open", "high", "low", "close").pow(2.0))
    calm_values, wild_values = (compute_features(p, ["log_volatility_20", "log_atr_20"]) for p in (panel, wild))
    moving = calm_values[:, 0] > np.log(2e-3)
    np.testing.assert_allclose(np.nanmedian((wild_values - calm_values)[moving], axis=0), np.log(2), atol=0.02)


def test_ranks_average_ties_and_lie_around_zero(panel) -> None:
    ranks = compute_features(panel, ["rank_return_1"])[:, 0]
    assert np.nanmin(ranks) >= -0.5 and np.nanmax(ranks) <= 0.5
    by_day = panel.select("date", rank=pl.Series(ranks).fill_nan(None)).group_by("date").agg(pl.col("rank").mean())
    assert by_day["rank"].drop_nulls().abs().max() < 1e-6
    level = panel.with_columns(pl.lit(10.0).alias(name) for name in ("open", "high", "low", "close"))
    assert np.nanmax(np.abs(compute_features(level, ["rank_return_1"]))) == 0


def test_a_subset_is_the_same_columns_in_the_order_asked_for(panel, everything) -> None:
    names = ["rank_return_5", "gap", "sector_return_20"]
    chosen = compute_features(panel, names)
    assert chosen.shape == (panel.height, 3)
    assert bits(chosen) == bits(everything[:, [NAMES.index(name) for name in names]])
    assert bits(compute_features(panel)) == bits(everything[:, [NAMES.index(name) for name in DEFAULT_FEATURES]])


def test_volatility_is_the_standard_deviation_of_daily_log_returns(panel) -> None:
    stock = panel.filter(pl.col("code") == "000000")
    returns = np.diff(np.log(stock["close"].to_numpy()))
    rows = (panel["code"] == "000000").to_numpy()
    assert volatility(panel)[rows][30] == pytest.approx(returns[10:30].std(ddof=1))
    assert np.isnan(volatility(panel)[rows][:20]).all()


def test_mistakes_are_refused(panel) -> None:
    with pytest.raises(ValueError, match=r"unknown features \['retrun_1'\]"):
        compute_features(panel, ["retrun_1"])
    with pytest.raises(ValueError, match="repeated"):
        compute_features(panel, ["gap", "gap"])
    with pytest.raises(ValueError, match="not sorted"):
        compute_features(panel.reverse())
    with pytest.raises(ValueError, match="not sorted"):
        compute_features(pl.concat([panel, panel.head(70)]))
    with pytest.raises(ValueError, match="no rows"):
        compute_features(panel.clear())
    with pytest.raises(ValueError, match="need a complete column `sector`"):
        compute_features(panel.drop("sector"), ["sector_return_1"])


def test_a_window_shows_relative_features_ranks_and_the_mask_or_all_of_strangers_features():
    assert window_columns(["return_1", "relative_gap", "rank_return_5", "gap", "observed"]) == [1, 2, 4]
    assert window_columns(["return_1", "rank_return_5"]) == [0, 1]
    assert window_columns(["", "", ""]) == [0, 1, 2]
