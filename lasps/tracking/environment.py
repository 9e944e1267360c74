"""What a run was made with: commit, lock file, machine and process, as MLflow tags."""

from __future__ import annotations

import functools
import getpass
import hashlib
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

GIT_TIMEOUT = 10.0
SEEN = "lasps.seen"
"""The tag of the heartbeat: when the process last said that it lives, seconds since 1970."""
HEARTBEAT_SECONDS = 60.0
SILENT_SECONDS = 900.0
"""A process that cannot be looked up from here is taken for dead after this long without a word."""


@functools.cache
def source_tags(root: Path, lock_file: Path | None = None) -> dict[str, str]:
    """Commit, dirty flag, lock-file hash, script, user and versions; what cannot be found out is left out.

    The dirty flag is taken once per process: the code that runs is the code that was there at the start.
    """
    tags = {
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": Path(sys.argv[0]).name or "python",
        "mlflow.user": _user(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    commit = _git(root, "rev-parse", "HEAD")
    if commit:
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
        dirty = "unknown" if changes is None else str(bool(changes)).lower()
        tags |= {"git_commit": commit, "mlflow.source.git.commit": commit, "git_dirty": dirty}
    if lock_file is not None and lock_file.exists():
        tags["lock_sha256"] = hashlib.sha256(lock_file.read_bytes()).hexdigest()
    return tags


def process_tags() -> dict[str, str]:
    """Which process writes the run: by these, and by its heartbeat `SEEN`, the next start finds out that it is dead."""
    process = psutil.Process()
    return {
        "lasps.host": socket.gethostname(),
        "lasps.pid": str(process.pid),
        "lasps.pid_space": pid_space(),
        "lasps.process_started": f"{process.create_time():.2f}",
        SEEN: f"{time.time():.0f}",
    }


@functools.cache
def pid_space() -> str:
    """What process numbers are numbers of: this start of the machine, and the container; empty where unknown."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def is_alive(pid: int, started: float) -> bool:
    """Whether the process `pid` of this machine still runs and is the one that started at `started` (epoch s)."""
    try:
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started) < 2.0)
    except psutil.Error:
        return False


def is_dead(tags: Mapping[str, Any], now: float | None = None) -> bool:
    """Whether the process of these `process_tags` is gone.

    A process number means something only where it was given: same machine, same start of it, same container. Of any
    other process the heartbeat decides, after `SILENT_SECONDS`; without one it is not dead.
    """
    same_host = tags.get("lasps.host") == socket.gethostname()
    if same_host and "lasps.pid" in tags and tags.get("lasps.pid_space", pid_space()) == pid_space():
        return not is_alive(int(tags["lasps.pid"]), float(tags.get("lasps.process_started", 0)))
    return SEEN in tags and (time.time() if now is None else now) - float(tags[SEEN]) > SILENT_SECONDS


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
