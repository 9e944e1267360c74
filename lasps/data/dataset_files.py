"""A dataset's files: how they are written, fingerprinted, and put in place in one step.

    dataset.json                 what it is: features, scaler, borders, counts, fingerprint, a digest of every file
    rows/features.npy            float32 (R,F), scaled
    rows/bars.npy                float32 (R,5): open, high, low, close (KRW), volume (shares)
    rows/stock_starts.npy        int64 (stocks,): each stock's first row
    {train,val,test}/ends.npy    int64 (N,): the row of each window's last day
    {train,val,test}/sector_ids.npy, labels.npy, samples.parquet
    {train,val,test}/time_series.npy, chart_images.npy     the seed's interchange form, on request
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from loguru import logger
from tqdm import tqdm

from lasps.data.datasets.loading import DESCRIPTION_NAME, read_description
from lasps.data.datasets.scan import combine, digest, frame_digest, open_array
from lasps.data.datasets.window_dataset import WindowDataset
from lasps.data.splits import SPLITS

OWN_ENTRIES = frozenset({DESCRIPTION_NAME, "rows", *SPLITS})
MATERIALIZE_CHUNK = 512
NOT_IN_FINGERPRINT = frozenset({"source", "integrity", "universe", "fingerprint", "materialized", "digests"})
"""Where a dataset came from and in which forms it is stored does not make it another dataset."""


@contextmanager
def staging(out_dir: Path) -> Iterator[Path]:
    """A folder beside `out_dir` to build in; removed at the end, whatever happens."""
    folder = out_dir.parent / f".{out_dir.name}.building-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(folder: Path, out_dir: Path) -> None:
    """Rename `folder` to `out_dir`; what stood there is removed, except files that no build ever wrote.

    An error or Ctrl-C between the two renames puts the old one back.
    """
    if not out_dir.exists():
        folder.rename(out_dir)
        return
    old = out_dir.parent / f".{out_dir.name}.replaced-{os.getpid()}"
    try:
        out_dir.rename(old)
        folder.rename(out_dir)
    except BaseException:
        if old.exists() and not out_dir.exists():
            old.rename(out_dir)
        raise
    for entry in old.iterdir():
        if entry.name not in OWN_ENTRIES:
            entry.rename(out_dir / entry.name)
    shutil.rmtree(old)


def refuse_unknown_folder(out_dir: Path) -> None:
    """Raise ValueError if `out_dir` holds something that is not one of our datasets: it is never written over."""
    if out_dir.exists() and not out_dir.is_dir():
        raise ValueError(f"{out_dir}: expected a folder to build in, found a file")
    if out_dir.is_dir() and any(out_dir.iterdir()) and not (out_dir / DESCRIPTION_NAME).is_file():
        raise ValueError(f"{out_dir} is not empty and has no {DESCRIPTION_NAME}: it holds files of somebody else, "
                         "which a build never writes over. Choose another folder, or empty this one yourself")


def standing_twin(out_dir: Path, description: dict[str, Any], force: bool) -> dict[str, Any] | None:
    """The description of the same dataset if it stands in `out_dir` already and lacks nothing.

    Raises:
        ValueError: another dataset stands there, and `force` is not given.
    """
    standing = read_description(out_dir)
    if standing is None:
        return None
    if standing["fingerprint"] != description["fingerprint"]:
        if not force:
            raise ValueError(f"{out_dir} holds another dataset ({standing['fingerprint'][:12]}, this one would be "
                             f"{description['fingerprint'][:12]}). Choose another folder, or replace it with --force")
        return None
    if description["materialized"] and not standing["materialized"]:
        return None
    logger.info(f"{out_dir} holds this very dataset ({standing['fingerprint'][:12]}): left as it is")
    return standing


def save_array(path: Path, array: np.ndarray) -> None:
    """np.save, with the folder made first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def materialize_split(folder: Path, split: str, window: int, chart_size: tuple[int, int], num_sectors: int) -> None:
    """Write the seed's time_series.npy and chart_images.npy of one split, in chunks."""
    dataset = WindowDataset(folder / "rows", folder / split, window, chart_size, num_sectors)
    shapes = {"time_series": ((window, dataset.num_features), np.float32), "chart_images": ((3, *chart_size), np.uint8)}
    series, charts = (
        np.lib.format.open_memmap(folder / split / f"{name}.npy", "w+", dtype, (len(dataset), *shape))
        for name, (shape, dtype) in shapes.items()
    )
    for start in tqdm(range(0, len(dataset), MATERIALIZE_CHUNK), desc=f"write {split} charts", disable=None):
        stop = min(start + MATERIALIZE_CHUNK, len(dataset))
        batch = dataset.batch(np.arange(start, stop))
        series[start:stop], charts[start:stop] = batch[0].numpy(), batch[1].numpy()
    series.flush()
    charts.flush()


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256 of the content of every array and sample table below `folder`."""
    digests = {}
    for path in sorted(folder.rglob("*.npy")):
        name = path.relative_to(folder).as_posix()
        digests[name] = digest(open_array(path, name), desc=f"digest {name}")
    for path in sorted(folder.rglob("*.parquet")):
        digests[path.relative_to(folder).as_posix()] = frame_digest(pl.read_parquet(path))
    return digests


def fingerprint(description: dict[str, Any]) -> str:
    """SHA-256 of what the dataset is: its parameters and the digests of the files that samples are made from."""
    parts = {name: value for name, value in description.items() if name not in NOT_IN_FINGERPRINT}
    parts["digests"] = {
        name: value for name, value in description["digests"].items()
        if not name.endswith(("time_series.npy", "chart_images.npy"))
    }
    return combine(parts)


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """dataset.json, readable."""
    text = json.dumps(description, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    (folder / DESCRIPTION_NAME).write_text(text + "\n", encoding="utf-8")
