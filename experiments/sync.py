#!/usr/bin/env python
"""Send to the tracking server what could not be sent while training; whatever fails stays where it lies."""

from __future__ import annotations

import argparse

from loguru import logger

from experiments._cli import run_script
from lasps import tracking


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", default=None, metavar="URI", help="another store than the one it was meant for, e.g. "
                        "sqlite:///mlflow.db for this repo's own")
    return parser.parse_args()


def main() -> int:
    """Replay every journal; the exit code is 1 if one of them could not be sent."""
    args = parse_args()
    replays = tracking.replay_all(uri=args.to)
    if not replays:
        logger.info("nothing to send")
    for replay in replays:
        if replay.error is None:
            logger.info(f"sent {replay.sent} records to {replay.uri}")
        else:
            logger.error(f"{replay.folder}: {replay.uri} does not take them ({replay.error}); nothing is lost, try "
                         "again later or send them elsewhere with --to")
    return int(any(replay.error for replay in replays))


if __name__ == "__main__":
    run_script(main)
