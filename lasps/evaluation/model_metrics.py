"""One model of a comparison: its metrics, the mean over its seeds, and what must be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lasps.evaluation import metrics
from lasps.evaluation.comparison_frames import INTERVAL_METRICS, calibration_curve
from lasps.evaluation.leaks import FIRST_DAY_LIMIT, FIRST_DAY_SHARE, first_day_excess
from lasps.evaluation.pairs import Entry
from lasps.evaluation.portfolio import Costs, portfolio_summary
from lasps.evaluation.rank_ic import MIN_DAYS, MIN_STOCKS


def model_metrics(entry: Entry, prior: Sequence[float], costs: Costs | None = None) -> dict[str, Any]:
    """All metrics of one model (the mean over seeds), its seeds' own and their spread, and what goes beyond metrics."""
    forecasts = entry.forecasts
    per_seed = [metrics.summary(f, prior) for f in forecasts]
    sectors = [metrics.by_sector(f, prior) for f in forecasts]
    quintiles = _mean_of([metrics.rank_ic_in_volatility_quintiles(f) for f in forecasts])
    leak = max((first_day_excess(f) for f in forecasts), key=lambda x: x.excess or 0.0)
    return {
        **_mean_of(per_seed),
        "baseline": entry.baseline,
        "intervals": {m: entry.interval(m) for m in INTERVAL_METRICS},
        "seeds": [{"seed": s, **_scalars(m)} for s, m in zip(entry.seeds, per_seed, strict=True)],
        "seed_spread": _spread_of(per_seed) if len(per_seed) > 1 else None,
        "sectors": {s: _mean_of([x[s] for x in sectors]) for s in sectors[0]},
        "rank_ic_in_volatility_quintiles": [ic for ic, _ in quintiles],
        "rank_ic_in_volatility_quintiles_days": [days for _, days in quintiles],
        "coverage": _mean_of([metrics.coverage_curve(f) for f in forecasts]),
        "calibration": calibration_curve(*forecasts),
        "portfolio": portfolio_summary(forecasts, costs),
        "leak": asdict(leak) | {"flagged": leak.flagged},
    }


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


def leak_note(name: str, leak: Mapping[str, Any]) -> str | None:
    """The alarm of `leaks`; None where there is none."""
    if not leak["flagged"]:
        return None
    excess, (low, high) = leak["excess"], leak["interval"]
    return (
        f"{name} may know the future: its first-day excess is {excess:.3f} [{low:.3f}, {high:.3f}], above "
        f"{FIRST_DAY_LIMIT} and above {FIRST_DAY_SHARE} of its rank IC {leak['rank_ic']:.3f} "
        "(lasps.evaluation.leaks). Look for a feature of tomorrow."
    )


def days_note(name: str, m: Mapping[str, Any]) -> str | None:
    """On how many days a model's rank IC exists, where these are not all (and not none)."""
    days = m["rank_ic_days"]
    if not m["n_days"] or days in (0, m["n_days"]):
        return None
    few = f"; under {MIN_DAYS} it is undefined" if days < MIN_DAYS else ""
    return (
        f"{name} has a rank IC on {days:,.0f} of {m['n_days']:,} days (on the others its score is the same for all "
        f"stocks, or fewer than {MIN_STOCKS} have one){few}"
    )
