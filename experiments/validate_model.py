#!/usr/bin/env python
"""Validate a checkpoint: its loss, accuracy and class-wise accuracy, with the baselines to read them beside.

python experiments/validate_model.py --checkpoint checkpoints/phase2_best.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments._cli import add_data_flags, resolve_device, run_script, write_json


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="a .pt; the id of the run that made one; or several as one model: A.pt,B.pt or make seeds' ensemble.json",
    )
    add_data_flags(parser, batch_size=64)
    parser.add_argument("--split", choices=("train", "val", "test"), default="val")
    parser.add_argument(
        "--predictions",
        type=Path,
        default=None,
        metavar="FILE",
        help="where the prediction table goes; default: CHECKPOINT's folder/predictions/",
    )
    parser.add_argument(
        "--without-flagged",
        action="store_true",
        help="leave out labels that span a halt or a scale break, or were cut short",
    )
    return parser.parse_args()


def main() -> None:
    """Validate, print, write the prediction table, log to the checkpoint's run."""
    args = parse_args()
    from lasps.data.datasets.dataset import Dataset
    from lasps.pipeline.validation import (
        keep_predictions,
        predictions_path,
        print_block,
        validate_checkpoint,
    )
    from lasps.pipeline.validation_tracking import log_validation
    from lasps.tracking import open_tracker
    from lasps.training.ensembles import open_model

    device = resolve_device(args.device)
    validation = validate_checkpoint(
        open_model(args.checkpoint, device),
        Dataset.open(args.data_dir),
        args.split,
        args.batch_size,
        args.without_flagged,
    )
    print_block(validation)
    split = f"{args.split}.without_flagged" if args.without_flagged else args.split
    path = args.predictions or predictions_path(validation.checkpoint.path, validation.checkpoint.name, split)
    keep_predictions(validation.forecast, path)
    write_json(args.json, validation.metrics)
    log_validation(validation, open_tracker(enabled=not args.no_track))


if __name__ == "__main__":
    run_script(main)
