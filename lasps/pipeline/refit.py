"""Training again what a recipe says, on more rows, without val: networks, the twin, and the blend of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from lasps.data.datasets.dataset import Dataset
from lasps.data.datasets.joined import JoinedDataset
from lasps.data.datasets.samples import SampleDataset
from lasps.data.features import score_columns, window_columns
from lasps.evaluation.combined import mean_of
from lasps.evaluation.fitted import BaselineSplit
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.metrics import class_frequencies
from lasps.evaluation.trees import boosted, probabilities
from lasps.evaluation.verdict import BLEND, ENSEMBLE, TWIN
from lasps.models.sector_aware_model import SectorAwareFusionModel
from lasps.pipeline.phase_tracking import RESUME_FOLDER
from lasps.pipeline.phases import DATA_KEYS, large_sectors, of_sectors
from lasps.pipeline.recipe import HeadsRecipe, NetworkRecipe, Recipe
from lasps.pipeline.summary import arrays_of
from lasps.reproducibility import seed_everything
from lasps.training.batches import BatchLoader
from lasps.training.checkpoints import Card, Checkpoint, read_card, save_checkpoint
from lasps.training.ensembles import write_ensemble
from lasps.training.heads.joint import train_directions
from lasps.training.heads.nested import train_head, with_heads
from lasps.training.heads.settings import HeadSettings
from lasps.training.phase2 import head_data
from lasps.training.resume import resume_path
from lasps.training.trainer import ThreePhaseTrainer, TrainerOptions

if TYPE_CHECKING:
    import lightgbm

NAME = "refitted"
ROWS = ("train", "train+val")


def rows_of(data: Dataset, rows: str) -> SampleDataset:
    """The samples to train on: "train", or "train+val".

    val's labels end before test starts (`lasps.data.splits`), so nothing of test's days is among them.
    """
    if rows not in ROWS:
        raise ValueError(f"expected rows {' or '.join(ROWS)}, got {rows!r}")
    parts = [data.split(name) for name in rows.split("+")]
    return parts[0] if len(parts) == 1 else JoinedDataset(parts)


def check_recipe(recipe: Recipe, data: Dataset) -> None:
    """Raise ValueError where the dataset has other features, scales, windows ... than the recipe was decided with."""
    differ = [key for key, value in recipe.data.items() if data.description.get(key) != value]
    if differ:
        raise ValueError(
            f"{data.folder}: expected the {', '.join(differ)} that the recipe was decided with. Build the dataset with "
            "the recipe's options, or freeze a recipe on this one"
        )


def with_steps_for(own: NetworkRecipe, samples: int, rows: int) -> NetworkRecipe:
    """The recipe of a seed with as many more samples per epoch as there are more rows: as many passes over each."""
    return replace(own, epoch_samples=max(1, round(own.epoch_samples * rows / samples)))


def refit_network(
    own: NetworkRecipe, rows: SampleDataset, described: Mapping[str, Any], folder: Path, device: str
) -> Path:
    """Train one seed's network; returns its checkpoint FOLDER/refitted.pt. An interrupted one is resumed.

    Args:
        rows: all that is trained on; there is no val.
        described: what the card says of the data: features, scaler, window ... (`recipe.data`, `phases.DATA_KEYS`).
    """
    path, key = folder / f"{NAME}.pt", key_of(own, rows)
    if path.is_file() and read_card(path).key == key:
        logger.info(f"{path} is up to date")
        return path
    names = described.get("features") or [""] * rows.num_features
    resume_dir = folder / RESUME_FOLDER
    seed_everything(own.seed)
    model = SectorAwareFusionModel(
        ts_input_dim=rows.num_features,
        encoder_columns=window_columns(names),
        score_columns=score_columns(names),
        uses_charts=own.charts,
    )
    options = TrainerOptions(focal_gamma=own.focal_gamma, class_weights=own.class_weights)
    trainer = ThreePhaseTrainer(model, device, seed=own.seed, resume_dir=resume_dir, resume=True, options=options)
    history: dict[str, Any] = {}
    for phase, train, part in ((1, trainer.train_phase1, own.phase1), (3, trainer.train_phase3, own.phase3)):
        if part is None:
            logger.info(f"Phase {phase}: left out, as val decided")
            continue
        loader = BatchLoader(rows, own.batch_size, shuffle=True, seed=own.seed, epoch_samples=own.epoch_samples)
        history[f"phase{phase}"] = train(loader, None, part.epochs, part.lr, part.epochs, stop_after=part.stop_after)
    gammas: list[float] | float = own.focal_gamma
    if own.phase2 is not None:
        gammas = refit_heads(model, own, own.phase2, rows, device)
    read = {
        "fingerprint": rows.fingerprint,
        "window": rows.window,
        "chart_size": list(rows.chart_size),
        "train_class_frequencies": class_frequencies(rows.labels),
    }
    card = Card(
        name=NAME,
        training={"seed": own.seed, "batch_size": own.batch_size, "epoch_samples": own.epoch_samples},
        phase={"recipe": asdict(own), "samples": len(rows)},
        data=dict(described) | read,
        calibration={"focal_gamma": gammas, "class_weights": list(own.class_weights)},
        history=history,
        key=key,
    )
    save_checkpoint(path, trainer.state_dict(), card.as_json())
    for phase in (1, 3):
        resume_path(resume_dir, phase).unlink(missing_ok=True)
    return path


def key_of(own: NetworkRecipe, rows: SampleDataset) -> str:
    """A digest of everything that a refitted network depends on."""
    parts = [asdict(own), rows.fingerprint]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def refit_heads(
    model: SectorAwareFusionModel, own: NetworkRecipe, heads: HeadsRecipe, rows: SampleDataset, device: str
) -> list[float]:
    """Phase 2 with the epochs and sectors that val chose: the heads into `model`, the focal exponent of each."""
    settings = HeadSettings.of(heads.config, own.seed)
    large = large_sectors(rows.sector_ids, model.num_sectors, settings.min_samples)
    data = head_data(
        model,
        of_sectors(rows, large),
        device=device,
        cache=False,
        class_weights=own.class_weights,
        start_gamma=own.focal_gamma,
    )
    gammas, found = [own.focal_gamma] * model.num_sectors, {}
    if heads.common_epoch is not None:
        common = train_directions(data, settings, _stop_at(heads.common_epoch), common=True, device=device)
        data, found = with_heads(data, common.best_heads), dict(common.best_heads)
        gammas = [common.gammas.get(sector, gamma) for sector, gamma in enumerate(gammas)]
    if heads.sectors:
        result = train_head(data, settings, _stop_at(heads.epoch), device=device)
        for sector in heads.sectors:
            found[sector], gammas[sector] = result.best_heads[sector], result.gammas[sector]
    for sector, head in found.items():
        model.sector_heads[sector].load_state_dict(head)
    return gammas


def _stop_at(epoch: int) -> Any:
    return lambda done, _: {0} if done >= epoch else None


def refit_trees(recipe: Recipe, train: BaselineSplit, to: BaselineSplit) -> Forecast:
    """The twin, with as many trees per seed as val stopped at: its forecast of another split."""
    found = [
        Forecast.from_probabilities(
            probabilities(booster, "all_means", to), to.labels, to.sector_ids, samples=to.samples
        )
        for booster in refit_boosters(recipe, train)
    ]
    return mean_of(found, TWIN)


def refit_boosters(recipe: Recipe, train: BaselineSplit) -> Iterator[lightgbm.Booster]:
    """The twin's trees, one booster per seed."""
    for seed, count in recipe.trees.items():
        yield boosted("all_means", train, None, recipe.tree_settings, seed, count)


