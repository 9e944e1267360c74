"""`make sync`: send the journals of the spool, record by record; nothing goes that the store has not confirmed.

A record that cannot be read, or that MLflow refuses for what it says, is set aside with its reason. A file that the
store does not take waits for the next time, and so does everything for a server that does not answer: it is asked
once, not once per journal.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout
from loguru import logger

from lasps.tracking.reasons import reason_of, whole_story
from lasps.tracking.spool import (
    JOURNAL,
    SPOOL,
    Reading,
    is_written,
    journals_in,
    read_journal,
    rewrite,
    with_paths,
)
from lasps.tracking.store import Location, default_location, local_location, location_of
from lasps.tracking.writer import Operation, Rejected, Unstored, Writer

SET_ASIDE = "set-aside"
REASONS = "reasons.txt"
PROGRESS_SECONDS = 5.0
OTHER_SYNC_SECONDS = 2.0


@dataclass(frozen=True)
class Replay:
    """What became of one journal.

    Attributes:
        folder: where it was.
        uri: where it was sent, without a password.
        sent, total: records.
        error: why it stays where it is, in whole or in part; None: it is gone.
        set_aside: "line N: reason" of each record that can never be sent; they lie in spool/set-aside/NAME.
    """

    folder: Path
    uri: str
    sent: int
    total: int
    error: str | None
    set_aside: tuple[str, ...] = ()


def spooled(root: Path | None = None, only: Collection[str] = ()) -> list[tuple[Path, Reading]]:
    """The journals of this repo and what is in them; `only` those of these names.

    Raises:
        ValueError: there is no journal of such a name.
    """
    folders = journals_in(default_location(root).folder / SPOOL)
    unknown = sorted(set(only) - {folder.name for folder in folders})
    if unknown:
        raise ValueError(f"expected journals among {[folder.name for folder in folders]}, got {unknown}")
    return [(folder, read_journal(folder)) for folder in folders if not only or folder.name in only]


def replay_all(root: Path | None = None, uri: str | None = None, only: Collection[str] = ()) -> list[Replay]:
    """Send every journal of this repo that no living process still writes; one sync at a time.

    Args:
        root: the repo (default: this one).
        uri: a tracking URI to send to in place of the one that each journal was meant for.
        only: names of journals, if not all.

    Returns:
        One record per journal; those without an error are gone from disk.
    """
    spool = default_location(root).folder / SPOOL
    if not spooled(root, only):
        return []
    try:
        with FileLock(spool / ".sync.lock", timeout=OTHER_SYNC_SECONDS):
            targets: dict[str, Target] = {}
            return [
                done
                for folder, reading in spooled(root, only)
                if (done := _replay(folder, reading, targets, root, uri)) is not None
            ]
    except Timeout:
        return [Replay(spool, "", 0, 0, "another sync is running; it sends them")]


class Target:
    """A store that journals are sent to, and whether it answers."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.writer = Writer(location)
        self.trouble: str | None = None
        logger.info(f"asking {location.shown_uri} ...")
        try:
            self.writer.client.search_experiments(max_results=1)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """It does not answer: nothing more is tried."""
        self.trouble = self.location.hide(reason_of(error))
        logger.debug(whole_story(error, self.location.uri))


def target_of(reading: Reading, root: Path | None, uri: str | None) -> Location:
    """Where a journal goes; the password, which no journal holds, is that of MLFLOW_TRACKING_URI."""
    wanted = uri or (reading.header or {}).get("uri")
    here = default_location(root)
    if wanted in (here.uri, here.bare_uri):
        return here
    return location_of(wanted, root) if wanted else local_location(root)


