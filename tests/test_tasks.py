"""Independent tasks: the same results here and on Ray's workers, whoever dies on the way."""

import os
import signal
import sys
from pathlib import Path

import pytest

from lasps.tasks import ADDRESS, Task, gpus_for, run_tasks


def square(number: int, folder: Path, dies: bool = False) -> tuple[int, int]:
    """The square and the process; where it `dies`, its first worker is killed before it returns."""
    tried = folder / f"{number}.tried"
    if dies and not tried.exists():
        tried.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2, os.getpid()


def refuse(number: int) -> None:
    raise ValueError(f"expected an even number, got {number}")


def threads() -> int:
    import torch

    return torch.get_num_threads()


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize("workers", [None, 1])
def test_without_workers_tasks_run_in_this_process_one_after_another(workers: int | None, tmp_path: Path) -> None:
    ended: list[tuple[str, int]] = []
    tasks = [Task(f"{n}", square, (n, tmp_path)) for n in (3, 1, 2)]
    found = run_tasks(tasks, workers, done=lambda task, result: ended.append((task.name, result[0])))
    assert ended == [("3", 9), ("1", 1), ("2", 4)]
    assert found == [(9, os.getpid()), (1, os.getpid()), (4, os.getpid())]


def test_an_error_of_a_task_here_is_raised_as_it_is() -> None:
    with pytest.raises(ValueError, match="^expected an even number, got 3$"):
        run_tasks([Task("3", refuse, (3,))])


def test_a_worker_killed_in_the_middle_is_replaced_and_the_order_stays(tmp_path: Path) -> None:
    tasks = [Task(f"{n}", square, (n, tmp_path, n == 2)) for n in (4, 2, 3)] + [Task("threads", threads)]
    ended: list[str] = []
    *found, used = run_tasks(tasks, workers=2, done=lambda task, result: ended.append(task.name))
    assert sorted(ended) == ["2", "3", "4", "threads"]
    assert [result for result, _ in found] == [16, 4, 9]
    assert os.getpid() not in [process for _, process in found]
    assert (tmp_path / "2.tried").exists(), "its first worker was killed"
    cores = len(os.sched_getaffinity(0))
    assert used == max(1, cores // 2), "the workers share the cores"


@pytest.mark.slow
def test_an_error_on_a_worker_is_the_same_error_and_stops_the_rest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^expected an even number, got 3$"):
        run_tasks([Task("3", refuse, (3,)), Task("2", square, (2, tmp_path))], workers=2)


def test_an_address_where_nothing_listens_is_told_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ADDRESS, "127.0.0.1:1")
    with pytest.raises(ValueError, match=r"RAY_ADDRESS=127\.0\.0\.1:1: expected a Ray cluster there.*ray start --head"):
        run_tasks([Task("2", square, (2, tmp_path))])


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"expected Ray.*pip install 'lasps\[cluster\]'"):
        run_tasks([Task("2", square, (2, tmp_path))], workers=2)


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0), ("cuda", 1), ("cuda:1", 1)])
def test_a_task_on_a_card_asks_for_one(device: str, gpus: float) -> None:
    assert gpus_for(device) == gpus
