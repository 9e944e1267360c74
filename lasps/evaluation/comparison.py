"""Several models on the same rows: their figures, their differences with intervals, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from lasps.evaluation import metrics, verdict
from lasps.evaluation.forecast import Forecast, align
from lasps.evaluation.leaks import FIRST_DAY_LIMIT, FIRST_DAY_SHARE, first_day_excess
from lasps.evaluation.metrics import METRICS, DaySums
from lasps.evaluation.portfolio import Costs, portfolio_summary
from lasps.evaluation.significance import (
    Difference,
    SectorDifference,
    as_json,
    holm,
    method_difference,
    value_with_interval,
)

Tables = Mapping[str, Sequence[Forecast]]
SECTOR_METRIC = verdict.PRIMARY
NO_VALUE = "in-sample class frequencies of the compared rows (no training frequencies were given)"


@dataclass
class Entry:
    """One model on one split: a forecast per seed, all on the same rows."""

    name: str
    seeds: list[int | None]
    forecasts: list[Forecast]
    baseline: bool
    sums: dict[str, list[DaySums]] = field(default_factory=dict)

    def of(self, metric: str) -> list[DaySums]:
        if metric not in self.sums:
            self.sums[metric] = [METRICS[metric](f) for f in self.forecasts]
        return self.sums[metric]


def compare(
    models: Mapping[str, Tables],
    *,
    prior: Sequence[float] | None = None,
    prior_source: str = "given",
    baselines: Mapping[str, Tables] | None = None,
    sector_names: Sequence[str] | None = None,
    costs: Costs | None = None,
) -> dict[str, Any]:
    """Compare models: {name: {split: one forecast per seed}}; baselines likewise.

    A model's metrics are over its own rows and days, whatever it is compared with; a difference is over the rows (and,
    for day-wise metrics, the days) that both sides have.

    Args:
        prior: training class frequencies; None takes those of the compared rows and says so.
        prior_source: where the prior comes from, for the report.

    Returns:
        JSON-ready: models {name: {split: M and more}}, pairs, sectors, verdict, first_line, notes, prior, rows.
        Differences are b minus a; `better` is None wherever the interval covers zero or the split is a selection
        split.

    Raises:
        ValueError: no models, two without a row in common, other labels for the same row.
    """
    if not models:
        raise ValueError("nothing to compare: expected at least one model")
    splits = [s for s in ("test", "val", "train") if any(s in t for t in models.values())]
    splits += sorted({s for t in models.values() for s in t} - set(splits))
    result: dict[str, Any] = {"models": {}, "pairs": [], "sectors": [], "verdict": "", "first_line": "", "notes": [],
                              "rows": {}, "prior": {}, "sector_names": list(sector_names or []),
                              "selection_splits": sorted(verdict.SELECTION_SPLITS & set(splits))}  # fmt: skip
    for split in splits:
        entries = _entries(models, baselines or {}, split, result)
        base = _prior(prior, prior_source, entries, split, result)
        _count_rows(entries, split, result)
        for entry in entries:
            result["models"].setdefault(entry.name, {})[split] = _figures(entry, base, costs)
            _note_leak(entry.name, split, result)
        _add_pairs(entries, split, result)
    result["verdict"] = _joined(result.pop("_verdicts", []), splits)
    result["first_line"] = _joined(result.pop("_first_lines", []), splits)
    return result


def _joined(sentences: list[tuple[str, str]], splits: list[str]) -> str:
    """The sentences of the first split that is no selection split, else of all: one a line."""
    judged = [s for s in splits if s not in verdict.SELECTION_SPLITS]
    chosen = judged[:1] or splits
    return "\n".join(text for split, text in sentences if split in chosen)


def _prior(
    prior: Sequence[float] | None, source: str, entries: list[Entry], split: str, result: dict[str, Any]
) -> Sequence[float]:
    values = prior if prior is not None else metrics.class_frequencies(entries[0].forecasts[0].labels)
    if prior is None:
        values = tuple((np.asarray(values) + 1e-6) / (1 + 3e-6))
    result["prior"][split] = {"values": [float(v) for v in values], "source": source if prior is not None else NO_VALUE}
    if prior is None:
        result["notes"].append(f"{split}: prior and majority are {NO_VALUE}")
    return values


def _entries(models: Mapping[str, Tables], baselines: Mapping[str, Tables], split: str,
             result: dict[str, Any]) -> list[Entry]:
    """All models and baselines of the split; the rows that one seed of a model has and another lacks are left out."""
    given = {name: t[split] for name, t in models.items() if split in t}
    of_baselines = {name: t[split] for name, t in baselines.items() if split in t and name not in given}
    entries = []
    for name, seeds in (given | of_baselines).items():
        common = seeds[0]
        for other in seeds[1:]:
            common = align(common, other, (f"{name} (seed {common.seed})", f"{name} (seed {other.seed})"))[0]
        cut = [align(f, common, (name, name))[0] for f in seeds]
        for before, after in zip(seeds, cut, strict=True):
            if before.n > after.n:
                result["notes"].append(f"{split}: {before.n - after.n:,} of {before.n:,} rows of {name} (seed "
                                       f"{before.seed}) are not in every other seed and are left out")  # fmt: skip
        entries.append(Entry(name, [f.seed for f in seeds], cut, name in of_baselines))
    return entries


def _count_rows(entries: list[Entry], split: str, result: dict[str, Any]) -> None:
    """How many rows each model has, and how many all models have; a note where these differ."""
    common = entries[0].forecasts[0]
    for entry in entries[1:]:
        common = align(common, entry.forecasts[0], (entries[0].name, entry.name))[0]
    result["rows"][split] = {e.name: {"own": e.forecasts[0].n, "compared": common.n} for e in entries}
    for entry in entries:
        own = entry.forecasts[0].n
        if own > common.n:
            result["notes"].append(f"{split}: {own - common.n:,} of {own:,} rows of {entry.name} are not in every "
                                   "other model: its metrics are over all of its rows, each difference over the rows "
                                   "that both sides have")  # fmt: skip


def _figures(entry: Entry, prior: Sequence[float], costs: Costs | None) -> dict[str, Any]:
    """M (the mean over seeds), the seeds' own figures and spread, and what goes beyond M."""
    forecasts = entry.forecasts
    per_seed = [metrics.summary(f, prior) for f in forecasts]
    sectors = [metrics.by_sector(f, prior) for f in forecasts]
    quintiles = _mean_of([metrics.rank_ic_in_volatility_quintiles(f) for f in forecasts])
    leak = max((first_day_excess(f) for f in forecasts), key=lambda x: x.excess or 0.0)
    return {
        **_mean_of(per_seed),
        "baseline": entry.baseline,
        "intervals": {m: _own_interval(m, entry) for m in (verdict.PRIMARY, "accuracy", "rank_ic", "rank_ic_skip1")},
        "seeds": [{"seed": s, **_scalars(m)} for s, m in zip(entry.seeds, per_seed, strict=True)],
        "seed_spread": _spread_of(per_seed) if len(per_seed) > 1 else None,
        "sectors": {s: _mean_of([x[s] for x in sectors]) for s in sectors[0]},
        "rank_ic_in_volatility_quintiles": [ic for ic, _ in quintiles],
        "rank_ic_in_volatility_quintiles_days": [days for _, days in quintiles],
        "coverage": _mean_of([metrics.coverage_curve(f) for f in forecasts]),
        "calibration": calibration_curve(*forecasts),
        "portfolio": portfolio_summary(forecasts, costs),
        "leak": asdict(leak) | {"flagged": leak.flagged},
    }  # fmt: skip


