"""A tracking server that is slow, refuses, or goes away must cost training neither time nor a record."""

from __future__ import annotations

import socket
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from lasps import tracking
from lasps.tracking import MlflowTracker, outbox
from lasps.tracking.location import IMPATIENT, local_location


class Server:
    """MLflow's own server over a SQLite file, in a thread of this process; can be slow, and can go away."""

    def __init__(self, root: Path, port: int = 0) -> None:
        from mlflow.server import app
        from werkzeug.serving import make_server

        self.delay = 0.0
        self._stopped = threading.Event()
        self.location = local_location(root)
        self._serve = app.wsgi_app
        self._server = make_server("127.0.0.1", port, self._answer, threaded=True)
        self.port = self._server.server_port
        self.uri = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, environ, start_response):
        if self._stopped.wait(self.delay):  # an answer after the test sets the next one's tracking URI
            start_response("503 Service Unavailable", [])
            return []
        return self._serve(environ, start_response)

    def stop(self) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs of a second in place of several, and MLflow's settings put back afterwards."""
    for name in IMPATIENT:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(outbox, "SERVER_SECONDS", 3.0)
    monkeypatch.setattr(outbox, "RUN_ID_SECONDS", 1.5)


@pytest.fixture
def server(root: Path, monkeypatch: pytest.MonkeyPatch, patience: None) -> Iterator[Server]:
    from mlflow.server import handlers

    with warnings.catch_warnings():  # MLflow's server imports what Starlette deprecates
        warnings.simplefilter("ignore")
        import mlflow.server.fastapi_app  # noqa: F401

    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{root / 'mlflow.db'}")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", str(root / "mlruns"))
    monkeypatch.setattr(handlers, "_tracking_store", None)
    monkeypatch.setattr(handlers, "_artifact_repo", None)
    server = Server(root)
    yield server
    server.stop()


