"""One model of a comparison: its metrics, the rows that it has in the frames, and the notes on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl

from lasps.config.settings import CLASS_NAMES
from lasps.evaluation import metrics
from lasps.evaluation.class_accuracy import class_accuracy, confusion
from lasps.evaluation.forecast import Forecast, align
from lasps.evaluation.frames import Row, bounds, frame
from lasps.evaluation.leaks import FIRST_DAY_LIMIT, FIRST_DAY_SHARE, first_day_excess
from lasps.evaluation.metrics import METRICS, DaySums
from lasps.evaluation.portfolio import Costs, portfolio_summary
from lasps.evaluation.rank_ic import MIN_DAYS, MIN_STOCKS
from lasps.evaluation.significance import value_with_interval
from lasps.evaluation.verdict import COMBINED

ORACLE = "oracle"
INTERVAL_METRICS = ("log_loss", "accuracy", "rank_ic", "rank_ic_skip1")
MIN_MONTH_DAYS = 5
"""A month with fewer days that have a rank IC shows none (guess, not tuned)."""


@dataclass
class Entry:
    """One model on one split: a forecast per seed, all on the same rows."""

    name: str
    forecasts: list[Forecast]
    baseline: bool = False
    sums: dict[str, list[DaySums]] = field(default_factory=dict)

    @property
    def seeds(self) -> list[int | None]:
        return [f.seed for f in self.forecasts]

    @property
    def kind(self) -> str:
        """ "model", "combined" (a mean of forecasts), "baseline" or "oracle"."""
        if self.name == ORACLE or not self.baseline:
            return ORACLE if self.baseline else "model"
        return "combined" if self.name in COMBINED else "baseline"

    def of(self, metric: str) -> list[DaySums]:
        """The metric's day sums, one per seed."""
        if metric not in self.sums:
            self.sums[metric] = [METRICS[metric](f) for f in self.forecasts]
        return self.sums[metric]

    def cut(self, rows: Forecast) -> Entry:
        """The same model on the rows that it shares with a forecast."""
        return Entry(self.name, [align(f, rows, (self.name, "other"))[0] for f in self.forecasts], self.baseline)


# ------------------------------------------------------------------------------------------------ metrics


