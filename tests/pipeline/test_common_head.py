"""The control for sector heads: one refitted head, the same for every sector, on a backbone that stays."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import seeds
from lasps.pipeline.common_head import COMMON_HEAD, refit_common_head
from lasps.pipeline.validation import open_checkpoint, validate_checkpoint
from lasps.training.checkpoints import load_checkpoint
from tests.pipeline.conftest import Job, call


@pytest.fixture(scope="module")
def refitted(job: Job, tmp_path_factory: pytest.TempPathFactory):
    options = replace(job.options, output_dir=tmp_path_factory.mktemp("control"),
                      checkpoint=job.output_dir / "phase3_final.pt")
    return refit_common_head(options), options


def test_every_sector_gets_the_same_new_head_and_the_backbone_stays_bitwise(job, refitted):
    before, _ = load_checkpoint(job.output_dir / "phase3_final.pt")
    after, meta = load_checkpoint(refitted[0])
    heads = ("sector_heads.", "common_head.")
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith(heads))
    for name in (name for name in after if name.startswith("common_head.")):
        own = [after[f"sector_heads.{sector}.{name.removeprefix('common_head.')}"] for sector in range(20)]
        assert all(torch.equal(after[name], head) for head in own)
        assert meta["history"]["best_epoch"] == 0 or not torch.equal(before[name], after[name])
    assert meta["name"] == COMMON_HEAD


def test_what_it_writes_down_is_what_a_validation_finds(job, refitted):
    history = json.loads(refitted[0].with_suffix(".json").read_text())["history"]
    found = validate_checkpoint(open_checkpoint(refitted[0]), job.data_dir, "val").metrics["log_loss"]
    assert found == pytest.approx(min(history["val_log_loss"]), abs=1e-5)
    assert history["best_epoch"] == int(np.argmin(history["val_log_loss"])) and len(history["val_log_loss"]) == 4


def test_said_again_it_is_kept(refitted):
    path, options = refitted
    made = path.stat().st_mtime_ns
    assert refit_common_head(options) == path and path.stat().st_mtime_ns == made


def test_heads_of_different_losses_are_no_start(job, refitted, tmp_path):
    start = tmp_path / "phase2_best.pt"
    shutil.copy(job.output_dir / "phase2_best.pt", start)
    meta = job.meta("phase2_best") | {"calibration": {"focal_gamma": [0.0] * 20, "class_weights": [1.0] * 3}}
    start.with_suffix(".json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match="expected a checkpoint of Phase 1 or 3"):
        refit_common_head(replace(refitted[1], checkpoint=start, output_dir=tmp_path))


def test_the_phases_and_controls_of_a_seed_are_one_command_that_keeps_what_is_finished(
        job, tmp_path, monkeypatch, capsys):
    flags = ["--data-dir", job.data_dir, "--output-dir", tmp_path, "--seeds", 8, "--epochs", 1, "--min-samples", 10,
             "--phase2-holdout", 0.25, "--no-charts", "--no-track", "--device", "cpu",
             "--json", tmp_path / "models.json"]  # fmt: skip
    assert call(monkeypatch, seeds, *flags) == 0
    models = json.loads((tmp_path / "models.json").read_text())
    assert list(models) == ["phase1_best", "phase3_final", "phase3_longer", "common_head", "phase2_best"]
    made = {name: Path(file).stat().st_mtime_ns for name, (file,) in models.items()}
    metas = {name: json.loads(Path(file).with_suffix(".json").read_text()) for name, (file,) in models.items()}
    assert {meta["training"]["seed"] for meta in metas.values()} == {8}
    assert {meta["phase"]["phase2_holdout"] for meta in metas.values()} == {0.25}
    assert metas["phase3_longer"]["input"]["sha256"] == metas["common_head"]["input"]["sha256"]
    assert f"phase2_best={models['phase2_best'][0]} --data-dir" in capsys.readouterr().out
    assert call(monkeypatch, seeds, *flags) == 0
    assert {name: Path(file).stat().st_mtime_ns for name, (file,) in models.items()} == made
