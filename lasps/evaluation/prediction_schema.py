"""The one schema of prediction tables: one row per sample, checked before anything is cast.

Columns: code (text) and date, or `row` for data without dates; sector, label, p_sell, p_hold, p_buy; and, where
known, forward_return (close t -> t+5), forward_return_skip1 (t+1 -> t+6), raw_p_* (softmax as trained), volatility_20,
score (a ranking signal, where it is not P(BUY) - P(SELL)), model, split, seed. p_* are calibrated, raw_p_* are not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

P_COLUMNS = ("p_sell", "p_hold", "p_buy")
RAW_P_COLUMNS = ("raw_p_sell", "raw_p_hold", "raw_p_buy")
SUM_TOLERANCE = 1e-4  # float32 rounding of three probabilities, with room
LARGEST_HOLD = 0.5
"""No HOLD label moved by half its price: such returns are percent (thresholds are a few percent)."""
N_EXAMPLES = 3
DAY_TEXT = r"^\d{4}-\d{2}-\d{2}([ T]00:00(:00(\.0+)?)?)?$"


@dataclass(frozen=True)
class Column:
    """What a column may hold: kind (text, day, integer or number), the type it gets, the smallest and largest value."""

    kind: str
    dtype: pl.DataType
    low: float = -float("inf")
    high: float = float("inf")
    expected: str = ""
    hint: str = ""


def _number(
    expected: str = "finite numbers", low: float = -float("inf"), high: float = float("inf"), hint: str = ""
) -> Column:
    return Column("number", pl.Float64(), low, high, expected, hint)


_RETURN = _number(
    "returns as fractions (0.0185 for 1.85 %)",
    low=-1.0,
    hint="no price falls by more than all of it: divide percent by 100",
)
_SHARE = _number("probabilities in 0..1", -1e-9, 1 + 1e-9)
SCHEMA: dict[str, Column] = {
    "code": Column("text", pl.String(), expected="text such as 005930", hint="numbers lose leading zeros"),
    "date": Column("day", pl.Date(), expected="days such as 2025-01-02"),
    "row": Column("integer", pl.Int64(), 0, 2**62, "row numbers from 0"),
    "forward_return": _RETURN,
    "forward_return_skip1": _RETURN,
    "volatility_20": _number(),
    "sector": Column("integer", pl.Int16(), 0, 2**15 - 1, "sector numbers from 0"),
    "label": Column("integer", pl.Int8(), 0, 2, "labels 0, 1 or 2 (SELL, HOLD, BUY)", "is this the return?"),
    **dict.fromkeys((*P_COLUMNS, *RAW_P_COLUMNS), _SHARE),
    "score": _number(),
    "model": Column("text", pl.String(), expected="text"),
    "split": Column("text", pl.String(), expected="text"),
    "seed": Column("integer", pl.Int64(), -(2**62), 2**62, "whole numbers"),
}
NEVER_NULL = frozenset({"code", "date", "row", "sector", "label", *P_COLUMNS})


def keys_of(table: pl.DataFrame) -> list[str]:
    """["code", "date"], or ["row"] for a table without dates."""
    return ["code", "date"] if {"code", "date"} <= set(table.columns) else ["row"]


def checked_table(table: pl.DataFrame, where: str = "predictions") -> pl.DataFrame:
    """The table's known columns in their types, sorted by key.

    Raises:
        ValueError: naming file, column, rows and what to do; nothing is cast before it has been checked.
    """
    if not len(table):
        raise ValueError(f"{where}: expected at least one row, got an empty table")
    needed = {"sector", "label", *P_COLUMNS} | (set() if "row" in table.columns else {"code", "date"})
    if missing := sorted(needed - set(table.columns)):
        raise ValueError(f"{where}: expected columns {sorted(needed)}, missing are {missing}; found {table.columns}")
    columns = [_checked_column(table[name], where) for name in SCHEMA if name in table.columns]
    found = pl.DataFrame(columns)
    _check_rows(found, where)
    return found.sort([k for k in ("date", "code", "row") if k in keys_of(found)])


def _checked_column(values: pl.Series, where: str) -> pl.Series:
    """One column, checked by its kind and then cast."""
    column = SCHEMA[values.name]
    if values.dtype == pl.Null and values.name not in NEVER_NULL:
        return values.cast(column.dtype)
    values = _KINDS[column.kind](values, column, where)
    if values.name in NEVER_NULL:
        lacking = values.is_null() | (values.is_nan() if values.dtype.is_float() else False)
        why = "; predictions without outcomes cannot be evaluated" if values.name == "label" else ""
        _refuse(values, lacking, where, f"are null or NaN{why}")
    return values.cast(column.dtype)


def _refuse(values: pl.Series, bad: pl.Series, where: str, what: str) -> None:
    """ValueError if any value is bad: how many, which, and what the column expects."""
    wrong = values.filter(bad.fill_null(False))
    if len(wrong):
        column = SCHEMA[values.name]
        examples = ", ".join(str(v) for v in wrong.unique(maintain_order=True).head(N_EXAMPLES))
        hint = f". {column.hint[0].upper()}{column.hint[1:]}" if column.hint else ""
        raise ValueError(
            f"{where}: {values.name}: expected {column.expected}, but {len(wrong):,} of {len(values):,} "
            f"values {what}, e.g. {examples}{hint}"
        )


def _wrong_type(values: pl.Series, column: Column, where: str) -> ValueError:
    hint = f" ({column.hint})" if column.hint else ""
    return ValueError(
        f"{where}: {values.name}: expected {column.expected}, got the type {values.dtype}{hint}, "
        f"e.g. {values.drop_nulls().head(1).to_list()}"
    )


def _text(values: pl.Series, column: Column, where: str) -> pl.Series:
    if values.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise _wrong_type(values, column, where)
    return values.cast(pl.String)


def _day(values: pl.Series, column: Column, where: str) -> pl.Series:
    if values.dtype == pl.Date:
        return values
    if values.dtype == pl.String:
        _refuse(
            values,
            ~values.str.contains(DAY_TEXT),
            where,
            "are not (write days as YYYY-MM-DD, without a time or a time zone)",
        )
        days = values.str.head(10).str.to_date("%Y-%m-%d", strict=False)
        _refuse(values, days.is_null() & values.is_not_null(), where, "are no days of the calendar")
        return days
    if not isinstance(values.dtype, pl.Datetime):
        raise _wrong_type(values, column, where)
    if values.dtype.time_zone is not None:
        raise ValueError(
            f"{where}: {values.name}: expected {column.expected}, got times in the zone "
            f"{values.dtype.time_zone}, e.g. {values.drop_nulls().head(1).to_list()}: in another zone "
            "they are another day. Write the Korean day, such as "
            'column.dt.convert_time_zone("Asia/Seoul").dt.date()'
        )
    _refuse(values, values != values.dt.truncate("1d"), where, "carry a time of day")
    return values.dt.date()


def _integer(values: pl.Series, column: Column, where: str) -> pl.Series:
    if not values.dtype.is_numeric():
        raise _wrong_type(values, column, where)
    if not values.dtype.is_integer():
        _refuse(values, values.is_finite() & (values != values.round(0)), where, "are no whole numbers")
    inside = values.cast(pl.Float64).is_between(column.low, column.high)
    _refuse(values, ~inside & ~_is_nan(values), where, "are not")
    return values


def _real(values: pl.Series, column: Column, where: str) -> pl.Series:
    if not values.dtype.is_numeric():
        raise _wrong_type(values, column, where)
    values = values.cast(pl.Float64)
    if values.name != "score":
        _refuse(values, values.is_infinite(), where, "are infinite")
    _refuse(
        values,
        ~values.is_between(column.low, column.high) & ~values.is_nan(),
        where,
        "are below -1" if column is _RETURN else "are not",
    )
    return values if values.name in NEVER_NULL else values.fill_nan(None)


def _is_nan(values: pl.Series) -> pl.Series:
    return values.is_nan() if values.dtype.is_float() else pl.repeat(False, len(values), eager=True)


_KINDS: dict[str, Callable[[pl.Series, Column, str], pl.Series]] = {
    "text": _text,
    "day": _day,
    "integer": _integer,
    "number": _real,
}


def _check_rows(table: pl.DataFrame, where: str) -> None:
    """What only several columns, or several rows, can tell."""
    keys = keys_of(table)
    faults = {
        f"probabilities whose sum is not 1 (+-{SUM_TOLERANCE:g})": (pl.sum_horizontal(P_COLUMNS) - 1).abs()
        > SUM_TOLERANCE
    }
    for name in {"forward_return", "forward_return_skip1"} & set(table.columns):
        if name == "forward_return":
            faults[f"the label HOLD and a {name} of {LARGEST_HOLD:g} or more (is it percent? divide by 100)"] = (
                pl.col("label") == 1
            ) & (pl.col(name).abs() >= LARGEST_HOLD)
    for what, fault in faults.items():
        bad = table.filter(fault)
        if len(bad):
            shown = [c for c in (*keys, "label", "forward_return", *P_COLUMNS) if c in table.columns]
            raise ValueError(
                f"{where}: {len(bad):,} of {len(table):,} rows have {what}, e.g. "
                f"{bad.select(shown).head(N_EXAMPLES).to_dicts()}"
            )
    twice = table.select(keys).is_duplicated()
    if twice.any():
        raise ValueError(
            f"{where}: {twice.sum():,} rows share their key {keys}, e.g. "
            f"{table.filter(twice).select(keys).head(N_EXAMPLES).to_dicts()}; one table holds one model "
            "on one split"
        )


def digest_of(table: pl.DataFrame) -> str:
    """SHA-256 of a checked table's names, types and values, whatever file it lies in."""
    state = hashlib.sha256()
    for values in table.iter_columns():
        state.update(f"{values.name}:{values.dtype}:{len(values)}".encode())
        state.update(values.is_null().to_numpy().tobytes())
        if values.dtype == pl.String:
            state.update("\x1f".join(values.fill_null("")).encode())
        else:
            state.update(values.to_physical().fill_null(0).to_numpy().tobytes())
    return state.hexdigest()
