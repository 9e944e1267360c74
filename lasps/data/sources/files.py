"""Bars and listings from files as real Korean ones come: parquet, CSV, a folder with one file per code.

Understood: the column names of `names`; utf-8 with and without BOM, cp949, utf-16; .gz and .zip; sub-folders; "1,234"
and decimal commas; dates as 20240102, 2024-01-02, 2024/01/02 or with a time of day; codes written A005930, 005930.KS
or ="005930"; an adjusted close beside the prices; yfinance's header lines.
Refused with an example, all faulty files of a folder at once: codes that lost their zeros (unless pad_codes), values
that are neither a number nor blank, unreadable dates, bars within the day, days in UTC, signs before prices (unless
signed_prices).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from loguru import logger

from lasps.data.errors import explained
from lasps.data.panel import PRICES
from lasps.data.signs import SIGNS, carries_signs
from lasps.data.sources import values
from lasps.data.sources.adjusting import adjust
from lasps.data.sources.names import (
    BAR_NAMES,
    INDEX_NAMES,
    LISTING_NAMES,
    adjusted_close,
    columns_of,
    industry_column,
    plain,
)
from lasps.data.sources.tables import Table, files_of, split_name, table_of
from lasps.data.sources.values import Decimal
from lasps.terminal import in_words

NUMBERS = (*PRICES, "volume")
SUNDAYS, FRIDAYS, SEEN_DAYS = 0.1, 0.02, 15
"""More rows than the first on Sundays and fewer than the second on Fridays, over so many days at least: the days are in
UTC, in which midnight in Korea belongs to the day before. Guess: such files have 0.2 and 0."""
_CODE_OF_FILE = r"\d{1,5}|[0-9A-Z]{6}"


def read_bars(
    path: str | Path, pad_codes: bool = False, signed_prices: bool = False, decimal: Decimal | None = None
) -> pl.DataFrame:
    """Read bars from a parquet or CSV long table, or from a folder of files, one per code.

    Args:
        path: a file with the columns of `names.BAR_NAMES`, or a folder of such files (sub-folders included); a file
            without a code column is named by its code.
        pad_codes: restore lost zeros ("5930" -> "005930") instead of refusing them.
        signed_prices: prices carry a broker's sign (`lasps.data.signs`); their absolute values are taken.
        decimal: "point" or "comma" starts the decimals; None: as the values of each file prove.

    Returns:
        code String, date Date, open, high, low, close, volume Int64 or Float64, in the files' order; blank values are
        null. Feed it to `panel.make_panel`. With an adjusted close, prices and volumes are brought to its scale, see
        `adjusting.adjust`.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: what is wrong, in which files and rows.
    """
    return read_bars_counted(path, pad_codes, signed_prices, decimal)[0]


def read_bars_counted(
    path: str | Path, pad_codes: bool = False, signed_prices: bool = False, decimal: Decimal | None = None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """`read_bars`, and counts: files, rows, rescaled_rows, and of what else was done where it was."""
    path = Path(path)
    files = files_of(path)
    tables = _each(path, files, lambda file: _bars_of(file, pad_codes, signed_prices, decimal))
    done: dict[str, int] = {}
    for _, counts in tables:
        done = {name: done.get(name, 0) + counts.get(name, 0) for name in done | counts}
    _warn_of_keys_in_two_files(files, [table for table, _ in tables])
    bars = _stacked([table for table, _ in tables])
    with explained(path, "bars with an adjusted close"):
        bars, rescaled = _adjusted(bars, path)
    _refuse_utc_days(bars, path)
    if decimal is not None and all(split_name(file)[1] == ".parquet" for file in files):
        logger.warning("--decimal has no effect: {} holds no text files", path)
    if signed_prices and not done.get("signed_rows"):
        logger.warning("--signed-prices has no effect: no price in {} carries a sign", path)
    found = {"files": len(files), "rows": bars.height} | rescaled | {name: n for name, n in done.items() if n}
    logger.info("Read {}: {}", path, in_words(found))
    return bars, found


def read_listing(path: str | Path, pad_codes: bool = False) -> pl.DataFrame:
    """Read a listing: code, name, market, industry (all String, null where blank or "-"; market may be absent).

    Raises:
        FileNotFoundError: nothing there.
        ValueError: what is wrong, in which file and row; a code that occurs twice.
    """
    files = files_of(Path(path), folder=False)
    return _each(Path(path), files, lambda file: _listing_of(file, pad_codes))[0]


def _each(path: Path, files: list[Path], read: Callable[[Path], Any]) -> list[Any]:
    """`read` of every file. Raises one ValueError that names all the files that cannot be read."""
    results: list[Any] = []
    problems: dict[Path, Exception] = {}
    for file in files:
        try:
            with explained("the values", "columns of text, days and numbers"):
                results.append(read(file))
        except (ValueError, OSError) as error:
            problems[file] = error
    if not problems:
        return results
    file, first = next(iter(problems.items()))
    if len(problems) == 1:
        raise ValueError(f"{file}: {first}") from first
    by_problem: dict[str, list[str]] = {}
    for file, problem in problems.items():
        by_problem.setdefault(str(problem), []).append(str(file.relative_to(path)))
    lines = [f"  {said}: {', '.join(names)}" for said, names in by_problem.items()]
    raise ValueError(f"{path}: {len(problems)} of {len(files)} files cannot be read\n" + "\n".join(lines)) from first


def _bars_of(file: Path, pad_codes: bool, signed: bool, decimal: Decimal | None) -> tuple[pl.DataFrame, dict[str, int]]:
    """One file's bars, with `adjusted` where it has one, and what was done to them in rows (or files)."""
    table = table_of(file)
    frame, rows = table.frame, table.rows()
    found = columns_of(frame, BAR_NAMES, optional=("code", "date"))
    columns = {name: found[name] for name in NUMBERS}
    if (adjusted := adjusted_close(frame)) is not None:
        columns["adjusted"] = adjusted
    written = frame.select(pl.col(theirs).alias(ours) for ours, theirs in columns.items())
    numbers, decimal = values.numbers_of(written, rows, table.separator, decimal)
    date = frame[found["date"] if "date" in found else _index_of_days(frame, rows)]
    code = frame[found["code"]] if "code" in found else None
    kept = _not_blank(numbers, date)
    if kept is not None:
        numbers, date, rows = numbers.filter(kept), date.filter(kept), rows.filter(kept)
        code = None if code is None else code.filter(kept)
    day, time = values.days(date, rows)
    if code is None:
        code = values.codes(pl.Series([_code_of(table, file)]), rows, pad_codes).new_from_index(0, numbers.height)
    else:
        code = values.codes(code, rows, pad_codes)
    bars = numbers.with_columns(code.alias("code"), day.alias("date"))
    _refuse_bars_within_the_day(bars, time)
    bars, negative = _unsigned(bars, signed)
    blank, comma = frame.height - bars.height, int(decimal == "comma")
    counts = {"blank_rows": blank, "signed_rows": negative, "decimal_comma_files": comma}
    return bars.select("code", "date", *columns), counts


