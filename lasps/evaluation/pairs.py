"""Two models on the rows that both have: differences with intervals, seed by seed, sector by sector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from lasps.evaluation import verdict
from lasps.evaluation.forecast import Forecast, align
from lasps.evaluation.metrics import METRICS, DaySums
from lasps.evaluation.significance import (
    CONFIDENCE,
    Difference,
    SectorDifference,
    as_json,
    holm,
    method_difference,
    value_with_interval,
)

SECTOR_METRIC = verdict.PRIMARY
PHASE1, PHASE3, PHASE2 = "phase1_best", "phase3_final", "phase2_best"
ORACLE = "oracle"


@dataclass
class Entry:
    """One model on one split: a forecast per seed, all on the same rows."""

    name: str
    seeds: list[int | None]
    forecasts: list[Forecast]
    baseline: bool
    sums: dict[str, list[DaySums]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """ "model", "baseline" or "oracle"."""
        return ORACLE if self.name == ORACLE else "baseline" if self.baseline else "model"

    def of(self, metric: str) -> list[DaySums]:
        """The metric's day sums, one per seed."""
        if metric not in self.sums:
            self.sums[metric] = [METRICS[metric](f) for f in self.forecasts]
        return self.sums[metric]

    def interval(self, metric: str) -> list[float] | None:
        """95 % interval of the metric itself, over days (and seeds)."""
        return value_with_interval(metric, self.of(metric)).interval

    def cut(self, rows: Forecast) -> Entry:
        """The same model on the rows of a forecast."""
        return Entry(
            self.name, self.seeds, [align(f, rows, (self.name, "other"))[0] for f in self.forecasts], self.baseline
        )

    def same_as(self, other: Entry) -> bool:
        """Whether both are the same forecasts to the bit, seed by seed."""
        _, other, _ = paired_seeds(self, other)
        return len(self.forecasts) == len(other.forecasts) and all(
            a.same_as(b) for a, b in zip(self.forecasts, other.forecasts, strict=True)
        )


@dataclass(frozen=True)
class Pair:
    """b minus a in every metric, and in log loss seed by seed and sector by sector."""

    a: str
    b: str
    role: str
    """what a is: "model", "baseline" or "oracle" """
    differences: dict[str, Difference]
    by_seed: dict[str, list[dict[str, Any]] | None]
    sectors: list[SectorDifference]
    family: bool = False
    adjusted_p: float | None = None
    """Holm's over the family, of log loss"""

    @property
    def primary(self) -> Difference:
        return self.differences[verdict.PRIMARY]

    def better(self, metric: str, selection: bool) -> str | None:
        """ "a" or "b", where this may be said: a default pair's log loss after Holm's correction over the family."""
        unsure = self.family and metric == verdict.PRIMARY and not (self.adjusted_p or 0.0) < 1 - CONFIDENCE
        return None if unsure else verdict.better_side(self.differences[metric], selection)


def make_pair(a: Entry, b: Entry, with_sectors: bool) -> Pair:
    """Everything about b minus a."""
    one, two, paired = paired_seeds(*on_common_rows(a, b))
    found = {m: method_difference(m, one.of(m), two.of(m), paired) for m in METRICS}
    by_seed = {m: _by_seed(m, one, two, paired) for m in METRICS}
    return Pair(a.name, b.name, a.kind, found, by_seed, sector_pairs(one, two) if with_sectors else [])


def on_common_rows(a: Entry, b: Entry) -> tuple[Entry, Entry]:
    """Both on the rows that they share; the very same entries where these are all they have."""
    one, two, found = align(a.forecasts[0], b.forecasts[0], (a.name, b.name))
    return (a.cut(two) if found.only_a else a), (b.cut(one) if found.only_b else b)


