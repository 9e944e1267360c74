"""The column names that files of Korean prices and listings are known to use, and how a table's columns are found."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

import polars as pl

from lasps.config.sectors import sector_of_industry
from lasps.data.panel import PRICES

Aliases = Mapping[str, tuple[str, ...]]

CODE = (
    "code",
    "종목코드",
    "단축코드",
    "티커",
    "코드",
    "ticker",
    "symbol",
    "stockcode",
    "isusrtcd",
    "srtncd",
    "stkcd",
    "shcode",
    "isucd",
)
BAR_NAMES: Aliases = {
    "code": CODE,
    "date": (
        "date",
        "날짜",
        "일자",
        "거래일",
        "거래일자",
        "기준일",
        "기준일자",
        "datetime",
        "timestamp",
        "trddd",
        "basdd",
        "basdt",
        "stckbsopdate",
        "dt",
        "localdate",
        "체결시간",
    ),
    "open": ("open", "시가", "tddopnprc", "mkp", "openpric", "stckoprc", "openprice"),
    "high": ("high", "고가", "tddhgprc", "hipr", "highpric", "stckhgpr", "highprice"),
    "low": ("low", "저가", "tddlwprc", "lopr", "lowpric", "stcklwpr", "lowprice"),
    "close": ("close", "종가", "현재가", "tddclsprc", "clpr", "closepric", "curprc", "stckclpr", "closeprice"),
    "volume": ("volume", "거래량", "acctrdvol", "trqu", "trdeqty", "acmlvol", "jdiffvol", "accumulatedtradingvolume"),
}
"""Ours -> theirs, the first that is there counts, in the form of `plain`: Yahoo and FinanceDataReader, pykrx, KRX,
data.go.kr, Kiwoom (Open API and REST), Korea Investment, LS, Naver."""

ADJUSTED_CLOSE = ("adjclose", "adjustedclose", "수정종가", "수정주가")
LISTING_NAMES: Aliases = {
    "code": CODE,
    "name": (
        "name",
        "종목명",
        "회사명",
        "한글종목약명",
        "한글종목명",
        "isuabbrv",
        "isunm",
        "itmsnm",
        "stknm",
        "hname",
        "companyname",
        "corpname",
    ),
    "market": ("market", "시장구분", "시장", "mkttpnm", "mktnm", "mrktctg", "marketname"),
    "industry": ("industry", "업종", "업종명", "sector", "섹터", "idxindnm", "upname"),
}
INDEX_NAMES = ("", "unnamed:0", "indexlevel0", "index", "level0", "unnamed:1")
"""What an unnamed pandas index is called in a file; it is the date where no column is and its values are days."""

_UNIT = r"\((원|주|krw|won|shares)\)$"
_AGAIN = r"(_duplicated_\d+|(?<=[^\d.])\.\d+)$"  # a name that stood twice, as polars and as pandas write the second


def plain(column: str) -> str:
    """A column name in small letters without spaces, underscores, asterisks and the units won and shares."""
    name = unicodedata.normalize("NFKC", re.sub(_AGAIN, "", column))
    return re.sub(_UNIT, "", re.sub(r"[\s_*\ufeff]+", "", name).lower())


def columns_of(table: pl.DataFrame, names: Aliases, optional: tuple[str, ...]) -> dict[str, str]:
    """Our names -> the table's; of several aliases the first counts.

    Raises:
        ValueError: missing columns, two that mean the same price or volume and differ, or two of one name that do.
    """
    known: dict[str, list[str]] = {}
    for column in table.columns:
        known.setdefault(plain(column), []).append(column)
    candidates = {ours: [c for alias in aliases for c in known.get(alias, ())] for ours, aliases in names.items()}
    missing = [ours for ours, theirs in candidates.items() if not theirs and ours not in optional]
    if missing:
        wanted = "; ".join(f"{ours} ({', '.join(names[ours][:5])}, ...)" for ours in missing)
        raise ValueError(f"missing columns, by any of these names: {wanted}; the file has {table.columns}")
    for ours, theirs in candidates.items():
        rivals = theirs if ours in (*PRICES, "volume") else [c for c in theirs if plain(c) == plain(theirs[0])]
        _refuse_two_answers(table, ours, rivals)
    return {ours: theirs[0] for ours, theirs in candidates.items() if theirs}


def _refuse_two_answers(table: pl.DataFrame, ours: str, candidates: list[str]) -> None:
    for other in candidates[1:]:
        if not table[candidates[0]].equals(table[other], null_equal=True):
            raise ValueError(f"the columns {candidates[0]!r} and {other!r} both mean {ours} and differ; take one away")


def adjusted_close(table: pl.DataFrame) -> str | None:
    """The column of an adjusted close, if there is one."""
    return next((column for name in ADJUSTED_CLOSE for column in table.columns if plain(column) == name), None)


def industry_column(table: pl.DataFrame, first: str) -> str:
    """Of several columns that may hold the industry, the one whose values the sector map knows best; else `first`.

    FinanceDataReader's listings have the industry in `Sector` and the products in `Industry`, others only one of them.
    """

    def known(column: str) -> int:
        values = table[column].cast(pl.String).str.strip_chars().drop_nulls()
        return sum(n for name, n in values.value_counts().rows() if sector_of_industry(name) is not None)

    candidates = [c for alias in LISTING_NAMES["industry"] for c in table.columns if plain(c) == alias]
    return max(candidates, key=known) if len(candidates) > 1 else first
