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
FILES = {"source": "bars.parquet", "listing": "listing.csv", "recipe": "recipe.json"}


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


@pytest.mark.slow
def test_refits_on_two_workers_score_as_one_after_another_and_stand_when_given_again(
    job, tiny_recipe, tmp_path: Path
) -> None:
    market, calendar = job.market, sorted(job.market.panel["date"].unique())
    tiny_recipe.write(tmp_path / "recipe.json")
    market.panel.write_parquet(tmp_path / "bars.parquet")
    market.listing.write_csv(tmp_path / "listing.csv")
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"OMP_NUM_THREADS": "1"}

    def walk(out: str, *more: str) -> dict[str, str]:
        files = [f"--{name}={tmp_path / file}" for name, file in FILES.items()]
        days = ["--first", str(calendar[-60]), "--last", str(calendar[-10]), "--every", "20"]
        script = [sys.executable, str(ROOT / "experiments" / "walk_forward.py"), *files, *days, *more]
        folders = ["--output-dir", str(tmp_path / out), "--results", str(tmp_path / out / "scores"), "--device", "cpu"]
        subprocess.run([*script, *folders], env=environment, check=True, capture_output=True)
        return {path.name: path.read_text() for path in sorted((tmp_path / out / "scores").glob("*.csv"))}

    plain = walk("plain")
    assert len(plain) == 3
    assert walk("fanned", "--workers", "2") == plain
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "fanned" / "scores").iterdir()}
    walk("fanned", "--workers", "2")
    assert {path: path.stat().st_mtime_ns for path in times if path.suffix == ".csv"} == {
        path: at for path, at in times.items() if path.suffix == ".csv"
    }
