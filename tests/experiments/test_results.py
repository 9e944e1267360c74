"""Numbers in print come from files that say how they were measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import tables
from experiments._results import RESULTS, differences_of, metrics_of, read_result, write_result
from lasps.config.settings import settings


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_result_says_what_it_was_measured_with(path: Path) -> None:
    written = read_result(path)
    script = re.search(r"experiments/\w+\.py", written["command"])
    assert script and (settings.ROOT / script[0]).is_file(), written["command"]
    assert written["result"] and re.fullmatch(r"\d{4}-\d\d-\d\d", written["made"])


@pytest.mark.parametrize("page", tables.PAGES)
def test_tables_in_print_are_those_of_the_results(page: str) -> None:
    assert tables.built(page) == (settings.ROOT / page).read_text(encoding="utf-8"), "run: make tables"


def test_every_table_is_shown_somewhere() -> None:
    shown = {name for page in tables.PAGES for _, name, _ in tables.BLOCK.findall((settings.ROOT / page).read_text())}
    assert shown == set(tables.TABLES)


def test_a_number_that_was_changed_by_hand_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (settings.ROOT / "README.md").read_text(encoding="utf-8")
    block = tables.BLOCK.search(page)
    assert block is not None
    changed = page.replace(block[0], re.sub(r"\d", "9", block[0], count=1))
    (tmp_path / "README.md").write_text(changed, encoding="utf-8")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    assert tables.built("README.md") == page != changed


def test_a_table_that_nobody_makes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").write_text("<!-- table of_contents -->\n<!-- end -->\n", encoding="utf-8")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="no table 'of_contents'; expected one of overview, "):
        tables.built("README.md")


def test_a_written_result_names_command_commit_machine_and_data(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(settings.ROOT / "experiments" / "limits.py"), "--json", "a file.json"])
    write_result(tmp_path / "r.json", {"loss": float("nan")}, seeds=[7], data={"tiny": "abc"})
    written = read_result(tmp_path / "r.json")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=settings.ROOT, capture_output=True, text=True, check=False)
    assert written["command"] == "python experiments/limits.py --json 'a file.json'"
    assert (written["commit"] or "").startswith(head.stdout.strip())
    assert written["seeds"] == [7] and written["data"] == {"tiny": "abc"} and written["machine"]["cores"] >= 1
    assert written["result"] == {"loss": None}


def test_a_file_of_another_form_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"command": "x", "result": 1}))
    with pytest.raises(
        ValueError, match=r"r\.json: expected a result .*lacks commit, data, machine, made, note, seeds"
    ):
        read_result(tmp_path / "r.json")


def test_metrics_and_differences_are_of_the_asked_split_alone() -> None:
    row = {**dict.fromkeys(("n", "n_days", "accuracy", "class_accuracy", "macro_f1", "log_loss", "rank_ic"), 1)}
    row |= {"icir": 2, "rank_ic_skip1": 3, "expected_calibration_error": 4, "secret": 5}
    seeds = [{"log_loss": 0.9}, {"log_loss": 1.1}]
    pair = {"a": "x", "b": "y", "metric": "log_loss", "difference": -0.1, "interval": None, "n": 8, "n_days": 2}
    comparison = {
        "models": {"x": {"val": {}, "test": row | {"seeds": seeds}}},
        "pairs": [pair | {"split": "test"}, pair | {"split": "val", "difference": 9.0}],
    }
    found = metrics_of(comparison)["x"]
    assert "secret" not in found and found["log_loss_by_seed"] == [0.9, 1.1]
    only = {"difference": -0.1, "interval": None, "n": 8, "n_days": 2}
    assert differences_of(comparison) == {"y minus x": {"log_loss": only}}
