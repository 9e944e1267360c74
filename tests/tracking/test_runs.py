"""What a tracker writes is what MLflow and the queries read."""

from __future__ import annotations

import inspect
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import psutil
import pytest

from lasps import tracking
from lasps.config.settings import settings
from lasps.tracking import MlflowTracker, NullTracker
from lasps.tracking.environment import is_dead, process_tags
from lasps.tracking.location import Location, connect, default_location, local_location
from lasps.tracking.outbox import Outbox
from lasps.tracking.queries import download_checkpoint


def client_of(location: Location):
    return connect(location)


def test_the_null_tracker_has_every_method_of_the_real_one_with_the_same_parameters():
    for name, method in inspect.getmembers(MlflowTracker, inspect.isfunction):
        if not name.startswith("_"):
            ours = inspect.signature(getattr(NullTracker, name))
            assert list(ours.parameters) == list(inspect.signature(method).parameters), name


def test_the_null_tracker_takes_every_call_and_writes_nothing(root, monkeypatch, warnings_logged):
    monkeypatch.chdir(root)
    before = set(root.iterdir())
    with NullTracker().run("pipeline", tags={"seed": 7}, params={"lr": 0.1}) as run, run.run("phase1_best") as phase:
        phase.log_metrics({"a": 1.0}, step=0)
        phase.log_metrics_beside("0" * 32, {"a": 1.0})
        phase.log_table(pl.DataFrame({"n": [1]}), "classes")
        phase.log_figure(object(), "no_figure")
        phase.log_dataset("val", "0" * 64)
        for log in (phase.log_artifact, phase.log_checkpoint):
            log(root / "missing.pt")
        assert phase.run_id is None and phase.resume_id is None and phase.flush(0.0)
    assert set(root.iterdir()) == before and warnings_logged == []


def test_a_phase_is_nested_in_its_pipeline_and_both_end_finished(tracker, location):
    with tracker.run("pipeline", tags={"seed": 7}) as pipeline, pipeline.run("phase1_best") as phase:
        assert phase.run_id != pipeline.run_id
    newest = tracking.latest_pipeline(location=location)
    assert set(newest) == {"pipeline", "phase1_best"}
    frame = tracking.runs(location=location)
    assert set(frame["status"]) == {"FINISHED"}
    assert frame.set_index("name").loc["phase1_best", "parent_id"] == newest["pipeline"]
    assert frame.set_index("name").loc["pipeline", "tags.seed"] == "7"


def test_runs_say_what_they_were_made_with(tracker, location):
    with tracker.run("pipeline"):
        pass
    tags = tracking.runs(location=location).iloc[0]
    assert tags["tags.lasps.pid"] == str(os.getpid())
    assert len(tags["tags.lock_sha256"]) == 64
    commit = subprocess.run(["git", "-C", settings.ROOT, "rev-parse", "HEAD"], capture_output=True, text=True)
    if commit.returncode == 0:
        assert tags["tags.git_commit"] == commit.stdout.strip()
        assert tags["tags.git_dirty"] in ("true", "false")


def test_metrics_come_back_in_order_and_a_repeated_epoch_counts_once(tracker, location):
    with tracker.run("phase1_best") as run:
        for step, value in [(0, 0.9), (1, 0.8), (1, 0.7)]:
            run.log_metrics({"phase1/val_loss": np.float32(value), "phase1/lr": None}, step=step)
            time.sleep(0.003)  # MLflow's clock ticks in milliseconds
        run_id = run.run_id
    history = tracking.metric_history(run_id, "phase1/val_loss", location)
    assert history["step"].tolist() == [0, 1]
    assert history["value"].tolist() == pytest.approx([0.9, 0.7])
    assert tracking.metric_history(run_id, "phase1/lr", location).empty


