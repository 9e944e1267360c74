"""Files that are whole or not there, temporaries that do not outlive their writer, and locks that say who holds them.

A temporary is named after the process that writes it and locked (flock) while it is written: the next writer of the
same name removes what a dead process left. The number alone would not do: another container has its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

Content = str | bytes | Callable[[BinaryIO], object]
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
NO_FLOCK = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


class InUseError(ValueError):
    """Another living process works in this folder."""


def write_atomically(path: str | Path, content: Content) -> Path:
    """Write a file in one step: whoever looks sees the old file or the whole new one, after a crash too.

    A temporary file in the same folder is written, synchronised to disk and renamed; an error removes it and leaves
    the old file. What a killed writer of the same file left behind is removed.

    Args:
        path: the file; its folder is made where it is missing.
        content: text, bytes, or a function that writes to the open binary file.

    Returns:
        The path.

    Raises:
        OSError: no room, no permission, a name that is too long ...; says what was to be written, and that nothing
            was changed.
    """
    path = Path(path)
    with told(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(path) as temporary:
            write_synced(temporary, content)
            os.replace(temporary, path)
        sync(path.parent)
    return path


@contextmanager
def told(path: Path, content: Content = b"") -> Iterator[None]:
    """Say of an OSError in the block what was to be written, how much room it needed, and what became of it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileWriteError):
            raise
        raise FileWriteError(error, path, None if callable(content) else len(content)) from error


class FileWriteError(OSError):
    """A file could not be written; the one that stood there is as it was."""

    def __init__(self, error: OSError, path: Path, size: int | None = None) -> None:
        super().__init__(error.errno, error.strerror)
        self.filename = str(path)
        room = f", needed {size:,} bytes" if size and error.errno in NO_ROOM else ""
        self._text = f"{path} was not written: {error.strerror or error}{room}; nothing was changed"

    def __str__(self) -> str:
        return self._text


def write_synced(path: Path, content: Content) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until everything below a folder is on the disk."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


# ------------------------------------------------------------------------------------------------ temporaries


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to and rename from; what is left of it is removed at the end.

    Temporaries of the same file that a dead process left are removed first.
    """
    sweep(path.parent, f".{path.name}.", ".tmp")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _flock(descriptor)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder `parent`/`prefix`PID-RANDOM, readable by its user alone, removed at the end with all that is in it.

    Folders of that prefix that a dead process left are removed first.
    """
    sweep(parent, prefix)
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"{prefix}{os.getpid()}-{os.urandom(4).hex()}"
    folder.mkdir(mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _flock(descriptor)
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: Path, prefix: str, suffix: str = "") -> None:
    """Remove files and folders `prefix`PID[-...]`suffix` in `folder` whose process is dead and that nobody locks."""
    try:
        entries = [entry for entry in os.scandir(folder) if entry.name.startswith(prefix)]
    except OSError:
        return
    for entry in entries:
        number = entry.name.removeprefix(prefix).removesuffix(suffix).partition("-")[0]
        if number.isdecimal() and entry.name.endswith(suffix) and not is_alive(int(number)) and _is_free(entry.path):
            with contextlib.suppress(OSError):
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _is_free(path: str) -> bool:
    """Whether nobody holds a lock on a file or folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return _flock(descriptor)
    finally:
        os.close(descriptor)


def _flock(descriptor: int) -> bool:
    """Take the lock of an open file; False where another has it. A file system without locks counts as free."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in NO_FLOCK
    return True


# ------------------------------------------------------------------------------------------------ locks


@contextmanager
def held(path: Path, what: str, advice: str) -> Iterator[None]:
    """Hold the lock file `path` for the block; it says who holds it, ends with its process, and goes with the block.

    Args:
        what: is in use, for the message; e.g. "checkpoints".
        advice: what else can be done.

    Raises:
        InUseError: a living process holds it; names its command, number, machine and start.
    """
    with told(path):
        descriptor = _taken(path, what, advice)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder()).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # only where nothing else is in it


def _taken(path: Path, what: str, advice: str) -> int:
    """The descriptor of the locked file `path`; tried again where its last holder has just removed it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # the last holder has just removed the folder
            continue
        if not _flock(descriptor):
            told_by = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            raise InUseError(f"{what} is in use by {_described(told_by)}. {advice}")
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)


def holder() -> dict[str, str | int]:
    """Who this process is, for the one that finds its lock."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {
        "command": command[:300],
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _described(content: bytes) -> str:
    try:
        who = json.loads(content)
        return f"'{who['command']}' (process {who['pid']} on {who['host']}, since {who['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