def _note_leak(name: str, split: str, result: dict[str, Any]) -> None:
    leak = result["models"][name][split]["leak"]
    if leak["flagged"]:
        excess, (low, high) = leak["excess"], leak["interval"]
        text = (
            f"{split}: {name} may know the future: its first-day excess is {excess:.3f} [{low:.3f}, {high:.3f}], above "
            f"{FIRST_DAY_LIMIT} and above {FIRST_DAY_SHARE} of its rank IC {leak['rank_ic']:.3f} "
            "(lasps.evaluation.leaks). Look for a feature of tomorrow."
        )
        result["notes"].insert(0, text)


def calibration_curve(*forecasts: Forecast, bins: int = 10) -> dict[str, list[dict[str, float]]]:
    """Per class, mean probability against observed share in equal-mass bins: a calibrated model is on the diagonal.

    Several forecasts (a model's seeds) are pooled.
    """
    curves = {}
    for c, name in enumerate(metrics.CLASS_NAMES):
        p = np.concatenate([f.p[:, c] for f in forecasts])
        happened = np.concatenate([f.labels == c for f in forecasts])
        bin_of = metrics.confidence_bins(p, bins)
        n, stated, seen = (np.bincount(bin_of, w, minlength=bins) for w in (None, p, happened))
        curves[name] = [{"probability": stated[k] / n[k], "share": seen[k] / n[k], "n": int(n[k])}
                        for k in np.flatnonzero(n)]  # fmt: skip
    return curves


