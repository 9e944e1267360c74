"""The last part of train for Phase 2 alone: what each phase reads, and what is written down about it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from loguru import logger

from lasps.config.dataset_config import CHART_SIZE, WINDOW
from lasps.data.datasets.description import load_split
from lasps.data.datasets.window_dataset import WindowDataset
from lasps.pipeline.holdout import cut_by_date, holdout_of
from lasps.pipeline.phases import run_phases
from tests.pipeline.conftest import Job


class Dated:
    """Samples of which only the dates and label ends are known."""

    num_features, window, chart_size, fingerprint = 3, WINDOW, CHART_SIZE, "dated"

    def __init__(self, days: list[int], ends: list[int]) -> None:
        self.labels = self.sector_ids = np.zeros(len(days), dtype=np.int64)
        self.samples = pl.DataFrame(
            {"date": [date(2024, 1, day) for day in days], "label_end": [date(2024, 1, day) for day in ends]}
        )

    def __len__(self) -> int:
        return len(self.labels)


def test_labels_that_reach_the_first_day_held_out_belong_to_neither_part() -> None:
    days = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2, 10]
    ends = [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 9, 12]  # a horizon of two days, and a halt: the label of 2 ends on 9
    before, held = cut_by_date(Dated(days, ends), 0.3)
    assert before.indices.tolist() == [0, 1, 2, 3, 4]
    assert held.indices.tolist() == [7, 8, 9, 11]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_no_label_of_the_first_part_ends_in_the_second(job: Job, share: float) -> None:
    train = load_split(job.data_dir, "train")
    before, held = cut_by_date(train, share)
    early, late = before.samples, held.samples
    assert early["label_end"].max() < late["date"].min() and early["date"].max() < late["date"].min()
    days = train.samples["date"].n_unique()
    assert late["date"].n_unique() == max(round(share * days), 1)
    between = len(train) - len(before) - len(held)
    cut = train.samples.filter(date=early["date"].max())
    assert 0 < between < len(train) / 4 and len(cut) > 0
    assert len({train.fingerprint, before.fingerprint, held.fingerprint}) == 3


def test_a_share_that_leaves_nothing_and_unknown_dates_are_refused(job: Job) -> None:
    with pytest.raises(ValueError, match="lower it"):
        cut_by_date(Dated([1, 2, 3], [3, 4, 5]), 0.9)
    with pytest.raises(ValueError, match="below 1, got 1"):
        cut_by_date(Dated([1, 2, 3], [3, 4, 5]), 1.0)
    undated = Dated([1, 2, 3], [3, 4, 5])
    undated.samples = undated.samples.drop("label_end")
    with pytest.raises(ValueError, match="only date.*all of train"):
        cut_by_date(undated, 0.3)
    undated.samples = None
    with pytest.raises(ValueError, match="no such file"):
        cut_by_date(undated, 0.3)


@pytest.fixture(scope="module")
def held_out(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, dict[int, np.ndarray]]:
    """Phases 1 and 3 with a holdout, then 2 without saying so, and the train samples that each of them read."""
    folder = tmp_path_factory.mktemp("held_out")
    options = replace(
        job.options,
        output_dir=folder,
        phase2_holdout=0.4,
        cache=False,
        overrides=job.options.overrides | {"min_samples": 10},
    )
    read: dict[int, np.ndarray] = {}
    with pytest.MonkeyPatch.context() as patch:
        for phase in (1, 3, 2):
            seen: list[np.ndarray] = []
            patch.setattr(WindowDataset, "_positions", spying_on_train(WindowDataset._positions, seen))
            run_phases((phase,), options if phase == 1 else replace(options, phase2_holdout=None))
            patch.undo()
            read[phase] = np.unique(np.concatenate(seen))
    return replace(job, output_dir=folder, options=options), read


def spying_on_train(positions, seen: list[np.ndarray]):
    def spy(self, indices):
        if self.samples_path.parent.name == "train":
            seen.append(np.asarray(indices))
        return positions(self, indices)

    return spy


def test_phases_1_and_3_read_what_comes_before_and_phase_2_the_rest_of_sectors_that_are_large_enough(held_out) -> None:
    job, read = held_out
    train = load_split(job.data_dir, "train")
    before, held = cut_by_date(train, 0.4)
    np.testing.assert_array_equal(read[1], before.indices)
    np.testing.assert_array_equal(read[3], before.indices)
    counts = np.bincount(held.sector_ids, minlength=20)
    np.testing.assert_array_equal(read[2], held.indices[counts[held.sector_ids] >= 10])


def test_the_share_is_written_down_and_later_phases_take_it_from_their_input(held_out, job: Job) -> None:
    trained, _ = held_out
    for name in ("phase1_best", "phase3_final", "phase2_best"):
        assert trained.meta(name)["phase"]["phase2_holdout"] == 0.4
        assert job.meta(name)["phase"]["phase2_holdout"] == 0.0
        assert trained.meta(name)["key"] != job.meta(name)["key"]
        assert trained.meta(name)["data"] == job.meta(name)["data"]


@pytest.fixture
def warned() -> Iterator[list[str]]:
    """Every warning said."""
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")
    yield said
    logger.remove(sink)


def test_another_share_than_the_checkpoints_is_followed_with_a_warning(held_out, warned: list[str]) -> None:
    trained, _ = held_out
    source: Path = trained.output_dir / "phase3_final.pt"
    assert holdout_of(None, source) == 0.4 and holdout_of(None, None) == 0.0 and holdout_of(0.1, None) == 0.1
    assert holdout_of(0.4, source) == 0.4 and not warned
    assert holdout_of(0.0, source) == 0.0
    assert len(warned) == 1 and "trained with 0.4" in warned[0]


def test_a_resumed_job_with_a_holdout_keeps_its_files(held_out) -> None:
    trained, _ = held_out
    names = ("phase1_best", "phase3_final", "phase2_best")
    stamps = [(trained.output_dir / f"{name}.pt").stat().st_mtime_ns for name in names]
    run_phases((1, 3, 2), replace(trained.options, resume=True))
    assert stamps == [(trained.output_dir / f"{name}.pt").stat().st_mtime_ns for name in names]
