"""Whatever happens to a checkpoint, loading gives its weights or an error with advice."""

import io
import json
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from loguru import logger

from lasps.training import checkpoints
from lasps.training.checkpoints import load_checkpoint, save_checkpoint
from tests.training.tiny import make_model, same


@pytest.fixture
def state():
    return {"a.weight": torch.arange(600.0).view(20, 30), "a.steps": torch.tensor(3)}


@pytest.fixture
def path(tmp_path, state):
    save_checkpoint(tmp_path / "phase1_best.pt", state, {"name": "phase1_best"})
    return tmp_path / "phase1_best.pt"


@pytest.fixture
def warnings_seen():
    seen = []
    handler = logger.add(lambda message: seen.append(str(message)), level="WARNING")
    yield seen
    logger.remove(handler)


def bare(path):
    """Leave the .pt alone, as somebody else's checkpoint."""
    path.with_suffix(".json").unlink()


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# ------------------------------------------------------------------------------------------------ saving


def test_what_is_saved_is_a_bare_state_dict_that_torch_alone_can_load(path, state):
    assert same(torch.load(path, weights_only=True), state)


def test_a_checkpoint_comes_back_with_its_meta(path, state, warnings_seen):
    found, meta = load_checkpoint(path)
    assert same(found, state)
    assert meta["name"] == "phase1_best"
    assert not warnings_seen


def test_the_same_weights_give_the_same_bytes(path, state, tmp_path):
    other = tmp_path / "elsewhere" / "b.pt"
    save_checkpoint(other, state, {})
    assert other.read_bytes() == path.read_bytes()


def test_numpy_values_nan_and_paths_in_the_meta_are_readable_json(tmp_path, state):
    meta = {"x": np.float32(0.5), "n": np.int64(3), "bad": float("nan"), "list": np.arange(2), "path": tmp_path}
    save_checkpoint(tmp_path / "c.pt", state, meta)
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["x"], found["n"], found["bad"], found["list"]) == (0.5, 3, None, [0, 1])


def test_weights_that_are_not_finite_are_not_saved_and_nothing_is_touched(path, state):
    before = files(path.parent)
    state["a.weight"][3, 4] = float("inf")
    with pytest.raises(ValueError, match=r"a\.weight"):
        save_checkpoint(path, state, {})
    assert files(path.parent) == before


def test_meta_that_is_no_json_leaves_the_old_files(path, state):
    before = files(path.parent)
    with pytest.raises(TypeError):
        save_checkpoint(path, state, {"what": object()})
    assert files(path.parent) == before


@pytest.mark.parametrize("dies_at", range(5))
def test_a_kill_at_any_moment_leaves_a_checkpoint_that_loads(path, state, monkeypatch, dies_at):
    """Every call that changes the disk is a moment; what stands there then must load as the old or the new."""
    new = {name: tensor + 1 for name, tensor in state.items()}
    calls = []

    def dying(real):
        def call(*args, **kwargs):
            if len(calls) == dies_at:
                raise KeyboardInterrupt
            calls.append(real)
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(checkpoints, "write_synced", dying(checkpoints.write_synced))
    monkeypatch.setattr(checkpoints, "sync", dying(checkpoints.sync))
    monkeypatch.setattr(os, "replace", dying(os.replace))
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, new, {"name": "new"})
    found, meta = load_checkpoint(path)
    assert same(found, new if dies_at >= 4 else state)
    assert meta is None or meta["name"] == "phase1_best"
    assert {file.name for file in path.parent.iterdir()} <= {"phase1_best.pt", "phase1_best.json"}


# ------------------------------------------------------------------------------------------------ loading


def test_wrappers_prefixes_are_stripped(tmp_path, state):
    torch.save({f"module._orig_mod.{name}": tensor for name, tensor in state.items()}, tmp_path / "ddp.pt")
    assert same(load_checkpoint(tmp_path / "ddp.pt")[0], state)


def test_a_bare_state_dict_loads_with_exactly_one_warning(path, state, warnings_seen):
    bare(path)
    found, meta = load_checkpoint(path)
    assert same(found, state)
    assert meta is None
    assert len(warnings_seen) == 1


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("phase1_best.pt", "--phase 1"),
        ("phase3_final.pt", "--phase 3"),
        ("phase2_best.pt", "train_phase2.py"),
        ("mine.pt", "experiments/train.py"),
    ],
)
def test_a_missing_checkpoint_names_the_command_that_makes_it(tmp_path, name, command):
    with pytest.raises(FileNotFoundError, match=command):
        load_checkpoint(tmp_path / name)


