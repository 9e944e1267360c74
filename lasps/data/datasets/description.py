"""From a folder to a dataset, in whichever form it lies there, and only if it is what its description says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lasps.data.datasets.replacement import DESCRIPTION_NAME, finish_replacement
from lasps.data.datasets.scan import MissingFileError, combine
from lasps.data.datasets.stock_dataset import StockDataset
from lasps.data.datasets.window_dataset import WindowDataset

SCHEMA_VERSION = 3
"""3: scores among the features, in a file of their own."""
ARRAYS = ("time_series", "chart_images", "sector_ids", "labels")
NOT_IN_FINGERPRINT = frozenset({"source", "integrity", "universe", "fingerprint", "materialized", "digests", "sha256"})
"""Where a dataset came from and in which forms it is stored does not make it another dataset."""


def read_description(data_dir: str | Path) -> dict[str, Any] | None:
    """The content of dataset.json; None for a folder without one (somebody else's bare arrays).

    What a killed build left half replaced in the folder is finished first.

    Raises:
        ValueError: it cannot be read, is of another schema version, or is not as the build wrote it.
    """
    finish_replacement(Path(data_dir))
    path = Path(data_dir) / DESCRIPTION_NAME
    if not path.is_file():
        return None
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, cannot read it ({error}). Build the dataset again") from error
    version = description.get("schema_version") if isinstance(description, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path}: expected schema_version {SCHEMA_VERSION}, found {version}. The dataset was built by "
            "another version of lasps: build it again"
        )
    _check_unchanged(description, path)
    return description


def _check_unchanged(description: dict[str, Any], path: Path) -> None:
    """Raise ValueError unless the description has its own digest (without one: its fingerprint)."""
    name = "sha256" if "sha256" in description else "fingerprint"
    try:
        found = described_digest(description) if name == "sha256" else fingerprint(description)
    except (KeyError, TypeError, AttributeError):
        found = "none"
    if description.get(name) != found:
        raise ValueError(
            f"{path}: expected the {name} {str(description.get(name))[:12]} that the build wrote, its "
            f"content has {found[:12]}: it was changed by hand or damaged. Put the original back, or "
            "build the dataset again"
        )


def fingerprint(description: dict[str, Any]) -> str:
    """SHA-256 of what the dataset is: its parameters and the digests of the files that samples are made from."""
    parts = {name: value for name, value in description.items() if name not in NOT_IN_FINGERPRINT}
    parts["digests"] = {
        name: value
        for name, value in description["digests"].items()
        if not name.endswith(("time_series.npy", "chart_images.npy"))
    }
    return combine(parts)


def described_digest(description: dict[str, Any]) -> str:
    """SHA-256 of everything in a description but this digest itself."""
    return combine({name: value for name, value in description.items() if name != "sha256"})


def check_described(data_dir: str | Path) -> None:
    """Raise ValueError for a dataset that loads nowhere: windows as rows whose dataset.json is lost or unreadable."""
    rows = sorted(Path(data_dir).glob("*/ends.npy"))
    if read_description(data_dir) is None and rows:
        raise _undescribed(rows[0].parent)


def _undescribed(folder: Path) -> MissingFileError:
    return MissingFileError(
        f"{folder} holds windows as rows, but {folder.parent} has no {DESCRIPTION_NAME} to say "
        "how long they are. Build the dataset again"
    )


def load_split(data_dir: str | Path, split: str) -> StockDataset | WindowDataset:
    """One split of a dataset: cut from rows where there are rows, else from the interchange format's four arrays.

    Raises:
        MissingFileError: no such folder, or nothing in it that a split can be read from.
        ValueError: an array is bad (see the datasets), or is not the one that dataset.json describes.
    """
    return load_described(Path(data_dir), split, read_description(data_dir))


def load_described(data_dir: Path, split: str, description: Mapping[str, Any] | None) -> StockDataset | WindowDataset:
    """`load_split` with the content of dataset.json at hand."""
    folder = data_dir / split
    if not folder.is_dir():
        raise MissingFileError(
            f"expected a dataset with the split {split!r} in {data_dir}, found no folder {folder}. "
            "Run `make data` to build one, or name another with --data-dir"
        )
    sectors = None if description is None else len(description["sectors"])
    if (folder / "ends.npy").is_file():
        if description is None:
            raise _undescribed(folder)
        size = tuple(description["chart_size"])
        dataset: StockDataset | WindowDataset = WindowDataset(
            data_dir / "rows", folder, description["window"], size, sectors
        )
    else:
        series, charts, sector_ids, labels = (folder / f"{name}.npy" for name in ARRAYS)
        dataset = StockDataset(series, charts, sector_ids, labels, num_sectors=sectors)
    if description is not None:
        _check_digests(dataset, description["digests"], data_dir)
        dataset.samples_digest = description["digests"].get(f"{split}/samples.parquet", "not described")
    return dataset


def _check_digests(dataset: StockDataset | WindowDataset, expected: dict[str, str], data_dir: Path) -> None:
    rows = dataset.row_paths if isinstance(dataset, WindowDataset) else {}
    for name, path in (rows | dataset.paths).items():
        if expected.get(path.relative_to(data_dir).as_posix()) != dataset.digests[name]:
            raise ValueError(
                f"{path}: expected the array that {data_dir / DESCRIPTION_NAME} describes, found another "
                "content. It was changed or comes from another build: build the dataset again"
            )
