"""Several models on the same rows: their figures, their differences with intervals, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from lasps.evaluation import metrics, verdict
from lasps.evaluation.leaks import FIRST_DAY_LIMIT, FIRST_DAY_SHARE, first_day_excess
from lasps.evaluation.metrics import METRICS, DaySums
from lasps.evaluation.portfolio import Costs, portfolio_summary
from lasps.evaluation.predictions import Forecast, align, as_forecast, keys_of, seed_of
from lasps.evaluation.significance import (
    Difference,
    SectorDifference,
    as_json,
    difference_of,
    holm,
    method_difference,
    value_with_interval,
)

Tables = Mapping[str, Sequence[pl.DataFrame]]
SECTOR_METRIC = verdict.PRIMARY
NO_VALUE = "in-sample class frequencies of the compared rows (no training frequencies were given)"


@dataclass
class Entry:
    """One model on one split: a forecast per seed, on the rows that all models share."""

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
    """Compare models: {name: {split: one table per seed}}; baselines likewise.

    Args:
        prior: training class frequencies; None takes those of the compared rows and says so.
        prior_source: where the prior comes from, for the report.

    Returns:
        JSON-ready: models {name: {split: M and more}}, pairs, sectors, verdict, first_line, notes, prior, rows.
        Differences are b minus a; `better` is None wherever the interval covers zero or the split is a selection
        split.

    Raises:
        ValueError: no models, no rows in common, other labels for the same row.
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


def _entries(
    models: Mapping[str, Tables],
    baselines: Mapping[str, Tables],
    split: str,
    result: dict[str, Any],
) -> list[Entry]:
    """All models and baselines of the split on their common rows; what was left out is counted in notes and rows."""
    tables = {name: list(t[split]) for name, t in models.items() if split in t}
    of_baselines = {n: list(t[split]) for n, t in baselines.items() if split in t and n not in tables}
    common = _common_keys(tables | of_baselines)
    out = []
    for name, tables_of in (tables | of_baselines).items():
        seeds = [seed_of(t) for t in tables_of]
        cut = [align(t, common, (name, "the rows of all models")) for t in tables_of]
        result["rows"].setdefault(split, {})[name] = {"own": len(tables_of[0]), "compared": len(common)}
        for seed, table, (_, _, left_out) in zip(seeds, tables_of, cut, strict=True):
            if left_out.only_a:
                who = name if len(seeds) == 1 else f"{name} (seed {seed})"
                result["notes"].append(
                    f"{split}: {left_out.only_a:,} of {len(table):,} rows of {who} are not in every other table and "
                    f"are left out, e.g. {', '.join(left_out.examples)}")  # fmt: skip
        out.append(Entry(name, seeds, [as_forecast(c[0]) for c in cut], name in of_baselines))
    return out


def _common_keys(tables: Mapping[str, Sequence[pl.DataFrame]]) -> pl.DataFrame:
    """Keys and labels of the rows that every table has."""
    flat = [(name, t) for name, seeds in tables.items() for t in seeds]
    first_name, first = flat[0]
    common = first.select(*keys_of(first), "label")
    for name, table in flat[1:]:
        common = align(common, table.select(*keys_of(table), "label"), (first_name, name))[0]
    return common


