"""What a check returns, and the report that holds all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

Severity = Literal["fatal", "warning", "info"]
Example = tuple[str, str, str]
"""(code, ISO date, what was seen); an empty string where a part does not apply."""

MAX_EXAMPLES = 5
MAX_REPAIRS = 1000
"""So many repairs are suggested; who needs more should pull the data again."""
_RANK = {"fatal": 0, "warning": 1, "info": 2}


class IntegrityError(ValueError):
    """Fatal findings that nobody waived."""


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
            "name": self.name, "severity": self.severity, "count": self.count, "n_checked": self.n_checked,
            "summary": self.summary, "advice": self.advice, "examples": [list(e) for e in self.examples],
            "table": [dict(row) for row in self.table], "repairs": [dict(r) for r in self.repairs],
        }  # fmt: skip


def found(
    name: str, hits: pl.DataFrame, n_checked: int, *, severity: Severity, summary: str, advice: str = "",
    **more: Any,
) -> Finding:  # fmt: skip
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
    """A repair mask_day for each hit, the first MAX_REPAIRS of them."""
    rows = hits.head(MAX_REPAIRS).iter_rows(named=True)
    return tuple({"repair": "mask_day", "code": r["code"], "date": str(r["date"])} for r in rows)


def hits_without_date(lines: list[tuple[Any, ...]]) -> pl.DataFrame:
    """Hits that have no date from (code, detail, ...) tuples, in their order."""
    pairs = [line[:2] for line in lines]
    schema = {"code": pl.String, "detail": pl.String}
    return pl.DataFrame(pairs, schema=schema, orient="row").with_columns(date=pl.lit(None, pl.Date))


@dataclass
class IntegrityReport:
    """All findings of one look at the data, and what the pictures of the HTML page are drawn from."""

    findings: list[Finding]
    figures: dict[str, Any] = field(default_factory=dict)
    waived: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Finding:
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(f"no finding named {name!r}; this report has {', '.join(f.name for f in self.findings)}")

    @property
    def fatal(self) -> list[Finding]:
        """Fatal findings, the waived ones included."""
        return [f for f in self.findings if f.severity == "fatal"]

    def sorted(self) -> list[Finding]:
        """Fatal first, then warnings, then what was found but is normal, then what is clean."""
        return sorted(self.findings, key=lambda f: (_RANK[f.severity], f.count == 0))

    def raise_if_fatal(self, waived: Iterable[str] = ()) -> None:
        """Stop here unless every fatal finding is waived by its name.

        Raises:
            ValueError: a waiver that names no check.
            IntegrityError: (a ValueError) fatal findings that are not waived, each with what to do.
        """
        waived = validate_waivers(waived)
        self.waived = tuple(dict.fromkeys((*self.waived, *waived)))
        stop = [f for f in self.fatal if f.name not in self.waived]
        if not stop:
            return
        lines = [f"{len(stop)} fatal finding(s) in the data:"]
        for finding in stop:
            first = f" First: {' '.join(filter(None, finding.examples[0]))}." if finding.examples else ""
            lines.append(f"  {finding.name}: {finding.summary} {finding.advice}{first}")
        names = " ".join(f.name for f in stop)
        lines.append(f"Repair the data, or accept it knowingly by waiving the check by name: {names}")
        raise IntegrityError("\n".join(lines))

    def to_dict(self) -> dict[str, Any]:
        """For dataset.json: every finding, the waivers, and how many of each severity. Plain JSON types."""
        counts = {s: sum(f.severity == s and f.count > 0 for f in self.findings) for s in _RANK}
        return {"counts": counts, "waived": list(self.waived), "findings": [f.to_dict() for f in self.findings]}

    def text(self, width: int = 110) -> str:
        """A compact table for the terminal; see `text_report.render`."""
        from lasps.data.integrity.text_report import render

        return render(self, width)

    def write_html(self, path: str | Path, title: str = "Data integrity") -> Path:
        """Write the report with its pictures as one self-contained HTML file, atomically."""
        from lasps.data.integrity.html_report import write_html

        return write_html(self, path, title)


def validate_waivers(waived: Iterable[str]) -> tuple[str, ...]:
    """The waivers as a tuple. Raises ValueError for a name that no check has, listing the names."""
    from lasps.data.integrity import CHECK_NAMES

    if isinstance(waived, str):
        waived = (waived,)
    names = tuple(waived)
    unknown = [name for name in names if name not in CHECK_NAMES]
    if unknown:
        raise ValueError(f"no check is named {', '.join(unknown)}; the checks are: {', '.join(CHECK_NAMES)}")
    return names


def percent(count: int, total: int) -> str:
    """'12 of 3,400 (0.35 %)'."""
    share = 100 * count / total if total else 0.0
    return f"{count:,} of {total:,} ({f'{share:.2g}' if share < 99.5 else f'{share:.0f}'} %)"


def plural(n: int, one: str, many: str = "") -> str:
    """'1 stock', '3 stocks'."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
