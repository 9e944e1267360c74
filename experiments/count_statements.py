#!/usr/bin/env python
"""The size of the code: Python statements of lasps, experiments and tests, by package, as ast counts them.

Formatting and comments do not change the numbers; a docstring counts as one statement.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from experiments._cli import run_script
from lasps.config.settings import settings

ROOTS = ("lasps", "experiments", "tests")


def statements(path: Path) -> int:
    """Statements in a file, nested ones included."""
    return sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def count(root: Path) -> Counter[str]:
    """Package -> statements, for the three roots in a checkout; a file beside packages counts for its folder."""
    counts: Counter[str] = Counter()
    for path in (path for name in ROOTS for path in (root / name).rglob("*.py")):
        counts["/".join(path.relative_to(root).parent.parts[:2])] += statements(path)
    return counts


def main() -> None:
    """Print one line per package, then the totals."""
    counts = count(settings.ROOT)
    totals = {root: sum(n for name, n in counts.items() if name.split("/")[0] == root) for root in ROOTS}
    for name, n in [*sorted(counts.items()), *((f"{root} in all", n) for root, n in totals.items())]:
        print(f"{n:7,}  {name}")
    print(f"{totals['lasps'] + totals['experiments']:7,}  lasps and experiments")


if __name__ == "__main__":
    run_script(main)
