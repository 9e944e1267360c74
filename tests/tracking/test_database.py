"""mlflow.db: made whole or not at all; one that cannot be opened is told apart, and none with runs is ever moved."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lasps import tracking
from lasps.tracking import database as module
from lasps.tracking.database import StoreError, make_database
from lasps.tracking.location import connect, local_location


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLED_SECONDS", 0.0)


@pytest.fixture
def quickly_made(monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> None:
    """A new database is a copy of an empty one, in place of the seconds that making it takes."""
    open_store = module.open_store

    def open_or_copy(database: Path, artifacts: Path) -> None:
        if not database.exists():
            shutil.copyfile(empty_database, database)
        open_store(database, artifacts)

    monkeypatch.setattr(module, "open_store", open_or_copy)


def executed(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def log_a_run(root: Path) -> None:
    with tracking.open_tracker(root=root, system_metrics=False).run("phase1_best") as run:
        run.log_metrics({"a": 1.0}, step=0)


def half_made(path: Path, kind: str) -> None:
    """As a kill in the middle of MLflow's migrations leaves it."""
    if kind == "first tables":
        path.unlink()
        executed(path, "CREATE TABLE datasets (dataset_uuid TEXT)", "CREATE TABLE alembic_version (version_num TEXT)")
    elif kind == "no revision":
        executed(path, "DELETE FROM alembic_version", "DROP TABLE trace_info")
    else:
        executed(path, "UPDATE alembic_version SET version_num = '451aebb31d03'", "DROP TABLE trace_info")


@pytest.mark.parametrize(
    "kind",
    [
        "first tables",
        pytest.param("no revision", marks=pytest.mark.slow),
        pytest.param("old revision", marks=pytest.mark.slow),
    ],
)
def test_a_database_that_was_left_half_made_is_set_aside_and_a_new_one_works(root, kind, warnings_logged, quickly_made):
    half_made(root / "mlflow.db", kind)
    log_a_run(root)
    assert tracking.runs(location=local_location(root))["status"].tolist() == ["FINISHED"]
    assert len(list(root.glob("mlflow.db.half-made-*"))) == 1 and not (root / "mlruns" / "spool").exists()
    assert sum("half-made" in line for line in warnings_logged) == 1


def test_a_file_of_no_bytes_becomes_a_database(root, quickly_made):
    (root / "mlflow.db").write_bytes(b"")
    log_a_run(root)
    assert tracking.runs(location=local_location(root))["status"].tolist() == ["FINISHED"]


def test_a_kill_while_it_is_made_leaves_no_database_and_the_next_start_sweeps(tmp_path, monkeypatch):
    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", interrupted_store)
    with pytest.raises(KeyboardInterrupt):
        make_database(tmp_path / "mlflow.db", tmp_path / "mlruns")
    assert not list(tmp_path.glob("mlflow.db*"))
    (tmp_path / ".mlflow.db.making-999").write_bytes(b"half")
    with pytest.raises(KeyboardInterrupt):
        make_database(tmp_path / "mlflow.db", tmp_path / "mlruns")
    assert not list(tmp_path.glob("*mlflow.db*"))


def interrupted_store(uri: str, artifacts: str) -> None:
    executed(Path(uri.removeprefix("sqlite:///")), "CREATE TABLE experiments (experiment_id INTEGER)")
    raise KeyboardInterrupt


def test_a_database_that_another_program_made_meanwhile_is_kept(tmp_path, monkeypatch, empty_database):
    class Slower:
        def __init__(self, uri: str, artifacts: str) -> None:
            Path(uri.removeprefix("sqlite:///")).write_bytes(b"ours")
            (tmp_path / "mlflow.db").write_bytes(b"theirs")
            self.engine = self

        def dispose(self) -> None:
            pass

    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", Slower)
    make_database(tmp_path / "mlflow.db", tmp_path / "mlruns")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert (tmp_path / "mlflow.db").read_bytes() == b"theirs"


WITH_RUN = "INSERT INTO runs (run_uuid, experiment_id) VALUES ('r', 0)"


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (
            (WITH_RUN, "UPDATE alembic_version SET version_num = 'ffffffffffff'", "DROP TABLE trace_info"),
            "newer MLflow",
        ),
        ((WITH_RUN, "UPDATE alembic_version SET version_num = 'ffffffffffff'"), "MLflow"),
        ((WITH_RUN, "UPDATE alembic_version SET version_num = '451aebb31d03'"), "mlflow db upgrade"),
        ((WITH_RUN, "UPDATE alembic_version SET version_num = '451aebb31d03'", "DROP TABLE trace_info"), "holds runs"),
    ],
)
def test_a_database_with_runs_that_cannot_be_opened_is_named_with_a_way_out_and_left_as_it_is(root, statements, told):
    executed(root / "mlflow.db", *statements)
    before = (root / "mlflow.db").read_bytes()
    with pytest.raises(StoreError, match=told) as caught:
        connect(local_location(root))
    assert str(root / "mlflow.db") in str(caught.value)
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert not list(root.glob("*half-made*")) and len(before)


@pytest.mark.parametrize("content", [b"code,date\n", b"\0" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_called_that_the_records_wait_and_it_is_left_as_it_is(
    root, content, warnings_logged, empty_database
):
    (root / "mlflow.db").write_bytes(content)
    log_a_run(root)
    assert (root / "mlflow.db").read_bytes() == content
    assert "mlflow.db" in warnings_logged[0] and "make sync" in warnings_logged[-1]
    shutil.copy(empty_database, root / "mlflow.db")
    assert [replay.error for replay in tracking.replay_all(root)] == [None]
    assert tracking.runs(location=local_location(root))["status"].tolist() == ["FINISHED"]


def test_a_database_that_may_not_be_written_is_called_that(root, monkeypatch):
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    with pytest.raises(StoreError, match="may not be written"):
        connect(local_location(root))
