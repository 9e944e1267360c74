"""Checks of what the network sees: features and charts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from lasps.config.dataset_config import CHART_SIZE
from lasps.config.settings import CLASS_NAMES
from lasps.data.features.scores import decoded
from lasps.data.integrity.dataset import N_CLASSES, DatasetFolder, SplitArrays
from lasps.data.integrity.findings import Finding, found, hits_without_date, percent, plural

FEATURE_ROWS = 200_000
"""Rows looked at for constants and correlations, evenly spaced: enough for |r| to the third decimal."""
DUPLICATE_R = 0.999
"""Features whose |r| exceeds it say the same thing."""
MISSING_SHARE = 0.5
"""A feature that is missing (NaN, or exactly 0 after scaling) in more than half of the rows. Guess, not tuned."""
CHART_SAMPLES = 1024
"""Windows drawn to look for blank charts where charts are made on demand; stored charts are all looked at."""
SHEET_CHARTS = 24
_CHUNK_BYTES = 64 * 2**20


def feature_rows(data: DatasetFolder) -> np.ndarray | None:
    """Up to FEATURE_ROWS rows (R, F) float32, evenly spaced; None where the dataset has no features."""
    if data.features is not None:
        step = max(1, data.features.shape[0] // FEATURE_ROWS)
        values = np.asarray(data.features[::step][:FEATURE_ROWS], dtype=np.float32)
        return values if data.scores is None else np.hstack([values, decoded(data.scores[::step][:FEATURE_ROWS])])
    for split in data.splits.values():
        series = split.time_series
        if series is not None and len(series):
            step = max(1, series.shape[0] * series.shape[1] // FEATURE_ROWS)
            return np.asarray(series[::step], dtype=np.float32).reshape(-1, series.shape[-1])[:FEATURE_ROWS]
    return None


def feature_values(data: DatasetFolder) -> Finding:
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
            lines.append((name, f"missing (NaN or exactly 0) in {100 * empty[f]:.0f} % of the rows", 1.0))
    broken = constant.mean() > 0.5 or any(rank == 3.0 for *_, rank in lines)
    lines.sort(key=lambda line: -line[2])
    hits = hits_without_date(lines)
    return found(
        "feature_values",
        hits,
        len(names),
        severity="fatal" if broken else "warning",
        summary=f"{plural(hits.height, 'feature')} constant, mostly missing or not finite.",
        advice="A constant feature tells nothing; when most are, the scaling erased them. Choose other features.",
    )


def _is_flag(column: np.ndarray) -> bool:
    return bool(np.isin(column[:: max(1, len(column) // 1000)], (0.0, 1.0)).all() and np.isin(column, (0.0, 1.0)).all())


def duplicated_features(data: DatasetFolder) -> Finding:
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
    hits = hits_without_date(lines)
    return found(
        "duplicated_features",
        hits,
        len(names) * (len(names) - 1) // 2,
        severity="warning",
        summary=f"{plural(hits.height, 'pair')} of features with |r| above {DUPLICATE_R}.",
        advice="Leave one of each pair out.",
    )


def blank_charts(data: DatasetFolder) -> Finding:
    """Charts of one single value. Stored charts are all looked at, charts made on demand by sample."""
    lines: list[tuple[str, str]] = []
    n = 0
    for split in data.splits.values():
        indices, charts = split_charts(data, split, CHART_SAMPLES)
        n += len(indices)
        for start, chunk in charts:
            flat = chunk.reshape(len(chunk), -1)
            blank = np.flatnonzero(flat.min(1) == flat.max(1))
            lines += [(f"{split.name}[{indices[start + i]}]", f"all values {flat[i, 0]:g}") for i in blank]
    if n == 0:
        return Finding("blank_charts", "info", 0, 0, "no charts in this dataset")
    hits = hits_without_date(lines)
    return found(
        "blank_charts",
        hits,
        n,
        severity="fatal",
        summary=f"{percent(hits.height, n)} charts hold one single value.",
        advice="They carry nothing: the bars were missing or the files were not read. Draw them again from the bars.",
    )


def split_charts(
    data: DatasetFolder, split: SplitArrays, limit: int
) -> tuple[np.ndarray, Iterable[tuple[int, np.ndarray]]]:
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


def _drawn(data: DatasetFolder, ends: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    import torch

    from lasps.data.charts import render

    assert data.bars is not None
    size = tuple(data.description.get("chart_size", CHART_SIZE))
    offsets = np.arange(1 - data.window, 1)
    for start in range(0, len(ends), 256):
        rows = np.asarray(ends[start : start + 256])[:, None] + offsets
        bars = torch.from_numpy(np.ascontiguousarray(data.bars[np.maximum(rows, 0)], dtype=np.float32))
        yield start, render(bars, size=size).numpy()


def contact_sheet(data: DatasetFolder, n: int = SHEET_CHARTS) -> list[tuple[str, np.ndarray]]:
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


def _caption(split: SplitArrays, i: int) -> str:
    label = int(split.labels[i])
    name = CLASS_NAMES[label] if 0 <= label < N_CLASSES else str(label)
    if split.samples is None:
        return f"{split.name} {i} {name}"
    row = split.samples.row(i, named=True)
    return f"{row['code']} {row['date']} {name}"
