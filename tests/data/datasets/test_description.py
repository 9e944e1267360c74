"""dataset.json steers scaling, windows and splits: it is used only as the build wrote it."""

import json
import os
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lasps.data import integrity
from lasps.data.build import build_dataset
from lasps.data.datasets import scan
from lasps.data.datasets.description import check_described, load_split, read_description
from lasps.data.spec import DatasetSpec
from tests.factories import BORDERS, FEW_FEATURES, small_panel


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("described") / "d"
    build_dataset(
        small_panel(),
        folder,
        DatasetSpec(FEW_FEATURES, borders=BORDERS),
        source={"name": "bars", "fetched": date(2026, 1, 5)},
    )
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def test_what_was_built_is_read_and_its_digest_is_in_it(built: Path) -> None:
    description = read_description(built)
    assert description is not None and len(description["sha256"]) == 64
    assert description["source"]["fetched"] == "2026-01-05"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_refused_or_means_the_same(built: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray((built / "dataset.json").read_bytes())
    original = json.loads(content)
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / "dataset.json").write_bytes(content)
    try:
        found = read_description(tmp_path)
    except ValueError as error:
        assert "dataset.json: expected" in str(error)
    else:
        assert found == original


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window", 20),
        ("universe", {"name": "all"}),
        ("materialized", True),
        ("source", {"name": "synthetic"}),
        ("horizon", 1),
    ],
)
def test_a_description_changed_by_hand_is_refused_by_everything_that_opens_it(copy: Path, name, value) -> None:
    changed = json.loads((copy / "dataset.json").read_text()) | {name: value}
    (copy / "dataset.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="expected the sha256 .* changed by hand or damaged.*build the dataset again"):
        load_split(copy, "train")
    del changed["sha256"]
    (copy / "dataset.json").write_text(json.dumps(changed))
    if name in ("window", "horizon"):  # a description without a digest of its own still has its fingerprint
        with pytest.raises(ValueError, match="expected the fingerprint"):
            load_split(copy, "train")


def rot(path: Path, place: int) -> None:
    """Flip a bit as a disk does: size and times stay."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def times_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stamps that see no change of times, as rot below the file system shows none."""
    identity = scan._identity
    monkeypatch.setattr(scan, "_identity", lambda path: [part for i, part in enumerate(identity(path)) if i != 3])


@pytest.mark.parametrize("share", np.linspace(0.02, 0.98, 9))
@pytest.mark.parametrize("name", ["features", "bars"])
def test_rot_in_a_small_array_is_found_at_every_opening(copy: Path, times_stay, name: str, share: float) -> None:
    load_split(copy, "train")
    path = copy / "rows" / f"{name}.npy"
    rot(path, 128 + int((path.stat().st_size - 128) * share) // 4 * 4)
    with pytest.raises(ValueError, match=rf"{name}\.npy"):
        load_split(copy, "train")


def test_rot_in_a_large_array_is_found_by_the_deep_check(copy: Path, times_stay, monkeypatch) -> None:
    monkeypatch.setattr(scan, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(scan, "SAMPLED_BLOCKS", 2)
    monkeypatch.setattr(scan, "BLOCK_BYTES", 64)
    load_split(copy, "train")
    path = copy / "rows" / "features.npy"
    rot(path, path.stat().st_size // 2 // 4 * 4)
    load_split(copy, "train")  # what the samples spare
    names = {finding.name for finding in integrity.check(dataset=copy).fatal}
    assert "altered_files" not in names
    (finding,) = [f for f in integrity.check(dataset=copy, deep=True).findings if f.name == "altered_files"]
    assert (finding.severity, finding.count) == ("fatal", 1)
    assert "rows/features.npy: expected the digest" in finding.examples[0][2]


def test_the_deep_check_of_a_sound_dataset_finds_nothing_and_misses_no_file(copy: Path) -> None:
    def deep() -> tuple[int, int]:
        (finding,) = [f for f in integrity.check(dataset=copy, deep=True).findings if f.name == "altered_files"]
        return finding.count, finding.n_checked

    assert deep() == (0, 4 + 3 * 4)
    (copy / "val" / "ends.npy").rename(copy / "val" / "other.npy")
    assert deep()[0] == 1


def test_rows_whose_description_is_lost_pass_no_check(copy: Path) -> None:
    check_described(copy)
    (copy / "dataset.json").unlink()
    for look in (check_described, lambda folder: load_split(folder, "train")):
        with pytest.raises(ValueError, match="holds windows as rows, but .* has no dataset.json.*Build the"):
            look(copy)
