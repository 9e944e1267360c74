"""Bars and listings from files as real Korean ones come: parquet, CSV, a folder with one CSV per code.

Understood: English and Korean column names, utf-8 with and without BOM and cp949, "1,234", dates as 20240102,
2024-01-02, 2024/01/02 or with a time of day, codes written A005930 or 005930.KS, Yahoo's "Adj Close" and yfinance's
three header lines. Refused with an
example: codes that lost their zeros (unless pad_codes), values that are neither a number nor blank, unreadable dates.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import polars as pl
from loguru import logger

from lasps.data.panel import PRICES

BAR_NAMES: dict[str, tuple[str, ...]] = {
    "code": ("code", "종목코드", "단축코드", "ticker", "symbol", "isusrtcd"),
    "date": ("date", "날짜", "일자", "거래일", "거래일자", "datetime", "trddd"),
    "open": ("open", "시가", "tddopnprc"),
    "high": ("high", "고가", "tddhgprc"),
    "low": ("low", "저가", "tddlwprc"),
    "close": ("close", "종가", "tddclsprc"),
    "volume": ("volume", "거래량", "acctrdvol"),
}
ADJUSTED_CLOSE = ("adjclose", "adjustedclose", "수정종가")
LISTING_NAMES: dict[str, tuple[str, ...]] = {
    "code": ("code", "종목코드", "단축코드", "symbol", "ticker"),
    "name": ("name", "종목명", "회사명", "한글종목약명", "한글종목명"),
    "market": ("market", "시장구분", "시장"),
    "industry": ("industry", "업종", "업종명"),
}
INDEX_NAMES = ("", "unnamed:0", "indexlevel0", "index")
"""What an unnamed pandas index is called in a file; it is the date where no column is."""

ENCODINGS = ("utf-8-sig", "cp949")
SUFFIXES = (".csv", ".txt", ".parquet")
_CODE_OF_FILE = r"\d{1,5}|[0-9A-Z]{6}"
_COMPACT_DAY = r"^(\d{4})(\d{2})(\d{2})(?:\.0)?$"
_DAY = r"^(\d{4})(?:[-/.]\s?|년\s?)(\d{1,2})(?:[-/.]\s?|월\s?)(\d{1,2})(?:일|[.])?(?:[ T].*)?$"
_UTC_TIME = r"[ T]\d\d:\d\d.*(?:Z|\+00:?00)$"


def read_bars(path: str | Path, pad_codes: bool = False) -> pl.DataFrame:
    """Read bars from a parquet or CSV long table, or from a folder of files, one per code.

    Args:
        path: a file with the columns of `BAR_NAMES`, or a folder; a file without a code column is named by its code.
        pad_codes: restore lost zeros ("5930" -> "005930") instead of refusing them.

    Returns:
        code String, date Date, open, high, low, close, volume numeric, in the file's order; blank values are null.
        Feed it to `panel.make_panel`. With an adjusted close, all four prices are scaled by adjusted over close.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: what is wrong, in which file and row.
    """
    return read_bars_counted(path, pad_codes)[0]


def read_bars_counted(path: str | Path, pad_codes: bool = False) -> tuple[pl.DataFrame, dict[str, int]]:
    """`read_bars`, and how many files were read and rows were rescaled by an adjusted close."""
    files = _files(Path(path))
    tables = [_bars_of(file, pad_codes) for file in files]
    bars = pl.concat([table for table, _ in tables], how="vertical_relaxed")
    counts = {"files": len(files), "rows": bars.height, "rescaled_rows": sum(rescaled for _, rescaled in tables)}
    logger.info("Read {}: {}", path, counts)
    return bars, counts


def read_listing(path: str | Path, pad_codes: bool = False) -> pl.DataFrame:
    """Read a listing: code, name, market, industry (all String, null where blank or "-"; market may be absent).

    Raises:
        FileNotFoundError: nothing there.
        ValueError: what is wrong, in which file and row; a code that occurs twice.
    """
    file = _files(Path(path), folder=False)[0]
    table = _table(file)
    found = _columns(table, LISTING_NAMES, file, optional=("market",))
    text = {name: pl.col(column).cast(pl.String).str.strip_chars() for name, column in found.items()}
    listing = table.select(
        text.get(name, pl.lit(None, dtype=pl.String)).replace({"": None, "-": None, "nan": None}).alias(name)
        for name in LISTING_NAMES
    )
    listing = listing.with_columns(_codes(listing["code"], file, pad_codes))
    twice = listing.filter(pl.col("code").is_duplicated())
    if twice.height:
        raise ValueError(f"{file}: {twice['code'].n_unique()} codes occur more than once, e.g. {twice.head(4).rows()}")
    return listing


def _bars_of(file: Path, pad_codes: bool) -> tuple[pl.DataFrame, int]:
    """One file's bars, and how many of its rows an adjusted close rescaled."""
    table = _table(file)
    known = {_plain(column): column for column in table.columns}
    if not any(name in known for name in BAR_NAMES["date"]):
        table = table.rename({known[name]: "date" for name in INDEX_NAMES if name in known}, strict=False)
    found = _columns(table, BAR_NAMES, file, optional=("code",))
    code = table[found["code"]] if "code" in found else pl.Series([_code_of_name(file)]).new_from_index(0, table.height)
    bars = pl.DataFrame(
        [
            _codes(code.rename("code"), file, pad_codes),
            _dates(table[found["date"]], file),
            *(_numbers(table[found[name]], name, file) for name in (*PRICES, "volume")),
        ]
    )
    adjusted = next((known[name] for name in ADJUSTED_CLOSE if name in known), None)
    if adjusted is None:
        return bars, 0
    return _rescaled(bars, _numbers(table[adjusted], "adjusted", file))


