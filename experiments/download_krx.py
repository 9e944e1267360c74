#!/usr/bin/env python
"""Download the KRX listing and adjusted daily bars: make data SOURCE=krx START=2015-01-01

Interrupted or incomplete, the same command goes on. Needs the extra: pip install "lasps[krx]".
"""

from __future__ import annotations

import argparse
from pathlib import Path

from loguru import logger

from experiments._cli import EXIT_INTERRUPTED, names_in, run_script
from lasps.config.settings import settings

EXIT_INCOMPLETE = 1


def main() -> int:
    """Exit code 0: complete; 1: some stocks failed, the rest is kept; 130: interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="2015-01-01", metavar="DAY", help="first day (default 2015-01-01)")
    parser.add_argument("--end", default=None, metavar="DAY", help="last day (default: the last one over in Seoul)")
    parser.add_argument("--folder", type=Path, default=settings.RAW_DIR / "krx", help="where the files go")
    parser.add_argument("--codes", nargs="+", default=None, metavar="CODE", help="only these stocks")
    parser.add_argument("--markets", nargs="+", default=None, metavar="MARKET", help="default: all but KONEX")
    parser.add_argument("--pause", type=float, default=None, metavar="SECONDS", help="between two requests")
    args = parser.parse_args()
    from lasps.data.sources import krx

    given = {} if args.pause is None else {"pause_s": args.pause}
    markets = krx.MARKETS if args.markets is None else names_in(args.markets)
    try:
        result = krx.download(args.start, args.end, args.folder, codes=args.codes, markets=markets, **given)
    except KeyboardInterrupt:
        logger.warning("interrupted: what was fetched stays, the same command goes on")
        return EXIT_INTERRUPTED
    for line in result.summary().splitlines():
        (logger.info if result.ok else logger.warning)(line)
    if result.fetched or result.kept:
        logger.info(f"Saved: {result.folder / 'bars.parquet'} and {result.folder / 'listing.csv'}")
        logger.info(f"Next: make data SOURCE={result.folder / 'bars.parquet'} LISTING={result.folder / 'listing.csv'}")
    return 0 if result.ok else EXIT_INCOMPLETE


if __name__ == "__main__":
    run_script(main)
