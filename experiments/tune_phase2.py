#!/usr/bin/env python
"""An Optuna study of Phase 2's lr, epochs, min_samples, rank and penalty, on shared features computed once.

    python experiments/tune_phase2.py --checkpoint checkpoints/phase3_final.pt --trials 100

Run it again to continue after a stop. To share the work, run it in several terminals, or with --workers 3, or on the
Ray cluster at RAY_ADDRESS, with a --storage that all its machines reach (docs/scale.md).
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from experiments._cli import (
    add_data_flags,
    add_workers_flag,
    fan_out,
    positive_int,
    resolve_device,
    run_script,
    write_json,
)
from lasps.config.model_config import TRAINING_CONFIG
from lasps.config.settings import settings

if TYPE_CHECKING:
    from lasps.tracking import Tracker


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=settings.CHECKPOINT_DIR / "phase3_final.pt")
    add_data_flags(parser, batch_size=TRAINING_CONFIG["eval_batch_size"])
    parser.add_argument("--trials", type=positive_int, default=100, help="trials of the whole study, earlier ones too")
    parser.add_argument("--study", default="phase2", help="its name; its file is checkpoints/studies/NAME.journal")
    parser.add_argument("--storage", default=None, help="any Optuna storage URL, or a .journal file")
    parser.add_argument("--seed", type=int, default=TRAINING_CONFIG["seed"])
    add_workers_flag(parser)
    return parser.parse_args()


def load_data(args: argparse.Namespace, device: str) -> tuple[Any, Any]:
    """Shared features of the checkpoint with the study's half of val, and the evaluation half."""
    from lasps.data.datasets.description import load_split
    from lasps.pipeline.holdout import holdout_of, part_of_train
    from lasps.pipeline.phases import check_fits
    from lasps.training.checkpoints import Checkpoint
    from lasps.training.heads.nested import common_change
    from lasps.training.phase2 import head_data
    from lasps.tuning import fitting_default, split_val

    if not args.checkpoint.is_file():
        raise FileNotFoundError(
            f"--checkpoint {args.checkpoint} does not exist. Make it with 'make train', or name another one."
        )
    train, val = load_split(args.data_dir, "train"), load_split(args.data_dir, "val")
    checkpoint = Checkpoint.open(args.checkpoint, device)
    check_fits(checkpoint.model, train, args.checkpoint)
    part = part_of_train(2, train, holdout_of(None, args.checkpoint))
    data = head_data(
        checkpoint.model,
        part,
        val,
        device=device,
        resume_dir=args.checkpoint.parent / ".resume",
        start_gamma=checkpoint.card.focal_gamma,
    )
    assert data.val is not None
    studied, unseen = split_val(data.val)
    base, _, _ = common_change(replace(data, val=studied), fitting_default(data), device=device)
    return base, unseen


def digest_of(data: Any) -> str:
    """What a study belongs to: backbone, data and initial heads."""
    digest = hashlib.sha256(f"{data.train.fingerprint}|{data.val.fingerprint}".encode())
    for name in sorted(data.start):
        digest.update(data.start[name].numpy().tobytes())
    return digest.hexdigest()


def make_variables(args: argparse.Namespace) -> str:
    """The variables that `make train-phase2` needs besides STUDY, because they are not the default."""
    from lasps.tuning.storage import absolute, file_of, shown

    given = {}
    if args.storage is not None:
        file, place = file_of(args.study, args.storage), shown(args.study, args.storage)
        inside = file is not None and file.is_relative_to(settings.ROOT)
        given["STORAGE"] = place.replace(str(file), str(file.relative_to(settings.ROOT))) if file and inside else place
    for name, path, default in (
        ("CHECKPOINT", args.checkpoint, settings.CHECKPOINT_DIR / "phase3_final.pt"),
        ("DATA_DIR", args.data_dir, settings.DATA_DIR),
    ):
        if path.absolute() != default:
            given[name] = str(absolute(str(path)))
    return "".join(f" {name}={shlex.quote(value)}" for name, value in given.items())


