"""A study on two workers, of which one is killed in the middle, ends with the numbers of a plain run."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from lasps.pipeline.datasets import build_synthetic

ROOT = Path(__file__).resolve().parents[2]


def command(data: Path, out: Path, *more: str) -> list[str]:
    folders = ["--data-dir", str(data), "--output-dir", str(out)]
    fixed = ["--seeds", "7", "8", "--no-charts", "--no-longer", "--no-track", "--device", "cpu"]
    return [sys.executable, str(ROOT / "experiments" / "seeds.py"), *folders, *fixed, *more]


def kill_one_worker(study: subprocess.Popen[bytes], when: Path) -> None:
    """kill -9 of the process that trains seed 7, as soon as a file is there."""
    for _ in range(1200):
        if when.exists():
            for process in psutil.Process(study.pid).children(recursive=True):
                if process.cmdline()[:1] == ["ray::seed 7"]:
                    process.kill()
                    return
        time.sleep(0.1)
    raise AssertionError(f"no worker trained seed 7 when {when} was there")


@pytest.mark.slow
def test_a_study_of_which_a_worker_is_killed_ends_with_the_same_numbers(tmp_path: Path) -> None:
    data = tmp_path / "data"
    build_synthetic(data, "tiny", 7, "sector", materialize=False, force=True)
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"OMP_NUM_THREADS": "1"}
    plain, fanned = tmp_path / "plain", tmp_path / "fanned"
    subprocess.run(command(data, plain), env=environment, cwd=tmp_path, check=True)
    with subprocess.Popen(command(data, fanned, "--workers", "2"), env=environment, cwd=tmp_path) as study:
        kill_one_worker(study, fanned / "seed7" / "phase1_best.pt")
    assert study.returncode == 0
    for seed in (7, 8):
        own, other = (
            torch.load(folder / f"seed{seed}" / "phase2_best.pt", weights_only=True) for folder in (plain, fanned)
        )
        assert own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)
