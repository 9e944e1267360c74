"""The tracker that writes nothing: the same methods as `MlflowTracker`, so that training need not ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lasps.tracking.mlflow_tracker import MlflowTracker


class NullTracker(MlflowTracker):
    """Accepts every call of a tracker and forgets it; `run` gives this tracker itself."""

    def __init__(self) -> None:
        """There is no store, so there is nothing to open."""

    @contextmanager
    def run(
        self,
        name: str,
        *,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        resume_id: str | None = None,
    ) -> Iterator[NullTracker]:
        """A run that is not kept."""
        yield self

    def _put(self, verb: str, stays: bool = False, **arguments: Any) -> None:
        pass

    def _put_made(self, save: Callable[[Path], object], path_in_run: Path, table: bool = False) -> None:
        pass

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Forget a file, there or not."""

    def log_checkpoint(
        self,
        path: str | Path,
        metrics: Mapping[str, float | None] | None = None,
        step: int = 0,
        dataset: str | None = None,
    ) -> None:
        """Forget a checkpoint, there or not."""

    def flush(self, seconds: float) -> bool:
        """Nothing is ever waiting."""
        return True
