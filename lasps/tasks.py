"""Independent tasks: one after another in this process, or on Ray's workers.

A task is a function of files: it reads a dataset folder or bars by their path, and what it makes stands in a folder
when it ends. It finds finished work again, so it may run twice: Ray gives a task whose worker died to another one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loguru import logger

ADDRESS = "RAY_ADDRESS"
"""Ray's own variable: the cluster to use, for instance ray://head:10001, or auto for one on this machine."""
RETRIES = 3
"""How often a task is given to another worker when its worker died. An error that it raises is never retried."""
OBJECT_STORE_BYTES = 200_000_000
"""Of a local cluster. Tasks pass options and small results; data goes by files."""


@dataclass(frozen=True)
class Task:
    """A function and its arguments.

    Args:
        name: shown in messages.
        function: of a module that every worker can import, or of the script itself, whose globals travel with it.
        gpus: graphics cards that it needs, for instance .5 for two tasks on one card.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    gpus: float = 0.0


def run_tasks(
    tasks: Sequence[Task],
    workers: int | None = None,
    setup: Callable[[], None] | None = None,
    done: Callable[[Task, Any], None] | None = None,
) -> list[Any]:
    """The results of the tasks, in their order.

    Without `workers` above 1 and without RAY_ADDRESS they run here, one after another, and Ray is not imported.

    Args:
        workers: processes on this machine, which share its cores; with RAY_ADDRESS, tasks at a time on that cluster,
            as many as fit if not given.
        setup: called on a worker before each task, for instance to format its log.
        done: called here with each task and its result as soon as it has ended.

    Raises:
        ValueError: Ray is not installed or there is no cluster at RAY_ADDRESS; a task's worker died RETRIES + 1 times.
        Exception: what a task raised; the others are stopped.
    """
    if not is_fanned_out(workers):
        results = []
        for task in tasks:
            results.append(task.function(*task.arguments))
            if done is not None:
                done(task, results[-1])
        return results
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ValueError(
            "expected Ray, which runs tasks on several workers: it is not installed. pip install 'lasps[cluster]', or "
            f"leave out WORKERS and {ADDRESS}"
        ) from error
    at_cluster = bool(os.environ.get(ADDRESS))
    cpus = _connect(ray, workers, at_cluster)
    try:
        return _collect(ray, tasks, cpus, workers if at_cluster else None, setup, done)
    finally:
        ray.shutdown()


def is_fanned_out(workers: int | None) -> bool:
    """Whether tasks go to Ray: several workers here, or a cluster."""
    return bool(os.environ.get(ADDRESS)) or (workers or 1) > 1


def gpus_for(device: str) -> float:
    """What a task that trains on `device` needs: one card, or none."""
    return 1.0 if device.startswith("cuda") else 0.0


def _connect(ray: Any, workers: int | None, at_cluster: bool) -> int:
    """Start a cluster here, or join the one at RAY_ADDRESS; the cores that a task gets."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # tasks without a card see what this process sees
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": True}
    if at_cluster:
        try:
            _reach(os.environ[ADDRESS])
            ray.init(**options)
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{ADDRESS}={os.environ[ADDRESS]}: expected a Ray cluster there, cannot join it "
                f"({str(error).strip().partition(chr(10))[0]}). Start one with ray start --head, or unset {ADDRESS}"
            ) from error
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cpus = max(1, cores // (workers or 1))
    ray.init(
        address="local",
        num_cpus=cpus * (workers or 1),
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        **options,
    )
    return cpus


def _reach(address: str) -> None:
    """Raise OSError at once where nothing listens at HOST:PORT; Ray itself waits for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _collect(
    ray: Any,
    tasks: Sequence[Task],
    cpus: int,
    at_most: int | None,
    setup: Callable[[], None] | None,
    done: Callable[[Task, Any], None] | None,
) -> list[Any]:
    """Hand out the tasks, `at_most` at a time; wait for all of them, or stop the others at the first that fails."""
    remote = ray.remote(num_cpus=cpus, max_retries=RETRIES, retry_exceptions=False)(_run_on_worker)
    waiting = list(enumerate(tasks))[::-1]
    running: dict[Any, int] = {}
    results: dict[int, Any] = {}
    try:
        while waiting or running:
            while waiting and (at_most is None or len(running) < at_most):
                place, task = waiting.pop()
                asked = remote.options(name=task.name, num_gpus=task.gpus)
                running[asked.remote(task.function, task.arguments, cpus, setup)] = place
            ready, _ = ray.wait(list(running))
            place = running.pop(ready[0])
            task = tasks[place]
            results[place] = _result_of(ray, ready[0], task)
            logger.info(f"{task.name}: done, {len(results)} of {len(tasks)}")
            if done is not None:
                done(task, results[place])
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
    return [results[place] for place in range(len(tasks))]


def _result_of(ray: Any, reference: Any, task: Task) -> Any:
    """What a task returned. What it raised is raised here, without the worker's traceback in its message."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        logger.debug(f"{task.name} failed on its worker: {error}")
        raise error.cause from None
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError) as error:
        raise ValueError(
            f"{task.name}: its worker died {RETRIES + 1} times, the last time with {type(error).__name__}. Finished "
            "tasks stand: give the command again, with fewer workers if memory ran out"
        ) from error


def _run_on_worker(
    function: Callable[..., Any], arguments: tuple[Any, ...], cpus: int, setup: Callable[[], None] | None
) -> Any:
    import torch

    if setup is not None:
        setup()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or cpus))
    return function(*arguments)
