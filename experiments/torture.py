#!/usr/bin/env python
"""Commands under trouble: killed at random moments, on a disk that fills, with a server that dies.

    python experiments/torture.py                       # 50 kills, 20 full disks, a server: tens of minutes
    python experiments/torture.py --kills 8 --disks 4   # a sample of it
    python experiments/torture.py --minutes 10          # as much of it as begins in ten minutes

Everything happens in a temporary folder, on a small synthetic market, prepared once; each process has one thread, and
two tries run side by side. Writes docs/reliability.md and a JSON.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from loguru import logger

from experiments._cli import positive_int, run_script
from experiments._results import RESULTS, read_result, write_result
from experiments.verification.commands import COMMANDS, Command, Workplace, prepared
from experiments.verification.server import dying_server
from lasps.config.settings import settings
from lasps.files import write_atomically

DOC = settings.ROOT / "docs" / "reliability.md"
RESULT = RESULTS / "torture.json"
MEANING = """\
Made by `make torture` (`experiments/torture.py`) on a small synthetic market; the numbers stand in
`experiments/results/torture.json`. Held means:

- kill -9 at a random moment of the command's run time: the same command given again (training with `--resume`) ends
  with results bit-equal to those of a run that was never stopped, and no temporary file, lock or folder is left. Of
  `tune` the best values, their log losses and the difference are compared (a killed trial is begun again under another
  number, and its study keeps its lock files).
- full disk: the command ends with one line of text or had room enough, everything that stood there is as it was,
  nothing is left behind, and with room again it ends with the same bits.
- dying server: the tracking server is killed while training and comes back; after `make sync` every metric of every
  step is there exactly once.

Hit counts the tries in which the trouble came before the command's end: the others were killed too late, or had room
enough.""".splitlines()
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
    parser.add_argument(
        "--work",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="keep the prepared market, dataset and checkpoints there, and use them again",
    )
    parser.add_argument("--workers", type=positive_int, default=2, help="tries side by side")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--doc", type=Path, default=DOC)
    return parser.parse_args()


def main() -> int:
    """Exit code 0: everything held; 1: something did not, named in the document."""
    args = parse_args()
    started = time.monotonic()
    tries = planned(args)
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        root = Path(folder).resolve()
        place = prepared((args.work or root / "0").resolve(), {*args.commands, *([] if args.no_server else ["train"])})
        places = [place, *(place.beside(root / str(i)) for i in range(1, args.workers))]
        made([partial(Workplace.undisturbed, command=COMMANDS[name]) for name in args.commands], places)
        place.remember()
        logger.info(
            f"prepared in {time.monotonic() - started:.0f} s: "
            + ", ".join(f"{name} {seconds:.0f} s" for name, (_, seconds) in place.known.items())
        )
        rows = made(tries, places, None if args.minutes is None else started + 60 * args.minutes)
    content = {
        "workers": args.workers,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "planned": len(tries),
        "seconds_undisturbed": {k: round(v, 1) for k, (_, v) in place.known.items()},
        "rows": rows,
    }
    write_result(args.json, content, seeds=[args.seed])
    write_atomically(args.doc, document(read_result(args.json)))
    logger.info(f"Saved: {args.doc}, {args.json}")
    bad = [row for row in rows if row["wrong"]]
    for row in bad:
        logger.error(f"{row['trouble']} {row['command']}: {'; '.join(row['wrong'])}")
    return 1 if bad else 0


Try = Callable[[Workplace], dict[str, Any]]


def planned(args: argparse.Namespace) -> list[Try]:
    """Every try that was asked for: the server, then kills and full disks mixed evenly, so that a run that is cut short
    has seen some of each; what is random about them is drawn here.
    """
    draw = random.Random(args.seed)
    kills = [
        ((i + 0.5) / args.kills, partial(killed, command=COMMANDS[name], share=draw.uniform(0, SLACK)))
        for i, name in enumerate(spread(args.commands, args.kills))
    ]
    disks = [
        ((i + 0.5) / args.disks, partial(disk_full, command=COMMANDS[name], share=draw.uniform(0.02, 0.9)))
        for i, name in enumerate(spread(args.commands, args.disks))
    ]
    mixed = [attempt for _, attempt in sorted([*kills, *disks], key=lambda pair: pair[0])]
    server = [] if args.no_server else [partial(guarded, dying_server, "train")]
    return [*server, *(partial(guarded, attempt, attempt.keywords["command"].name) for attempt in mixed)]


def made(tries: list[Callable[[Workplace], Any]], places: list[Workplace], deadline: float | None = None) -> list[Any]:
    """What came of the tries, as many at once as there are places; none begins after the deadline (monotonic s)."""
    free: SimpleQueue[Workplace] = SimpleQueue()
    for place in places:
        free.put(place)

    def one(attempt: Callable[[Workplace], Any]) -> Any:
        if deadline is not None and time.monotonic() > deadline:
            return None
        place = free.get()
        try:
            return attempt(place)
        finally:
            free.put(place)

    with ThreadPoolExecutor(len(places)) as pool:
        rows = [row for row in pool.map(one, tries) if row is not None]
    if len(rows) < len(tries):
        logger.warning(f"{len(rows)} of {len(tries)} tries were begun in time: the rest is left out")
    return rows


def spread(names: list[str], count: int) -> list[str]:
    """`count` names, each as often as the others."""
    return [names[i % len(names)] for i in range(count if names else 0)]


def guarded(trouble: Try, command: str, place: Workplace) -> dict[str, Any]:
    """The try's row; where the try itself could not be made, a row that says so: the others go on."""
    try:
        return trouble(place)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        logger.error(f"{command}: the try could not be made: {error}")
        return {"trouble": "not made", "command": command, "code": None, "wrong": [f"could not be made: {error}"[:500]]}


