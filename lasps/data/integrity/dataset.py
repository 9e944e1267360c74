"""A dataset folder opened for reading, and the checks of its arrays, samples, labels and bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lasps.config.dataset_config import WINDOW
from lasps.config.settings import CLASS_NAMES
from lasps.data.datasets.description import ARRAYS
from lasps.data.datasets.scan import STAMP_NAME, digest, frame_digest, open_array, read_stamps
from lasps.data.integrity.findings import Finding, Severity, found, hits_without_date, percent, plural
from lasps.data.splits import SPLITS

N_CLASSES = len(CLASS_NAMES)


@dataclass
class SplitArrays:
    """The arrays of one split; what a foreign dataset lacks is None."""

    name: str
    labels: np.ndarray
    sector_ids: np.ndarray
    ends: np.ndarray | None = None
    samples: pl.DataFrame | None = None
    time_series: np.ndarray | None = None
    chart_images: np.ndarray | None = None


@dataclass
class DatasetFolder:
    """A dataset folder, opened for reading: {train,val,test}/, rows/ and dataset.json, whichever are there."""

    folder: Path
    splits: dict[str, SplitArrays]
    features: np.ndarray | None = None
    bars: np.ndarray | None = None
    scores: np.ndarray | None = None
    description: dict[str, Any] = field(default_factory=dict)

    @property
    def feature_names(self) -> list[str]:
        width = sum(array.shape[1] for array in (self.features, self.scores) if array is not None)
        for split in self.splits.values():
            if split.time_series is not None and not width:
                width = split.time_series.shape[-1]
        names = [str(n) for n in self.description.get("features", [])]
        return names if len(names) == width else [f"feature {i}" for i in range(width)]

    @property
    def window(self) -> int:
        return int(self.description.get("window", WINDOW))


def open_dataset(folder: str | Path) -> DatasetFolder:
    """Open a dataset folder with memory maps.

    Raises:
        ValueError: no folder, or no split with labels.npy and sector_ids.npy in it.
    """
    folder = Path(folder)
    splits = {name: split for name in SPLITS if (split := _open_split(folder / name)) is not None}
    if not splits:
        raise ValueError(
            f"{folder}: expected a dataset with {{{','.join(SPLITS)}}}/labels.npy and sector_ids.npy, found neither. "
            "Build one with `make data`."
        )
    described = folder / "dataset.json"
    description = json.loads(described.read_text(encoding="utf-8")) if described.exists() else {}
    rows = folder / "rows"
    features, bars, scores = (_load(rows / f"{name}.npy") for name in ("features", "bars", "scores"))
    return DatasetFolder(folder, splits, features, bars, scores, description)


def _open_split(folder: Path) -> SplitArrays | None:
    labels, sectors = _load(folder / "labels.npy"), _load(folder / "sector_ids.npy")
    if labels is None or sectors is None:
        return None
    table = folder / "samples.parquet"
    return SplitArrays(
        folder.name,
        np.asarray(labels),
        np.asarray(sectors),
        _load(folder / "ends.npy"),
        pl.read_parquet(table) if table.exists() else None,
        _load(folder / "time_series.npy"),
        _load(folder / "chart_images.npy"),
    )


def _load(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: expected a NumPy array, but {error}; build the dataset again") from error


def array_agreement(data: DatasetFolder) -> Finding:
    """Arrays of one split with another length, labels or sectors out of range or other than in samples.parquet."""
    num_sectors = len(data.description.get("sectors") or []) or None
    rows = data.features.shape[0] if data.features is not None else None
    problems = [p for split in data.splits.values() for p in _disagreements(split, num_sectors, rows)]
    hits = hits_without_date(problems)
    return found(
        "array_agreement",
        hits,
        sum(len(s.labels) for s in data.splits.values()),
        severity="fatal",
        summary=f"{plural(hits.height, 'disagreement')} between the arrays of the dataset.",
        advice="The files are not of one build. Build the dataset again.",
    )


def _disagreements(split: SplitArrays, num_sectors: int | None, rows: int | None) -> list[tuple[str, str]]:
    n, out = len(split.labels), []
    arrays = {
        "sector_ids": split.sector_ids,
        "ends": split.ends,
        "samples": split.samples,
        "time_series": split.time_series,
        "chart_images": split.chart_images,
    }
    for name, array in arrays.items():
        if array is not None and len(array) != n:
            out.append((split.name, f"{name} has {len(array):,} entries, labels has {n:,}"))
    if out or n == 0:
        return out
    if not ((split.labels >= 0) & (split.labels < N_CLASSES)).all():
        out.append((split.name, f"labels outside 0..{N_CLASSES - 1}: {split.labels.min()}..{split.labels.max()}"))
    low, high = split.sector_ids.min(), split.sector_ids.max()
    if low < 0 or (num_sectors and high >= num_sectors):
        out.append((split.name, f"sector ids {low}..{high}, but there are {num_sectors} sectors"))
    if split.ends is not None and rows is not None and not 0 <= split.ends.min() <= split.ends.max() < rows:
        out.append((split.name, f"ends {split.ends.min()}..{split.ends.max()} outside the {rows:,} rows"))
    if split.samples is not None:
        for column, array in (("label", split.labels), ("sector", split.sector_ids)):
            if column in split.samples.columns:
                differ = int((split.samples[column].cast(pl.Int64).to_numpy() != array).sum())
                if differ:
                    out.append((split.name, f"{column} differs from samples.parquet in {differ:,} of {n:,} samples"))
    return out


def altered_files(data: DatasetFolder) -> Finding:
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


def _difference(data: DatasetFolder, name: str, kept: str) -> str:
    """What is wrong with a file; empty where its content has the digest `kept`."""
    path = data.folder / name
    if not path.is_file():
        return "expected a file, found none"
    try:
        own = frame_digest(pl.read_parquet(path)) if path.suffix == ".parquet" else digest(open_array(path, name))
    except (ValueError, OSError, pl.exceptions.PolarsError) as error:
        return f"cannot be read ({str(error).partition(chr(10))[0]})"
    return "" if own == kept else f"expected the digest {kept[:12]}, found {own[:12]}"


def _scanned(data: DatasetFolder) -> dict[str, str]:
    """What the first opening of somebody's arrays found, by path below the folder."""
    return {
        f"{split}/{role}.npy": value
        for split in data.splits
        for stamp in read_stamps(data.folder / split / STAMP_NAME)
        if set(stamp["digests"]) == set(ARRAYS)
        for role, value in stamp["digests"].items()
    }


