"""Phase 2: sector heads on shared features computed once, accepted on val or left as they were.

`train_phase2` takes loaders, as the original specification calls it; `train_sector_heads` takes datasets or loaders.
"""

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
from lasps.training.heads.acceptance import BLOCK_DAYS, BLOCKS_WITHOUT_DATES
from lasps.training.heads.data import HeadData, stacked_heads_of
from lasps.training.heads.nested import NestedResult, state_files, train_nested
from lasps.training.heads.settings import HeadSettings, warn_of_ignored
from lasps.training.heads.shared_features import shared_samples

PHASE2 = THREE_PHASE_CONFIG["phase2_sector_heads"]


class Phase2History(dict[int, dict[str, Any]]):
    """sector -> n, losses, val_losses, best_epoch, kept_start, val_gain, val_standard_error, val_blocks.

    losses (E,) are the training criterion's sample means per epoch; val_losses (E + 1,) calibrated log losses from what
    the sector part starts from on (empty without val); kept_start: no part of its own was accepted. As attributes,
    pooled over sectors: best_epoch, val_log_loss (E + 1,), accepted.
    """

    best_epoch: int = 0
    val_log_loss: list[float]
    accepted: int = 0
    focal_gamma: float | list[float]
    """The exponent that the heads are now calibrated with; one per sector where they differ."""
    nested: NestedResult


def train_phase2(
    trainer: Any,
    sector_loaders: Mapping[int, Any],
    epochs_per_sector: int = PHASE2["epochs_per_sector"],
    lr: float = PHASE2["lr"],
    val_loaders: Any = None,
    *,
    start_gamma: float | Sequence[float] | None = None,
    cache: bool | Path = True,
    **options: Any,
) -> Phase2History:
    """`train_sector_heads` as the original specification calls it: one loader per sector.

    Args:
        sector_loaders: sector -> loader over that sector's samples, each read once in a fixed order (see
            `sample_sources`); their batch_size is the training's. A sector with fewer than `min_samples` samples keeps
            its head and is named in a warning (the original specification's scripts leave those out themselves, so the
            default here is 1).
        val_loaders: the same for val, or one loader or dataset over all sectors.
        options: further fields of `HeadSettings` by their names.
    """
    own = {
        "batch_size": _batch_size_of(sector_loaders),
        "min_samples": 1,
        "gamma": getattr(trainer, "focal_gamma", TRAINING_CONFIG["focal_gamma"]),
        "seed": getattr(trainer, "seed", TRAINING_CONFIG["seed"]),
    }
    settings = HeadSettings(lr=lr, epochs=epochs_per_sector, **(own | options))
    warn_of_ignored(options, settings.rank)
    return train_sector_heads(trainer, sector_loaders, val_loaders, settings, start_gamma=start_gamma, cache=cache)


