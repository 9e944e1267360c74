#!/usr/bin/env python
"""One dataset, several seeds: Phases 1, 3 and 2 of each, with the controls of Phase 2, for compare.py to test.

    python experiments/seeds.py --data-dir data/krx --output-dir checkpoints/krx --lr 3e-4 --batch-size 512
    python experiments/compare.py phase3_final=checkpoints/krx/seed7/phase3_final.pt,checkpoints/krx/seed8/... ...

The controls: Phase 2's change without sectors, and a longer Phase 3. A seed's files are in OUTPUT_DIR/seedN/, those of
the longer Phase 3 in OUTPUT_DIR/seedN/longer/; OUTPUT_DIR/ensemble.json is phase2_best of all seeds as one model, for
validate_model.py, compare.py and predict.py. What is finished is found again, so the script can be stopped and
rerun. With --workers N, or a Ray cluster at RAY_ADDRESS, each seed is a task of its own (docs/scale.md).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments._cli import (
    add_data_flags,
    add_holdout_flag,
    add_loss_flag,
    add_workers_flag,
    fan_out,
    positive_float,
    positive_int,
    resolve_device,
    run_script,
    write_json,
)
from experiments.replicate import path_of, train_longer
from lasps.config.model_config import TRAINING_CONFIG
from lasps.config.settings import settings

MODELS = ("phase1_best", "phase3_final", "phase3_longer", "common_change", "phase2_best")


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_flags(parser, batch_size=TRAINING_CONFIG["batch_size"])
    parser.add_argument("--output-dir", type=Path, default=settings.CHECKPOINT_DIR / "seeds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--lr", type=positive_float, default=None, help="of Phase 1")
    parser.add_argument("--epochs", type=positive_int, default=None, help="of Phase 1")
    parser.add_argument(
        "--patience",
        type=positive_int,
        default=None,
        help="epochs of Phase 1 without a lower val log loss until it ends",
    )
    parser.add_argument("--min-samples", type=positive_int, default=None, help="of a sector's head, in Phase 2")
    parser.add_argument("--epoch-samples", type=positive_int, default=TRAINING_CONFIG["epoch_samples"])
    add_holdout_flag(parser)
    add_loss_flag(parser)
    parser.add_argument("--no-charts", action="store_true", help="a model without the CNN")
    parser.add_argument("--no-longer", action="store_true", help="without the control of a longer Phase 3")
    add_workers_flag(parser)
    return parser.parse_args()


def main() -> None:
    """Train every seed; print the command that compares them."""
    args = parse_args()
    from lasps.pipeline.phase_options import PhaseOptions
    from lasps.tasks import Task, gpus_for
    from lasps.training.ensembles import write_ensemble

    options = PhaseOptions(
        args.data_dir,
        args.output_dir,
        resolve_device(args.device),
        args.batch_size,
        resume=True,
        epoch_samples=args.epoch_samples,
        phase2_holdout=args.phase2_holdout,
        focal_gamma=args.focal_gamma,
        charts=not args.no_charts,
    )
    phase1 = {"lr": args.lr, "epochs": args.epochs, "patience": args.patience}
    phase2 = {"min_samples": args.min_samples}
    done = [replace(options, seed=seed, output_dir=args.output_dir / f"seed{seed}") for seed in args.seeds]
    settings_of_all = (phase1, phase2, not args.no_longer, not args.no_track)
    gpus = gpus_for(options.device)
    fan_out([Task(f"seed {own.seed}", train_seed, (own, *settings_of_all), gpus) for own in done], args.workers)
    names = [name for name in MODELS if name != "phase3_longer" or not args.no_longer]
    models = {name: [str(path_of(seed, name)) for seed in done] for name in names}
    write_json(args.json, models)
    if len(done) > 1:
        write_ensemble(args.output_dir / "ensemble.json", [path_of(seed, "phase2_best") for seed in done])
        print(f"Saved: {args.output_dir / 'ensemble.json'}: phase2_best of {len(done)} seeds as one model")
    print(
        "python experiments/compare.py "
        + " ".join(f"{name}={','.join(files)}" for name, files in models.items())
        + f" --data-dir {args.data_dir} --baselines"
    )


def train_seed(options: Any, phase1: dict[str, Any], phase2: dict[str, Any], longer: bool, track: bool) -> None:
    """Phases 1, 3 and 2 of one seed; Phase 3 again, as many epochs."""
    from lasps.pipeline.phases import run_phases
    from lasps.tracking import open_tracker

    run_phases((1,), replace(options, overrides=phase1), open_tracker(enabled=track))
    run_phases((3,), options, open_tracker(enabled=track))
    run_phases((2,), replace(options, overrides=phase2), open_tracker(enabled=track))
    if longer:
        train_longer(options, 1.0)


if __name__ == "__main__":
    run_script(main)
