#!/usr/bin/env python
"""Look at market data before anything is trained on it: a table on the terminal, an HTML page with pictures.

python experiments/check_data.py --source bars.parquet --listing listing.csv
python experiments/check_data.py --data-dir data/processed --deep
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from loguru import logger

from experiments._cli import add_reading_flags, add_waive_flag, names_in, reading_of, run_script, write_json
from lasps.config.settings import settings


def main() -> None:
    """Exit code 0: no fatal finding but the waived ones; 2: fatal findings, no panel, or nothing to look at."""
    args = _arguments()
    args.waive = names_in(args.waive)
    from lasps.data import integrity

    integrity.validate_waivers(args.waive)
    if args.source is None and args.listing is not None:
        logger.warning("--listing is ignored without --source")
    if args.source is not None and args.deep:
        logger.warning("--deep is ignored with --source: it is about a finished dataset")
    report, failure = _check_source(args) if args.source else _check_dataset(args)
    report.waived = tuple(args.waive)
    print(integrity.as_text(report))
    write_json(args.json, report.to_dict())
    if args.suggest_repairs is not None:
        write_json(args.suggest_repairs, [repair for finding in report.sorted() for repair in finding.repairs])
        logger.info(f"Saved: {args.suggest_repairs} (choose from it, then --repairs FILE)")
    title = f"Data integrity: {(args.source or args.data_dir).name}"
    logger.info(f"Saved: {integrity.write_html(report, args.html, title)}")
    report.raise_if_fatal(args.waive)
    if failure is not None:
        raise failure


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=None, metavar="FILE", help="raw bars: parquet, CSV or a folder")
    parser.add_argument("--listing", type=Path, default=None, metavar="FILE", help="code, name, market, industry")
    add_reading_flags(parser)
    parser.add_argument("--data-dir", type=Path, default=settings.DATA_DIR, help="a finished dataset")
    add_waive_flag(parser)
    parser.add_argument(
        "--deep",
        action="store_true",
        help="read every byte of the dataset and compare it with the "
        "digests in dataset.json; opening it compares files above 16 MB by samples",
    )
    parser.add_argument("--repairs", type=Path, default=None, metavar="FILE", help="JSON list of repairs to apply")
    parser.add_argument("--suggest-repairs", type=Path, default=None, metavar="FILE", help="write them here")
    parser.add_argument("--html", type=Path, default=settings.REPORT_DIR / "integrity.html", metavar="FILE")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the findings here as well")
    return parser.parse_args()


def _check_source(args: argparse.Namespace) -> tuple[Any, ValueError | None]:
    """The report on raw bars, with the sectors of the panel they make; why they make none."""
    from lasps.data.sources import files
    from lasps.pipeline.datasets import look_at, repair

    raw, _ = repair(files.read_bars(args.source, **reading_of(args)), args.repairs)
    listing = files.read_listing(args.listing, pad_codes=args.pad_codes) if args.listing else None
    seen = look_at(raw, listing, waive=args.waive)
    return seen.report, seen.failure


def _check_dataset(args: argparse.Namespace) -> tuple[Any, ValueError | None]:
    from lasps.data import integrity
    from lasps.data.datasets.description import check_described

    check_described(args.data_dir)
    return integrity.check(dataset=args.data_dir, deep=args.deep), None


if __name__ == "__main__":
    run_script(main)
