"""A recipe: all that was decided on val, frozen in one file, to train again on more rows without looking at a score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lasps.evaluation.trees import TWIN
from lasps.evaluation.verdict import TWIN as TWIN_NAME
from lasps.files import write_atomically
from lasps.pipeline.baseline_cache import BaselineCache, file_name
from lasps.training.checkpoints import Card, read_card
from lasps.training.ensembles import SHARED

KIND = "lasps recipe"
NAMES = {1: "phase1_best", 3: "phase3_final", 2: "phase2_best"}


@dataclass(frozen=True)
class PhaseRecipe:
    """Phase 1 or 3: a learning rate that falls over `epochs`, ended after `stop_after` of them."""

    epochs: int
    lr: float
    stop_after: int


@dataclass(frozen=True)
class HeadsRecipe:
    """Phase 2: its settings, the epochs that val chose, and what it accepted.

    config: of THREE_PHASE_CONFIG["phase2_sector_heads"]; common_epoch: of the change that all sectors share, None where
    it was not accepted; epoch: of the sector part; sectors: whose own part was accepted.
    """

    config: Mapping[str, Any]
    common_epoch: int | None
    epoch: int
    sectors: tuple[int, ...]


@dataclass(frozen=True)
class NetworkRecipe:
    """One seed of the network. phase3, phase2: None where val kept what was there before."""

    seed: int
    charts: bool
    batch_size: int
    epoch_samples: int
    focal_gamma: float
    class_weights: tuple[float, ...]
    phase1: PhaseRecipe
    phase3: PhaseRecipe | None
    phase2: HeadsRecipe | None


@dataclass(frozen=True)
class Recipe:
    """Networks of several seeds, and the trees of the twin: settings, and trees per class by seed.

    data: features, scaler, window, ... that all was decided with; chosen_on: the dataset's fingerprint; samples: of its
    train, more of them are trained on for as many more steps.
    """

    data: Mapping[str, Any]
    chosen_on: str
    samples: int
    networks: tuple[NetworkRecipe, ...]
    tree_settings: Mapping[str, Any]
    trees: Mapping[int, int]

    @property
    def digest(self) -> str:
        """SHA-256 of its content."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()

    def _plain(self) -> dict[str, Any]:
        return dict(json.loads(json.dumps(asdict(self))))

    def write(self, path: Path) -> None:
        """Write it as JSON, with its digest."""
        write_atomically(path, json.dumps({"kind": KIND, "digest": self.digest} | self._plain(), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Raises ValueError for another file, or one that was changed since it was frozen."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            kind, digest = content.pop("kind"), content.pop("digest")
            networks = tuple(_network(network) for network in content.pop("networks"))
            trees = {int(seed): int(count) for seed, count in content.pop("trees").items()}
            recipe = cls(networks=networks, trees=trees, **content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: expected a recipe of `make freeze`, cannot read it ({error})") from error
        if kind != KIND or digest != recipe.digest:
            raise ValueError(
                f"{path}: expected the digest {recipe.digest[:12]} of its content, found {str(digest)[:12]}: it was "
                "changed after it was frozen. Freeze it again"
            )
        return recipe


def _network(content: Mapping[str, Any]) -> NetworkRecipe:
    phases = {name: None if content[name] is None else PhaseRecipe(**content[name]) for name in ("phase1", "phase3")}
    heads = content["phase2"]
    if heads is not None:
        heads = HeadsRecipe(**{**heads, "sectors": tuple(heads["sectors"])})
    weights = tuple(content["class_weights"])
    return NetworkRecipe(**{**content, **phases, "phase2": heads, "class_weights": weights})


def frozen(folders: Sequence[Path], train_samples: int, cache: BaselineCache) -> Recipe:
    """The recipe of finished trainings.

    Args:
        folders: one per seed, each with the cards of phase1_best, phase3_final and phase2_best.
        train_samples: of the dataset they were trained on: an epoch has no more.
        cache: with the twin fitted for as many seeds.

    Raises:
        ValueError: a card is missing, of several datasets, or the twin's trees are not known.
    """
    cards = [{phase: _card(folder / f"{name}.pt") for phase, name in NAMES.items()} for folder in folders]
    of_data = [card[1].data for card in cards]
    data = {key: of_data[0].get(key) for key in SHARED}
    fingerprints = {str(own.get("fingerprint")) for own in of_data}
    if len(fingerprints) > 1:
        raise ValueError(f"expected trainings on one dataset, got {sorted(f[:12] for f in fingerprints)}")
    trees = {seed: cache.facts(file_name(TWIN_NAME, seed)).get("trees") for seed in range(len(folders))}
    unknown = [seed for seed, count in trees.items() if count is None]
    if unknown:
        raise ValueError(f"expected the twin's trees of seeds {unknown} in {cache.folder}: fit the baselines again")
    networks = tuple(_frozen_network(own, train_samples) for own in cards)
    return Recipe(
        data, fingerprints.pop(), train_samples, networks, dict(TWIN), {s: int(n) for s, n in trees.items() if n}
    )


def _card(checkpoint: Path) -> Card:
    card = read_card(checkpoint)
    if not card.history or not card.phase:
        raise ValueError(f"{checkpoint}: expected a checkpoint with the .json of its training beside it")
    return card


def _frozen_network(cards: Mapping[int, Card], train_samples: int) -> NetworkRecipe:
    first, heads = cards[1], cards[2]
    if any(card.phase.get("phase2_holdout") for card in cards.values()):
        raise ValueError("a recipe of a training with --phase2-holdout cannot be frozen: its phases saw different rows")
    training, history = first.training, heads.history
    sectors = tuple(sorted(int(s) for s, entry in history["sectors"].items() if not entry["kept_start"]))
    common = history.get("common_change_epoch")
    config = {key: value for key, value in heads.phase.items() if key != "phase"}
    return NetworkRecipe(
        seed=int(training["seed"]),
        charts=bool(first.model.get("uses_charts", True)),
        batch_size=int(training["batch_size"]),
        epoch_samples=min(int(training["epoch_samples"] or train_samples), train_samples),
        focal_gamma=float(training["focal_gamma"]),
        class_weights=first.class_weights,
        phase1=_frozen_phase(first),
        phase3=_frozen_phase(cards[3]) if cards[3].history["best_epoch"] else None,
        phase2=HeadsRecipe(config, common, int(history["best_epoch"]), sectors) if sectors or common else None,
    )


def _frozen_phase(card: Card) -> PhaseRecipe:
    return PhaseRecipe(int(card.phase["epochs"]), float(card.phase["lr"]), int(card.history["best_epoch"]))
