"""A tracking server that is killed while a training writes to it, and comes back."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.verification.commands import COMMANDS, Workplace, end_group
from lasps.config.settings import settings

STARTS_WITHIN = 900.0  # seconds; a busy machine took more than 150
Records = Counter[tuple[str, str, int]]


def dying_server(place: Workplace) -> dict[str, Any]:
    """Train against a server that dies and returns, sync, and count every metric of every step."""
    command = COMMANDS["train"]
    tracked = replace(command, name="train, tracked", words=command.words.replace(" --no-track", ""))
    folder, port = place.root / "server", _free_port()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    env = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    place.restore(command)
    server = _started(folder, port)
    before = _journals()
    over = threading.Event()
    killer = threading.Thread(target=_kill_after_phase1, args=(server, place.folder / "checkpoints", over))
    killer.start()
    ended = place.run(tracked, env=env)
    over.set()
    killer.join()
    was_killed = server.poll() is not None
    end_group(server)
    server.wait()
    server = _started(folder, port)
    own = _journals() - before
    wrong = [f"training ended with {ended.returncode}: {ended.last_line}"] if ended.returncode else []
    wrong += [] if was_killed and own else ["the server did not die before training had sent everything"]
    for journal in sorted(own):
        subprocess.run(
            [sys.executable, str(settings.ROOT / "experiments" / "sync.py"), journal],
            cwd=place.root,
            env={**os.environ, **env},
            capture_output=True,
            check=False,
        )
    left = _journals() & own
    records = _records(env["MLFLOW_TRACKING_URI"])
    end_group(server)
    wrong += [f"{name} was not sent" for name in sorted(left)]
    wrong += [f"{key} is there {count} times" for key, count in records.items() if count != 1][:5]
    epochs = {
        phase: max((step for _, name, step in records if name.startswith(f"{phase}/")), default=0)
        for phase in ("phase1", "phase3", "phase2")
    }
    wrong += [
        f"{phase}: a step lacks its metrics"
        for phase, last in epochs.items()
        if not last
        or {step for _, name, step in records if name == f"{phase}/val_log_loss"} - {0} != set(range(1, last + 1))
    ]
    return {
        "trouble": "dying server",
        "command": "train",
        "records": sum(records.values()),
        "journals": len(own),
        "wrong": wrong,
    }


def _journals() -> set[str]:
    return {path.name for path in (settings.ROOT / "mlruns" / "spool").glob("*")}


def _free_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _started(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """An MLflow server that answers."""
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination",
            str(folder / "art"),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        start_new_session=True,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )  # eight processes that nobody asks for
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and server.poll() is None:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.5)
    end_group(server)
    raise ValueError("the MLflow server for the test did not start")


def _kill_after_phase1(server: subprocess.Popen[bytes], checkpoints: Path, over: threading.Event) -> None:
    """Kill -9 for the server once Phase 1 has a checkpoint; not if training is over before."""
    while not over.wait(0.05):
        if (checkpoints / "phase1_best.pt").exists():
            end_group(server)
            server.wait()
            return


def _records(uri: str) -> Records:
    """(run's name, metric, step) -> how often it is in the store; system metrics aside."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    runs = [run for experiment in client.search_experiments() for run in client.search_runs([experiment.experiment_id])]
    return Counter(
        (str(run.info.run_name), name, point.step)
        for run in runs
        for name in run.data.metrics
        if name.startswith("phase")
        for point in client.get_metric_history(run.info.run_id, name)
    )
