"""A tiny checkpoint that commit 9cef49f saved goes on loading, to the numbers that it had there.

`checkpoint_9cef49f/` holds it (heads of four sectors, one of them trained with the cross-entropy) and `expected.json`,
what that commit's validate_checkpoint said of it on the arrays below.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from lasps.data.datasets.dataset import Dataset
from lasps.pipeline.validation import validate_checkpoint
from lasps.training.checkpoints import Checkpoint

HERE = Path(__file__).parent / "checkpoint_9cef49f"
EXPECTED = json.loads((HERE / "expected.json").read_text())


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of four arrays per split in the interchange format."""
    folder = tmp_path_factory.mktemp("arrays")
    for seed, split in enumerate(("train", "val", "test")):
        rng, n = np.random.default_rng(seed), 120
        made = {
            "time_series": rng.standard_normal((n, 12, 6)).astype(np.float32),
            "chart_images": rng.integers(0, 256, (n, 3, 16, 20), dtype=np.uint8),
            "sector_ids": rng.integers(0, 4, n),
            "labels": rng.integers(0, 3, n),
        }
        (folder / split).mkdir()
        for name, values in made.items():
            np.save(folder / split / f"{name}.npy", values)
    return folder


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_checkpoint_of_9cef49f_validates_to_the_same_numbers(arrays: Path, split: str) -> None:
    found = validate_checkpoint(Checkpoint.open(HERE / "phase2_best.pt"), Dataset.open(arrays), split).metrics
    assert {name: found[name] for name in EXPECTED[split]} == pytest.approx(EXPECTED[split], abs=1e-6)


def test_its_bare_state_dict_does_too(arrays: Path, tmp_path: Path) -> None:
    bare = shutil.copy(HERE / "phase2_best.pt", tmp_path / "phase2_best.pt")
    found = validate_checkpoint(Checkpoint.open(Path(bare)), Dataset.open(arrays), "val").metrics
    assert {name: found[name] for name in EXPECTED["bare val"]} == pytest.approx(EXPECTED["bare val"], abs=1e-6)


def test_its_logits_are_the_same_and_its_heads_have_no_linear_path(arrays: Path) -> None:
    model = Checkpoint.open(HERE / "phase2_best.pt").model
    names = ("time_series", "chart_images", "sector_ids")
    batch = [torch.from_numpy(np.load(arrays / "val" / f"{name}.npy"))[:3] for name in names]
    with torch.no_grad():
        logits = model(*batch)["logits"]
    # Processors round sums differently: 1.3e-6 was seen between two of them.
    torch.testing.assert_close(logits, torch.tensor(EXPECTED["logits"]), atol=1e-5, rtol=0)
    assert not any(".linear." in name for name in model.state_dict())
