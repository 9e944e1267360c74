"""The lock file installs anywhere: exact pins, the CPU or CUDA build decided by the user's own index."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
LINES = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")]


def test_every_line_is_one_exact_pin() -> None:
    assert len(LINES) > 50
    assert [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)] == []


def test_torch_is_pinned_without_a_build_and_nothing_pins_a_gpu_package() -> None:
    assert "torch==2.13.0" in LINES
    assert [line for line in LINES if re.match(r"(nvidia|triton|cuda)", line)] == []
    assert [line for line in LINES if re.search(r"file:|\+cpu|--hash|@", line)] == []


def test_pyproject_gives_torch_a_range_that_holds_the_locked_version() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (torch,) = (Requirement(text) for text in wanted if text.startswith("torch"))
    assert "2.13.0" in torch.specifier and "==" not in str(torch.specifier)


def test_every_direct_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    wanted += [text for name in ("cluster", "postgres") for text in project["project"]["optional-dependencies"][name]]
    locked = {normal(line.split("==")[0]) for line in LINES}
    missing = [name for name in (normal(re.split(r"[=<>\[; ]", w)[0]) for w in wanted) if name not in locked]
    assert missing == []


def test_pandas_is_not_held_back_by_pykrx() -> None:
    assert not any(normal(line).startswith("pykrx") for line in LINES)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