def test_what_a_resumed_run_has_already_is_not_filled_in_again(tracker, location):
    with tracker.run("phase1_best") as run:
        for step in (1, 3):
            run.log_metrics({"phase1/val_loss": 1 / step}, step=step)
        run_id = run.run_id
    with tracker.run("phase1_best", resume_id=run_id) as run:
        run.fill_metric_rows({step: {"phase1/val_loss": 1 / step, "phase1/lr": 0.1} for step in (1, 2, 3)})
    points = {key: client_of(location).get_metric_history(run_id, key) for key in ("phase1/val_loss", "phase1/lr")}
    assert sorted(point.step for point in points["phase1/val_loss"]) == [1, 2, 3]
    assert sorted(point.step for point in points["phase1/lr"]) == [1, 2, 3]


def test_thousands_of_metrics_of_many_steps_arrive_in_one_go(tracker, location):
    rows = {epoch: {f"phase2/sector_{s:02d}/val_loss": s + epoch / 100 for s in range(20)} for epoch in range(60)}
    with tracker.run("phase2_best") as run:
        run.log_metric_rows(rows)
        run_id = run.run_id
    for sector in (0, 19):
        history = tracking.metric_history(run_id, f"phase2/sector_{sector:02d}/val_loss", location)
        assert history["value"].tolist() == pytest.approx([sector + epoch / 100 for epoch in range(60)])


def test_more_params_and_tags_than_one_call_takes_are_kept(tracker, location):
    with tracker.run(
        "pipeline", tags={f"t{i}": i for i in range(150)}, params={"model": {f"p{i}": i for i in range(230)}}
    ) as run:
        run_id = run.run_id
    data = client_of(location).get_run(run_id).data
    assert len(data.params) == 230 and data.params["model.p229"] == "229"
    assert data.tags["t149"] == "149"


def test_a_checkpoint_is_a_logged_model_with_its_metrics_at_its_step_and_its_dataset(tracker, location, tmp_path):
    (tmp_path / "phase1_best.pt").write_bytes(b"weights")
    (tmp_path / "phase1_best.json").write_text("{}")
    fingerprint = "0123456789abcdef" * 4
    with tracker.run("phase1_best") as run:
        run.log_dataset("val", fingerprint, context="selection", profile={"n": 11_000})
        run.log_checkpoint(tmp_path / "phase1_best.pt", {"phase1/val_loss": 0.93}, step=12, dataset="val")
        run_id = run.run_id
    client = client_of(location)
    logged = client.get_run(run_id)
    (model,) = client.search_logged_models([logged.info.experiment_id])
    assert model.name == "phase1_best" and model.source_run_id == run_id and model.status == "READY"
    (metric,) = model.metrics
    assert (metric.key, metric.value, metric.step) == ("phase1/val_loss", 0.93, 12)
    assert (metric.dataset_name, metric.dataset_digest) == ("val", fingerprint[:36])
    assert logged.outputs.model_outputs[0].model_id == model.model_id
    assert logged.inputs.dataset_inputs[0].dataset.digest == fingerprint[:36]
    assert logged.data.tags["dataset.val.sha256"] == fingerprint
    kept = sorted(file.name for file in Path(model.artifact_location).iterdir())
    assert kept == ["phase1_best.json", "phase1_best.pt"]


def test_tables_figures_and_files_are_artifacts(tracker, location, tmp_path):
    table = pl.DataFrame({"sector": ["은행", "반도체"], "accuracy": [0.51, 0.49]})
    (tmp_path / "summary.json").write_text("{}")
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    with tracker.run("phase2_best") as run:
        run.log_table(table, "tables/sectors")
        run.log_table(table, "predictions/test.parquet")
        run.log_artifact(tmp_path / "summary.json", "reports")
        run.log_figure(figure, "learning_curves.png")
        run_id = run.run_id
    plt.close(figure)
    assert pl.read_parquet(tracking.download_predictions(run_id, "test", location)).equals(table)
    shown = json.loads(tracking.download_artifact(run_id, "tables/sectors.json", location).read_text())
    assert shown["data"] == [["은행", 0.51], ["반도체", 0.49]]
    assert tracking.download_artifact(run_id, "reports/summary.json", location).read_text() == "{}"
    assert tracking.download_artifact(run_id, "figures/learning_curves.png", location).stat().st_size > 1000
    marked = json.loads(client_of(location).get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert {entry["path"] for entry in marked} == {"tables/sectors.json", "predictions/test.parquet"}


def test_asking_for_what_is_not_there_says_what_to_do(tracker, location):
    with pytest.raises(ValueError, match="make train"):
        tracking.latest_pipeline(location=location)
    with tracker.run("phase1_best") as run:
        run_id = run.run_id
    with pytest.raises(ValueError, match="predictions/test.parquet"):
        tracking.download_predictions(run_id, "test", location)
    assert tracking.runs("no such experiment", location).empty


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("non-finite loss"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(130), "KILLED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit("no such file"), "FAILED"),
    ],
)
def test_a_run_ends_with_its_true_status(tracker, location, error, status):
    with pytest.raises(type(error)), tracker.run("pipeline") as outer, outer.run("phase1_best"):
        raise error
    assert set(tracking.runs(location=location)["status"]) == {status}


