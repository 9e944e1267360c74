"""What could not be sent lies here: `mlruns/spool/NAME/journal.jsonl`, with copies of the artifacts beside it.

A journal is the full list of a process's operations, written before they are sent. When all have been carried out the
journal goes; otherwise `make sync` repeats it from the start, which is harmless (see `lasps.tracking.writer`). Each
line carries its own checksum, and a line that a full disk cut short is taken back, so one bad line costs no other.
The folder is its user's alone, and addresses are kept without passwords.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lasps.tracking.environment import is_dead, process_tags
from lasps.tracking.store import Location
from lasps.tracking.writer import Operation

JOURNAL = "journal.jsonl"
LOCK = ".writer.lock"
SPOOL = "spool"
RECORD_START = b'{"do": "'
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


class Journal:
    """An append-only list of operations on disk; files that an operation needs are copied beside it."""

    def __init__(self, location: Location) -> None:
        name = f"{datetime.now():%Y%m%d-%H%M%S-%f}-{uuid.uuid4().hex[:6]}"  # in order of time, also within a second
        self.folder = location.folder / SPOOL / name
        self.count = 0
        self._whole = 0
        self._lock = FileLock(self.folder / LOCK)
        beside = location.database is not None and location.database.parent == location.folder.parent
        try:
            (self.folder / "files").mkdir(parents=True, mode=PRIVATE_FOLDER)
            self.folder.chmod(PRIVATE_FOLDER)
            self._lock.acquire(blocking=False)
            self._write({"uri": None if beside else location.bare_uri, "process": process_tags()})
        except OSError:
            self.delete()
            raise

    def append(self, operation: Operation) -> Operation:
        """Keep the operation; returns it with the paths of the copied files.

        Raises:
            OSError: the disk does not take it; nothing of it is left behind.
        """
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
        try:
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy2(source, target)
        except OSError:
            shutil.rmtree(target.parent, ignore_errors=True)
            raise
        return str(target.relative_to(self.folder))

    def _write(self, record: dict[str, Any]) -> None:
        line = line_of(record)
        descriptor = os.open(self.folder / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_FILE)
        try:
            if os.fstat(descriptor).st_size != self._whole:  # the rest of a line that could not be taken back at once
                os.ftruncate(descriptor, self._whole)
            write_whole(descriptor, line)
        except OSError:
            os.ftruncate(descriptor, self._whole)
            raise
        finally:
            os.close(descriptor)
        self._whole += len(line)

    def keep_only(self, operations: Iterable[Operation]) -> None:
        """Replace the list: all else has been carried out."""
        kept = [without_folder(operation, self.folder) for operation in operations]
        rewrite(self.folder, kept)
        self.count = len(kept)

    def close(self) -> None:
        """No more is written: `make sync` may send it."""
        self._lock.release()

    def delete(self) -> None:
        """Everything in it was carried out."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()


@dataclass
class Reading:
    """A journal as it lies on disk.

    Attributes:
        header: where it was meant for and who wrote it; None where its line cannot be read.
        operations: (line number from 1, operation) of all readable lines.
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


def record_of(line: bytes) -> dict[str, Any]:
    """The record of a line (one of an earlier version has no checksum).

    Raises:
        ValueError: it is damaged or cut short.
    """
    text, tab, checksum = line.partition(b"\t")
    if tab and f"{zlib.crc32(text):08x}".encode() != checksum:
        raise ValueError("its checksum is another one")
    record = json.loads(text)
    if not isinstance(record, dict) or not ("do" in record or "process" in record):
        raise ValueError("it is no record")
    return record


def read_journal(folder: Path) -> Reading:
    """Header, operations and unreadable lines; a whole record behind the rest of another on one line is found."""
    found = Reading()
    for number, line in enumerate((folder / JOURNAL).read_bytes().split(b"\n"), start=1):
        if not line.strip(b"\0 \r"):
            continue
        start = 0
        while True:
            try:
                _take(found, number, record_of(line[start:]))
                if start:
                    found.bad.append((number, "cut short", line[:start].decode(errors="replace")))
                break
            except ValueError as error:
                start = line.find(RECORD_START, start + 1)
                if start < 0:
                    found.bad.append((number, f"cannot be read: {error}", line.decode(errors="replace")))
                    break
    return with_lost_runs(found) if found.bad else found


def _take(found: Reading, number: int, record: dict[str, Any]) -> None:
    if "do" in record:
        found.operations.append((number, record))
    elif found.header is None:
        found.header = record


def with_lost_runs(found: Reading) -> Reading:
    """Before the rest, a run for each whose own record cannot be read, so that what is known of it is not lost."""
    operations = [operation for _, operation in found.operations]
    made = {operation["run"] for operation in operations if operation["do"] in ("create_run", "known_run")}
    spoken_of = {run for operation in operations for run in (operation.get("run"), operation.get("parent")) if run}
    experiment = next((operation["experiment"] for operation in operations if "experiment" in operation), "lasps")
    times = [row[2] for operation in operations for row in operation.get("metrics", ())]
    for run in sorted(spoken_of - made):
        found.operations.insert(
            0,
            (
                0,
                {
                    "do": "create_run",
                    "run": run,
                    "name": f"recovered_{run[:6]}",
                    "experiment": experiment,
                    "start": min(times, default=int(time.time() * 1000)),
                    "tags": {"lasps.recovered": "the record that made this run could not be read"},
                },
            ),
        )
    return found


def rewrite(folder: Path, operations: Sequence[Operation]) -> None:
    """Replace a journal's operations in one step; its header stays."""
    header = read_journal(folder).header
    temporary = folder / f".{JOURNAL}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    try:
        write_whole(descriptor, b"".join(line_of(record) for record in [*([header] if header else []), *operations]))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, folder / JOURNAL)


def write_whole(descriptor: int, data: bytes) -> None:
    """All of `data`, or an OSError: a disk that is nearly full takes a part and says nothing."""
    while data:
        data = data[os.write(descriptor, data) :]


def journals_in(spool: Path) -> list[Path]:
    """The folders of all journals, oldest first."""
    return sorted(folder for folder in spool.glob("*") if (folder / JOURNAL).exists())


def is_written(folder: Path, header: dict[str, Any] | None) -> bool:
    """Whether a living process still writes the journal: it holds the lock, which no kill leaves behind.

    A journal of an earlier version has no lock; there the process in its header decides.
    """
    if not (folder / LOCK).exists():
        process = (header or {}).get("process", {})
        return bool(process) and int(process["lasps.pid"]) != os.getpid() and _lives_here(process)
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def _lives_here(process: dict[str, str]) -> bool:
    return process.get("lasps.host") == process_tags()["lasps.host"] and not is_dead(process)


def with_paths(operation: Operation, folder: Path) -> Operation:
    """The operation with the files that a journal keeps named by their full paths."""
    return _with_files(operation, lambda file: str(folder / file))


def without_folder(operation: Operation, folder: Path) -> Operation:
    """The operation with its files named by their paths inside the journal's folder."""
    return _with_files(operation, lambda file: os.path.relpath(file, folder))


def _with_files(operation: Operation, named: Any) -> Operation:
    changed = dict(operation)
    if "path" in changed:
        changed["path"] = named(changed["path"])
    if "files" in changed:
        changed["files"] = [named(file) for file in changed["files"]]
    return changed
