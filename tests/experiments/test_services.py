"""A team's services: PostgreSQL, studies and trainings that several processes share, a database that dies."""

from __future__ import annotations

import gc
import multiprocessing
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from optuna.trial import TrialState
from sqlalchemy import event

from experiments.services import (
    PASSWORD,
    Services,
    is_running,
    make_cluster,
    make_databases,
    owner,
    start_postgres,
    stop_postgres,
    tool,
)
from lasps.tracking import NullTracker
from lasps.training.heads.data import HeadData, as_samples
from lasps.tuning import open_study, run_trials, space_of, study
from lasps.tuning.storage import study_lock
from lasps.tuning.trials import count_taken

pytestmark = [
    pytest.mark.postgres,
    # SQLAlchemy's pools end with their study, whose connections psycopg then finds open
    pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TRIALS = 12


def has_postgres() -> bool:
    try:
        return bool(tool("initdb"))
    except ValueError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can enter, which pytest's own are not."""
    if not has_postgres():
        pytest.skip("no initdb on this machine")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def services(open_folder: Path) -> Iterator[Services]:
    own = Services(open_folder / "services", free_port(), free_port())
    start_postgres(own)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSFILE", str(own.passwords))
        yield own
    stop_postgres(own)


@pytest.fixture(autouse=True)
def _no_connection_is_left_for_another_test() -> Iterator[None]:
    yield
    gc.collect()


def kill_postgres(own: Services) -> None:
    """kill -9 of the server and of every process that serves a connection."""
    server = psutil.Process(int((own.cluster / "postmaster.pid").read_text().split()[0]))
    family = [server, *server.children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family, 10)


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> HeadData:
    """Heads on noise: four sectors, a trial of milliseconds."""
    monkeypatch.setattr(study, "EPOCHS", (1, 4))
    monkeypatch.setattr(study, "DEFAULT", replace(study.DEFAULT, epochs=3))
    return made_up()


def made_up() -> HeadData:
    torch.manual_seed(0)

    def samples(n: int, name: str):
        sectors = torch.arange(n) % 4
        days = (torch.arange(n) // 8).numpy()
        return as_samples(torch.randn(n, 12).numpy(), torch.randint(0, 3, (n,)).numpy(), sectors.numpy(), days, name)

    start = {
        "fc1.weight": 0.1 * torch.randn(8, 12).repeat(4, 1, 1),
        "fc1.bias": torch.zeros(4, 8),
        "fc2.weight": 0.1 * torch.randn(3, 8).repeat(4, 1, 1),
        "fc2.bias": torch.zeros(4, 3),
    }
    return HeadData(samples(800, "train"), start, samples(400, "val"))


def work(url: str, space: dict) -> None:
    torch.set_num_threads(1)
    with study_lock("four", url, "start"):
        found = open_study("four", url, made_on="abc", space=space)
    run_trials(found, made_up(), TRIALS, NullTracker())


def test_starting_again_changes_nothing_and_the_password_is_its_owners_alone(services: Services) -> None:
    before = (services.cluster / "postmaster.pid").read_text()
    start_postgres(services)
    assert (services.cluster / "postmaster.pid").read_text() == before
    assert stat.S_IMODE(services.passwords.stat().st_mode) == 0o600
    assert not list(services.folder.glob("password*"))
    assert "@127.0.0.1" in services.url("optuna") and services.passwords.read_text().split(":")[-1].strip() not in str(
        services.url("optuna")
    )


def test_nobody_gets_in_without_the_password(
    services: Services, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import psycopg

    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(host="127.0.0.1", port=services.port, user="lasps", dbname="optuna")
    other = replace(services, folder=tmp_path)
    other.passwords.write_text("127.0.0.1:*:*:lasps:wrong\n")
    other.passwords.chmod(0o600)
    with pytest.raises(ValueError, match="does not let lasps in.*services-stop"):
        make_databases(other)


def test_a_taken_port_is_told_before_the_server_starts(tmp_path: Path, services: Services) -> None:
    second = Services(tmp_path / "second", services.port)
    (second.cluster).mkdir(parents=True)
    (second.cluster / "PG_VERSION").write_text("15\n")
    with pytest.raises(ValueError, match=f"port {services.port} .* is taken"):
        start_postgres(second)


@pytest.mark.slow
def test_four_workers_share_one_study_and_no_trial_is_lost_or_run_twice(services: Services, heads: HeadData) -> None:
    space, url = space_of(heads), services.url("optuna")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(url, space)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    found = open_study("four", url, made_on="abc", space=space)
    trials = found.get_trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert TRIALS <= count_taken(found) <= TRIALS + 3, "each worker may have claimed one as another did"
    assert all(trial.state.is_finished() for trial in trials[:TRIALS])
    draws = [tuple(trial.params.values()) for trial in trials if "known" not in trial.user_attrs]
    assert len(set(draws)) == len(draws), "workers never draw alike"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO trial_intermediate",
        pytest.param("INSERT INTO trials", marks=pytest.mark.slow),
        pytest.param("UPDATE trials", marks=pytest.mark.slow),
    ],
)
def test_a_study_goes_on_when_its_database_is_killed_in_the_middle_of_a_statement(
    services: Services, heads: HeadData, statement: str
) -> None:
    found = open_study(statement, services.url("optuna"), made_on="abc", space=space_of(heads))
    seen: list[str] = []

    @event.listens_for(found._storage._backend.engine, "before_cursor_execute")  # type: ignore[attr-defined]
    def kill_and_restart(connection, cursor, said: str, *_: object) -> None:
        if said.startswith(statement):
            seen.append(said)
            if len(seen) == 4:
                kill_postgres(services)
                start_postgres(services)

    run_trials(found, heads, 12, NullTracker())
    assert len(seen) > 4 and is_running(services)
    trials = found.get_trials()
    assert count_taken(found) == 12
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert all(trial.state.is_finished() for trial in trials), "one that was cut off was queued again and run"
    for failed in (trial for trial in trials if trial.state == TrialState.FAIL):
        assert [trial.params for trial in trials if trial.user_attrs.get("retry_of") == failed.number] == [
            failed.params
        ]


def test_the_password_comes_from_the_environment(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, "a:b\\c")
    own = Services(open_folder / "second")
    make_cluster(own, owner())
    assert own.passwords.read_text() == "127.0.0.1:*:*:lasps:a\\:b\\\\c\n"


def test_a_folder_that_postgres_cannot_enter_is_told_and_nothing_is_left(open_folder: Path) -> None:
    if owner() is None:
        pytest.skip("PostgreSQL runs as whoever calls")
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ValueError, match="initdb failed: .*Permission denied.* must be able to enter .*--dir"):
        make_cluster(Services(closed), owner())
    assert [path.name for path in closed.iterdir()] == ["pgpass"]


