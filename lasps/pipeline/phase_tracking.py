"""What a run of phases tells the tracker, beside the metrics that training logs, and where its runs' ids are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from lasps.config.settings import settings
from lasps.data.datasets.dataset import Dataset
from lasps.data.datasets.samples import SampleDataset
from lasps.files import write_atomically
from lasps.pipeline.phase_options import PhaseOptions
from lasps.plots.chart_grid import chart_grid
from lasps.reproducibility import json_text
from lasps.tracking import NullTracker, Tracker
from lasps.training.resume import resume_path

SHOWN_CHARTS = 12
RESUME_FOLDER = ".resume"
"""In the output folder: states, run ids and shared features of what is not over yet."""


def run_tags(options: PhaseOptions, data: Dataset) -> dict[str, str]:
    """Tags of every run: what makes it repeatable."""
    return {
        "data_fingerprint": data.train.fingerprint,
        "seed": str(options.seed),
        "device": options.device,
        "data_dir": str(options.data_dir),
        "output_dir": str(options.output_dir),
    }


def run_note(data: Dataset, phase: int | None = None) -> dict[str, str]:
    """The description that MLflow shows on a run's page: where to look for what. None: the pipeline's."""
    if phase is None:
        note = (
            "One run per phase below this one. Here: the headline metrics of each checkpoint by split, once they "
            "are validated, and under *Artifacts* a sample of the charts that the network is given."
        )
    else:
        curve = "`phase2/sector_07`: the curve of that sector's head" if phase == 2 else f"`phase{phase}`: its curves"
        listed = ", ".join(f"{number:02d} {name}" for number, name in enumerate(data.sector_names))
        note = (
            f"*Model metrics*: search for {curve}; for `test/sector_07`: what the checkpoint is worth there. "
            f"*Artifacts*: pictures, tables by class and sector, predictions. The checkpoint is a logged model "
            f"(*Models*).\n\nSectors: {listed}"
        )
    return {"mlflow.note.content": note}


def flat_params(phase: int, config: dict[str, Any], options: PhaseOptions, focal_gamma: float) -> dict[str, Any]:
    """The phase's hyperparameters as MLflow parameters."""
    return config | {
        "phase": phase,
        "batch_size_backbone": options.batch_size,
        "seed": options.seed,
        "focal_gamma": focal_gamma,
        "class_weights": list(settings.CLASS_WEIGHTS),
    }


def log_datasets(tracker: Tracker, folder: Path, train: SampleDataset, val: SampleDataset) -> None:
    """Train and val as the run's datasets, each by its own full digest."""
    for split, dataset in (("train", train), ("val", val)):
        classes = np.bincount(dataset.labels, minlength=3).tolist()
        tracker.log_dataset(
            split,
            dataset.fingerprint,
            context="training" if split == "train" else "selection",
            source=str(folder),
            profile={"n": len(dataset), "classes": classes},
        )


def log_charts(tracker: Tracker, train: SampleDataset) -> None:
    """A grid of charts of train, spread evenly over it: whoever opens the run sees what the network is given."""
    if isinstance(tracker, NullTracker):
        return
    rows = np.linspace(0, len(train) - 1, min(len(train), SHOWN_CHARTS)).astype(int)
    keys = (
        [str(row) for row in rows]
        if train.samples is None
        else [f"{code}  {date}" for code, date in train.samples[rows].select("code", "date").iter_rows()]
    )
    _, charts, _, labels = train.batch(rows)
    grid = chart_grid(
        list(charts.numpy()),
        labels.tolist(),
        captions=keys,
        title="train: a sample of the charts as the network sees them",
    )
    tracker.log_figure(grid, "train_charts")


def run_file(options: PhaseOptions, name: str) -> Path:
    """Where the id of an interrupted run is kept until the run is over."""
    return options.output_dir / RESUME_FOLDER / f"{name}.run"


def remember_run(options: PhaseOptions, name: str, key: str, run_id: str | None) -> None:
    """Keep the run's id in the resume folder, so that a resumed job of the same `key` goes on under it."""
    if run_id is not None:
        write_atomically(run_file(options, name), json_text({"run_id": run_id, "key": key}))


def resumable_run(options: PhaseOptions, name: str, key: str) -> str | None:
    """The id of the run to go on with under --resume, if there is one of this very job."""
    path = run_file(options, name)
    if not options.resume or not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept["run_id"] if kept["key"] == key else None
    except (ValueError, KeyError, TypeError):
        logger.warning(f"{path} cannot be read: {name} becomes a new run")
        return None


def forget_run(options: PhaseOptions, name: str, phase: int | None = None) -> None:
    """Remove what was kept for going on with a run: it is over, or begins afresh."""
    run_file(options, name).unlink(missing_ok=True)
    if phase is not None:
        resume_path(options.output_dir / RESUME_FOLDER, phase).unlink(missing_ok=True)