def _replay(
    folder: Path, reading: Reading, targets: dict[str, Target], root: Path | None, uri: str | None
) -> Replay | None:
    if is_written(folder, reading.header):
        logger.info(f"{folder.name}: a living process still writes it, left alone")
        return None
    if not reading.operations:
        reasons = _reasons(reading.bad) or (() if reading.header else ("it is empty",))
        return _finish(Replay(folder, "", 0, reading.total, None, reasons), [], [])
    if reading.header is None and uri is None:
        return Replay(
            folder,
            "",
            0,
            reading.total,
            "its first line, which says where it goes, cannot be read: name the place with --to",
        )
    location = target_of(reading, root, uri)
    if location.uri not in targets:
        targets[location.uri] = Target(location)
    target = targets[location.uri]
    if target.trouble is not None:
        return Replay(folder, location.shown_uri, 0, reading.total, target.trouble)
    logger.info(f"{folder.name}: {reading.total} records to {location.shown_uri}")
    return Sending(folder, reading, target).run()


@dataclass
class Sending:
    """One journal on its way."""

    folder: Path
    reading: Reading
    target: Target
    sent: int = 0
    waiting: list[Operation] = field(default_factory=list)
    reason: str | None = None
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    open_runs: dict[str, None] = field(default_factory=dict)

    def run(self) -> Replay:
        """Send record by record; close the runs of a process that never said how they ended."""
        said, last = time.monotonic(), 0
        for number, operation in self.reading.operations:
            if not self._send(number, operation):
                return Replay(self.folder, self.target.location.shown_uri, self.sent, self.reading.total, self.reason)
            last = max(last, int(operation.get("start", 0)), int(operation.get("end", 0)))
            if time.monotonic() - said > PROGRESS_SECONDS:
                said = time.monotonic()
                logger.info(f"{self.folder.name}: {self.sent} of {self.reading.total} records sent")
        for run in list(self.open_runs):
            if not self._send(0, {"do": "end_run", "run": run, "status": "KILLED", "end": last}):
                return Replay(self.folder, self.target.location.shown_uri, self.sent, self.reading.total, self.reason)
        bad = sorted([*self.reading.bad, *self.refused])
        found = Replay(
            self.folder, self.target.location.shown_uri, self.sent, self.reading.total, self.reason, _reasons(bad)
        )
        known = [
            {"do": "known_run", "run": run, "run_id": self.target.writer.run_ids[run]}
            for run in sorted({operation["run"] for operation in self.waiting})
        ]
        return _finish(found, [*known, *self.waiting], bad)

    def _send(self, number: int, operation: Operation) -> bool:
        """Send one record; False where the store does not answer any more, or does not make the run."""
        try:
            self.target.writer.apply(with_paths(operation, self.folder))
        except Rejected as error:
            self.refused.append((number, str(error), str(operation)))
            return True
        except Unstored as error:
            self._wait(operation, f"a file cannot be stored: {reason_of(error)}")
            return True
        except Exception as error:
            self._wait(operation, reason_of(error))
            if not self.target.writer.answers():
                self.target.fail(error)
                return False
            return bool(operation["do"] != "create_run")
        self.sent += bool(number)
        if operation["do"] == "create_run":
            self.open_runs[operation["run"]] = None
        elif operation["do"] == "end_run":
            self.open_runs.pop(operation["run"], None)
        return True

    def _wait(self, operation: Operation, reason: str) -> None:
        self.waiting.append(operation)
        self.reason = self.reason or self.target.location.hide(reason)


def _reasons(bad: list[tuple[int, str, str]]) -> tuple[str, ...]:
    return tuple(f"line {number}: {reason}" for number, reason, _ in bad)


def _finish(found: Replay, waiting: list[Operation], bad: list[tuple[int, str, str]]) -> Replay:
    """Set the journal aside where some of it can never be sent; keep what waits; remove what is done."""
    if found.set_aside:
        aside = found.folder.parent / SET_ASIDE / found.folder.name
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(found.folder, aside, copy_function=_linked)
        lines = [f"{reason}\n    {text}" for reason, (_, _, text) in zip(found.set_aside, bad, strict=False)]
        (aside / REASONS).write_text("\n".join(lines or found.set_aside) + "\n", encoding="utf-8")
        os.chmod(aside / REASONS, 0o600)
    if waiting:
        rewrite(found.folder, waiting)
    else:
        (found.folder / JOURNAL).unlink()  # first: what a kill leaves behind is then no journal
        shutil.rmtree(found.folder)
    return found


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
