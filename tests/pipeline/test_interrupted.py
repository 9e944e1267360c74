"""A job that was interrupted goes on as itself: not as the finished or other one whose folder it uses."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lasps.files import InUseError, held
from lasps.pipeline.phases import run_phases
from lasps.reproducibility import sha256_of
from lasps.tracking import NullTracker
from lasps.training.trainer import ThreePhaseTrainer
from tests.pipeline.conftest import Job


class Runs(NullTracker):
    """A tracker that remembers which runs were opened, and under which ids they went on."""

    resume_id: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[str, str | None]] = []

    @contextmanager
    def run(self, name: str, *, tags=None, params=None, resume_id=None) -> Iterator["Runs"]:
        self.opened.append((name, resume_id))
        before, self.resume_id = self.resume_id, resume_id or f"{name}-{len(self.opened)}"
        yield self
        self.resume_id = before


@pytest.fixture
def dies_after(monkeypatch: pytest.MonkeyPatch):
    """dies_after(phase, epoch): the training is interrupted once that epoch's state is saved."""
    save = ThreePhaseTrainer._save

    def arm(phase: int, epoch: int) -> None:
        def dying(self: ThreePhaseTrainer, run, key) -> None:
            save(self, run, key)
            if (run.phase, run.epoch) == (phase, epoch):
                raise KeyboardInterrupt

        monkeypatch.setattr(ThreePhaseTrainer, "_save", dying)

    def disarm() -> None:
        monkeypatch.setattr(ThreePhaseTrainer, "_save", save)

    arm.disarm = disarm  # type: ignore[attr-defined]
    return arm


def kept(folder: Path) -> list[str]:
    """What the resume folder holds, but the cached features."""
    found = folder / ".resume"
    return sorted(path.name for path in found.iterdir() if path.name != "shared_features") if found.is_dir() else []


def weights(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.glob("*.pt")}


def test_a_finished_job_leaves_nothing_to_resume(job: Job) -> None:
    assert kept(job.output_dir) == []


@pytest.mark.parametrize("phase", [1, 3])
def test_a_job_killed_in_the_folder_of_a_finished_one_goes_on_as_itself(job: Job, tmp_path, dies_after, phase) -> None:
    options = replace(job.options, output_dir=tmp_path / "a")
    phases = (1, 3, 2)
    run_phases(phases, options, Runs())
    other = replace(options, seed=8)
    expected = run_phases(phases, replace(other, output_dir=tmp_path / "whole"))["phase2_best"].parent

    dies_after(phase, 1)
    first = Runs()
    with pytest.raises(KeyboardInterrupt):
        run_phases(phases, other, first)
    assert all(resume_id is None for _, resume_id in first.opened)
    dies_after.disarm()
    second = Runs()
    run_phases(phases, replace(other, resume=True), second)
    assert dict(second.opened)["pipeline"] == "pipeline-1"
    assert dict(second.opened)["phase2_best"] is None  # never the finished job's
    assert weights(tmp_path / "a") == weights(expected)
    assert kept(tmp_path / "a") == []


def test_the_run_of_a_checkpoint_saved_just_before_the_kill_is_closed_with_it(job: Job, tmp_path, monkeypatch) -> None:
    options = replace(job.options, output_dir=tmp_path)

    def dies(self, *rest, **named) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Runs, "log_checkpoint", dies)
        run_phases((1,), options, Runs())
    assert (tmp_path / "phase1_best.json").is_file()
    logged = []
    monkeypatch.setattr(Runs, "log_checkpoint", lambda self, path, *rest, **named: logged.append(path.name))
    again = Runs()
    run_phases((1,), replace(options, resume=True), again)
    assert dict(again.opened) == {"phase1": "phase1-1", "phase1_best": "phase1_best-2"}
    assert logged == ["phase1_best.pt"] and kept(tmp_path) == []


def test_two_trainings_in_one_folder_are_refused_and_the_first_goes_on(job: Job, tmp_path) -> None:
    options = replace(job.options, output_dir=tmp_path)
    said = r"is in use by '.*' \(process \d+ on .*\). Wait for it, or train in another"
    with held(tmp_path / ".resume" / "lock", "x", ""), pytest.raises(InUseError, match=said):
        run_phases((1,), options)
    assert list(tmp_path.rglob("*")) == []