def model_metrics(entry: Entry, prior: Sequence[float], costs: Costs | None = None) -> dict[str, Any]:
    """All metrics of one model (the mean over seeds), its seeds' own and their spread, and what goes beyond metrics."""
    forecasts = entry.forecasts
    per_seed = [metrics.summary(f, prior) for f in forecasts]
    quintiles = _mean_of([metrics.rank_ic_in_volatility_quintiles(f) for f in forecasts])
    leak = max((first_day_excess(f) for f in forecasts), key=lambda x: x.excess or 0.0)
    return {
        **_mean_of(per_seed),
        "baseline": entry.baseline,
        "intervals": {m: value_with_interval(m, entry.of(m)).interval for m in INTERVAL_METRICS},
        "seeds": [{"seed": s, **_scalars(m)} for s, m in zip(entry.seeds, per_seed, strict=True)],
        "seed_spread": _spread_of(per_seed) if len(per_seed) > 1 else None,
        "sectors": _mean_of([metrics.by_sector(f, prior) for f in forecasts]),
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
    """Mean over seeds, part by part of dictionaries and lists; undefined where it is undefined for one seed."""
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


def calibration_curve(*forecasts: Forecast, bins: int = 10) -> dict[str, list[dict[str, float]]]:
    """Per class, mean probability and observed share in equal-mass bins: a calibrated model is on the diagonal.

    Several forecasts (a model's seeds) are pooled.
    """
    curves = {}
    for c, name in enumerate(CLASS_NAMES):
        p = np.concatenate([f.p[:, c] for f in forecasts])
        happened = np.concatenate([f.labels == c for f in forecasts])
        bin_of = metrics.confidence_bins(p, bins)
        n, predicted, seen = (np.bincount(bin_of, w, minlength=bins) for w in (None, p, happened))
        curves[name] = [
            {"probability": predicted[k] / n[k], "share": seen[k] / n[k], "n": int(n[k])} for k in np.flatnonzero(n)
        ]
    return curves


# ------------------------------------------------------------------------------------------------ rows of the frames


def model_rows(entry: Entry, m: Mapping[str, Any]) -> dict[str, list[Row]]:
    """The rows of one model in the frames about models; `m`: its `model_metrics`."""
    own = {f"{k}{end}": v for k in INTERVAL_METRICS for end, v in bounds(m["intervals"][k], "_").items()}
    days = {f"{k}_days": int(m[f"{k}_days"]) for k in metrics.DAY_WISE}
    leak = {"first_day_excess": m["leak"]["excess"], "leak_flagged": m["leak"]["flagged"]}
    quintiles = zip(m["rank_ic_in_volatility_quintiles"], m["rank_ic_in_volatility_quintiles_days"], strict=True)
    rows: dict[str, list[Row]] = {
        "models": [dict(m) | own | days | leak | {"kind": entry.kind, "n_seeds": len(entry.forecasts)}],
        **class_rows(entry, m["calibration"]),
        **_portfolio_rows(m["portfolio"]),
        "coverage": [point | {"n": int(point["n"])} for point in m["coverage"]],
        "quintiles": [{"quintile": k, "rank_ic": ic, "n_days": int(n)} for k, (ic, n) in enumerate(quintiles, 1) if n],
        "seeds": m["seeds"],
        "sector_models": [
            sector | {"sector": s, "rank_ic_days": int(sector["rank_ic_days"])} for s, sector in m["sectors"].items()
        ],
    }
    return {name: [{"model": entry.name} | row for row in found] for name, found in rows.items()}


def class_rows(entry: Entry, curves: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """The rows of the frames classes, confusion and calibration (`curves`: its `calibration_curve`)."""
    matrices = np.stack([confusion(f) for f in entry.forecasts])
    counts, predicted = matrices.mean(axis=0), matrices.sum(axis=1)
    with np.errstate(invalid="ignore"):
        shares = counts / counts.sum(axis=1, keepdims=True)
        precision = (np.diagonal(matrices, axis1=1, axis2=2) / predicted).mean(axis=0)
    return {
        "classes": [
            {"class": name, "predicted": n, "accuracy": d.difference, "precision": hits} | d.row()
            for (name, d), n, hits in zip(
                class_accuracy(*entry.forecasts).items(), predicted.mean(axis=0), precision, strict=True
            )
        ],
        "confusion": [
            {"true": CLASS_NAMES[i], "predicted": CLASS_NAMES[j], "n": n, "share": shares[i, j]}
            for (i, j), n in np.ndenumerate(counts)
        ],
        "calibration": [point | {"class": c, "bin": k} for c, curve in curves.items() for k, point in enumerate(curve)],
    }


def class_frames(f: Forecast) -> dict[str, pl.DataFrame]:
    """The frames classes, confusion and calibration of one forecast."""
    key = {"model": f.model, "split": f.split}
    rows = class_rows(Entry(str(f.model), [f]), calibration_curve(f))
    return {name: frame(name, [key | row for row in found]) for name, found in rows.items()}


def _portfolio_rows(portfolio: Mapping[str, Any] | None) -> dict[str, list[Row]]:
    if portfolio is None:
        return {}
    deciles = [
        bounds(d["interval"]) | {"decile": k, "excess_return": d["mean"], "n_days": d["n_days"]}
        for k, d in enumerate(portfolio["deciles"], 1)
        if d["mean"] is not None
    ]
    if portfolio["top_minus_universe"]["mean"] is None:
        return {"deciles": deciles}
    allowed, banned = portfolio["long_short_allowed"]["mean"], portfolio["long_short_banned_days"]
    book = dict(portfolio) | {"long_short_allowed": allowed, "banned_days": banned}
    for name, source in (("top_minus_universe",) * 2, ("net", "net_top_minus_universe"), ("long_short",) * 2):
        book |= {name: portfolio[source]["mean"], **bounds(portfolio[source]["interval"], f"{name}_")}
    return {"deciles": deciles, "books": [book]}


def day_rows(entry: Entry, base: Entry, prior: Sequence[float], over_base: bool) -> list[Row]:
    """Day by day: log loss, its gain over `base` (or over the prior), that gain cumulated, the rank IC.

    The cumulated gain ends at the difference over the whole split.

    Args:
        entry, base: on the same rows.
    """
    f = entry.forecasts[0]
    if f.day is None:
        return []
    p_of_base = base.forecasts[0].p if over_base else np.tile(prior, (f.n, 1))
    losses = np.mean([metrics.log_losses(x.p, x.labels) for x in entry.forecasts], axis=0)
    ic = np.mean([metrics.daily_ic(x) for x in entry.forecasts], axis=0)
    n = np.bincount(f.day, minlength=len(f.dates))
    with np.errstate(invalid="ignore"):
        gains = metrics.log_losses(p_of_base, f.labels) - losses
        loss, gain = (np.bincount(f.day, x, minlength=len(f.dates)) for x in (losses, gains))
        total = np.cumsum(gain) / f.n
    return [
        {
            "model": entry.name,
            "date": day,
            "baseline": base.name if over_base else "prior",
            "n": int(n[t]),
            "log_loss": loss[t] / n[t],
            "log_loss_gain": gain[t] / n[t],
            "cumulated_gain": total[t],
            "rank_ic": ic[t],
        }
        for t, day in enumerate(f.dates)
    ]


def month_frame(days: pl.DataFrame) -> pl.DataFrame:
    """Each model month by month: mean rank IC of the days that have one, mean gain in log loss per sample."""
    gain = pl.col("log_loss_gain")
    months = days.group_by("split", "model", pl.col("date").dt.truncate("1mo").alias("month"), maintain_order=True).agg(
        n_days=pl.col("rank_ic").count(),
        rank_ic=pl.when(pl.col("rank_ic").count() >= MIN_MONTH_DAYS).then(pl.col("rank_ic").mean()),
        log_loss_gain=pl.when(gain.is_not_null().all()).then((gain * pl.col("n")).sum() / pl.col("n").sum()),
    )
    return frame("months", months.to_dicts())


# ------------------------------------------------------------------------------------------------ notes


def notes_on(name: str, m: Mapping[str, Any]) -> list[str]:
    """The alarm of `leaks`, and on how many days the rank IC exists where these are not all (and not none)."""
    notes, leak, days = [], m["leak"], m["rank_ic_days"]
    if leak["flagged"]:
        low, high = leak["interval"]
        notes.append(
            f"{name} may know the future: its first-day excess is {leak['excess']:.3f} [{low:.3f}, {high:.3f}], above "
            f"{FIRST_DAY_LIMIT} and above {FIRST_DAY_SHARE} of its rank IC {leak['rank_ic']:.3f} "
            "(lasps.evaluation.leaks). Look for a feature of tomorrow."
        )
    if m["n_days"] and days not in (0, m["n_days"]):
        few = f"; under {MIN_DAYS} it is undefined" if days < MIN_DAYS else ""
        notes.append(
            f"{name} has a rank IC on {days:,.0f} of {m['n_days']:,} days (on the others its score is the same for all "
            f"stocks, or fewer than {MIN_STOCKS} have one){few}"
        )
    return notes