def refit(recipe: Recipe, data: Dataset, rows: str, folder: Path, device: str, split: str = "test") -> list[Path]:
    """Train everything that a recipe holds, and forecast a split.

    Writes seedN/refitted.pt, ensemble.json, and predictions/{ensemble,lightgbm,blend}_refitted.SPLIT.parquet.
    """
    check_recipe(recipe, data)
    samples, evaluated = rows_of(data, rows), data.split(split)
    logger.info(f"Recipe {recipe.digest[:12]}: training on {rows}, {len(samples):,} samples, no val")
    networks = [with_steps_for(own, recipe.samples, len(samples)) for own in recipe.networks]
    described = {key: data.description.get(key) for key in DATA_KEYS}
    files = [refit_network(own, samples, described, folder / f"seed{own.seed}", device) for own in networks]
    members = [Checkpoint.open(file, device) for file in files]
    network = mean_of([member.predict(evaluated, split) for member in members], ENSEMBLE)
    if len(files) > 1:
        write_ensemble(folder / "ensemble.json", files)
    twin = refit_trees(recipe, arrays_of(samples, data), arrays_of(evaluated, data))
    written = []
    for name, forecast in ((ENSEMBLE, network), (TWIN, twin), (BLEND, mean_of([network, twin], BLEND))):
        path = folder / "predictions" / f"{name}_{NAME}.{split}.parquet"
        replace(forecast, model=f"{name}_{NAME}", split=split).write(path)
        written.append(path)
    return written
