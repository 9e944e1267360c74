"""Every byte of a finished dataset against dataset.json: what opening it spares on large arrays."""

from __future__ import annotations

import polars as pl

from lasps.data.datasets.loading import ARRAYS
from lasps.data.datasets.scan import STAMP_NAME, digest, frame_digest, open_array, read_stamps
from lasps.data.integrity.dataset_folder import Dataset
from lasps.data.integrity.findings import Finding, found, hits_without_date, plural


def altered_files(data: Dataset) -> Finding:
    """Files whose content is not the one that dataset.json (without one: the last scan) names, or that are gone."""
    expected = data.description.get("digests") or _scanned(data)
    hits = hits_without_date(
        [("", f"{name}: {what}") for name, kept in expected.items() if (what := _difference(data, name, kept))]
    )
    return found(
        "altered_files",
        hits,
        len(expected),
        severity="fatal",
        summary=f"{plural(hits.height, 'file')} not as the build wrote them.",
        advice="Bits were changed after the dataset was built. Build it again, and check the disk.",
    )


def _difference(data: Dataset, name: str, kept: str) -> str:
    """What is wrong with a file; empty where its content has the digest `kept`."""
    path = data.folder / name
    if not path.is_file():
        return "expected a file, found none"
    try:
        own = frame_digest(pl.read_parquet(path)) if path.suffix == ".parquet" else digest(open_array(path, name))
    except (ValueError, OSError, pl.exceptions.PolarsError) as error:
        return f"cannot be read ({str(error).partition(chr(10))[0]})"
    return "" if own == kept else f"expected the digest {kept[:12]}, found {own[:12]}"


def _scanned(data: Dataset) -> dict[str, str]:
    """What the first opening of somebody's arrays found, by path below the folder."""
    return {
        f"{split}/{role}.npy": value
        for split in data.splits
        for stamp in read_stamps(data.folder / split / STAMP_NAME)
        if set(stamp["digests"]) == set(ARRAYS)
        for role, value in stamp["digests"].items()
    }
