"""The operations of a tracker, each a plain dict, and the one place that carries them out against MLflow.

An operation is JSON, so the same code writes to a local store at once, to a server from a background thread, and for
`make sync` weeks later. Each can be repeated without harm: sending a half-sent journal again adds nothing twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from lasps.tracking.environment import SEEN, is_dead
from lasps.tracking.location import Location, connect, quiet_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Operation = dict[str, Any]

KEY_TAG = "lasps.key"
"""A run's own key, made here before MLflow gave it an id."""
SPOOLED = "spooled-"
"""Prefix of the id that a run goes by while MLflow has not given it one."""
PROCESS_TAGS = ("lasps.host", "lasps.pid", "lasps.pid_space", "lasps.process_started", SEEN, KEY_TAG)
CLOSED = "lasps.closed"
"""The tag of a run that a later start has closed because its process was gone."""
PER_CALL = {"metrics": 1000, "params": 100, "tags": 100}  # MLflow's limits
INVALID = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")
DIGEST_LENGTH = 36  # MLflow's column; 144 of the fingerprint's 256 bits
TRIES_TO_STORE = 2
"""After as many artifacts in a row that could not be stored the next ones are not tried; guess, not tuned."""
WITHOUT_RUN = ("create_run", "known_run", "close_dead")
WITH_RUN = ("log", "fill", "artifact", "dataset", "checkpoint", "seen", "end_run", "log_beside")


class Rejected(Exception):
    """MLflow refused one operation for what it says, not for the state of the server: repeating it will not help."""


class Unstored(Exception):
    """A file could not be put where the run's artifacts go; all else of the operation is done. Caused by the reason."""


