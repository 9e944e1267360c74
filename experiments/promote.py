#!/usr/bin/env python
"""Make another model of the live folder champion, or go back to the one that the champion replaced.

    python experiments/promote.py 2016-03-02 --reason "the newest refit saw a wrong split"
    python experiments/promote.py --rollback --reason "..."

It holds from the next evening on; the decision and its reason stand in live/succession.json and in MLflow.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments._cli import run_script
from lasps.config.settings import settings


def main() -> None:
    """Decide, write, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=None, help="a folder of live/models: the evening it was trained on")
    parser.add_argument("--rollback", action="store_true", help="back to the model that the champion replaced")
    parser.add_argument("--reason", required=True, help="why; it is kept")
    parser.add_argument("--live-dir", type=Path, default=settings.ROOT / "live", help="the folder of make daily")
    parser.add_argument("--no-track", action="store_true", help="leave MLflow's registry as it is")
    args = parser.parse_args()
    if (args.model is None) != args.rollback:
        parser.error("expected a model to promote, or --rollback")
    from lasps.live.folder import LiveFolder
    from lasps.live.registry import as_promoted, publish

    live = LiveFolder(args.live_dir)
    before = live.succession()
    if args.rollback:
        after = before.rolled_back(live.next_evening(), args.reason)
    else:
        after = as_promoted(live, args.model, args.reason)
    live.write_succession(after)
    print(f"Champion from the next evening on: {after.champion}; before: {before.champion}")
    if not args.no_track:
        publish(live)


if __name__ == "__main__":
    run_script(main)
