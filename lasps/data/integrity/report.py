"""The report that holds all findings of one look at the data, and stops a build at fatal ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lasps.data.integrity.checks import CHECK_NAMES
from lasps.data.integrity.findings import Finding

_RANK = {"fatal": 0, "warning": 1, "info": 2}


class IntegrityError(ValueError):
    """Fatal findings that nobody waived."""


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


def validate_waivers(waived: Iterable[str]) -> tuple[str, ...]:
    """The waivers as a tuple. Raises ValueError for a name that no check has, listing the names."""
    if isinstance(waived, str):
        waived = (waived,)
    names = tuple(waived)
    unknown = [name for name in names if name not in CHECK_NAMES]
    if unknown:
        raise ValueError(f"no check is named {', '.join(unknown)}; the checks are: {', '.join(CHECK_NAMES)}")
    return names
