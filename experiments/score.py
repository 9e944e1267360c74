#!/usr/bin/env python
"""The ledger held to account: every forecast that has come due, beside the prior and whatever else was written down.

    python experiments/score.py --source bars.parquet --html reports/live.html

A day is due at its fifth market day. Late evenings are not scored; labels that have not ended (halts, delistings) are
counted, shown, and bounded as SELL. Both closes of a return are of the bars given here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments._cli import (
    add_reading_flags,
    add_source_flags,
    add_waive_flag,
    names_in,
    reading_of,
    run_script,
    write_json,
)
from lasps.config.settings import settings


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live-dir", type=Path, default=settings.ROOT / "live", help="the folder of make daily")
    add_source_flags(parser, listing=False)
    parser.add_argument("--simulation", action="store_true", help="the folder is one of walk_forward.py --evenings")
    parser.add_argument("--alarm", type=Path, default=None, help="of walk_forward.py; default: LIVE_DIR/alarm.json")
    parser.add_argument("--html", type=Path, default=None, metavar="FILE", help="write the comparison page")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the metrics")
    parser.add_argument("--full", action="store_true", help="print every pair, sector and class")
    add_reading_flags(parser)
    add_waive_flag(parser)
    return parser.parse_args()


def main() -> None:
    """Score, print, write."""
    args = parse_args()
    from lasps.data.panel import Panel
    from lasps.data.sources.files import read_bars
    from lasps.files import write_atomically
    from lasps.live.folder import LiveFolder
    from lasps.live.ledger import LEDGER, SIMULATION
    from lasps.live.outcomes import Pull
    from lasps.live.scoring import alarm_state, compared, track_record
    from lasps.live.screen import alarm_line, record_lines
    from lasps.pages.comparison import comparison_page
    from lasps.pages.comparison_text import show_comparison
    from lasps.pipeline.datasets import look_at, synthetic_source
    from lasps.terminal import show_lines

    live = LiveFolder(args.live_dir, SIMULATION if args.simulation else LEDGER)
    if not live.ledger.days():
        raise ValueError(f"{live.ledger.folder}: expected evenings of make daily, found none")
    waived = names_in(args.waive)
    source = synthetic_source(args.data_dir)[0] if args.source is None else args.source
    seen = look_at(read_bars(source, **reading_of(args)), None, waive=waived)
    seen.report.raise_if_fatal(waived)
    with live.in_use():
        record = track_record(live.ledger, live.outcomes, Pull(Panel(seen.selected())))
    if args.simulation:
        print("A simulation: these forecasts were made afterwards, over history")
    show_lines(record_lines(record))
    comparison = compared(record)
    if comparison is None:
        show_lines(["Nothing is scored yet: a day is due at its fifth market day"])
        return
    show_comparison(comparison, args.full)
    state = alarm_state(record.forecasts, live.alarm(args.alarm))
    show_lines([alarm_line(state)])
    write_json(args.json, record.as_json() | comparison.as_json())
    if args.html:
        write_atomically(args.html, comparison_page(comparison))


if __name__ == "__main__":
    run_script(main)
