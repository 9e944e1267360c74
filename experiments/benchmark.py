#!/usr/bin/env python
"""Measure the project against references that are in the repo too, asserted equal before anything is timed.

Usage:
    python experiments/benchmark.py heads
    python experiments/benchmark.py all --json benchmarks.json

Times depend on the machine and on what else runs there; the ratios less so.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from loguru import logger

from experiments._cli import run_script, write_json
from experiments._results import machine

NAMES = ("charts", "features", "build", "read", "train", "phase2", "heads", "settings", "tracking")
"""Modules of experiments/benchmarks with `run() -> rows of what, ours, reference, ratio, unit`."""


def main() -> None:
    """Run the benchmarks named on the command line and print one table each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=(*NAMES, "all"))
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the rows here too; all: by name")
    args = parser.parse_args()
    logger.disable("lasps")  # the tables are what is asked for
    found: dict[str, Any] = {}
    for name in NAMES if args.name == "all" else (args.name,):
        found[name] = importlib.import_module(f"experiments.benchmarks.{name}").run()
        print(table(name, found[name]), flush=True)
        write_json(args.json, {"machine": machine(), **found} if args.name == "all" else found[name])


def table(name: str, rows: list[dict[str, Any]]) -> str:
    """Rows as text, a missing reference as '-'."""
    width = max((len(row["what"]) for row in rows), default=0)
    lines = [f"\n{name}", f"{'':{width}}  {'ours':>12} {'reference':>12} {'ratio':>8}  unit"]
    for row in rows:
        cells = [_number(row.get(key)) for key in ("ours", "reference", "ratio")]
        lines.append(f"{row['what']:{width}}  {cells[0]:>12} {cells[1]:>12} {cells[2]:>8}  {row.get('unit', '')}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


if __name__ == "__main__":
    run_script(main)
