"""Repairs of the raw table. Nothing here runs on its own: the user asks, and what was done is counted.

Every repair returns a new raw table and a dict of counts for dataset.json. Repaired prices are Float64 and repaired
volumes Int64 (Float64 where they were floating), whatever narrower type the file had.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl

from lasps.data.integrity.bars import is_valid
from lasps.data.panel import PRICES, is_empty, is_halted

Counts = dict[str, int]
Given = dict[str, Any]
LEAST_LEFT = 0.5
"""Share of the traded rows that waivers must leave. Guess: a file that loses more is another file."""


def drop_row(raw: pl.DataFrame, code: str, day: date | str, *, keep_first: bool = False) -> tuple[pl.DataFrame, Counts]:
    """Remove the row(s) of (code, day); `keep_first` keeps the first of several, for duplicate keys.

    Raises:
        ValueError: no such row.
    """
    return _drop_rows(raw, [{"code": code, "day": day, "keep_first": keep_first}])


def mask_day(raw: pl.DataFrame, code: str, day: date | str) -> tuple[pl.DataFrame, Counts]:
    """Turn the row of (code, day) into a halt: open = high = low = 0, volume 0, as KRX writes days without trading.

    The panel leaves it out; labels across it are flagged as spanning a halt.

    Raises:
        ValueError: no such row.
    """
    return _mask_days(raw, [{"code": code, "day": day}])


def drop_segment(
    raw: pl.DataFrame, code: str, *, since: date | str | None = None, before: date | str | None = None
) -> tuple[pl.DataFrame, Counts]:
    """Remove the rows of `code` on days since <= day < before; one of the two may be left out.

    Raises:
        ValueError: neither day is given, or no such rows.
    """
    if since is None and before is None:
        raise ValueError(f"drop_segment: expected since, before or both for {code}, got neither")
    here = _segment(raw, code, since, before, "drop_segment")
    return raw.filter(~here), {"drop_segment": int(here.sum())}


def rescale_segment(
    raw: pl.DataFrame,
    code: str,
    before: date | str,
    ratio: float,
    *,
    since: date | str | None = None,
    columns: Sequence[str] = (*PRICES, "volume"),
) -> tuple[pl.DataFrame, Counts]:
    """Multiply the prices of `code` on days since <= day < before by `ratio`; volume is divided by it.

    A stock that falls from 1,000 to 200 on `before` without anything happening needs ratio 0.2. `columns` restricts
    it: ["close"] after a split that missed the closes, ["volume"] where volume alone is on the old scale.

    Raises:
        ValueError: a ratio that is not a positive number, unknown columns, no such rows.
    """
    if not 0 < ratio < float("inf"):
        raise ValueError(f"rescale_segment: ratio must be a positive number, got {ratio}")
    if unknown := [c for c in columns if c not in (*PRICES, "volume")]:
        raise ValueError(f"rescale_segment: columns are some of {', '.join(PRICES)}, volume; got {', '.join(unknown)}")
    chosen = (*columns, "volume") if set(columns) == set(PRICES) else tuple(columns)
    here = _segment(raw, code, since, before, "rescale_segment")
    scaled = {c: pl.col(c).cast(pl.Float64) * ratio for c in chosen if c != "volume"}
    out = raw.with_columns(pl.when(here).then(new).otherwise(pl.col(c)).alias(c) for c, new in scaled.items())
    if "volume" in chosen:
        kind = pl.Int64 if raw.schema["volume"].is_integer() else pl.Float64
        shares = (pl.col("volume").cast(pl.Float64) / ratio).round(0).cast(kind)
        out = out.with_columns(volume=pl.when(here).then(shares).otherwise(pl.col("volume").cast(kind)))
    return out, {"rescale_segment": int(here.sum())}


def accept(raw: pl.DataFrame, waived: Sequence[str]) -> tuple[pl.DataFrame, Counts]:
    """What waiving a finding that no panel can hold comes to, counted.

    duplicate_keys: the first row of each key stays; non_positive_prices: a day without four positive prices is a halt.

    Raises:
        ValueError: the waivers would leave less than LEAST_LEFT of the rows that traded.
    """
    counts: Counts = {}
    before = _traded(raw)
    if "duplicate_keys" in waived:
        rows = raw.height
        raw = raw.unique(["code", "date"], keep="first", maintain_order=True)
        counts["duplicate_keys"] = rows - raw.height
    if "non_positive_prices" in waived:
        unpriced = raw.select(~is_halted() & ~is_empty() & ~is_valid()).to_series()
        raw = _halt(raw, unpriced)
        counts["non_positive_prices"] = int(unpriced.sum())
    left = _traded(raw) if counts else before
    if left < LEAST_LEFT * before:
        raise ValueError(
            f"the waivers {', '.join(counts)} would leave {left:,} of {before:,} traded rows "
            f"({100 * left / before:.0f} %), expected at least {100 * LEAST_LEFT:.0f} %: that is no matter of single "
            "rows. Read the file in another way, or pull the data again"
        )
    return raw, counts


def apply_repairs(raw: pl.DataFrame, repairs: Sequence[Mapping[str, Any]]) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Apply repairs in their order.

    Args:
        raw: the raw long table.
        repairs: as in `Finding.repairs`: {"repair": "drop_row" | "mask_day", "code", "date"},
            {"repair": "drop_segment", "code", "since"?, "before"?} or
            {"repair": "rescale_segment", "code", "before", "ratio", "since"?, "columns"?}.

    Returns:
        The repaired table, and {"repairs": n, "rows": {name: rows changed}, "list": the repairs} for dataset.json.

    Raises:
        ValueError: an unknown repair, a missing or unknown key, or a repair that matches no row.
    """
    rows: Counts = {}
    asked = [_understood(raw, dict(repair), number) for number, repair in enumerate(repairs)]
    for name, group in groupby(asked, key=lambda repair: repair[0]):
        raw, changed = _run(raw, name, [given for _, given in group])
        rows[name] = rows.get(name, 0) + changed
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


