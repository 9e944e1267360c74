"""The SQLite file of a local store: made whole or not at all, and what to say of one that cannot be opened.

MLflow makes its tables in place, in seconds and not in one transaction: a stop in between leaves a file that neither
MLflow nor `mlflow db upgrade` can use. So it is made under another name; one left half-made by others is set aside.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from loguru import logger

from lasps.tracking.reasons import reason_of

MAKING = ".making-"
SETTLED_SECONDS = 10.0
"""A database that was written to less than this ago may still be in the making, by a plain `mlflow ui` say."""
OF_USERS = ("runs", "registered_models", "trace_info", "logged_models")
"""Tables that are empty in a store that nobody has used yet."""


class StoreError(ValueError):
    """The store cannot be opened; the message says why and what to do."""


def make_database(database: Path, artifacts: Path) -> None:
    """Make MLflow's tables in a file of another name, which then takes its place; the caller holds the lock.

    Raises:
        StoreError: the folder or disk does not take it.
    """
    for left in database.parent.glob(f".{database.name}{MAKING}*"):
        left.unlink(missing_ok=True)
    making = database.with_name(f".{database.name}{MAKING}{os.getpid()}")
    try:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store = SqlAlchemyStore(f"sqlite:///{making}", str(artifacts))
        store.engine.dispose()
        if database.exists() and database.stat().st_size == 0:
            os.replace(making, database)
        else:
            with suppress(FileExistsError):  # another program was faster
                os.link(making, database)
    except Exception as error:
        raise StoreError(f"{database} cannot be made: {reason_of(error)}") from error
    finally:
        for left in database.parent.glob(f"{making.name}*"):
            left.unlink(missing_ok=True)


def is_missing(database: Path) -> bool:
    """Whether there is nothing in it yet (a file of no bytes included)."""
    return not database.exists() or database.stat().st_size == 0


def check_readable(database: Path) -> None:
    """Raise StoreError for a file that is no SQLite database or may not be written."""
    with database.open("rb") as file:
        start = file.read(16)
    if start != b"SQLite format 3\0":
        raise StoreError(f"expected MLflow's SQLite database in {database}, found a file of another kind (starts with "
                         f"{start!r}). Move it away, or put back a copy of it; then 'make sync' sends what was kept")
    if not os.access(database, os.W_OK) or not os.access(database.parent, os.W_OK):
        raise StoreError(f"{database} may not be written by this user (its folder must be writable, too): give the "
                         "rights back, or name another store in MLFLOW_TRACKING_URI")


def is_unused(database: Path) -> bool:
    """Whether no run, model or trace is in it: no table of the kind, or empty ones."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return not any(connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()[0]
                       for table in OF_USERS if table in known)


def set_aside_if_half_made(database: Path, error: Exception) -> None:
    """After MLflow could not open it: move a database that nobody has used yet out of the way; the caller makes anew.

    Raises:
        StoreError: it holds runs, so it is left as it is; the message has the way out.
    """
    try:
        while (wait := database.stat().st_mtime + SETTLED_SECONDS - time.time()) > 0:
            time.sleep(min(wait, 1.0))
        unused = is_unused(database)
    except (sqlite3.Error, OSError) as trouble:
        raise StoreError(f"{database} is damaged ({reason_of(trouble)}): put back a copy of it, or rescue what can be "
                         f"read with: sqlite3 {database} .recover | sqlite3 rescued.db. Then 'make sync'") from error
    if not unused:
        raise StoreError(told(database, error)) from error
    aside = database.with_name(f"{database.name}.half-made-{time.strftime('%Y%m%d-%H%M%S')}")
    os.replace(database, aside)
    logger.warning(f"{database.name} was left half-made and holds no run: it is now {aside.name}, a new one is made")


def told(database: Path, error: Exception) -> str:
    """What is wrong with a database that holds runs but cannot be opened."""
    import mlflow

    text = str(error)
    if "Can't locate revision" in text:
        return (f"{database} was written by a newer MLflow than the {mlflow.__version__} here: use that version, or "
                f"name another store in MLFLOW_TRACKING_URI")
    if "out-of-date database schema" in text:
        return (f"{database} was written by an older MLflow than the {mlflow.__version__} here: copy the file, then "
                f"say: mlflow db upgrade sqlite:///{database}")
    return (f"{database} holds runs but MLflow {mlflow.__version__} cannot open it: {reason_of(error)}. Put back a "
            "copy of it, or move it away and go on with a new one; 'make sync' sends what was kept")
