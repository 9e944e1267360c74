"""Checkpoints as people have them, and what may stand in a .json beside one."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger
from safetensors.torch import save_file

from lasps.training.checkpoints import load_checkpoint, load_model, read_meta, save_checkpoint
from tests.training.tiny import make_loaders, make_model, make_trainer, same


@pytest.fixture
def said():
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    yield lines
    logger.remove(sink)


STATE = make_model().state_dict()


@pytest.mark.parametrize(
    "content",
    [
        {"epoch": 3, "model_state_dict": STATE, "optimizer_state_dict": {"lr": 0.1}},
        {"state_dict": {f"model.{name}": value for name, value in STATE.items()}, "hyper_parameters": {"a": [1, "b"]}},
        {"model": {f"module.{name}": value for name, value in STATE.items()}},
        {f"model._orig_mod.{name}": value for name, value in STATE.items()},
        {"model_state_dict": STATE, "state_dict": {"ema": torch.zeros(1)}},
    ],
)
def test_weights_are_found_where_training_scripts_put_them(tmp_path: Path, content) -> None:
    torch.save(content, tmp_path / "x.pt")
    assert same(load_checkpoint(tmp_path / "x.pt")[0], STATE)


def test_what_lies_beside_the_model_of_a_lightning_module_is_named(tmp_path: Path, said) -> None:
    torch.save(
        {"state_dict": {f"model.{n}": v for n, v in STATE.items()} | {"criterion.weight": torch.ones(3)}},
        tmp_path / "x.ckpt",
    )
    assert same(load_checkpoint(tmp_path / "x.ckpt")[0], STATE)
    assert any("left out: criterion.weight" in line for line in said)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32_with_one_warning(tmp_path: Path, said, dtype) -> None:
    other = {n: v.to(dtype) if v.is_floating_point() else v for n, v in STATE.items()}
    torch.save(other, tmp_path / "x.pt")
    found, _ = load_checkpoint(tmp_path / "x.pt")
    assert same(found, {n: v.float() if v.is_floating_point() else v for n, v in other.items()})
    assert sum("converted to float32" in line for line in said) == 1


def test_safetensors_load_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({name: value.contiguous().clone() for name, value in STATE.items()}, path)
    assert same(load_checkpoint(path)[0], STATE)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="expected a safetensors file"):
        load_checkpoint(path)


def test_a_whole_model_and_the_format_before_1_6_are_told_what_to_do(tmp_path: Path) -> None:
    torch.save(make_model(), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match=r"\(lasps\.models.*\).*save model\.state_dict\(\) instead"):
        load_checkpoint(tmp_path / "whole.pt")
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="since 1.6, got the format before"):
        load_checkpoint(tmp_path / "old.pt")


@pytest.mark.parametrize(
    "own",
    [
        {"phase": 3, "lr": 1e-3},
        {"calibration": None},
        {"training": [1]},
        {"data": "krx"},
        {"history": [0.9]},
        {"name": "../../x"},
        [1, 2],
        "text",
        3,
    ],
)
def test_a_json_that_lasps_did_not_write_is_said_and_not_used(tmp_path: Path, said, own) -> None:
    torch.save(STATE, tmp_path / "m.pt")
    (tmp_path / "m.json").write_text(json.dumps(own))
    assert load_checkpoint(tmp_path / "m.pt")[1] is None and read_meta(tmp_path / "m.pt") is None
    assert sum("m.json beside it has no sha256: it is not of lasps and not used" in line for line in said) == 1


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "", ".hidden", 3, "a\nb", "..", "~/x;y"])
def test_a_name_that_is_no_plain_word_is_refused(tmp_path: Path, name) -> None:
    save_checkpoint(tmp_path / "m.pt", STATE, {"name": name})
    with pytest.raises(ValueError, match=r"m\.json: expected a plain 'name'"):
        load_checkpoint(tmp_path / "m.pt")


@pytest.mark.parametrize("wrong", [{"phase": 3}, {"calibration": None}, {"data": "x"}, {"history": [1.0]}])
def test_a_json_of_lasps_with_parts_of_other_types_is_refused_by_name(tmp_path: Path, wrong) -> None:
    save_checkpoint(tmp_path / "m.pt", STATE, {"name": "m"} | wrong)
    with pytest.raises(ValueError, match=rf"m\.json: expected '{next(iter(wrong))}' to be an object"):
        load_checkpoint(tmp_path / "m.pt")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_flipped_bit_in_the_json_is_refused_or_means_the_same(tmp_path: Path, data: st.DataObject) -> None:
    meta = {"name": "m", "data": {"scale": [1.02, 2.5], "window": 60}}
    save_checkpoint(tmp_path / "m.pt", {"w": torch.ones(2)}, meta)
    path = tmp_path / "m.json"
    original, content = json.loads(path.read_bytes()), bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        _, found = load_checkpoint(tmp_path / "m.pt")
    except ValueError as error:
        assert "m.json" in str(error)
    else:
        assert found is not None
        kept = {name: value for name, value in found.items() if name in ("name", "data", "sha256")}
        assert kept == {name: value for name, value in original.items() if name != "json_sha256"}


# ------------------------------------------------------------------------------------------------ wrapped models


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # of torch.compile itself
@pytest.mark.parametrize(
    "wrap", [torch.nn.DataParallel, lambda m: torch.nn.DataParallel(torch.compile(m, backend="eager"))]
)
def test_a_wrapped_model_trains_to_the_same_weights_and_saves_its_own_names(wrap) -> None:
    trained = []
    for model in (make_model(), wrap(make_model())):
        trainer = make_trainer(model)
        trainer.train_phase1(*make_loaders(), epochs=1, lr=3e-3, patience=1)
        trainer.train_phase3(*make_loaders(), epochs=1, lr=3e-3, patience=1)
        trained.append(trainer.state_dict())
    assert trained[0].keys() == trained[1].keys() == STATE.keys()
    for name, value in trained[0].items():
        assert torch.allclose(value.float(), trained[1][name].float(), atol=1e-5), name


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (STATE | {"ema.decay": torch.zeros(1)}, "ema.decay"),
        ({name: value for name, value in STATE.items() if name != "common_head.fc2.bias"}, "common_head.fc2.bias"),
    ],
)
def test_a_state_of_another_model_is_refused_by_file_and_tensor(tmp_path: Path, other, named) -> None:
    torch.save(other, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="x.pt") as error:
        load_model(tmp_path / "x.pt")
    said = str(error.value)
    assert "x.pt" in said and named in said and "from_state_dict" not in said
