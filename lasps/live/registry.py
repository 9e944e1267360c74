"""The live folder's models in MLflow's registry: one version per refit, the aliases `champion` and `shadow`.

What the folder says is what an evening does. The registry shows it, and is listened to in one thing: a `champion` that
somebody moved to another version is a promotion by hand.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from lasps.config.settings import settings
from lasps.files import write_atomically
from lasps.live.folder import LiveFolder
from lasps.live.model import CHAMPION, SHADOW, ModelError
from lasps.live.model import FILE as MODEL_FILE
from lasps.live.pyfunc import save_pyfunc
from lasps.live.succession import ROLLBACK, Decision
from lasps.tracking.environment import process_tags, source_tags
from lasps.tracking.error_messages import reason_of, without_password
from lasps.tracking.location import Location, default_location
from lasps.tracking.writer import Writer

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

FOLDER_TAG, DIGEST_TAG, VERSION_TAG = "lasps.folder", "lasps.digest", "lasps.version"
"""Of runs and versions: the model's folder, the digest of its content, and its name in the ledger."""
DECISIONS_TAG, ROLLBACK_TAG = "lasps.decisions", "lasps.rollback"
STATE = "registry.json"
"""Which model was champion when the folder was last published, by store and registered model."""
PARAMS = ("as_of", "recipe", "fraction", "samples", "last_label_end", "rows", "stocks")


