"""Two models on the rows that both have: differences with intervals, seed by seed, sector by sector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from lasps.evaluation.forecast import Forecast, align
from lasps.evaluation.frames import Row, frame
from lasps.evaluation.metrics import METRICS
from lasps.evaluation.models import Entry
from lasps.evaluation.significance import CONFIDENCE, holm, method_difference
from lasps.evaluation.verdict import BLEND, CONTROLS, ENSEMBLE, MLP, MUST_BEAT, PRIMARY, TWIN

PHASE1, PHASE3, PHASE2 = "phase1_best", "phase3_final", "phase2_best"
AMONG_OTHERS = (
    *((TWIN, ENSEMBLE), (MLP, ENSEMBLE), (ENSEMBLE, BLEND), (MLP, BLEND)),
    *((a, BLEND) for a in (TWIN, *CONTROLS)),
    *(("lightgbm_plain", b) for b in (TWIN, BLEND)),
)
"""Pairs (a, b) of rows that are not models: combined forecasts and what they are made of."""


def on_common_rows(a: Entry, b: Entry) -> tuple[Entry, Entry]:
    """Both on the rows that they share; the very same entries where these are all they have."""
    one, two, found = align(a.forecasts[0], b.forecasts[0], (a.name, b.name))
    return (a.cut(two) if found.only_a else a), (b.cut(one) if found.only_b else b)


def paired_seeds(a: Entry, b: Entry) -> tuple[Entry, Entry, bool]:
    """Both entries in the order of their common seeds, where these are all they have; and whether they are."""
    same = len(a.seeds) > 1 and None not in a.seeds and sorted(a.seeds, key=str) == sorted(b.seeds, key=str)
    if not same or len(set(a.seeds)) < len(a.seeds):
        return a, b, False
    if a.seeds == b.seeds:
        return a, b, True
    return a, Entry(b.name, [b.forecasts[b.seeds.index(s)] for s in a.seeds], b.baseline), True


def same_forecasts(a: Entry, b: Entry) -> bool:
    """Whether both are the same forecasts to the bit, seed by seed."""
    _, b, _ = paired_seeds(a, b)
    return len(a.forecasts) == len(b.forecasts) and all(
        x.same_as(y) for x, y in zip(a.forecasts, b.forecasts, strict=True)
    )


def pair_rows(a: Entry, b: Entry, selection: bool, with_sectors: bool = True) -> dict[str, list[Row]]:
    """b minus a: the rows of the frames pairs, pair_seeds and sectors.

    Args:
        selection: on a split that something was chosen on neither side is called better.
    """
    one, two, paired = paired_seeds(*on_common_rows(a, b))
    key = {"a": a.name, "b": b.name}
    return {
        "pairs": [
            key
            | {"metric": metric, "role": a.kind, "family": False, "better": None if selection else d.better}
            | d.row()
            for metric in METRICS
            for d in [method_difference(metric, one.of(metric), two.of(metric), paired)]
        ],
        "pair_seeds": [key | row for metric in METRICS for row in _seed_rows(metric, one, two, paired)],
        "sectors": [key | row for row in _sector_rows(one, two, paired, selection)] if with_sectors else [],
    }


def _seed_rows(metric: str, a: Entry, b: Entry, paired: bool) -> list[Row]:
    """b minus a for every seed, with an interval over days alone: what is true of these weights, not of the method.

    Empty where there is one seed, or where it is unknown which seeds belong together.
    """
    if len(b.seeds) == 1 or not (paired or len(a.seeds) == 1):
        return []
    sums_a = a.of(metric) if paired else a.of(metric) * len(b.seeds)
    return [
        {"metric": metric, "seed": seed} | method_difference(metric, [x], [y]).row()
        for seed, x, y in zip(b.seeds, sums_a, b.of(metric), strict=True)
    ]


def _sector_rows(a: Entry, b: Entry, paired: bool, selection: bool) -> list[Row]:
    """b minus a in log loss per sector, with Holm's correction over the sectors."""
    sectors = np.unique(a.forecasts[0].sectors)
    found = []
    for s in sectors:
        sums_a, sums_b = ([METRICS[PRIMARY](f.where(f.sectors == s)) for f in e.forecasts] for e in (a, b))
        found.append(method_difference(PRIMARY, sums_a, sums_b, paired))
    return [
        d.row() | {"sector": int(s), "adjusted_p": p, "better": d.better if _sure(p) and not selection else None}
        for s, d, p in zip(sectors, found, holm([d.p_value for d in found]), strict=True)
    ]


def sector_differences(a: Forecast, b: Forecast) -> pl.DataFrame:
    """The frame `sectors` of b minus a, on the rows that both forecasts have."""
    rows = pair_rows(Entry("a", [a]), Entry("b", [b]), selection=False)["sectors"]
    return frame("sectors", rows)


def _sure(p: float | None) -> bool:
    return p is not None and p < 1 - CONFIDENCE


# ------------------------------------------------------------------------------------------------ which pairs


def basename(name: str) -> str:
    """krx/phase2_best -> phase2_best: what a model is, whatever folder it stands in."""
    return name.rsplit("/", 1)[-1]


def deployed_of(models: Sequence[str]) -> str:
    """The model that is for use: the last phase2_best, else the last model given."""
    return next((m for m in reversed(models) if basename(m) == PHASE2), models[-1])


def family_of(models: Sequence[str], baselines: Sequence[str], deployed: str) -> list[tuple[str, str]]:
    """The default pairs (a, b), which are one family to Holm: the deployed model against what it should beat.

    That is every other model given (phase1_best only where phase3_final is not given), LightGBM and volatility bins.
    """
    before = [m for m in models if m != deployed]
    if any(basename(m) == PHASE3 for m in before):
        before = [m for m in before if basename(m) != PHASE1]
    return [(a, deployed) for a in (*before, *(name for name in MUST_BEAT if name in baselines))]


def all_pairs(entries: Sequence[Entry], deployed: str) -> list[tuple[Entry, Entry]]:
    """(a, b): the models among themselves, the deployed one as b; every model against every other row; AMONG_OTHERS."""
    models = sorted((e for e in entries if not e.baseline), key=lambda e: e.name == deployed)
    baselines = [e for e in entries if e.baseline]
    among = [(a, b) for i, a in enumerate(models) for b in models[i + 1 :]]
    named = {e.name: e for e in baselines}
    others = [(named[a], named[b]) for a, b in AMONG_OTHERS if a in named and b in named]
    return [*among, *((base, model) for model in models for base in baselines), *others]


def with_family(pairs: Sequence[Row], family: Sequence[tuple[str, str]]) -> list[Row]:
    """The rows of `pairs`, those of the default pairs first and in their order, with Holm's p of log loss over them.

    A default pair's log loss names a better side only if it still does after this correction.
    """
    by_names: Mapping[tuple[str, str], list[Row]] = {
        names: [row | {"family": True} for row in pairs if (row["a"], row["b"]) == names] for names in family
    }
    own = [row for rows in by_names.values() for row in rows]
    primary = [row for row in own if row["metric"] == PRIMARY]
    for row, p in zip(primary, holm([row["p_value"] for row in primary]), strict=True):
        row |= {"adjusted_p": p, "better": row["better"] if _sure(p) else None}
    return [*own, *(row for row in pairs if (row["a"], row["b"]) not in by_names)]
