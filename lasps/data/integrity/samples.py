"""Checks of a dataset's samples: label shares, samples in two splits, labels that end in the next split."""

from __future__ import annotations

import numpy as np
import polars as pl

from lasps.config.settings import CLASS_NAMES
from lasps.data.integrity.dataset_folder import Dataset
from lasps.data.integrity.findings import Finding, Severity, found, hits_without_date, percent, plural
from lasps.data.splits import SPLITS

DOMINANT_SECTOR = 0.5
"""Share of the samples in one sector from which the sector map is doubtful. Guess: KRX's largest holds 0.1 to 0.2."""
RARE_CLASS, RARE_MIN_SAMPLES = 0.01, 500
"""A class below this share in a split, year or sector of that many samples is worth a look. Guess, not tuned."""


def label_table(data: Dataset) -> pl.DataFrame:
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


def sample_sectors(data: Dataset) -> Finding:
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


def split_overlap(data: Dataset) -> Finding:
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
