"""What a check returns, and how it is put together from a table of hits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

Severity = Literal["fatal", "warning", "info"]
Example = tuple[str, str, str]
"""(code, ISO date, what was seen); an empty string where a part does not apply."""

MAX_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: `count` of `n_checked` things were found, `examples` are the worst of them."""

    name: str
    severity: Severity
    count: int
    n_checked: int
    summary: str
    advice: str = ""
    examples: tuple[Example, ...] = ()
    table: tuple[dict[str, Any], ...] = ()
    repairs: tuple[dict[str, Any], ...] = ()
    """Repairs to choose from, in the form that `repairs.apply_repairs` reads; never applied on their own."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "name": self.name,
            "severity": self.severity,
            "count": self.count,
            "n_checked": self.n_checked,
            "summary": self.summary,
            "advice": self.advice,
            "examples": [list(e) for e in self.examples],
            "table": [dict(row) for row in self.table],
            "repairs": [dict(r) for r in self.repairs],
        }


def found(
    name: str,
    hits: pl.DataFrame,
    n_checked: int,
    *,
    severity: Severity,
    summary: str,
    advice: str = "",
    **more: Any,
) -> Finding:
    """A Finding from a frame of hits with the columns code, date and detail, the worst first.

    No hit at all is an info finding with count 0, whatever the severity.
    """
    if hits.height == 0:
        return Finding(name, "info", 0, n_checked, "nothing found", table=more.get("table", ()))
    examples = tuple(
        (str(row["code"]), "" if row["date"] is None else str(row["date"]), str(row["detail"]))
        for row in hits.head(MAX_EXAMPLES).iter_rows(named=True)
    )
    return Finding(name, severity, hits.height, n_checked, summary, advice, examples, **more)


def mask_days(hits: pl.DataFrame) -> tuple[dict[str, Any], ...]:
    """A repair mask_day for each hit: all of them, so that what is repaired is repaired."""
    rows = hits.iter_rows(named=True)
    return tuple({"repair": "mask_day", "code": r["code"], "date": str(r["date"])} for r in rows)


def hits_without_date(lines: list[tuple[Any, ...]]) -> pl.DataFrame:
    """Hits that have no date from (code, detail, ...) tuples, in their order."""
    pairs = [line[:2] for line in lines]
    schema = {"code": pl.String, "detail": pl.String}
    return pl.DataFrame(pairs, schema=schema, orient="row").with_columns(date=pl.lit(None, pl.Date))


def percent(count: int, total: int) -> str:
    """'12 of 3,400 (0.35 %)'."""
    share = 100 * count / total if total else 0.0
    return f"{count:,} of {total:,} ({f'{share:.2g}' if share < 99.5 else f'{share:.0f}'} %)"


def plural(n: int, one: str, many: str = "") -> str:
    """'1 stock', '3 stocks'."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
