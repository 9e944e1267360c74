#!/usr/bin/env python
"""Train again what a recipe says, on train and val together, without looking at a score; forecast test.

    python experiments/refit.py --recipe recipe.json --data-dir data/krx --output-dir checkpoints/krx_refitted

Writes OUTPUT_DIR/seedN/refitted.pt, ensemble.json, and the forecasts of network, LightGBM and blend, which compare.py
takes. What is finished is kept, so that the script can be stopped and rerun.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments._cli import add_data_flags, resolve_device, run_script, write_json
from lasps.config.settings import settings


def main() -> None:
    """Refit; print the command that compares the forecasts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_flags(parser, batch_size=512)
    parser.add_argument("--recipe", type=Path, default=Path("recipe.json"), help="of freeze.py")
    parser.add_argument("--rows", choices=("train", "train+val"), default="train+val", help="what to train on")
    parser.add_argument("--output-dir", type=Path, default=settings.CHECKPOINT_DIR / "refitted")
    args = parser.parse_args()
    from lasps.data.datasets.dataset import Dataset
    from lasps.pipeline.recipe import Recipe
    from lasps.pipeline.refit import refit

    data = Dataset.open(args.data_dir)
    written = refit(Recipe.read(args.recipe), data, args.rows, args.output_dir, resolve_device(args.device))
    write_json(args.json, [str(path) for path in written])
    print(f"python experiments/compare.py {' '.join(map(str, written))} --data-dir {args.data_dir} --baselines")


if __name__ == "__main__":
    run_script(main)