def _figures(entry: Entry, prior: Sequence[float], costs: Costs | None) -> dict[str, Any]:
    """M (the mean over seeds), the seeds' own figures and spread, and what goes beyond M."""
    forecasts = entry.forecasts
    per_seed = [metrics.summary(f, prior) for f in forecasts]
    sectors = [metrics.by_sector(f, prior) for f in forecasts]
    leak = max((first_day_excess(f) for f in forecasts), key=lambda x: x.excess or 0.0)
    return {
        **_mean_of(per_seed),
        "baseline": entry.baseline,
        "intervals": {m: _own_interval(m, entry) for m in (verdict.PRIMARY, "accuracy", "rank_ic", "rank_ic_skip1")},
        "seeds": [{"seed": s, **_scalars(m)} for s, m in zip(entry.seeds, per_seed, strict=True)],
        "seed_spread": _spread_of(per_seed) if len(per_seed) > 1 else None,
        "sectors": {s: _mean_of([x[s] for x in sectors]) for s in sectors[0]},
        "rank_ic_in_volatility_quintiles": _mean_of([metrics.rank_ic_in_volatility_quintiles(f) for f in forecasts]),
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
    f = entry.forecasts[0]
    return value_with_interval(metric, entry.of(metric), f.n, f.n_days).interval


def _scalars(m: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in m.items() if not isinstance(v, Mapping)}


def _mean_of(per_seed: Sequence[Any]) -> Any:
    """Mean over seeds, part by part of dictionaries and lists; what is undefined for one seed is undefined."""
    first = per_seed[0]
    if isinstance(first, Mapping):
        return {key: _mean_of([m[key] for m in per_seed]) for key in first}
    if isinstance(first, list):
        return [_mean_of(values) for values in zip(*per_seed, strict=True)]
    if any(v is None for v in per_seed):
        return None
    return first if all(v == first for v in per_seed) else float(np.mean(per_seed))


def _spread_of(per_seed: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    keys = [k for k, v in _scalars(per_seed[0]).items() if isinstance(v, float)]
    return {k: float(np.std([m[k] for m in per_seed], ddof=1)) for k in keys if all(m[k] is not None for m in per_seed)}


def pair_of(metric: str, a: Entry, b: Entry) -> Difference:
    """b minus a in one metric, paired by seed where both sides have the same seeds."""
    a, b, paired = _paired(a, b)
    f = a.forecasts[0]
    return method_difference(metric, a.of(metric), b.of(metric), f.n, f.n_days, paired)


def seed_pairs(metric: str, a: Entry, b: Entry) -> list[dict[str, Any]] | None:
    """b minus a for every seed, with an interval over days alone: what is true of these weights, not of the method.

    None where there is one seed, or where it is unknown which seeds belong together.
    """
    a, b, paired = _paired(a, b)
    if len(b.seeds) == 1 or not (paired or len(a.seeds) == 1):
        return None
    f, sums_a = a.forecasts[0], a.of(metric) if paired else a.of(metric) * len(b.seeds)
    found = [as_json(difference_of(metric, x, y, f.n, f.n_days)) for x, y in zip(sums_a, b.of(metric), strict=True)]
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
    a, b, paired = _paired(a, b)
    per_sector: dict[int, Difference] = {}
    for s in np.unique(a.forecasts[0].sectors):
        cut = [[f.where(f.sectors == s) for f in e.forecasts] for e in (a, b)]
        sums_a, sums_b = ([METRICS[metric](f) for f in side] for side in cut)
        per_sector[int(s)] = method_difference(metric, sums_a, sums_b, cut[0][0].n, cut[0][0].n_days, paired)
    adjusted = holm([d.p_value for d in per_sector.values()])
    return [SectorDifference(s, d, p) for (s, d), p in zip(per_sector.items(), adjusted, strict=True)]


def sector_differences(table_a: pl.DataFrame, table_b: pl.DataFrame) -> pl.DataFrame:
    """Log loss of b minus a per sector, on the rows that both prediction tables have.

    Returns:
        One row per sector: sector, n, difference (nats), low and high (95 % over days), adjusted_p (Holm's) and
        significant; null where no interval exists.
    """
    cut_a, cut_b, _ = align(table_a, table_b)
    a, b = (Entry(name, [None], [as_forecast(cut)], False) for name, cut in (("a", cut_a), ("b", cut_b)))
    return pl.DataFrame([
        {"sector": s.sector, "n": s.difference.n, "difference": s.difference.difference, "low": s.difference.low,
         "high": s.difference.high, "adjusted_p": s.adjusted_p, "significant": s.significant}
        for s in sector_pairs(a, b)
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
