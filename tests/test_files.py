"""Atomic writes, what a killed process leaves, and locks."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lasps.files import FileWriteError, InUseError, held, temporary_folder, write_atomically

ROOT = Path(__file__).resolve().parents[1]


def killed_while(code: str, folder: Path) -> int:
    """Run `code` (with `folder`) in another process up to its line READY, kill it there; its process number."""
    with subprocess.Popen(
        [sys.executable, "-c", in_folder(folder, code)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "READY\n"
        process.send_signal(signal.SIGKILL)
    return process.pid


def in_folder(folder: Path, code: str) -> str:
    return f"from pathlib import Path; folder = Path({str(folder)!r})\n{code}"


WAIT = "import time; print('READY', flush=True); time.sleep(60)"


def test_the_next_writer_of_a_file_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    pid = killed_while(
        f"from lasps.files import write_atomically\ndef slowly(file):\n    file.write(b'x'); {WAIT}\n"
        "write_atomically(folder / 'a.txt', slowly)",
        tmp_path,
    )
    assert [path.name for path in tmp_path.iterdir()] == [f".a.txt.{pid}.tmp"]
    write_atomically(tmp_path / "a.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_temporaries_of_living_writers_and_files_of_other_names_stay(tmp_path: Path) -> None:
    kept = {f".a.txt.{os.getppid()}.tmp", ".a.txt.old.tmp", ".b.txt.999999999.tmp", "notes"}
    for name in kept:
        (tmp_path / name).touch()
    write_atomically(tmp_path / "a.txt", "whole")
    assert {path.name for path in tmp_path.iterdir()} == kept | {"a.txt"}


def test_a_temporary_that_is_locked_stays_although_its_number_is_of_no_process_here(tmp_path: Path) -> None:
    import fcntl

    other = tmp_path / ".a.txt.999999999.tmp"  # as from another container
    with other.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_atomically(tmp_path / "a.txt", "1")
        assert other.exists()
    write_atomically(tmp_path / "a.txt", "2")
    assert not other.exists()


def test_a_folder_of_a_killed_process_is_removed_at_the_next_start(tmp_path: Path) -> None:
    pid = killed_while(
        "from lasps.files import temporary_folder\nwith temporary_folder(folder, '.x-') as new:\n"
        f"    (new / 'sub').mkdir(); (new / 'sub' / 'a').write_text('1'); {WAIT}",
        tmp_path,
    )
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f".x-{pid}-") and (left / "sub" / "a").exists()
    with temporary_folder(tmp_path, ".x-") as new:
        assert [path.name for path in tmp_path.iterdir()] == [new.name]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_write_that_fails_says_what_and_leaves_the_old_file(tmp_path: Path, monkeypatch, number: int) -> None:
    path = write_atomically(tmp_path / "a.txt", "old")

    def fails(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    message = rf"a\.txt was not written: {os.strerror(number)}.*nothing was changed"
    with pytest.raises(FileWriteError, match=message) as said:
        write_atomically(path, b"x" * 1234)
    assert ("needed 1,234 bytes" in str(said.value)) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert said.value.errno == number and path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_name_that_is_too_long_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileWriteError, match="File name too long"):
        write_atomically(tmp_path / ("x" * 300), "1")


def test_a_lock_says_who_holds_it_and_goes_with_its_block(tmp_path: Path) -> None:
    lock = tmp_path / "state" / "lock"
    with held(lock, "checkpoints", "Use another folder."):
        code = (
            "from lasps.files import held\n"
            "with held(folder / 'state' / 'lock', 'checkpoints', 'Use another folder.'): print('got it')"
        )
        other = subprocess.run(
            [sys.executable, "-c", in_folder(tmp_path, code)], cwd=ROOT, capture_output=True, text=True
        )
        assert f"process {os.getpid()} on " in other.stderr and "Use another folder." in other.stderr
        assert "got it" not in other.stdout
        with pytest.raises(InUseError), held(lock, "checkpoints", ""):
            pass
    assert list(tmp_path.iterdir()) == []
    with held(lock, "checkpoints", ""):
        pass


def test_a_lock_ends_with_a_killed_process(tmp_path: Path) -> None:
    killed_while(f"from lasps.files import held\nwith held(folder / 'lock', 'x', ''):\n    {WAIT}", tmp_path)
    assert (tmp_path / "lock").exists()
    with held(tmp_path / "lock", "x", ""):
        pass
    assert not (tmp_path / "lock").exists()
