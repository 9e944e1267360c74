"""Where MLflow writes: one store per checkout, whatever folder a script or notebook was started from.

The layout is MLflow 3's default: runs in `mlflow.db`, artifacts under `mlruns/`, both in the repository root, so that a
plain `mlflow ui` there shows them; MLFLOW_TRACKING_URI names another store. MLflow stores absolute artifact paths;
`repair_paths` rewrites them when the folder has moved.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from filelock import FileLock

from lasps.config.settings import settings
from lasps.tracking.database import (
    StoreError,
    check_readable,
    is_missing,
    make_database,
    set_aside_half_made,
    told,
)
from lasps.tracking.error_messages import hidden

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
ARTIFACTS = "mlruns"
CREATION_TIMEOUT = 120.0
"""Seconds to wait for another process that is making the database (measured: 2 to 5 s on two cores)."""

IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "30",
}
"""MLflow's own defaults (120 s, 7 retries) keep a thread busy for minutes with a server that is gone."""


@dataclass(frozen=True)
class Location:
    """An MLflow store; artifacts and the spool lie in `folder` on this machine, `database` None means a server."""

    uri: str
    folder: Path
    database: Path | None

    @property
    def is_local(self) -> bool:
        """Whether writing is a matter of milliseconds (a SQLite file on this machine)."""
        return self.database is not None

    @property
    def shown_uri(self) -> str:
        """The URI without a password."""
        return hidden(self.uri, self.uri)

    @property
    def bare_uri(self) -> str:
        """The URI without user and password; MLflow takes those from MLFLOW_TRACKING_USERNAME and _PASSWORD, too."""
        return self.shown_uri.replace("//***@", "//")

    def hide(self, text: str) -> str:
        """`text` without this store's password or any other."""
        return hidden(text, self.uri)


def default_location(root: Path | None = None) -> Location:
    """The store that MLFLOW_TRACKING_URI names, or else the one in the repository at `root` (default: this one)."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return location_of(uri, root) if uri else local_location(root)


def local_location(root: Path | None = None) -> Location:
    """The store in the repository at `root` (default: this one), whatever MLFLOW_TRACKING_URI says."""
    root = Path(root or settings.ROOT).resolve()
    return Location(f"sqlite:///{root / DATABASE}", root / ARTIFACTS, root / DATABASE)


def location_of(uri: str, root: Path | None = None) -> Location:
    """The store at a tracking URI; a SQLite file keeps its artifacts in `mlruns/` beside itself."""
    root = Path(root or settings.ROOT).resolve()
    if not uri.startswith("sqlite:///"):
        return Location(uri, root / ARTIFACTS, None)
    database = Path(unquote(uri.removeprefix("sqlite:///"))).absolute()
    return Location(f"sqlite:///{database}", database.parent / ARTIFACTS, database)


def quiet_mlflow() -> None:
    """Before MLflow is used: no usage reports over the network, no log lines of migrations, no deprecation warnings.

    Nor its own traceback of a database error: it raises the same error, which is logged here in one line. The warning
    is SQLAlchemy 2.1's about a loader option that MLflow uses; where warnings are errors it would fail a write.
    """
    warnings.filterwarnings("ignore", message="The ``noload`` loader strategy", category=DeprecationWarning)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def connect(location: Location) -> MlflowClient:
    """A client of the store, which is created where it is missing: by one process at a time, the others wait.

    Raises:
        StoreError: the local database cannot be created, read or written; the message says what to do.
    """
    quiet_mlflow()
    if location.database is None:
        for name, value in IMPATIENT.items():
            os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    if location.database is None:
        return MlflowClient(location.uri)
    location.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(location.folder / ".creation.lock", timeout=CREATION_TIMEOUT):
        if is_missing(location.database):
            make_database(location.database, location.folder)
        check_readable(location.database)
        if set_aside_half_made(location.database, location.folder):
            make_database(location.database, location.folder)
        try:
            client = MlflowClient(location.uri)
        except Exception as error:
            raise StoreError(told(location.database, error)) from error
        repair_paths(location)
    return client


def runs_page(location: Location, server: str, name: str = "lasps") -> str:
    """The address of the experiment's list of runs on MLflow's `server`; the server's own where there is none yet.

    Without the workflow type in it, MLflow 3 opens an experiment on an empty page of traces.
    """
    if location.database is None or not location.database.exists():
        return server
    with closing(sqlite3.connect(location.database, timeout=30)) as database:
        found = database.execute("SELECT experiment_id FROM experiments WHERE name = ?", (name,)).fetchone()
    return f"{server}/#/experiments/{found[0]}/runs?workflowType=machine_learning" if found else server


def repair_paths(location: Location) -> int:
    """Point artifact paths of a local store at `location.folder` where the folder was moved or copied.

    A path ANYTHING/mlruns/NAME is rewritten when NAME lies in this store's own mlruns/, or when the experiment holds
    no runs (MLflow's "Default" starts out in whatever folder was current). A place of the user's own choice stays.

    Returns:
        The number of experiments whose paths changed.
    """
    if location.database is None or not location.database.exists():
        return 0
    with closing(sqlite3.connect(location.database, timeout=30)) as database, database:
        rows = database.execute(
            "SELECT experiment_id, artifact_location, EXISTS (SELECT 1 FROM runs WHERE runs.experiment_id = "
            "experiments.experiment_id) FROM experiments"
        ).fetchall()
        moves = [(row[0], row[1], new) for row in rows if (new := _moved(row[1], bool(row[2]), location.folder))]
        for experiment, old, new in moves:
            database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, experiment))
            for table, column in (("runs", "artifact_uri"), ("logged_models", "artifact_location")):
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE experiment_id = ? AND substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, experiment, len(old), old),
                )
    return len(moves)


def _moved(stored: str | None, has_runs: bool, folder: Path) -> str | None:
    """The right place of an artifact folder stored as `stored`; None where it is right, or not ours to change."""
    old = local_path(stored)
    if old is None or old.parent.name != ARTIFACTS or old == folder / old.name:
        return None
    new = folder / old.name
    return str(new) if new.exists() or not has_runs else None


def local_path(artifact_uri: str | None) -> Path | None:
    """The folder that an artifact URI names, None where it is not on a disk of this machine."""
    if not artifact_uri or urlparse(artifact_uri).scheme not in ("", "file"):
        return None
    return Path(unquote(urlparse(artifact_uri).path) if artifact_uri.startswith("file:") else artifact_uri)
