"""The spool: a damaged record costs no other, nothing goes that was not confirmed, and everything is sent once."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import stat
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from lasps import tracking
from lasps.tracking import spool
from lasps.tracking.location import Location, connect, local_location
from lasps.tracking.spool import JOURNAL, Journal, line_of, read_journal
from lasps.tracking.sync import SET_ASIDE, spooled
from lasps.tracking.writer import Writer

AWAY = "http://alice:S3cretPW@127.0.0.1:9"


def operations(key: str = "r1", epochs: int = 4) -> list[dict]:
    """A run with a metric per epoch."""
    return [
        {"do": "create_run", "run": key, "name": f"run_{key}", "experiment": "lasps", "start": 1000, "tags": {}},
        *(
            {"do": "log", "run": key, "metrics": [["loss", 1 / (i + 1), 1001 + i, i, None, None, None]]}
            for i in range(epochs)
        ),
        {"do": "end_run", "run": key, "status": "FINISHED", "end": 2000},
    ]


def journal_of(root: Path, records: list[dict], uri: str = AWAY) -> Path:
    """A journal that its process has finished; returns its folder."""
    journal = Journal(Location(uri, local_location(root).folder, None))
    for record in records:
        journal.append(record)
    journal.close()
    return journal.folder


def sent_to(root: Path) -> dict[str, list[float]]:
    """Name of each run -> its losses in order."""
    location = local_location(root)
    frame = tracking.runs(location=location)
    return {
        name: tracking.metric_history(run_id, "loss", location)["value"].tolist()
        for name, run_id in zip(frame["name"], frame["run_id"], strict=True)
    }


def sync(root: Path) -> list[tracking.Replay]:
    return tracking.replay_all(root, uri=local_location(root).uri)


# ------------------------------------------------------------------------------------------------ reading


WHOLE = [{"uri": None, "process": {}}, *operations(epochs=6)]


@given(st.data())
def test_whatever_happens_to_some_bytes_all_other_records_are_read_and_the_damaged_ones_named(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("journal")
    lines = [line_of(record) for record in WHOLE]
    damaged = data.draw(st.sets(st.integers(1, len(lines) - 1), min_size=1, max_size=3))
    for i in damaged:
        at = data.draw(st.integers(0, len(lines[i]) - 2))
        how = data.draw(st.sampled_from(["cut", "flip", "zero", "glue"]))
        flipped = bytes([lines[i][at] ^ (1 << data.draw(st.integers(0, 6)))])
        new = {
            "cut": lines[i][:at] + b"\n",
            "flip": lines[i][:at] + flipped + lines[i][at + 1 :],
            "zero": b"\0" * at + b"\n",
            "glue": lines[i][:at],
        }[how]
        lines[i] = new if flipped != b"\n" else lines[i][:at] + b"\n"
    (folder / JOURNAL).write_bytes(b"".join(lines))
    found = read_journal(folder)
    read = [operation for number, operation in found.operations if number]
    assert all(record in read for i, record in enumerate(WHOLE) if i and i not in damaged)
    assert all(record in WHOLE for record in read), "nothing is read that was not written"


def test_a_journal_of_an_earlier_version_without_checksums_is_read(tmp_path):
    (tmp_path / JOURNAL).write_text("".join(json.dumps(record) + "\n" for record in WHOLE))
    found = read_journal(tmp_path)
    assert [operation for _, operation in found.operations] == WHOLE[1:] and found.header == WHOLE[0] and not found.bad


# ------------------------------------------------------------------------------------------------ writing


def test_a_disk_that_is_full_for_a_moment_costs_no_record(root, monkeypatch, warnings_logged):
    """The first half of a record is written, then the disk is full; three records later it is free again."""
    whole, state = os.write, {"full": 0}

    def write_part(descriptor: int, data: bytes) -> int:
        if not state["full"]:
            return whole(descriptor, data)
        if state["full"] > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        state["full"] = 2
        return whole(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(spool.os, "write", write_part)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with tracking.open_tracker(root=root, system_metrics=False).run("pipeline") as run:
        for epoch in range(8):
            state["full"] = 1 if epoch in (0, 2, 3, 4) else 0
            run.log_metrics({"loss": 1 / (epoch + 1)}, step=epoch)
    assert sum("wait in memory" in line for line in warnings_logged) == 2
    assert all(replay.error is None and not replay.set_aside for replay in sync(root))
    assert sent_to(root) == {"pipeline": pytest.approx([1 / (i + 1) for i in range(8)])}


def test_a_disk_that_is_full_at_the_start_leaves_no_empty_journals_and_no_record_is_lost(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with monkeypatch.context() as full:

        def refuse(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        tracker = tracking.open_tracker(root=root, system_metrics=False)
        opened = tracker.run("pipeline")
        full.setattr(spool.os, "write", refuse)
        run = opened.__enter__()
        run.log_metrics({"loss": 1.0}, step=0)
        assert not list((root / "mlruns" / "spool").glob("*"))
    run.log_metrics({"loss": 0.5}, step=1)
    opened.__exit__(None, None, None)
    assert [replay.error for replay in sync(root)] == [None]
    assert sent_to(root) == {"pipeline": [1.0, 0.5]}


def test_the_spool_is_for_its_user_alone_and_holds_no_password(root):
    (root / "weights.pt").write_bytes(b"w")
    folder = journal_of(root, [*operations(), {"do": "artifact", "run": "r1", "path": str(root / "weights.pt")}])
    assert stat.S_IMODE((folder / JOURNAL).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "S3cretPW" not in (folder / JOURNAL).read_text() and "127.0.0.1:9" in (folder / JOURNAL).read_text()


def test_the_password_of_a_journal_is_that_of_the_tracking_uri(root, monkeypatch):
    folder = journal_of(root, operations())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    assert tracking.sync.target_of(read_journal(folder), root, None).uri == AWAY
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking.sync.target_of(read_journal(folder), root, None).uri == "http://127.0.0.1:9"


# ------------------------------------------------------------------------------------------------ sending


def test_one_damaged_line_is_set_aside_and_all_others_are_sent(root):
    folder = journal_of(root, operations())
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:20]  # glued to the next one
    (folder / JOURNAL).write_bytes(b"".join(lines))
    (replay,) = sync(root)
    assert replay.sent == 5 and len(replay.set_aside) == 1 and "line 4" in replay.set_aside[0]
    assert sent_to(root) == {"run_r1": pytest.approx([1, 1 / 3, 1 / 4])}
    aside = root / "mlruns" / "spool" / SET_ASIDE / folder.name
    assert (aside / JOURNAL).read_bytes() == b"".join(lines) and "line 4" in (aside / "reasons.txt").read_text()
    assert sync(root) == [], "it is not sent twice"


def test_a_run_whose_own_record_is_lost_is_made_again_and_keeps_its_metrics(root):
    folder = journal_of(root, operations())
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    lines[1] = b"{\n"
    (folder / JOURNAL).write_bytes(b"".join(lines))
    (replay,) = sync(root)
    assert len(replay.set_aside) == 1
    assert sent_to(root) == {"recovered_r1": pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])}


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0", b'{"uri"'])
def test_a_journal_of_nothing_is_set_aside_and_the_next_one_is_sent(root, content):
    empty = root / "mlruns" / "spool" / "20000101-000000-aaaaaa"
    empty.mkdir(parents=True)
    (empty / JOURNAL).write_bytes(content)
    journal_of(root, operations())
    bad, good = sync(root)
    assert bad.set_aside and good.error is None and good.sent == good.total == 6
    assert (root / "mlruns" / "spool" / SET_ASIDE / empty.name / JOURNAL).read_bytes() == content
    assert sync(root) == []


def test_a_journal_whose_process_died_before_its_first_record_goes_without_a_word(root):
    folder = journal_of(root, [])
    assert [(replay.error, replay.set_aside) for replay in sync(root)] == [(None, ())]
    assert not folder.exists()


def test_a_record_that_mlflow_refuses_is_set_aside_with_its_reason_and_the_rest_is_sent(root):
    refused = {"do": "log", "run": "r1", "metrics": [["bad?name!", 1.0, 1, 0, None, None, None]]}
    unknown = {"do": "dance", "run": "r1"}
    records = operations()
    journal_of(root, [*records[:2], refused, unknown, *records[2:]])
    (replay,) = sync(root)
    assert replay.sent == 6 and replay.total == 8
    assert [reason[:7] for reason in replay.set_aside] == ["line 4:", "line 5:"]
    assert sent_to(root) == {"run_r1": pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])}


def test_a_file_that_cannot_be_stored_waits_and_metrics_and_the_end_of_the_run_are_sent(root, monkeypatch):
    (root / "a.png").write_bytes(b"a")
    records = operations()
    journal_of(root, [*records[:2], {"do": "artifact", "run": "r1", "path": str(root / "a.png")}, *records[2:]])

    def refuse(self, *_):
        raise PermissionError(errno.EACCES, "Permission denied", "/server/art")

    with monkeypatch.context() as closed:
        closed.setattr("mlflow.MlflowClient.log_artifact", refuse)
        (replay,) = sync(root)
        assert replay.sent == 6 and "/server/art" in replay.error and not replay.set_aside
        assert sent_to(root) == {"run_r1": pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])}
        assert tracking.runs(location=local_location(root))["status"].tolist() == ["FINISHED"]
        assert [done.error is None for done in sync(root)] == [False]
    assert [(done.sent, done.error) for done in sync(root)] == [(2, None)]
    (run_id,) = tracking.runs(location=local_location(root))["run_id"]
    assert tracking.download_artifact(run_id, "a.png", local_location(root)).read_bytes() == b"a"
    assert tracking.runs(location=local_location(root))["status"].tolist() == ["FINISHED"]


def test_a_file_that_is_gone_is_named_and_stops_nothing(root):
    (root / "a.png").write_bytes(b"a")
    records = operations()
    folder = journal_of(root, [*records, {"do": "artifact", "run": "r1", "path": str(root / "a.png")}])
    next(folder.rglob("a.png")).unlink()
    (replay,) = sync(root)
    assert replay.error is None and len(replay.set_aside) == 1 and "a.png" in replay.set_aside[0]


def test_a_dead_server_is_asked_once_for_all_its_journals_and_told_apart_from_a_living_one(root, monkeypatch):
    for key in ("r1", "r2", "r3"):
        journal_of(root, operations(key), uri="http://127.0.0.1:9")
    journal_of(root, operations("r4"), uri=local_location(root).uri)
    asked = []
    monkeypatch.setattr(
        "mlflow.MlflowClient.search_experiments",
        lambda self, **_: asked.append(self._tracking_client.tracking_uri) or self.get_experiment("0"),
    )
    for name, value in {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}.items():
        monkeypatch.setenv(name, value)
    replays = tracking.replay_all(root)
    assert asked.count("http://127.0.0.1:9") == 1
    assert ["refused" in (replay.error or "") for replay in replays] == [True] * 3 + [False]
    assert sent_to(root).keys() == {"run_r4"}


@pytest.mark.parametrize("after", range(1, 7))
def test_a_sync_killed_after_any_record_and_repeated_sends_each_once(root, monkeypatch, after):
    journal_of(root, operations())
    apply, done = Writer.apply, []

    def stop_after_some(self, operation):
        apply(self, operation)
        done.append(operation)
        if len(done) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "apply", stop_after_some)
    with pytest.raises(KeyboardInterrupt):
        sync(root)
    monkeypatch.setattr(Writer, "apply", apply)
    assert [replay.error for replay in sync(root)] == [None]
    location = local_location(root)
    frame = tracking.runs(location=location)
    assert frame["status"].tolist() == ["FINISHED"]
    points = connect(location).get_metric_history(frame["run_id"][0], "loss")
    assert [point.step for point in points] == [0, 1, 2, 3]


def test_a_second_sync_at_the_same_time_sends_nothing_and_says_so(root, monkeypatch):
    monkeypatch.setattr(tracking.sync, "OTHER_SYNC_SECONDS", 0.1)
    folder = journal_of(root, operations())
    with FileLock(folder.parent / ".sync.lock"):
        (replay,) = sync(root)
    assert "another sync" in replay.error and (folder / JOURNAL).exists()
    assert [done.error for done in sync(root)] == [None]


def test_one_journal_can_be_sent_by_its_name_and_an_unknown_name_is_refused(root):
    first, second = (journal_of(root, operations(key)) for key in ("r1", "r2"))
    (replay,) = tracking.replay_all(root, uri=local_location(root).uri, only=[second.name])
    assert replay.folder == second and (first / JOURNAL).exists() and sent_to(root).keys() == {"run_r2"}
    with pytest.raises(ValueError, match=first.name):
        tracking.replay_all(root, only=["nonsense"])


# ------------------------------------------------------------------------------------------------ who writes it


def write_and_wait(root: Path, connection, die: bool) -> None:
    journal = Journal(Location(AWAY, local_location(root).folder, None))
    for operation in operations()[:-1]:
        journal.append(operation)
    connection.send(os.getpid())
    if die:
        os.kill(os.getpid(), 9)
    connection.recv()


@pytest.mark.parametrize("die", [False, True])
def test_a_journal_is_left_alone_while_its_process_lives_and_its_runs_are_closed_as_killed_when_it_died(root, die):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=write_and_wait, args=(root, theirs, die))
    process.start()
    ours.recv()
    if die:
        process.join()
    assert [replay.error for replay in sync(root)] == ([None] if die else [])
    if not die:
        ours.send("end")
        process.join()
        assert [replay.error for replay in sync(root)] == [None]
    assert tracking.runs(location=local_location(root))["status"].tolist() == ["KILLED"]


def test_the_process_numbers_of_another_container_say_nothing_about_who_writes_a_journal(root):
    folder = journal_of(root, operations())
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    header = json.loads(lines[0].partition(b"\t")[0])
    header["process"] |= {"lasps.pid": str(os.getppid()), "lasps.pid_space": "another container"}
    (folder / JOURNAL).write_bytes(b"".join([line_of(header), *lines[1:]]))
    assert [replay.error for replay in sync(root)] == [None]


def test_sync_lists_what_waits_and_what_cannot_be_read_without_sending(root, monkeypatch, capsys):
    from experiments import sync as script

    folder = journal_of(root, operations())
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    (folder / JOURNAL).write_bytes(b"".join([*lines[:2], b"{\n", *lines[3:]]))
    monkeypatch.setattr(tracking, "spooled", lambda only: spooled(root, only))
    for flag, code in (("--list", 0), ("--dry-run", 1)):
        monkeypatch.setattr(sys, "argv", ["sync.py", flag])
        assert script.main() == code
        shown = capsys.readouterr().out
        assert f"{folder.name}  6 records (1 create_run, 1 end_run, 3 log) for http://127.0.0.1:9" in shown
        assert ("line 3 cannot be read" in shown) == (flag == "--dry-run")
    assert (folder / JOURNAL).exists()