def _index_of_days(frame: pl.DataFrame, rows: pl.Series) -> str:
    """The unnamed index column that holds days; a frame saved twice has two such columns."""
    candidates = [c for name in INDEX_NAMES for c in frame.columns if plain(c) == name]
    for column in candidates:
        try:
            values.days(frame[column].head(100), rows.head(100))
            return column
        except ValueError:
            continue
    wanted = ", ".join(BAR_NAMES["date"])
    raise ValueError(f"missing columns, by any of these names: date ({wanted}); the file has {frame.columns}")


def _not_blank(numbers: pl.DataFrame, date: pl.Series) -> pl.Series | None:
    """The rows that hold anything, None where all do. Raises ValueError where none does."""
    if not all(numbers.null_count().row(0)):
        return None
    no_date = date.is_null() if date.dtype != pl.String else date.str.strip_chars().fill_null("") == ""
    kept = ~(numbers.select(pl.all_horizontal(pl.all().is_null())).to_series() & no_date)
    if not kept.any():
        raise ValueError("all rows are blank; complete the file or take it away")
    return kept


def _code_of(table: Table, file: Path) -> str:
    """The code of a file without a code column: 005930.csv, A005930.csv, 005930.KS.csv, or its header's ticker.

    Raises:
        ValueError: neither names a code, or they name two.
    """
    named = re.sub(r"^A(?=.{6}$)", "", re.sub(r"\.K[SQ]$", "", split_name(file)[0]))
    is_code = re.fullmatch(_CODE_OF_FILE, named) is not None
    if table.ticker is not None:
        ticker = re.sub(r"\.K[SQ]$", "", table.ticker)
        if is_code and ticker.zfill(6) != named.zfill(6):
            raise ValueError(
                f"its header names the ticker {table.ticker}, its name the code {named}: expected one of "
                "them; rename the file"
            )
        return ticker
    if not is_code:
        raise ValueError(
            f"no column for the code ({', '.join(BAR_NAMES['code'][:6])}, ...), and the file's name is no code such as "
            f"005930.csv; the file has {table.frame.columns}"
        )
    return named