def remote(uri: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowTracker:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = tracking.open_tracker(root=root, system_metrics=False)
    assert isinstance(tracker, MlflowTracker) and not tracker.location.is_local
    return tracker


def train(tracker: MlflowTracker, folder: Path, epochs: int = 5, between=lambda epoch: None) -> float:
    """A tiny training; returns the seconds that its calls of the tracker took, the end aside."""
    checkpoint = folder / "phase1_best.pt"
    checkpoint.write_bytes(b"weights")
    waited = 0.0
    with tracker.run("pipeline") as pipeline, pipeline.run("phase1_best") as phase:
        for epoch in range(epochs):
            between(epoch)
            start = time.perf_counter()
            phase.log_metrics({"phase1/train_loss": 1 / (epoch + 1)}, step=epoch)
            waited += time.perf_counter() - start
        phase.log_checkpoint(checkpoint, {"phase1/val_loss": 0.5}, step=epochs - 1)
        checkpoint.write_bytes(b"the next weights")  # what the spool holds must be the weights that were logged
    return waited


def spooled(root: Path) -> list[Path]:
    return sorted((root / "mlruns" / "spool").glob("*/journal.jsonl"))


def assert_complete(root: Path, epochs: int = 5) -> None:
    location = local_location(root)
    newest = tracking.latest_pipeline(location=location)
    assert (tracking.runs(location=location)["status"] == "FINISHED").all()
    assert len(tracking.runs(location=location)) == 2
    history = tracking.metric_history(newest["phase1_best"], "phase1/train_loss", location)
    assert history["value"].tolist() == pytest.approx([1 / (epoch + 1) for epoch in range(epochs)])
    client = tracking.location.connect(location)
    (model,) = client.search_logged_models([client.get_experiment_by_name("lasps").experiment_id])
    assert [metric.value for metric in model.metrics] == [0.5]


def test_with_a_server_that_works_everything_arrives_and_no_journal_is_left(server, root, tmp_path, monkeypatch):
    monkeypatch.setattr(outbox, "SERVER_SECONDS", 120.0)  # a machine with other work may be slow, and nothing is lost
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setenv("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "60")
    train(remote(server.uri, root, monkeypatch), tmp_path)
    assert spooled(root) == []
    assert_complete(root)


def test_with_a_server_that_refuses_training_goes_on_and_sync_sends_it_all(
    root, tmp_path, monkeypatch, patience, warnings_logged
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    start = time.perf_counter()
    waited = train(remote(uri, root, monkeypatch), tmp_path)
    assert waited < 0.5 and time.perf_counter() - start < 10
    (journal,) = spooled(root)
    last = warnings_logged[-1]
    assert str(journal.parent) in last and "make sync" in last and uri in last
    (replay,) = tracking.replay_all(root, uri=local_location(root).uri)
    assert replay.error is None and replay.sent == replay.total
    assert spooled(root) == []
    assert_complete(root)
    (kept,) = (root / "mlruns" / "lasps" / "models").rglob("phase1_best.pt")
    assert kept.read_bytes() == b"weights"


@pytest.mark.parametrize("uri", ["htp://nonsense", "postgres://me:secret@127.0.0.1/x", "no uri at all"])
def test_a_tracking_uri_that_mlflow_cannot_open_is_said_to_be_that(uri, root, tmp_path, monkeypatch, warnings_logged):
    train(remote(uri, root, monkeypatch), tmp_path)
    assert "uri" in warnings_logged[0].lower()
    assert not any(word in "".join(warnings_logged) for word in ("KeyError", "secret", "refused a record"))
    assert len(spooled(root)) == 1
    assert tracking.replay_all(root, uri=local_location(root).uri)[0].error is None
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert_complete(root)


def test_a_server_that_answers_too_late_is_not_waited_for(server, root, tmp_path, monkeypatch, warnings_logged):
    server.delay = 30.0
    start = time.perf_counter()
    waited = train(remote(server.uri, root, monkeypatch), tmp_path)
    assert waited < 0.5 and time.perf_counter() - start < 8
    assert len(spooled(root)) == 1 and "make sync" in warnings_logged[-1]


def test_a_server_too_slow_to_keep_up_gets_a_bounded_wait_at_the_end(server, root, tmp_path, monkeypatch):
    server.delay = 0.4
    monkeypatch.setattr(outbox, "SERVER_SECONDS", 1.0)
    start = time.perf_counter()
    train(remote(server.uri, root, monkeypatch), tmp_path, epochs=30)
    assert time.perf_counter() - start < 6
    server.delay = 0.0
    assert len(spooled(root)) == 1
    time.sleep(1.5)  # the request that was on its way ends
    (replay,) = tracking.replay_all(root)
    assert replay.error is None and replay.uri == server.uri
    assert_complete(root, epochs=30)


def test_a_server_that_dies_while_training_leaves_a_journal_that_completes_the_run_later(
    server, root, tmp_path, monkeypatch, warnings_logged
):
    tracker = remote(server.uri, root, monkeypatch)

    def die_after_two(epoch: int) -> None:
        if epoch == 2:
            assert tracker.flush(5.0)
            server.stop()

    train(tracker, tmp_path, between=die_after_two)
    assert set(tracking.runs(location=local_location(root))["status"]) == {"RUNNING"}
    (replay,) = tracking.replay_all(root)
    assert replay.error is not None and len(spooled(root)) == 1, "the server is still away: nothing is lost"
    again = Server(root, port=server.port)
    try:
        (replay,) = tracking.replay_all(root)
    finally:
        again.stop()
    assert replay.error is None and spooled(root) == []
    assert_complete(root)


def test_a_local_database_that_cannot_be_written_spools_too_and_sync_completes_it(
    root, tmp_path, monkeypatch, warnings_logged
):
    tracker = tracking.open_tracker(root=root, system_metrics=False)
    broken = {"now": False}
    apply = tracker._outbox.writer.apply

    def fail_when_full(operation):
        if broken["now"]:
            raise OSError("No space left on device")
        apply(operation)

    monkeypatch.setattr(tracker._outbox.writer, "apply", fail_when_full)

    def fill_the_disk(epoch: int) -> None:
        if epoch <= 2:
            assert tracker.flush(20.0), "what comes before the disk is full is sent"
        broken["now"] = epoch >= 2

    train(tracker, tmp_path, between=fill_the_disk)
    assert len(spooled(root)) == 1 and "No space left" in warnings_logged[0]
    (replay,) = tracking.replay_all(root)
    assert replay.error is None
    assert_complete(root)


def test_a_local_store_that_takes_its_time_is_not_waited_for_while_training(root, tmp_path, monkeypatch):
    connect_slowly = tracking.writer.connect

    def connect_after_a_second(*arguments):
        time.sleep(1.0)
        return connect_slowly(*arguments)

    monkeypatch.setattr(tracking.writer, "connect", connect_after_a_second)
    tracker = tracking.open_tracker(root=root, system_metrics=False)
    start = time.perf_counter()
    with tracker.run("pipeline") as run:
        for epoch in range(20):
            run.log_metrics({"phase1/train_loss": 1.0}, step=epoch)
        run.log_figure(Image.new("RGB", (9, 9), "red"), "train_charts")
        run.log_table(pl.DataFrame({"n": [1]}), "classes")
        handle = run.resume_id
        assert time.perf_counter() - start < 0.8 and handle.startswith("spooled-")
    assert spooled(root) == []
    with tracking.open_tracker(root=root, system_metrics=False).run("pipeline", resume_id=handle) as again:
        again_id = again.run_id
    assert tracking.runs(location=local_location(root))["run_id"].tolist() == [again_id]
    assert len(tracking.metric_history(again_id, "phase1/train_loss", local_location(root))) == 20
    kept = tracking.download_artifact(again_id, "figures/train_charts.png", local_location(root))
    assert Image.open(kept).getpixel((4, 4)) == (255, 0, 0)
    assert tracking.download_artifact(again_id, "classes.json", local_location(root)).read_text().endswith("[[1]]}")


def test_a_picture_that_no_disk_takes_costs_a_warning_and_no_training(root, monkeypatch, warnings_logged):
    def refuse(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(outbox, "temporary_folder", refuse)
    with tracking.open_tracker(root=root, system_metrics=False).run("pipeline") as run:
        run.log_figure(Image.new("RGB", (9, 9)), "train_charts")
    assert [line.strip() for line in warnings_logged] == [
        "not tracked, figures/train_charts.png cannot be written: No space left on device"
    ]


def test_a_run_that_was_spooled_can_be_resumed_by_the_name_it_was_given(root, tmp_path, monkeypatch, patience):
    tracker = remote("http://127.0.0.1:9", root, monkeypatch)
    with pytest.raises(KeyboardInterrupt), tracker.run("pipeline") as run:
        spooled_id = run.run_id
        raise KeyboardInterrupt
    assert spooled_id.startswith("spooled-")
    tracking.replay_all(root, uri=local_location(root).uri)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with tracking.open_tracker(root=root, system_metrics=False).run("pipeline", resume_id=spooled_id):
        pass
    assert tracking.runs(location=local_location(root))["status"].tolist() == ["FINISHED"]
