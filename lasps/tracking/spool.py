"""Records that could not be sent: `mlruns/spool/NAME/journal.jsonl`, with copies of their files beside it.

A journal is the list of a process's operations, written before they are sent. It is deleted once all of them have been
carried out; otherwise `make sync` repeats it from the start, which adds nothing twice (see `lasps.tracking.writer`).
Each line carries a checksum, and a line that a full disk cut short is taken back, so one bad line costs no other. Only
its user can read the folder, and addresses are stored without passwords.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lasps.tracking.environment import process_tags
from lasps.tracking.location import Location
from lasps.tracking.writer import Operation

JOURNAL = "journal.jsonl"
LOCK = ".writer.lock"
SPOOL = "spool"
RECORD_START = re.compile(rb'\{"do": "')
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


class Journal:
    """An append-only list of operations on disk; files that an operation needs are copied beside it."""

    def __init__(self, location: Location) -> None:
        name = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{uuid.uuid4().hex[:6]}"  # in order of time, also within a second
        self.folder = location.folder / SPOOL / name
        self.count = 0
        self._length = 0
        self._lock = FileLock(self.folder / LOCK)
        is_own_store = location.database is not None and location.database.parent == location.folder.parent
        try:
            (self.folder / "files").mkdir(parents=True, mode=PRIVATE_FOLDER)
            self.folder.chmod(PRIVATE_FOLDER)
            self._lock.acquire(blocking=False)
            self._write({"uri": None if is_own_store else location.bare_uri, "process": process_tags()})
        except OSError:
            self.delete()
            raise

    def append(self, operation: Operation) -> Operation:
        """Write an operation; returns it with its files named by the paths of their copies, relative to the journal.

        Raises:
            OSError: the disk does not take it; nothing of it is left behind.
        """
        written = _with_files(operation, self._copy)
        self._write(written)
        self.count += 1
        return written

    def _copy(self, source: str) -> str:
        """Copy a file or folder under a folder of its own, so that it keeps its name."""
        target = self.folder / "files" / uuid.uuid4().hex[:8] / Path(source).name
        target.parent.mkdir()
        try:
            (shutil.copytree if Path(source).is_dir() else shutil.copy2)(source, target)
        except OSError:
            shutil.rmtree(target.parent, ignore_errors=True)
            raise
        return str(target.relative_to(self.folder))

    def _write(self, record: dict[str, Any]) -> None:
        line = line_of(record)
        descriptor = os.open(self.folder / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_FILE)
        try:
            os.ftruncate(descriptor, self._length)  # the rest of a line that could not be taken back at once
            _write_whole(descriptor, line)
        except OSError:
            os.ftruncate(descriptor, self._length)
            raise
        finally:
            os.close(descriptor)
        self._length += len(line)

    def keep_only(self, operations: Sequence[Operation]) -> None:
        """Replace the list: all other operations have been carried out."""
        rewrite(self.folder, operations)
        self.count = len(operations)

    def close(self) -> None:
        """Nothing more is written: `make sync` may send it."""
        self._lock.release()

    def delete(self) -> None:
        """Everything in it was carried out."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()


@dataclass
class Reading:
    """A journal as it lies on disk.

    Attributes:
        header: where it was meant to be sent and which process wrote it; None where its line cannot be read.
        operations: (line number from 1, operation) of all readable lines; number 0: a run that was lost, made again.
        bad: (line number, reason, the line) of the others.
    """

    header: dict[str, Any] | None = None
    operations: list[tuple[int, Operation]] = field(default_factory=list)
    bad: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Records, readable or not."""
        return sum(number > 0 for number, _ in self.operations) + len(self.bad)


def line_of(record: dict[str, Any]) -> bytes:
    """A record as a line: JSON, a tab, the CRC-32 of the JSON."""
    text = json.dumps(record).encode()
    return text + f"\t{zlib.crc32(text):08x}\n".encode()


def read_journal(folder: Path) -> Reading:
    """Header, operations and unreadable lines; a whole record behind the rest of another on one line is found."""
    found = Reading()
    for number, line in enumerate((folder / JOURNAL).read_bytes().split(b"\n"), start=1):
        if not line.strip(b"\0 \r"):
            continue
        reason = "cannot be read"
        for start in sorted({0, *(match.start() for match in RECORD_START.finditer(line))}):
            try:
                record = _record_of(line[start:])
            except ValueError as error:
                reason = f"cannot be read: {error}"
                continue
            if "do" in record:
                found.operations.append((number, record))
            else:
                found.header = found.header or record
            reason, line = "cut short", line[:start]
            break
        if line:
            found.bad.append((number, reason, line.decode(errors="replace")))
    if not (found.header or found.operations or found.bad):
        found.bad.append((1, "it is empty", ""))
    return _with_lost_runs(found) if found.bad else found


def _record_of(line: bytes) -> dict[str, Any]:
    """The record of a line (one without a checksum is of an earlier version); ValueError where it is damaged."""
    text, tab, checksum = line.partition(b"\t")
    if tab and f"{zlib.crc32(text):08x}".encode() != checksum:
        raise ValueError("its checksum does not match")
    record = json.loads(text)
    if not isinstance(record, dict) or not ("do" in record or "process" in record):
        raise ValueError("it is no record")
    return record


def _with_lost_runs(found: Reading) -> Reading:
    """A run for each whose own record cannot be read comes first, so that what is known of it is not lost."""
    operations = [operation for _, operation in found.operations]
    made = {operation["run"] for operation in operations if operation["do"] in ("create_run", "known_run")}
    mentioned = {run for operation in operations for run in (operation.get("run"), operation.get("parent")) if run}
    times = [row[2] for operation in operations for row in operation.get("metrics", ())]
    recovered = {
        "do": "create_run",
        "experiment": next((operation["experiment"] for operation in operations if "experiment" in operation), "lasps"),
        "start": min(times, default=int(time.time() * 1000)),
        "tags": {"lasps.recovered": "the record that made this run could not be read"},
    }
    lost = [(0, {**recovered, "run": run, "name": f"recovered_{run[:6]}"}) for run in sorted(mentioned - made)]
    found.operations = lost + found.operations
    return found


def rewrite(folder: Path, operations: Sequence[Operation]) -> None:
    """Replace a journal's operations in one step; its header stays."""
    header = read_journal(folder).header
    temporary = folder / f".{JOURNAL}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    try:
        _write_whole(descriptor, b"".join(line_of(record) for record in [*([header] if header else []), *operations]))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, folder / JOURNAL)


def _write_whole(descriptor: int, data: bytes) -> None:
    """All of `data`, or an OSError: a disk that is nearly full takes a part and says nothing."""
    while data:
        data = data[os.write(descriptor, data) :]


def journals_in(spool: Path) -> list[Path]:
    """The folders of all journals, oldest first."""
    return sorted(folder for folder in spool.glob("*") if (folder / JOURNAL).exists())


def is_being_written(folder: Path) -> bool:
    """Whether a living process still writes the journal: it holds the lock, which ends with its process."""
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def with_paths(operation: Operation, folder: Path) -> Operation:
    """The operation with the files that a journal keeps named by their full paths; a full path stays as it is."""
    return _with_files(operation, lambda file: str(folder / file))


def _with_files(operation: Operation, named: Callable[[str], str]) -> Operation:
    changed = dict(operation)
    if "path" in changed:
        changed["path"] = named(changed["path"])
    if "files" in changed:
        changed["files"] = [named(file) for file in changed["files"]]
    return changed