def killed(place: Workplace, command: Command, share: float) -> dict[str, Any]:
    """Kill -9 at a moment of the run time, then the command again: the same bits as without, nothing left behind."""
    expected, seconds = place.undisturbed(command)
    moment = share * seconds
    place.restore(command)
    code = place.run(command, kill_after=moment).returncode
    again = place.run(command, again=True)
    wrong = [f"the repeat ended with {again.returncode}: {again.last_line}"] if again.returncode else []
    wrong += place.differences(command, expected) + place.leftovers(command.keeps)
    logger.info(f"kill -9 {command.name} after {moment:.1f} of {seconds:.1f} s (code {code}): {wrong or 'held'}")
    return {
        "trouble": "kill -9",
        "command": command.name,
        "share_of_run": round(share, 2),
        "code": code,
        "wrong": wrong,
    }


def disk_full(place: Workplace, command: Command, share: float) -> dict[str, Any]:
    """A disk with room for a share of what the command writes: a clear end, nothing lost; then room."""
    expected, _ = place.undisturbed(command)
    before = place.restore(command)
    with place.little_room(command, share) as way:
        ended = place.run(command, file_limit=way)
        wrong = []
        if ended.returncode == 0:
            wrong += place.differences(command, expected)
        else:
            wrong += [f"ended with {ended.returncode}: {ended.last_line}"] if not ended.is_clear else []
            wrong += place.changed(before)
        wrong += place.leftovers(command.keeps)
    again = place.run(command, again=True)
    wrong += [f"the repeat ended with {again.returncode}: {again.last_line}"] if again.returncode else []
    wrong += place.differences(command, expected) + place.leftovers(command.keeps)
    logger.info(f"full disk {command.name} at {share:.2f} (code {ended.returncode}): {wrong or 'held'}")
    return {
        "trouble": "full disk",
        "command": command.name,
        "share_of_run": round(share, 2),
        "code": ended.returncode,
        "said": ended.last_line[:160],
        "wrong": wrong,
    }


def document(written: dict[str, Any]) -> str:
    """docs/reliability.md: one row per trouble and command, and what did not hold."""
    content = written["result"]
    rows = content["rows"]
    held, tried, hit = (
        Counter((row["trouble"], row["command"]) for row in rows if counts(row))
        for counts in (lambda row: not row["wrong"], lambda row: True, lambda row: row.get("code") != 0)
    )
    table = [
        f"| {trouble} | {command} | {held[trouble, command]} of {count} | {hit[trouble, command]} |"
        for (trouble, command), count in sorted(tried.items())
    ]
    bad = [f"- {row['trouble']}, {row['command']}: {'; '.join(row['wrong'])}" for row in rows if row["wrong"]]
    return "\n".join(
        [
            "# Reliability",
            "",
            *MEANING,
            "",
            "| trouble | command | held | hit |",
            "|---|---|---|---|",
            *table,
            "",
            f"{sum(tried.values())} of {content['planned']} planned tries in {content['minutes']:g} minutes, "
            f"{content['workers']} side by side on {written['machine']['cores']} cores; `{written['command']}`, commit "
            f"{str(written['commit'])[:12]}, {written['made']}.",
            "",
            *(["Did not hold:", "", *bad] if bad else ["Everything held."]),
            "",
        ]
    )


if __name__ == "__main__":
    run_script(main)
