"""Repairs of the raw table. Nothing here runs on its own: the user asks, and what was done is counted.

Every repair returns a new raw table and a dict of counts for dataset.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from lasps.data.integrity.bars import is_valid
from lasps.data.panel import PRICES, is_halted

Counts = dict[str, int]
REPAIRS = ("drop_row", "mask_day", "rescale_segment")


def drop_row(raw: pl.DataFrame, code: str, day: date | str, *, keep_first: bool = False) -> tuple[pl.DataFrame, Counts]:
    """Remove the row(s) of (code, day); `keep_first` keeps the first of several, for duplicate keys.

    Raises:
        ValueError: no such row.
    """
    here = _key(raw, code, day)
    if keep_first:
        here = here & (here.cum_sum() > 1)
    n = _count(here, "drop_row", code, day)
    return raw.filter(~here), {"drop_row": n}


def mask_day(raw: pl.DataFrame, code: str, day: date | str) -> tuple[pl.DataFrame, Counts]:
    """Turn the row of (code, day) into a halt: open = high = low = 0, volume 0, as KRX writes days without trading.

    The panel leaves it out; labels across it are flagged as spanning a halt.

    Raises:
        ValueError: no such row.
    """
    here = _key(raw, code, day)
    return _halt(raw, here), {"mask_day": _count(here, "mask_day", code, day)}


def rescale_segment(
    raw: pl.DataFrame, code: str, before: date | str, ratio: float, *, since: date | str | None = None,
    columns: Sequence[str] = PRICES,
) -> tuple[pl.DataFrame, Counts]:  # fmt: skip
    """Multiply the prices of `code` on days since <= day < before by `ratio`; volume is divided by it.

    A stock that falls from 1,000 to 200 on `before` without anything happening needs ratio 0.2. With fewer than the
    four price columns (a split that missed the closes) the volume stays.

    Raises:
        ValueError: a ratio that is not a positive number, unknown columns, no such rows.
    """
    if not 0 < ratio < float("inf"):
        raise ValueError(f"rescale_segment: ratio must be a positive number, got {ratio}")
    if unknown := [c for c in columns if c not in PRICES]:
        raise ValueError(f"rescale_segment: columns are some of {', '.join(PRICES)}; got {', '.join(unknown)}")
    here = (raw["code"] == code) & (raw["date"] < _day(before))
    if since is not None:
        here = here & (raw["date"] >= _day(since))
    n = _count(here, "rescale_segment", code, before)
    out = raw.with_columns(pl.when(here).then(pl.col(c) * ratio).otherwise(pl.col(c)).alias(c) for c in columns)
    if set(columns) == set(PRICES):
        shares = (pl.col("volume") / ratio).round(0).cast(raw.schema["volume"])
        out = out.with_columns(volume=pl.when(here).then(shares).otherwise(pl.col("volume")))
    return out, {"rescale_segment": n}


def accept(raw: pl.DataFrame, waived: Sequence[str]) -> tuple[pl.DataFrame, Counts]:
    """What waiving a finding that no panel can hold comes to, counted.

    duplicate_keys: the first row of each key stays; non_positive_prices: a day without four positive prices is a halt.
    """
    counts: Counts = {}
    if "duplicate_keys" in waived:
        rows = raw.height
        raw = raw.unique(["code", "date"], keep="first", maintain_order=True)
        counts["duplicate_keys"] = rows - raw.height
    if "non_positive_prices" in waived:
        unpriced = raw.select(~is_halted() & ~is_valid()).to_series()
        raw = _halt(raw, unpriced)
        counts["non_positive_prices"] = int(unpriced.sum())
    return raw, counts


def apply_repairs(raw: pl.DataFrame, repairs: Sequence[Mapping[str, Any]]) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Apply repairs in their order.

    Args:
        raw: the raw long table.
        repairs: as in `Finding.repairs`: {"repair": "drop_row" | "mask_day", "code", "date"} or
            {"repair": "rescale_segment", "code", "before", "ratio", "since"?, "columns"?}.

    Returns:
        The repaired table, and {"repairs": n, "rows": {name: rows changed}, "list": the repairs} for dataset.json.

    Raises:
        ValueError: an unknown repair, a missing or unknown key, or a repair that matches no row.
    """
    rows: Counts = {}
    for number, repair in enumerate(repairs):
        raw, counts = _apply_one(raw, dict(repair), number)
        for name, n in counts.items():
            rows[name] = rows.get(name, 0) + n
    return raw, {"repairs": len(repairs), "rows": rows, "list": [dict(r) for r in repairs]}


def read_repairs(path: str | Path) -> list[dict[str, Any]]:
    """A JSON file with a list of repairs. Raises ValueError when it is none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected a JSON list of repairs, but {error}") from error
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise ValueError(f"{path}: expected a JSON list of objects with the key 'repair' ({', '.join(REPAIRS)})")
    return content


def _apply_one(raw: pl.DataFrame, repair: dict[str, Any], number: int) -> tuple[pl.DataFrame, Counts]:
    name, given = repair.pop("repair", None), repair
    if name not in REPAIRS:
        raise ValueError(f"repair {number}: unknown repair {name!r}; the repairs are {', '.join(REPAIRS)}")
    if "date" in given:
        given["day"] = given.pop("date")
    functions = {"drop_row": drop_row, "mask_day": mask_day, "rescale_segment": rescale_segment}
    try:
        return functions[name](raw, **given)  # type: ignore[operator]
    except TypeError as error:
        raise ValueError(f"repair {number} ({name}): {error}") from error


def _halt(raw: pl.DataFrame, here: pl.Series) -> pl.DataFrame:
    columns = (*PRICES[:3], "volume")
    return raw.with_columns(pl.when(here).then(0).otherwise(pl.col(c)).cast(raw.schema[c]).alias(c) for c in columns)


def _key(raw: pl.DataFrame, code: str, day: date | str) -> pl.Series:
    return (raw["code"] == code) & (raw["date"] == _day(day))


def _count(here: pl.Series, name: str, code: str, day: date | str) -> int:
    n = int(here.sum())
    if n == 0:
        raise ValueError(f"{name}: no row of {code} at {day}; check the code and the date against the raw table")
    return n


def _day(day: date | str) -> date:
    if isinstance(day, date):
        return day
    try:
        return date.fromisoformat(day)
    except ValueError as error:
        raise ValueError(f"expected a date as 2015-06-15, got {day!r}") from error
