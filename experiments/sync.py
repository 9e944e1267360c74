#!/usr/bin/env python
"""Send to the tracking server what could not be sent while training; whatever fails stays where it lies.

python experiments/sync.py                        # all of it, where it was meant to go
python experiments/sync.py --list                 # what there is
python experiments/sync.py 20260301-101500-1a2b3c # one journal
python experiments/sync.py --to sqlite:///mlflow.db
"""

from __future__ import annotations

import argparse
from collections import Counter

from loguru import logger

from experiments._cli import run_script
from lasps import tracking
from lasps.tracking.error_messages import without_password


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journals", nargs="*", metavar="NAME", help="journals of mlruns/spool to send; default: all")
    parser.add_argument(
        "--to",
        default=None,
        metavar="URI",
        help="another store than the one it was meant for, e.g. sqlite:///mlflow.db for this repo's own",
    )
    parser.add_argument("--list", action="store_true", help="say what waits, send nothing")
    parser.add_argument("--dry-run", action="store_true", help="the same, with every record that cannot be read")
    return parser.parse_args()


def main() -> int:
    """Replay the journals; the exit code is 1 if anything could not be sent."""
    args = parse_args()
    if args.list or args.dry_run:
        return show(args)
    replays = tracking.replay_all(uri=args.to, only=args.journals)
    if not replays:
        logger.info("nothing to send")
    for replay in replays:
        say(replay)
    return int(any(replay.error or replay.set_aside for replay in replays))


def say(replay: tracking.Replay) -> None:
    """What became of one journal."""
    for reason in replay.set_aside:
        logger.error(f"{replay.folder.name}: {reason}")
    if replay.set_aside:
        logger.error(
            f"{replay.folder.name}: {len(replay.set_aside)} records cannot be sent, all of it is set aside in "
            f"{replay.folder.parent / 'set-aside' / replay.folder.name}"
        )
    if replay.error is None:
        logger.info(f"sent {replay.sent} records to {replay.uri}" if replay.uri else "sent nothing of it")
    else:
        logger.error(
            f"{replay.folder}: sent {replay.sent} of {replay.total} records"
            f"{f' to {replay.uri}' if replay.uri else ''} ({replay.error}); nothing is lost, try again later "
            "or send them elsewhere with --to"
        )


def show(args: argparse.Namespace) -> int:
    """One line per journal; the exit code is 1 where a record cannot be read and --dry-run asks for them."""
    found = tracking.spooled(only=args.journals)
    if not found:
        logger.info("nothing to send")
    for folder, reading in found:
        header = reading.header or {}
        kinds = Counter(operation["do"] for _, operation in reading.operations)
        place = without_password(args.to or header.get("uri") or "this repo's own store")
        print(
            f"{folder.name}  {reading.total} records ({', '.join(f'{n} {do}' for do, n in sorted(kinds.items()))}) "
            f"for {place}"
        )
        for number, reason, _ in reading.bad if args.dry_run else ():
            print(f"    line {number} {reason}")
    return int(args.dry_run and any(reading.bad for _, reading in found))


if __name__ == "__main__":
    run_script(main)
