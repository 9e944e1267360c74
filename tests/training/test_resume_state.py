"""State files: nothing of a file that was altered is used."""

import io
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lasps.training.resume import DamagedStateError, read_resume_state, read_state, write_resume_state, write_state
from tests.training.tiny import same

STATE = {"epoch": 3, "weights": {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.float64)}}


def written(folder: Path) -> Path:
    write_state(folder / "s.pt", {"lr": 1e-3}, STATE)
    return folder / "s.pt"


def test_a_state_comes_back_with_its_key(tmp_path: Path) -> None:
    key, state = read_state(written(tmp_path))
    assert key == {"lr": 1e-3} and state["epoch"] == 3 and same(state["weights"], STATE["weights"])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_flipped_bit_and_any_cut_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[place:]
    path.write_bytes(content)
    with pytest.raises(DamagedStateError, match=r"s\.pt: expected"):
        read_state(path)


def test_a_state_of_the_format_before_is_refused_with_advice(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"format": 1, "key": {}, "state": {}}, buffer)
    (tmp_path / "s.pt").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="another version of lasps.*Start afresh without --resume, or remove"):
        read_resume_state(tmp_path / "s.pt", {})


def test_a_state_of_another_job_is_named_by_what_differs(tmp_path: Path) -> None:
    write_resume_state(tmp_path / "s.pt", {"lr": 1e-3, "seed": 7}, STATE)
    with pytest.raises(ValueError, match=r"lr was 0\.001, is 0\.01"):
        read_resume_state(tmp_path / "s.pt", {"lr": 1e-2, "seed": 7})
    assert read_resume_state(tmp_path / "none.pt", {}) is None
