#!/usr/bin/env python
"""What a build costs as the market grows: seconds, peak memory and disk of made-up markets of several sizes.

    python experiments/growth.py --sizes 1000x2500 2000x2500 2000x5000 --json experiments/results/growth.json

A size is stocks x market days. Each is made, written as bars and listing, and built in a process of its own as a user
would build it: what is measured is that process. docs/scale.md extrapolates from its slopes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments._cli import run_script
from experiments._results import write_result


def main() -> None:
    """Measure every size; print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=size, nargs="+", default=[(500, 1250), (1000, 1250), (1000, 2500)])
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    args = parser.parse_args()
    rows = []
    for stocks, days in args.sizes:
        rows.append(measured(stocks, days))
        said = "{stocks:,} stocks x {days:,} days: {seconds:.0f} s, {peak_gb:.2f} GB, {disk_gb:.2f} GB on disk"
        print(said.format(**rows[-1]), flush=True)
    if args.json is not None:
        write_result(args.json, {"rows": rows}, seeds=[7])


def size(text: str) -> tuple[int, int]:
    """An argparse type: STOCKSxDAYS."""
    stocks, _, days = text.partition("x")
    if not (stocks.isdigit() and days.isdigit()):
        raise argparse.ArgumentTypeError(f"expected STOCKSxDAYS, for instance 1000x2500, got {text}")
    return int(stocks), int(days)


def measured(stocks: int, days: int) -> dict[str, Any]:
    """Rows of bars, and what the build of this size takes."""
    from lasps.data.sources.synthetic import make_market

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        market = make_market(seed=7, effect="sector", n_stocks=stocks, n_days=days)
        rows = market.panel.height
        columns = ["code", "date", "open", "high", "low", "close", "volume"]
        market.panel.select(columns).write_parquet(folder / "bars.parquet")
        market.listing.write_csv(folder / "listing.csv")
        del market
        script = Path(__file__).parent / "build_dataset.py"
        source = ["--source", folder / "bars.parquet", "--listing", folder / "listing.csv", "--fractions", ".7,.15"]
        command = [str(word) for word in (sys.executable, script, *source, "--data-dir", folder / "data")]
        start = time.perf_counter()
        build = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert build.stderr is not None
        said = build.stderr.read()
        _, status, used = os.wait4(build.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            raise ValueError(f"the build of {stocks} stocks x {days} days failed: {said.decode()[-1500:]}")
        disk = sum(path.stat().st_size for path in (folder / "data").rglob("*") if path.is_file())
    return {
        "stocks": stocks,
        "days": days,
        "rows": rows,
        "seconds": seconds,
        "peak_gb": used.ru_maxrss / 1e6,
        "disk_gb": disk / 1e9,
    }


if __name__ == "__main__":
    run_script(main)
