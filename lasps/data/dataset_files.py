"""A dataset's files: how they are written, fingerprinted, and put in place in one step.

dataset.json                 what it is: features, scaler, borders, counts, fingerprint, a digest of every file
rows/features.npy            float32 (R,V), scaled: the features that are not scores
rows/scores.npy              int8 (R,F-V): the scores, in steps of 1/40 (lasps/data/features/scores.py)
rows/bars.npy                float32 (R,5): open, high, low, close (KRW), volume (shares)
rows/stock_starts.npy        int64 (stocks,): each stock's first row
{train,val,test}/ends.npy    int64 (N,): the row of each window's last day
{train,val,test}/sector_ids.npy, labels.npy, samples.parquet
{train,val,test}/time_series.npy, chart_images.npy     the interchange format, on request
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from loguru import logger
from tqdm import tqdm

from lasps.data.datasets.description import described_digest, read_description
from lasps.data.datasets.replacement import DESCRIPTION_NAME, NEW, finish_replacement, is_empty
from lasps.data.datasets.scan import create_array, digest, frame_digest, open_array
from lasps.data.datasets.window_dataset import WindowDataset

MATERIALIZE_CHUNK = 512


def refuse_unknown_folder(out_dir: Path) -> None:
    """Raise ValueError if `out_dir` holds something that is not one of our datasets: it is never written over."""
    if out_dir.exists() and not out_dir.is_dir():
        raise ValueError(f"{out_dir}: expected a folder to build in, found a file")
    finish_replacement(out_dir)
    if not is_empty(out_dir) and read_description(out_dir) is None:
        raise ValueError(
            f"{out_dir} is not empty and has no {DESCRIPTION_NAME}: not a lasps dataset, "
            "which a build never writes over. Choose another folder, or empty this one yourself"
        )


@contextmanager
def failures_told(out_dir: Path) -> Iterator[None]:
    """Say of an OSError in the block (a full disk, a folder that cannot be written) what became of the dataset."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ValueError):  # a missing input: says so itself
            raise
        became = "the next command that opens it finishes it" if (out_dir / NEW).exists() else "nothing was changed"
        told = OSError(error.errno, f"{out_dir} was not built: {error.strerror or error}; {became}")
        raise told from error


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
            raise ValueError(
                f"{out_dir} holds another dataset ({standing['fingerprint'][:12]}, this one would be "
                f"{description['fingerprint'][:12]}). Choose another folder, or replace it with --force"
            )
        return None
    if description["materialized"] and not standing["materialized"]:
        return None
    logger.info(f"{out_dir} holds this very dataset ({standing['fingerprint'][:12]}): left as it is")
    return standing


def save_array(path: Path, array: np.ndarray) -> None:
    """np.save into room that is taken first (a full disk is an OSError, not a crash), with the folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.size == 0:
        np.save(path, array)
        return
    written = create_array(path, array.dtype, array.shape)
    written[...] = array
    written.flush()


def materialize_split(folder: Path, split: str, window: int, chart_size: tuple[int, int], num_sectors: int) -> None:
    """Write the interchange format's time_series.npy and chart_images.npy of one split, in chunks."""
    dataset = WindowDataset(folder / "rows", folder / split, window, chart_size, num_sectors)
    shapes = {"time_series": ((window, dataset.num_features), np.float32), "chart_images": ((3, *chart_size), np.uint8)}
    series, charts = (
        create_array(folder / split / f"{name}.npy", dtype, (len(dataset), *shape))
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


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """dataset.json, readable, with a digest of itself that is put into `description` too."""
    description.pop("sha256", None)
    plain = json.loads(json.dumps(description, ensure_ascii=False, allow_nan=False, default=str))
    description["sha256"] = plain["sha256"] = described_digest(plain)
    text = json.dumps(plain, indent=2, ensure_ascii=False)
    (folder / DESCRIPTION_NAME).write_text(text + "\n", encoding="utf-8")