def _rescaled(bars: pl.DataFrame, adjusted: pl.Series) -> tuple[pl.DataFrame, int]:
    """Scale all four prices by adjusted close over close; the number of rows that this changed."""
    close = pl.col("close").cast(pl.Float64)
    usable = adjusted.is_not_null() & (adjusted > 0) & (bars["close"].fill_null(0) > 0)
    factor = bars.select(pl.when(usable).then(adjusted.cast(pl.Float64) / close).otherwise(1.0)).to_series()
    changed = int(((factor - 1).abs() > 1e-9).sum())
    return bars.with_columns(pl.col(*PRICES).cast(pl.Float64) * factor), changed


def _files(path: Path, folder: bool = True) -> list[Path]:
    """The file itself, or the data files of a folder, sorted.

    Raises:
        FileNotFoundError: no such path.
        ValueError: a folder where a file is wanted, or one without data files; an unknown kind of file.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_dir() and not folder:
        raise ValueError(f"{path}: expected a file, got a folder")
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [f for f in inside if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")]
    if not files:
        raise ValueError(f"{path}: expected a file or a folder with files ending in {', '.join(SUFFIXES)}")
    return files


def _table(file: Path) -> pl.DataFrame:
    """The file's table; every CSV column as text."""
    if file.stat().st_size == 0:
        raise ValueError(f"{file}: the file is empty")
    if file.suffix.lower() == ".parquet":
        try:
            table = pl.read_parquet(file)
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"{file}: not a readable parquet file ({error})") from error
    else:
        table = _csv(file)
    if table.is_empty():
        raise ValueError(f"{file}: the file has a header but no rows; complete it or take it away")
    return table


