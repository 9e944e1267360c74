"""Phases 1, 3 and 2, each from a checkpoint file to a checkpoint file, so that any of them can be run alone.

phase1_best.pt -> phase3_final.pt -> phase2_best.pt        (run in the order 1, 3, 2)
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger

from lasps.config.model_config import MODEL_CONFIG, TRAINING_CONFIG
from lasps.config.settings import settings
from lasps.data.datasets.dataset import Dataset
from lasps.data.datasets.samples import SampleDataset, SampleSubset, whole_days
from lasps.data.features import score_columns, window_columns
from lasps.evaluation.metrics import class_frequencies
from lasps.files import held
from lasps.models.sector_aware_model import SectorAwareFusionModel
from lasps.pipeline.common_change import nested_history, save_common_change
from lasps.pipeline.holdout import check_classes, holdout_of, part_of_train
from lasps.pipeline.phase_options import PhaseOptions, phase_config
from lasps.pipeline.phase_tracking import (
    RESUME_FOLDER,
    flat_params,
    forget_run,
    log_charts,
    log_datasets,
    remember_run,
    resumable_run,
    run_note,
    run_tags,
)
from lasps.reproducibility import git_commit, json_text, seed_everything, sha256_of
from lasps.tracking import NullTracker, Tracker
from lasps.training.batches import BatchLoader
from lasps.training.checkpoints import Card, load_checkpoint, load_model, read_card, save_checkpoint
from lasps.training.heads.settings import HeadSettings, warn_of_ignored
from lasps.training.phase2 import train_sector_heads
from lasps.training.trainer import ThreePhaseTrainer, TrainerOptions

OUTPUT_OF = {1: "phase1_best", 3: "phase3_final", 2: "phase2_best"}
INPUT_OF = {3: "phase1_best", 2: "phase3_final"}


def run_phases(phases: tuple[int, ...], options: PhaseOptions, tracker: Tracker | None = None) -> dict[str, Path]:
    """Run the phases in the order given, each as a nested run of one pipeline run.

    Returns:
        The checkpoint written by each phase, by its name (`phase1_best`, ...).

    Raises:
        ValueError, FileNotFoundError: bad data or checkpoint, or another training in the output folder; nothing that
            existed was touched.
    """
    data = Dataset.open(options.data_dir)
    check_classes(data.train, f"{options.data_dir}: train")
    if not options.ranks.is_first:
        train_along(options, data)
        return {}
    with held(
        options.output_dir / RESUME_FOLDER / "lock",
        f"{options.output_dir}",
        "Wait for it, or train in another folder: --output-dir",
    ):
        written = _run_phases(phases, options, data, tracker or NullTracker())
        options.ranks.told()  # that nothing more is trained
    return written


def train_along(options: PhaseOptions, data: Dataset) -> None:
    """Every rank but the first: train each phase that the first one trains, and leave nothing behind.

    Checkpoints, state and runs are the first rank's; the output folder is one that all ranks see.
    """
    while (message := options.ranks.told()) is not None:
        phase, checkpoint = message
        job = PhaseJob.of(phase, replace(options, checkpoint=checkpoint), data)
        model = starting_model(job)
        TRAIN[phase](trainer_of(model, job, NullTracker()), job)


def trainer_of(model: SectorAwareFusionModel, job: PhaseJob, tracker: Tracker) -> ThreePhaseTrainer:
    """The trainer of a phase; of a rank that is not the first, after that one has made its own."""
    options = job.options
    return ThreePhaseTrainer(
        model,
        device=options.device,
        tracker=tracker,
        seed=options.seed,
        resume_dir=options.output_dir / RESUME_FOLDER,
        resume=options.resume,
        options=TrainerOptions(focal_gamma=job.focal_gamma),
        ranks=options.ranks if job.phase in TOGETHER else None,
    )


def _run_phases(phases: tuple[int, ...], options: PhaseOptions, data: Dataset, tracker: Tracker) -> dict[str, Path]:
    written: dict[str, Path] = {}
    name = "pipeline" if len(phases) > 1 else f"phase{phases[0]}"
    key = pipeline_key(phases, options, data)
    if not options.resume:
        forget_run(options, name)
        for phase in phases:
            forget_run(options, OUTPUT_OF[phase], phase)
    with tracker.run(
        name,
        tags=run_tags(options, data) | run_note(data),
        params=pipeline_params(phases, options),
        resume_id=resumable_run(options, name, key),
    ) as parent:
        remember_run(options, name, key, parent.resume_id)
        log_charts(parent, data.train)
        for position, phase in enumerate(phases):
            own = options if position == 0 else replace(options, checkpoint=None)  # --checkpoint is the first one's
            written[OUTPUT_OF[phase]] = run_phase(phase, own, data, parent)
    forget_run(options, name)
    return written


def pipeline_key(phases: tuple[int, ...], options: PhaseOptions, data: Dataset) -> str:
    """A digest of what was asked for: a pipeline that is resumed under its run's id is the same one."""
    source = options.checkpoint
    parts = {
        "params": pipeline_params(phases, options),
        "train": data.train.fingerprint,
        "val": data.val.fingerprint,
        "checkpoint": sha256_of(source) if source is not None and source.is_file() else None,
    }
    return hashlib.sha256(json_text(parts).encode()).hexdigest()