DOMINANT_SECTOR = 0.5
"""Share of the samples in one sector from which the sector map is doubtful. Guess: KRX's largest holds 0.1 to 0.2."""
RARE_CLASS, RARE_MIN_SAMPLES = 0.01, 500
"""A class below this share in a split, year or sector of that many samples is worth a look. Guess, not tuned."""


def label_table(data: DatasetFolder) -> pl.DataFrame:
    """One row per sample: split, year (null for a foreign dataset), sector, label."""
    frames = []
    for split in data.splits.values():
        n = min(len(split.labels), len(split.sector_ids))  # of another length: array_agreement says so
        arrays = {"sector": split.sector_ids[:n], "label": split.labels[:n]}
        frame = pl.DataFrame({name: array.astype(np.int64) for name, array in arrays.items()})
        years = pl.Series([None] * n, dtype=pl.Int32)
        if split.samples is not None and split.samples.height >= n:
            years = split.samples["date"].head(n).dt.year().cast(pl.Int32)
        frame = frame.with_columns(split=pl.lit(split.name), year=years)
        frames.append(frame.select("split", "year", "sector", "label"))
    return pl.concat(frames)


def label_shares(table: pl.DataFrame, by: str) -> pl.DataFrame:
    """`by`, n and the share of each class."""
    shares = [(pl.col("label") == k).mean().alias(name) for k, name in enumerate(CLASS_NAMES)]
    return table.group_by(by).agg(pl.len().alias("n"), *shares).sort(by)


