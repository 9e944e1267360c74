"""Phase 2: every sector's head at once, on shared features computed once, each accepted on val or left as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from torch import Tensor, nn

from lasps.config.model_config import THREE_PHASE_CONFIG, TRAINING_CONFIG
from lasps.config.settings import settings as project_settings
from lasps.training.feature_cache import shared_samples
from lasps.training.head_acceptance import BLOCK_DAYS, BLOCKS_WITHOUT_DATES, Acceptance, accept_heads
from lasps.training.head_data import HeadData, HeadResult, HeadSettings, stacked_heads_of
from lasps.training.head_training import train_heads

PHASE2 = THREE_PHASE_CONFIG["phase2_sector_heads"]
STATE_FILE = "phase2.state.pt"


class Phase2History(dict[int, dict[str, Any]]):
    """sector -> n, losses, val_losses, best_epoch, kept_start, val_gain, val_standard_error, val_blocks.

    losses (E,) are the training criterion's sample means per epoch; val_losses (E + 1,) corrected log losses from the
    start on (empty without val). As attributes, pooled over sectors: best_epoch, val_log_loss (E + 1,), accepted.
    """

    best_epoch: int = 0
    val_log_loss: list[float]
    accepted: int = 0
    focal_gamma: float | list[float]
    """The exponent that the heads are now trained with; one per sector where kept starts differ from new heads."""


def train_phase2(
    trainer: Any,
    sector_loaders: Mapping[int, Any],
    epochs_per_sector: int = PHASE2["epochs_per_sector"],
    lr: float = PHASE2["lr"],
    val_loaders: Any = None,
    *,
    min_samples: int = 1,
    l2_sp: float = PHASE2["l2_sp"],
    weight_decay: float = PHASE2["weight_decay"],
    dropout: float = PHASE2["dropout"],
    batch_size: int | None = None,
    gamma: float | None = None,
    start_gamma: float | Sequence[float] | None = None,
    class_weights: tuple[float, ...] | None = None,
    seed: int | None = None,
    cache: bool | Path = True,
    resume_dir: Path | None = None,
    tracker: Any = None,
) -> Phase2History:
    """Train the sector heads of `trainer.model` with the backbone frozen; no other weight or buffer changes by a bit.

    Args:
        trainer: with `model` and `device`, and where it has them `seed`, `focal_gamma`, `class_weights`, `resume_dir`
            and `tracker`, which the arguments of these names override (TRAINING_CONFIG and settings where it has none).
        sector_loaders: sector -> loader over that sector's samples, each read once in a fixed order (see
            `sample_sources`); their batch_size is the training's. A sector with fewer than `min_samples` samples (the
            seed's scripts leave those out themselves) keeps its head and is named in a warning.
        val_loaders: the same for val, or one loader or dataset over all sectors. With it, one stopping epoch is chosen
            over all sectors, and a head is accepted if its val gain exceeds one standard error over blocks of days,
            else the sector keeps the head it started from. Without it: all epochs, last weights, one warning.
        batch_size: overrides the loaders'.
        gamma: the focal exponent that heads are trained with, 0 for the cross-entropy.
        start_gamma: what the start heads were trained with, one number or one per sector; default: the trainer's.
        cache: keep shared features on disk (True: under resume_dir, or data/cache; a path: there), False: in memory.
        resume_dir: where the state after each epoch is kept until Phase 2 is over; a repeated call continues from it.

    Raises:
        ValueError: no sector has enough samples, bad samples, a non-finite loss. The model is then as it was.
    """
    model, device = trainer.model, torch.device(trainer.device)
    resume_dir = Path(resume_dir) if resume_dir is not None else getattr(trainer, "resume_dir", None)
    tracker = tracker if tracker is not None else getattr(trainer, "tracker", None)
    trainers_gamma = getattr(trainer, "focal_gamma", TRAINING_CONFIG["focal_gamma"])
    chosen = HeadSettings(
        lr=lr, epochs=epochs_per_sector, min_samples=max(min_samples, 1), l2_sp=l2_sp, weight_decay=weight_decay,
        batch_size=batch_size or _batch_size_of(sector_loaders), dropout=dropout,
        gamma=trainers_gamma if gamma is None else gamma,
        seed=getattr(trainer, "seed", TRAINING_CONFIG["seed"]) if seed is None else seed,
    )
    class_weights = class_weights or getattr(trainer, "class_weights", None)
    logger.info("Phase 2: Sector Heads (backbone frozen)")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = head_data(
        model, sector_loaders, val_loaders, device=device, cache=cache, resume_dir=resume_dir,
        class_weights=class_weights, start_gamma=trainers_gamma if start_gamma is None else start_gamma,
    )
    _warn_of_small_sectors(sector_loaders, data, chosen.min_samples)
    if data.val is None:
        logger.warning("Phase 2: no val_loaders, so every sector trains all epochs and keeps its last weights unjudged")
    state_file = None if resume_dir is None else Path(resume_dir) / STATE_FILE
    (result,) = train_heads(data, [chosen], state_file=state_file, device=device, progress=True)
    history, judged = _history(data, result)
    accepted = [sector for sector, entry in history.items() if not entry["kept_start"]]
    _write_heads(model, {sector: result.best_heads[sector] for sector in accepted})
    assert_untouched(before, model.state_dict(), accepted)
    _log(history, result, data, judged)
    if tracker is not None:
        _track(tracker, result)
    if state_file is not None:
        state_file.unlink(missing_ok=True)
    return history


def head_data(
    model: nn.Module,
    train: Any,
    val: Any = None,
    *,
    device: str | torch.device = "cpu",
    cache: bool | Path = True,
    resume_dir: Path | None = None,
    class_weights: tuple[float, ...] | None = None,
    start_gamma: float | Sequence[float] = TRAINING_CONFIG["focal_gamma"],
) -> HeadData:
    """Shared features of train and val and the start heads: what `train_heads` takes.

    Args:
        train, val: `{sector: loader}`, or one loader or dataset over many sectors.
    """
    if isinstance(train, Mapping) and not train:
        raise ValueError(
            "Phase 2: expected at least one sector with enough samples, got no sector_loaders: every sector is under "
            "min_samples; lower it or bring more data"
        )
    folder = cache_folder(cache, resume_dir)
    samples = shared_samples(model, train, device=device, cache_dir=folder, desc="Phase 2: shared features, train")
    val_samples = None
    if val is not None and not (isinstance(val, Mapping) and not val):
        val_samples = shared_samples(
            model, val, device=device, cache_dir=folder, with_days=True, desc="Phase 2: shared features, val"
        )
    heads: nn.ModuleList = model.sector_heads  # type: ignore[assignment]
    weights = class_weights or project_settings.CLASS_WEIGHTS
    return HeadData(samples, stacked_heads_of(heads), val_samples, weights, start_gamma)


def assert_untouched(before: Mapping[str, Tensor], after: Mapping[str, Tensor], sectors: Iterable[int]) -> None:
    """Raise AssertionError unless everything but the heads of `sectors` is bitwise what it was."""
    own = tuple(f"sector_heads.{sector}." for sector in sectors)
    rest = [name for name in before if not name.startswith(own)]
    moved = [name for name in rest if not torch.equal(before[name], after[name])]
    if moved or before.keys() != after.keys():
        raise AssertionError(f"Phase 2 may change the heads of sectors {sorted(sectors)} alone, it changed {moved[:3]}")


def cache_folder(cache: bool | Path, resume_dir: Path | None = None) -> Path | None:
    """Where shared features are kept; None for nowhere."""
    if cache is False:
        return None
    if cache is not True:
        return Path(cache)
    return (project_settings.DATA_DIR.parent / "cache" if resume_dir is None else Path(resume_dir)) / "shared_features"


# ------------------------------------------------------------------------------------------------ settings


def _batch_size_of(sector_loaders: Mapping[int, Any]) -> int:
    """The loaders' batch size; where they differ, the most frequent one, with a warning; else the configured one."""
    found = [getattr(loader, "batch_size", None) for loader in sector_loaders.values()]
    sizes = Counter(size for size in found if isinstance(size, int))
    if not sizes:
        return int(PHASE2["batch_size"])
    (size, _), *others = sizes.most_common()
    if others:
        logger.warning(f"Phase 2: sector_loaders have batch sizes {sorted(sizes)}, all sectors train with {size}")
    return size