def pipeline_params(phases: tuple[int, ...], options: PhaseOptions) -> dict[str, Any]:
    """What two pipelines may differ in, as MLflow parameters of the outermost run."""
    return {
        "phases": list(phases),
        "seed": options.seed,
        "batch_size_backbone": options.batch_size,
        "epoch_samples": options.epoch_samples,
        "charts": options.charts,
        "focal_gamma": options.focal_gamma,
        **{f"phase{phase}": phase_config(phase, options) for phase in phases},
    }


@dataclass(frozen=True)
class PhaseJob:
    """One phase with all that its result depends on."""

    phase: int
    options: PhaseOptions
    data: Dataset
    config: dict[str, Any]
    """The phase's section of THREE_PHASE_CONFIG with the overrides."""
    train: SampleDataset
    """What it trains on: all of train, or with a holdout a part of it."""
    source: Path | None
    """The checkpoint that it starts from; None: a fresh model."""

    @classmethod
    def of(cls, phase: int, options: PhaseOptions, data: Dataset) -> PhaseJob:
        """Raises ValueError or FileNotFoundError where input checkpoint or training samples are not to be had."""
        source = input_checkpoint(phase, options)
        config = phase_config(phase, options) | {"phase2_holdout": holdout_of(options.phase2_holdout, source)}
        return cls(phase, options, data, config, part_of_train(phase, data.train, config["phase2_holdout"]), source)

    @property
    def name(self) -> str:
        """Of its checkpoint and run."""
        return OUTPUT_OF[self.phase]

    @property
    def output(self) -> Path:
        """The checkpoint that it writes."""
        return self.options.output_dir / f"{self.name}.pt"

    @cached_property
    def focal_gamma(self) -> float:
        """Of the loss of Phases 1 and 3: what is asked for, else the input's, else the config's."""
        asked, known = self.options.focal_gamma, read_card(self.source).calibration.get("focal_gamma")
        if asked is not None:
            return asked
        return known if isinstance(known, int | float) else TRAINING_CONFIG["focal_gamma"]

    @cached_property
    def key(self) -> str:
        """A digest of everything that the result depends on."""
        parts = {
            "phase": self.phase,
            "config": self.config,
            "model": MODEL_CONFIG,
            "training": TRAINING_CONFIG,
            "batch_size": self.options.batch_size,
            "epoch_samples": self.options.epoch_samples,
            "charts": self.options.charts,
            "focal_gamma": self.focal_gamma,
            "seed": self.options.seed,
            "weights": list(settings.CLASS_WEIGHTS),
            "train": self.train.fingerprint,
            "val": self.data.val.fingerprint,
            "input": None if self.source is None else sha256_of(self.source),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def run_phase(phase: int, options: PhaseOptions, data: Dataset, parent: Tracker) -> Path:
    """One phase: input checkpoint -> training -> `OUTPUT_OF[phase]`.pt and .json in the output folder."""
    job = PhaseJob.of(phase, options, data)
    run_id = resumable_run(options, job.name, job.key)
    finished = finished_before(job.output, job.key) if options.resume else None
    if finished is not None:
        logger.info(f"Phase {phase}: {job.output.name} is up to date, skipping Phase {phase}")
        if run_id is not None:  # stopped between its last weights and the end of its run
            with parent.run(job.name, tags=run_tags(options, data), resume_id=run_id) as tracker:
                tracker.log_checkpoint(job.output, finished.metrics, step=finished.history["best_epoch"], dataset="val")
        forget_run(options, job.name, phase)
        return job.output
    model = starting_model(job)
    seed_everything(options.seed)
    with parent.run(
        job.name,
        tags=run_tags(options, data) | run_note(data, phase),
        params=flat_params(phase, job.config, options, job.focal_gamma),
        resume_id=run_id,
    ) as tracker:
        remember_run(options, job.name, job.key, tracker.resume_id)
        log_datasets(tracker, data.folder, job.train, data.val)
        if phase in TOGETHER:
            options.ranks.told((phase, options.checkpoint))
        trainer = trainer_of(model, job, tracker)
        before = trainer.state_dict() if phase == 2 else {}
        history = TRAIN[phase](trainer, job)
        nested = history.pop("nested", None)
        card = card_of(job, history, {"run_id": tracker.run_id, "parent_run_id": parent.run_id})
        if nested is not None:
            card = replace(card, common_change=save_common_change(job.output, before, nested, card))
        save_checkpoint(job.output, trainer.state_dict(), card.as_json())
        tracker.log_checkpoint(job.output, card.metrics, step=history["best_epoch"], dataset="val")
    forget_run(options, job.name, phase)
    logger.info(f"Saved: {job.output}")
    if phase == 2:
        logger.info("Phase 2 complete")
    return job.output


# ------------------------------------------------------------------------------------------------ the three phases


def train_backbone(trainer: ThreePhaseTrainer, job: PhaseJob) -> dict[str, Any]:
    """Phase 1: backbone and common head, all sectors together."""
    logger.info(f"Phase 1: Backbone and common head ({job.config['epochs']} epochs)")
    return trainer.train_phase1(*epoch_loaders(job), **_numbers(job, "epochs", "lr", "patience"))


def finetune(trainer: ThreePhaseTrainer, job: PhaseJob) -> dict[str, Any]:
    """Phase 3: everything end to end, each sample through its sector's head."""
    logger.info(f"Phase 3: End to end ({job.config['epochs']} epochs)")
    return trainer.train_phase3(*epoch_loaders(job), **_numbers(job, "epochs", "lr", "patience", "keep_start"))


def _numbers(job: PhaseJob, *names: str) -> dict[str, Any]:
    return {name: job.config[name] for name in names}


def train_heads(trainer: ThreePhaseTrainer, job: PhaseJob) -> dict[str, Any]:
    """Phase 2: sector heads on the frozen backbone."""
    logger.info("Phase 2: Building sector-specific DataLoaders")
    heads_settings = HeadSettings.of(job.config, job.options.seed)
    warn_of_ignored(job.options.overrides, heads_settings.rank)
    large = large_sectors(job.train.sector_ids, trainer.model.num_sectors, heads_settings.min_samples)
    heads = train_sector_heads(
        trainer,
        of_sectors(job.train, large),
        of_sectors(job.data.val, large),
        heads_settings,
        start_gamma=read_card(job.source).focal_gamma,
        cache=job.options.cache,
    )
    start, best = (heads.val_log_loss[epoch] if heads.val_log_loss else None for epoch in (0, heads.best_epoch))
    return {
        "best_epoch": heads.best_epoch,
        "val_log_loss": heads.val_log_loss,
        "accepted": heads.accepted,
        "focal_gamma": heads.focal_gamma,
        "val_log_loss_of_start": start,
        "val_log_loss_before_acceptance": best,
        "sectors": {str(sector): entry for sector, entry in heads.items()},
        **nested_history(heads.nested),
        "nested": heads.nested,
    }


TRAIN = {1: train_backbone, 3: finetune, 2: train_heads}
TOGETHER = (1, 3)
"""The phases that all ranks train; Phase 2 is the first one's."""


def epoch_loaders(job: PhaseJob) -> tuple[BatchLoader, BatchLoader]:
    """Shuffled batches of train; ordered batches of val, on a large one of every k-th day."""
    train, options = job.train, job.options
    part = min(options.epoch_samples or len(train), len(train))
    if part < len(train):
        logger.info(f"An epoch is {part} of the {len(train)} training samples; the next one goes on from there")
    val = whole_days(job.data.val, TRAINING_CONFIG["val_samples"])
    if len(val) < len(job.data.val):
        logger.info(f"Epochs are evaluated on {len(val)} of the {len(job.data.val)} val samples, whole days")
    return (
        BatchLoader(train, options.batch_size, shuffle=True, seed=options.seed, epoch_samples=part),
        BatchLoader(val, TRAINING_CONFIG["eval_batch_size"], shuffle=False),
    )


def large_sectors(sector_ids: np.ndarray, num_sectors: int, min_samples: int) -> np.ndarray:
    """The sectors with at least `min_samples` samples; a line for each sector, a warning for the others.

    Raises:
        ValueError: all of them are.
    """
    counts = np.bincount(sector_ids, minlength=num_sectors)[:num_sectors]
    for sector, count in enumerate(counts):
        if count < min_samples:
            logger.warning(f"Sector {sector}: {count} samples (skipping)")
        else:
            logger.info(f"Sector {sector}: {count} samples")
    if counts.max(initial=0) < max(min_samples, 1):
        raise ValueError(
            f"Phase 2: expected at least one sector with min_samples={min_samples} samples, got none: the "
            f"largest has {counts.max(initial=0)}. Lower --min-samples."
        )
    return np.flatnonzero(counts >= min_samples)


def of_sectors(dataset: SampleDataset, sectors: np.ndarray) -> SampleDataset:
    """The samples of some sectors; the dataset itself where it has no others."""
    own = np.isin(dataset.sector_ids, sectors)
    return dataset if own.all() else SampleSubset(dataset, np.flatnonzero(own))


# ------------------------------------------------------------------------------------------------ inputs


def input_checkpoint(phase: int, options: PhaseOptions) -> Path | None:
    """The checkpoint that the phase starts from; None is a fresh model (Phase 1).

    Raises:
        FileNotFoundError: it does not exist; the message names the command that makes it.
    """
    if options.checkpoint is not None:
        source = options.checkpoint
    elif phase in INPUT_OF:
        source = options.output_dir / f"{INPUT_OF[phase]}.pt"
    else:
        return None
    if not source.is_file():
        before = {"phase1_best": 1, "phase3_final": 3}.get(source.stem, 0)
        raise FileNotFoundError(
            f"Phase {phase} starts from {source}, which does not exist. Make it with "
            f"'python experiments/train.py --phase {before} --output-dir {options.output_dir}', or "
            f"name another one with --checkpoint."
        )
    return source


def starting_model(job: PhaseJob) -> SectorAwareFusionModel:
    """A fresh model of the configured sizes, or the checkpoint's.

    Raises:
        ValueError: the checkpoint takes another number of features or sectors than the dataset has.
    """
    if job.source is None:
        torch.manual_seed(job.options.seed)
        names = job.data.feature_names()
        return SectorAwareFusionModel(
            num_sectors=MODEL_CONFIG["num_sectors"],
            ts_input_dim=job.data.train.num_features,
            encoder_columns=window_columns(names),
            score_columns=score_columns(names),
            uses_charts=job.options.charts,
        )
    model, _ = load_model(job.source)
    check_fits(model, job.data.train, job.source)
    logger.info(f"Loaded checkpoint: {job.source}")
    return model


def check_fits(model: SectorAwareFusionModel, dataset: SampleDataset, checkpoint: Path) -> None:
    """Raise ValueError unless the model takes the dataset's features and knows all its sectors."""
    if model.ts_input_dim != dataset.num_features:
        raise ValueError(
            f"{checkpoint}: expected a dataset of {model.ts_input_dim} features, the dataset has "
            f"{dataset.num_features}. Use the checkpoint's own dataset or train a new one."
        )
    if len(dataset.sector_ids) and int(dataset.sector_ids.max()) >= model.num_sectors:
        raise ValueError(
            f"{checkpoint}: the model has {model.num_sectors} sectors, the dataset holds sector id "
            f"{int(dataset.sector_ids.max())}."
        )


# ------------------------------------------------------------------------------------------------ outputs


def card_of(job: PhaseJob, history: dict[str, Any], mlflow: dict[str, Any]) -> Card:
    """What stands beside a checkpoint: all that is needed to use it without its dataset, and where it came from."""
    options, train, description = job.options, job.data.train, job.data.description
    return Card(
        name=job.name,
        model=json.loads(json.dumps(MODEL_CONFIG))
        | {"ts_input_dim": train.num_features, "uses_charts": options.charts},
        training=dict(TRAINING_CONFIG)
        | {
            "batch_size": options.batch_size,
            "epoch_samples": options.epoch_samples,
            "seed": options.seed,
            "focal_gamma": job.focal_gamma,
        },
        phase={"phase": job.phase} | job.config,
        data={name: description.get(name) for name in DATA_KEYS}
        | {
            "fingerprint": description.get("fingerprint", train.fingerprint),
            "chart_size": list(train.chart_size),
            "window": train.window,
            "train_class_frequencies": class_frequencies(train.labels),
        },
        calibration={
            "focal_gamma": history.get("focal_gamma", job.focal_gamma),
            "class_weights": list(settings.CLASS_WEIGHTS),
        },
        metrics={name: value for name, value in history.items() if isinstance(value, (int, float))},
        history=history,
        input=None if job.source is None else {"path": job.source.name, "sha256": sha256_of(job.source)},
        key=job.key,
        git_commit=git_commit(),
        mlflow=mlflow,
    )


DATA_KEYS = (
    "universe",
    "features",
    "scaler",
    "window",
    "horizon",
    "threshold",
    "chart_size",
    "borders",
    "sectors",
    "source",
    "warm_up",
)


def finished_before(output: Path, key: str) -> Card | None:
    """The card of `output` if it was made by exactly this phase, from these inputs and settings; else None."""
    if not output.is_file() or not output.with_suffix(".json").is_file():
        return None
    card = Card.of(load_checkpoint(output)[1])
    return card if card.key == key else None