def test_a_block_can_say_itself_how_it_ended(tracker, location):
    with tracker.run("trial 3") as run:
        run.set_status("KILLED")
    assert tracking.runs(location=location)["status"].tolist() == ["KILLED"]
    with pytest.raises(ValueError, match="FINISHED, FAILED or KILLED"):
        tracker.set_status("PRUNED")


def die_inside_a_run(root: Path, connection) -> None:
    tracker = tracking.open_tracker(root=root, system_metrics=False)
    with tracker.run("pipeline") as run, run.run("phase1_best") as phase:
        connection.send((run.run_id, phase.run_id))
        os.kill(os.getpid(), 9)


@pytest.mark.slow
def test_a_run_killed_with_kill_9_is_closed_by_the_next_start(root, tracker, location):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=die_inside_a_run, args=(root, theirs))
    process.start()
    pipeline_id, phase_id = ours.recv()
    process.join()
    assert set(tracking.runs(location=location)["status"]) == {"RUNNING"}
    with tracker.run("another"):
        pass
    statuses = tracking.runs(location=location).set_index("run_id")["status"]
    assert statuses[pipeline_id] == statuses[phase_id] == "KILLED"


def test_the_next_start_closes_a_dead_run_or_continues_it_under_its_own_id(tracker, location):
    client = client_of(location)
    experiment = client.create_experiment("lasps", str(location.folder / "lasps"))
    dead = {**process_tags(), "lasps.pid": "999999999", "git_commit": "abc"}
    pipeline_id, phase_id = (client.create_run(experiment, tags=dead).info.run_id for _ in range(2))
    with tracker.run("pipeline", resume_id=pipeline_id) as run:
        assert run.run_id == pipeline_id
        now = tracking.runs(location=location).set_index("run_id")["status"]
        assert now[pipeline_id] == "RUNNING" and now[phase_id] == "KILLED"
    ended = client.get_run(pipeline_id)
    assert ended.info.status == "FINISHED"
    assert ended.data.tags["git_commit"] == "abc" and len(ended.data.tags["git_commit_resumed"]) == 40
    assert ended.data.tags["lasps.pid"] == str(os.getpid())


def test_a_checkpoint_s_headline_goes_to_its_pipeline_whose_state_it_leaves_alone(tracker, location):
    with pytest.raises(KeyboardInterrupt), tracker.run("pipeline") as pipeline:
        pipeline_id = pipeline.run_id
        raise KeyboardInterrupt
    before = client_of(location).get_run(pipeline_id)
    assert before.info.status == "KILLED"
    with tracker.run("phase1_best") as run:
        run.log_metrics_beside(pipeline_id, {"phase1_best/val/accuracy": 0.55, "phase1_best/val/rank_ic": None})
        run.log_metrics_beside("0" * 32, {"phase1_best/val/accuracy": 0.1})  # a pipeline that was deleted
    after = client_of(location).get_run(pipeline_id)
    assert after.data.metrics == {"phase1_best/val/accuracy": 0.55}
    assert (dict(after.info), after.data.tags) == (dict(before.info), before.data.tags)
    assert len(tracking.runs(location=location)) == 2


