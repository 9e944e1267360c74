#!/usr/bin/env python
"""MLflow in the browser, on 127.0.0.1: the runs of this repo, with one light worker process.

A plain `mlflow ui` in the repo root shows the same, with four workers and a job runner, and without repairing the
artifact paths of a folder that was moved.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from loguru import logger

from experiments._cli import positive_int, run_script
from lasps.config.settings import settings
from lasps.tracking.store import Location, connect, local_location, quiet_mlflow, repair_paths, runs_page

HOST = "127.0.0.1"
LIGHT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # runners for what this project has not: judges, scorers
}
START_SECONDS = 60.0


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=positive_int, default=5000)
    parser.add_argument("--repair-only", action="store_true", help="put artifact paths right and stop")
    return parser.parse_args()


def server_command(location: Location, port: int) -> list[str]:
    """One uvicorn worker over the repo's own store."""
    return [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", location.uri,
            "--default-artifact-root", str(location.folder), "--host", HOST, "--port", str(port), "--workers", "1"]


def refuse_taken_port(port: int) -> None:
    """Raise ValueError where something listens already."""
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise ValueError(f"port {port} of {HOST} is taken (an older make ui?): stop that, or say make ui PORT="
                             f"{port + 1}")


def wait_until_up(server: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the server answers before it ends or the time is up."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def main() -> int:
    """Repair paths, start the server, wait for Ctrl-C."""
    args = parse_args()
    quiet_mlflow()
    location = local_location()
    repaired = repair_paths(location)
    if repaired:
        logger.info(f"the folder has moved: artifact paths of {repaired} experiments now point to {location.folder}")
    if args.repair_only:
        return 0
    refuse_taken_port(args.port)
    if location.database is not None and not location.database.exists():
        logger.info("no runs yet (make train makes some); creating an empty store")
        connect(location)
    start = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else a plain kill leaves the server on the port
    server = subprocess.Popen(server_command(location, args.port), cwd=settings.ROOT, env=os.environ | LIGHT)
    try:
        if not wait_until_up(server, args.port):
            raise ValueError("MLflow's server did not start; its own message stands above")
        logger.info(f"MLflow is up after {time.monotonic() - start:.1f} s (Ctrl-C stops it); the runs: "
                    f"{runs_page(location, f'http://{HOST}:{args.port}')}")
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    run_script(main)
