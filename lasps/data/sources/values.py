"""A column's values as codes, days and numbers; what cannot be read is refused with the file's row.

Every function takes the column and `rows`, the file's line of each value. Long columns hold few different codes and
days, so these are read once per different value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import polars as pl

Decimal = Literal["point", "comma"]

_COMPACT_DAY = r"^(\d{4})(\d{2})(\d{2})(?:\.0)?$"
_COMPACT_TIME = r"^(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})?(?:\.0)?$"
_DAY = r"^(\d{4})(?:[-/.]\s?|년\s?)(\d{1,2})(?:[-/.]\s?|월\s?)(\d{1,2})(?:일|[.])?(?:[ T]+(.*))?$"
_OTHER_ZONE = r"[ T]\d\d?:\d\d.*(?:Z|[+-]\d\d:?\d\d)$"
_SAME_DAY_IN_KOREA = r"\+09:?00$|[ T]00:00(:00)?(\.0+)?(Z|\+00:?00)$"
_EXCEL_DAY = r"^[2-6]\d{4}(\.\d+)?$"
_POINT = r"^[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d*)?([eE][+-]?\d+)?$"
_COMMA = r"^[+-]?(\d{1,3}(\.\d{3})+|\d+)?(,\d*)?([eE][+-]?\d+)?$"
_EXCEL_TEXT = r'^="(.*)"$'
_BLANK = dict.fromkeys(("", "-", "nan", "NaN", "null", "None", "<NA>", "NaT"))
MAX_SHARES = 2**63 - 1
"""What an Int64 holds; a volume above it or infinite comes of a division by zero or a broken file."""


def text_of(values: pl.Series, name: str) -> pl.Series:
    """The values as text: without spaces around, full-width characters made plain, ="005930" unwrapped, blank
    and "-" (as the exchange writes no value) null.

    Raises:
        ValueError: a type that has no plain text, as a list or a pandas period.
    """
    dtype = values.dtype
    plain = dtype in (pl.String, pl.Null, pl.Boolean) or isinstance(dtype, pl.Categorical | pl.Enum)
    if not (plain or dtype.is_numeric() or dtype.is_temporal()):
        raise ValueError(
            f"column {name}: expected text or numbers, got the type {dtype}; convert it before it is "
            "saved (a pandas period with .to_timestamp())"
        )
    text = values.cast(pl.String).str.strip_chars()
    if text.str.contains(r"[^\x00-\x7f]").any():
        text = text.str.normalize("NFKC").str.strip_chars()
    if text.str.contains("=", literal=True).any():
        text = text.str.replace(_EXCEL_TEXT, "$1").str.strip_chars()
    return text.replace(_BLANK)


def per_value(values: pl.Series, read: Callable[[pl.Series], pl.DataFrame]) -> pl.DataFrame:
    """`read` of the different values, one row per value of the column."""
    keys = values.unique(maintain_order=True)
    if keys.len() * 4 > values.len():
        return read(values)
    return (
        values.to_frame("")
        .join(read(keys).with_columns(keys.alias("")), on="", how="left", nulls_equal=True, maintain_order="left")
        .drop("")
    )


def codes(values: pl.Series, rows: pl.Series, pad: bool = False) -> pl.Series:
    """Codes as six characters: "A005930", "005930.KS" and "KRX:005930" -> "005930".

    Raises:
        ValueError: no code in a row, or codes that lost their zeros and are not padded.
    """

    def read(different: pl.Series) -> pl.DataFrame:
        text = text_of(different, "code").str.replace(r"\.0$", "").str.replace(r"^'", "")
        text = text.str.replace(r"^(KRX|KOSPI|KOSDAQ|KS|KQ):", "").str.replace(r"\.K[SQ]$", "")
        return pl.DataFrame({"code": text.str.replace(r"^A([0-9A-Z]{6})$", "$1")})

    text = per_value(values, read)["code"]
    refuse(text.is_null(), values, rows, "code", "a code")
    refuse(
        text.str.contains(r"^KR[0-9A-Z]{10}$"),
        values,
        rows,
        "code",
        "a code of six characters (단축코드, ISU_SRT_CD), not an ISIN",
    )
    short = text.str.contains(r"^\d{1,5}$")
    if pad:
        return text.str.zfill(6)
    if short.any():
        example = text.filter(short)[0]
        raise ValueError(
            f"{text.filter(short).n_unique()} codes have lost their zeros, e.g. {example!r} in row "
            f"{rows.filter(short)[0]} (should be {example.zfill(6)!r}); read codes as text, or allow padding with "
            "--pad-codes"
        )
    return text


def days(values: pl.Series, rows: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    """Days in Korea, and the time of day as text where the column has one.

    Raises:
        ValueError: a day that is missing or cannot be read, or a time of another zone that may belong to another day.
    """
    if isinstance(values.dtype, pl.Datetime):
        refuse(values.is_null(), values, rows, "date", "a day")
        local = values.dt.convert_time_zone("Asia/Seoul") if values.dtype.time_zone else values
        times = local.dt.time()
        return local.dt.date().rename("date"), times.cast(pl.String) if times.n_unique() > 1 else None
    if values.dtype == pl.Date:
        refuse(values.is_null(), values, rows, "date", "a day")
        return values.rename("date"), None
    if values.dtype == pl.String and not (iso := values.str.to_date("%Y-%m-%d", strict=False)).null_count():
        return iso.rename("date"), None
    parts = per_value(values, _days_of_text)
    refuse(
        parts["other_zone"].fill_null(False),
        values,
        rows,
        "date",
        "a day in Korean time (a time of day in another zone may belong to another day)",
    )
    _refuse_excel_days(parts, values, rows)
    refuse(parts["date"].is_null(), values, rows, "date", "a day such as 20240102, 2024-01-02 or 2024/01/02")
    times = parts["time"]
    return parts["date"], times if times.null_count() < times.len() and times.n_unique() > 1 else None


def _refuse_excel_days(parts: pl.DataFrame, values: pl.Series, rows: pl.Series) -> None:
    """Excel's day numbers (45293) are named: which of its two calendars counts is not known here."""
    expected = "a day such as 2024-01-02, not Excel's number of one (give the column the format yyyy-mm-dd)"
    refuse(parts["excel"].fill_null(False), values, rows, "date", expected)


