#!/usr/bin/env python
"""A team's shared services on this machine: PostgreSQL from the system's packages, and an MLflow server on it.

    python experiments/services.py start         # make services
    python experiments/services.py stop          # make services-stop

Everything lies in --dir: the database cluster of its own, the artifacts that the server hands out and takes in, logs,
and the database's password (LASPS_POSTGRES_PASSWORD, or one made up at the first start) in a file that only its owner
reads. Both listen on 127.0.0.1. As root, PostgreSQL runs as the user postgres, or nobody. Safe to repeat.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from loguru import logger

from experiments._cli import run_script
from experiments.ui import LIGHT, LOOPBACK, port_number, refuse_port, wait_until_up
from lasps.config.settings import settings

PASSWORD = "LASPS_POSTGRES_PASSWORD"
USER = "lasps"
DATABASES = ("mlflow", "optuna")
UNPRIVILEGED = ("postgres", "nobody")
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Services:
    """What stands in the folder of the services.

    Args:
        port: of PostgreSQL.
        mlflow_port: of the MLflow server.
    """

    folder: Path
    port: int = 5433
    mlflow_port: int = 5000

    @property
    def cluster(self) -> Path:
        """PostgreSQL's data."""
        return self.folder / "postgres"

    @property
    def passwords(self) -> Path:
        """As libpq reads them (PGPASSFILE), so that no address holds one."""
        return self.folder / "pgpass"

    @property
    def pid(self) -> Path:
        """Of the MLflow server."""
        return self.folder / "mlflow.pid"

    def url(self, database: str) -> str:
        """The address of a database, without a password."""
        return f"postgresql+psycopg://{USER}@{LOOPBACK}:{self.port}/{database}"


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("start", "stop"))
    parser.add_argument("--dir", type=Path, default=settings.ROOT / "services", help="a folder of its own")
    parser.add_argument("--port", type=port_number, default=5433, help="of PostgreSQL")
    parser.add_argument("--mlflow-port", type=port_number, default=5000)
    parser.add_argument("--no-mlflow", action="store_true", help="PostgreSQL alone")
    return parser.parse_args()


def main() -> None:
    """Start or stop; print what a terminal must export to use them."""
    args = parse_args()
    own = Services(args.dir.absolute(), args.port, args.mlflow_port)
    if args.what == "stop":
        stop_mlflow(own)
        stop_postgres(own)
        return
    start_postgres(own)
    print(f"export PGPASSFILE={own.passwords}\nexport STORAGE={own.url('optuna')}    # make tune STORAGE=$STORAGE")
    if not args.no_mlflow:
        start_mlflow(own)
        print(f"export MLFLOW_TRACKING_URI=http://{LOOPBACK}:{own.mlflow_port}")


# ------------------------------------------------------------------------------------------------ PostgreSQL


def tool(name: str) -> str:
    """The path of one of PostgreSQL's programs: on PATH, or the newest that Debian keeps beside it.

    Raises:
        ValueError: there is none.
    """
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(name) or (str(versions[-1]) if versions else None)
    if found is None:
        raise ValueError(f"expected PostgreSQL's {name} on this machine, found none: apt-get install postgresql")
    return found


def owner() -> str | None:
    """Who runs PostgreSQL, which refuses to run as root; None: whoever calls."""
    if os.name != "posix" or os.geteuid() != 0:
        return None
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in UNPRIVILEGED if name in known)


