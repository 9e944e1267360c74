"""The scoreboard of make torture counts what held, and its eyes see what a command left or changed."""

from pathlib import Path
from threading import Barrier

import pytest

from experiments.torture import document, guarded, made, spread
from experiments.verification.commands import COMMANDS, Command, Workplace, prepared


def test_what_did_not_hold_stands_in_the_document() -> None:
    rows = [
        {"trouble": "kill -9", "command": "build", "code": -9, "wrong": []},
        {"trouble": "kill -9", "command": "build", "code": 0, "wrong": ["data/dataset.json is not bit-equal"]},
    ]
    text = document(
        {
            "command": "python experiments/torture.py --kills 5",
            "commit": "abc",
            "made": "2026-11-26",
            "machine": {"cores": 2},
            "result": {"rows": rows, "planned": 5, "minutes": 3.2, "workers": 2},
        }
    )
    assert (
        "| kill -9 | build | 1 of 2 | 1 |" in text and "`python experiments/torture.py --kills 5`, commit abc" in text
    )
    assert "- kill -9, build: data/dataset.json is not bit-equal" in text
    assert "2 of 5 planned tries in 3.2 minutes" in text and "Everything held" not in text


def test_tries_run_side_by_side_each_in_a_place_of_its_own_until_the_deadline(tmp_path: Path) -> None:
    places = [Workplace(tmp_path / "a"), Workplace(tmp_path / "b")]
    both = Barrier(2, timeout=10)

    def attempt(place: Workplace) -> str:
        both.wait()
        return place.root.name

    assert sorted(made([attempt, attempt], places)) == ["a", "b"]
    assert made([attempt, attempt], places, deadline=0.0) == []


def test_a_try_that_cannot_be_made_is_a_row_that_did_not_hold(tmp_path: Path) -> None:
    def impossible(place: Workplace) -> dict[str, object]:
        raise ValueError("no server")

    row = guarded(impossible, "train", Workplace(tmp_path))
    assert row["command"] == "train" and row["wrong"] == ["could not be made: no server"]


def test_what_was_prepared_is_used_again(tmp_path: Path) -> None:
    (tmp_path / "start" / "data").mkdir(parents=True)
    place = Workplace(tmp_path, {"check-data": ({"findings.json": "ab"}, 2.5)}, {"check-data": 10})
    place.remember()
    again = prepared(tmp_path, ["check-data"])
    assert again.known == place.known and again.written == place.written


def test_a_folder_of_something_else_is_no_place(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        prepared(tmp_path, ["build"])


def test_of_a_json_with_keys_only_those_are_compared(tmp_path: Path) -> None:
    place, command = Workplace(tmp_path), Command("x", "x.py", (), ("*.json",), keys=("best",))
    place.folder.mkdir()
    (place.folder / "s.json").write_text('{"best": 1, "trials": 2}')
    expected = place.results(command)
    (place.folder / "s.json").write_text('{"best": 1, "trials": 3}')
    assert place.differences(command, expected) == []
    (place.folder / "s.json").write_text('{"best": 2, "trials": 2}')
    assert place.differences(command, expected) == ["s.json is not bit-equal"]


def test_tries_are_spread_evenly_over_the_commands() -> None:
    assert spread(["a", "b"], 5) == ["a", "b", "a", "b", "a"] and spread([], 3) == []


@pytest.mark.parametrize("name", [".a.pt.12.tmp", ".building-7-ab", ".new", "lock", "phase1.resume.pt", "pipeline.run"])
def test_what_a_command_leaves_is_seen_wherever_it_lies(tmp_path: Path, name: str) -> None:
    for folder in ("run/data/rows", "tmp"):
        (tmp_path / folder).mkdir(parents=True)
    place = Workplace(tmp_path)
    (tmp_path / "run" / "data" / "rows" / "features.npy").touch()
    assert place.leftovers() == []
    (tmp_path / "run" / "data" / name).touch()
    assert place.leftovers() == [f"{name} was left"]


def test_changed_missing_and_new_results_are_seen(tmp_path: Path) -> None:
    place, command = Workplace(tmp_path), Command("x", "x.py", (), ("*.txt",))
    place.folder.mkdir()
    for name in ("a", "b"):
        (place.folder / f"{name}.txt").write_text(name)
    expected, before = place.digests(command.results), place.digests(("**/*",))
    assert place.differences(command, expected) == place.changed(before) == []
    (place.folder / "a.txt").write_text("other")
    (place.folder / "b.txt").rename(place.folder / "c.txt")
    assert place.differences(command, expected) == [f"{n}.txt is not bit-equal" for n in "abc"]
    assert place.changed(before) == ["a.txt was changed", "b.txt was changed"]


def test_a_command_that_fails_or_is_killed_is_told_from_one_that_ends(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    place = Workplace(tmp_path)
    assert place.run(COMMANDS["check-data"], kill_after=0.01).returncode == -9
