"""The tidy frames of a comparison: what each column is called, and how its rows are made from forecasts.

Shares, returns and probabilities are fractions, losses nats, null is undefined. Every frame but `identical` has the
column `split`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from lasps.config.settings import CLASS_NAMES
from lasps.evaluation import metrics, verdict
from lasps.evaluation.class_accuracy import class_accuracy, confusion
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.pairs import Entry, Pair, on_common_rows

Row = dict[str, Any]
MIN_MONTH_DAYS = 5
"""A month with fewer days that have a rank IC shows none (guess, not tuned)."""
INTERVAL_METRICS = ("log_loss", "accuracy", "rank_ic", "rank_ic_skip1")
_TEXT, _FLOAT, _INT, _BOOL, _DATE = pl.String(), pl.Float64(), pl.Int64(), pl.Boolean(), pl.Date()


def _columns(text: str = "", whole: str = "", number: str = "", **more: pl.DataType) -> dict[str, pl.DataType]:
    kinds = ((text, _TEXT), (whole, _INT), (number, _FLOAT))
    return {"split": _TEXT} | {name: dtype for names, dtype in kinds for name in names.split()} | more


SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    "models": _columns(
        "model kind",
        "n n_days n_seeds rank_ic_days rank_ic_skip1_days",
        "accuracy accuracy_low "
        "accuracy_high majority_accuracy log_loss log_loss_low log_loss_high prior_log_loss "
        "raw_log_loss focal_loss macro_f1 balanced_accuracy rank_ic rank_ic_low rank_ic_high icir "
        "rank_ic_skip1 rank_ic_skip1_low rank_ic_skip1_high icir_skip1 expected_calibration_error "
        "first_day_excess",
        leak_flagged=_BOOL,
    ),
    "pairs": _columns(
        "a b metric role over better", "n n_days n_seeds", "difference low high p_value adjusted_p", family=_BOOL
    ),
    "sectors": _columns("a b name better", "sector n n_days", "difference low high p_value adjusted_p"),
    "sector_models": _columns(
        "model name",
        "sector n n_days rank_ic_days",
        "accuracy majority_accuracy log_loss prior_log_loss macro_f1 rank_ic",
    ),
    "classes": _columns("model class", "n", "predicted accuracy low high precision"),
    "confusion": _columns("model true predicted", "", "n share"),
    "days": _columns("model baseline", "n", "log_loss log_loss_gain cumulated_gain rank_ic", date=_DATE),
    "months": _columns("model", "n_days", "rank_ic log_loss_gain", month=_DATE),
    "deciles": _columns("model", "decile n_days", "excess_return low high"),
    "books": _columns(
        "model",
        "n_days banned_days",
        "universe_return top_decile_return top_minus_universe "
        "top_minus_universe_low top_minus_universe_high turnover cost_per_holding net net_low net_high "
        "long_short long_short_low long_short_high long_short_allowed",
    ),
    "calibration": _columns("model class", "bin n", "probability share"),
    "coverage": _columns("model", "n", "coverage accuracy"),
    "quintiles": _columns("model", "quintile n_days", "rank_ic"),
    "seeds": _columns("model", "seed", "accuracy log_loss macro_f1 rank_ic expected_calibration_error"),
    "pair_seeds": _columns("a b", "seed", "difference low high"),
    "rows": _columns("model", "own compared"),
    "prior": _columns("class source", "", "share"),
    "identical": {"name": _TEXT, "same_as": _TEXT},
}


def frame(name: str, rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """A frame of `SCHEMAS`; columns that a row lacks, NaN and infinity are null, columns it has no place for go."""
    schema = SCHEMAS[name]
    table = pl.DataFrame([{c: row.get(c) for c in schema} for row in rows], schema=schema)
    floats = [c for c, dtype in schema.items() if dtype == _FLOAT]
    return table.with_columns(pl.when(pl.col(c).is_finite()).then(pl.col(c)) for c in floats)


def bounds(interval: Sequence[float] | None, prefix: str = "") -> Row:
    """{low, high} of an interval, null where there is none."""
    low, high = interval or (None, None)
    return {f"{prefix}low": low, f"{prefix}high": high}


# ------------------------------------------------------------------------------------------------ of one model


def model_rows(entry: Entry, m: Mapping[str, Any]) -> dict[str, list[Row]]:
    """The rows of all frames that one model's metrics give (`m`: as in the JSON, see comparison.py)."""
    key = {"model": entry.name}
    own = {f"{k}{end}": v for k in INTERVAL_METRICS for end, v in bounds(m["intervals"][k], "_").items()}
    days = {f"{k}_days": int(m[f"{k}_days"]) for k in metrics.DAY_WISE}
    one = (
        key
        | dict(m)
        | own
        | days
        | {
            "kind": entry.kind,
            "n_seeds": len(entry.seeds),
            "first_day_excess": m["leak"]["excess"],
            "leak_flagged": m["leak"]["flagged"],
        }
    )
    quintiles = zip(m["rank_ic_in_volatility_quintiles"], m["rank_ic_in_volatility_quintiles_days"], strict=True)
    return {
        "models": [one],
        "classes": _class_rows(entry, m),
        "confusion": _confusion_rows(entry),
        "deciles": _decile_rows(key, m["portfolio"]),
        "books": _book_rows(key, m["portfolio"]),
        "calibration": [
            key | point | {"class": c, "bin": k}
            for c, curve in m["calibration"].items()
            for k, point in enumerate(curve)
        ],
        "coverage": [key | point | {"n": int(point["n"])} for point in m["coverage"]],
        "quintiles": [
            key | {"quintile": k, "rank_ic": ic, "n_days": int(n)} for k, (ic, n) in enumerate(quintiles, 1) if n > 0
        ],
        "seeds": [key | seed for seed in m["seeds"]],
        "sector_models": [
            key | sector | {"sector": s, "rank_ic_days": int(sector["rank_ic_days"])}
            for s, sector in m["sectors"].items()
        ],
    }


