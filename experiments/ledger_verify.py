#!/usr/bin/env python
"""Check a ledger: every file against its own digest, every day against the one before, the last against HEAD.json.

python experiments/ledger_verify.py --live-dir live
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments._cli import run_script
from lasps.config.settings import settings


def main() -> None:
    """Verify; print what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live-dir", type=Path, default=settings.ROOT / "live", help="the folder of make daily")
    parser.add_argument("--simulation", action="store_true", help="the folder is one of walk_forward.py --evenings")
    args = parser.parse_args()
    from lasps.live.folder import LiveFolder
    from lasps.live.ledger import LEDGER, SIMULATION
    from lasps.live.screen import ledger_lines
    from lasps.terminal import show_lines

    live = LiveFolder(args.live_dir, SIMULATION if args.simulation else LEDGER)
    evenings = list(live.ledger.verified())
    if not evenings:
        raise ValueError(f"{live.ledger.folder}: expected evenings of make daily, found none")
    ended = live.outcomes.read().height
    show_lines([*ledger_lines(evenings), f"outcomes: {ended:,} labels have ended, every part can be read"])


if __name__ == "__main__":
    run_script(main)
