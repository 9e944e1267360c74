"""Reading runs back: what notebooks and comparisons ask MLflow for."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lasps.tracking.location import Location, connect, default_location, local_path
from lasps.tracking.writer import KEY_TAG

if TYPE_CHECKING:
    import pandas as pd

PIPELINE = "pipeline"
"""The name of the parent run that `make train` makes."""

RUN_ID = "[0-9a-f]{32}"
"""A run's id, as MLflow makes them."""


def runs(experiment: str = "lasps", location: Location | None = None, parent_id: str | None = None) -> pd.DataFrame:
    """All runs of an experiment, newest first, one row each.

    Returns:
        Columns run_id, name, status, start (UTC), seconds, parent_id, then params.*, metrics.* and tags.* as MLflow
        has them; empty with the first six columns where there is no such experiment.
    """
    import pandas as pd

    client = connect(location or default_location())
    found = client.get_experiment_by_name(experiment)
    condition = f"tags.`mlflow.parentRunId` = '{parent_id}'" if parent_id else ""
    rows, token = [], None
    while found is not None:
        page = client.search_runs([found.experiment_id], condition, max_results=1000, page_token=token)
        rows += [_row(run) for run in page]
        token = page.token
        if not token:
            break
    return pd.DataFrame(rows, columns=None if rows else ["run_id", "name", "status", "start", "seconds", "parent_id"])


def _row(run: Any) -> dict[str, object]:
    import pandas as pd

    info, data = run.info, run.data
    row: dict[str, object] = {
        "run_id": info.run_id,
        "name": info.run_name,
        "status": info.status,
        "start": pd.Timestamp(info.start_time, unit="ms", tz="UTC"),
        "seconds": (info.end_time - info.start_time) / 1000 if info.end_time else None,
        "parent_id": data.tags.get("mlflow.parentRunId"),
    }
    row |= {f"params.{key}": value for key, value in data.params.items()}
    row |= {f"metrics.{key}": value for key, value in data.metrics.items()}
    return row | {f"tags.{key}": value for key, value in data.tags.items() if key != KEY_TAG}


def latest_run(name: str, experiment: str = "lasps", location: Location | None = None, status: str = "FINISHED") -> str:
    """The id of the newest run called `name` that ended well.

    Raises:
        ValueError: there is none.
    """
    where = location or default_location()
    client = connect(where)
    found = client.get_experiment_by_name(experiment)
    condition = f"tags.`mlflow.runName` = '{name}' AND attributes.status = '{status}'"
    hits = (
        client.search_runs([found.experiment_id], condition, max_results=1, order_by=["attributes.start_time DESC"])
        if found
        else []
    )
    if not hits:
        raise ValueError(
            f"expected a {status.lower()} run called {name!r} in experiment {experiment!r} of "
            f"{where.shown_uri}, found none. Make one with `make train`."
        )
    return str(hits[0].info.run_id)


def latest_pipeline(experiment: str = "lasps", location: Location | None = None) -> dict[str, str]:
    """The run ids of the newest finished pipeline: {"pipeline": id, "phase1_best": id, "phase3_final": id, ...}.

    Raises:
        ValueError: there is none.
    """
    parent = latest_run(PIPELINE, experiment, location)
    return {PIPELINE: parent} | nested_runs(parent, experiment, location)


def nested_runs(parent_id: str, experiment: str = "lasps", location: Location | None = None) -> dict[str, str]:
    """Name -> run id of the runs nested in `parent_id`; of several with one name the newest."""
    children = runs(experiment, location, parent_id).sort_values("start")
    return dict(zip(children["name"], children["run_id"], strict=True))


def metric_history(run_id: str, key: str, location: Location | None = None) -> pd.DataFrame:
    """A metric's curve: columns step, value, time (UTC), in order of step; empty where it was not logged.

    Of several values at one step (an epoch that a resumed run repeated) the last one counts.
    """
    import pandas as pd

    points = connect(location or default_location()).get_metric_history(run_id, key)
    frame = pd.DataFrame(
        {
            "step": [point.step for point in points],
            "value": [point.value for point in points],
            "time": pd.to_datetime([point.timestamp for point in points], unit="ms", utc=True),
        }
    )
    ordered = frame.sort_values(["step", "time"], kind="stable")
    return ordered.drop_duplicates("step", keep="last").reset_index(drop=True)


