"""The four arrays of the interchange format: what is read, and what is refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.utils.data import DataLoader

from lasps.data.datasets import scan
from lasps.data.datasets.stock_dataset import SectorSubset, StockDataset, stock_collate_fn

N, T, F, H, W = 23, 6, 5, 8, 12
NAMES = ("time_series", "chart_images", "sector_ids", "labels")


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "time_series": rng.normal(size=(N, T, F)).astype(np.float32),
        "chart_images": rng.integers(0, 256, (N, 3, H, W), dtype=np.uint8),
        "sector_ids": rng.integers(0, 4, N),
        "labels": rng.integers(0, 3, N),
    }


def save(folder: Path, arrays) -> list[str]:
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return [str(folder / f"{name}.npy") for name in NAMES]


def test_items_hold_the_arrays_and_uint8_charts_become_floats(tmp_path, arrays):
    dataset = StockDataset(*save(tmp_path, arrays))
    item = dataset[7]
    assert len(dataset) == N
    assert item["time_series"].dtype == torch.float32 and item["time_series"].shape == (T, F)
    assert item["sector_id"].dtype == item["label"].dtype == torch.int64 and item["label"].shape == ()
    np.testing.assert_array_equal(item["time_series"], arrays["time_series"][7])
    np.testing.assert_array_equal(item["chart_image"], arrays["chart_images"][7].astype(np.float32) / np.float32(255))
    assert (item["sector_id"], item["label"]) == (arrays["sector_ids"][7], arrays["labels"][7])


def test_float_charts_are_used_as_they_are(tmp_path, arrays):
    arrays["chart_images"] = (arrays["chart_images"] / 255).astype(np.float64)
    dataset = StockDataset(*save(tmp_path, arrays))
    assert dataset[3]["chart_image"].dtype == torch.float32
    np.testing.assert_array_equal(dataset[3]["chart_image"], arrays["chart_images"][3].astype(np.float32))


def test_keyword_paths_of_the_seed_are_accepted(tmp_path, arrays):
    save(tmp_path, arrays)
    assert len(StockDataset(**{f"{name}_path": tmp_path / f"{name}.npy" for name in NAMES})) == N


def test_negative_and_out_of_range_indices_behave_as_in_a_list(tmp_path, arrays):
    dataset = StockDataset(*save(tmp_path, arrays))
    assert torch.equal(dataset[-1]["time_series"], dataset[N - 1]["time_series"])
    for index in (N, -N - 1):
        with pytest.raises(IndexError, match=f"sample {index}"):
            dataset[index]


def test_a_batch_leaves_charts_uint8_and_equals_its_items(tmp_path, arrays):
    dataset = StockDataset(*save(tmp_path, arrays))
    series, charts, sectors, labels = dataset.batch([5, 0, 5])
    assert charts.dtype == torch.uint8
    stacked = stock_collate_fn([dataset[5], dataset[0], dataset[5]])
    assert torch.equal(series, stacked[0]) and torch.equal(charts.float() / 255, stacked[1])
    assert torch.equal(sectors, stacked[2]) and torch.equal(labels, stacked[3])


@pytest.mark.parametrize("collate", [stock_collate_fn, None])
def test_a_loader_yields_every_sample_once_with_our_collate_and_with_torchs(tmp_path, arrays, collate):
    dataset = StockDataset(*save(tmp_path, arrays))
    batches = list(DataLoader(dataset, batch_size=4, collate_fn=collate))
    if collate is None:
        batches = [tuple(b[k] for k in ("time_series", "chart_image", "sector_id", "label")) for b in batches]
    np.testing.assert_array_equal(torch.cat([b[0] for b in batches]), arrays["time_series"])
    np.testing.assert_array_equal(torch.cat([b[3] for b in batches]), arrays["labels"])
    assert batches[0][1].dtype == torch.float32 and batches[0][1].min() >= 0 and batches[0][1].max() <= 1


def test_a_sector_subset_holds_that_sectors_samples_in_order(tmp_path, arrays):
    dataset = StockDataset(*save(tmp_path, arrays))
    expected = np.where(arrays["sector_ids"] == 2)[0]
    subset = dataset.get_sector_subset(2)
    assert isinstance(subset, SectorSubset) and len(subset) == len(expected)
    np.testing.assert_array_equal(dataset.get_sector_indices(2), expected)
    np.testing.assert_array_equal(subset.labels, arrays["labels"][expected])
    assert set(subset.sector_ids) == {2}
    np.testing.assert_array_equal(subset.batch([1, 0])[0], arrays["time_series"][expected[[1, 0]]])
    assert torch.equal(subset[1]["chart_image"], dataset[int(expected[1])]["chart_image"])
    np.testing.assert_array_equal(subset.last_day_features(), arrays["time_series"][expected, -1])
    assert len(dataset.get_sector_subset(19)) == 0


def test_the_seeds_own_subset_call_works(tmp_path, arrays):
    dataset = StockDataset(*save(tmp_path, arrays))
    assert len(SectorSubset(dataset, np.array([1, 2]), 0)) == 2


def test_a_pickled_dataset_carries_no_data_and_reads_the_same(tmp_path, arrays):
    dataset = StockDataset(*save(tmp_path, arrays))
    sent = pickle.dumps(dataset)
    assert len(sent) < arrays["chart_images"].nbytes / 2
    assert torch.equal(pickle.loads(sent)[4]["chart_image"], dataset[4]["chart_image"])


def test_samples_are_the_table_beside_the_arrays_or_none(tmp_path, arrays):
    paths = save(tmp_path, arrays)
    assert StockDataset(*paths).samples is None
    pl.DataFrame({"code": [f"{i:06d}" for i in range(N)]}).write_parquet(tmp_path / "samples.parquet")
    dataset = StockDataset(*paths)
    assert dataset.samples.height == N and dataset.samples is dataset.samples  # read once
    assert dataset.get_sector_subset(1).samples["code"].to_list() == [f"{i:06d}" for i in dataset.get_sector_indices(1)]
    pl.DataFrame({"code": ["1"]}).write_parquet(tmp_path / "samples.parquet")
    with pytest.raises(ValueError, match="expected 23 rows"):
        _ = StockDataset(*paths).samples
    (tmp_path / "samples.parquet").write_bytes(b"PAR1torn")
    with pytest.raises(ValueError, match="samples.parquet: expected one row per sample, got: .*build"):
        _ = StockDataset(*paths).samples


@pytest.mark.parametrize(("column", "array"), [("label", "labels"), ("sector", "sector_ids")])
def test_a_table_whose_rows_are_shifted_is_refused(tmp_path, arrays, column, array):
    paths = save(tmp_path, arrays)
    pl.DataFrame({column: arrays[array]}).write_parquet(tmp_path / "samples.parquet")
    assert StockDataset(*paths).samples.height == N
    pl.DataFrame({column: np.roll(arrays[array], 1)}).write_parquet(tmp_path / "samples.parquet")
    with pytest.raises(ValueError, match=f"expected {column} . in row"):
        _ = StockDataset(*paths).samples


def spoil(arrays, name, index, value):
    array = arrays[name].copy()
    array[index] = value
    return arrays | {name: array}


BAD = {
    "a NaN feature": (lambda a: spoil(a, "time_series", (9, 2, 1), np.nan), r"nan at index \[9, 2, 1\]"),
    "an infinite feature": (lambda a: spoil(a, "time_series", (9, 2, 1), -np.inf), r"-inf at index \[9, 2, 1\]"),
    "a feature beyond float32": (
        lambda a: spoil(a | {"time_series": a["time_series"].astype(np.float64)}, "time_series", (9, 2, 1), 1e300),
        "1e.300 at index",
    ),
    "a blank chart": (lambda a: spoil(a, "chart_images", 11, 0), "chart 11 is blank: every pixel is 0"),
    "a white chart": (lambda a: spoil(a, "chart_images", 22, 255), "chart 22 is blank"),
    "float charts up to 255": (lambda a: a | {"chart_images": a["chart_images"].astype(np.float32)}, "Divide by 255"),
    "a NaN pixel": (
        lambda a: spoil(a | {"chart_images": a["chart_images"] / np.float32(255)}, "chart_images", (4, 0, 0), np.nan),
        "chart 4 spans nan",
    ),
    "a sector above": (lambda a: spoil(a, "sector_ids", 3, 20), r"sector id in 0\.\.19, found 20 at index 3"),
    "a sector below": (lambda a: spoil(a, "sector_ids", 3, -1), "found -1 at index 3"),
    "a label above": (lambda a: spoil(a, "labels", 6, 3), r"label in 0\.\.2, found 3 at index 6"),
    "a label below": (lambda a: spoil(a, "labels", 6, -1), "found -1 at index 6"),
    "float labels": (lambda a: a | {"labels": a["labels"].astype(float)}, "labels: expected integers"),
    "fewer labels": (lambda a: a | {"labels": a["labels"][:-1]}, "time_series 23.*labels 22"),
    "an empty split": (lambda a: {k: v[:0] for k, v in a.items()}, "empty split"),
    "channels last": (lambda a: a | {"chart_images": a["chart_images"].transpose(0, 2, 3, 1)}, "transpose"),
    "16 bit charts": (lambda a: a | {"chart_images": a["chart_images"].astype(np.int16)}, "uint8 or float"),
    "flat series": (lambda a: a | {"time_series": a["time_series"][:, :, 0]}, r"expected float \(N,T,F\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_content_is_refused_and_never_stamped(tmp_path, arrays, case):
    make, message = BAD[case]
    paths = save(tmp_path, make(arrays))
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            StockDataset(*paths)
    assert not (tmp_path / scan.STAMP_NAME).exists()


def test_missing_truncated_and_pickled_files_are_refused(tmp_path, arrays):
    paths = save(tmp_path, arrays)
    os.truncate(paths[0], Path(paths[0]).stat().st_size - 4)
    with pytest.raises(ValueError, match="truncated"):
        StockDataset(*paths)
    np.save(paths[0], np.array([{}, None]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"time_series\.npy"):
        StockDataset(*paths)
    os.remove(paths[0])
    with pytest.raises(FileNotFoundError, match=r"expected a \.npy file at .*time_series\.npy"):
        StockDataset(*paths)


def test_num_sectors_can_be_given(tmp_path, arrays):
    paths = save(tmp_path, spoil(arrays, "sector_ids", 0, 30))
    assert len(StockDataset(*paths, num_sectors=31)) == N


def settle(folder: Path) -> None:
    """Date the files a minute back, as if they had been copied here before: fresh files are not stamped."""
    for path in folder.glob("*.npy"):
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 60_000_000_000))


def count_scans(monkeypatch) -> list:
    scans = []
    original = StockDataset._scan
    monkeypatch.setattr(StockDataset, "_scan", lambda self: scans.append(1) or original(self))
    return scans


def test_a_stamped_dataset_is_not_scanned_again(tmp_path, arrays, monkeypatch):
    paths = save(tmp_path, arrays)
    settle(tmp_path)
    scans = count_scans(monkeypatch)
    first = StockDataset(*paths).fingerprint
    assert StockDataset(*paths).fingerprint == first and len(scans) == 1


@pytest.mark.parametrize("name", NAMES[:2])
def test_one_changed_byte_is_found_in_spite_of_a_stamp_and_a_kept_date(tmp_path, arrays, name):
    paths = save(tmp_path, arrays)
    settle(tmp_path)
    first = StockDataset(*paths).fingerprint
    path = tmp_path / f"{name}.npy"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        byte = file.read(1)
        file.seek(-3, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert StockDataset(*paths).fingerprint != first


def test_a_damaged_or_unwritable_stamp_only_costs_a_scan(tmp_path, arrays, monkeypatch):
    paths = save(tmp_path, arrays)
    settle(tmp_path)
    first = StockDataset(*paths).fingerprint
    for text in ("", "[1]", '[{"key": 3}]', '{"a": 1}'):
        (tmp_path / scan.STAMP_NAME).write_text(text)
        assert StockDataset(*paths).fingerprint == first
    (tmp_path / scan.STAMP_NAME).unlink()
    (tmp_path / scan.STAMP_NAME).mkdir()  # cannot be replaced by a file
    assert StockDataset(*paths).fingerprint == first


def test_the_fingerprint_is_of_the_content_not_of_the_place_or_the_memory_order(tmp_path, arrays):
    first = StockDataset(*save(tmp_path / "a", arrays)).fingerprint
    fortran = arrays | {"time_series": np.asfortranarray(arrays["time_series"])}
    assert StockDataset(*save(tmp_path / "b", fortran)).fingerprint == first
    swapped = arrays | {"labels": np.roll(arrays["labels"], 1)}
    assert StockDataset(*save(tmp_path / "c", swapped)).fingerprint != first


def test_bad_values_behind_the_first_chunk_are_found(tmp_path, arrays, monkeypatch):
    monkeypatch.setattr(scan, "CHUNK_BYTES", arrays["time_series"][:4].nbytes)
    with pytest.raises(ValueError, match=r"index \[18, 5, 0\]"):
        StockDataset(*save(tmp_path, spoil(arrays, "time_series", (18, 5, 0), np.nan)))
