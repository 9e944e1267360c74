"""Where a study lies: a journal in checkpoints/studies/, another file, or any Optuna storage URL; and its lock files.

A relative path is relative to the current folder. A journal that a full disk or a kill cut short is repaired before it
is used: what cannot be read is moved to a file beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from pathlib import Path

import optuna
from filelock import FileLock
from loguru import logger
from optuna.storages.journal import JournalFileBackend

from lasps.config.settings import settings
from lasps.tracking.error_messages import without_password
from lasps.tuning.postgres import ServerLock, is_server, server_storage

SQLITE_URL = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", re.DOTALL)
SQLITE_START = b"SQLite format 3\0"


def journal_path(name: str) -> Path:
    """The file of the study `name`, where no storage is given.

    Raises:
        ValueError: the name would lie in another folder.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise ValueError(f"expected a study's name without slashes or a leading dot (a file is named so), got {name!r}")
    return settings.CHECKPOINT_DIR / "studies" / f"{name}.journal"


def absolute(storage: str | None) -> str | None:
    """The storage with a relative path made absolute; URLs of servers stay as they are."""
    if storage is None:
        return None
    if found := SQLITE_URL.fullmatch(storage):
        return f"{found[1]}{Path(found[2]).absolute()}{found[3]}" if found[2] != ":memory:" else storage
    return storage if "://" in storage else str(Path(storage).absolute())


def file_of(name: str, storage: str | None) -> Path | None:
    """The file that the study lies in: a journal or a SQLite database; None for a server."""
    if storage is None:
        return journal_path(name)
    if found := SQLITE_URL.fullmatch(storage):
        return Path(found[2]).absolute() if found[2] != ":memory:" else None
    return None if "://" in storage else Path(storage).absolute()


def shown(name: str, storage: str | None) -> str:
    """The place without a password, for messages."""
    return str(file_of(name, None)) if storage is None else without_password(storage)


def conclusion_path(name: str, storage: str | None = None) -> Path:
    """The file of the study's conclusion: one per storage and study, beside the storage's own file, if it has one."""
    default = journal_path(name).with_suffix(".json")
    if storage is None:
        return default
    file = file_of(name, storage)
    if file is not None:
        return file.with_name(f"{file.stem}.{name}.json")
    digest = hashlib.sha256(without_password(storage).encode()).hexdigest()[:8]
    return default.with_name(f"{name}.{digest}.json")


def study_lock(name: str, storage: str | None, purpose: str) -> FileLock | ServerLock:
    """A lock that all workers of a study share: in PostgreSQL, or else on this machine, beside its conclusion.

    Args:
        purpose: "start": held while a study and its run are created, or joined; "claim": held from asking for a trial
            until its owner is recorded.
    """
    if storage is not None and is_server(storage):
        return ServerLock(storage, f"{name}.{purpose}")
    beside = conclusion_path(name, storage)
    beside.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(beside.with_suffix(f".{purpose}.lock"))


class KernelLock:
    """A journal's lock that the kernel lets go of when its holder is killed (Optuna's own waits 30 s then)."""

    def __init__(self, path: str) -> None:
        self._lock = FileLock(f"{path}.lock")

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Let it go."""
        self._lock.release()


def storage_of(name: str, storage: str | None) -> optuna.storages.BaseStorage | str:
    """The journal of the study, mended; or of a path; or any Optuna storage URL as it is.

    Raises:
        ValueError: the file is of another kind.
    """
    if storage is not None and is_server(storage):
        return server_storage(storage)
    if storage is not None and "://" in storage:
        return storage
    path = file_of(name, storage)
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    mend(path)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=KernelLock(str(path))))  # type: ignore[arg-type]


def mend(path: Path) -> None:
    """Cut a journal back to the last whole line before the first damaged one; the rest goes to a file beside it.

    The lines after a damaged one number trials by their order, so they cannot be used without that line.

    Raises:
        ValueError: it is no journal; nothing was changed.
    """
    if not path.exists() or not path.stat().st_size or not os.access(path, os.W_OK):
        return
    with FileLock(f"{path}.lock"):
        content = path.read_bytes()
        whole = whole_part(content)
        if whole == len(content):
            return
        check_kind(path, content, whole)
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        aside.write_bytes(content[whole:])
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
    left, lost = content[:whole].count(b"\n"), max(content[whole:].count(b"\n") - 1, 0)
    after = f" ({lost} more behind it)" if lost else ""
    logger.warning(
        f"{path}: line {left + 1} is cut short or damaged{after}: the study goes on with the {left} lines "
        f"before it, the rest is kept in {aside.name}"
    )


def whole_part(content: bytes) -> int:
    """The length of the part whose every line is whole and an operation of Optuna's journal."""
    length = 0
    for line in content.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n") or "op_code" not in json.loads(line):
                break
        except (ValueError, TypeError):
            break
        length += len(line)
    return length


def check_kind(path: Path, content: bytes, whole: int) -> None:
    """Raise ValueError for a file that is no journal at all."""
    if content.startswith(SQLITE_START):
        raise ValueError(f"{path} is a SQLite database, not a journal: pass --storage sqlite:///{path}")
    if not whole and not content.startswith(b'{"'):
        raise ValueError(
            f"expected an Optuna journal in {path}, found something else (starts with {content[:20]!r}): "
            "pass another --storage"
        )