def loss_curves(run_id: str, prefix: str, location: Location | None = None) -> pd.DataFrame:
    """Train and val loss of a phase ("phase1") or head ("phase2/sector_07"): columns step, train, val; NaN unknown."""
    parts = [
        metric_history(run_id, f"{prefix}/{name}_loss", location).set_index("step")["value"].rename(name)
        for name in ("train", "val")
    ]
    return parts[0].to_frame().join(parts[1], how="outer").rename_axis("step").reset_index()


def head_curves(run_id: str, location: Location | None = None) -> dict[int, pd.DataFrame]:
    """sector -> `loss_curves` of its head in a Phase 2 run; empty for a run of another phase."""
    keys = connect(location or default_location()).get_run(run_id).data.metrics
    sectors = sorted({int(found[1]) for key in keys if (found := re.match(r"phase2/sector_(\d+)/", key))})
    return {sector: loss_curves(run_id, f"phase2/sector_{sector:02d}", location) for sector in sectors}


def download_artifact(run_id: str, path: str, location: Location | None = None) -> Path:
    """A local path of a run's artifact; from a server it is downloaded, from this repo's store it is the file itself.

    Raises:
        ValueError: the run has no such artifact.
    """
    client = connect(location or default_location())
    try:
        folder = local_path(client.get_run(run_id).info.artifact_uri)
        local = folder / path if folder else Path(client.download_artifacts(run_id, path))
    except Exception as error:
        raise ValueError(f"expected an artifact {path!r} in run {run_id}, MLflow says: {error}") from error
    if not local.exists():
        raise ValueError(
            f"expected an artifact {path!r} in run {run_id}, there is none at {local}. Was mlruns/ "
            "removed? If the folder was moved: make ui."
        )
    return local


def download_checkpoint(run_id: str, folder: Path, location: Location | None = None) -> Path:
    """The checkpoint that a run made: FOLDER/RUN_ID/NAME.pt with its NAME.json, downloaded unless it is there.

    Raises:
        ValueError: there is no such run, or it made no checkpoint, or several.
    """
    from mlflow.artifacts import download_artifacts

    place = location or default_location()
    try:
        client = connect(place)
        outputs = client.get_run(run_id).outputs
    except Exception as error:
        raise ValueError(f"expected a run {run_id} in {place.shown_uri}, MLflow says: {error}") from error
    models = sorted({output.model_id for output in (outputs.model_outputs if outputs else ())})
    if len(models) != 1:
        raise ValueError(f"expected one checkpoint in run {run_id}, found {len(models)}: name the run of one phase")
    own = folder / run_id
    if not own.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        files = client.get_logged_model(models[0]).artifact_location
        with TemporaryDirectory(dir=folder) as scratch:
            there = local_path(files) or download_artifacts(
                artifact_uri=files, dst_path=scratch, tracking_uri=place.uri
            )
            shutil.copytree(there, Path(scratch) / "whole", ignore=shutil.ignore_patterns("whole"))
            (Path(scratch) / "whole").rename(own)
    found = list(own.glob("*.pt"))
    if len(found) != 1:
        raise ValueError(f"expected one .pt in the checkpoint of run {run_id}, found {len(found)} in {own}")
    return found[0]


def download_predictions(run_id: str, split: str, location: Location | None = None) -> Path:
    """The parquet of a run's predictions on a split ("val" or "test"); read it with polars or pandas."""
    return download_artifact(run_id, f"predictions/{split}.parquet", location)


def read_table(run_id: str, name: str, location: Location | None = None) -> pd.DataFrame:
    """A table that a run logged as NAME.json.

    Raises:
        ValueError: the run has no such table.
    """
    import pandas as pd

    return pd.read_json(download_artifact(run_id, name, location), orient="split")


def direction_tables(run_id: str, location: Location | None = None) -> dict[str, pd.DataFrame]:
    """weights, readings and movement of a Phase 2 run's shared directions; empty for a run without any."""
    client = connect(location or default_location())
    logged = {file.path for file in client.list_artifacts(run_id)}
    names = {name: f"directions_{name}.json" for name in ("weights", "readings", "movement")}
    return (
        {name: read_table(run_id, file, location) for name, file in names.items()}
        if logged.issuperset(names.values())
        else {}
    )
