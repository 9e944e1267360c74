"""The report as a compact table for the terminal."""

from __future__ import annotations

import textwrap

from lasps.data.integrity.findings import Finding
from lasps.data.integrity.report import IntegrityReport

MARKS = {"fatal": "FATAL", "warning": "warn", "info": "info"}


def as_text(report: IntegrityReport, width: int = 100) -> str:
    """Findings first, the worst on top, with examples and advice; clean checks as one line at the end."""
    shown = [f for f in report.sorted() if f.count or f.severity != "info"]
    clean = [f.name for f in report.sorted() if not (f.count or f.severity != "info")]
    lines = [line for finding in shown for line in _finding(finding, report.waived, width)]
    if clean:
        lines += textwrap.wrap(f"clean  {', '.join(clean)}", width, subsequent_indent="       ")
    counts = report.to_dict()["counts"]
    lines.append(f"{counts['fatal']} fatal, {counts['warning']} warnings, {counts['info']} notes, {len(clean)} clean")
    return "\n".join(lines)


def _finding(finding: Finding, waived: tuple[str, ...], width: int) -> list[str]:
    mark = "waived" if finding.name in waived and finding.severity == "fatal" else MARKS[finding.severity]
    head = f"{mark:<6} {finding.name:<26} {finding.summary}"
    lines = textwrap.wrap(head, width, subsequent_indent=" " * 34)
    if finding.severity != "info":
        lines += textwrap.wrap(f"-> {finding.advice}", width, initial_indent=" " * 7, subsequent_indent=" " * 10)
        lines += [f"{' ' * 9}{' '.join(filter(None, example))}"[:width] for example in finding.examples]
    return lines