def test_a_folder_or_a_json_is_no_checkpoint(tmp_path, path):
    for wrong in (tmp_path, path.with_suffix(".json")):
        with pytest.raises(ValueError, match=r"expected a \.pt file"):
            load_checkpoint(wrong)


@pytest.mark.parametrize("has_json", [True, False])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(path, kept, has_json):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    if not has_json:
        bare(path)
    with pytest.raises(ValueError, match=r"Make it anew"):
        load_checkpoint(path)


@pytest.mark.parametrize("position", [0.0, 0.1, 0.35, 0.5, 0.77, 0.95])
def test_four_altered_bytes_are_refused_where_there_is_a_json(path, position):
    content = bytearray(path.read_bytes())
    at = int((len(content) - 4) * position)
    content[at : at + 4] = bytes(byte ^ 0xFF for byte in content[at : at + 4])
    path.write_bytes(content)
    with pytest.raises(ValueError, match="altered"):
        load_checkpoint(path)


def test_altered_weights_are_refused_without_a_json_too(path, state):
    bare(path)
    content = bytearray(path.read_bytes())
    at = content.find(state["a.weight"].numpy().tobytes()[:400])
    assert at > 0
    content[at + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        load_checkpoint(path)


@pytest.mark.parametrize("seed", range(12))
def test_a_byte_altered_anywhere_gives_the_same_weights_or_an_error(path, state, seed):
    bare(path)
    content = bytearray(path.read_bytes())
    content[np.random.default_rng(seed).integers(len(content))] ^= 0x55
    path.write_bytes(content)
    try:
        found, _ = load_checkpoint(path)
    except ValueError as error:
        assert "Make it anew" in str(error)
    else:
        assert same(found, state)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, state, poison):
    state["a.weight"][1, 2] = poison
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=r"'a\.weight' holds NaN or infinity"):
        load_checkpoint(tmp_path / "nan.pt")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


@pytest.mark.parametrize("container", ["torch", "pickle", "torch in a state_dict"])
def test_pickled_code_is_refused_and_never_executed(tmp_path, container):
    target, path = tmp_path / "executed", tmp_path / "evil.pt"
    if container == "pickle":
        path.write_bytes(pickle.dumps(Bomb(target)))
    else:
        content = Bomb(target)
        torch.save(content if container == "torch" else {"w": torch.zeros(2), "x": content}, path)
    with pytest.raises(ValueError, match="Make it anew"):
        load_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(2)],
        {},
        torch.zeros(3),
        {"epoch": 3},
        {"state_dict": {"w": 2}},
        {"weights": {"w": torch.zeros(2)}},
        {3: torch.zeros(2)},
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="state_dict"):
        load_checkpoint(tmp_path / "x.pt")


def test_a_whole_model_is_refused(tmp_path):
    torch.save(make_model(), tmp_path / "x.pt")
    with pytest.raises(ValueError, match="expected a bare state_dict"):
        load_checkpoint(tmp_path / "x.pt")


def test_text_another_zip_and_the_old_format_are_refused(tmp_path, state):
    (tmp_path / "text.pt").write_text("weights")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a", "b")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("text.pt", "zip.pt", "old.pt"):
        with pytest.raises(ValueError, match="Make it anew"):
            load_checkpoint(tmp_path / name)


@pytest.mark.parametrize("text", ["{", "\x00"])
def test_a_damaged_json_is_an_error_that_names_it(path, text):
    path.with_suffix(".json").write_text(text)
    with pytest.raises(ValueError, match=r"phase1_best\.json"):
        load_checkpoint(path)


def test_an_ordered_dict_from_the_seeds_torch_save_loads(tmp_path):
    model = make_model()
    buffer = io.BytesIO()
    torch.save(OrderedDict(model.state_dict()), buffer)
    (tmp_path / "seed.pt").write_bytes(buffer.getvalue())
    twin = type(model).from_state_dict(load_checkpoint(tmp_path / "seed.pt")[0])
    assert same(twin.state_dict(), model.state_dict())
