"""What is given to make reaches the scripts as it is: nothing of it runs in make or in the shell."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NASTY = [
    "a b",
    "it's",
    'say "x"',
    "$HOME",
    "$(touch evil)",
    "`touch evil`",
    "$(shell touch evil)",
    "a$$b",
    "x;touch evil",
    "한글 폴더",
    "back\\slash",
    "a,b=c",
]


@pytest.fixture
def make(tmp_path: Path):
    """make(target, *words): the arguments of each call of a script, which a stand-in for Python writes down."""
    shown = tmp_path / "python"
    shown.write_text("#!/bin/bash\n{ printf '%s\\x1f' \"$@\"; echo; } >> " + f"'{tmp_path}/calls'\n")
    shown.chmod(0o755)
    (tmp_path / "stamp").touch()

    def run(target: str, *words: str, **env: str) -> list[list[str]]:
        (tmp_path / "calls").unlink(missing_ok=True)
        subprocess.run(
            [
                "make",
                "-s",
                "-f",
                ROOT / "Makefile",
                f"PY={shown}",
                f"STAMP={tmp_path / 'stamp'}",
                "-o",
                str(tmp_path / "stamp"),
                target,
                *words,
            ],
            cwd=ROOT,
            check=True,
            capture_output=True,
            env={**os.environ, **env, "MAKEFLAGS": ""},
        )
        assert not (ROOT / "evil").exists()
        return [line.split("\x1f")[:-1] for line in (tmp_path / "calls").read_text(encoding="utf-8").splitlines()]

    return run


def after(call: list[str], flag: str) -> str:
    return call[call.index(flag) + 1]


@pytest.mark.parametrize("value", NASTY)
def test_a_folder_of_any_name_is_passed_on_literally(make, value: str) -> None:
    (call,) = make("data", f"DATA_DIR={value}", f"SOURCE={value}")
    assert after(call, "--data-dir") == value and after(call, "--source") == value
    for call in make("train", OUTPUT_DIR=value, DATA_DIR=value):  # from the environment
        assert after(call, "--data-dir") == value
        assert "--output-dir" not in call or after(call, "--output-dir") == value


@pytest.mark.parametrize("value", NASTY)
def test_a_make_below_passes_the_same_on(make, value: str) -> None:
    build, again, train, summary, validate = make("validate", f"OUTPUT_DIR={value}", "DATA_DIR=none", "SPLIT=test")
    assert after(train, "--output-dir") == after(summary, "--output-dir") == value
    assert after(validate, "--checkpoint") == f"{value}/phase2_best.pt" and after(validate, "--split") == "test"
    assert "--if-missing" in build and "--if-missing" in again


@pytest.mark.parametrize("value", NASTY)
def test_who_is_promoted_and_why_is_passed_on_literally(make, value: str) -> None:
    (call,) = make("promote", f"MODEL={value}", f"LIVE={value}")
    assert call[1] == after(call, "--live-dir") == value and "--reason" not in call
    for (call,) in (make("rollback", f"REASON={value}"), make("rollback", REASON=value)):
        assert after(call, "--reason") == value and "--rollback" in call
    (call,) = make("daily", f"RECIPE={value}", f"LIVE={value}")
    assert after(call, "--recipe") == after(call, "--live-dir") == value and "--checkpoint" not in call


def test_lists_are_words_each_taken_literally(make) -> None:
    *_, compare = make("compare", "MODELS=a=x.pt,y.pt $HOME `touch${IFS}evil` it's", "CHECKPOINT=c")
    assert compare[1:5] == ["a=x.pt,y.pt", "$HOME", "`touch${IFS}evil`", "it's"]
    *_, seeds = make("seeds", "SEEDS=7 8", 'ARGS=--x "a b"')
    assert seeds[-5:] == ["--seeds", "7", "8", "--x", "a b"]
