"""A study is joined only by those it belongs to, its trials are never lost or taken twice, and its place is one."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loguru import logger
from optuna.trial import TrialState

from lasps.config.settings import settings
from lasps.tracking import NullTracker
from lasps.tracking.environment import process_tags
from lasps.tuning import conclusion_path, load_study, open_study, read_conclusion, requeue_dead, run_trials, space_of
from lasps.tuning.liveness import claim, mark_own
from lasps.tuning.storage import absolute, mend, shown, storage_of, whole_part

SPACE = {
    "lr": [1e-5, 1e-2],
    "epochs": [1, 4],
    "min_samples": [20, 400],
    "l2_sp": [1e-2, 1e3],
    "rank": [2, 32],
    "penalty": [1.0, 1e3],
}


def opened(storage: str, name: str = "s", **changes) -> optuna.Study:
    return open_study(name, storage, **({"made_on": "abc", "space": SPACE} | changes))


def places(tmp_path: Path) -> list[str]:
    return [f"sqlite:///{tmp_path / 'o.db'}", str(tmp_path / "o.journal")]


def all_of(storage: str, name: str = "s") -> tuple:
    """Everything that a study holds."""
    found = optuna.load_study(study_name=name, storage=storage_of(name, storage))
    return found.user_attrs, [(trial.number, trial.state, trial.params, trial.user_attrs) for trial in found.trials]


# ------------------------------------------------------------------------------------------------ whose study


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize(
    ("change", "told"),
    [({"made_on": "xyz"}, "another checkpoint"), ({"space": SPACE | {"lr": [1e-6, 1e-2]}}, "search space")],
)
def test_a_study_of_other_data_or_another_search_space_is_refused_before_anything_is_written(
    tmp_path, kind, change, told
):
    storage = places(tmp_path)[kind]
    opened(storage)
    before = all_of(storage)
    with pytest.raises(ValueError, match=f"{told}.*\n?.*STUDY="):
        opened(storage, **change)
    assert all_of(storage) == before


@pytest.mark.parametrize("kind", [0, 1])
def test_a_study_that_maximizes_is_refused_before_anything_is_written(tmp_path, kind):
    storage = places(tmp_path)[kind]
    optuna.create_study(storage=storage_of("s", storage), study_name="s", direction="maximize")
    before = all_of(storage)
    with pytest.raises(ValueError, match="MAXIMIZE.*STUDY="):
        opened(storage)
    assert all_of(storage) == before


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("theirs", ["trials", "waiting", "attributes"])
def test_a_study_of_another_program_is_refused_before_anything_is_written(tmp_path, kind, theirs):
    storage = places(tmp_path)[kind]
    found = optuna.create_study(storage=storage_of("s", storage), study_name="s")
    if theirs == "trials":
        found.optimize(lambda trial: trial.suggest_float("lr", 0.1, 1.0), n_trials=2)
    elif theirs == "waiting":
        found.enqueue_trial({"lr": 0.5})
    else:
        found.set_user_attr("owner", "them")
    before = all_of(storage)
    with pytest.raises(ValueError, match="something else.*STUDY="):
        opened(storage)
    assert all_of(storage) == before


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("written", range(4))
def test_a_study_whose_making_was_cut_off_at_any_write_is_made_to_the_end(tmp_path, monkeypatch, kind, written):
    storage, left = places(tmp_path)[kind], [written]

    def counted(method):
        def wrapped(self, *arguments, **options):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return method(self, *arguments, **options)

        return wrapped

    with monkeypatch.context() as cut:
        for name in ("set_user_attr", "enqueue_trial"):
            cut.setattr(optuna.Study, name, counted(getattr(optuna.Study, name)))
        with pytest.raises(KeyboardInterrupt):
            opened(storage)
    assert [t.user_attrs["known"] for t in opened(storage).trials] == [
        t.user_attrs["known"] for t in opened(storage, "whole").trials
    ]


def test_a_storage_that_cannot_be_opened_is_named_without_its_password(tmp_path):
    for storage in ("nonsense://me:S3cretPW@host/db", f"sqlite:///{tmp_path}/no/such/x.db?password=S3cretPW"):
        with pytest.raises(ValueError, match="cannot be opened") as caught:
            opened(storage)
        assert "S3cretPW" not in str(caught.value)
    with pytest.raises(ValueError, match="found none") as caught:
        load_study("s", f"sqlite:///{tmp_path}/none.db?password=S3cretPW")
    assert "S3cretPW" not in str(caught.value) and not list(tmp_path.glob("none.db*"))


# ------------------------------------------------------------------------------------------------ damaged journals


def journal_with(tmp_path: Path, n: int = 3) -> Path:
    path = tmp_path / "s.journal"
    found = opened(str(path))
    for value in range(n):
        trial = claim(found)
        trial.suggest_float("x", 0, 1)
        found.tell(trial, float(value))
    return path


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_journal_damaged_anywhere_keeps_every_whole_line_before_it_and_loses_no_byte(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("journal")
    lines = [json.dumps({"op_code": i % 10, "worker_id": "w", "number": i}).encode() + b"\n" for i in range(12)]
    at = data.draw(st.integers(1, len(lines) - 1))
    tail = data.draw(
        st.sampled_from(
            [
                lines[at][:7],
                b"\0" * 300,
                lines[at][:7] + b"".join(lines[at + 1 :]),
                b"\xff\xfe" + lines[at],
                b"[1]\n",
                b"12\n" + lines[at],
            ]
        )
    )
    path = folder / "s.journal"
    path.write_bytes(b"".join(lines[:at]) + tail)
    mend(path)
    (aside,) = folder.glob("s.journal.damaged-*")
    assert path.read_bytes() == b"".join(lines[:at]) and aside.read_bytes() == tail
    mend(path)
    assert len(list(folder.glob("*.damaged-*"))) == 1, "what is whole is left alone"


def test_a_study_whose_journal_was_cut_short_goes_on_and_can_be_read(tmp_path):
    path = journal_with(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    found = load_study("s", str(path))
    logger.remove(sink)
    assert [t.value for t in found.trials if t.state == TrialState.COMPLETE] == [0.0, 1.0]
    assert "s.journal" in lines[0] and "damaged" in lines[0]
    assert whole_part(path.read_bytes()) == len(path.read_bytes())
    trial = claim(opened(str(path)))
    assert trial.number == 3


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"SQLite format 3\0 and more", "sqlite:///"), (b"code,date\n005930,2020\n", "expected an Optuna journal")],
)
def test_a_file_of_another_kind_is_called_that_and_left_as_it_is(tmp_path, content, told):
    path = tmp_path / "foo.db"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=told):
        opened(str(path))
    assert path.read_bytes() == content


# ------------------------------------------------------------------------------------------------ places


def test_every_storage_and_study_has_a_conclusion_of_its_own(tmp_path):
    storages = [
        None,
        str(tmp_path / "all.journal"),
        f"sqlite:///{tmp_path}/a.db",
        f"sqlite:///{tmp_path}/b.db",
        "postgresql://u:p@one/db",
        "postgresql://u:p@two/db",
    ]
    paths = [conclusion_path(name, storage) for storage in storages for name in ("lr", "on_phase1")]
    assert len(set(paths)) == len(paths)
    assert conclusion_path("lr", str(tmp_path / "all.journal")) == tmp_path / "all.lr.json"
    assert conclusion_path("lr") == settings.CHECKPOINT_DIR / "studies" / "lr.json"


def test_the_conclusion_of_another_study_is_refused(tmp_path):
    storage = str(tmp_path / "all.journal")
    study = opened(storage)
    assert read_conclusion(study, storage) is None
    for found in ({"study": "other"}, {"study": "s", "made_on": "xyz"}):
        conclusion_path("s", storage).write_text(json.dumps(found))
        with pytest.raises(ValueError, match="another study"):
            read_conclusion(study, storage)
    conclusion_path("s", storage).write_text(json.dumps({"study": "s", "made_on": "abc", "difference": 0.1}))
    assert read_conclusion(study, storage)["difference"] == 0.1


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\\b"])
def test_a_name_that_would_lie_elsewhere_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="study's name"):
        opened(str(tmp_path / "s.journal"), name)


def test_a_relative_storage_means_the_folder_where_the_command_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///two.db") == f"sqlite:///{tmp_path}/two.db"
    assert absolute("sub/two.journal") == f"{tmp_path}/sub/two.journal"
    for same in (None, f"sqlite:///{tmp_path}/two.db", "postgresql://u:p@host/db"):
        assert absolute(same) == same


def test_the_printed_command_names_storage_checkpoint_and_data_where_they_are_not_the_defaults(tmp_path):
    from experiments.tune_phase2 import make_variables

    default = Namespace(
        study="s", storage=None, checkpoint=settings.CHECKPOINT_DIR / "phase3_final.pt", data_dir=settings.DATA_DIR
    )
    assert make_variables(default) == ""
    root = settings.ROOT
    for storage, text in (
        (f"sqlite:///{root}/mine.db", "sqlite:///mine.db"),
        (f"{root}/a b.journal", "'a b.journal'"),
        (f"sqlite:///{tmp_path}/m.db", f"sqlite:///{tmp_path}/m.db"),
        ("postgresql://u:S3cretPW@host/db", "'postgresql://***@host/db'"),
    ):
        assert make_variables(Namespace(**vars(default) | {"storage": storage})) == f" STORAGE={text}"
    other = Namespace(**vars(default) | {"checkpoint": tmp_path / "c.pt", "data_dir": tmp_path})
    assert make_variables(other) == f" CHECKPOINT={tmp_path}/c.pt DATA_DIR={tmp_path}"
    assert "S3cretPW" not in shown("s", "postgresql://u:S3cr@S3cretPW@host/db")


# ------------------------------------------------------------------------------------------------ whose trial


@pytest.mark.parametrize("kind", [0, 1])
def test_a_trial_whose_worker_died_before_its_first_word_is_tried_again_at_once(tmp_path, kind):
    storage = places(tmp_path)[kind]
    study = opened(storage)
    trial = study.ask()  # as a worker leaves it that is killed at once
    assert requeue_dead(study) == [trial.number]
    (waiting,) = [t for t in study.get_trials() if t.user_attrs.get("retry_of") == trial.number]
    assert waiting.user_attrs["known"] == "default" and waiting.system_attrs["fixed_params"]["lr"] == 5e-4


def test_a_worker_that_is_about_to_say_whose_its_trial_is_is_waited_for(tmp_path):
    study = opened(str(tmp_path / "s.journal"))
    other = opened(str(tmp_path / "s.journal"))
    with other.sampler.claim_lock:
        trial = other.ask()
        found = ThreadPoolExecutor(1).submit(requeue_dead, study)
        time.sleep(0.3)
        assert not found.done()
        mark_own(trial)
    assert found.result(30) == []


@pytest.mark.parametrize("silent", [60, 3600])
def test_a_worker_of_another_container_lives_by_its_heartbeat_not_by_its_number(tmp_path, silent):
    study = opened(str(tmp_path / "s.journal"))
    trial = claim(study)
    trial.set_user_attr("owner", process_tags() | {"lasps.pid": "999999999", "lasps.pid_space": "another container"})
    trial.set_user_attr("seen", 1000.0)
    assert requeue_dead(study, now=1000.0 + silent) == ([trial.number] if silent == 3600 else [])


def test_a_worker_whose_trial_was_taken_drops_it_and_goes_on(data, tmp_path, monkeypatch):
    study = open_study("s", str(tmp_path / "s.journal"), made_on="abc", space=space_of(data))
    other = open_study("s", str(tmp_path / "s.journal"), made_on="abc", space=space_of(data))
    report, done = optuna.Trial.report, []

    def taken_at_the_first_epoch(self, value, step):
        if self.number == 0 and not done:
            done.append(other.tell(0, state=TrialState.FAIL))
        report(self, value, step)

    monkeypatch.setattr(optuna.Trial, "report", taken_at_the_first_epoch)
    run_trials(study, data, 3, NullTracker())
    assert [t.state.is_finished() for t in study.trials] == [True] * 3
    assert study.trials[0].state == TrialState.FAIL and study.trials[0].value is None


def test_the_study_s_start_is_one_worker_s_at_a_time(tmp_path):
    from lasps.tuning.storage import study_lock

    lock = study_lock("s", str(tmp_path / "s.journal"), "start")
    assert isinstance(lock, FileLock) and Path(lock.lock_file) == tmp_path / "s.s.start.lock"
