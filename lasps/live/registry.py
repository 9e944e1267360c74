"""The live folder's models in MLflow's registry: one version per refit, the aliases `champion` and `shadow`.

What the folder says is what an evening does. The registry shows it, and is listened to in one thing: a `champion` that
somebody moved to another version is a promotion by hand.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import asdict
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from lasps.data.panel import PRICES
from lasps.files import write_atomically
from lasps.live.folder import LiveFolder
from lasps.live.model import CHAMPION, SHADOW
from lasps.live.model import FILE as MODEL_FILE
from lasps.live.succession import ROLLBACK, Decision, Succession
from lasps.tracking.error_messages import reason_of
from lasps.tracking.location import Location, connect, default_location

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

NAME, EXPERIMENT = "lasps", "lasps"
FOLDER_TAG, DIGEST_TAG = "lasps.folder", "lasps.digest"
STATE = "registry.json"
"""Which model was champion when the folder was last published."""
REQUIREMENTS = ("torch", "polars", "lightgbm", "mlflow")


def publish(live: LiveFolder, location: Location | None = None) -> bool:
    """Bring the registry to where the folder stands; again changes nothing.

    Returns:
        False where the server could not be reached: a warning says so, and the next evening publishes it.
    """
    succession = live.succession()
    if succession.champion is None:
        return True
    try:
        client = connect(location or default_location())
        _registered(client)
        versions = {path.parent.name: _version_of(client, path.parent) for path in live.models.glob(f"*/{MODEL_FILE}")}
        for decision in succession.decisions:
            if decision.what == ROLLBACK and decision.before in versions:
                _tell_rollback(client, versions[decision.before], decision)
        for alias, folder in ((CHAMPION, succession.champion), (SHADOW, succession.predecessor)):
            if folder in versions:
                client.set_registered_model_alias(NAME, alias, versions[folder].version)
            elif alias in client.get_registered_model(NAME).aliases:
                client.delete_registered_model_alias(NAME, alias)
    except Exception as error:  # an evening must not fall with the server that shows it
        logger.warning(
            f"MLflow's registry was not brought up to date ({reason_of(error)}): champion is {succession.champion}. "
            "The next evening publishes it"
        )
        return False
    write_atomically(live.root / STATE, json.dumps({CHAMPION: succession.champion}) + "\n")
    return True


def moved_by_hand(live: LiveFolder, location: Location | None = None) -> str | None:
    """The model that the alias `champion` was moved to since the folder was last published, or None.

    A version that is not one of the folder's models is not followed; a warning says so.
    """
    path = live.root / STATE
    if not path.is_file():
        return None
    try:
        version = connect(location or default_location()).get_model_version_by_alias(NAME, CHAMPION)
    except Exception as error:
        logger.warning(f"MLflow's registry was not asked who is champion ({reason_of(error)})")
        return None
    folder = version.tags.get(FOLDER_TAG)
    if folder == json.loads(path.read_text(encoding="utf-8"))[CHAMPION]:
        return None
    if folder is None or Path(folder).name != folder or not (live.models / folder / MODEL_FILE).is_file():
        logger.warning(f"MLflow's alias {CHAMPION} names version {version.version}, which {live.models} does not hold")
        return None
    return str(folder)


def follow(live: LiveFolder, location: Location | None = None) -> str | None:
    """Make the model champion that somebody moved the alias to; returns its name, or None where nobody did."""
    folder = moved_by_hand(live, location)
    succession = live.succession()
    if folder is None or folder == succession.champion:
        return None
    logger.warning(f"champion is {folder}, as MLflow's alias says; it was {succession.champion}")
    live.write_succession(succession.promoted(folder, live.next_evening(), "the alias was moved in MLflow"))
    return folder


def _registered(client: MlflowClient) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(NAME, description="One version per refit; see docs/usage.md")


def _version_of(client: MlflowClient, folder: Path) -> ModelVersion:
    """The version of a model's folder, made where there is none."""
    about = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
    known = client.search_model_versions(f"name = '{NAME}' and tag.`{DIGEST_TAG}` = '{about['digest']}'")
    if known:
        return known[0]
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
    tags = {FOLDER_TAG: folder.name, DIGEST_TAG: about["digest"]}
    run = client.create_run(experiment, run_name=f"refit {folder.name}", tags=tags)
    run_id = run.info.run_id
    try:
        for key in ("as_of", "recipe", "fraction", "samples", "last_label_end", "rows", "stocks"):
            client.log_param(run_id, key, about[key])
        client.log_param(run_id, "seeds", ", ".join(Path(name).parent.name for name in about["networks"]))
        with tempfile.TemporaryDirectory() as scratch:
            _save_pyfunc(folder, Path(scratch) / "model")
            client.log_artifacts(run_id, str(Path(scratch) / "model"), "model")
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)
    return client.create_model_version(NAME, f"runs:/{run_id}/model", run_id, tags=tags, description=about["name"])


def _save_pyfunc(folder: Path, path: Path) -> None:
    """Write the model as MLflow loads it, from code: no pickle."""
    import mlflow

    from lasps.tracking.location import quiet_mlflow

    quiet_mlflow()
    with warnings.catch_warnings():  # of MLflow's own type hints; and an example would be a whole market
        warnings.filterwarnings("ignore", message=".*(AnyType|input example)")
        mlflow.pyfunc.save_model(
            path,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"model": str(folder)},
            signature=signature(),
            pip_requirements=[f"{name}=={installed(name)}" for name in REQUIREMENTS],
        )


def signature() -> ModelSignature:
    """Bars joined with the listing in, a table of probabilities out. MLflow wants prices as float and volume as int."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    text, number, day = DataType.string, DataType.double, DataType.datetime
    bars = {"code": text, "date": day, **dict.fromkeys(PRICES, number), "volume": DataType.long}
    inputs: list[Any] = [ColSpec(kind, name) for name, kind in bars.items()]
    inputs += [ColSpec(text, name, required=name != "market") for name in ("name", "market", "industry")]
    outputs = {"code": text, "name": text, "sector": text, "date": day, "p_sell": number, "p_hold": number}
    outputs |= {"p_buy": number, "class": text}
    return ModelSignature(
        Schema(inputs),
        Schema([ColSpec(kind, name) for name, kind in outputs.items()]),
        ParamSchema([ParamSpec("date", text, "latest"), ParamSpec("waive", text, "")]),
    )


def _tell_rollback(client: MlflowClient, version: ModelVersion, decision: Decision) -> None:
    """The decision, its interval and reason in the fallen model's run and version."""
    told: dict[str, Any] = {key: value for key, value in asdict(decision).items() if value is not None}
    text = json.dumps(told, default=str)
    if version.tags.get("lasps.rollback") == text:
        return
    client.set_model_version_tag(NAME, version.version, "lasps.rollback", text)
    if version.run_id:
        client.set_tag(version.run_id, "lasps.rollback", text)
        client.log_text(version.run_id, json.dumps(told, indent=1, default=str), "rollback.json")


def as_promoted(live: LiveFolder, name: str, reason: str) -> Succession:
    """The succession with a model made champion by hand, from the next evening on.

    Raises:
        ValueError: no such model, or it is champion already.
    """
    succession = live.succession()
    known = sorted(path.parent.name for path in live.models.glob(f"*/{MODEL_FILE}"))
    if name not in known:
        raise ValueError(f"{live.models}: expected one of {', '.join(known) or 'no model yet'}, got {name!r}")
    if name == succession.champion:
        raise ValueError(f"{name} is champion already")
    return succession.promoted(name, live.next_evening(), reason)
