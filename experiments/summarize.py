#!/usr/bin/env python
"""Validate phase1_best, phase3_final and phase2_best on val and test, and print one table with their baselines.

    python experiments/summarize.py            # the last step of `make train`
"""

from __future__ import annotations

import argparse
from pathlib import Path

from loguru import logger

from experiments._cli import add_data_flags, resolve_device, run_script, write_json
from lasps.config.model_config import TRAINING_CONFIG
from lasps.config.settings import settings


def main() -> None:
    """Validate, compare, print, write OUTPUT_DIR/summary.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_flags(parser, batch_size=TRAINING_CONFIG["eval_batch_size"])
    parser.add_argument("--output-dir", type=Path, default=settings.CHECKPOINT_DIR)
    args = parser.parse_args()
    from lasps.pipeline.summary import baseline_tables, print_summary, summarize, validate_all
    from lasps.tracking import open_tracker

    validations = validate_all(args.data_dir, args.output_dir, resolve_device(args.device),
                               open_tracker(enabled=not args.no_track, system_metrics=False), args.batch_size)
    content = summarize(validations, baseline_tables(args.data_dir))
    print_summary(content)
    write_json(args.output_dir / "summary.json", content)
    write_json(args.json, content)
    logger.info(f"Saved: {args.output_dir / 'summary.json'}")
    print("\nLook further: make ui (the runs) - make compare (is the difference real?) - make notebooks - make tune")


if __name__ == "__main__":
    run_script(main)
