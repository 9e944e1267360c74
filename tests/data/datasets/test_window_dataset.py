"""Windows cut on demand: the same samples as the arrays, from rows stored once."""

import gc
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.utils.data import DataLoader

from lasps.data import charts
from lasps.data.build import build_dataset
from lasps.data.datasets.description import load_split, read_description
from lasps.data.datasets.stock_dataset import StockDataset, stock_collate_fn
from lasps.data.datasets.window_dataset import WindowDataset
from lasps.data.features import compute_features
from lasps.data.scaling import RobustScaler
from lasps.data.spec import DatasetSpec
from tests.factories import BORDERS, FEW_FEATURES, small_panel

SIZE = (20, 190)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "processed"
    build_dataset(
        small_panel(),
        folder,
        DatasetSpec(FEW_FEATURES, borders=BORDERS, chart_size=SIZE, materialize=True),
        source={},
    )
    return folder


@pytest.fixture
def copy(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "copy"))


def arrays_of(folder, split="val"):
    return StockDataset(*(folder / split / f"{n}.npy" for n in ("time_series", "chart_images", "sector_ids", "labels")))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_windows_cut_on_demand_equal_the_materialized_arrays(built, split):
    cut, stored = load_split(built, split), arrays_of(built, split)
    assert isinstance(cut, WindowDataset) and len(cut) == len(stored)
    for a, b in zip(cut.batch(range(len(cut))), stored.batch(range(len(cut))), strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)
    for name, value in cut[5].items():
        assert value.dtype == stored[5][name].dtype and torch.equal(value, stored[5][name])
    np.testing.assert_array_equal(cut.last_day_features(), stored.last_day_features())
    assert (cut.num_features, cut.window, cut.chart_size) == (stored.num_features, stored.window, stored.chart_size)
    assert cut.samples.equals(stored.samples)


def test_a_sample_is_the_scaled_features_and_the_chart_of_its_stocks_last_60_rows(built):
    dataset, panel = load_split(built, "test"), small_panel()
    scaler = RobustScaler.from_dict(read_description(built)["scaler"])
    features = scaler.transform(compute_features(panel, FEW_FEATURES))
    bars = panel.select("open", "high", "low", "close", "volume").to_numpy().astype(np.float32)
    for i in (0, 7, len(dataset) - 1):
        code, day = dataset.samples.select("code", "date").row(i)
        rows = np.flatnonzero((panel["code"] == code).to_numpy() & (panel["date"] <= day).to_numpy())[-60:]
        item = dataset[i]
        np.testing.assert_array_equal(item["time_series"], features[rows])
        picture = charts.render(torch.from_numpy(bars[rows])[None], SIZE)[0]
        np.testing.assert_array_equal(item["chart_image"], picture.float() / 255)


def test_shuffled_negative_and_repeated_indices_are_read_as_in_a_list(built):
    dataset = load_split(built, "val")
    order = np.random.default_rng(0).permutation(len(dataset))[:50]
    series, pictures, sectors, labels = dataset.batch(np.append(order, [-1, -1]))
    assert pictures.dtype == torch.uint8 and pictures.shape[1:] == (3, *SIZE)
    for place, i in enumerate([*order[:5], len(dataset) - 1]):
        place = place if place < 5 else 50
        assert torch.equal(series[place], dataset[int(i)]["time_series"])
        assert (sectors[place], labels[place]) == (dataset.sector_ids[i], dataset.labels[i])
    with pytest.raises(IndexError, match=f"sample {len(dataset)}"):
        dataset.batch([0, len(dataset)])


def test_sector_subsets_and_loaders_work_as_with_arrays(built):
    dataset = load_split(built, "train")
    subset = dataset.get_sector_subset(4)
    np.testing.assert_array_equal(subset.indices, np.flatnonzero(dataset.sector_ids == 4))
    series, pictures, sectors, _ = next(iter(DataLoader(subset, batch_size=8, collate_fn=stock_collate_fn)))
    assert pictures.dtype == torch.float32 and set(sectors.tolist()) == {4}
    assert torch.equal(series, subset.batch(range(8))[0])


def test_a_pickled_dataset_maps_its_files_again(built):
    dataset = load_split(built, "test")
    sent = pickle.dumps(dataset)
    assert len(sent) < 5000
    assert torch.equal(pickle.loads(sent)[3]["chart_image"], dataset[3]["chart_image"])


def test_reading_changes_no_file(built):
    rows = built / "rows" / "features.npy"
    before = rows.read_bytes()
    series = load_split(built, "val").batch([0, 1])[0]
    series += 1
    assert rows.read_bytes() == before and not torch.equal(load_split(built, "val").batch([0, 1])[0], series)


def change(path, index, value):
    array = np.load(path)
    array[index] = value
    np.save(path, array)


