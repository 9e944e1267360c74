#!/usr/bin/env python
"""Phase 2 alone: train the sector heads of a checkpoint on its frozen backbone.

python experiments/train_phase2.py --checkpoint checkpoints/phase3_final.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

from loguru import logger

from experiments._cli import (
    add_data_flags,
    add_holdout_flag,
    positive_float,
    positive_int,
    resolve_device,
    run_script,
    write_json,
)
from lasps.config.model_config import THREE_PHASE_CONFIG, TRAINING_CONFIG
from lasps.config.settings import settings

OPTIONS = {
    "penalty": "prior precision of shared directions",
    "l2_sp": "with --rank 0: pull to the initial heads",
    "weight_decay": "with --rank 0: AdamW's",
    "dropout": "with --rank 0: of the heads' hidden units",
    "focal_gamma": "with --rank 0: exponent of the focal loss, 0 is the cross-entropy",
}
DEFAULTS = THREE_PHASE_CONFIG["phase2_sector_heads"]


def parse_args() -> argparse.Namespace:
    """The flags of this script: the original specification's, and what a study can set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    add_data_flags(parser, batch_size=DEFAULTS["batch_size"])
    parser.add_argument("--output-dir", type=Path, default=settings.CHECKPOINT_DIR)
    parser.add_argument("--epochs", type=positive_int, default=None, help=f"default {DEFAULTS['epochs_per_sector']}")
    parser.add_argument("--lr", type=positive_float, default=None, help=f"default {DEFAULTS['lr']:g}")
    parser.add_argument("--min-samples", type=positive_int, default=None, help=f"default {DEFAULTS['min_samples']}")
    parser.add_argument(
        "--rank",
        type=int,
        default=None,
        help="number of directions that all sectors share, 0: each "
        f"sector's head on its own; default {DEFAULTS['rank']}",
    )
    for name, what in OPTIONS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=float, default=None, help=f"{what}, default {DEFAULTS[name]:g}"
        )
    add_holdout_flag(parser)
    parser.add_argument("--seed", type=int, default=TRAINING_CONFIG["seed"])
    parser.add_argument("--resume", action="store_true", help="accepted for symmetry: Phase 2 always goes on by itself")
    parser.add_argument("--no-cache", action="store_true", help="compute the shared features anew")
    parser.add_argument("--study", default=None, help="take the best values of this Optuna study")
    parser.add_argument("--storage", default=None, help="where the study is, an Optuna storage URL")
    return parser.parse_args()


def overrides_of(args: argparse.Namespace) -> dict[str, float | int | None]:
    """Phase 2's hyperparameters: a flag wins over the study, the study over the config."""
    given = {
        "epochs_per_sector": args.epochs,
        "lr": args.lr,
        "min_samples": args.min_samples,
        "batch_size": args.batch_size,
        "rank": args.rank,
    } | {name: getattr(args, name) for name in OPTIONS}
    if args.study is None:
        return given
    from lasps.tuning import best_settings

    best = best_settings(args.study, args.storage)
    logger.info(f"Study {args.study}: {best}")
    from_study = {"epochs_per_sector" if name == "epochs" else name: value for name, value in best.items()}
    return given | {name: value for name, value in from_study.items() if given[name] is None}


def main() -> None:
    """Train the heads and save OUTPUT_DIR/phase2_best.pt."""
    args = parse_args()
    from lasps.pipeline.phase_options import PhaseOptions
    from lasps.pipeline.phases import run_phases
    from lasps.tracking import open_tracker

    options = PhaseOptions(
        args.data_dir,
        args.output_dir,
        resolve_device(args.device),
        TRAINING_CONFIG["batch_size"],
        args.seed,
        args.resume,
        not args.no_cache,
        args.checkpoint,
        overrides_of(args),
        args.phase2_holdout,
    )
    written = run_phases((2,), options, open_tracker(enabled=not args.no_track))
    write_json(args.json, {name: str(path) for name, path in written.items()})


if __name__ == "__main__":
    run_script(main)