def _days_of_text(different: pl.Series) -> pl.DataFrame:
    """date, time (null if none), whether the zone may change the day, whether it is an Excel serial, per value."""
    text = text_of(different, "date")
    spelled = text.str.replace(_COMPACT_DAY, "${1}-${2}-${3}").str.replace(_COMPACT_TIME, "${1}-${2}-${3} ${4}:${5}")
    parts = spelled.str.extract_groups(_DAY).struct.unnest()
    month, monthday = (pl.col(part).str.zfill(2) for part in "23")
    day = parts.select(pl.concat_str(pl.col("1"), month, monthday, separator="-", ignore_nulls=False)).to_series()
    return pl.DataFrame(
        {
            "date": day.str.to_date("%Y-%m-%d", strict=False),
            "time": parts["4"].replace({"": None}),
            "other_zone": text.str.contains(_OTHER_ZONE) & ~text.str.contains(_SAME_DAY_IN_KOREA),
            "excel": text.str.contains(_EXCEL_DAY),
        }
    )


def decimal_of(texts: list[pl.Series], separator: str, given: Decimal | None = None) -> Decimal:
    """Which of point and comma starts the decimals in these columns of one file: what the values prove.

    "70,500" alone proves nothing; "1,234,567" or "70,500.5" proves thousands by comma, "70500,5" or "1.234.567"
    decimals by comma. Where nothing is proved the point is it, as in Korean files; a file separated by semicolons,
    as spreadsheets write it where the comma is the decimal sign, is refused instead of read a thousandfold wrong.

    Raises:
        ValueError: such a file.
    """
    if given is not None:
        return given
    if separator not in ";\t" and not any(text.str.contains(",", literal=True).any() for text in texts):
        return "point"
    every = pl.concat([text.drop_nulls() for text in texts]) if texts else pl.Series([], dtype=pl.String)
    marked = every.filter(every.str.contains("[.,]"))
    by_point = bool((marked.str.contains(_POINT)).all())
    if not by_point and (every.str.contains(_COMMA)).all():
        return "comma"
    commas, points = (marked.filter(marked.str.contains(mark, literal=True)) for mark in ",.")
    unproved = (
        separator == ";" and commas.len() and commas.str.contains(r"^[+-]?\d{1,3},\d{3}$").all() and not points.len()
    ) or (
        separator in ";\t"
        and points.len()
        and points.str.contains(r"^[+-]?[1-9]\d{0,2}\.\d{3}$").all()
        and not commas.len()
    )
    if separator and by_point and unproved:
        raise ValueError(
            f"cannot tell thousands from decimals in values as {marked[0]!r}: say --decimal point or "
            "--decimal comma (decimal='point' or 'comma')"
        )
    return "point"


