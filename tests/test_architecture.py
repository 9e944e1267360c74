"""docs/architecture.md's file tree names what is there: every module once, nothing that is gone.

A line is `NAME [NAME ...]`, two or more spaces, a purpose. A name ending in "/" that stands alone on its line is the
folder of the deeper lines below it.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MADE_AT_RUN_TIME = {"data", "checkpoints", "mlruns", "mlflow.db", "reports"}
GROUPED = "experiments/benchmarks/"  # one line for the folder
WIDTH = 120


def fenced_tree(text: str) -> list[str]:
    """The lines of the fenced block whose first line is the folder lasps/."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    trees = [block for block in blocks if re.match(r"lasps/(\s|$)", block)]
    assert len(trees) == 1, f"docs/architecture.md has {len(trees)} fenced blocks that start with lasps/, expected one"
    return trees[0].rstrip().splitlines()


def named_paths(lines: list[str]) -> list[str]:
    """Every path that the tree names, relative to the repo root, in order; folders keep their "/"."""
    folders: list[tuple[int, str]] = []
    paths = []
    for line in lines:
        indent = len(line) - len(line.lstrip(" "))
        names = re.split(r" {2,}", line.strip())[0].split(" ")
        while folders and folders[-1][0] >= indent:
            folders.pop()
        paths += [(folders[-1][1] if folders else "") + name for name in names]
        if len(names) == 1 and names[0].endswith("/"):
            folders.append((indent, paths[-1]))
    return paths


def modules_on_disk() -> list[str]:
    files = [*(ROOT / "lasps").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
    paths = sorted(path.relative_to(ROOT).as_posix() for path in files if path.name != "__init__.py")
    return [path for path in paths if not path.startswith(GROUPED)]


@pytest.fixture(scope="module")
def tree() -> list[str]:
    return fenced_tree((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))


def test_every_module_stands_in_the_tree_exactly_once(tree: list[str]) -> None:
    named = named_paths(tree)
    assert [path for path in modules_on_disk() if path not in named] == [], "docs/architecture.md's tree lacks these"
    twice = sorted({path for path in named if named.count(path) > 1})
    assert twice == [], "docs/architecture.md's tree has these twice"


def test_every_path_in_the_tree_exists(tree: list[str]) -> None:
    gone = [
        path
        for path in named_paths(tree)
        if path.split("/")[0] not in MADE_AT_RUN_TIME
        and not ((ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file())
    ]
    assert gone == [], "docs/architecture.md's tree names what is not there"


def test_the_tree_fits_a_page_s_width(tree: list[str]) -> None:
    assert [line for line in tree if len(line) > WIDTH] == []


def test_a_nested_folder_closes_where_the_indent_returns() -> None:
    lines = ["lasps/      the package", "  data/", "    a.py b.py  two", "  c.py", "tests/  all", "mlruns/ x.db  made"]
    assert named_paths(lines) == [
        "lasps/",
        "lasps/data/",
        "lasps/data/a.py",
        "lasps/data/b.py",
        "lasps/c.py",
        "tests/",
        "mlruns/",
        "x.db",
    ]
