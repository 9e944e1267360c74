"""The store survives being moved, copied, and first used by several processes at once."""

from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy.orm

from lasps import tracking
from lasps.tracking.location import connect, local_location, location_of, quiet_mlflow, repair_paths, runs_page


def log_a_run(root: Path, name: str = "phase1_best") -> str:
    checkpoint = root / "phase1_best.pt"
    checkpoint.write_bytes(b"weights")
    with tracking.open_tracker(root=root, system_metrics=False).run(name) as run:
        run.log_table(pl.DataFrame({"code": ["005930"]}), "predictions/test.parquet")
        run.log_checkpoint(checkpoint, {"phase1/val_loss": 0.5})
        assert run.run_id is not None
        return run.run_id


def locations_in(database: Path) -> set[str]:
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs "
            "UNION SELECT artifact_location FROM logged_models"
        ).fetchall()
    connection.close()
    return {row[0] for row in rows}


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_after_a_move_or_a_copy_the_artifacts_are_those_of_the_new_folder(root, tmp_path, how):
    run_id = log_a_run(root)
    new = tmp_path / "elsewhere"
    how(root, new)
    assert any(str(root) in place for place in locations_in(new / "mlflow.db"))
    assert repair_paths(local_location(new)) == 2  # lasps and MLflow's own Default
    assert all(place.startswith(str(new)) for place in locations_in(new / "mlflow.db"))
    found = tracking.download_predictions(run_id, "test", local_location(new))
    assert found.is_relative_to(new) and pl.read_parquet(found)["code"].to_list() == ["005930"]
    assert repair_paths(local_location(new)) == 0


def test_the_address_of_the_runs_is_that_of_the_experiment_and_the_server_s_own_before_any_run(root, tmp_path):
    server = "http://127.0.0.1:5000"
    assert runs_page(local_location(tmp_path / "nothing"), server) == runs_page(local_location(root), server) == server
    log_a_run(root)
    experiment = connect(local_location(root)).get_experiment_by_name("lasps").experiment_id
    assert f"/experiments/{experiment}/runs?" in runs_page(local_location(root), server)


def test_a_place_that_the_user_chose_is_left_alone(root, tmp_path):
    client = connect(local_location(root))
    experiment = client.create_experiment("theirs", str(tmp_path / "disk" / "artifacts"))
    bucket = client.create_experiment("bucket", "s3://bucket/mlruns/bucket")
    client.create_run(experiment)
    client.create_run(bucket)
    repair_paths(local_location(root))
    assert client.get_experiment(experiment).artifact_location == str(tmp_path / "disk" / "artifacts")
    assert client.get_experiment(bucket).artifact_location == "s3://bucket/mlruns/bucket"


def test_no_artifact_lands_in_the_current_folder_and_none_looks_like_the_old_file_store(root, tmp_path, monkeypatch):
    current = tmp_path / "current"
    current.mkdir()
    monkeypatch.chdir(current)
    log_a_run(root)
    assert list(current.iterdir()) == []
    assert not [path for path in (root / "mlruns").iterdir() if path.name.isdigit()]
    assert not list((root / "mlruns").rglob("meta.yaml"))


def test_a_sqlite_file_named_by_uri_keeps_its_artifacts_beside_itself(tmp_path):
    location = location_of(f"sqlite:///{tmp_path / 'other.db'}")
    assert location.is_local and location.folder == tmp_path / "mlruns"
    assert not location_of("http://localhost:5000").is_local


def first_use(root: Path) -> None:
    log_a_run(root, multiprocessing.current_process().name)


@pytest.mark.slow
def test_first_use_by_several_processes_at_once_makes_one_database(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=first_use, args=(tmp_path,), name=f"run-{i}") for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    found = tracking.runs(location=local_location(tmp_path))
    assert sorted(found["name"]) == [f"run-{i}" for i in range(4)]
    assert not (tmp_path / "mlruns" / "spool").exists()


def test_a_store_that_fails_prints_no_traceback_of_mlflow_s_own(capfd) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.db.utils import _get_managed_session_maker

    quiet_mlflow()
    engine = sqlalchemy.create_engine("sqlite://")
    sessions = _get_managed_session_maker(sqlalchemy.orm.sessionmaker(engine), "sqlite")
    with pytest.raises(MlflowException, match="no such table"), sessions() as session:
        session.execute(sqlalchemy.text("SELECT * FROM nowhere"))
    engine.dispose()
    assert capfd.readouterr().err == ""
