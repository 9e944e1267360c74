"""What could not be sent lies here: `mlruns/spool/NAME/journal.jsonl`, with copies of the artifacts beside it.

A journal is the full list of a process's operations, written before they are sent. When all have been carried out the
journal goes; otherwise `make sync` repeats it from the start, which is harmless (see `lasps.tracking.writer`).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from loguru import logger

from lasps.tracking.environment import is_dead, process_tags
from lasps.tracking.store import Location, default_location, local_location, location_of, reason_of
from lasps.tracking.writer import Operation, Rejected, Writer

JOURNAL = "journal.jsonl"


class Journal:
    """An append-only list of operations on disk; files that an operation needs are copied beside it."""

    def __init__(self, location: Location) -> None:
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self.folder = location.folder / "spool" / name
        (self.folder / "files").mkdir(parents=True)
        beside = location.database is not None and location.database.parent == location.folder.parent
        header = {"uri": None if beside else location.uri, "process": process_tags()}
        self._write(header)
        self.count = 0

    def append(self, operation: Operation) -> Operation:
        """Keep the operation; returns it with the paths of the copied files."""
        kept = dict(operation)
        if "path" in kept:
            kept["path"] = self._keep(Path(kept["path"]))
        if "files" in kept:
            kept["files"] = [self._keep(Path(file)) for file in kept["files"]]
        self._write(kept)
        self.count += 1
        return with_paths(kept, self.folder)

    def _keep(self, source: Path) -> str:
        """Copy a file or folder under a folder of its own, so that it keeps its name; the path inside the journal."""
        target = self.folder / "files" / uuid.uuid4().hex[:8] / source.name
        target.parent.mkdir()
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)
        return str(target.relative_to(self.folder))

    def _write(self, record: dict[str, Any]) -> None:
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def delete(self) -> None:
        """Everything in it was carried out."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Replay:
    """What became of one journal."""

    folder: Path
    uri: str
    sent: int
    total: int
    error: str | None


def replay_all(root: Path | None = None, uri: str | None = None) -> list[Replay]:
    """Send every journal of this repo that no living process still writes.

    Args:
        root: the repo (default: this one).
        uri: a tracking URI to send to in place of the one that each journal was meant for.

    Returns:
        One record per journal; those without an error are gone from disk.
    """
    spool = default_location(root).folder / "spool"
    journals = sorted(folder for folder in spool.glob("*") if (folder / JOURNAL).exists())
    return [done for folder in journals if (done := _replay(folder, root, uri)) is not None]


def _replay(folder: Path, root: Path | None, uri: str | None) -> Replay | None:
    header, *operations = read_journal(folder)
    if _in_use(header["process"]):
        return None
    target = uri or header["uri"]
    location = location_of(target, root) if target else local_location(root)
    try:
        with FileLock(folder.parent / ".sync.lock", timeout=5):
            sent, error = _send_in_order(Writer(location, patient=True), folder, operations)
    except Timeout:
        return Replay(folder, location.shown_uri, 0, len(operations), "another sync is running")
    if error is None:
        shutil.rmtree(folder)
    return Replay(folder, location.shown_uri, sent, len(operations), error)


def _in_use(process: dict[str, str]) -> bool:
    """Whether another process of this machine still writes the journal."""
    here = process["lasps.host"] == socket.gethostname()
    return here and int(process["lasps.pid"]) != os.getpid() and not is_dead(process)


def _send_in_order(writer: Writer, folder: Path, operations: list[Operation]) -> tuple[int, str | None]:
    open_runs: dict[str, None] = {}
    sent = last = 0
    for operation in operations:
        try:
            writer.apply(with_paths(operation, folder))
        except Rejected as error:
            logger.warning(f"left out of {folder.name}: {error}")
        except Exception as error:  # whatever the server or the network says: the journal stays
            return sent, reason_of(error)
        sent += 1
        _follow(operation, open_runs)
        last = max(last, int(operation.get("start", 0)), int(operation.get("end", 0)))
    for run in open_runs:  # the process was killed: it never said how its runs ended
        writer.apply({"do": "end_run", "run": run, "status": "KILLED", "end": last})
    return sent, None


def _follow(operation: Operation, open_runs: dict[str, None]) -> None:
    if operation["do"] == "create_run":
        open_runs[operation["run"]] = None
    elif operation["do"] == "end_run":
        open_runs.pop(operation["run"], None)


def with_paths(operation: Operation, folder: Path) -> Operation:
    """The operation with the files that a journal keeps named by their full paths."""
    full = dict(operation)
    if "path" in full:
        full["path"] = str(folder / full["path"])
    if "files" in full:
        full["files"] = [str(folder / file) for file in full["files"]]
    return full


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """Header and operations of a journal; a last line that a crash cut short is left out."""
    records = []
    for line in (folder / JOURNAL).read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
