#!/usr/bin/env python
"""Build a dataset: the synthetic market (the default), or a real one from files.

    python experiments/build_dataset.py
    python experiments/build_dataset.py --source bars.parquet --listing listing.csv --protocol krx-2020s
"""

from __future__ import annotations

import argparse
from pathlib import Path

from loguru import logger

from experiments._cli import positive_float, positive_int, run_script, write_json
from lasps.config.settings import settings

SPLIT_DAYS = ("train_start", "train_end", "val_start", "val_end", "test_start", "test_end")


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=settings.DATA_DIR, help="where the dataset goes")
    parser.add_argument("--force", action="store_true", help="replace a dataset of another fingerprint")
    parser.add_argument("--materialize", action="store_true", help="also write the seed's four arrays per split")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    synthetic = parser.add_argument_group("synthetic market")
    synthetic.add_argument("--preset", default="default", help="default or tiny")
    synthetic.add_argument("--effect", choices=("sector", "none"), default="sector")
    synthetic.add_argument("--seed", type=int, default=7)
    real = parser.add_argument_group("real market")
    real.add_argument("--source", type=Path, help="parquet or CSV long table, or a folder of one CSV per code")
    real.add_argument("--listing", type=Path, help="code, name, market, industry")
    real.add_argument("--protocol", default=None, help="krx-2010s or krx-2020s: split days")
    for name in SPLIT_DAYS:
        real.add_argument(f"--{name.replace('_', '-')}", default=None, metavar="YYYY-MM-DD")
    real.add_argument("--universe", default="common", help="common, with_preference or all")
    real.add_argument("--features", default=None, help="comma-separated names; default: the chosen set")
    real.add_argument("--train-fraction", type=positive_float, default=1.0, help="share of train samples kept")
    real.add_argument("--chart-size", default="96x180", help="height x width")
    real.add_argument("--horizon", type=positive_int, default=5, help="traded days")
    real.add_argument("--threshold", type=positive_float, default=0.03)
    real.add_argument("--pad-codes", action="store_true", help="codes that lost their leading zeros: give them back")
    real.add_argument("--embargo-days", type=int, default=0, help="calendar days kept free between the splits")
    real.add_argument("--extend", action="store_true",
                      help="add new days to the dataset in --data-dir; its options, borders and scaler stay")
    real.add_argument("--repairs", type=Path, default=None, help="a list that check_data.py --suggest-repairs wrote")
    real.add_argument("--waive", default="", help="comma-separated integrity checks to build in spite of")
    return parser.parse_args()


def build_real(args: argparse.Namespace) -> dict:
    """The dataset of a real market."""
    from lasps.pipeline.datasets import BuildOptions, borders_from, build_from_files

    days = {name: getattr(args, name) for name in SPLIT_DAYS if getattr(args, name)}
    height, _, width = args.chart_size.partition("x")
    options = BuildOptions(
        args.data_dir, args.universe, tuple(args.features.split(",")) if args.features else None,
        (int(height), int(width)), args.horizon, args.threshold, 1, args.train_fraction, args.materialize, args.force,
        tuple(name for name in args.waive.split(",") if name), args.repairs,
        args.embargo_days, args.extend)
    return build_from_files(args.source, args.listing, borders_from(args.protocol, days), options, args.pad_codes)


def main() -> None:
    """Build, and say what was built."""
    args = parse_args()
    from lasps.pipeline.datasets import build_synthetic

    if args.source is not None:
        description = build_real(args)
    else:
        description = build_synthetic(args.data_dir, args.preset, args.seed, args.effect, True, args.force)
    for split, counts in description["counts"].items():
        logger.info(f"{split}: {counts}")
    logger.info(f"Saved: {args.data_dir}")
    write_json(args.json, description)


if __name__ == "__main__":
    run_script(main)
