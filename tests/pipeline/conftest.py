"""One tiny market, built and trained once for all the tests of the main job."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from experiments._cli import run_script
from lasps.data.datasets.dataset import Dataset
from lasps.data.sources.synthetic import SyntheticMarket, make_market
from lasps.data.spec import DatasetSpec
from lasps.data.splits import Borders
from lasps.pipeline.baseline_cache import BaselineCache, cached_baselines
from lasps.pipeline.datasets import BuildOptions, build_from_bars
from lasps.pipeline.phase_options import PhaseOptions
from lasps.pipeline.phases import run_phases
from lasps.pipeline.recipe import PhaseRecipe, Recipe, frozen
from lasps.training.checkpoints import load_checkpoint, save_checkpoint

N_DAYS = 260


@dataclass(frozen=True)
class Job:
    """A finished main job: its market, folders and options."""

    market: SyntheticMarket
    data_dir: Path
    output_dir: Path
    options: PhaseOptions

    def meta(self, name: str) -> dict:
        return json.loads((self.output_dir / f"{name}.json").read_text())


def call(monkeypatch: pytest.MonkeyPatch, script: ModuleType, *arguments: object) -> int:
    """The exit status of a script of experiments/ with these arguments."""
    monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        run_script(script.main)
    return end.value.code


def move_heads(checkpoint: Path, meta: dict, seed: int) -> None:
    """Save the checkpoint again with every second sector's head moved a little: too few samples here to train one."""
    state, _ = load_checkpoint(checkpoint)
    noise = torch.Generator().manual_seed(seed)
    for name in [f"sector_heads.{sector}.fc2.bias" for sector in range(0, 20, 2)]:
        state[name] = state[name] + 0.3 * torch.randn(3, generator=noise)
    save_checkpoint(checkpoint, state, meta)


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("main_job")
    market = make_market(seed=3, n_stocks=40, n_days=N_DAYS)
    build_from_bars(
        market.panel,
        market.listing,
        Borders.from_dict(market.borders),
        {"name": "synthetic"},
        BuildOptions(folder / "data", DatasetSpec(stride={"train": 6, "val": 4, "test": 4})),
        oracle=market.oracle,
    )
    options = PhaseOptions(
        folder / "data",
        folder / "checkpoints",
        overrides={"epochs": 1, "epochs_per_sector": 3, "min_samples": 40, "lr": None},
    )
    run_phases((1, 3, 2), options)
    return Job(market, folder / "data", folder / "checkpoints", options)


@pytest.fixture(scope="session")
def tiny_recipe(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The job's recipe cut down to a moment's training: two networks without charts, two boosters."""
    data, cache = Dataset.open(job.data_dir), tmp_path_factory.mktemp("cache")
    cached_baselines(data, ("val", "test"), cache, ["lightgbm"], {"lightgbm": 1})
    found = frozen([job.output_dir], len(data.train), BaselineCache.of(data, cache))
    small = {"epoch_samples": 128, "phase1": PhaseRecipe(1, 1e-3, 1), "phase3": None, "phase2": None, "charts": False}
    networks = tuple(replace(found.networks[0], seed=seed, **small) for seed in (1, 2))
    return replace(found, networks=networks, trees={0: 2, 1: 3})
