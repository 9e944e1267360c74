"""`make sync`: send the journals of the spool, record by record; nothing is deleted that the store has not confirmed.

A record that cannot be read, or that MLflow refuses for what it says, is set aside with its reason. A file that the
store does not accept waits for the next time, and so does everything for a server that does not answer: it is asked
once, not once per journal.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from loguru import logger

from lasps.tracking.error_messages import reason_of, whole_story
from lasps.tracking.location import Location, default_location, local_location, location_of
from lasps.tracking.spool import (
    JOURNAL,
    PRIVATE_FILE,
    SPOOL,
    Reading,
    is_being_written,
    journals_in,
    read_journal,
    rewrite,
    with_paths,
)
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
        error: why it stays where it is, in whole or in part; None: it is deleted.
        set_aside: "line N: reason" of each record that can never be sent; they lie in spool/set-aside/NAME.
    """

    folder: Path
    uri: str
    sent: int
    total: int
    error: str | None
    set_aside: tuple[str, ...] = ()


def spooled(root: Path | None = None, only: Collection[str] = ()) -> list[tuple[Path, Reading]]:
    """The journals of this repository and what is in them; `only` those of these names.

    Raises:
        ValueError: there is no journal of such a name.
    """
    folders = journals_in(default_location(root).folder / SPOOL)
    unknown = sorted(set(only) - {folder.name for folder in folders})
    if unknown:
        raise ValueError(f"expected journals among {[folder.name for folder in folders]}, got {unknown}")
    return [(folder, read_journal(folder)) for folder in folders if not only or folder.name in only]


def replay_all(root: Path | None = None, uri: str | None = None, only: Collection[str] = ()) -> list[Replay]:
    """Send every journal of this repository that no living process still writes; one sync at a time.

    Args:
        root: the repository (default: this one).
        uri: a tracking URI to send to in place of the one that each journal was meant for.
        only: names of journals, if not all.

    Returns:
        One record per journal; those without an error are deleted.
    """
    spool = default_location(root).folder / SPOOL
    if not spooled(root, only):
        return []
    targets: dict[str, Target] = {}
    try:
        with FileLock(spool / ".sync.lock", timeout=OTHER_SYNC_SECONDS):
            done = [_replay(folder, reading, targets, root, uri) for folder, reading in spooled(root, only)]
    except Timeout:
        return [Replay(spool, "", 0, 0, "another sync is running; it sends them")]
    return [replay for replay in done if replay is not None]


class Target:
    """A store that journals are sent to.

    Attributes:
        trouble: why it does not answer: nothing more is tried; None while it does.
    """

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
        """It does not answer."""
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
    """Send one journal; None where it is still being written."""
    if is_being_written(folder):
        logger.info(f"{folder.name}: a living process still writes it, left alone")
        return None
    if not reading.operations:
        return Replay(folder, "", 0, reading.total, None, _finish(folder, reading.bad, []))
    if reading.header is None and uri is None:
        error = "its first line, which says where it goes, cannot be read: name the place with --to"
        return Replay(folder, "", 0, reading.total, error)
    location = target_of(reading, root, uri)
    if location.uri not in targets:
        targets[location.uri] = Target(location)
    target = targets[location.uri]
    if target.trouble is not None:
        return Replay(folder, location.shown_uri, 0, reading.total, target.trouble)
    logger.info(f"{folder.name}: {reading.total} records to {location.shown_uri}")
    return Sending(folder, reading, target).run()


class Sending:
    """One journal on its way to its target."""

    def __init__(self, folder: Path, reading: Reading, target: Target) -> None:
        self.folder, self.reading, self.target = folder, reading, target
        self.sent = 0
        self.reason: str | None = None
        self.waiting: list[Operation] = []
        self.bad = list(reading.bad)
        self.open_runs: dict[str, None] = {}

    def run(self) -> Replay:
        """Send record by record, then close the runs whose process died before it recorded how they ended."""
        aside: tuple[str, ...] = ()
        if self._send_all():
            known = self.target.writer.known_runs(self.waiting)
            aside = _finish(self.folder, sorted(self.bad), [*known, *self.waiting])
        return Replay(self.folder, self.target.location.shown_uri, self.sent, self.reading.total, self.reason, aside)

    def _send_all(self) -> bool:
        """Whether every record was sent, refused or has to wait: the store has answered until the end."""
        reported, last = time.monotonic(), 0
        for number, operation in self.reading.operations:
            if not self._send(number, operation):
                return False
            last = max(last, int(operation.get("start", 0)), int(operation.get("end", 0)))
            if time.monotonic() - reported > PROGRESS_SECONDS:
                reported = time.monotonic()
                logger.info(f"{self.folder.name}: {self.sent} of {self.reading.total} records sent")
        ends = [{"do": "end_run", "run": run, "status": "KILLED", "end": last} for run in self.open_runs]
        return all(self._send(0, operation) for operation in ends)

    def _send(self, number: int, operation: Operation) -> bool:
        """Send one record; False where the store no longer answers, or does not make the run."""
        try:
            self.target.writer.apply(with_paths(operation, self.folder))
        except Rejected as error:
            self.bad.append((number, str(error), str(operation)))
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


def _finish(folder: Path, bad: list[tuple[int, str, str]], waiting: list[Operation]) -> tuple[str, ...]:
    """Copy a journal to set-aside where some of it can never be sent; keep what waits; else delete it.

    Returns:
        The reasons, "line N: reason".
    """
    reasons = tuple(f"line {number}: {reason}" for number, reason, _ in bad)
    if bad:
        aside = folder.parent / SET_ASIDE / folder.name
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(folder, aside, copy_function=_linked)
        lines = [f"{reason}\n    {text}\n" for reason, (_, _, text) in zip(reasons, bad, strict=True)]
        (aside / REASONS).write_text("".join(lines), encoding="utf-8")
        (aside / REASONS).chmod(PRIVATE_FILE)
    if waiting:
        rewrite(folder, waiting)
    else:
        (folder / JOURNAL).unlink()  # first: what a kill leaves behind is then no journal
        shutil.rmtree(folder)
    return reasons


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
