"""A dataset's folder is replaced so that a kill, a link or a mount point costs neither the old dataset nor the new."""

import os
import shutil
from pathlib import Path

import pytest

from lasps.data.datasets import replacement
from lasps.data.datasets.replacement import finish_replacement, is_empty, put_in_place, staging

ENTRIES = ("dataset.json", "rows", "train", "val", "test")


class Killed(BaseException):
    """As kill -9: nothing that is caught."""


def write(folder: Path, content: str) -> None:
    for name in ENTRIES:
        path = folder / name if name.endswith(".json") else folder / name / "a.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def build(out_dir: Path, content: str) -> None:
    with staging(out_dir) as folder:
        write(folder, content)
        put_in_place(folder, out_dir)


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def whole(content: str) -> dict[str, str]:
    return {name if name.endswith(".json") else f"{name}/a.npy": content for name in ENTRIES}


def killed_at(monkeypatch: pytest.MonkeyPatch, step: int) -> list[str]:
    """The `step`-th change of a name from now on is not made, and nothing after it; the changes made so far."""
    done: list[str] = []

    def counted(function):
        def call(path, *rest, **named):
            if len(done) >= step:
                raise Killed
            done.append(str(path))
            return function(path, *rest, **named)

        return call

    for owner, name in ((Path, "rename"), (Path, "rmdir"), (shutil, "rmtree"), (Path, "mkdir")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    return done


@pytest.mark.parametrize("step", range(40))
def test_a_kill_at_any_step_leaves_the_old_or_the_new_dataset_and_nothing_else(tmp_path, monkeypatch, step) -> None:
    out = tmp_path / "d"
    build(out, "old")
    (out / "notes.txt").write_text("mine")
    with monkeypatch.context() as patch:
        killed_at(patch, step)
        try:
            build(out, "new")
            finished = True
        except Killed:
            finished = False
    for left in out.glob(".building-*"):  # its process is dead in earnest only after a kill
        left.rename(out / ".building-999999999")
    finish_replacement(out)
    found = contents(out)
    assert found.pop("notes.txt") == "mine"
    assert found == whole("new") or (found == whole("old") and not finished)
    assert sorted(os.listdir(out)) == sorted([*ENTRIES, "notes.txt"])
    assert os.listdir(tmp_path) == ["d"]


def test_every_step_of_a_replacement_is_tried_by_the_test_above(tmp_path, monkeypatch) -> None:
    build(tmp_path / "d", "old")
    steps = killed_at(monkeypatch, 10_000)
    build(tmp_path / "d", "new")
    assert 12 <= len(steps) < 40


def test_while_a_replacement_is_half_done_no_mixture_has_a_description(tmp_path, monkeypatch) -> None:
    build(tmp_path / "d", "old")
    mixtures = []
    rename = Path.rename

    def watched(path, target):
        found = {name: value for name, value in contents(tmp_path / "d").items() if not name.startswith(".")}
        if "dataset.json" in found:
            mixtures.append(len(set(found.values())) > 1)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    build(tmp_path / "d", "new")
    assert mixtures and not any(mixtures)


def test_the_folder_itself_is_never_renamed_so_that_links_and_mount_points_stay(tmp_path) -> None:
    disk = tmp_path / "disk" / "ds"
    disk.mkdir(parents=True)
    (tmp_path / "d").symlink_to(disk)
    inode = disk.stat().st_ino
    for content in ("first", "second"):
        build(tmp_path / "d", content)
        assert (tmp_path / "d").is_symlink() and contents(disk) == whole(content)
    assert disk.stat().st_ino == inode and sorted(os.listdir(tmp_path)) == ["d", "disk"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_dataset_is_built_and_replaced_on_a_mount_point(tmp_path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs '{volume}' 2>/dev/null"):
        pytest.skip("mounting is not allowed here")
    try:
        (volume / "lost+found").mkdir()
        assert is_empty(volume)
        for content in ("first", "second"):
            build(volume, content)
            assert contents(volume) == whole(content)
    finally:
        os.system(f"umount '{volume}'")


def test_a_link_to_a_disk_that_is_not_there_is_refused(tmp_path) -> None:
    (tmp_path / "d").symlink_to(tmp_path / "unmounted" / "ds")
    with (
        pytest.raises(ValueError, match=r"is a link to .*unmounted/ds, which does not exist.*mounted\?"),
        staging(tmp_path / "d"),
    ):
        pass
    assert os.listdir(tmp_path) == ["d"]


def test_builds_that_died_leave_nothing_and_a_new_folder_goes_with_a_failed_build(tmp_path) -> None:
    build(tmp_path / "d", "old")
    write(tmp_path / "d" / ".building-999999999", "dead")
    write(tmp_path / ".d.building-999999998", "dead, of an earlier version")
    with pytest.raises(ZeroDivisionError), staging(tmp_path / "d") as folder:
        write(folder, "1" if 1 / 0 else "0")
    assert contents(tmp_path / "d") == whole("old") and os.listdir(tmp_path) == ["d"]
    with pytest.raises(ZeroDivisionError), staging(tmp_path / "new"):
        _ = 1 / 0
    assert os.listdir(tmp_path) == ["d"]


def test_a_dataset_that_an_earlier_version_left_beside_its_place_is_brought_back(tmp_path) -> None:
    write(tmp_path / ".d.replaced-17", "old")
    finish_replacement(tmp_path / "d")
    assert contents(tmp_path / "d") == whole("old")
    shutil.copytree(tmp_path / "d", tmp_path / ".e.replaced-1")
    (tmp_path / "d").rename(tmp_path / ".e.replaced-2")
    with pytest.raises(ValueError, match="rename the one that is wanted back"):
        finish_replacement(tmp_path / "e")


def test_what_cannot_be_finished_is_an_error_that_says_where_both_datasets_are(tmp_path, monkeypatch) -> None:
    build(tmp_path / "d", "old")
    write(tmp_path / "d" / ".new", "new")

    def fails(folder: Path) -> bool:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(replacement, "_finish", fails)
    with pytest.raises(ValueError, match=r"half replaced \(\.new and \.old .* cannot be finished: .*Read-only"):
        finish_replacement(tmp_path / "d")
