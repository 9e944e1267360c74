#!/usr/bin/env python
"""Validate phase1_best, phase3_final and phase2_best on val and test, and print one table with their baselines.

python experiments/summarize.py            # the last step of `make train`
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments._cli import add_data_flags, resolve_device, run_script, write_json
from lasps.config.model_config import TRAINING_CONFIG
from lasps.config.settings import settings


def main() -> None:
    """Validate, compare, print, write OUTPUT_DIR/summary.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_flags(parser, batch_size=TRAINING_CONFIG["eval_batch_size"])
    parser.add_argument("--output-dir", type=Path, default=settings.CHECKPOINT_DIR)
    args = parser.parse_args()
    from lasps.data.datasets.dataset import Dataset
    from lasps.pages.comparison_text import show_comparison
    from lasps.pipeline.summary import baseline_tables, compare_all, summarize, validate_all
    from lasps.terminal import show_end
    from lasps.tracking import open_tracker

    data = Dataset.open(args.data_dir)
    validations = validate_all(
        data,
        args.output_dir,
        resolve_device(args.device),
        open_tracker(enabled=not args.no_track, system_metrics=False),
        args.batch_size,
    )
    baselines = baseline_tables(data)
    comparison = compare_all(validations, baselines, data.sector_names)
    content = summarize(validations, baselines, comparison)
    print()
    show_comparison(comparison)
    write_json(args.output_dir / "summary.json", content)
    write_json(args.json, content)
    made = [str(args.output_dir / f"{name}.pt") for name in validations] + [str(args.output_dir / "summary.json")]
    show_end(
        made,
        [
            ("make compare", "is phase2_best better, and better than LightGBM? with a page"),
            ("make ui", "the runs: curves, plots, checkpoints"),
            ("make predict", "the last day's forecasts"),
            ("make notebooks", "class by class, sector by sector"),
            ("make tune", "a study of Phase 2"),
        ],
    )


if __name__ == "__main__":
    run_script(main)
