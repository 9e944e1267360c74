"""Data flows one way through the packages; these tests hold the directions."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MAY_IMPORT = {
    "config": set(),
    "files": set(),
    "terminal": set(),
    "numbers": set(),
    "window_parts": set(),
    "tasks": set(),
    "reproducibility": {"files"},
    "plots": {"config"},
    "pages": {"config", "plots", "terminal", "numbers"},
    "data": {"config", "plots", "pages", "terminal", "reproducibility", "files", "window_parts"},
    "models": {"config", "window_parts"},
    "evaluation": {"config", "files", "numbers", "reproducibility"},
    "tracking": {"config", "reproducibility", "files"},
    "training": {
        "config",
        "data",
        "models",
        "evaluation",
        "tracking",
        "plots",
        "reproducibility",
        "files",
        "window_parts",
    },
    "tuning": {"config", "data", "models", "training", "evaluation", "tracking", "plots", "reproducibility", "files"},
    "live": {
        "config",
        "data",
        "evaluation",
        "files",
        "numbers",
        "pages",
        "pipeline",
        "plots",
        "reproducibility",
        "terminal",
        "tracking",
        "training",
    },
    "pipeline": {
        "config",
        "data",
        "models",
        "training",
        "evaluation",
        "tracking",
        "tuning",
        "plots",
        "pages",
        "terminal",
        "reproducibility",
        "files",
        "window_parts",
    },
}


def rooms_imported_by(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module} | ({f"lasps.{a.name}" for a in node.names} if node.module == "lasps" else set())
    return {name.split(".")[1] for name in names if name.startswith("lasps.")} | (
        {"experiments"} if any(name.split(".")[0] in {"experiments", "notebooks"} for name in names) else set()
    )


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_the_rooms_before_it(room: str) -> None:
    paths = list((ROOT / "lasps" / room).rglob("*.py")) or [ROOT / "lasps" / f"{room}.py"]
    for path in paths:
        forbidden = rooms_imported_by(path) - MAY_IMPORT[room] - {room}
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


def test_every_room_of_the_house_is_under_this_rule() -> None:
    rooms = {p.stem for p in (ROOT / "lasps").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert rooms - {"__init__", "__pycache__"} == set(MAY_IMPORT)