def train_sector_heads(
    trainer: Any,
    train: Any,
    val: Any,
    settings: HeadSettings,
    *,
    start_gamma: float | Sequence[float] | None = None,
    cache: bool | Path = True,
) -> Phase2History:
    """Train the sector heads of `trainer.model` with the backbone frozen; no other weight or buffer changes by a bit.

    Args:
        trainer: with `model` and `device`, and where it has them `focal_gamma`, `class_weights`, `resume_dir` and
            `tracker` (TRAINING_CONFIG and settings where it has none). The state after each epoch is kept under
            resume_dir until Phase 2 is over; a repeated call continues from it.
        train, val: `{sector: loader}`, or one loader or dataset over many sectors. With val, one stopping epoch is
            chosen over all sectors, and `nested` says what is accepted. Without it: all epochs, last weights, one
            warning.
        start_gamma: what the initial heads were trained with, one number or one per sector; default: the trainer's.
        cache: keep shared features on disk (True: under resume_dir, or data/cache; a path: there), False: in memory.

    Raises:
        ValueError: no sector has enough samples, bad samples, a non-finite loss. The model is then as it was.
    """
    model, device = trainer.model, torch.device(trainer.device)
    resume_dir = None if getattr(trainer, "resume_dir", None) is None else Path(trainer.resume_dir)
    gamma = getattr(trainer, "focal_gamma", TRAINING_CONFIG["focal_gamma"]) if start_gamma is None else start_gamma
    logger.info("Phase 2: Sector Heads (backbone frozen)")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = head_data(
        model,
        train,
        val,
        device=device,
        cache=cache,
        resume_dir=resume_dir,
        class_weights=getattr(trainer, "class_weights", None),
        start_gamma=gamma,
    )
    if isinstance(train, Mapping):
        _warn_of_small_sectors(train, data, settings.min_samples)
    if data.val is None:
        logger.warning(
            "Phase 2: no val_loaders, so every sector trains all epochs and keeps its last weights, "
            "whatever they are worth"
        )
    nested = train_nested(data, settings, resume_dir=resume_dir, device=device, progress=True)
    history = _history(data, nested)
    for sector, head in nested.heads.items():
        model.sector_heads[sector].load_state_dict({name: value.to(device) for name, value in head.items()})
    assert_untouched(before, model.state_dict(), nested.heads)
    _log(history, data)
    if getattr(trainer, "tracker", None) is not None:
        _track(trainer.tracker, nested)
    for file in () if resume_dir is None else state_files(resume_dir):
        file.unlink(missing_ok=True)
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
    """Shared features of train and val and the initial heads: what `train_heads` takes.

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
    names = [name for name in {**before, **after} if not name.startswith(own)]
    moved = [
        name for name in names if name not in before or name not in after or not torch.equal(before[name], after[name])
    ]
    if moved:
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


def _history(data: HeadData, nested: NestedResult) -> Phase2History:
    result, accepted = nested.sectors, set(nested.accepted)
    counts = np.bincount(data.train.sector_ids.numpy(), minlength=data.num_sectors)
    history = Phase2History()
    for sector in sorted(result.losses):
        gain = nested.by_sector.get(sector)
        history[sector] = {
            "n": int(counts[sector]),
            "losses": result.losses[sector],
            "val_losses": result.val_losses.get(sector, []),
            "best_epoch": result.best_epoch,
            "kept_start": sector not in accepted,
            "val_gain": None if gain is None or gain.n == 0 else gain.gain,
            "val_standard_error": None if gain is None or gain.blocks < 2 else gain.standard_error,
            "val_blocks": 0 if gain is None else gain.blocks,
        }
    history.best_epoch, history.val_log_loss = result.best_epoch, result.val_log_loss
    history.accepted, history.nested = len(accepted), nested
    gammas = np.broadcast_to(data.start_gamma, data.num_sectors).astype(float)
    for sector in accepted:
        gammas[sector] = result.gammas[sector]
    history.focal_gamma = float(gammas[0]) if len(set(gammas)) == 1 else gammas.tolist()
    return history


# ------------------------------------------------------------------------------------------------ log and metrics


def _log(history: Phase2History, data: HeadData) -> None:
    nested = history.nested
    result = nested.sectors
    for sector, entry in history.items():
        for epoch, loss in enumerate(entry["losses"], start=1):
            logger.info(f"Phase2 Sector {sector} [{epoch}/{len(entry['losses'])}] loss={loss:.4f}")
    if data.val is None:
        return
    first, best = result.val_log_loss[0], result.best_val_log_loss
    logger.info(
        f"Phase 2: stopping epoch {result.best_epoch} of {result.settings.epochs}, pooled over sectors: "
        f"calibrated val log loss {first:.4f} -> {best:.4f} before acceptance"
    )
    without = [sector for sector, gain in nested.by_sector.items() if gain.blocks < 2]
    if without:
        logger.warning(f"Phase 2: too few val samples to accept anything for sectors {without}: they keep their start")
    what = (
        f"blocks of {BLOCK_DAYS} days"
        if data.val.days is not None
        else f"{BLOCKS_WITHOUT_DATES} equal blocks of samples in file order (this dataset has no dates)"
    )
    part = f"accepted on val: {history.accepted} of {len(history)}"
    if result.settings.rank == 0:
        logger.info(f"Phase 2: {part} (gain above one standard error over {what})")
        return
    assert nested.sector_gain is not None
    whole = "" if nested.sector_gain.significant else ", because all sectors together gain nothing that stands out"
    common = "yes" if nested.common_accepted else "no"
    logger.info(
        f"Phase 2: common change accepted: {common}; sector part {part}{whole} "
        f"(together: one-sided 5 %, then each: one standard error, over {what})"
    )


def _track(tracker: Any, nested: NestedResult) -> None:
    """Losses per epoch in one call, each once however often Phase 2 was resumed; epoch 0 holds the start's on val."""
    result, common = nested.sectors, nested.common
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
        if common is not None and common.val_log_loss:
            metrics["phase2/common_change_val_log_loss"] = common.val_log_loss[epoch]
    tracker.fill_metric_rows(rows)