def _own_interval(metric: str, entry: Entry) -> list[float] | None:
    """95 % interval of the metric itself, over days (and seeds)."""
    return value_with_interval(metric, entry.of(metric)).interval


def _scalars(m: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in m.items() if not isinstance(v, Mapping)}


def _mean_of(per_seed: Sequence[Any]) -> Any:
    """Mean over seeds, part by part of dictionaries and lists; what is undefined for one seed is undefined."""
    first = per_seed[0]
    if isinstance(first, Mapping):
        return {key: _mean_of([m[key] for m in per_seed]) for key in first}
    if isinstance(first, list | tuple):
        return [_mean_of(values) for values in zip(*per_seed, strict=True)]
    if any(v is None for v in per_seed):
        return None
    return first if all(v == first for v in per_seed) else float(np.mean(per_seed))


def _spread_of(per_seed: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    keys = [k for k, v in _scalars(per_seed[0]).items() if isinstance(v, float)]
    return {k: float(np.std([m[k] for m in per_seed], ddof=1)) for k in keys if all(m[k] is not None for m in per_seed)}


def pair_of(metric: str, a: Entry, b: Entry) -> Difference:
    """b minus a in one metric over the rows of both, paired by seed where both sides have the same seeds."""
    a, b, paired = _paired(*on_common_rows(a, b))
    return method_difference(metric, a.of(metric), b.of(metric), paired)


def on_common_rows(a: Entry, b: Entry) -> tuple[Entry, Entry]:
    """Both on the rows that they share; the very same entries where these are all they have."""
    one, two, found = align(a.forecasts[0], b.forecasts[0], (a.name, b.name))
    if not (found.only_a or found.only_b):
        return a, b
    return (Entry(a.name, a.seeds, [align(f, one)[0] for f in a.forecasts], a.baseline),
            Entry(b.name, b.seeds, [align(f, two)[0] for f in b.forecasts], b.baseline))


def seed_pairs(metric: str, a: Entry, b: Entry) -> list[dict[str, Any]] | None:
    """b minus a for every seed, with an interval over days alone: what is true of these weights, not of the method.

    None where there is one seed, or where it is unknown which seeds belong together.
    """
    a, b, paired = _paired(*on_common_rows(a, b))
    if len(b.seeds) == 1 or not (paired or len(a.seeds) == 1):
        return None
    sums_a = a.of(metric) if paired else a.of(metric) * len(b.seeds)
    found = [as_json(method_difference(metric, [x], [y])) for x, y in zip(sums_a, b.of(metric), strict=True)]
    return [{"seed": s, "difference": d["difference"], "interval": d["interval"]}
            for s, d in zip(b.seeds, found, strict=True)]  # fmt: skip


def _paired(a: Entry, b: Entry) -> tuple[Entry, Entry, bool]:
    """Both entries in the order of their common seeds, where these are all they have."""
    same = len(a.seeds) > 1 and None not in a.seeds and sorted(a.seeds, key=str) == sorted(b.seeds, key=str)
    if not same or len(set(a.seeds)) < len(a.seeds):
        return a, b, False
    if a.seeds == b.seeds:
        return a, b, True
    order = [b.seeds.index(s) for s in a.seeds]
    return a, Entry(b.name, a.seeds, [b.forecasts[i] for i in order], b.baseline), True


def sector_pairs(a: Entry, b: Entry, metric: str = SECTOR_METRIC) -> list[SectorDifference]:
    """b minus a per sector with Holm's correction over the sectors."""
    a, b, paired = _paired(*on_common_rows(a, b))
    per_sector: dict[int, Difference] = {}
    for s in np.unique(a.forecasts[0].sectors):
        cut = [[f.where(f.sectors == s) for f in e.forecasts] for e in (a, b)]
        sums_a, sums_b = ([METRICS[metric](f) for f in side] for side in cut)
        per_sector[int(s)] = method_difference(metric, sums_a, sums_b, paired)
    adjusted = holm([d.p_value for d in per_sector.values()])
    return [SectorDifference(s, d, p) for (s, d), p in zip(per_sector.items(), adjusted, strict=True)]


def sector_differences(a: Forecast, b: Forecast) -> pl.DataFrame:
    """Log loss of b minus a per sector, on the rows that both forecasts have.

    Returns:
        One row per sector: sector, n, difference (nats), low and high (95 % over days), adjusted_p (Holm's) and
        significant; null where no interval exists.
    """
    return pl.DataFrame([
        {"sector": s.sector, "n": s.difference.n, "difference": s.difference.difference, "low": s.difference.low,
         "high": s.difference.high, "adjusted_p": s.adjusted_p, "significant": s.significant}
        for s in sector_pairs(Entry("a", [None], [a], False), Entry("b", [None], [b], False))
    ], schema_overrides={"low": pl.Float64, "high": pl.Float64, "adjusted_p": pl.Float64})  # fmt: skip


def _add_pairs(entries: list[Entry], split: str, result: dict[str, Any]) -> None:
    """Every pair of models, and every model against every baseline, in all metrics; verdicts on the primary one."""
    selection = split in verdict.SELECTION_SPLITS
    models, baselines = [e for e in entries if not e.baseline], [e for e in entries if e.baseline]
    pairs = [*combinations(models, 2), *((base, model) for model in models for base in baselines)]
    against: dict[str, dict[str, Difference]] = {m.name: {} for m in models}
    for a, b in pairs:
        found = {metric: pair_of(metric, a, b) for metric in METRICS}
        for d in found.values():
            result["pairs"].append({"a": a.name, "b": b.name, "split": split, **as_json(d),
                                    "better": verdict.better_side(d, selection),
                                    "by_seed": seed_pairs(d.metric, a, b)})  # fmt: skip
        if a.baseline:
            against[b.name][a.name] = found[verdict.PRIMARY]
            continue
        sectors = sector_pairs(a, b)
        result["sectors"] += [_sector_json(a.name, b.name, split, s, selection) for s in sectors]
        text = verdict.sentence(a.name, b.name, split, found[verdict.PRIMARY], found["accuracy"], sectors)
        result.setdefault("_verdicts", []).append((split, text))
    result.setdefault("_first_lines", []).append((split, verdict.first_line(against, split)))


def _sector_json(a: str, b: str, split: str, s: SectorDifference, selection: bool) -> dict[str, Any]:
    better = verdict.better_side(s.difference, selection) if s.significant else None
    return {"a": a, "b": b, "split": split, "sector": s.sector, **as_json(s.difference), "adjusted_p": s.adjusted_p,
            "better": better}  # fmt: skip
