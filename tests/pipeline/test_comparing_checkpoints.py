"""Checkpoints of several seeds compared by one command, and where their predictions are kept."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

from experiments import compare, validate_model
from lasps.config.settings import Settings
from lasps.data.datasets.dataset import Dataset
from lasps.evaluation.prediction_schema import P_COLUMNS
from lasps.pipeline.validation import validate_checkpoint
from lasps.tracking import runs
from lasps.training.checkpoints import Checkpoint, described
from tests.pipeline.conftest import call, move_heads


@pytest.fixture
def seeds(job, tmp_path):
    """The job's checkpoints as if two seeds had made them."""
    folders = []
    for seed in (7, 8):
        folders.append(tmp_path / f"seed{seed}")
        folders[-1].mkdir()
        for name in ("phase1_best", "phase3_final", "phase2_best"):
            shutil.copy(job.output_dir / f"{name}.pt", folders[-1])
            meta = job.meta(name)
            meta["training"]["seed"] = seed
            (folders[-1] / f"{name}.json").write_text(described(meta))
        move_heads(folders[-1] / "phase2_best.pt", meta, seed)
    return folders


def test_seeds_of_two_models_and_every_baseline_are_one_command(job, seeds, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "settings", Settings(REPORT_DIR=tmp_path / "reports"))
    models = [
        f"{name}={','.join(str(f / file) for f in seeds)}"
        for name, file in (("phase3", "phase3_final.pt"), ("phase2", "phase2_best.pt"))
    ]
    code = call(
        monkeypatch,
        compare,
        *models,
        "--baselines",
        "--data-dir",
        job.data_dir,
        "--device",
        "cpu",
        "--no-track",
        "--json",
        tmp_path / "r.json",
    )
    found = json.loads((tmp_path / "r.json").read_text())
    assert code == 0 and found["verdict"].split(" (")[0] in capsys.readouterr().out
    assert {
        "majority",
        "prior",
        "sector_prior",
        "volatility_bins",
        "persistence",
        "minus_volatility_20",
        "minus_return_5",
        "logistic_regression",
        "lightgbm",
        "lightgbm_plain",
        "mlp",
        "ensemble",
        "blend",
        "phase1_best",
    } < set(found["models"])
    assert [s["seed"] for s in found["models"]["phase2"]["test"]["seeds"]] == [7, 8]
    assert found["models"]["phase1_best"]["test"]["baseline"] and not found["models"]["phase2"]["test"]["baseline"]
    pair = next(p for p in found["pairs"] if (p["a"], p["b"]) == ("phase3", "phase2"))
    assert (pair["n_seeds"], pair["over"]) == (2, "seeds and days")
    kept = pl.read_parquet(seeds[1] / "predictions" / "phase2_best.test.parquet")
    assert kept["seed"].unique().to_list() == [8] and kept["model"].unique().to_list() == ["phase2_best"]


def test_the_validation_of_a_bare_checkpoint_is_a_file_and_a_run_of_its_own(job, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    shutil.copy(job.output_dir / "phase2_best.pt", tmp_path / "bare.pt")
    code = call(
        monkeypatch,
        validate_model,
        "--checkpoint",
        tmp_path / "bare.pt",
        "--data-dir",
        job.data_dir,
        "--device",
        "cpu",
        "--split",
        "test",
    )
    table = pl.read_parquet(tmp_path / "predictions" / "bare.test.parquet")
    again = validate_checkpoint(
        Checkpoint.open(tmp_path / "bare.pt"), Dataset.open(job.data_dir), "test"
    ).forecast.table
    np.testing.assert_allclose(table.select(P_COLUMNS), again.select(P_COLUMNS), atol=1e-6)
    logged = runs()
    assert code == 0 and logged["name"].to_list() == ["validate bare"] and logged["metrics.test/n"][0] == len(table)
