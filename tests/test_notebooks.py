"""The notebooks: no logic of their own, no stored outputs, a question first and an answer from numbers last."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import polars as pl
import pytest

from lasps.config import clock
from lasps.config.settings import settings
from lasps.data.sources.files import read_bars, read_listing
from lasps.live.evening import run_evening
from lasps.live.folder import LiveFolder
from lasps.live.model import EveningModel
from lasps.pipeline.datasets import synthetic_source
from lasps.training.checkpoints import Checkpoint
from tests.market_by_day import at_six

NOTEBOOKS = sorted((settings.ROOT / "notebooks").glob("*.ipynb"))


def sources(path: Path, kind: str) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_the_four_notebooks_are_there():
    assert {path.stem for path in NOTEBOOKS} == {"compare_phases", "head_study", "live_record", "market_data"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_defines_no_logic(path):
    for source in sources(path, "code"):
        tree = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("%")))
        found = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda | ast.While)
            and not (isinstance(node, ast.Lambda) and "key=lambda" in source)
        ]
        assert not found, f"{path.name}: {ast.unparse(found[0])}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_its_question_and_ends_with_an_answer_from_numbers(path):
    title = sources(path, "markdown")[0].splitlines()[0]
    assert title.startswith("# ") and title.endswith("?")
    assert sources(path, "markdown")[-1].startswith("## The answer")
    last = sources(path, "code")[-1]
    assert "display(Markdown(" in last and "answer" in last


def run_script(name: str, *arguments: object, tracking_uri: str) -> None:
    environment = os.environ | {"MLFLOW_TRACKING_URI": tracking_uri, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, settings.ROOT / "experiments" / name, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=settings.ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def live_some_evenings(checkpoint: Path, data: Path, folder: Path, evenings: int = 40) -> None:
    """The last evenings of a synthetic dataset's market, one after another."""
    bars, listing = (read(path) for read, path in zip((read_bars, read_listing), synthetic_source(data), strict=True))
    days = bars["date"].cast(pl.Date).unique().sort().to_list()[-evenings:]
    model = EveningModel.of(Checkpoint.open(checkpoint))
    with pytest.MonkeyPatch.context() as patch:
        for day in days:
            patch.setattr(clock, "now", lambda day=day: at_six(day))
            run_evening(bars.filter(pl.col("date").cast(pl.Date) <= day), listing, LiveFolder(folder), model)


@pytest.mark.slow
def test_all_notebooks_run_on_a_tiny_pipeline_and_study(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    data, output, journal = tmp_path / "data", tmp_path / "checkpoints", tmp_path / "s.journal"
    shared = ["--data-dir", data, "--device", "cpu"]
    run_script("build_dataset.py", "--data-dir", data, "--preset", "tiny", tracking_uri=uri)
    run_script("train.py", *shared, "--output-dir", output, tracking_uri=uri)
    run_script("summarize.py", *shared, "--output-dir", output, tracking_uri=uri)
    run_script(
        "tune_phase2.py",
        *shared,
        "--checkpoint",
        output / "phase3_final.pt",
        "--trials",
        12,
        "--study",
        "s",
        "--storage",
        journal,
        tracking_uri=uri,
    )
    live_some_evenings(output / "phase2_best.pt", data, tmp_path / "live")
    where = ["--out", tmp_path / "reports", "--live-dir", tmp_path / "live"]
    run_script("run_notebooks.py", *where, "--study", "s", "--storage", journal, tracking_uri=uri)
    for path in NOTEBOOKS:
        executed = nbformat.read(tmp_path / "reports" / path.name, as_version=4)
        pictures = [
            output
            for cell in executed.cells
            for output in cell.get("outputs", [])
            if "image/png" in output.get("data", {})
        ]
        answer = executed.cells[-1].outputs[0].data["text/markdown"]
        assert len(pictures) >= 3 and answer.startswith("- ") and "nan" not in answer.lower(), path.stem