def _refuse_bars_within_the_day(bars: pl.DataFrame, time: pl.Series | None) -> None:
    if time is None:
        return
    keys = bars.select("code", "date", time=time).unique().group_by("code", "date").agg("time").sort("code", "date")
    several = keys.filter(pl.col("time").list.len() > 1)
    if several.height:
        code, day, times = several.row(0)
        raise ValueError(
            f"bars within the day: {len(times)} times for {code} on {day} ({min(times)} .. {max(times)}), and "
            f"{several.height - 1} more such days; expected one bar per stock and day: take the first open, the "
            "highest high, the lowest low, the last close and the sum of the volumes"
        )


def _unsigned(bars: pl.DataFrame, signed: bool) -> tuple[pl.DataFrame, int]:
    """Prices without a broker's signs, and how many rows had one. Raises ValueError where they are not expected."""
    negative = bars.select(pl.any_horizontal(pl.col(c) < 0 for c in PRICES).fill_null(False)).to_series()
    if not signed or not negative.any():
        if carries_signs(bars):
            raise ValueError(SIGNS)
        return bars, 0
    prices = [c for c in (*PRICES, "adjusted") if c in bars.columns]
    return bars.with_columns(pl.col(prices).abs()), int(negative.sum())


def _stacked(tables: list[pl.DataFrame]) -> pl.DataFrame:
    """All files' rows; where only some have an adjusted close, the close stands for it in the others."""
    if any("adjusted" in table.columns for table in tables):
        tables = [t if "adjusted" in t.columns else t.with_columns(adjusted="close") for t in tables]
    return pl.concat(tables, how="vertical_relaxed")


def _adjusted(bars: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, dict[str, int]]:
    """Bars on the scale of their adjusted close, and the counts; one warning for rows that have none."""
    if "adjusted" not in bars.columns:
        return bars, {"rescaled_rows": 0}
    try:
        done = adjust(bars)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if done.without_adjusted_close:
        logger.warning(
            "{}: {} traded rows have no usable adjusted close and are left out", path, done.without_adjusted_close
        )
    more = {"rescaled_volumes": done.rescaled_volumes, "without_adjusted_close": done.without_adjusted_close}
    return done.bars, {"rescaled_rows": done.rescaled_rows} | {name: n for name, n in more.items() if n}


def _refuse_utc_days(bars: pl.DataFrame, path: Path) -> None:
    days = bars.group_by("date").len().with_columns(weekday=pl.col("date").dt.weekday())
    sundays, fridays = (float(days.filter(pl.col("weekday") == day)["len"].sum()) / bars.height for day in (7, 5))
    if days.height >= SEEN_DAYS and sundays > SUNDAYS and fridays < FRIDAYS:
        raise ValueError(
            f"{path}: {100 * sundays:.0f} % of the rows lie on Sundays and {100 * fridays:.0f} % on Fridays: the days "
            "are in UTC, where midnight in Korea is the day before. Convert the times to Asia/Seoul, then take the date"
        )


def _warn_of_keys_in_two_files(files: list[Path], tables: list[pl.DataFrame]) -> None:
    """Name the files in which the same stock and day stand; the gate says whether they differ, and stops."""
    if len(files) < 2:
        return
    owners: dict[str, list[int]] = {}
    for i, table in enumerate(tables):
        for code in table["code"].unique():
            owners.setdefault(code, []).append(i)
    shared = {code: where for code, where in owners.items() if len(where) > 1}
    if not shared:
        return
    parts = [tables[i].select("code", "date", file=pl.lit(i)) for i in sorted(set().union(*shared.values()))]
    rows = pl.concat(parts).filter(pl.col("code").is_in(list(shared)))
    twice = rows.group_by("code", "date").agg(pl.col("file").unique().sort()).filter(pl.col("file").list.len() > 1)
    for pair, n in twice.group_by("file").agg(n=pl.len()).sort("n", descending=True).head(5).rows():
        names = " and ".join(str(files[i]) for i in pair)
        logger.warning("{} days of a stock stand in more than one file: {}", n, names)


def _listing_of(file: Path, pad_codes: bool) -> pl.DataFrame:
    table = table_of(file)
    frame, rows = table.frame, table.rows()
    found = columns_of(frame, LISTING_NAMES, optional=("market",))
    found["industry"] = industry_column(frame, found["industry"])
    columns = [values.text_of(frame[c], name).replace({"-": None}).alias(name) for name, c in found.items()]
    filled = pl.DataFrame(columns).with_columns(rows).filter(~pl.all_horizontal(pl.col(*found).is_null()))
    code = values.codes(filled["code"], filled["row"], pad_codes)
    listing = filled.select(
        (pl.col(name) if name in found else pl.lit(None, dtype=pl.String)).alias(name) for name in LISTING_NAMES
    ).with_columns(code.alias("code"))
    twice = listing.filter(pl.col("code").is_duplicated())
    if twice.height:
        raise ValueError(f"{twice['code'].n_unique()} codes occur more than once, e.g. {twice.head(4).rows()}")
    return listing
