"""Runs in MLflow: one per pipeline, a nested one per phase, written through an outbox that never blocks training."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loguru import logger

from lasps.config.settings import settings
from lasps.tracking.environment import HEARTBEAT_SECONDS, process_tags, source_tags
from lasps.tracking.error_messages import without_password
from lasps.tracking.location import Location
from lasps.tracking.outbox import Outbox
from lasps.tracking.system_metrics import repeated, sampled
from lasps.tracking.writer import DIGEST_LENGTH, now_ms

INTERRUPTED_CODES = (130, 143)  # exit codes of Ctrl-C and of a polite kill


class MlflowTracker:
    """A tracker over one MLflow store; `run` gives a tracker of the same kind that writes into a new run."""

    experiment = "lasps"
    _key: str | None = None
    _status: str | None = None
    _digests: Mapping[str, str] = MappingProxyType({})
    _warned = False

    def __init__(self, location: Location, experiment: str = "lasps", system_metrics: bool = True) -> None:
        self.location, self.experiment, self.system_metrics = location, experiment, system_metrics
        self._outbox = Outbox(location)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the open run, waited for (seconds, right after a start); None outside of a run."""
        return self._outbox.run_id(self._key) if self._key is not None else None

    @property
    def resume_id(self) -> str | None:
        """For `run(..., resume_id=)`, at once: the run's id, or a name of our own by which the run is found."""
        return self._outbox.resume_id(self._key) if self._key is not None else None

    @contextmanager
    def run(
        self,
        name: str,
        *,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        resume_id: str | None = None,
    ) -> Iterator[MlflowTracker]:
        """Open a run, nested in this tracker's own where it has one, and close it with its true status.

        Args:
            name: the run's name, e.g. "phase1_best".
            tags: what to find the run by; commit, lock file, machine and process are added.
            params: the configuration, possibly nested.
            resume_id: the `resume_id` or `run_id` of a killed run that is to be continued under its own id.
        """
        child = self._child()
        outermost = self._key is None
        if outermost:
            self._outbox.put({"do": "close_dead", "experiment": self.experiment}, keep=False)
        self._outbox.put(
            {
                "do": "create_run",
                "run": child._key,
                "name": name,
                "experiment": self.experiment,
                "start": now_ms(),
                "parent": self._key,
                "resume_id": resume_id,
                "tags": source_tags(settings.ROOT, settings.LOCK_FILE) | process_tags() | _texts(tags),
            }
        )
        if params:
            child.log_params(params)
        with ExitStack() as stack:
            if outermost:
                stack.callback(self._outbox.finish)
            stack.enter_context(child._closing())
            if outermost and self.system_metrics:
                stack.enter_context(sampled(child._log_load))
            if outermost:
                stack.enter_context(repeated(self._outbox.beat, HEARTBEAT_SECONDS))
            yield child

    def _child(self) -> MlflowTracker:
        child = copy.copy(self)
        child._key, child._status = uuid.uuid4().hex, None
        return child

    @contextmanager
    def _closing(self) -> Iterator[None]:
        status = "FINISHED"
        try:
            yield
        except (KeyboardInterrupt, GeneratorExit):
            status = "KILLED"
            raise
        except SystemExit as stop:
            status = "FINISHED" if not stop.code else "KILLED" if stop.code in INTERRUPTED_CODES else "FAILED"
            raise
        except BaseException as error:
            status = "FAILED"
            self.set_tags({"error": self.location.hide(f"{type(error).__name__}: {error}")[:1000]})
            raise
        finally:
            self._put("end_run", status=self._status or status, end=now_ms())

    def _log_load(self, load: Mapping[str, float | None]) -> None:
        """System metrics at the second since the run began, which goes on through a resume."""
        started = self._outbox.writer.started.get(str(self._key))
        if started is not None and self._key not in self._outbox.writer.finished_before:
            self.log_metrics(load, step=(now_ms() - started) // 1000)

    def set_status(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED although the block ends without an error."""
        if status not in ("FINISHED", "FAILED", "KILLED"):
            raise ValueError(f"expected a status FINISHED, FAILED or KILLED, got {status!r}")
        self._status = status

    def _put(self, verb: str, stays: bool = False, **arguments: Any) -> None:
        if self._key is not None:
            self._outbox.put({"do": verb, "run": self._key, **arguments}, stays=stays)
        elif not self._warned:
            self._warned = True
            logger.warning(f"nothing is tracked ({verb}): no run is open, use `with tracker.run(NAME) as run:`")

    def log_metrics(
        self, metrics: Mapping[str, float | None], step: int | None = None, dataset: str | None = None
    ) -> None:
        """One batch of metrics at a step; None values are left out, NaN is kept as NaN."""
        self._put_metrics("log", {step or 0: metrics}, dataset)

    def log_metrics_beside(self, run_id: str, metrics: Mapping[str, float | None]) -> None:
        """Metrics into another run of the same store (a pipeline's headline), finished or not; its status stays."""
        self._put_metrics("log_beside", {0: metrics}, to=run_id, experiment=self.experiment)

    def log_metric_rows(self, rows: Mapping[int, Mapping[str, float | None]]) -> None:
        """Metrics of many steps, {step: {name: value}}, in as few calls as MLflow takes."""
        self._put_metrics("log", rows)

    def fill_metric_rows(self, rows: Mapping[int, Mapping[str, float | None]]) -> None:
        """As `log_metric_rows`, but a step that a resumed run has already is left as it is."""
        self._put_metrics("fill", rows)

    def _put_metrics(
        self, verb: str, rows: Mapping[int, Mapping[str, float | None]], dataset: str | None = None, **arguments: Any
    ) -> None:
        flat = [row for step, metrics in rows.items() for row in self._records(metrics, step, dataset)]
        if flat:
            self._put(verb, metrics=flat, **arguments)

    def _records(self, metrics: Mapping[str, float | None], step: int, dataset: str | None) -> list[list[Any]]:
        digest = self._digests.get(str(dataset))
        name, now = dataset if digest else None, now_ms()
        return [
            [key, float(value), now, int(step), None, name, digest]
            for key, value in metrics.items()
            if value is not None
        ]

    def log_params(self, params: Mapping[str, Any]) -> None:
        """The configuration; nested mappings become dotted names."""
        if params:
            self._put("log", params=dict(_flat(params)))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Tags; a None is left out."""
        self._put("log", tags=_texts(tags))

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """A copy of a file or folder, under `folder` among the run's artifacts; a missing one is a warning."""
        if not Path(path).exists():
            logger.warning(f"not tracked, there is no such file: {path}")
            return
        self._put("artifact", path=str(Path(path).absolute()), folder=folder)

    def log_figure(self, figure: Any, name: str) -> None:
        """A matplotlib figure or a Pillow image as figures/NAME.png."""

        def save(path: Path) -> None:
            if hasattr(figure, "savefig"):
                figure.savefig(path, dpi=110, bbox_inches="tight")
            else:
                figure.save(path)

        self._put_made(save, Path("figures") / f"{name.removesuffix('.png')}.png")

    def log_table(self, frame: Any, name: str) -> None:
        """A polars or pandas frame: NAME.parquet as that file, any other name as a table for MLflow's UI (JSON)."""
        pandas = frame.to_pandas() if hasattr(frame, "to_pandas") else frame
        if name.endswith(".parquet"):
            self._put_made(lambda path: pandas.to_parquet(path, index=False), Path(name), table=True)
        else:
            self._put_made(
                lambda path: pandas.to_json(path, orient="split", index=False, date_format="iso", force_ascii=False),
                Path(f"{name.removesuffix('.json')}.json"),
                table=True,
            )

    def _put_made(self, save: Callable[[Path], object], path_in_run: Path, table: bool = False) -> None:
        """An artifact made here, in one of the outbox's own folders; a full disk is a warning and training goes on."""
        try:
            path = self._outbox.new_folder() / path_in_run.name
            save(path)
        except OSError as error:
            logger.warning(f"not tracked, {path_in_run} cannot be written: {error}")
            return
        folder = path_in_run.parent
        self._put(
            "artifact", stays=True, path=str(path), folder=None if folder == Path() else folder.as_posix(), table=table
        )

    def log_dataset(
        self,
        name: str,
        fingerprint: str,
        *,
        context: str = "training",
        source: str = "",
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        """A dataset by its own digest over everything in it (MLflow's own covers 10,000 rows).

        Args:
            name: what metrics refer to it by, e.g. "val".
            fingerprint: the dataset's sha256; MLflow's column takes 36 digits of it, a tag the whole.
            context: what it was used for.
            source: where it lies.
            profile: counts worth reading in the UI.
        """
        self._digests = {**self._digests, name: fingerprint[:DIGEST_LENGTH]}
        self._put(
            "dataset",
            name=name,
            fingerprint=fingerprint,
            context=context,
            source=source,
            profile=json.dumps(dict(profile or {}), default=str)[:16_000],
        )

    def log_checkpoint(
        self,
        path: str | Path,
        metrics: Mapping[str, float | None] | None = None,
        step: int = 0,
        dataset: str | None = None,
    ) -> None:
        """A saved checkpoint as a LoggedModel, with its description beside it and its metrics at its step.

        The same weights logged again in the same run (by a validation) get the further metrics.

        Args:
            path: the .pt file; the .json of the same name is taken along.
            metrics: e.g. {"phase1/val_loss": 0.93}.
            step: the epoch that the weights are from.
            dataset: the name, given to `log_dataset` before, of what the metrics were measured on.
        """
        path = Path(path).absolute()
        if not path.exists():
            logger.warning(f"not tracked, there is no such checkpoint: {path}")
            return
        try:
            folder = self._outbox.new_folder()
            files = [str(shutil.copy2(file, folder)) for file in (path, path.with_suffix(".json")) if file.exists()]
        except OSError as error:
            logger.warning(f"not tracked, {path.name} cannot be copied: {error}")
            return
        self._put(
            "checkpoint",
            stays=True,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            name=path.stem,
            files=files,
            step=int(step),
            metrics=self._records(metrics or {}, step, dataset),
        )

    def flush(self, seconds: float) -> bool:
        """Wait until everything is sent, sending has failed, or the time is up; whether all is sent."""
        return self._outbox.flush(seconds)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", without_password(str(value))


def _texts(tags: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: without_password(str(value)) for key, value in (tags or {}).items() if value is not None}
