"""The wheel holds lasps alone; in a checkout, experiments run and import from any folder."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from experiments.count_statements import ROOTS, count
from lasps import __version__

ROOT = Path(__file__).resolve().parents[1]


def run(*words: object, folder: Path) -> str:
    """What `python WORDS` prints in another folder, with no help from PYTHONPATH."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_wheel_holds_lasps_without_experiments_and_tests() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["packages"]["find"]["include"] == ["lasps*"]


@pytest.mark.parametrize("script", ["train", "train_phase2", "validate_model"])
def test_a_script_of_the_checkout_runs_from_any_folder(script: str, tmp_path: Path) -> None:
    assert "--data-dir" in run(ROOT / "experiments" / f"{script}.py", "--help", folder=tmp_path)


def test_the_collate_function_is_imported_from_any_folder(tmp_path: Path) -> None:
    code = "from experiments.train import stock_collate_fn; import lasps; print(lasps.__file__)"
    assert run("-c", code, folder=tmp_path).strip() == str(ROOT / "lasps" / "__init__.py")


def test_the_version_is_that_of_the_citation() -> None:
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_size_of_the_code_counts_each_statement_once(tmp_path: Path) -> None:
    for name, text in (("lasps/a.py", "x = 1\n"), ("lasps/data/b/c.py", "def f():\n    return (1,\n        2)\n")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert count(tmp_path) == {"lasps": 1, "lasps/data": 2}
    assert set(ROOTS) < {path.name for path in ROOT.iterdir()}
