"""How a script ends: one line for what a user, a disk or a library is at fault for, and the exit code."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import mlflow.exceptions
import optuna
import polars as pl
import pytest
import sqlalchemy.exc

from experiments._cli import message_of, run_script

ROOT = Path(__file__).resolve().parents[2]


def ended(main, capsys, monkeypatch, level: str | None = None) -> tuple[object, str]:
    """(exit code, what was written to stderr) of a script whose main is `main`."""
    monkeypatch.delenv("LASPS_LOG", raising=False)
    if level is not None:
        monkeypatch.setenv("LASPS_LOG", level)
    with pytest.raises(SystemExit) as end:
        run_script(main)
    return end.value.code, capsys.readouterr().err


def raising(error: BaseException):
    def main() -> None:
        secret = "hunter2"
        assert secret
        raise error

    return main


OF_OTHERS = [
    (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: Permission denied. Name a place that can be"),
    (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "/x/y: No space left on device. Make room on that disk"),
    (OSError(errno.EROFS, "Read-only file system", "/x"), "/x: Read-only file system. Name a place"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "/" + "x" * 300), "File name too long. Give it a shorter name."),
    (FileNotFoundError("expected a file, found none"), "expected a file, found none"),
    (mlflow.exceptions.MlflowException("Run 'x'\nnot found"), "MLflow: MlflowException: Run 'x' not found"),
    (sqlalchemy.exc.OperationalError("select", {}, Exception("unable to open")), "the database: OperationalError:"),
    (optuna.exceptions.StorageInternalError("no"), "Optuna: StorageInternalError: no"),
    (optuna.exceptions.DuplicatedStudyError("twice"), "Optuna: DuplicatedStudyError: twice"),
    (sqlite3.DatabaseError("file is not a database"), "SQLite: DatabaseError: file is not a database"),
    (pl.exceptions.ComputeError("cannot parse"), "polars: ComputeError: cannot parse"),
    (ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2"), "pip install psycopg2"),
    (MemoryError(), "out of memory: use fewer samples"),
]


@pytest.mark.parametrize(("error", "said"), OF_OTHERS)
def test_an_error_of_others_is_one_line_and_exit_code_2(error, said, capsys, monkeypatch) -> None:
    code, text = ended(raising(error), capsys, monkeypatch)
    assert code == 2 and said in text
    assert len(text.splitlines()) == 1 and "Traceback" not in text


def test_a_library_s_error_names_the_disk_s_or_the_database_s_cause_once() -> None:
    hidden, shown = optuna.exceptions.StorageInternalError("the commit failed"), pl.exceptions.ComputeError("disk I/O")
    hidden.__cause__ = sqlalchemy.exc.OperationalError("insert", {}, sqlite3.OperationalError("disk is full"))
    hidden.__cause__.__cause__ = hidden.__cause__.orig
    shown.__cause__ = OSError("disk I/O")
    assert message_of(hidden) == "Optuna: StorageInternalError: the commit failed (OperationalError: disk is full)"
    assert message_of(shown) == "polars: ComputeError: disk I/O"


@pytest.mark.parametrize("level", ["DEBUG", "debug", " Debug "])
def test_the_traceback_is_shown_at_debug_without_the_values_of_variables(level, capsys, monkeypatch) -> None:
    code, text = ended(raising(PermissionError(errno.EACCES, "Permission denied", "/x")), capsys, monkeypatch, level)
    assert code == 2 and "Traceback" in text and "hunter2" not in text.replace('secret = "hunter2"', "")


def test_a_mistake_in_lasps_itself_keeps_its_traceback(monkeypatch) -> None:
    for error in (
        AssertionError("invariant"),
        TypeError("x"),
        RuntimeError("y"),
        AttributeError("z"),
        ModuleNotFoundError("no lasps.x", name="lasps.x"),
    ):
        assert message_of(error) is None
        with pytest.raises(type(error)):
            run_script(raising(error))


def test_an_unknown_log_level_is_said_and_the_script_runs(capsys, monkeypatch) -> None:
    code, text = ended(lambda: None, capsys, monkeypatch, "loud")
    assert code == 0 and "LASPS_LOG: expected one of TRACE, DEBUG" in text and "'loud'; using INFO" in text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_tidies_up_and_ends_with_its_code(tmp_path: Path, number: int, code: int) -> None:
    inherited = "default_int_handler" if number == signal.SIGINT else "SIG_DFL"  # whatever started the tests ignored
    script = (
        f"import signal, time; from pathlib import Path\nfrom experiments._cli import run_script\n"
        f"signal.signal({int(number)}, signal.{inherited})\n"
        f"from lasps.files import temporary_folder\ndef main():\n"
        f"    with temporary_folder(Path({str(tmp_path)!r}), 'lasps-'):\n        print('READY', flush=True)\n"
        "        time.sleep(60)\nrun_script(main)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "READY\n"
        assert os.listdir(tmp_path)
        process.send_signal(number)
        _, text = process.communicate(timeout=20)
    assert process.returncode == code and os.listdir(tmp_path) == []
    assert "continue with --resume" in text and "Traceback" not in text


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    script = (
        "from experiments._cli import run_script\ndef main():\n    for i in range(100000): print('x' * 100)\n"
        "run_script(main)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        text, deadline = process.stderr.read(), time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    assert process.returncode == 141 and text == ""