class Writer:
    """Carries operations out against one store.

    Attributes:
        run_ids: MLflow's id of each run, by the run's own key.
        started: the time each run began, ms since 1970.
        finished_before: runs that had ended well before they were opened here.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self.run_ids: dict[str, str] = {}
        self.started: dict[str, int] = {}
        self.finished_before: set[str] = set()
        self._new: set[str] = set()
        self._not_stored: list[Exception] = []
        self._experiments: dict[str, str] = {}

    @cached_property
    def client(self) -> MlflowClient:
        """The MLflow client, made when first needed."""
        return connect(self.location)

    def apply(self, operation: Operation) -> None:
        """Carry out one operation.

        Raises:
            Rejected: MLflow calls the operation itself invalid; never for a run's creation, which all others need.
            Unstored: its file could not be stored; the rest of it was carried out.
            Exception: anything that a server, network or disk can bring forth.
        """
        quiet_mlflow()
        from mlflow.exceptions import MlflowException

        verb, run = operation["do"], operation.get("run")
        arguments = {name: value for name, value in operation.items() if name != "do"}
        if verb not in WITHOUT_RUN + WITH_RUN:
            raise Rejected(f"{verb}: expected one of {sorted(WITHOUT_RUN + WITH_RUN)}")
        carry_out: Callable[..., None] = getattr(self, f"_{verb}")
        _ = self.client  # a URI that MLflow cannot open is no fault of the operation's
        if verb in WITH_RUN and run not in self.run_ids:
            raise Rejected(f"{verb}: its run {run} was not made")
        try:
            try:
                carry_out(**arguments)
            except MlflowException as error:
                if "deleted" not in str(error) or not self._replace_deleted(run):
                    raise
                carry_out(**arguments)
        except MlflowException as error:
            if verb != "create_run" and error.error_code in INVALID:
                raise Rejected(f"{verb}: {str(error).splitlines()[0]}") from error
            raise

    def answers(self) -> bool:
        """Whether the store answers a simple question, so that a failure is not the whole store's."""
        try:
            self.client.search_experiments(max_results=1)
        except Exception:
            return False
        return True

    def known_runs(self, operations: Iterable[Operation]) -> list[Operation]:
        """What a journal needs to say of the runs of these operations, which were sent before."""
        runs = sorted({operation["run"] for operation in operations})
        return [{"do": "known_run", "run": run, "run_id": self.run_ids[run]} for run in runs]

    def experiment_id(self, name: str) -> str:
        """The id of an experiment, made where it is missing (also when two processes make it at once)."""
        from mlflow.exceptions import MlflowException

        if name in self._experiments:
            return self._experiments[name]
        found = self.client.get_experiment_by_name(name)
        if found is None:
            artifacts = str(self.location.folder / name) if self.location.is_local else None
            try:
                found = self.client.get_experiment(self.client.create_experiment(name, artifact_location=artifacts))
            except MlflowException:  # another process was faster
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        self._experiments[name] = str(found.experiment_id)
        return self._experiments[name]

    def _create_run(
        self,
        run: str,
        name: str,
        experiment: str,
        start: int,
        tags: dict[str, str],
        parent: str | None = None,
        resume_id: str | None = None,
        run_id: str | None = None,
    ) -> None:
        tags = {**tags, KEY_TAG: run}
        if parent in self.run_ids:
            tags["mlflow.parentRunId"] = self.run_ids[parent]
        home = self.experiment_id(experiment)
        found = self._existing(home, run, run_id or resume_id)
        if found is None:
            found = self.client.create_run(home, start_time=start, run_name=name, tags=tags)
            self._new.add(run)
        else:
            self._continue(run, found, tags)
        self.run_ids[run] = found.info.run_id
        self.started[run] = found.info.start_time

    def _known_run(self, run: str, run_id: str) -> None:
        """A run that was sent before: only what could not be stored then follows."""
        if self._active(run_id) is None:
            raise Rejected(f"the run {run_id} is no longer there")
        self.run_ids[run] = run_id

    def _existing(self, experiment: str, key: str, wanted_id: str | None) -> Run | None:
        """The run that is to be continued, or else the one with this key; None where it is not there (any more)."""
        if wanted_id and not wanted_id.startswith(SPOOLED):
            return self._active(wanted_id)
        key = (wanted_id or key).removeprefix(SPOOLED)
        found = self.client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
        return found[0] if found else None

    def _active(self, run_id: str) -> Run | None:
        """The run of this id; None where it is gone, or was deleted in MLflow (which is said)."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if found.info.lifecycle_stage != "deleted":
            return found
        logger.warning(f"the run {found.info.run_name} ({run_id}) was deleted in MLflow: its records go into a new run")
        return None

    def _replace_deleted(self, run: str | None) -> bool:
        """Go on in a new run, made like the old one, where that was deleted while it was written to."""
        old_id = self.run_ids.get(str(run))
        if run is None or old_id is None or self._active(old_id) is not None:
            return False
        old = self.client.get_run(old_id)
        new = self.client.create_run(
            old.info.experiment_id, start_time=old.info.start_time, run_name=old.info.run_name, tags=old.data.tags
        )
        self.run_ids[run] = new.info.run_id
        self._send(new.info.run_id, params=old.data.params)
        return True

    def _continue(self, run: str, found: Run, tags: dict[str, str]) -> None:
        """Reopen a run that was cut short; to one that had finished only things are added (a later validation).

        What the run was made with stays; the process is the new one, and another commit is named beside the first.
        """
        old = found.data.tags
        if found.info.status == "FINISHED" and old.get(KEY_TAG) != run:
            self.finished_before.add(run)
            return
        new = {key: value for key, value in tags.items() if key not in old or key in PROCESS_TAGS}
        if tags.get("git_commit", old.get("git_commit")) != old.get("git_commit"):
            new["git_commit_resumed"] = tags["git_commit"]
        self.client.update_run(found.info.run_id, status="RUNNING")
        self._send(found.info.run_id, tags=new)
        self._reopened(found)

    def _reopened(self, found: Run) -> None:
        """The process lives: take back that a later start declared it gone."""
        if CLOSED in found.data.tags:
            self.client.delete_tag(found.info.run_id, CLOSED)

    def _seen(self, run: str, at: float) -> None:
        """The heartbeat of a run's process; a finished run that is only added to has none."""
        if run in self.finished_before:
            return
        found = self.client.get_run(self.run_ids[run])
        if CLOSED in found.data.tags:
            self.client.update_run(found.info.run_id, status="RUNNING")
            self._reopened(found)
        self._send(found.info.run_id, tags={SEEN: f"{at:.0f}"})

    def _log(self, run: str, **records: Any) -> None:
        self._send(self.run_ids[run], **records)

    def _fill(self, run: str, metrics: Sequence[list[Any]]) -> None:
        """Those of the metrics whose step the run has not yet: what was lost when its process was killed."""
        keys = set() if run in self._new else {row[0] for row in metrics}
        known = {(key, point.step) for key in keys for point in self.client.get_metric_history(self.run_ids[run], key)}
        self._send(self.run_ids[run], metrics=[row for row in metrics if (row[0], row[3]) not in known])

    def _log_beside(self, run: str, to: str, experiment: str, metrics: Sequence[list[Any]]) -> None:
        """Metrics into another run, whose state stays as it is; nothing where it is gone."""
        found = self._existing(self.experiment_id(experiment), run, to)
        if found is not None and found.info.run_id != self.run_ids[run]:
            self._send(found.info.run_id, metrics=metrics)

    def _send(
        self,
        run_id: str,
        metrics: Sequence[list[Any]] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Metrics as [key, value, timestamp ms, step, model id or None, dataset name or None, digest or None]."""
        from mlflow.entities import Metric, Param, RunTag

        records: dict[str, list[Any]] = {
            "metrics": [Metric(*row) for row in metrics],
            "params": [Param(*item) for item in self._new_params(run_id, params).items()] if params else [],
            "tags": [RunTag(*item) for item in (tags or {}).items()],
        }
        for kind, rows in records.items():
            for start in range(0, len(rows), PER_CALL[kind]):
                self.client.log_batch(run_id, synchronous=True, **{kind: rows[start : start + PER_CALL[kind]]})

    def _new_params(self, run_id: str, params: Mapping[str, str]) -> dict[str, str]:
        """The params that the run has not yet; one that a resumed run changed goes into the tag params_changed."""
        old = self.client.get_run(run_id).data.params
        changed = {key: value for key, value in params.items() if key in old and old[key] != value[:6000]}
        if changed:
            self._send(run_id, tags={"params_changed": json.dumps(changed)[:8000]})
        return {key: value for key, value in params.items() if key not in old}

    def _artifact(self, run: str, path: str, folder: str | None = None, table: bool = False) -> None:
        run_id, source = self.run_ids[run], Path(path)
        put = self.client.log_artifacts if source.is_dir() else self.client.log_artifact
        self._store([source], lambda file: put(run_id, str(file), folder))
        if table:
            self._mark_table(run_id, "/".join(filter(None, (folder, source.name))))

    def _store(self, files: Sequence[Path], put: Callable[[Path], object]) -> None:
        """Put files where the artifacts go.

        Raises:
            Rejected: a file is not there.
            Unstored: the place does not take it, or has not taken the last ones.
        """
        if missing := [str(file) for file in files if not file.exists()]:
            raise Rejected(f"artifact: there is no such file: {missing[0]}")
        try:
            if len(self._not_stored) >= TRIES_TO_STORE:
                raise self._not_stored[-1]
            for file in files:
                put(file)
        except Exception as error:
            self._not_stored.append(error)
            raise Unstored from error
        self._not_stored.clear()

    def _mark_table(self, run_id: str, path: str) -> None:
        """The tag by which MLflow's UI and `load_table` know that an artifact is a table."""
        known = json.loads(self.client.get_run(run_id).data.tags.get("mlflow.loggedArtifacts", "[]"))
        entry = {"path": path, "type": "table"}
        if entry not in known:
            self._send(run_id, tags={"mlflow.loggedArtifacts": json.dumps([*known, entry])})

    def _dataset(self, run: str, name: str, fingerprint: str, context: str, source: str, profile: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, fingerprint[:DIGEST_LENGTH], "local", json.dumps({"uri": source}), None, profile)
        self.client.log_inputs(self.run_ids[run], [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])
        self._send(self.run_ids[run], tags={f"dataset.{name}.sha256": fingerprint})

    def _checkpoint(
        self, run: str, sha256: str, name: str, files: list[str], metrics: list[list[Any]], step: int
    ) -> None:
        """A LoggedModel: the files, the metrics at its step, and the link from the run that made it.

        The same weights logged again (after a validation) are the same LoggedModel, with more metrics.
        """
        from mlflow.entities import LoggedModelOutput

        run_id = self.run_ids[run]
        experiment = self.client.get_run(run_id).info.experiment_id
        found = self.client.search_logged_models(
            [experiment], f"tags.`sha256` = '{sha256}' AND source_run_id = '{run_id}'", max_results=1
        )
        model = (
            found[0]
            if found
            else self.client.create_logged_model(
                experiment, name, source_run_id=run_id, tags={"sha256": sha256}, model_type="checkpoint"
            )
        )
        if metrics:
            self._send(run_id, [[*row[:4], model.model_id, *row[5:]] for row in metrics])
        if model.status != "READY":
            self._store(
                [Path(file) for file in files], lambda file: self.client.log_model_artifact(model.model_id, str(file))
            )
            if not self._is_output(run_id, model.model_id):
                self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
            self.client.finalize_logged_model(model.model_id, "READY")

    def _is_output(self, run_id: str, model_id: str) -> bool:
        outputs = self.client.get_run(run_id).outputs
        return outputs is not None and any(output.model_id == model_id for output in outputs.model_outputs)

    def _end_run(self, run: str, status: str, end: int) -> None:
        if run in self.finished_before:
            return
        self.client.set_terminated(self.run_ids[run], status=status, end_time=end)
        self._reopened(self.client.get_run(self.run_ids[run]))

    def _close_dead(self, experiment: str) -> None:
        """Runs that are RUNNING in the store but whose process is gone, or has long been silent, become KILLED."""
        experiment_key = self.experiment_id(experiment)
        for run in self.client.search_runs([experiment_key], "attributes.status = 'RUNNING'", max_results=1000):
            if is_dead(run.data.tags):
                self.client.set_tag(run.info.run_id, CLOSED, "its process was gone at the next start")
                self.client.set_terminated(run.info.run_id, status="KILLED")


def now_ms() -> int:
    """Milliseconds since 1970, MLflow's time."""
    return int(time.time() * 1000)
