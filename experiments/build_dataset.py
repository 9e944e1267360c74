#!/usr/bin/env python
"""Build a dataset: the synthetic market (the default), or a real one from files.

python experiments/build_dataset.py
python experiments/build_dataset.py --source bars.parquet --listing listing.csv --protocol krx-2020s
python experiments/build_dataset.py --source bars.parquet --listing listing.csv --fold 1/3 --test-days 60
python experiments/build_dataset.py --source longer.parquet --listing listing.csv --extend
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path
from typing import Any

from loguru import logger

from experiments._cli import (
    add_reading_flags,
    add_waive_flag,
    names_in,
    positive_float,
    positive_int,
    reading_of,
    run_script,
    warn_of_ignored,
    write_json,
)
from lasps.config.dataset_config import CHART_SIZE, HORIZON, THRESHOLD
from lasps.config.settings import settings

OF_SYNTHETIC = {"data_dir", "if_missing", "force", "materialize", "json", "preset", "effect", "seed"}
OF_EXTENSION = {
    "data_dir",
    "if_missing",
    "json",
    "source",
    "listing",
    "pad_codes",
    "signed_prices",
    "decimal",
    "repairs",
    "waive",
    "extend",
    "test_end",
}
OF_SPEC = ("horizon", "threshold", "train_fraction", "materialize", "embargo_days")
OF_BUILD = ("universe", "force", "repairs", "extend", "test_end")
SPLIT_DAYS = ("train_start", "train_end", "val_start", "val_end", "test_start", "test_end")


def make_parser() -> argparse.ArgumentParser:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=settings.DATA_DIR, help="where the dataset goes")
    parser.add_argument("--force", action="store_true", help="replace a dataset of another fingerprint")
    parser.add_argument("--if-missing", action="store_true", help="do nothing where a dataset stands already")
    parser.add_argument(
        "--materialize", action="store_true", help="also write the interchange format's four arrays per split"
    )
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    synthetic = parser.add_argument_group("synthetic market")
    synthetic.add_argument("--preset", default="default", help="default or tiny")
    synthetic.add_argument("--effect", choices=("sector", "none"), default="sector")
    synthetic.add_argument("--seed", type=int, default=7)
    real = parser.add_argument_group("real market")
    real.add_argument("--source", type=Path, help="parquet or CSV long table, or a folder of such files")
    real.add_argument("--listing", type=Path, help="code, name, market, industry")
    real.add_argument("--universe", default="common", help="common, with_preference or all")
    real.add_argument(
        "--markets",
        nargs="+",
        default=None,
        metavar="MARKET",
        help="KOSPI,KOSDAQ,KONEX, or all; default: all but KONEX (15 %% limit, hardly trades)",
    )
    real.add_argument("--features", default=None, help="comma-separated names; default: the chosen set")
    real.add_argument("--train-fraction", type=positive_float, default=1.0, help="share of train samples kept")
    real.add_argument("--chart-size", default="x".join(map(str, CHART_SIZE)), help="height x width")
    real.add_argument("--horizon", type=positive_int, default=HORIZON, help="traded days")
    real.add_argument("--threshold", type=positive_float, default=THRESHOLD)
    add_reading_flags(real)
    real.add_argument(
        "--extend",
        action="store_true",
        help="add new days, up to --test-end, to the dataset in --data-dir; all its options stay",
    )
    real.add_argument("--repairs", type=Path, default=None, help="a list that check_data.py --suggest-repairs wrote")
    add_waive_flag(real)
    splits = parser.add_argument_group("splits of a real market, in one of four ways (default: --fractions 0.7,0.15)")
    splits.add_argument("--protocol", default=None, help="krx-2010s or krx-2020s")
    for name in SPLIT_DAYS:
        splits.add_argument(f"--{name.replace('_', '-')}", type=date.fromisoformat, default=None, metavar="YYYY-MM-DD")
    splits.add_argument("--fractions", default=None, metavar="TRAIN,VAL", help="shares of the market's days")
    splits.add_argument("--fold", default=None, metavar="K/N", help="the K-th of N walk-forward folds")
    splits.add_argument("--val-days", type=positive_int, default=60, help="market days of a fold's val")
    splits.add_argument("--test-days", type=positive_int, default=60, help="market days of a fold's test")
    splits.add_argument("--train-days", type=positive_int, default=None, help="of a fold; default: all before val")
    splits.add_argument("--embargo-days", type=int, default=0, help="calendar days kept free between the splits")
    return parser


def build_real(args: argparse.Namespace, borders: Any) -> dict[str, Any]:
    """The dataset of a real market."""
    from lasps.data.spec import DatasetSpec
    from lasps.pipeline.datasets import BuildOptions, build_from_files

    spec = DatasetSpec(
        features=tuple(args.features.split(",")) if args.features else None,
        chart_size=chart_size(args.chart_size),
        **{name: getattr(args, name) for name in OF_SPEC},
    )
    options = BuildOptions(
        args.data_dir,
        spec,
        markets=markets_in(args.markets),
        waive=names_in(args.waive),
        **{name: getattr(args, name) for name in OF_BUILD},
    )
    return build_from_files(args.source, args.listing, borders, options, **reading_of(args))


def markets_in(words: list[str] | None) -> tuple[str, ...] | None:
    """--markets as `select_universe` takes it: None the default, () every market."""
    if words is None:
        return None
    names = tuple(name.upper() for name in names_in(words))
    return () if names == ("ALL",) else names


def chart_size(text: str) -> tuple[int, int]:
    """ "96x180" -> (96, 180)."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ValueError(f"--chart-size: expected HEIGHTxWIDTH as 96x180, got {text!r}")
    return int(height), int(width)


def borders_of(args: argparse.Namespace) -> Any:
    """What the flags say about the splits."""
    from lasps.pipeline.datasets import Fold, borders_from

    days = {name: getattr(args, name) for name in SPLIT_DAYS if getattr(args, name)}
    try:
        shares = [float(share) for share in args.fractions.split(",")] if args.fractions else None
        number, folds = (int(part) for part in args.fold.split("/")) if args.fold else (0, 0)
    except ValueError as error:
        raise ValueError(f"expected --fractions as 0.7,0.15 and --fold as 1/3: {error}") from error
    fold = Fold(number, folds, args.val_days, args.test_days, args.train_days) if args.fold else None
    return borders_from(args.protocol, days, shares, fold)


def main() -> None:
    """Build, and say what was built."""
    parser = make_parser()
    args = parser.parse_args()
    from lasps.pipeline.datasets import build_synthetic, holds_dataset
    from lasps.pipeline.screens import show_dataset

    if args.if_missing and holds_dataset(args.data_dir):
        logger.info(f"{args.data_dir} holds a dataset: left as it is")
        return
    if args.source is None:
        warn_of_ignored(args, parser, vars(args).keys() - OF_SYNTHETIC, "without --source the market is synthetic")
        description = build_synthetic(args.data_dir, args.preset, args.seed, args.effect, True, args.force)
    elif args.extend:
        warn_of_ignored(args, parser, vars(args).keys() - OF_EXTENSION, "--extend keeps the dataset's options")
        description = build_real(args, None)
    else:
        description = build_real(args, borders_of(args))
    logger.info(f"Saved: {args.data_dir}")
    show_dataset(description, args.data_dir)
    write_json(args.json, description)


if __name__ == "__main__":
    run_script(main)
