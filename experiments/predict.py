#!/usr/bin/env python
"""Forecast the next five days of every stock from a checkpoint and daily bars.

    python experiments/predict.py --checkpoint checkpoints/phase2_best.pt --source bars.parquet --listing listing.csv

The integrity gate looks at every bar that the forecasts read: fatal findings stop them, the others stand in the output
(and beside --out as NAME.integrity.json).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments._cli import (
    add_reading_flags,
    add_source_flags,
    add_waive_flag,
    names_in,
    positive_int,
    reading_of,
    resolve_device,
    run_script,
    source_files,
    write_json,
)


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="a .pt; or several as one model: A.pt,B.pt or make seeds' ensemble.json",
    )
    add_source_flags(parser)
    parser.add_argument("--date", default="latest", help="latest (the last whole day), or a day like 2025-06-17")
    parser.add_argument("--out", type=Path, default=None, help="write the table here, .csv or .parquet")
    parser.add_argument("--top", type=positive_int, default=10, help="rows printed from either end")
    parser.add_argument("--device", default=None)
    add_reading_flags(parser)
    add_waive_flag(parser)
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    return parser.parse_args()


def main() -> None:
    """Forecast, print both ends of the table, write it."""
    args = parse_args()
    import polars as pl

    from lasps.data.integrity import as_text
    from lasps.data.sources.files import read_bars, read_listing
    from lasps.pipeline.forecast import forecast, write_forecast
    from lasps.pipeline.screens import show_forecast
    from lasps.training.ensembles import open_model

    device, (source, listing) = resolve_device(args.device), source_files(args)
    checkpoint = open_model(args.checkpoint, device)
    table, report = forecast(
        checkpoint,
        read_bars(source, **reading_of(args)),
        read_listing(listing, pad_codes=args.pad_codes),
        args.date,
        names_in(args.waive),
    )
    print(f"What the integrity gate found in the bars that these forecasts read:\n{as_text(report)}")
    show_forecast(table, checkpoint, args.top, args.out)
    if args.out is not None:
        write_forecast(table, args.out)
        write_json(args.out.with_name(f"{args.out.name}.integrity.json"), report.to_dict())
    write_json(args.json, table.with_columns(pl.col("date").cast(pl.String)).to_dicts())


if __name__ == "__main__":
    run_script(main)