@contextmanager
def joined(args: argparse.Namespace, device: str) -> Iterator[tuple[Any, Any, Any, Tracker]]:
    """The study and its run for the block, made by the first worker: study, its data, unseen half of val, run."""
    from lasps.tracking import open_tracker
    from lasps.tuning import open_study, space_of
    from lasps.tuning.storage import study_lock

    data, unseen = load_data(args, device)
    tags = {
        "optuna.study": args.study,
        "checkpoint": args.checkpoint.name,
        "device": device,
        "seed": args.seed,
        "data_fingerprint": data.train.fingerprint,
    }
    tracker = open_tracker(enabled=not args.no_track, system_metrics=False)
    with ExitStack() as stack:
        with study_lock(args.study, args.storage, "start"):  # one worker creates the study and its run
            study = open_study(args.study, args.storage, made_on=digest_of(data), space=space_of(data), seed=args.seed)
            known_run = study.user_attrs.get("mlflow_run_id")
            run = stack.enter_context(tracker.run(f"study_{args.study}", tags=tags, resume_id=known_run))
            if run.run_id is not None:
                study.set_user_attr("mlflow_run_id", run.run_id)
        yield study, data, unseen, run


def share_study(args: argparse.Namespace, device: str) -> int:
    """A worker's task: trials until the study has all of them; a worker that takes its place takes up its trial."""
    from lasps.tuning import run_trials

    with joined(args, device) as (study, data, _, run):
        return run_trials(study, data, args.trials, run, device)


def main() -> None:
    """Run trials, then print the conclusion."""
    args = parse_args()
    from lasps.tasks import Task, gpus_for, is_fanned_out
    from lasps.tuning import conclude, run_trials
    from lasps.tuning.storage import absolute
    from lasps.tuning.trials import running_elsewhere

    args.storage, args.checkpoint, args.data_dir = (
        absolute(args.storage),
        args.checkpoint.absolute(),
        args.data_dir.absolute(),
    )
    device = resolve_device(args.device)
    with joined(args, device) as (study, data, unseen, run):
        if is_fanned_out(args.workers):
            workers = args.workers or 1
            gpus = gpus_for(device) / workers  # heads are small: the workers share a card
            names = [f"worker {number}" for number in range(workers)]
            fan_out([Task(name, share_study, (args, device), gpus) for name in names], args.workers)
        run_trials(study, data, args.trials, run, device)  # none where the workers have run them
        if running_elsewhere(study):
            logger.info(f"Study {args.study}: another worker prints the conclusion")
        else:
            report(conclude(study, data, unseen, device, make_variables(args)), study, run, args)


def report(found: Any, study: Any, run: Any, args: argparse.Namespace) -> None:
    """Print the conclusion, write it as JSON and log it to MLflow."""
    from lasps.plots import tuning as plots
    from lasps.terminal import show_end, show_lines
    from lasps.tuning import conclusion_path

    print()
    show_lines(found.lines())
    show_end(
        [str(conclusion_path(args.study, args.storage))],
        [
            (found.command, "train with the best values"),
            ("make ui", "trials, plots, the study's run"),
            ("make notebooks", "head_study: curves and importance"),
        ],
    )
    kept = conclusion_path(args.study, args.storage)
    write_json(kept, found.to_dict())
    write_json(args.json, found.to_dict())
    d = found.difference
    metrics = {f"{name}_log_loss": value for name, value in found.log_loss.items()}
    metrics |= {"difference": d.difference, "low": d.low, "high": d.high}
    run.log_metrics({f"judged/{name}": value for name, value in metrics.items()})
    run.log_artifact(kept)
    trials = study.trials_dataframe(attrs=("number", "value", "state", "params", "user_attrs", "duration"))
    run.log_table(trials.astype({"duration": str}), "tables/trials")
    for name, figure in plots.study_plots(trials, found.plateau, found.importance).items():
        run.log_figure(figure, name)
    run.log_figure(plots.final_evaluation(found.log_loss, d.difference, d.interval), "study_judgement")


if __name__ == "__main__":
    run_script(main)
