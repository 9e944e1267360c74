"""A class that train does not have: refused before any training, and no obstacle to evaluation."""

import numpy as np
import pytest

from experiments import compare, train, train_phase2, validate_model
from lasps.config.settings import Settings
from lasps.models.sector_aware_model import SectorAwareFusionModel
from lasps.training.checkpoints import save_checkpoint
from tests.pipeline.conftest import call


@pytest.fixture
def data_dir(tmp_path):
    """The four arrays per split, without a BUY in train."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 60), ("val", 30), ("test", 30)):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        np.save(folder / "time_series.npy", rng.normal(size=(n, 8, 5)).astype(np.float32))
        np.save(folder / "chart_images.npy", rng.integers(0, 255, (n, 3, 16, 16)).astype(np.uint8))
        np.save(folder / "sector_ids.npy", np.arange(n) % 20)
        np.save(folder / "labels.npy", np.arange(n) % (2 if split == "train" else 3))
    return tmp_path / "data"


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "foreign.pt"
    save_checkpoint(path, SectorAwareFusionModel(ts_input_dim=5).state_dict(), {})
    return path


def test_training_is_refused_before_anything_is_written(data_dir, checkpoint, tmp_path, monkeypatch, capsys):
    common = ("--data-dir", data_dir, "--output-dir", tmp_path / "out", "--device", "cpu")
    assert call(monkeypatch, train, *common, "--no-track", "--phase", "1") == 2
    assert "train: expected samples of every class, found no BUY among 60" in capsys.readouterr().err
    assert call(monkeypatch, train_phase2, *common, "--no-track", "--checkpoint", checkpoint) == 2
    assert "found no BUY" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.pt"))


def test_a_model_from_elsewhere_is_validated_and_compared_on_it(data_dir, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "settings", Settings(REPORT_DIR=tmp_path / "reports"))
    common = ("--data-dir", data_dir, "--device", "cpu", "--no-track")
    assert call(monkeypatch, validate_model, "--checkpoint", checkpoint, *common) == 0
    assert "(prior: -)" in capsys.readouterr().out
    assert call(monkeypatch, compare, checkpoint, *common, "--baselines") == 0
