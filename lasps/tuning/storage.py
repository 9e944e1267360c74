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
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from loguru import logger
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from lasps.config.settings import settings
from lasps.tracking.error_messages import chain_of, without_password

SQLITE_URL = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", re.DOTALL)
RESTART_SECONDS = 60.0
"""For a PostgreSQL server to come back, at each new connection of a study that runs."""
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


def is_server(storage: str) -> bool:
    """Whether it is a PostgreSQL server, whose locks cover workers on all machines."""
    return storage.startswith("postgresql")


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


def server_storage(url: str) -> optuna.storages.RDBStorage:
    """A study in PostgreSQL: connections are tested before use, and waited for while the server restarts.

    Its tables are made under a lock: several workers may be the first.
    """
    with ServerLock(url, "tables"):
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    wait_for_restarts(storage.engine, url)
    weakref.finalize(storage, storage.engine.dispose)
    return storage


def wait_for_restarts(engine: Engine, url: str) -> None:
    """Let every new connection of `engine` try for RESTART_SECONDS."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, _: object, args: list[Any], options: dict[str, Any]) -> Any:
        deadline = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                return dialect.connect(*args, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                if time.monotonic() > deadline or "authentication" in str(error) or "password" in str(error):
                    raise
                logger.warning(f"{without_password(url)}: waiting for the database ({' '.join(str(error).split())})")
                time.sleep(1.0)


class ServerLock:
    """A lock of PostgreSQL, which lets go of it when its holder is gone; can be taken again by the one that has it."""

    def __init__(self, url: str, name: str) -> None:
        self._engine = create_engine(url, poolclass=NullPool)
        wait_for_restarts(self._engine, url)
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        self._held: list[Connection] = []

    def __enter__(self) -> ServerLock:
        connection = self._held[-1] if self._held else self._engine.connect()
        if not self._held:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(select(func.pg_advisory_lock(self._key)))
        self._held.append(connection)
        return self

    def __exit__(self, *_: object) -> None:
        connection = self._held.pop()
        if not self._held:
            with suppress(DBAPIError):  # a server that died has let go of it
                connection.close()


def is_cut_off(error: BaseException) -> bool:
    """Whether a database's server went away while it was asked; the next question connects anew."""
    return any(isinstance(cause, DBAPIError) and cause.connection_invalidated for cause in chain_of(error))


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