def test_a_validation_adds_to_a_finished_run_and_leaves_its_times_and_tags(tracker, location, tmp_path):
    (tmp_path / "phase1_best.pt").write_bytes(b"weights")
    with tracker.run("phase1_best", tags={"device": "cuda"}) as run:
        run.log_checkpoint(tmp_path / "phase1_best.pt", {"phase1/val_loss": 0.93}, step=12)
        run_id = run.run_id
    client = client_of(location)
    before = client.get_run(run_id)
    with (
        pytest.raises(ValueError, match="a disk full"),
        tracker.run("phase1_best", resume_id=run_id, tags={"device": "cpu"}) as run,
    ):
        run.log_checkpoint(tmp_path / "phase1_best.pt", {"test/accuracy": 0.5}, step=12)
        raise ValueError("a disk full of figures")
    after = client.get_run(run_id)
    assert (after.info.status, after.info.end_time) == ("FINISHED", before.info.end_time)
    assert after.data.tags["device"] == "cuda"
    (model,) = client.search_logged_models([after.info.experiment_id])
    assert {metric.key for metric in model.metrics} == {"phase1/val_loss", "test/accuracy"}


def test_a_living_process_and_one_of_another_machine_are_not_dead():
    tags = process_tags()
    assert not is_dead(tags)
    assert not is_dead({**tags, "lasps.host": "elsewhere", "lasps.pid": "999999999"})
    assert is_dead({**tags, "lasps.pid": "999999999"})
    reused = {**tags, "lasps.process_started": str(psutil.Process().create_time() - 60)}
    assert is_dead(reused)


def test_the_number_of_a_process_in_another_container_or_before_a_restart_says_nothing_and_its_heartbeat_all():
    tags = {**process_tags(), "lasps.pid": "999999999", "lasps.pid_space": "another start or container"}
    seen = float(tags["lasps.seen"])
    assert not is_dead(tags, now=seen + 60) and is_dead(tags, now=seen + 3600)
    assert not is_dead({key: value for key, value in tags.items() if key != "lasps.seen"}, now=seen + 3600)
    assert not is_dead({**process_tags(), "lasps.seen": "0"}), "a process that can be looked up needs no heartbeat"


def test_a_heartbeat_takes_back_that_a_later_start_declared_the_process_gone(tracker, location):
    client = client_of(location)
    with tracker.run("pipeline") as run:
        run_id = run.run_id
        client.set_tag(run_id, "lasps.closed", "its process was gone at the next start")
        client.set_terminated(run_id, status="KILLED")
        tracker._outbox.beat()
        assert tracker.flush(60)
        now = client.get_run(run_id)
        assert now.info.status == "RUNNING" and "lasps.closed" not in now.data.tags
        client.set_tag(run_id, "lasps.closed", "its process was gone at the next start")
    ended = client.get_run(run_id)
    assert ended.info.status == "FINISHED" and "lasps.closed" not in ended.data.tags


def test_a_resumed_run_keeps_its_params_and_names_those_that_changed(tracker, location):
    with tracker.run("pipeline", params={"lr": 1e-3, "epochs": 5}) as run:
        run_id = run.run_id
    with tracker.run("pipeline", params={"lr": 2e-3, "epochs": 5, "seed": 7}, resume_id=run_id):
        pass
    data = client_of(location).get_run(run_id).data
    assert data.params == {"lr": "0.001", "epochs": "5", "seed": "7"}
    assert json.loads(data.tags["params_changed"]) == {"lr": "0.002"}


def test_resuming_a_run_that_is_gone_starts_a_new_one(tracker):
    with tracker.run("pipeline", resume_id="0" * 32) as run:
        assert run.run_id != "0" * 32 and len(run.run_id) == 32


def test_a_run_deleted_in_mlflow_is_followed_by_a_new_one_and_that_is_said(tracker, location, warnings_logged):
    client = client_of(location)
    with tracker.run("phase1_best") as run:
        run_id = run.run_id
    client.delete_run(run_id)
    with tracker.run("phase1_best", resume_id=run_id) as run:
        run.log_metrics({"test/accuracy": 0.5}, step=0)
        assert run.run_id != run_id
        new_id = run.run_id
    assert client.get_run(new_id).data.metrics == {"test/accuracy": 0.5}
    assert sum("was deleted" in line for line in warnings_logged) == 1
    assert not any("refused" in line or "fails" in line for line in warnings_logged)


