#!/usr/bin/env python
"""An Optuna study of Phase 2's lr, epochs, min_samples, rank and penalty, on shared features computed once.

    python experiments/tune_phase2.py --checkpoint checkpoints/phase3_final.pt --trials 100

Say it again to go on after a stop; say it in several terminals (or --workers 3) to share the work.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from experiments._cli import add_data_flags, positive_int, resolve_device, run_script, write_json
from lasps.config.model_config import TRAINING_CONFIG
from lasps.config.settings import settings


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=settings.CHECKPOINT_DIR / "phase3_final.pt")
    add_data_flags(parser, batch_size=TRAINING_CONFIG["eval_batch_size"])
    parser.add_argument("--trials", type=positive_int, default=100, help="trials of the whole study, earlier ones too")
    parser.add_argument("--study", default="phase2", help="its name; its file is checkpoints/studies/NAME.journal")
    parser.add_argument("--storage", default=None, help="any Optuna storage URL, or a .journal file")
    parser.add_argument("--seed", type=int, default=TRAINING_CONFIG["seed"])
    parser.add_argument("--workers", type=positive_int, default=1, help="processes that share the study")
    parser.add_argument("--helper", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def load_data(args: argparse.Namespace, device: str) -> tuple[Any, Any]:
    """Shared features of the checkpoint with the study's half of val, and the judged half."""
    from lasps.data.datasets.loading import load_split
    from lasps.pipeline.holdout import holdout_of, part_of_train
    from lasps.pipeline.phases import check_fits, gamma_of
    from lasps.pipeline.validation import open_checkpoint
    from lasps.training.heads.nested import common_change
    from lasps.training.phase2 import head_data
    from lasps.tuning import fitting_default, split_val

    if not args.checkpoint.is_file():
        raise FileNotFoundError(f"--checkpoint {args.checkpoint} does not exist. Make it with 'make train', or name "
                                "another one.")
    train, val = load_split(args.data_dir, "train"), load_split(args.data_dir, "val")
    model = open_checkpoint(args.checkpoint, device).model
    check_fits(model, train, args.checkpoint)
    part = part_of_train(2, train, holdout_of(None, args.checkpoint))
    data = head_data(model, part, val, device=device, resume_dir=args.checkpoint.parent / ".resume",
                     start_gamma=gamma_of(args.checkpoint))
    assert data.val is not None
    studied, judged = split_val(data.val)
    base, _, _ = common_change(replace(data, val=studied), fitting_default(data), device=device)
    return base, judged


def digest_of(data: Any) -> str:
    """What a study belongs to: backbone, data and start heads."""
    digest = hashlib.sha256(f"{data.train.fingerprint}|{data.val.fingerprint}".encode())
    for name in sorted(data.start):
        digest.update(data.start[name].numpy().tobytes())
    return digest.hexdigest()


def start_others(workers: int) -> list[subprocess.Popen[bytes]]:
    """The same command in further processes, one worker each, that share the cores and leave the report to this one."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    if workers > 1:
        torch.set_num_threads(threads)
    command = [sys.executable, *sys.argv, "--workers", "1", "--helper"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return [subprocess.Popen(command, env=environment) for _ in range(workers - 1)]


def main() -> None:
    """Run trials, then say what the study came to."""
    args = parse_args()
    from filelock import FileLock

    from lasps.tracking import Tracker, open_tracker
    from lasps.tuning import conclude, conclusion_path, open_study, run_trials, space_of
    from lasps.tuning.trials import running_elsewhere

    device = resolve_device(args.device)
    data, judged = load_data(args, device)
    tags = {"optuna.study": args.study, "checkpoint": args.checkpoint.name, "device": device, "seed": args.seed,
            "data_fingerprint": data.train.fingerprint}
    tracker = open_tracker(enabled=not args.no_track, system_metrics=False)
    beside = conclusion_path(args.study, args.storage)
    beside.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with FileLock(beside.with_suffix(".start.lock")):  # one worker makes the study and its run
            study = open_study(args.study, args.storage, made_on=digest_of(data), space=space_of(data), seed=args.seed)
            known_run = study.user_attrs.get("mlflow_run_id")
            opened: AbstractContextManager[Tracker] = tracker.run(f"study_{args.study}", tags=tags,
                                                                  resume_id=known_run)
            run = stack.enter_context(opened)
            if run.run_id is not None:
                study.set_user_attr("mlflow_run_id", run.run_id)
        others = start_others(args.workers)
        run_trials(study, data, args.trials, run, device)
        for other in others:
            other.wait()
        if args.helper or running_elsewhere(study):
            logger.info(f"Study {args.study}: another worker says what it came to")
        else:
            report(conclude(study, data, judged, device), study, run, args)


def report(found: Any, study: Any, run: Any, args: argparse.Namespace) -> None:
    """Print the conclusion, keep it as JSON and in MLflow."""
    from lasps.terminal import show_end, show_lines
    from lasps.tuning import conclusion_path, figures

    print()
    show_lines(found.lines())
    show_end([str(conclusion_path(args.study, args.storage))],
             [(found.command, "train with the best values"), ("make ui", "trials, plots, the study's run"),
              ("make notebooks", "head_study: curves and importance")])
    kept = conclusion_path(args.study, args.storage)
    write_json(kept, found.to_dict())
    write_json(args.json, found.to_dict())
    run.log_metrics({f"judged/{name}_log_loss": value for name, value in found.log_loss.items()})
    run.log_metrics({"judged/difference": found.difference.difference, "judged/low": found.difference.low,
                     "judged/high": found.difference.high})
    run.log_artifact(kept)
    trials = study.trials_dataframe(attrs=("number", "value", "state", "params", "user_attrs", "duration"))
    run.log_table(trials.astype({"duration": str}), "tables/trials")
    for name, figure in figures.study_figures(trials, found.plateau, found.importance).items():
        run.log_figure(figure, name)
    d = found.difference
    run.log_figure(figures.judgement(found.log_loss, d.difference, d.interval), "study_judgement")


if __name__ == "__main__":
    run_script(main)