def label_balance(data: DatasetFolder) -> Finding:
    """Label shares by split, year and sector; constant labels are fatal, a rare class a warning."""
    table, rows, lines = label_table(data), [], []
    severity: Severity = "info"
    for by in ("split", "year", "sector"):
        for row in label_shares(table.filter(pl.col(by).is_not_null()), by).iter_rows(named=True):
            shares = [row[name] for name in CLASS_NAMES]
            rows.append({"by": by, "value": str(row[by]), "n": row["n"], **{n: round(row[n], 4) for n in CLASS_NAMES}})
            constant = max(shares) == 1 and (by == "split" or row["n"] >= RARE_MIN_SAMPLES)
            rare = min(shares) < RARE_CLASS and row["n"] >= RARE_MIN_SAMPLES
            if constant or rare:
                severity = "fatal" if constant or severity == "fatal" else "warning"
                text = " ".join(f"{n} {100 * s:.1f} %" for n, s in zip(CLASS_NAMES, shares, strict=True))
                lines.append((f"{by} {row[by]}", f"{text} of {row['n']:,}", max(shares)))
    lines.sort(key=lambda line: -line[2])
    hits = hits_without_date(lines)
    finding = found(
        "label_balance",
        hits,
        table.height,
        severity=severity,
        table=tuple(rows),
        summary=f"{plural(hits.height, 'group')} with constant or rare labels.",
        advice="Constant: horizon, threshold or the closes are wrong. A rare class: look at the universe (SPACs).",
    )
    if hits.height:
        return finding
    overall = label_shares(table.with_columns(split=pl.lit("all")), "split").row(0, named=True) if table.height else {}
    summary = ", ".join(f"{n} {100 * overall[n]:.1f} %" for n in CLASS_NAMES) if overall else "no samples"
    return Finding(
        "label_balance", "info" if overall else "fatal", 0 if overall else 1, table.height, summary, table=tuple(rows)
    )


def sample_sectors(data: DatasetFolder) -> Finding:
    """One sector that holds most samples, or all of them."""
    sectors = np.concatenate([split.sector_ids for split in data.splits.values()]).astype(np.int64)
    ids, counts = np.unique(sectors, return_counts=True)
    rows = tuple({"sector": int(s), "samples": int(n)} for s, n in zip(ids, counts, strict=True))
    lines = [
        (f"sector {s}", f"{100 * n / len(sectors):.0f} % of the samples")
        for s, n in zip(ids, counts, strict=True)
        if n > DOMINANT_SECTOR * len(sectors)
    ]
    return found(
        "sample_sectors",
        hits_without_date(lines),
        len(sectors),
        severity="fatal" if len(ids) == 1 else "warning",
        summary="all samples are in one sector." if len(ids) == 1 else "one sector holds most of the samples.",
        advice="The sector map is probably broken: sector heads have nothing to tell apart.",
        table=rows,
    )


def split_overlap(data: DatasetFolder) -> Finding:
    """A sample (code, date) that stands twice, in two splits or in one."""
    known = {name: split.samples for name, split in data.splits.items() if split.samples is not None}
    frames = [samples.select("code", "date", split=pl.lit(name)) for name, samples in known.items()]
    if not frames:
        return Finding("split_overlap", "info", 0, 0, "no samples.parquet: nothing is known about codes and dates")
    all_rows = pl.concat(frames)
    again = all_rows.group_by("code", "date").agg(n=pl.len(), splits=pl.col("split").unique().sort().str.join(" and "))
    hits = again.filter(pl.col("n") > 1).sort("code", "date")
    hits = hits.with_columns(detail=pl.format("{} times, in {}", "n", "splits"))
    return found(
        "split_overlap",
        hits,
        all_rows.height,
        severity="fatal",
        summary=f"{plural(hits.height, 'sample')} (code, date) more than once.",
        advice="The splits were not cut by date. Build the dataset again.",
    )


def label_leaks(data: DatasetFolder) -> Finding:
    """Samples whose label ends on or after the first day of a later split."""
    frames, n = [], 0
    known = [s for s in (data.splits.get(name) for name in SPLITS) if s is not None and s.samples is not None]
    for before, after in zip(known, known[1:], strict=False):
        assert before.samples is not None and after.samples is not None
        if "label_end" not in before.samples.columns or after.samples.height == 0:
            continue
        n += before.samples.height
        first = after.samples["date"].min()
        late = before.samples.filter(pl.max_horizontal("label_end", "date") >= first)
        frames.append(
            late.select(
                "code",
                "date",
                detail=pl.format(before.name + " label ends {}, " + f"{after.name} starts {first!s}", "label_end"),
            )
        )
    if not frames:
        return Finding("label_leaks", "info", 0, 0, "no label_end in samples.parquet: purging cannot be checked")
    hits = pl.concat(frames).sort("date", "code")
    return found(
        "label_leaks",
        hits,
        n,
        severity="fatal",
        summary=f"{percent(hits.height, n)} samples have a label that ends inside the next split.",
        advice="Purge by label end, not by a fixed number of days: halts stretch labels. Build the dataset again.",
    )