def test_what_a_kill_left_of_a_cluster_is_made_again(open_folder: Path) -> None:
    own = Services(open_folder / "third")
    left = own.folder / "postgres.half"
    left.mkdir(parents=True)
    (left / "PG_VERSION").write_text("15\n")
    make_cluster(own, owner())
    assert (own.cluster / "base").is_dir() and not left.exists()


def test_a_server_that_was_never_reached_is_told_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match="cannot be opened"):
        open_study("none", f"postgresql+psycopg://lasps@127.0.0.1:{free_port()}/optuna", made_on="abc", space={})
    assert time.monotonic() - started < 10


TRAINING = """
import sys, time
from pathlib import Path
from lasps.tracking import open_tracker
tracker = open_tracker(root=sys.argv[1], system_metrics=False)
with tracker.run(f"training_{sys.argv[2]}") as run:
    for step in range(60):
        run.log_metrics({"loss": step}, step=step)
        time.sleep(0.1)
    run.log_artifact(__file__)
    weights = Path(sys.argv[1]) / sys.argv[2] / "phase2_best.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"weights " + sys.argv[2].encode())
    weights.with_suffix(".json").write_text("{}")
    run.log_checkpoint(weights)
"""


@pytest.mark.slow
def test_four_trainings_at_once_lose_no_metric_while_the_database_is_killed_and_restarted(
    services: Services, tmp_path: Path
) -> None:
    from experiments.services import start_mlflow, stop_mlflow
    from lasps import tracking
    from lasps.tracking import metric_history, runs
    from lasps.tracking.location import default_location
    from lasps.tracking.queries import download_artifact, download_checkpoint

    start_mlflow(services)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{services.mlflow_port}")
        try:
            script = tmp_path / "training.py"
            script.write_text(TRAINING)
            started = [
                subprocess.Popen([sys.executable, str(script), str(tmp_path), str(number)]) for number in range(4)
            ]
            time.sleep(9)
            kill_postgres(services)
            time.sleep(2)
            start_postgres(services)
            assert [training.wait(120) for training in started] == [0] * 4
            tracking.replay_all(root=tmp_path)
            found = runs(location=default_location(tmp_path))
            assert sorted(found["name"]) == [f"training_{number}" for number in range(4)]
            for run_id in found["run_id"]:
                history = metric_history(run_id, "loss", default_location(tmp_path))
                assert sorted(history["step"]) == list(range(60)), "nothing lost, nothing twice"
                kept = download_artifact(run_id, "training.py", default_location(tmp_path))
                assert kept.read_text() == TRAINING
                elsewhere = download_checkpoint(run_id, tmp_path / "second machine", default_location(tmp_path))
                assert elsewhere.read_bytes().startswith(b"weights ") and elsewhere.with_suffix(".json").is_file()
            assert list((services.folder / "artifacts").rglob("training.py")), "through the server, into its folder"
        finally:
            stop_mlflow(services)