def _warn_of_small_sectors(sector_loaders: Mapping[int, Any], data: HeadData, min_samples: int) -> None:
    rows = data.train.rows_by_sector()
    for sector in sorted(sector_loaders):
        if len(rows.get(sector, ())) < min_samples:
            logger.warning(f"Sector {sector}: {len(rows.get(sector, ()))} samples (skipping)")


# ------------------------------------------------------------------------------------------------ what is kept


def _history(data: HeadData, result: HeadResult) -> tuple[Phase2History, dict[int, Acceptance]]:
    judged: dict[int, Acceptance] = {} if data.val is None else accept_heads(data, result)
    counts = np.bincount(data.train.sector_ids.numpy(), minlength=data.num_sectors)
    history = Phase2History()
    for sector in sorted(result.losses):
        verdict = judged.get(sector)
        history[sector] = {
            "n": int(counts[sector]),
            "losses": result.losses[sector],
            "val_losses": result.val_losses.get(sector, []),
            "best_epoch": result.best_epoch,
            "kept_start": verdict is not None and not verdict.accepted,
            "val_gain": None if verdict is None or verdict.n == 0 else verdict.gain,
            "val_standard_error": None if verdict is None or verdict.blocks < 2 else verdict.standard_error,
            "val_blocks": 0 if verdict is None else verdict.blocks,
        }
    history.best_epoch, history.val_log_loss = result.best_epoch, result.val_log_loss
    history.accepted = sum(not entry["kept_start"] for entry in history.values())
    gammas = np.broadcast_to(data.start_gamma, data.num_sectors).astype(float)
    gammas[[sector for sector, entry in history.items() if not entry["kept_start"]]] = result.settings.gamma
    history.focal_gamma = float(gammas[0]) if len(set(gammas)) == 1 else gammas.tolist()
    return history, judged