def _understood(raw: pl.DataFrame, repair: Given, number: int) -> tuple[str, Given]:
    """The repair's name and its arguments, checked against the function that will do it."""
    name, given = repair.pop("repair", None), repair
    if name not in REPAIRS:
        raise ValueError(f"repair {number}: unknown repair {name!r}; the repairs are {', '.join(REPAIRS)}")
    if "date" in given:
        given["day"] = given.pop("date")
    try:
        inspect.signature(REPAIRS[name]).bind(raw, **given)
    except TypeError as error:
        raise ValueError(f"repair {number} ({name}): {error}") from error
    return name, given


def _run(raw: pl.DataFrame, name: str, asked: list[Given]) -> tuple[pl.DataFrame, int]:
    """The table after repairs of one kind, and the rows they changed; those of single days run in one pass."""
    if name in IN_ONE_PASS:
        raw, counts = IN_ONE_PASS[name](raw, asked)
        return raw, counts[name]
    changed = 0
    for given in asked:
        raw, counts = REPAIRS[name](raw, **given)
        changed += counts[name]
    return raw, changed


def _drop_rows(raw: pl.DataFrame, asked: list[Given]) -> tuple[pl.DataFrame, Counts]:
    here, keep_first = _at(raw, asked, "drop_row")
    number = raw.select(pl.int_range(pl.len()).over("code", "date")).to_series() if keep_first.any() else None
    dropped = here if number is None else here & ~(keep_first & (number == 0))
    if not dropped.any():
        raise ValueError(f"drop_row: no row of {asked[0]['code']} at {asked[0]['day']} is a second one of its key")
    return raw.filter(~dropped), {"drop_row": int(dropped.sum())}


def _mask_days(raw: pl.DataFrame, asked: list[Given]) -> tuple[pl.DataFrame, Counts]:
    here, _ = _at(raw, asked, "mask_day")
    return _halt(raw, here), {"mask_day": int(here.sum())}


def _at(raw: pl.DataFrame, asked: list[Given], name: str) -> tuple[pl.Series, pl.Series]:
    """Per row of `raw`: is it one of the (code, day) asked for, and is its first one to be kept.

    Raises:
        ValueError: a key that has no row.
    """
    days = [(given["code"], _day(given["day"]), bool(given.get("keep_first"))) for given in asked]
    schema = {"code": pl.String, "date": pl.Date, "keep_first": pl.Boolean}
    keys = pl.DataFrame(days, schema=schema, orient="row").unique(["code", "date"], maintain_order=True)
    table = raw.select("code", pl.col("date").cast(pl.Date))
    absent = keys.join(table, on=["code", "date"], how="anti", maintain_order="left")
    if absent.height:
        code, day, _ = absent.row(0)
        more = f" (and {absent.height - 1:,} more)" if absent.height > 1 else ""
        raise ValueError(f"{name}: no row of {code} at {day}{more}; check the code and the date against the raw table")
    marks = table.join(keys, on=["code", "date"], how="left", maintain_order="left")["keep_first"]
    return marks.is_not_null(), marks.fill_null(False)


def _segment(raw: pl.DataFrame, code: str, since: date | str | None, before: date | str | None, name: str) -> pl.Series:
    """The rows of `code` with since <= day < before. Raises ValueError where there is none."""
    here = raw["code"] == code
    if since is not None:
        here = here & (raw["date"] >= _day(since))
    if before is not None:
        here = here & (raw["date"] < _day(before))
    if not here.any():
        days = " and ".join(f"{word} {day}" for word, day in (("since", since), ("before", before)) if day is not None)
        raise ValueError(f"{name}: no row of {code} {days}; check the code and the days against the raw table")
    return here


def _halt(raw: pl.DataFrame, here: pl.Series) -> pl.DataFrame:
    columns = (*PRICES[:3], "volume")
    return raw.with_columns(pl.when(here).then(0).otherwise(pl.col(c)).cast(raw.schema[c]).alias(c) for c in columns)


def _traded(raw: pl.DataFrame) -> int:
    return int(raw.select((~is_halted() & ~is_empty()).sum()).item())


def _day(day: date | str) -> date:
    if isinstance(day, date):
        return day
    try:
        return date.fromisoformat(day)
    except ValueError as error:
        raise ValueError(f"expected a date as 2015-06-15, got {day!r}") from error


REPAIRS: dict[str, Callable[..., tuple[pl.DataFrame, Counts]]] = {
    "drop_row": drop_row,
    "mask_day": mask_day,
    "drop_segment": drop_segment,
    "rescale_segment": rescale_segment,
}
IN_ONE_PASS: dict[str, Callable[[pl.DataFrame, list[Given]], tuple[pl.DataFrame, Counts]]] = {
    "drop_row": _drop_rows,
    "mask_day": _mask_days,
}
