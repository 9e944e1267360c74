#!/usr/bin/env python
"""MLflow in the browser, on 127.0.0.1 unless --host says otherwise: the runs, with one light worker process.

A plain `mlflow ui` in the repo root shows the same, with four workers and a job runner, and without repairing the
artifact paths of a folder that was moved.
"""

from __future__ import annotations

import argparse
import errno
import http.client
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
from loguru import logger

from experiments._cli import run_script
from lasps.config.settings import settings
from lasps.tracking.database import check_readable, is_missing, is_unused
from lasps.tracking.location import Location, connect, default_location, quiet_mlflow, repair_paths, runs_page

LOOPBACK = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")
LIGHT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # runners for what this project has not: judges, scorers
}
START_SECONDS = 60.0


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=port_number, default=5000)
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        help="the address to listen on; any other than the default lets other machines read and change the runs",
    )
    parser.add_argument("--repair-only", action="store_true", help="put artifact paths right and stop")
    return parser.parse_args()


def port_number(text: str) -> int:
    """An argparse type: a port."""
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text}")
    return int(text)


def server_command(location: Location, host: str, port: int) -> list[str]:
    """One uvicorn worker; the store's address, which may hold a password, is in the environment."""
    return [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--default-artifact-root",
        str(location.folder),
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
    ]


def server_environment(location: Location, host: str, port: int) -> dict[str, str]:
    """The environment of the server; off the loopback its checks of Host and Origin know this machine's own names."""
    names = names_of(host)
    allowed = (
        {}
        if not names
        else {
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(
                f"{name}{tail}" for name in ("localhost", LOOPBACK, *names) for tail in ("", ":*")
            ),
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}:{port}" for name in names),
        }
    )
    return allowed | dict(os.environ) | LIGHT | {"MLFLOW_BACKEND_STORE_URI": location.uri}


def names_of(host: str) -> list[str]:
    """What this machine is called by a browser elsewhere; empty for the loopback."""
    if is_loopback(host):
        return []
    found = [socket.gethostname(), socket.getfqdn()]
    if host not in EVERYWHERE:
        return sorted({host, *found})
    addresses = [
        address.address
        for card in psutil.net_if_addrs().values()
        for address in card
        if address.family == socket.AF_INET
    ]
    return sorted({*found, *addresses})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_port(host: str, port: int) -> None:
    """Raise ValueError where nothing can listen on it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"port {port} of {host} is taken (an older make ui?): stop that, or say make ui PORT="
                f"{port + 1 if port < 65535 else port - 1}"
            ) from error
        raise ValueError(
            f"nothing can listen on port {port} of {host}: {error.strerror or error}. Expected an address "
            "of this machine and a port that is open to you, e.g. make ui HOST=127.0.0.1 PORT=5000"
        ) from error


def wait_until_up(server: subprocess.Popen[bytes], host: str, port: int) -> bool:
    """Whether the server answers before it ends or the time is up; asked directly, whatever proxy is set."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        connection = http.client.HTTPConnection(LOOPBACK if host in EVERYWHERE else host, port, timeout=2)
        try:
            connection.request("GET", "/health", headers={"Host": f"localhost:{port}"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
        finally:
            connection.close()
    return False


def make_usable(location: Location) -> None:
    """Make the store where there is none, or none that was ever used and may be half-made.

    Raises:
        StoreError: it cannot be opened; says why and what to do.
    """
    if location.database is None:
        return
    if not is_missing(location.database):
        check_readable(location.database)
    if is_missing(location.database) or is_unused(location.database):
        logger.info("no runs yet (make train makes some); making sure of an empty store")
        connect(location)


def main() -> int:
    """Repair paths, start the server, wait for Ctrl-C."""
    args = parse_args()
    quiet_mlflow()
    location = default_location()
    if location.uri.startswith(("http://", "https://", "databricks")):
        logger.info(
            f"the runs go to the server that MLFLOW_TRACKING_URI names: open {location.bare_uri}. For this "
            "repo's own store say: MLFLOW_TRACKING_URI= make ui"
        )
        return 0
    if not args.repair_only:
        refuse_port(args.host, args.port)
    if not args.repair_only or (location.database is not None and not is_missing(location.database)):
        make_usable(location)
    repaired = repair_paths(location)
    if repaired:
        logger.info(f"the folder has moved: artifact paths of {repaired} experiments now point to {location.folder}")
    if args.repair_only:
        return 0
    if not is_loopback(args.host):
        logger.warning(f"whoever reaches {args.host}:{args.port} can read and change the runs: there is no password")
    return serve(location, args.host, args.port)


def serve(location: Location, host: str, port: int) -> int:
    """Run the server until it ends or Ctrl-C."""
    start, page = time.monotonic(), f"http://{next(iter(names_of(host)), LOOPBACK)}:{port}"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else a plain kill leaves the server on the port
    server = subprocess.Popen(
        server_command(location, host, port), cwd=settings.ROOT, env=server_environment(location, host, port)
    )
    try:
        if not wait_until_up(server, host, port):
            if location.database is not None:
                connect(location)  # says what is wrong with the store, if it is that
            raise ValueError("MLflow's server did not start; its own message stands above")
        logger.info(
            f"MLflow is up after {time.monotonic() - start:.1f} s (Ctrl-C stops it); the runs: "
            f"{runs_page(location, page)}"
        )
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    run_script(main)
