#!/usr/bin/env python
"""Commands under trouble: killed at random moments, on a disk that fills, with a server that dies.

    python experiments/torture.py                       # 50 kills, 20 full disks, a server: tens of minutes
    python experiments/torture.py --kills 8 --disks 4   # a sample of it

Everything happens in a temporary folder, on a small synthetic market. Writes docs/reliability.md and a JSON.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from loguru import logger

from experiments._cli import run_script, write_json
from experiments.verification.commands import COMMANDS, Command, Workplace, prepared
from experiments.verification.server import dying_server
from lasps.config.settings import settings
from lasps.files import write_atomically
from lasps.reproducibility import git_commit

DOC = settings.ROOT / "docs" / "reliability.md"
RESULT = settings.ROOT / "experiments" / "results" / "torture.json"
MEANING = """\
Made by `make torture` (`experiments/torture.py`) on a small synthetic market; the numbers stand in
`experiments/results/torture.json`. Held means:

- kill -9 at a random moment of the command's run time: the same command given again (training with `--resume`) ends
  with results bit-equal to those of a run that was never stopped, and no temporary file, lock or folder is left.
- full disk: the command ends with one line of text or had room enough, everything that stood there is as it was,
  nothing is left behind, and with room again it ends with the same bits.
- dying server: the tracking server is killed while training and comes back; after `make sync` every metric of every
  step is there exactly once.""".splitlines()
SLACK = 1.05
"""A kill falls at random into this multiple of the time that the command took."""


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="moments of kill -9, spread over all commands")
    parser.add_argument("--disks", type=int, default=20, help="disks that fill at a random write")
    parser.add_argument("--no-server", action="store_true", help="leave out the server that dies and returns")
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS), metavar="NAME")
    parser.add_argument("--minutes", type=float, default=None, help="begin no further try after these")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--doc", type=Path, default=DOC)
    return parser.parse_args()


def main() -> int:
    """Exit code 0: everything held; 1: something did not, named in the document."""
    args = parse_args()
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        used = args.commands if args.no_server else [*args.commands, "train"]
        place = prepared(Path(folder).resolve(), used)
        tries = planned(args, place)
        for attempt in tries:
            minutes = (time.monotonic() - started) / 60
            if args.minutes and minutes > args.minutes:
                logger.warning(f"{len(rows)} of {len(tries)} tries made in {minutes:.0f} minutes: the rest is left out")
                break
            rows.append(attempt())
    content = {"seed": args.seed, "git_commit": git_commit(), "minutes": round((time.monotonic() - started) / 60, 1),
               "planned": len(tries), "rows": rows}
    write_json(args.json, content)
    write_atomically(args.doc, document(content))
    logger.info(f"Saved: {args.doc}, {args.json}")
    bad = [row for row in rows if row["wrong"]]
    for row in bad:
        logger.error(f"{row['trouble']} {row['command']}: {'; '.join(row['wrong'])}")
    return 1 if bad else 0


def planned(args: argparse.Namespace, place: Workplace) -> list[Callable[[], dict[str, Any]]]:
    """Every try that was asked for: kills, the server, full disks."""
    draw = random.Random(args.seed)
    kills = [partial(killed, place, COMMANDS[name], draw) for name in spread(args.commands, args.kills)]
    server = [] if args.no_server else [partial(dying_server, place)]
    disks = [partial(disk_full, place, COMMANDS[name], draw) for name in spread(args.commands, args.disks)]
    return [*kills, *server, *disks]


def spread(names: list[str], count: int) -> list[str]:
    """`count` names, each as often as the others."""
    return [names[i % len(names)] for i in range(count if names else 0)]


def killed(place: Workplace, command: Command, draw: random.Random) -> dict[str, Any]:
    """Kill -9 at a random moment, then the command again: the same bits as without, and nothing left behind."""
    expected, seconds = place.undisturbed(command)
    moment = draw.uniform(0, seconds * SLACK)
    place.restore(command)
    code = place.run(command, kill_after=moment).returncode
    again = place.run(command, again=True)
    wrong = [f"the repeat ended with {again.returncode}: {again.last_line}"] if again.returncode else []
    wrong += place.differences(command, expected) + place.leftovers()
    logger.info(f"kill -9 {command.name} after {moment:.1f} of {seconds:.1f} s (code {code}): {wrong or 'held'}")
    return {"trouble": "kill -9", "command": command.name, "share_of_run": round(moment / seconds, 2), "code": code,
            "wrong": wrong}


def disk_full(place: Workplace, command: Command, draw: random.Random) -> dict[str, Any]:
    """A disk with room for a random share of what the command writes: a clear end, nothing lost; then room."""
    expected, _ = place.undisturbed(command)
    share = draw.uniform(0.02, 0.9)
    before = place.restore(command)
    with place.little_room(command, share) as way:
        ended = place.run(command, file_limit=way)
        wrong = []
        if ended.returncode == 0:
            wrong += place.differences(command, expected)
        else:
            wrong += [f"ended with {ended.returncode}: {ended.last_line}"] if not ended.is_clear else []
            wrong += place.changed(before)
        wrong += place.leftovers()
    again = place.run(command, again=True)
    wrong += [f"the repeat ended with {again.returncode}: {again.last_line}"] if again.returncode else []
    wrong += place.differences(command, expected) + place.leftovers()
    logger.info(f"full disk {command.name} at {share:.2f} (code {ended.returncode}): {wrong or 'held'}")
    return {"trouble": "full disk", "command": command.name, "share_of_run": round(share, 2), "code": ended.returncode,
            "said": ended.last_line[:160], "wrong": wrong}


def document(content: dict[str, Any]) -> str:
    """docs/reliability.md: one row per trouble and command, and what did not hold."""
    rows = content["rows"]
    held = Counter((row["trouble"], row["command"]) for row in rows if not row["wrong"])
    tried = Counter((row["trouble"], row["command"]) for row in rows)
    table = [f"| {trouble} | {command} | {held[trouble, command]} of {count} |"
             for (trouble, command), count in sorted(tried.items())]
    bad = [f"- {row['trouble']}, {row['command']}: {'; '.join(row['wrong'])}" for row in rows if row["wrong"]]
    return "\n".join([
        "# Reliability", "",
        *MEANING, "",
        "| trouble | command | held |", "|---|---|---|", *table, "",
        f"{sum(tried.values())} of {content['planned']} planned tries in {content['minutes']:g} minutes, seed "
        f"{content['seed']}, commit {str(content['git_commit'])[:12]}.", "",
        *(["Did not hold:", "", *bad] if bad else ["Everything held."]), ""])


if __name__ == "__main__":
    run_script(main)
