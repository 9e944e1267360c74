"""A study in PostgreSQL: its storage, its locks, and what to do when the server goes away and comes back."""

from __future__ import annotations

import hashlib
import time
import weakref
from contextlib import suppress
from typing import Any

import optuna
from loguru import logger
from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from lasps.tracking.error_messages import chain_of, without_password

RESTART_SECONDS = 60.0
"""For a server that was reached before to come back, at each new connection."""
_reached: set[str] = set()


def is_server(storage: str) -> bool:
    """Whether it is a PostgreSQL server, whose locks cover workers on all machines."""
    return storage.startswith("postgresql")


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
    """Let new connections of `engine` try for RESTART_SECONDS, once this process has reached the server."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, _: object, args: list[Any], options: dict[str, Any]) -> Any:
        deadline = time.monotonic() + (RESTART_SECONDS if url in _reached else 0.0)
        while True:
            try:
                connection = dialect.connect(*args, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                if time.monotonic() > deadline:
                    raise
                logger.warning(f"{without_password(url)}: waiting for the database ({' '.join(str(error).split())})")
                time.sleep(1.0)
            else:
                _reached.add(url)
                return connection


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
