"""Several checkpoints as one model, wherever one checkpoint is taken."""

import json
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from experiments import predict, validate_model
from lasps.data.datasets.dataset import Dataset
from lasps.evaluation.forecast import Forecast
from lasps.training.checkpoints import Checkpoint, described
from lasps.training.ensembles import Ensemble, open_model, write_ensemble
from tests.pipeline.conftest import call, move_heads


@pytest.fixture
def folder(job, tmp_path):
    """Two seeds' phase2_best that differ, and an ensemble.json of them."""
    for seed in (7, 8):
        own = tmp_path / f"seed{seed}"
        own.mkdir()
        shutil.copy(job.output_dir / "phase2_best.pt", own)
        meta = job.meta("phase2_best")
        meta["training"]["seed"] = seed
        (own / "phase2_best.json").write_text(described(meta))
        move_heads(own / "phase2_best.pt", meta, seed)
    write_ensemble(tmp_path / "ensemble.json", [tmp_path / f"seed{seed}" / "phase2_best.pt" for seed in (7, 8)])
    return tmp_path


def members_of(folder) -> list[Checkpoint]:
    return [Checkpoint.open(folder / f"seed{seed}" / "phase2_best.pt") for seed in (7, 8)]


def test_its_probabilities_are_the_mean_of_its_members_calibrated_ones(job, folder) -> None:
    dataset = Dataset.open(job.data_dir).split("test")
    a, b = (member.predict(dataset, "test") for member in members_of(folder))
    assert not np.allclose(a.p, b.p)
    listed = f"{folder}/seed7/phase2_best.pt,{folder}/seed8/phase2_best.pt"
    for where in (folder / "ensemble.json", listed):
        found = open_model(where).predict(dataset, "test")
        np.testing.assert_allclose(found.p, (a.p + b.p) / 2, rtol=0, atol=1e-12)
        assert (found.model, found.seed) == ("ensemble", None)


def test_it_is_validated_and_kept_under_its_own_name(job, folder, monkeypatch, capsys) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    code = call(
        monkeypatch,
        validate_model,
        *("--checkpoint", folder / "ensemble.json", "--data-dir", job.data_dir, "--split", "test", "--device", "cpu"),
        *("--json", folder / "m.json"),
    )
    assert code == 0 and "VALIDATION RESULTS" in capsys.readouterr().out
    kept = Forecast.read(folder / "predictions" / "ensemble.test.parquet")
    expected = open_model(folder / "ensemble.json").predict(Dataset.open(job.data_dir).split("test"), "test")
    np.testing.assert_allclose(kept.p, expected.p, atol=1e-6)
    assert json.loads((folder / "m.json").read_text())["n"] == kept.n


def test_a_days_forecast_is_the_mean_of_its_members_forecasts(job, folder, monkeypatch) -> None:
    job.market.panel.select("code", "date", "open", "high", "low", "close", "volume").write_parquet(
        folder / "bars.parquet"
    )
    job.market.listing.write_csv(folder / "listing.csv")
    market = ("--source", folder / "bars.parquet", "--listing", folder / "listing.csv")
    tables = {}
    for name in ("seed7/phase2_best.pt", "seed8/phase2_best.pt", "ensemble.json"):
        out = folder / f"{name.replace('/', '.')}.parquet"
        arguments = ("--checkpoint", folder / name, *market, "--out", out, "--device", "cpu")
        assert call(monkeypatch, predict, *arguments) == 0
        tables[name] = pl.read_parquet(out).sort("code").select("p_sell", "p_hold", "p_buy").to_numpy()
    a, b, both = tables.values()
    np.testing.assert_allclose(both, (a + b) / 2, rtol=0, atol=1e-12)


def test_a_member_that_was_changed_is_refused(folder) -> None:
    shutil.copy(folder / "seed7" / "phase2_best.pt", folder / "seed8" / "phase2_best.pt")
    with pytest.raises(ValueError, match="not the checkpoint that the ensemble was made of"):
        Ensemble.open(folder / "ensemble.json")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kind": "other", "name": "x", "members": []}'])
def test_a_file_that_is_no_ensemble_is_refused(folder, content) -> None:
    (folder / "ensemble.json").write_text(content)
    with pytest.raises(ValueError, match="expected"):
        Ensemble.open(folder / "ensemble.json")


def test_one_member_twice_or_alone_or_of_other_features_is_refused(folder) -> None:
    a, b = members_of(folder)
    with pytest.raises(ValueError, match="at least two"):
        Ensemble.of([a])
    with pytest.raises(ValueError, match="named twice"):
        Ensemble.of([a, a])
    other = replace(b, card=replace(b.card, data=b.card.data | {"window": 61}))
    with pytest.raises(ValueError, match="differ in window"):
        Ensemble.of([a, other])
