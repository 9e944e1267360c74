"""The tracker that keeps nothing: the same methods as `MlflowTracker`, so training need not ask whether it tracks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class NullTracker:
    """Accepts every call of a tracker and forgets it."""

    run_id: str | None = None
    resume_id: str | None = None
    uri: str | None = None

    @contextmanager
    def run(
        self,
        name: str,
        *,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        resume_id: str | None = None,
    ) -> Iterator[NullTracker]:
        """A run that is not kept; yields this tracker."""
        yield self

    def log_metrics(
        self, metrics: Mapping[str, float | None], step: int | None = None, dataset: str | None = None
    ) -> None:
        """Forget a batch of metrics."""

    def log_metrics_beside(self, run_id: str, metrics: Mapping[str, float | None]) -> None:
        """Forget metrics of another run."""

    def log_metric_rows(self, rows: Mapping[int, Mapping[str, float | None]]) -> None:
        """Forget metrics of many steps."""

    def fill_metric_rows(self, rows: Mapping[int, Mapping[str, float | None]]) -> None:
        """Forget metrics that a run may have already."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Forget parameters."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Forget tags."""

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Forget a file."""

    def log_figure(self, figure: Any, name: str) -> None:
        """Forget a picture."""

    def log_table(self, frame: Any, name: str) -> None:
        """Forget a table."""

    def log_dataset(
        self,
        name: str,
        fingerprint: str,
        *,
        context: str = "training",
        source: str = "",
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        """Forget a dataset."""

    def log_checkpoint(
        self,
        path: str | Path,
        metrics: Mapping[str, float | None] | None = None,
        step: int = 0,
        dataset: str | None = None,
    ) -> None:
        """Forget a checkpoint."""

    def set_status(self, status: str) -> None:
        """Forget how the run ended."""

    def close(self) -> None:
        """Nothing to flush."""
