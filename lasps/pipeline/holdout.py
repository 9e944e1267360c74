"""The last part of train, kept from Phases 1 and 3 for Phase 2: samples that the backbone was not fitted to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from loguru import logger

from lasps.config.model_config import THREE_PHASE_CONFIG
from lasps.config.settings import CLASS_NAMES
from lasps.data.datasets.samples import SampleDataset, SampleSubset
from lasps.training.checkpoints import read_card


def part_of_train(phase: int, train: SampleDataset, holdout: float) -> SampleDataset:
    """What a phase trains on: all of train, or, with a holdout, its last days for Phase 2 and those before for 1, 3.

    Raises:
        ValueError: it lacks a class, or a part cannot be cut (see `cut_by_date`).
    """
    check_classes(train, "train")
    if holdout == 0:
        return train
    before, held = cut_by_date(train, holdout)
    part, which = (held, "last") if phase == 2 else (before, "first")
    logger.info(
        f"Phase {phase}: trains on the {which} {len(part)} of {len(train)} samples of train by date "
        f"(phase2_holdout {holdout:g})"
    )
    check_classes(part, f"the {which} part of train (phase2_holdout {holdout:g})")
    return part


def check_classes(samples: SampleDataset, where: str) -> None:
    """ValueError unless every class occurs: a class that is never seen has no probability worth anything."""
    counts = np.bincount(samples.labels, minlength=len(CLASS_NAMES))
    lacking = [name for name, n in zip(CLASS_NAMES, counts, strict=True) if n == 0]
    if lacking:
        raise ValueError(
            f"{where}: expected samples of every class, found no {' and no '.join(lacking)} among "
            f"{len(samples):,}. Nothing was trained: check the labels (0 SELL, 1 HOLD, 2 BUY), or take "
            "more days or stocks"
        )


def holdout_of(asked: float | None, source: Path | None) -> float:
    """The share of train's days held out: what is asked for, else what the checkpoint `source` was trained with.

    Asking for another share than the checkpoint's is followed with a warning: its backbone was fitted to another part.
    """
    known = float(read_card(source).phase.get("phase2_holdout", THREE_PHASE_CONFIG["phase2_holdout"]))
    if asked is None:
        return known
    if source is not None and asked != known:
        logger.warning(
            f"phase2_holdout {asked:g}: {source.name} was trained with {known:g}, its backbone was fitted "
            "to another part of train"
        )
    return asked


def cut_by_date(train: SampleDataset, share: float) -> tuple[SampleSubset, SampleSubset]:
    """Train as (what comes before, the samples of the last `share` of its distinct days).

    Purged as the splits are: every label of the first part ends before the first day of the second. Samples between
    the two (those of the label's horizon before the cut, further back across halts) belong to neither.

    Raises:
        ValueError: a share outside (0, 1), samples whose dates are not known, or nothing comes before.
    """
    if not 0 < share < 1:
        raise ValueError(f"phase2_holdout: expected a share of train's days from 0 to below 1, got {share}")
    table = train.samples
    if table is None or not {"date", "label_end"} <= set(table.columns):
        found = "no such file" if table is None else f"only {', '.join(table.columns)}"
        raise ValueError(
            f"phase2_holdout {share:g}: expected samples.parquet with the columns date and label_end "
            f"beside train's arrays, found {found}. Without dates, train every phase on all of train"
        )
    dates, label_ends = table["date"].to_numpy(), table["label_end"].to_numpy()
    days = np.unique(dates)
    first_held = days[-max(round(share * len(days)), 1)]
    before, held = np.flatnonzero(label_ends < first_held), np.flatnonzero(dates >= first_held)
    if not len(before):
        raise ValueError(
            f"phase2_holdout {share:g}: no label of train's {len(days)} days ends before {first_held}, "
            "the first one held out, so nothing is left for Phases 1 and 3: lower it or take more data"
        )
    return SampleSubset(train, before), SampleSubset(train, held)