def numbers_of(
    frame: pl.DataFrame, rows: pl.Series, separator: str = "", decimal: Decimal | None = None
) -> tuple[pl.DataFrame, Decimal]:
    """Columns of numbers, Int64 or Float64, and the decimal sign they were read with (`decimal_of`).

    "1,234" is a number (with decimal "comma": "1.234" and "1234,5"), blank and NaN are null.

    Args:
        frame: the columns under the names that messages use; a column `volume` must be finite.

    Raises:
        ValueError: a value that is neither a number nor blank; a volume that is infinite or above `MAX_SHARES`.
    """
    plain = frame.select(pl.col(pl.String).str.strip_chars().cast(pl.Float64, strict=False).fill_nan(None))
    usual = plain.width == frame.width and decimal is None and separator not in ";\t"
    if usual and sum(plain.null_count().row(0)) == sum(frame.null_count().row(0)):
        return _finite(plain, frame, rows), "point"
    texts = {column.name: text_of(column, column.name) for column in frame if not column.dtype.is_numeric()}
    sign = decimal_of(list(texts.values()), separator, decimal)
    columns = [_numbers(column, texts.get(column.name), rows, sign) for column in frame]
    return _finite(pl.DataFrame(columns), frame, rows), sign


def _numbers(values: pl.Series, text: pl.Series | None, rows: pl.Series, decimal: Decimal) -> pl.Series:
    """One column's numbers; `text` are its values as `text_of` gives them, None where they are numbers already."""
    if text is None:
        found = values.cast(pl.Int64 if values.dtype.is_integer() else pl.Float64, strict=False)
        refuse(found.is_null() & values.is_not_null(), values, rows, values.name, f"a number up to {MAX_SHARES}")
        return found
    found = text.cast(pl.Float64, strict=False)
    if decimal == "comma" or found.null_count() > text.null_count():
        found = _spelled(text, decimal)
    expected = 'a number such as 1234 or "1,234"' if decimal == "point" else 'a number such as 1234,5 or "1.234"'
    refuse(found.is_null() & text.is_not_null(), values, rows, values.name, expected)
    return found.fill_nan(None).alias(values.name)


def _finite(numbers: pl.DataFrame, frame: pl.DataFrame, rows: pl.Series) -> pl.DataFrame:
    """The numbers. Raises ValueError for a volume that no one can have traded."""
    if "volume" in numbers.columns and numbers["volume"].dtype == pl.Float64:
        beyond = ~numbers["volume"].is_between(-MAX_SHARES, MAX_SHARES)
        refuse(beyond & numbers["volume"].is_not_nan(), frame["volume"], rows, "volume", "a number of shares")
    return numbers


def _spelled(text: pl.Series, decimal: Decimal) -> pl.Series:
    """Float64 of numbers with signs between the thousands; null where the text is none."""
    thousands, pattern = (",", _POINT) if decimal == "point" else (".", _COMMA)
    frame = text.to_frame("text")
    bare = pl.col("text").str.replace_all(thousands, "", literal=True).str.replace(",", ".", literal=True)
    return frame.select(
        pl.when(pl.col("text").str.contains(pattern)).then(bare).otherwise(None).cast(pl.Float64, strict=False)
    ).to_series()


def refuse(bad: pl.Series, values: pl.Series, rows: pl.Series, name: str, expected: str) -> None:
    """Raise ValueError with the first row of the bad values, if there are any."""
    if bad.any():
        bad = bad.fill_null(False)
        example, row = values.filter(bad)[0], rows.filter(bad)[0]
        raise ValueError(f"row {row}, column {name}: expected {expected}, got {example!r} ({bad.sum()} such rows)")