def paired_seeds(a: Entry, b: Entry) -> tuple[Entry, Entry, bool]:
    """Both entries in the order of their common seeds, where these are all they have."""
    same = len(a.seeds) > 1 and None not in a.seeds and sorted(a.seeds, key=str) == sorted(b.seeds, key=str)
    if not same or len(set(a.seeds)) < len(a.seeds):
        return a, b, False
    if a.seeds == b.seeds:
        return a, b, True
    order = [b.seeds.index(s) for s in a.seeds]
    return a, Entry(b.name, a.seeds, [b.forecasts[i] for i in order], b.baseline), True


def _by_seed(metric: str, a: Entry, b: Entry, paired: bool) -> list[dict[str, Any]] | None:
    """b minus a for every seed, with an interval over days alone: what is true of these weights, not of the method.

    None where there is one seed, or where it is unknown which seeds belong together.
    """
    if len(b.seeds) == 1 or not (paired or len(a.seeds) == 1):
        return None
    sums_a = a.of(metric) if paired else a.of(metric) * len(b.seeds)
    found = [as_json(method_difference(metric, [x], [y])) for x, y in zip(sums_a, b.of(metric), strict=True)]
    return [
        {"seed": s, "difference": d["difference"], "interval": d["interval"]}
        for s, d in zip(b.seeds, found, strict=True)
    ]


def sector_pairs(a: Entry, b: Entry, metric: str = SECTOR_METRIC) -> list[SectorDifference]:
    """b minus a per sector with Holm's correction over the sectors."""
    a, b, paired = paired_seeds(*on_common_rows(a, b))
    per_sector: dict[int, Difference] = {}
    for s in np.unique(a.forecasts[0].sectors):
        sums_a, sums_b = ([METRICS[metric](f.where(f.sectors == s)) for f in e.forecasts] for e in (a, b))
        per_sector[int(s)] = method_difference(metric, sums_a, sums_b, paired)
    adjusted = holm([d.p_value for d in per_sector.values()])
    return [SectorDifference(s, d, p) for (s, d), p in zip(per_sector.items(), adjusted, strict=True)]


def sector_differences(a: Forecast, b: Forecast) -> pl.DataFrame:
    """Log loss of b minus a per sector, on the rows that both forecasts have.

    Returns:
        One row per sector: sector, n, difference (nats), low and high (95 % over days), adjusted_p (Holm's) and
        significant; null where no interval exists.
    """
    return pl.DataFrame(
        [
            {
                "sector": s.sector,
                "n": s.difference.n,
                "difference": s.difference.difference,
                "low": s.difference.low,
                "high": s.difference.high,
                "adjusted_p": s.adjusted_p,
                "significant": s.significant,
            }
            for s in sector_pairs(Entry("a", [None], [a], False), Entry("b", [None], [b], False))
        ],
        schema_overrides={"low": pl.Float64, "high": pl.Float64, "adjusted_p": pl.Float64},
    )


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
    return [(a, deployed) for a in (*before, *(name for name in verdict.MUST_BEAT if name in baselines))]


def all_pairs(entries: Sequence[Entry], deployed: str) -> list[tuple[Entry, Entry]]:
    """(a, b): the models among themselves, the deployed one as b; then every model against every baseline."""
    models = sorted((e for e in entries if not e.baseline), key=lambda e: e.name == deployed)
    baselines = [e for e in entries if e.baseline]
    among = [(a, b) for i, a in enumerate(models) for b in models[i + 1 :]]
    return [*among, *((base, model) for model in models for base in baselines)]


def adjusted(pairs: Sequence[Pair], family: Sequence[tuple[str, str]]) -> list[Pair]:
    """The pairs, the default ones first and in their order, with Holm's p over them."""
    by_names: Mapping[tuple[str, str], Pair] = {(p.a, p.b): p for p in pairs}
    own = [by_names[names] for names in family if names in by_names]
    p_values = holm([p.primary.p_value for p in own])
    chosen = [
        Pair(p.a, p.b, p.role, p.differences, p.by_seed, p.sectors, True, q) for p, q in zip(own, p_values, strict=True)
    ]
    return [*chosen, *(p for p in pairs if (p.a, p.b) not in family)]