@pytest.mark.parametrize(
    ("name", "index", "value", "message"),
    [
        ("rows/features.npy", (70, 1), np.nan, r"features\.npy: expected finite .* nan at index \[70, 1\]"),
        ("rows/bars.npy", (70, 4), np.inf, r"bars\.npy: expected finite"),
        ("rows/bars.npy", (70, 2), 0, r"expected positive prices, found 0\.0 at index \[70, 2\]"),
        ("rows/features.npy", (70, 1), 0.123, r"features\.npy: expected the array that .*dataset\.json describes"),
        ("val/ends.npy", 3, 10**9, "window end in"),
        ("val/ends.npy", 3, 30, "the window of sample 3, 60 rows up to row 30, begins before its stock's first row 0"),
        ("val/sector_ids.npy", 3, 20, r"sector id in 0\.\.19, found 20 at index 3"),
        ("val/labels.npy", 3, 7, "found 7 at index 3"),
    ],
)
def test_changed_arrays_are_refused(copy, name, index, value, message):
    change(copy / name, index, value)
    with pytest.raises(ValueError, match=message):
        load_split(copy, "val")


@pytest.mark.parametrize("drop_rows", [False, True])
def test_labels_of_another_build_are_refused_even_if_they_look_well(copy, drop_rows):
    if drop_rows:
        shutil.rmtree(copy / "rows")
        (copy / "val" / "ends.npy").unlink()
        assert isinstance(load_split(copy, "val"), StockDataset)
    labels = np.load(copy / "val" / "labels.npy")
    np.save(copy / "val" / "labels.npy", np.roll(labels, 1))
    with pytest.raises(ValueError, match=r"labels\.npy: expected the array that .* describes"):
        load_split(copy, "val")
    np.save(copy / "val" / "labels.npy", labels[:-1])
    with pytest.raises(ValueError, match="expected arrays of one length"):
        load_split(copy, "val")


@pytest.mark.parametrize("column", ["date", "forward_return", "code"])
def test_a_sample_table_with_another_value_than_was_built_is_refused(copy, column):
    path = copy / "val" / "samples.parquet"
    table = load_split(copy, "val").samples
    table.with_columns(pl.col(column).shift(1, fill_value=table[column][0])).write_parquet(path)
    with pytest.raises(ValueError, match=r"samples\.parquet: expected the table that dataset\.json describes"):
        _ = load_split(copy, "val").samples


def test_rows_and_bars_of_different_lengths_are_refused(copy):
    np.save(copy / "rows" / "bars.npy", np.load(copy / "rows" / "bars.npy")[:-1])
    with pytest.raises(ValueError, match=r"bars\.npy: expected float32 \(R,5\) of \d+ rows"):
        load_split(copy, "val")


def test_a_missing_dataset_or_array_names_the_command_that_makes_one(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*Run `make data`"):
        load_split(tmp_path / "nowhere", "val")
    os.remove(copy / "val" / "sector_ids.npy")
    with pytest.raises(ValueError, match=r"sector_ids: expected a \.npy file at .* found none"):
        load_split(copy, "val")
    os.remove(copy / "dataset.json")
    with pytest.raises(FileNotFoundError, match=r"has no dataset\.json"):
        load_split(copy, "val")


def test_four_bare_arrays_of_somebody_else_are_a_dataset(copy):
    (copy / "dataset.json").unlink()
    (copy / "val" / "ends.npy").unlink()
    assert read_description(copy) is None
    dataset = load_split(copy, "val")
    assert isinstance(dataset, StockDataset) and torch.equal(dataset[0]["label"], arrays_of(copy)[0]["label"])


def test_a_description_of_another_schema_or_no_json_is_refused(copy):
    (copy / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match="expected JSON"):
        read_description(copy)
    (copy / "dataset.json").write_text('{"schema_version": 99}')
    with pytest.raises(ValueError, match="expected schema_version 3, found 99"):
        load_split(copy, "val")


def anonymous_bytes() -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_does_not_grow_with_the_number_of_windows(tmp_path):
    def folder(name: str, windows: int) -> tuple[Path, Path]:
        rows, split = tmp_path / name / "rows", tmp_path / name / "train"
        rows.mkdir(parents=True)
        split.mkdir()
        np.save(rows / "features.npy", np.zeros((windows + 59, 2), np.float32))
        np.save(rows / "scores.npy", np.ones((windows + 59, 2), np.int8))
        np.save(rows / "bars.npy", np.ones((windows + 59, 5), np.float32))
        np.save(rows / "stock_starts.npy", np.zeros(1, np.int64))
        np.save(split / "ends.npy", np.arange(59, windows + 59))
        for name in ("sector_ids", "labels"):
            np.save(split / f"{name}.npy", np.zeros(windows, np.int64))
        return rows, split

    def use(rows: Path, split: Path) -> WindowDataset:
        dataset = WindowDataset(rows, split, 60, (16, 180))
        for i in range(20):
            dataset.batch(np.linspace(i, len(dataset) - 1, 64).astype(int))
        return dataset

    windows = 1_000_000
    large = folder("large", windows)
    small = use(*folder("small", 1000))
    kept, grown = [], []
    for _ in range(3):  # memory that grows with the windows does so each time; what else grows beside them, not
        gc.collect()
        before = anonymous_bytes()
        kept.append(use(*large))
        grown.append(anonymous_bytes() - before)
    assert len(small) == 1000 and [len(dataset) for dataset in kept] == 3 * [windows]
    assert min(grown) < 4 * windows