def run(command: Sequence[str | Path], user: str | None) -> None:
    """Run a program of PostgreSQL as `user`; ValueError with its message where it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        user=user,
        group=_group_of(user),
        extra_groups=None if user is None else [],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-1000:]
        closed = f". {user} must be able to enter that folder: name another with --dir" if "Permission" in said else ""
        raise ValueError(f"{Path(command[0]).name} failed: {said}{closed}")


def _group_of(user: str | None) -> int | None:
    if user is None:
        return None
    import pwd

    return pwd.getpwnam(user).pw_gid


def start_postgres(own: Services) -> None:
    """Make the cluster where there is none, start it where it does not run, make its databases."""
    user = owner()
    if not (own.cluster / "PG_VERSION").is_file():
        make_cluster(own, user)
    if not is_running(own):
        refuse_port(LOOPBACK, own.port)
        options = f"-c port={own.port} -c listen_addresses={LOOPBACK} -c unix_socket_directories=''"
        log = own.cluster / "server.log"
        run([tool("pg_ctl"), "start", "--wait", "-D", own.cluster, "-l", log, "-o", options], user)
        logger.info(f"PostgreSQL is up on {LOOPBACK}:{own.port}, its data in {own.cluster}")
    make_databases(own)


def make_cluster(own: Services, user: str | None) -> None:
    """initdb, with a password for every connection; the cluster is there whole or not at all."""
    own.folder.mkdir(parents=True, exist_ok=True)
    password = os.environ.get(PASSWORD) or secrets.token_urlsafe(24)
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    write_secret(own.passwords, f"{LOOPBACK}:*:*:{USER}:{escaped}\n")
    half_made, once = own.folder / "postgres.half", own.folder / "password.once"
    shutil.rmtree(half_made, ignore_errors=True)
    half_made.mkdir(mode=0o700)
    write_secret(once, password)
    try:
        if user is not None:
            shutil.chown(half_made, user)
            shutil.chown(once, user)
        options = ["-U", USER, "--auth=scram-sha-256", f"--pwfile={once}", "--encoding=UTF8", "--locale=C.UTF-8"]
        run([tool("initdb"), "-D", half_made, *options], user)
        half_made.rename(own.cluster)
    finally:
        once.unlink()
        shutil.rmtree(half_made, ignore_errors=True)


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner reads."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def make_databases(own: Services) -> None:
    """The databases of DATABASES that are not there yet."""
    import psycopg

    where = f"host={LOOPBACK} port={own.port} user={USER} dbname=postgres"
    try:
        with psycopg.connect(where, passfile=str(own.passwords), autocommit=True) as connection:
            there = {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}
            for name in DATABASES:
                if name not in there:
                    connection.execute(f"CREATE DATABASE {name}")
    except psycopg.OperationalError as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"PostgreSQL of {own.cluster} does not let {USER} in at port {own.port}: {said}. It was started with "
            "another --port, or pgpass was changed: make services-stop, then start it again"
        ) from error


def is_running(own: Services) -> bool:
    """Whether a server runs on the cluster."""
    pid = own.cluster / "postmaster.pid"
    try:
        process = psutil.Process(int(pid.read_text().split()[0]))
        return str(own.cluster) in " ".join(process.cmdline())
    except (OSError, ValueError, IndexError, psutil.Error):
        return False


def stop_postgres(own: Services) -> None:
    """End the server; connections are cut, what was committed stays."""
    if not is_running(own):
        print(f"PostgreSQL of {own.cluster} does not run")
        return
    run([tool("pg_ctl"), "stop", "--wait", "--mode=fast", "-D", own.cluster], owner())
    print(f"PostgreSQL of {own.cluster} has ended")


# ------------------------------------------------------------------------------------------------ MLflow


def start_mlflow(own: Services) -> None:
    """The MLflow server, which keeps running; runs in PostgreSQL, artifacts through the server into the folder."""
    if mlflow_server(own) is not None:
        logger.info(f"the MLflow server runs already, pid {own.pid.read_text()}")
        return
    refuse_port(LOOPBACK, own.mlflow_port)
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(own.mlflow_port)]
    command += ["--workers", "1", "--serve-artifacts", "--artifacts-destination", str(own.folder / "artifacts")]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment |= LIGHT | {"PGPASSFILE": str(own.passwords), "MLFLOW_BACKEND_STORE_URI": own.url("mlflow")}
    log = own.folder / "mlflow.log"
    with log.open("ab") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    own.pid.write_text(str(server.pid))
    if not wait_until_up(server, LOOPBACK, own.mlflow_port):
        stop_mlflow(own)
        raise ValueError(f"MLflow's server did not start: see {log}")
    logger.info(f"MLflow is up on http://{LOOPBACK}:{own.mlflow_port}, artifacts in {own.folder / 'artifacts'}")


def mlflow_server(own: Services) -> psutil.Process | None:
    """The server that was started from this folder, if it runs."""
    try:
        process = psutil.Process(int(own.pid.read_text()))
        return process if str(own.folder / "artifacts") in process.cmdline() else None
    except (OSError, ValueError, psutil.Error):
        return None


def stop_mlflow(own: Services) -> None:
    """End the MLflow server and its worker."""
    server = mlflow_server(own)
    own.pid.unlink(missing_ok=True)
    if server is None:
        return
    family = [server, *server.children(recursive=True)]
    server.send_signal(signal.SIGTERM)
    started = time.monotonic()
    _, alive = psutil.wait_procs(family, STOP_SECONDS)
    for process in alive:
        process.kill()
    print(f"the MLflow server has ended after {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    run_script(main)
