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
    parser.add_argument("--reason", default="", help="why; it is kept. A rollback needs one")
    parser.add_argument("--live-dir", type=Path, default=settings.ROOT / "live", help="the folder of make daily")
    parser.add_argument("--no-track", action="store_true", help="leave MLflow's registry as it is")
    args = parser.parse_args()
    if (args.model is None) != args.rollback:
        parser.error("expected a model to promote, or --rollback")
    if args.rollback and not args.reason.strip():
        parser.error('expected the reason of a rollback, --reason "..."; it is kept with the decision')
    from lasps.live.folder import LiveFolder

    live = LiveFolder(args.live_dir)
    with live.in_use():
        before = live.succession()
        after = live.rolled_back(args.reason) if args.rollback else live.promoted(args.model, args.reason or "by hand")
        live.write_succession(after)
    shadow = f"; in its shadow: {after.predecessor}" if after.predecessor else ""
    print(f"Champion from {after.since} on: {after.champion}{shadow}; before: {before.champion}")
    if not args.no_track:
        from lasps.live.registry import publish

        publish(live, decided=True)


if __name__ == "__main__":
    run_script(main)
