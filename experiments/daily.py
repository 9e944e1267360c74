#!/usr/bin/env python
"""One evening: refit if one is due, forecast every market day that is missing, score what has come due.

    python experiments/daily.py --recipe recipe.json --source bars.parquet --listing listing.csv
    python experiments/daily.py --checkpoint checkpoints/krx/ensemble.json --source bars.parquet --listing listing.csv

--source krx downloads what is new first. With --recipe (make freeze) the first evening trains a model on every label
that has ended, and every 60 market days another one takes over; with --checkpoint alone that model forecasts for ever.
Safe to repeat, to kill, and to miss: a day that is there already is not written again, a missed one is caught up in
order and marked late, and late days are not scored. A fatal finding of the integrity gate stops before anything is
written.
Exit codes: 0 done, 3 nothing new, 1 failed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from experiments._cli import (
    add_reading_flags,
    add_source_flags,
    add_waive_flag,
    names_in,
    part,
    positive_int,
    reading_of,
    resolve_device,
    run_script,
    source_files,
)
from lasps.config.settings import settings

if TYPE_CHECKING:
    from lasps.live.evening import EveningResult
    from lasps.live.folder import LiveFolder

NOTHING_NEW = 3


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=None, help="a .pt, several with commas, or an ensemble.json")
    parser.add_argument("--recipe", type=Path, default=None, help="of freeze.py: train again from it on a schedule")
    parser.add_argument("--refit-every", type=positive_int, default=60, help="market days between two refits")
    parser.add_argument("--train-fraction", type=part, default=1.0, help="of the rows of a refit, by a hash")
    add_source_flags(parser)
    parser.add_argument("--start", default="2015-01-01", metavar="DAY", help="with --source krx: its first day")
    parser.add_argument("--folder", type=Path, default=settings.RAW_DIR / "krx", help="with --source krx: its files")
    parser.add_argument("--live-dir", type=Path, default=settings.ROOT / "live", help="ledger, outcomes and models")
    parser.add_argument("--page", type=Path, default=settings.REPORT_DIR / "today.html", help="the page of the day")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    parser.add_argument("--no-track", action="store_true", help="leave MLflow's registry of models as it is")
    parser.add_argument("--device", default=None)
    add_reading_flags(parser)
    add_waive_flag(parser)
    return parser.parse_args()


def main() -> int:
    """Forecast, append, score, print."""
    args = parse_args()
    from lasps.data.sources.files import read_bars, read_listing
    from lasps.live.evening import Refits, run_evening
    from lasps.live.folder import LiveFolder
    from lasps.live.model import EveningModel
    from lasps.pipeline.recipe import Recipe
    from lasps.training.ensembles import open_model

    device, live = resolve_device(args.device), LiveFolder(args.live_dir)
    tracked = args.recipe is not None and not args.no_track and not args.dry_run
    if tracked:
        from lasps.live.registry import follow

        follow(live)
    source, listing = files_of(args)
    recipe = None if args.recipe is None else Recipe.read(args.recipe)
    result = run_evening(
        read_bars(source, **reading_of(args)),
        read_listing(listing, pad_codes=args.pad_codes),
        live,
        None if args.checkpoint is None else EveningModel.of(open_model(args.checkpoint, device)),
        None if recipe is None else Refits(recipe, args.refit_every, args.train_fraction),
        names_in(args.waive),
        args.dry_run,
        device,
    )
    for day in result.would_write:
        also = ", after a refit" if day in result.would_refit else ""
        print(f"{'Would write' if args.dry_run else 'Written'}: {day}{also}")
    if result.record is not None:
        report(result, live, args.page)
    if tracked:
        from lasps.live.registry import publish

        publish(live)
    return 0 if result.is_new else NOTHING_NEW


def files_of(args: argparse.Namespace) -> tuple[Path, Path]:
    """Bars and listing as named, or the synthetic market's; of `krx` those of its download, brought up to date first.

    Raises:
        ValueError: no listing, or a download that is incomplete: an evening without some stocks ranks the others wrong.
    """
    if str(args.source) != "krx":
        return source_files(args)
    from lasps.data.sources import krx

    result = krx.download(args.start, None, args.folder)
    if not result.ok:
        raise ValueError(f"the download from KRX is incomplete, nothing was forecast. Run it again\n{result.summary()}")
    return args.folder / "bars.parquet", args.folder / "listing.csv"


def report(result: EveningResult, live: LiveFolder, page: Path) -> None:
    """Print what the ledger is worth so far, and write the page of the day."""
    from lasps.live.model import CHAMPION
    from lasps.live.page import Today, write_today
    from lasps.live.scoring import alarm_state
    from lasps.live.screen import alarm_line, show_record

    assert result.record is not None
    state = alarm_state(result.record.forecasts, live.alarm())
    show_record(result.record)
    print(alarm_line(state))
    days = live.ledger.days()
    evening, before = live.ledger.read(days[-1]), live.ledger.read(days[-2]) if len(days) > 1 else None
    about = live.about(evening.versions[CHAMPION])
    today = Today(evening, before, result.panel, result.listing, result.record, result.report, about, state)
    print(f"Page: {write_today(today, page)[0]}")


if __name__ == "__main__":
    run_script(main, failed=1)