def test_a_run_deleted_while_it_is_written_goes_on_in_a_new_one_with_its_tags_and_params(tracker, location):
    client = client_of(location)
    with tracker.run("pipeline", params={"lr": 0.1}, tags={"seed": 7}) as outer, outer.run("phase1_best") as run:
        run.log_metrics({"a": 1.0}, step=0)
        old_id = outer.run_id
        assert tracker.flush(60)
        client.delete_run(old_id)
        outer.log_metrics({"a": 2.0}, step=1)
    frame = tracking.runs(location=location).set_index("name")
    assert frame.loc["pipeline", "run_id"] != old_id and frame.loc["pipeline", "status"] == "FINISHED"
    assert frame.loc["pipeline", "params.lr"] == "0.1" and frame.loc["pipeline", "tags.seed"] == "7"
    assert frame.loc["pipeline", "metrics.a"] == 2.0


def test_what_mlflow_refuses_is_left_out_with_a_warning_and_the_rest_is_kept(tracker, location, warnings_logged):
    with tracker.run("pipeline") as run:
        run.log_metrics({"bad?name!": 1.0}, step=0)
        run.log_metrics({"good": 1.0}, step=0)
        run_id = run.run_id
    assert any("refused" in line for line in warnings_logged)
    assert tracking.metric_history(run_id, "good", location)["value"].tolist() == [1.0]


def test_logging_outside_of_a_run_warns_instead_of_failing(tracker, warnings_logged):
    tracker.log_metrics({"a": 1.0})
    tracker.log_metrics({"a": 2.0})
    assert sum("no run is open" in line for line in warnings_logged) == 1


def test_system_metrics_land_in_the_outermost_run(root, location):
    tracker = tracking.open_tracker(root=root)
    with tracker.run("pipeline") as run, run.run("phase1_best"):
        run_id = run.run_id
    loads = tracking.metric_history(run_id, "system/process_memory_megabytes", location)
    assert len(loads) == 1 and loads["value"][0] > 10


def test_the_store_does_not_depend_on_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_location().database == settings.ROOT / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@example.org:5000")
    assert not default_location().is_local
    assert "secret" not in default_location().shown_uri


def test_a_script_that_does_not_track_imports_neither_mlflow_nor_pandas():
    code = (
        "import sys, lasps.tracking as t; t.open_tracker(enabled=False); print({'mlflow', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=settings.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_folders_of_killed_runs_are_removed_by_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "lasps-999999999-abcd" / "sub").mkdir(parents=True)
    outbox = Outbox(local_location(tmp_path / "store"))
    first, second = outbox.new_folder(), outbox.new_folder()
    assert first != second and first.parent == second.parent
    assert list(tmp_path.iterdir()) == [first.parent]
    assert first.parent.stat().st_mode & 0o777 == 0o700
    outbox.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_found_by_the_id_of_its_run_alone(tracker, location, tmp_path: Path) -> None:
    weights = tmp_path / "made" / "phase2_best.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    weights.with_suffix(".json").write_text("{}")
    with tracker.run("phase2") as run:
        run.log_checkpoint(weights)
    with tracker.run("nothing") as empty:
        empty.log_metrics({"loss": 1.0}, step=0)
    assert run.run_id and empty.run_id
    found = download_checkpoint(run.run_id, tmp_path / "elsewhere", location)
    assert found == tmp_path / "elsewhere" / run.run_id / "phase2_best.pt"
    assert found.read_bytes() == b"weights" and found.with_suffix(".json").read_text() == "{}"
    assert download_checkpoint(run.run_id, tmp_path / "elsewhere", location) == found, "not downloaded again"
    with pytest.raises(ValueError, match="expected one checkpoint in run .*, found 0"):
        download_checkpoint(empty.run_id, tmp_path / "elsewhere", location)
    with pytest.raises(ValueError, match="expected a run 0{32}"):
        download_checkpoint("0" * 32, tmp_path / "elsewhere", location)