@dataclass(frozen=True)
class Registry:
    """Where models are shown: a registered model of an MLflow store, and the experiment of their runs."""

    location: Location = field(default_factory=default_location)
    name: str = "lasps"
    experiment: str = "lasps"

    @property
    def key(self) -> str:
        """What the folder remembers it by; without a password."""
        return f"{self.location.bare_uri} {self.name}"

    @cached_property
    def writer(self) -> Writer:
        """What knows the store's experiments."""
        return Writer(self.location)

    @property
    def client(self) -> MlflowClient:
        """The store's client."""
        return self.writer.client

    def aliases(self) -> dict[str, str]:
        """alias -> version number; none where there is no such registered model."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_registered_model(self.name).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}
        return {alias: str(version) for alias, version in found.items()}

    def version_of(self, folder: Path) -> ModelVersion:
        """The version of a model's folder, made with a run of its own where there is none."""
        about = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
        known = self.client.search_model_versions(f"name = '{self.name}' and tag.`{DIGEST_TAG}` = '{about['digest']}'")
        if known:
            return known[0]
        tags = {FOLDER_TAG: folder.name, DIGEST_TAG: about["digest"], VERSION_TAG: about["name"]}
        run = self._run(folder, about, tags)
        return self.client.create_model_version(
            self.name, f"runs:/{run}/model", run, tags=tags, description=_described(about), await_creation_for=0
        )

    def _run(self, folder: Path, about: dict[str, Any], tags: dict[str, str]) -> str:
        """The id of the model's run; one that an earlier evening could not finish is gone on with."""
        from mlflow.entities import Param

        home = self.writer.experiment_id(self.experiment)
        known = self.client.search_runs([home], f"tags.`{DIGEST_TAG}` = '{about['digest']}'", max_results=1)
        if known:
            run_id = str(known[0].info.run_id)
            self.client.update_run(run_id, status="RUNNING")
        else:
            tags = source_tags(settings.ROOT, settings.LOCK_FILE) | process_tags() | tags
            run_id = str(self.client.create_run(home, run_name=f"refit {folder.name}", tags=tags).info.run_id)
        try:
            seeds = [Path(name).parent.name.removeprefix("seed") for name in about["networks"]]
            params = {key: str(about.get(key)) for key in PARAMS} | {"seeds": " ".join(seeds)}
            self.client.log_batch(run_id, params=[Param(*item) for item in params.items()])
            with tempfile.TemporaryDirectory() as scratch:
                save_pyfunc(folder, Path(scratch))
                self.client.log_artifacts(run_id, str(Path(scratch) / "model"), "model")
        except BaseException:
            self.client.set_terminated(run_id, "FAILED")
            raise
        self.client.set_terminated(run_id)
        return run_id

    def point(self, alias: str, version: ModelVersion | None) -> None:
        """Set an alias, or take it away where nothing has it; one that is right is left alone."""
        standing, wanted = self.aliases().get(alias), None if version is None else str(version.version)
        if wanted is not None and wanted != standing:
            self.client.set_registered_model_alias(self.name, alias, wanted)
        elif wanted is None and standing is not None:
            self.client.delete_registered_model_alias(self.name, alias)

    def tell(self, folder: str, version: ModelVersion, decisions: Sequence[Decision]) -> None:
        """What was decided about a model, in its run and version: decisions.json, and why it was rolled back."""
        text = json.dumps([asdict(decision) for decision in decisions], indent=1, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if version.tags.get(DECISIONS_TAG) == digest:
            return
        fallen = [decision for decision in decisions if decision.what == ROLLBACK and decision.before == folder]
        tags = _rollback_tags(fallen[-1]) if fallen else {}
        if (run := self._active(version.run_id)) is not None:
            self.client.log_text(run.info.run_id, without_password(text), "decisions.json")
            for key, value in tags.items():
                self.client.set_tag(run.info.run_id, key, value)
        if fallen:
            first = str(version.description or "").partition("\n")[0]
            self.client.update_model_version(self.name, version.version, f"{first}\n\n{_rollback_line(fallen[-1])}")
        for key, value in (tags | {DECISIONS_TAG: digest}).items():  # the digest last: it says that all is told
            self.client.set_model_version_tag(self.name, version.version, key, value)

    def _active(self, run_id: str | None) -> Run | None:
        """The run, or None where somebody has deleted it."""
        from mlflow.exceptions import MlflowException

        try:
            run = self.client.get_run(str(run_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None


def publish(live: LiveFolder, registry: Registry | None = None, decided: bool = False) -> bool:
    """Bring the registry to where the folder stands; again changes nothing.

    An alias `champion` that somebody has moved since `follow` is left where it is, for the next evening to follow.

    Args:
        decided: somebody has just decided who is champion: the alias goes there, wherever it was moved before.

    Returns:
        False where the store did not take all of it: a warning says so, and the next evening publishes it.
    """
    succession, registry = live.succession(), registry or Registry()
    if succession.champion is None:
        return True
    try:
        folders = sorted(path.parent for path in live.models.glob(f"*/{MODEL_FILE}"))
        _make_registered(registry)
        versions = {folder.name: registry.version_of(folder) for folder in folders}
        by_hand = None if decided else _moved(live, registry)
        if by_hand not in (None, succession.champion):
            logger.warning(f"MLflow's alias {CHAMPION} was moved to {by_hand} meanwhile: the next evening follows it")
        else:
            registry.point(CHAMPION, versions.get(succession.champion))
            _remember(live, registry, succession.champion)
        registry.point(SHADOW, versions.get(succession.predecessor or ""))
        for name, version in versions.items():
            if own := [decision for decision in succession.decisions if name in (decision.champion, decision.before)]:
                registry.tell(name, version, own)
    except Exception as error:  # an evening must not fall with the server that shows it
        logger.warning(
            f"MLflow's registry was not brought up to date ({registry.location.hide(reason_of(error))}): champion is "
            f"{succession.champion}. The next evening publishes it"
        )
        return False
    return True


def moved_by_hand(live: LiveFolder, registry: Registry | None = None) -> str | None:
    """The model that the alias `champion` was moved to since the folder was last published in this store, or None.

    A version that is not one of the folder's models is not followed; a warning says so, as of a server that is away.
    """
    registry = registry or Registry()
    try:
        return _moved(live, registry)
    except Exception as error:
        why = registry.location.hide(reason_of(error))
        logger.warning(f"MLflow's registry was not asked who is {CHAMPION} ({why}): a move there is not followed yet")
        return None


def follow(live: LiveFolder, registry: Registry | None = None) -> str | None:
    """Make the model champion that somebody moved the alias to; returns its name, or None where nobody did.

    A model that is not whole is not followed; a warning says so.

    Raises:
        InUseError: another process is at work in the folder.
    """
    registry = registry or Registry()
    folder = moved_by_hand(live, registry)
    if folder is None:
        return None
    with live.in_use():
        before = live.succession().champion
        try:
            after = None if folder == before else live.promoted(folder, "the alias was moved in MLflow")
        except ModelError as error:
            logger.warning(f"MLflow's alias {CHAMPION} names {folder}, which is not followed: {error}")
            return None
        if after is not None:
            logger.warning(f"champion is {folder}, as MLflow's alias says; it was {before}")
            live.write_succession(after)
        _remember(live, registry, folder)
    return None if after is None else folder


def _moved(live: LiveFolder, registry: Registry) -> str | None:
    """As `moved_by_hand`. Raises whatever a server, network or disk can bring forth."""
    published = _state(live).get(registry.key)
    number = registry.aliases().get(CHAMPION) if published is not None else None
    if number is None:
        return None
    tags = registry.client.get_model_version(registry.name, number).tags
    folder = next((f for f in live.models.glob(f"*/{MODEL_FILE}") if f.parent.name == tags.get(FOLDER_TAG)), None)
    if folder is None or json.loads(folder.read_text(encoding="utf-8"))["digest"] != tags.get(DIGEST_TAG):
        logger.warning(
            f"MLflow's alias {CHAMPION} names version {number} of {registry.name}, which is no model in {live.models}: "
            "it is not followed"
        )
        return None
    name = folder.parent.name
    return None if name == published else name


def _state(live: LiveFolder) -> dict[str, str]:
    path = live.root / STATE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        logger.warning(f"{path}: expected what was last published, cannot read it ({error}); it is written anew")
        return {}


def _remember(live: LiveFolder, registry: Registry, champion: str) -> None:
    state = _state(live)
    if state.get(registry.key) != champion:
        write_atomically(live.root / STATE, json.dumps(state | {registry.key: champion}, indent=1) + "\n")


def _make_registered(registry: Registry) -> None:
    from mlflow.exceptions import MlflowException

    try:
        registry.client.get_registered_model(registry.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        registry.client.create_registered_model(registry.name, description="One version per refit; see docs/usage.md")


def _described(about: dict[str, Any]) -> str:
    return f"{about['name']}: {about['samples']:,} samples, labels that had ended by {about['last_label_end']}"


def _rollback_tags(decision: Decision) -> dict[str, str]:
    """The decision as tags: its day, reason, and where it was measured the difference with its interval."""
    told = {"": decision.day, ".reason": without_password(decision.reason)[:1000], ".champion": decision.champion}
    told |= {f".{key}": getattr(decision, key) for key in ("difference", "low", "high")}
    return {f"{ROLLBACK_TAG}{key}": str(value) for key, value in told.items() if value is not None}


def _rollback_line(decision: Decision) -> str:
    found = ""
    if decision.difference is not None:
        found = f" (log loss {decision.difference:+.4f}, 95 % interval {decision.low:+.4f} to {decision.high:+.4f})"
    return f"Rolled back to {decision.champion} on {decision.day}: {without_password(decision.reason)}{found}"
