"""Configs are plain dicts where they are read, and refuse to be written."""

import json
import pickle

import pytest

from lasps.config.model_config import MODEL_CONFIG, THREE_PHASE_CONFIG, TRAINING_CONFIG, FrozenDict
from lasps.config.settings import CLASS_NAMES, ROOT, settings
from lasps.data.features import DEFAULT_FEATURES


def test_the_seed_indexes_configs_as_dicts() -> None:
    phase2 = THREE_PHASE_CONFIG["phase2_sector_heads"]
    assert (phase2["epochs_per_sector"], phase2["lr"], phase2["min_samples"]) == (10, 5e-4, 100)
    assert phase2.get("min_samples", 1) == 100
    assert MODEL_CONFIG["num_sectors"] == 20
    assert MODEL_CONFIG["linear_transformer"]["input_dim"] == len(DEFAULT_FEATURES)


def test_a_config_cannot_be_changed_in_any_of_a_dicts_ways() -> None:
    config = FrozenDict(lr=1.0)
    for change in (
        lambda: config.__setitem__("lr", 2.0),
        lambda: config.update(lr=2.0),
        lambda: config.pop("lr"),
        lambda: config.setdefault("x", 1),
        lambda: config.__delitem__("lr"),
        config.clear,
        config.popitem,
        lambda: config.__ior__({"lr": 2.0}),
    ):
        with pytest.raises(TypeError, match="read-only"):
            change()
    assert config == {"lr": 1.0}


def test_a_config_survives_json_and_pickle() -> None:
    assert json.loads(json.dumps(TRAINING_CONFIG)) == dict(TRAINING_CONFIG)
    assert pickle.loads(pickle.dumps(MODEL_CONFIG)) == MODEL_CONFIG


def test_phase3_is_the_plans() -> None:
    assert THREE_PHASE_CONFIG["phase3_finetune"]["epochs"] == 5
    assert THREE_PHASE_CONFIG["phase3_finetune"]["lr"] == 1e-5


def test_default_paths_hang_on_the_repo_root_and_classes_weigh_the_same() -> None:
    assert (ROOT / "pyproject.toml").is_file()
    assert settings.DATA_DIR == ROOT / "data" / "processed"
    assert settings.CLASS_WEIGHTS == (1, 1, 1)
    assert CLASS_NAMES == ("SELL", "HOLD", "BUY")
