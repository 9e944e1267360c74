#!/usr/bin/env python
"""Train the model: Phase 1 (backbone), Phase 3 (end to end), Phase 2 (sector heads).

python experiments/train.py                 # all three, in the order 1, 3, 2
python experiments/train.py --phase 2       # one of them, from the checkpoint before it
python experiments/train.py --resume        # go on where Ctrl-C or a crash left off
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from loguru import logger

from experiments._cli import (
    add_data_flags,
    add_holdout_flag,
    add_loss_flag,
    positive_float,
    positive_int,
    resolve_device,
    run_script,
    warn_of_ignored,
    write_json,
)
from lasps.config.model_config import TRAINING_CONFIG
from lasps.config.settings import settings
from lasps.data.datasets.stock_dataset import stock_collate_fn

__all__ = ["main", "stock_collate_fn"]

PLAN = {0: (1, 3, 2), 1: (1,), 2: (2,), 3: (3,)}
WITHOUT_MEANING = {
    0: (),
    1: ("min_samples", "no_cache"),
    2: ("patience", "batch_size", "epoch_samples", "focal_gamma", "no_charts"),
    3: ("min_samples", "no_cache", "no_charts"),
}
"""--phase -> flags of other phases. Phase 2's batch size is train_phase2.py's; a checkpoint says if it has a CNN."""


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_flags(parser, batch_size=TRAINING_CONFIG["batch_size"])
    parser.add_argument("--phase", type=int, choices=sorted(PLAN), default=0, help="0: all, in the order 1, 3, 2")
    parser.add_argument("--output-dir", type=Path, default=settings.CHECKPOINT_DIR)
    parser.add_argument("--checkpoint", type=Path, default=None, help="start from this one instead of the phase before")
    parser.add_argument("--epochs", type=positive_int, default=None, help="of the phase given by --phase")
    parser.add_argument("--lr", type=positive_float, default=None, help="of the phase given by --phase")
    parser.add_argument(
        "--patience",
        type=positive_int,
        default=None,
        help="epochs of Phase 1 or 3 without a lower val log loss until it ends",
    )
    parser.add_argument("--min-samples", type=positive_int, default=None, help="of a sector, for Phase 2")
    parser.add_argument(
        "--epoch-samples",
        type=positive_int,
        default=TRAINING_CONFIG["epoch_samples"],
        help="samples of an epoch of Phases 1 and 3, at most all of train",
    )
    parser.add_argument("--no-charts", action="store_true", help="Phase 1: a model without the CNN, for comparison")
    add_holdout_flag(parser)
    add_loss_flag(parser)
    parser.add_argument("--seed", type=int, default=TRAINING_CONFIG["seed"])
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run to the same bits")
    parser.add_argument("--no-cache", action="store_true", help="Phase 2: compute the shared features anew")
    args = parser.parse_args()
    if args.phase == 0 and (args.epochs or args.lr or args.patience):
        parser.error("--epochs, --lr and --patience belong to one phase: say --phase 1, 2 or 3 with them")
    warn_of_ignored(args, parser, WITHOUT_MEANING[args.phase], f"no effect with --phase {args.phase}")
    return args


def main() -> None:
    """Run the phases asked for."""
    args = parse_args()
    from lasps.pipeline.phase_options import PhaseOptions
    from lasps.pipeline.phases import run_phases
    from lasps.tracking import open_tracker
    from lasps.training.ranks import Ranks

    overrides = {
        "epochs": args.epochs,
        "epochs_per_sector": args.epochs,
        "lr": args.lr,
        "patience": args.patience,
        "min_samples": args.min_samples,
    }
    device = resolve_device(args.device)
    ranks = Ranks.started(device)
    if not ranks.is_first:
        logger.remove()
        logger.add(sys.stderr, level="WARNING")
    options = PhaseOptions(
        args.data_dir,
        args.output_dir,
        ranks.device(device),
        args.batch_size,
        args.seed,
        args.resume,
        not args.no_cache,
        args.checkpoint,
        overrides,
        args.phase2_holdout,
        args.epoch_samples,
        args.focal_gamma,
        not args.no_charts,
        ranks,
    )
    written = run_phases(PLAN[args.phase], options, open_tracker(enabled=ranks.is_first and not args.no_track))
    if ranks.is_first:
        write_json(args.json, {name: str(path) for name, path in written.items()})


if __name__ == "__main__":
    run_script(main)
