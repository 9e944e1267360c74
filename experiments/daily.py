#!/usr/bin/env python
"""One evening: forecast every market day that the ledger lacks, write it down, score what has come due.

    python experiments/daily.py --checkpoint checkpoints/krx/ensemble.json --source bars.parquet --listing listing.csv

Safe to repeat, to kill, and to miss: a day that is there already is not written again, a missed one is caught up in
order and marked late, and late days are not scored. A fatal finding of the integrity gate stops before anything is
written.
Exit codes: 0 done, 3 nothing new, 1 failed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments._cli import add_reading_flags, add_waive_flag, names_in, reading_of, resolve_device, run_script
from lasps.config import clock
from lasps.config.settings import settings

NOTHING_NEW = 3


def main() -> int:
    """Forecast, append, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="a .pt, several with commas, or an ensemble.json")
    parser.add_argument("--source", type=Path, required=True, help="bars: parquet, CSV or a folder of CSVs")
    parser.add_argument("--listing", type=Path, required=True, help="code, name, market, industry")
    parser.add_argument("--ledger", type=Path, default=settings.ROOT / "ledger")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    parser.add_argument("--device", default=None)
    add_reading_flags(parser)
    add_waive_flag(parser)
    args = parser.parse_args()
    from lasps.data.sources.files import read_bars, read_listing
    from lasps.live.evening import run_evening
    from lasps.live.ledger import Ledger
    from lasps.live.outcomes import Outcomes
    from lasps.training.ensembles import open_model

    result = run_evening(
        read_bars(args.source, **reading_of(args)),
        read_listing(args.listing, pad_codes=args.pad_codes),
        open_model(args.checkpoint, resolve_device(args.device)),
        Ledger(args.ledger / "forecasts"),
        Outcomes(args.ledger / "outcomes"),
        clock.now(),
        names_in(args.waive),
        args.dry_run,
    )
    for day in result.would_write:
        print(f"{'Would write' if args.dry_run else 'Written'}: {day}")
    if result.record is not None:
        from lasps.live.screen import show_record

        show_record(result.record)
    return 0 if result.is_new else NOTHING_NEW


if __name__ == "__main__":
    run_script(main, failed=1)
