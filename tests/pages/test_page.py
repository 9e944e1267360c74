"""The template, its tables and the bundle that draws its charts."""

import hashlib
import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from lasps import numbers
from lasps.pages.page import HERE, VENDOR, Cell, Column, make_table, vendored
from lasps.plots.colors import CLASS_COLORS

ROOT = Path(__file__).resolve().parents[2]
NUMBER = Column("n", lambda r: Cell(str(r["n"]), r["n"]))
NAME = Column("name", lambda r: Cell(r["name"]), text=True)


def test_every_vendored_file_is_what_vendor_json_says_with_its_licence() -> None:
    named = {"vendor.json"}
    for entry in vendored():
        content = (VENDOR / entry["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["file"]
        assert entry["licence"] == "BSD-3-Clause" and "Redistribution" in (VENDOR / entry["licence_file"]).read_text()
        assert entry["version"].encode() in content and entry["version"] in entry["source"]
        named |= {entry["file"], entry["licence_file"]}
    assert {p.name for p in VENDOR.iterdir()} == named


def test_every_file_that_a_page_needs_is_package_data() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["lasps"]
    files = [
        p.relative_to(ROOT / "lasps").as_posix()
        for p in HERE.rglob("*")
        if p.is_file() and p.suffix not in (".py", ".pyc")
    ]
    assert len(files) > 5
    assert [f for f in files if not any(fnmatch(f, pattern) for pattern in patterns)] == []


def test_the_class_colours_of_pages_are_those_of_every_other_plot() -> None:
    assert set(CLASS_COLORS) == {"SELL", "HOLD", "BUY"}
    style = (HERE / "style.css").read_text()
    light = style.split("@media")[0]
    assert not re.search(r"--(buy|sell|hold):", light)  # they come from config


def test_columns_that_say_nothing_are_left_out() -> None:
    rows = [{"name": "a", "n": 1}, {"name": "b", "n": 1}]
    assert make_table(rows, (NAME, NUMBER)) is None  # nothing but names would be left
    varied = make_table([*rows, {"name": "c", "n": 2}], (NAME, NUMBER, Column("x", lambda r: Cell("-"))))
    assert varied is not None and [c.title for c in varied.columns] == ["name", "n"]
    assert make_table(rows[:1], (NAME, NUMBER)) is not None  # one row is not constant
    assert make_table([], (NAME, NUMBER)) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("log loss -0.04 [-0.05, -0.03]", "log loss −0.04 [−0.05, −0.03]"),
        ("2025-01-02 to krx-2010s, top-15", "2025-01-02 to krx-2010s, top-15"),
        ("(-.5)", "(−.5)"),
    ],
)
def test_only_hyphens_that_are_minus_signs_become_them(text: str, wanted: str) -> None:
    assert numbers.true_minus(text) == wanted


def test_numbers_read_as_people_write_them() -> None:
    assert numbers.count(8078) == "8,078" and numbers.percent(0.5321, 2) == "53.21" and numbers.decimal(None) == "-"
    assert numbers.difference("accuracy", 0.0123, 0.01, 0.02, unit=" points") == "+1.23 points [+1.00, +2.00]"
    assert numbers.difference("log_loss", -0.5, None, None) == "-0.5000" and numbers.p_value(1e-9) == "< 0.0001"
    assert numbers.decimal(float("nan")) == "-"


def test_a_specification_cannot_end_the_script_it_stands_in(tmp_path: Path) -> None:
    from lasps.pages.page import Figure, render

    figure = Figure("x", {"data": {"values": [{"name": "</script><b>"}]}})
    page = render(
        "integrity.html.j2",
        "t",
        headline="h",
        counts="c",
        waived=(),
        findings=[],
        clean=[],
        figures=[figure],
        charts=[],
    )
    spec = re.search(r'id="spec-1">(.*?)</script>', page, re.DOTALL)
    assert spec is not None and json.loads(spec.group(1))["data"]["values"][0]["name"] == "</script><b>"
