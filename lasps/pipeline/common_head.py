"""The control for sector heads: one head for all sectors, refitted on the same shared features as Phase 2's.

What Phase 2 gains over `phase3_final` may come from its loss, its batches or its longer training rather than from
knowing the sector. The refitted head has all of these and no sector.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from lasps.data.datasets.loading import load_split
from lasps.data.datasets.samples import SampleDataset
from lasps.models.sector_aware_model import SectorAwareFusionModel
from lasps.pipeline.holdout import holdout_of, part_of_train
from lasps.pipeline.phase_options import PhaseOptions, phase_config
from lasps.pipeline.phases import (
    checkpoint_meta,
    finished_before,
    gamma_of,
    input_checkpoint,
    phase_key,
    sector_loaders,
    starting_model,
)
from lasps.reproducibility import seed_everything
from lasps.tracking import NullTracker
from lasps.training.checkpoints import save_checkpoint
from lasps.training.head_data import HeadData, HeadSamples, HeadSettings, stacked_heads_of
from lasps.training.head_training import train_heads
from lasps.training.phase2 import head_data

COMMON_HEAD = "common_head"


def refit_common_head(options: PhaseOptions) -> Path:
    """The checkpoint with Phase 1's common head trained further on its frozen backbone, and given to every sector.

    Settings, training samples and val are Phase 2's; the stopping epoch is the best on val, the start among them.

    Args:
        options: as for Phase 2 (`phase3_final`, or the checkpoint that they name).

    Returns:
        OUTPUT_DIR/common_head.pt; kept where this very call had made it before.

    Raises:
        ValueError, FileNotFoundError: as Phase 2; the checkpoint's heads were trained with different losses.
    """
    output, source = options.output_dir / f"{COMMON_HEAD}.pt", input_checkpoint(2, options)
    train, val = load_split(options.data_dir, "train"), load_split(options.data_dir, "val")
    config = phase_config(2, options) | {"phase2_holdout": holdout_of(options.phase2_holdout, source),
                                         "common_head": True}
    part = part_of_train(2, train, config["phase2_holdout"])
    key = phase_key(2, config, options, part, val, source)
    if finished_before(output, key):
        logger.info(f"{output.name} is up to date, skipping its training")
        return output
    seed_everything(options.seed)
    model = starting_model(source, train, options)
    start_gamma = gamma_of(source)
    if isinstance(start_gamma, list):
        raise ValueError(f"{source}: expected a checkpoint of Phase 1 or 3, whose heads share one loss, got one of "
                         "Phase 2. Name phase3_final.pt")
    history = refit(model, part, val, config, options, start_gamma)
    meta = checkpoint_meta(2, config, options, train, history, key, source, NullTracker(), NullTracker())
    save_checkpoint(output, model.state_dict(), meta | {"name": COMMON_HEAD})
    logger.info(f"Saved: {output} (epoch {history['best_epoch']} of {config['epochs_per_sector']}, val log loss "
                f"{history['val_log_loss'][0]:.4f} -> {min(history['val_log_loss']):.4f})")
    return output


@torch.no_grad()
def refit(model: SectorAwareFusionModel, train: SampleDataset, val: SampleDataset, config: dict[str, Any],
          options: PhaseOptions, start_gamma: float) -> dict[str, Any]:
    """Train `model.common_head` on kept shared features and copy it into every sector's head; the backbone stays."""
    loaders = [sector_loaders(part, model.num_sectors, 1, config["batch_size"], log=False) for part in (train, val)]
    data = head_data(model, *loaders, device=options.device, cache=options.cache,
                     resume_dir=options.output_dir / ".resume")
    assert data.val is not None
    pooled = HeadData(without_sectors(data.train), stacked_heads_of([model.common_head]), without_sectors(data.val),
                      data.class_weights, start_gamma)
    same = ("lr", "l2_sp", "weight_decay", "batch_size", "dropout")
    setting = HeadSettings(epochs=config["epochs_per_sector"], gamma=config["focal_gamma"], seed=options.seed,
                           **{name: config[name] for name in same})
    (result,) = train_heads(pooled, [setting], device=options.device, progress=True)
    model.common_head.load_state_dict(result.best_heads[0])
    model.init_sector_heads_from_common()
    return {"best_epoch": result.best_epoch, "losses": result.losses[0], "val_log_loss": result.val_log_loss,
            "focal_gamma": setting.gamma if result.best_epoch else start_gamma}


def without_sectors(samples: HeadSamples) -> HeadSamples:
    """The same samples as if all stocks were of one sector."""
    return replace(samples, sector_ids=torch.zeros_like(samples.sector_ids))
