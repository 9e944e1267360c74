"""Hyperparameters of the model and its three training phases.

The original specification indexes these as plain dicts, so they are plain dicts, nested, that refuse to be changed: a
run's hyperparameters are those written here or given on the command line, never patched in between. Each number says
where it comes from.
"""

from __future__ import annotations

from typing import Any, NoReturn


class FrozenDict(dict[str, Any]):
    """A dict that can be read, copied, compared and dumped to JSON, but not changed."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("configs are read-only: copy with dict(config) and change the copy")

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return FrozenDict, (dict(self),)


MODEL_CONFIG = FrozenDict(
    num_sectors=20,  # KRX-like sectors, lasps/config/sectors.py
    linear_transformer=FrozenDict(
        input_dim=114,  # = len(DEFAULT_FEATURES), held by a test
        hidden_dim=64,  # chosen for speed on two cores, not tuned for accuracy
        num_layers=2,
        num_heads=4,
        dropout=0.1,  # guess, not tuned
        patch_days=5,  # a trading week per token
    ),
    chart_cnn=FrozenDict(
        conv_channels=(16, 32, 64),
        output_dim=64,
    ),
    fusion=FrozenDict(
        shared_dim=128,  # 128 shared features, as the original specification has them
        head_hidden=64,  # the original specification's head: 128 -> 64 -> 3
        head_dropout=0.1,  # guess, not tuned
    ),
)

TRAINING_CONFIG = FrozenDict(
    seed=7,
    batch_size=128,
    epoch_samples=100_000,  # Phases 1 and 3 look at val this often; guess: real markets overfit within a pass
    val_samples=60_000,  # Phases 1 and 3 look at every k-th day of val between epochs, about so many samples
    eval_batch_size=512,
    focal_gamma=2.0,  # Lin et al. 2017, and the original specification's criterion
    weight_decay=0.01,  # AdamW's default
    warmup_fraction=0.1,  # guess, not tuned
    gradient_clip=1.0,  # Pascanu et al. 2013; the usual norm
    autocast="auto",  # bf16 where a GPU has it
)

THREE_PHASE_CONFIG = FrozenDict(
    phase2_holdout=0.0,  # share of train's last days kept from Phases 1 and 3 for Phase 2 alone; the plan has none
    phase1_backbone=FrozenDict(epochs=5, lr=1.5e-3, patience=2),
    phase2_sector_heads=FrozenDict(
        epochs_per_sector=10,  # the plan
        lr=5e-4,  # the plan
        min_samples=100,  # the plan
        batch_size=32,  # the plan
        rank=12,  # directions that all sectors share (0: none). On val of markets 10, 11, 12; 6 to 24 are alike
        penalty=60.0,  # likewise; 15 to 100 are alike
        l2_sp=1.0,
        weight_decay=0.0,
        dropout=0.1,
        focal_gamma=TRAINING_CONFIG["focal_gamma"],  # the loss of the phases before; 0 is the cross-entropy
    ),
    phase3_finetune=FrozenDict(
        epochs=5,  # the plan
        lr=1e-5,  # the plan
        patience=5,
        keep_start=True,  # on real data fine-tuning made val worse in every epoch; then phase1_best's weights stay
    ),
)