@torch.no_grad()
def _write_heads(model: nn.Module, heads: Mapping[int, Mapping[str, Tensor]]) -> None:
    for sector, head in heads.items():
        own = dict(model.sector_heads[sector].named_parameters())  # type: ignore[index, union-attr]
        for name, value in head.items():
            own[name].copy_(value)


# ------------------------------------------------------------------------------------------------ what is said


def _log(history: Phase2History, result: HeadResult, data: HeadData, judged: Mapping[int, Acceptance]) -> None:
    for sector, entry in history.items():
        for epoch, loss in enumerate(entry["losses"], start=1):
            logger.info(f"Phase2 Sector {sector} [{epoch}/{len(entry['losses'])}] loss={loss:.4f}")
    if data.val is None:
        return
    first, best = result.val_log_loss[0], result.best_val_log_loss
    logger.info(
        f"Phase 2: stopping epoch {result.best_epoch} of {result.settings.epochs}, pooled over sectors: corrected val "
        f"log loss {first:.4f} -> {best:.4f} before acceptance"
    )
    what = (
        f"blocks of {BLOCK_DAYS} days" if data.val.days is not None
        else f"{BLOCKS_WITHOUT_DATES} equal blocks of samples in file order (this dataset has no dates)"
    )
    unjudged = [sector for sector, verdict in judged.items() if verdict.blocks < 2]
    if unjudged:
        logger.warning(f"Phase 2: too few val samples to judge sectors {unjudged}: they keep their start")
    logger.info(
        f"Phase 2: accepted on val: {history.accepted} of {len(history)} (gain above one standard error over {what})"
    )


def _track(tracker: Any, result: HeadResult) -> None:
    """Losses per epoch in one call, each once however often Phase 2 was resumed; epoch 0 holds the start's on val."""
    rows: dict[int, dict[str, float]] = {}
    for epoch in range(len(next(iter(result.losses.values()))) + 1):
        rows[epoch] = metrics = {}
        for sector, losses in result.losses.items():
            if epoch > 0:
                metrics[f"phase2/sector_{sector:02d}/train_loss"] = losses[epoch - 1]
            if sector in result.val_losses:
                metrics[f"phase2/sector_{sector:02d}/val_loss"] = result.val_losses[sector][epoch]
        if result.val_log_loss:
            metrics["phase2/val_log_loss"] = result.val_log_loss[epoch]
    tracker.fill_metric_rows(rows)
