"""The SQLite file of a local store: made whole or not at all, and what to say of one that cannot be opened.

MLflow makes its tables in place, in seconds and not in one transaction: a stop in between leaves a file that neither
MLflow nor `mlflow db upgrade` can use. So it is made under another name; one left half-made by others is set aside.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from loguru import logger

from lasps.tracking.error_messages import reason_of

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
    try:
        with making(database) as new:
            open_store(new, artifacts)
            if database.exists() and database.stat().st_size == 0:
                os.replace(new, database)
            else:
                with suppress(FileExistsError):  # another program was faster
                    os.link(new, database)
    except Exception as error:
        raise StoreError(f"{database} cannot be made: {reason_of(error)}") from error


@contextmanager
def making(database: Path) -> Iterator[Path]:
    """A name beside the database for the block; nothing of it stays, nor of what a kill has left."""
    for left in database.parent.glob(f".{database.name}{MAKING}*"):
        left.unlink(missing_ok=True)
    name = f".{database.name}{MAKING}{uuid.uuid4().hex[:8]}"  # a new one each time: MLflow keeps engines by name
    try:
        yield database.with_name(name)
    finally:
        for left in database.parent.glob(f"{name}*"):
            left.unlink(missing_ok=True)


def open_store(database: Path, artifacts: Path) -> None:
    """Have MLflow open it once, and make what is missing in it."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"sqlite:///{database}", str(artifacts))  # type: ignore[no-untyped-call]
    store.engine.dispose()


def is_missing(database: Path) -> bool:
    """Whether there is nothing in it yet (a file of no bytes included)."""
    return not database.exists() or database.stat().st_size == 0


def check_readable(database: Path) -> None:
    """Raise StoreError for a file that is no SQLite database or may not be written."""
    with database.open("rb") as file:
        start = file.read(16)
    if start != b"SQLite format 3\0":
        raise StoreError(
            f"expected MLflow's SQLite database in {database}, found a file of another kind (starts with "
            f"{start!r}). Move it away, or put back a copy of it; then 'make sync' sends what was kept"
        )
    if not os.access(database, os.W_OK) or not os.access(database.parent, os.W_OK):
        raise StoreError(
            f"{database} may not be written by this user (its folder must be writable, too): give the "
            "rights back, or name another store in MLFLOW_TRACKING_URI"
        )


def is_unused(database: Path) -> bool:
    """Whether no run, model or trace is in it: no table of the kind, or empty ones.

    Raises:
        StoreError: it is damaged.
    """
    try:
        with closing(sqlite3.connect(database, timeout=30)) as connection:
            known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            return not any(
                connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()[0]
                for table in OF_USERS
                if table in known
            )
    except sqlite3.Error as error:
        raise StoreError(
            f"{database} is damaged ({reason_of(error)}): put back a copy of it, or rescue what can be "
            f"read with: sqlite3 {database} .recover | sqlite3 rescued.db. Then 'make sync'"
        ) from error


def set_aside_half_made(database: Path, artifacts: Path) -> bool:
    """Move a database out of the way that nobody has used yet and MLflow cannot open; whether it was one.

    It is tried on a copy: MLflow keeps a connection to the file itself for the life of the process.
    """
    if not is_unused(database) or opens(database, artifacts):
        return False
    while (wait := database.stat().st_mtime + SETTLED_SECONDS - time.time()) > 0:
        time.sleep(min(wait, 1.0))
    if not is_unused(database) or opens(database, artifacts):
        return False
    aside = database.with_name(f"{database.name}.half-made-{time.strftime('%Y%m%d-%H%M%S')}")
    os.replace(database, aside)
    logger.warning(f"{database.name} was left half-made and holds no run: it is now {aside.name}, a new one is made")
    return True


def opens(database: Path, artifacts: Path) -> bool:
    """Whether MLflow can open a copy of it."""
    with making(database) as copy:
        shutil.copyfile(database, copy)
        try:
            open_store(copy, artifacts)
        except Exception:
            return False
        return True


def told(database: Path, error: Exception) -> str:
    """What is wrong with a database that holds runs but cannot be opened."""
    import mlflow

    text = str(error)
    if "Can't locate revision" in text:
        return (
            f"{database} was written by a newer MLflow than the {mlflow.__version__} here: use that version, or "
            f"name another store in MLFLOW_TRACKING_URI"
        )
    if "out-of-date database schema" in text:
        return (
            f"{database} was written by an older MLflow than the {mlflow.__version__} here: copy the file, then "
            f"say: mlflow db upgrade sqlite:///{database}"
        )
    return (
        f"{database} holds runs but MLflow {mlflow.__version__} cannot open it: {reason_of(error)}. Put back a "
        "copy of it, or move it away and go on with a new one; 'make sync' sends what was kept"
    )
