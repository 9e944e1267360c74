"""Checks of a finished dataset folder: arrays, labels, splits, features, charts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lasps.config.settings import CLASS_NAMES
from lasps.data.integrity.findings import Finding, Severity, found, percent, plural

SPLITS = ("train", "val", "test")
N_CLASSES = len(CLASS_NAMES)
RARE_CLASS, RARE_MIN_SAMPLES = 0.01, 500
"""A class below this share in a split, year or sector of that many samples is worth a look. Guess, not tuned."""
FEATURE_ROWS = 200_000
"""Rows looked at for constants and correlations, evenly spaced: enough for |r| to the third decimal."""
DUPLICATE_R = 0.999
"""From issue and design: features whose |r| exceeds it say the same thing."""
MISSING_SHARE = 0.5
"""A feature that is missing (NaN, or exactly 0 after scaling) in more than half of the rows. Guess, not tuned."""
CHART_SAMPLES = 1024
"""Windows drawn to look for blank charts where charts are made on demand; stored charts are all looked at."""
SHEET_CHARTS = 24
_CHUNK_BYTES = 64 * 2**20


@dataclass
class Split:
    """The arrays of one split; what a foreign dataset lacks is None."""

    name: str
    labels: np.ndarray
    sector_ids: np.ndarray
    ends: np.ndarray | None = None
    samples: pl.DataFrame | None = None
    time_series: np.ndarray | None = None
    chart_images: np.ndarray | None = None


@dataclass
class Dataset:
    """A dataset folder, opened for reading: {train,val,test}/, rows/ and dataset.json, whichever are there."""

    folder: Path
    splits: dict[str, Split]
    features: np.ndarray | None = None
    bars: np.ndarray | None = None
    description: dict[str, Any] = field(default_factory=dict)

    @property
    def feature_names(self) -> list[str]:
        width = self.features.shape[1] if self.features is not None else 0
        for split in self.splits.values():
            if split.time_series is not None and not width:
                width = split.time_series.shape[-1]
        names = [str(n) for n in self.description.get("features", [])]
        return names if len(names) == width else [f"feature {i}" for i in range(width)]

    @property
    def window(self) -> int:
        return int(self.description.get("window", 60))


def open_dataset(folder: str | Path) -> Dataset:
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
    return Dataset(folder, splits, _load(rows / "features.npy"), _load(rows / "bars.npy"), description)


def _open_split(folder: Path) -> Split | None:
    labels, sectors = _load(folder / "labels.npy"), _load(folder / "sector_ids.npy")
    if labels is None or sectors is None:
        return None
    table = folder / "samples.parquet"
    return Split(
        folder.name, np.asarray(labels), np.asarray(sectors), _load(folder / "ends.npy"),
        pl.read_parquet(table) if table.exists() else None,
        _load(folder / "time_series.npy"), _load(folder / "chart_images.npy"),
    )  # fmt: skip


def _load(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: expected a NumPy array, but {error}; build the dataset again") from error


# --- checks -----------------------------------------------------------------------------------------------------


def array_agreement(data: Dataset) -> Finding:
    """Arrays of one split with another length, labels or sectors out of range or other than in samples.parquet."""
    num_sectors = len(data.description.get("sectors") or []) or None
    rows = data.features.shape[0] if data.features is not None else None
    problems = [p for split in data.splits.values() for p in _disagreements(split, num_sectors, rows)]
    hits = pl.DataFrame(problems, schema=["code", "detail"], orient="row").with_columns(date=pl.lit(None, pl.Date))
    return found(
        "array_agreement", hits, sum(len(s.labels) for s in data.splits.values()), severity="fatal",
        summary=f"{plural(hits.height, 'disagreement')} between the arrays of the dataset.",
        advice="The files are not of one build. Build the dataset again.",
    )  # fmt: skip


def _disagreements(split: Split, num_sectors: int | None, rows: int | None) -> list[tuple[str, str]]:
    n, out = len(split.labels), []
    arrays = {"sector_ids": split.sector_ids, "ends": split.ends, "samples": split.samples,
              "time_series": split.time_series, "chart_images": split.chart_images}  # fmt: skip
    for name, array in arrays.items():
        if array is not None and len(array) != n:
            out.append((split.name, f"{name} has {len(array):,} entries, labels has {n:,}"))
    if out or n == 0:
        return out
    if not ((split.labels >= 0) & (split.labels < N_CLASSES)).all():
        out.append((split.name, f"labels outside 0..{N_CLASSES - 1}: {split.labels.min()}..{split.labels.max()}"))
    if split.sector_ids.min() < 0 or (num_sectors and split.sector_ids.max() >= num_sectors):
        out.append((split.name, f"sector ids {split.sector_ids.min()}..{split.sector_ids.max()}, sectors: {num_sectors}"))
    if split.ends is not None and rows is not None and not 0 <= split.ends.min() <= split.ends.max() < rows:
        out.append((split.name, f"ends {split.ends.min()}..{split.ends.max()} outside the {rows:,} rows"))
    if split.samples is not None:
        for column, array in (("label", split.labels), ("sector", split.sector_ids)):
            if column in split.samples.columns:
                differ = int((split.samples[column].cast(pl.Int64).to_numpy() != array).sum())
                if differ:
                    out.append((split.name, f"{column} differs from samples.parquet in {differ:,} of {n:,} samples"))
    return out


def label_table(data: Dataset) -> pl.DataFrame:
    """One row per sample: split, year (null for a foreign dataset), sector, label."""
    frames = []
    for split in data.splits.values():
        years = pl.lit(None, pl.Int32)
        if split.samples is not None and split.samples.height == len(split.labels):
            years = split.samples["date"].dt.year().cast(pl.Int32)  # type: ignore[assignment]
        n = min(len(split.labels), len(split.sector_ids))
        frames.append(
            pl.DataFrame({"sector": split.sector_ids[:n].astype(np.int64), "label": split.labels[:n].astype(np.int64)})
            .with_columns(split=pl.lit(split.name), year=years)
            .select("split", "year", "sector", "label")
        )
    return pl.concat(frames)


def label_shares(table: pl.DataFrame, by: str) -> pl.DataFrame:
    """`by`, n and the share of each class."""
    shares = [(pl.col("label") == k).mean().alias(name) for k, name in enumerate(CLASS_NAMES)]
    return table.group_by(by).agg(n=pl.len(), *shares).sort(by)


def label_balance(data: Dataset) -> Finding:
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
    hits = pl.DataFrame(lines, schema=["code", "detail", "share"], orient="row").with_columns(date=pl.lit(None, pl.Date))
    finding = found(
        "label_balance", hits, table.height, severity=severity, table=tuple(rows),
        summary=f"{plural(hits.height, 'group')} with constant or rare labels.",
        advice="Constant labels: horizon, threshold or the closes are wrong. A rare class: look at the universe (SPACs).",
    )  # fmt: skip
    if hits.height:
        return finding
    overall = label_shares(table.with_columns(split=pl.lit("all")), "split").row(0, named=True) if table.height else {}
    summary = ", ".join(f"{n} {100 * overall[n]:.1f} %" for n in CLASS_NAMES) if overall else "no samples"
    return Finding("label_balance", "info" if overall else "fatal", 0 if overall else 1, table.height, summary,
                   table=tuple(rows))  # fmt: skip


def split_overlap(data: Dataset) -> Finding:
    """A sample (code, date) that stands twice, in two splits or in one."""
    frames = [s.samples.select("code", "date", split=pl.lit(name)) for name, s in data.splits.items() if s.samples is not None]
    if not frames:
        return Finding("split_overlap", "info", 0, 0, "no samples.parquet: nothing is known about codes and dates")
    all_rows = pl.concat(frames)
    again = all_rows.group_by("code", "date").agg(n=pl.len(), splits=pl.col("split").unique().sort().str.join(" and "))
    hits = again.filter(pl.col("n") > 1).sort("code", "date").with_columns(detail=pl.format("{} times, in {}", "n", "splits"))
    return found(
        "split_overlap", hits, all_rows.height, severity="fatal",
        summary=f"{plural(hits.height, 'sample')} (code, date) more than once.",
        advice="The splits were not cut by date. Build the dataset again.",
    )  # fmt: skip


def label_leaks(data: Dataset) -> Finding:
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
        frames.append(late.select(
            "code", "date",
            detail=pl.format(before.name + " label ends {}, " + f"{after.name} starts {first}", "label_end"),
        ))  # fmt: skip
    if not frames:
        return Finding("label_leaks", "info", 0, 0, "no label_end in samples.parquet: purging cannot be checked")
    hits = pl.concat(frames).sort("date", "code")
    return found(
        "label_leaks", hits, n, severity="fatal",
        summary=f"{percent(hits.height, n)} samples have a label that ends inside the next split.",
        advice="Purge by label end, not by a fixed number of days: halts stretch labels. Build the dataset again.",
    )  # fmt: skip


def feature_rows(data: Dataset) -> np.ndarray | None:
    """Up to FEATURE_ROWS rows (R, F) float32, evenly spaced; None where the dataset has no features."""
    if data.features is not None:
        step = max(1, data.features.shape[0] // FEATURE_ROWS)
        return np.asarray(data.features[::step][:FEATURE_ROWS], dtype=np.float32)
    for split in data.splits.values():
        series = split.time_series
        if series is not None and len(series):
            step = max(1, series.shape[0] * series.shape[1] // FEATURE_ROWS)
            return np.asarray(series[::step], dtype=np.float32).reshape(-1, series.shape[-1])[:FEATURE_ROWS]
    return None


def feature_values(data: Dataset) -> Finding:
    """Features that are constant, mostly missing or not finite."""
    x, names = feature_rows(data), data.feature_names
    if x is None or x.size == 0:
        return Finding("feature_values", "info", 0, 0, "no features in this dataset")
    finite = np.isfinite(x)
    constant = np.where(finite, x, -np.inf).max(0) == np.where(finite, x, np.inf).min(0)
    empty = np.mean(~finite | (x == 0), axis=0)
    lines: list[tuple[str, str, float]] = []
    for f, name in enumerate(names):
        if not finite[:, f].all():
            lines.append((name, f"{100 * np.mean(~finite[:, f]):.2g} % not finite", 3.0))
        if constant[f] or not finite[:, f].any():
            lines.append((name, f"constant: {x[0, f]:g}", 2.0))
        elif empty[f] > MISSING_SHARE and not _is_flag(x[:, f]):
            lines.append((name, f"missing (NaN or exactly 0) in {100 * empty[f]:.0f} % of the rows", 1.0 + empty[f] / 10))
    broken = constant.mean() > 0.5 or any(rank == 3.0 for *_, rank in lines)
    lines.sort(key=lambda line: -line[2])
    hits = pl.DataFrame(lines, schema=["code", "detail", "rank"], orient="row").with_columns(date=pl.lit(None, pl.Date))
    return found(
        "feature_values", hits, len(names), severity="fatal" if broken else "warning",
        summary=f"{plural(hits.height, 'feature')} constant, mostly missing or not finite.",
        advice="A constant feature tells nothing; when most are, the scaling erased them. Choose other features.",
    )  # fmt: skip


def _is_flag(column: np.ndarray) -> bool:
    return bool(np.isin(column[:: max(1, len(column) // 1000)], (0.0, 1.0)).all() and np.isin(column, (0.0, 1.0)).all())


def duplicated_features(data: Dataset) -> Finding:
    """Pairs of features with |r| > DUPLICATE_R."""
    x, names = feature_rows(data), data.feature_names
    if x is None or len(x) < 3:
        return Finding("duplicated_features", "info", 0, 0, "no features in this dataset")
    values = np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    values -= values.mean(0)
    scale = np.sqrt((values**2).sum(0))
    usable = scale > 0
    r = (values.T @ values) / np.where(usable, scale, 1.0) / np.where(usable, scale, 1.0)[:, None]
    pairs = [(i, j) for i, j in np.argwhere(np.triu(np.abs(r) > DUPLICATE_R, 1)) if usable[i] and usable[j]]
    lines = [(f"{names[i]} ~ {names[j]}", f"r = {r[i, j]:.5f}") for i, j in sorted(pairs, key=lambda p: -abs(r[p]))]
    hits = pl.DataFrame(lines, schema=["code", "detail"], orient="row").with_columns(date=pl.lit(None, pl.Date))
    return found(
        "duplicated_features", hits, len(names) * (len(names) - 1) // 2, severity="warning",
        summary=f"{plural(hits.height, 'pair')} of features with |r| above {DUPLICATE_R}.",
        advice="Leave one of each pair out.",
    )  # fmt: skip


def blank_charts(data: Dataset) -> Finding:
    """Charts of one single value. Stored charts are all looked at, charts made on demand by sample."""
    lines: list[tuple[str, str]] = []
    n = 0
    for split in data.splits.values():
        indices, charts = split_charts(data, split, CHART_SAMPLES)
        n += len(indices)
        for start, chunk in charts:
            flat = chunk.reshape(len(chunk), -1)
            blank = flat.min(1) == flat.max(1)
            lines += [(f"{split.name}[{indices[start + i]}]", f"all values {flat[i, 0]:g}") for i in np.flatnonzero(blank)]
    if n == 0:
        return Finding("blank_charts", "info", 0, 0, "no charts in this dataset")
    hits = pl.DataFrame(lines, schema=["code", "detail"], orient="row").with_columns(date=pl.lit(None, pl.Date))
    return found(
        "blank_charts", hits, n, severity="fatal",
        summary=f"{percent(hits.height, n)} charts hold one single value.",
        advice="They carry nothing: the bars were missing or the files were not read. Draw them again from the bars.",
    )  # fmt: skip


def split_charts(data: Dataset, split: Split, limit: int) -> tuple[np.ndarray, Any]:
    """(sample indices, iterator over (start, charts (b,3,H,W))) of stored charts, else of up to `limit` drawn ones."""
    if split.chart_images is not None:
        images = split.chart_images
        step = max(1, _CHUNK_BYTES // max(1, int(np.prod(images.shape[1:])) * images.itemsize))
        chunks = ((i, np.asarray(images[i : i + step])) for i in range(0, len(images), step))
        return np.arange(len(images)), chunks
    if data.bars is None or split.ends is None or len(split.ends) == 0:
        return np.empty(0, np.int64), ()
    indices = np.unique(np.linspace(0, len(split.ends) - 1, min(limit, len(split.ends))).astype(np.int64))
    return indices, _drawn(data, split.ends[indices])


def _drawn(data: Dataset, ends: np.ndarray) -> Any:
    import torch

    from lasps.data.charts import render

    assert data.bars is not None
    size = tuple(data.description.get("chart_size", (96, 180)))
    offsets = np.arange(1 - data.window, 1)
    for start in range(0, len(ends), 256):
        rows = np.asarray(ends[start : start + 256])[:, None] + offsets
        bars = torch.from_numpy(np.ascontiguousarray(data.bars[np.maximum(rows, 0)], dtype=np.float32))
        yield start, render(bars, size=size).numpy()


def contact_sheet(data: Dataset, n: int = SHEET_CHARTS) -> list[tuple[str, np.ndarray]]:
    """Up to `n` charts (H, W, 3) uint8 with a caption, evenly over the first split that has charts."""
    for split in data.splits.values():
        if split.chart_images is not None and len(split.chart_images):
            indices = np.unique(np.linspace(0, len(split.chart_images) - 1, n).astype(np.int64))
            images = np.stack([split.chart_images[i] for i in indices])
        else:
            indices, chunks = split_charts(data, split, n)
            images = np.concatenate([chunk for _, chunk in chunks]) if len(indices) else np.empty(0)
        if len(indices):
            return [(_caption(split, int(i)), _rgb(image)) for i, image in zip(indices, images, strict=True)]
    return []


def _rgb(chart: np.ndarray) -> np.ndarray:
    picture = np.moveaxis(chart, 0, -1)
    return picture if picture.dtype == np.uint8 else (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)


def _caption(split: Split, i: int) -> str:
    label = int(split.labels[i])
    name = CLASS_NAMES[label] if 0 <= label < N_CLASSES else str(label)
    if split.samples is None:
        return f"{split.name} {i} {name}"
    row = split.samples.row(i, named=True)
    return f"{row['code']} {row['date']} {name}"