def _csv(file: Path) -> pl.DataFrame:
    content = file.read_bytes()
    for encoding in ENCODINGS:
        try:
            text = content.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise ValueError(f"{file}: neither utf-8 nor cp949; save it as utf-8")
    text = _one_header(text)
    header = text.split("\n", 1)[0]
    separator = max(",\t;", key=header.count)
    try:
        return pl.read_csv(io.BytesIO(text.encode()), separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{file}: not a readable CSV table ({error})") from error


def _one_header(text: str) -> str:
    """A file of recent yfinance has three header lines, Price / Ticker / Date: the date's name goes into the first."""
    lines = text.split("\n", 3)
    three = all(line.startswith(name) for line, name in zip(lines, ("Price,", "Ticker,", "Date,"), strict=False))
    if len(lines) == 4 and three:
        return "Date" + lines[0].removeprefix("Price") + "\n" + lines[3]
    return text


def _plain(column: str) -> str:
    """A column name in small letters without spaces and underscores."""
    return re.sub(r"[\s_]+", "", column).lower()


def _columns(
    table: pl.DataFrame, names: dict[str, tuple[str, ...]], file: Path, optional: tuple[str, ...]
) -> dict[str, str]:
    """Our names -> the table's; the first alias that is there counts."""
    known = {_plain(column): column for column in table.columns}
    found = {ours: next((known[a] for a in aliases if a in known), None) for ours, aliases in names.items()}
    missing = {ours: names[ours] for ours, theirs in found.items() if theirs is None and ours not in optional}
    if missing:
        raise ValueError(f"{file}: missing columns (any of these names): {missing}; the file has {table.columns}")
    return {ours: theirs for ours, theirs in found.items() if theirs is not None}


def _code_of_name(file: Path) -> str:
    """The code that names a file: 005930.csv, A005930.csv, 005930.KS.csv."""
    code = re.sub(r"\.K[SQ]$", "", file.stem)
    code = re.sub(r"^A(?=.{6}$)", "", code)
    if not re.fullmatch(_CODE_OF_FILE, code):
        raise ValueError(f"{file}: no column for the code, and the file's name is no code such as 005930.csv")
    return code


def _codes(codes: pl.Series, file: Path, pad_codes: bool) -> pl.Series:
    """Codes as six characters: "A005930" and "005930.KS" -> "005930"."""
    text = codes.cast(pl.String).str.strip_chars().str.replace(r"\.0$", "")
    text = text.str.replace(r"\.K[SQ]$", "").str.replace(r"^A([0-9A-Z]{6})$", "$1")
    _refuse(text.is_null() | (text == ""), text, "code", "a code", file)
    short = text.str.contains(r"^\d{1,5}$")
    if pad_codes:
        return text.str.zfill(6).rename("code")
    if short.any():
        example = text.filter(short)[0]
        raise ValueError(
            f"{file}: {text.filter(short).n_unique()} codes have lost their zeros, e.g. {example!r} in row "
            f"{_row(short)} (should be {example.zfill(6)!r}); read codes as text, or allow padding with --pad-codes"
        )
    return text.rename("code")


def _dates(dates: pl.Series, file: Path) -> pl.Series:
    """Days in Korea."""
    if isinstance(dates.dtype, pl.Datetime):
        local = dates.dt.convert_time_zone("Asia/Seoul") if dates.dtype.time_zone else dates
        return local.dt.date().rename("date")
    if dates.dtype == pl.Date:
        return dates.rename("date")
    text = dates.cast(pl.String).str.strip_chars()
    utc = text.str.contains(_UTC_TIME) & ~text.str.contains(r"[ T]00:00(:00)?(Z|\+00:?00)$")
    _refuse(utc, dates, "date", "a day in Korean time (a time of day in UTC may belong to the next day)", file)
    parts = text.str.replace(_COMPACT_DAY, "${1}-${2}-${3}").str.extract_groups(_DAY).struct.unnest()
    iso = parts.select(
        pl.concat_str(
            pl.col("1"), pl.col("2").str.zfill(2), pl.col("3").str.zfill(2), separator="-", ignore_nulls=False
        )
    ).to_series()
    days = iso.str.to_date("%Y-%m-%d", strict=False)
    _refuse(days.is_null(), dates, "date", "a day such as 20240102, 2024-01-02 or 2024/01/02", file)
    return days.rename("date")


def _numbers(values: pl.Series, name: str, file: Path) -> pl.Series:
    """Numbers; "1,234" is one, blank is null."""
    if values.dtype.is_numeric():
        return values.rename(name)
    text = values.cast(pl.String).str.strip_chars().str.replace_all(",", "")
    text = text.replace({"": None, "nan": None, "NaN": None, "null": None})
    numbers = text.cast(pl.Float64, strict=False)
    _refuse(numbers.is_null() & text.is_not_null(), values, name, 'a number such as 1234 or "1,234"', file)
    return numbers.rename(name)


def _refuse(bad: pl.Series, values: pl.Series, name: str, expected: str, file: Path) -> None:
    if bad.any():
        example = values.filter(bad)[0]
        raise ValueError(
            f"{file}: row {_row(bad)}, column {name}: expected {expected}, got {example!r} ({bad.sum()} such rows)"
        )


def _row(bad: pl.Series) -> int:
    """The file's line of the first bad row: the header is line 1."""
    return int(bad.fill_null(False).arg_true()[0]) + 2
