"""The tidy frames of a comparison: their columns.

Shares, returns and probabilities are fractions, losses nats, null is undefined. Every frame but `identical` has the
column `split`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

Row = dict[str, Any]
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
    "pair_seeds": _columns("a b metric", "seed", "difference low high"),
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