def _class_rows(entry: Entry, m: Mapping[str, Any]) -> list[Row]:
    return [
        {
            "model": entry.name,
            "class": name,
            "n": share.n,
            "predicted": m["predicted_counts"][name],
            "accuracy": share.value,
            "low": share.low,
            "high": share.high,
            "precision": m["class_precision"][name],
        }
        for name, share in class_accuracy(*entry.forecasts).items()
    ]


def _confusion_rows(entry: Entry) -> list[Row]:
    counts = np.mean([confusion(f) for f in entry.forecasts], axis=0)
    with np.errstate(invalid="ignore"):
        shares = counts / counts.sum(axis=1, keepdims=True)
    return [
        {"model": entry.name, "true": CLASS_NAMES[i], "predicted": CLASS_NAMES[j], "n": n, "share": shares[i, j]}
        for (i, j), n in np.ndenumerate(counts)
    ]


def _decile_rows(key: Row, book: Mapping[str, Any] | None) -> list[Row]:
    return (
        []
        if book is None
        else [
            key | bounds(d["interval"]) | {"decile": k, "excess_return": d["mean"], "n_days": d["n_days"]}
            for k, d in enumerate(book["deciles"], 1)
            if d["mean"] is not None
        ]
    )


def _book_rows(key: Row, book: Mapping[str, Any] | None) -> list[Row]:
    if book is None or book["top_minus_universe"]["mean"] is None:
        return []
    row = (
        key
        | dict(book)
        | {"long_short_allowed": book["long_short_allowed"]["mean"], "banned_days": book["long_short_banned_days"]}
    )
    for name, source in (("top_minus_universe",) * 2, ("net", "net_top_minus_universe"), ("long_short",) * 2):
        row |= {name: book[source]["mean"], **bounds(book[source]["interval"], f"{name}_")}
    return [row]


def day_frame(entries: Sequence[Entry], prior: Sequence[float], split: str) -> pl.DataFrame:
    """Each model day by day: log loss, what it gains over the baseline, that gain cumulated, the day's rank IC.

    The baseline is volatility_bins, else the prior. The cumulated gain ends at the difference over the whole split.
    """
    base = next((e for e in entries if e.name == "volatility_bins"), None)
    rows = [row for entry in entries for row in _day_rows(entry, base, prior)]
    return frame("days", [{"split": split} | row for row in rows])


def _day_rows(entry: Entry, base: Entry | None, prior: Sequence[float]) -> list[Row]:
    if entry.forecasts[0].day is None:
        return []
    if base is not None:
        entry, base = on_common_rows(entry, base)
    f = entry.forecasts[0]
    assert f.day is not None
    p_of_base = np.tile(prior, (f.n, 1)) if base is None else base.forecasts[0].p
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
            "baseline": "prior" if base is None else base.name,
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
    months = days.group_by("split", "model", pl.col("date").dt.truncate("1mo").alias("month"), maintain_order=True).agg(
        n_days=pl.col("rank_ic").count(),
        rank_ic=pl.col("rank_ic").mean(),
        log_loss_gain=(pl.col("log_loss_gain") * pl.col("n")).sum() / pl.col("n").sum(),
        defined=pl.col("log_loss_gain").is_not_null().all(),
    )
    return frame(
        "months",
        months.with_columns(
            rank_ic=pl.when(pl.col("n_days") >= MIN_MONTH_DAYS).then("rank_ic"),
            log_loss_gain=pl.when("defined").then("log_loss_gain"),
        ).to_dicts(),
    )


def calibration_curve(*forecasts: Forecast, bins: int = 10) -> dict[str, list[dict[str, float]]]:
    """Per class, mean probability against observed share in equal-mass bins: a calibrated model is on the diagonal.

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


# ------------------------------------------------------------------------------------------------ of two models


def pair_rows(pair: Pair, selection: bool) -> dict[str, list[Row]]:
    """The rows of one pair in the frames pairs, pair_seeds and sectors."""
    key = {"a": pair.a, "b": pair.b}
    rows = [
        key
        | {
            "metric": metric,
            "family": pair.family,
            "role": pair.role,
            "difference": d.difference,
            **bounds(d.interval),
            "p_value": d.p_value,
            "n": d.n,
            "n_days": d.n_days,
            "n_seeds": d.n_seeds,
            "adjusted_p": pair.adjusted_p if d is pair.primary else None,
            "over": d.over,
            "better": pair.better(metric, selection),
        }
        for metric, d in pair.differences.items()
    ]
    sectors = [
        key
        | {
            "sector": s.sector,
            "n": s.difference.n,
            "n_days": s.difference.n_days,
            "difference": s.difference.difference,
            **bounds(s.difference.interval),
            "p_value": s.difference.p_value,
            "adjusted_p": s.adjusted_p,
            "better": verdict.better_side(s.difference, selection) if s.significant else None,
        }
        for s in pair.sectors
    ]
    seeds = [key | bounds(s["interval"]) | s for s in pair.by_seed["log_loss"] or []]
    return {"pairs": rows, "sectors": sectors, "pair_seeds": seeds}
