"""Seeds, digests, the commit, and files that are whole or not there."""

import hashlib
import json
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from lasps.reproducibility import (
    derived_seed,
    git_commit,
    json_text,
    seed_everything,
    sha256_of,
    tensor_fingerprint,
    write_atomically,
)


def test_one_seed_repeats_every_generator():
    draws = []
    for _ in range(2):
        seed_everything(2**40 + 3)
        draws.append((random.random(), np.random.rand(), float(torch.rand(()))))  # noqa: NPY002
    assert draws[0] == draws[1]


def test_derived_seeds_differ_in_every_part_and_never_change():
    assert derived_seed(7, "phase1", 0) == derived_seed(7, "phase1", 0) == 6369749188064937691
    others = {derived_seed(7, "phase1", 1), derived_seed(7, "phase3", 0), derived_seed(8, "phase1", 0)}
    assert len(others | {derived_seed(7, "phase1", 0)}) == 4
    assert all(0 <= seed < 2**63 for seed in others)


def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 1_000_000)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_a_tensor_fingerprint_sees_one_bit_a_name_a_type_and_a_shape_but_not_the_order():
    state = {"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.int64)}
    base = tensor_fingerprint(state)
    assert tensor_fingerprint(dict(reversed(state.items()))) == base
    assert tensor_fingerprint({"a": torch.zeros(3, 2).T, "b": state["b"]}) == base  # strides are not content
    changed = [
        {"a": -torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(2, 3, dtype=torch.int32)},
        {"b": torch.tensor([1, 1, 1, 2])},
        {"c": torch.zeros(1)},
    ]
    assert len({base, *(tensor_fingerprint(state | change) for change in changed)}) == 6
    assert tensor_fingerprint({"a": torch.zeros((), dtype=torch.bfloat16)}) != base


def test_the_commit_is_named_and_changes_are_told(tmp_path):
    assert git_commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (tmp_path / "x").write_text("1")
    for arguments in (["init", "-q"], ["add", "x"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *arguments], check=True)
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "x").write_text("2")
    assert git_commit(tmp_path) == commit + "+changes"


@pytest.mark.parametrize("content", ["new", b"new", lambda file: file.write(b"new")])
def test_an_atomic_write_replaces_the_whole_file_and_makes_its_folder(tmp_path, content):
    path = tmp_path / "a" / "b.txt"
    for _ in range(2):
        write_atomically(path, content)
        assert path.read_text() == "new"
    assert [file.name for file in path.parent.iterdir()] == ["b.txt"]


def test_an_error_or_ctrl_c_while_writing_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "b.txt"
    path.write_text("old")

    def dies(file):
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, dies)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_json_has_numbers_of_numpy_as_numbers_and_null_for_what_is_not_finite():
    content = {
        1: np.float32("nan"),
        "inf": [float("inf")],
        "n": np.int64(3),
        "a": np.arange(2),
        "path": Path("a/b"),
        "name": "삼성전자",
    }
    text = json_text(content)
    assert json.loads(text) == {"1": None, "inf": [None], "n": 3, "a": [0, 1], "path": "a/b", "name": "삼성전자"}
    assert "삼성전자" in text and text.endswith("}\n")
