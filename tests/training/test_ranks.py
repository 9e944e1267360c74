"""Several processes train what one would: the same losses and weights to rounding, one state, one word on val."""

import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lasps.training.batches import BatchLoader
from lasps.training.ranks import Ranks
from lasps.training.trainer import share_batches
from tests.training.one_of_several import train
from tests.training.tiny import TinyDataset

ROOT = Path(__file__).resolve().parents[2]


def together(out: Path, processes: int = 2, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `one_of_several` under torchrun."""
    words = [f"{key}={value}" for key, value in options.items()]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*start, "-m", "tests.training.one_of_several", str(out), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def found_by(out: Path, rank: int = 0) -> dict:
    return torch.load(out.with_suffix(f".{rank}"), weights_only=False)


def assert_alike(one: dict, other: dict) -> None:
    for phase in (1, 3):
        for name in ("train_loss", "val_loss", "val_log_loss", "lr"):
            assert one["history"][phase][name] == pytest.approx(other["history"][phase][name], abs=1e-5), name
        assert one["history"][phase]["best_epoch"] == other["history"][phase]["best_epoch"]
    # weights of no effect (a bias before a norm) follow rounding alone, which Adam blows up: outputs are compared
    np.testing.assert_allclose(one["logits"], other["logits"], atol=1e-4)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@given(n=st.integers(0, 1000), size=st.integers(1, 9))
def test_the_shares_of_a_batch_are_the_batch_in_order_and_as_even_as_can_be(n: int, size: int) -> None:
    parts = [list(range(n)[Ranks(rank, size).share(n)]) for rank in range(size)]
    assert list(chain(*parts)) == list(range(n)) and max(map(len, parts)) - min(map(len, parts)) <= 1


@given(n=st.integers(1, 60), batch=st.integers(1, 25), size=st.integers(1, 4))
def test_all_ranks_together_read_every_sample_of_a_batch_once(n: int, batch: int, size: int) -> None:
    whole = BatchLoader(TinyDataset(n), batch, shuffle=True, seed=3)
    parts = [BatchLoader(TinyDataset(n), batch, shuffle=True, seed=3) for _ in range(size)]
    for rank, loader in enumerate(parts):
        loader.ranks = Ranks(rank, size)
    for number, (expected, *own) in enumerate(zip(whole._parts(), *(loader._parts() for loader in parts), strict=True)):
        assert whole.size_of(number) == len(expected)
        shares = [len(range(len(expected))[Ranks(rank, size).share(len(expected))]) for rank in range(size)]
        counted = [part[:share] for part, share in zip(own, shares, strict=True)]
        assert [index for part in counted for index in part] == list(expected)
        assert all(len(part) for part in own)


def test_two_processes_train_what_one_does_to_rounding(tmp_path) -> None:
    """58 samples in batches of 15, shared unevenly; 61 in batches of 60, whose last one has a single sample."""
    for n, batch in ((58, 15), (61, 60)):
        done = together(tmp_path / f"{n}", n=n, batch=batch)
        assert done.returncode == 0, done.stderr[-3000:]
        alone = train(Ranks(), n=n, batch=batch)
        assert_alike(found_by(tmp_path / f"{n}"), alone)
        assert_alike(found_by(tmp_path / f"{n}", 1), alone)


def test_with_dropout_the_ranks_draw_other_noise_and_end_with_the_same_weights(tmp_path) -> None:
    done = together(tmp_path / "noisy", dropout=1)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second, quiet = found_by(tmp_path / "noisy"), found_by(tmp_path / "noisy", 1), train(Ranks())
    assert all(torch.equal(value, second["state"][name]) for name, value in first["state"].items())
    assert first["seed"] != second["seed"]
    assert first["history"][1]["train_loss"] != pytest.approx(quiet["history"][1]["train_loss"], abs=1e-5)


def test_a_rank_that_fails_stops_all_and_the_state_resumes_with_another_number(tmp_path) -> None:
    done = together(tmp_path / "died", folder=tmp_path / "state", die=1)
    assert done.returncode != 0 and "rank 1 has had enough" in done.stderr
    assert list((tmp_path / "state").glob("phase1*")) and not list(tmp_path.glob("died.*"))
    resumed = train(Ranks(), folder=tmp_path / "state", resume=1)
    assert_alike(resumed, train(Ranks()))


def test_another_kind_of_loader_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a BatchLoader"):
        share_batches(DataLoader(TinyDataset(), 8), Ranks(0, 2), 1)


def test_alone_nothing_is_asked_of_anybody(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks, model = Ranks.started("cpu"), torch.nn.Linear(2, 2)
    assert ranks == Ranks() and ranks.wrapped(model) is model and ranks.told("x") == "x"
    assert ranks.total(1, 2.5) == [1, 2.5] and ranks.device("cuda") == "cuda" and ranks.share(7) == slice(0, 7)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert Ranks(3, 4).device("cuda") == "cuda:3" and Ranks(3, 4).device("cpu") == "cpu"
