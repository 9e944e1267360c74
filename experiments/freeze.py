#!/usr/bin/env python
"""Freeze what was decided on val into one file, with a digest: the recipe that refit.py trains from.

    python experiments/freeze.py --seeds-dir checkpoints/krx --data-dir data/krx --out recipe.json

It holds, for every seed that seeds.py has trained, the steps of each phase, whether Phase 3 was kept, the sectors that
Phase 2 accepted with rank, penalty and epochs; and of the twin (LightGBM) the settings and the trees of as many seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments._cli import add_data_flags, run_script
from lasps.config.settings import settings


def main() -> None:
    """Read the cards, fit the twin where it is not cached, write the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_flags(parser, batch_size=512)
    parser.add_argument("--seeds-dir", type=Path, default=settings.CHECKPOINT_DIR / "seeds", help="seeds.py's output")
    parser.add_argument("--out", type=Path, default=Path("recipe.json"))
    args = parser.parse_args()
    from lasps.data.datasets.dataset import Dataset
    from lasps.evaluation.verdict import TWIN
    from lasps.pipeline.baseline_cache import BaselineCache, cached_baselines
    from lasps.pipeline.recipe import frozen

    found = [path for path in args.seeds_dir.glob("seed*") if (path / "phase2_best.pt").is_file()]
    folders = sorted(found, key=lambda path: (len(path.name), path.name))
    if not folders:
        raise ValueError(f"{args.seeds_dir}: expected seedN/phase2_best.pt of seeds.py, found none")
    data, cache_dir = Dataset.open(args.data_dir), settings.REPORT_DIR / "cache"
    cached_baselines(data, ("val", "test"), cache_dir, [TWIN], {TWIN: len(folders)})
    recipe = frozen(folders, len(data.train), BaselineCache.of(data, cache_dir))
    recipe.write(args.out)
    for own in recipe.networks:
        phase3 = "not kept" if own.phase3 is None else f"{own.phase3.stop_after} epochs"
        heads = "no sector" if own.phase2 is None else f"{len(own.phase2.sectors)} sectors"
        print(f"seed {own.seed}: Phase 1 {own.phase1.stop_after} epochs, Phase 3 {phase3}, Phase 2 {heads}")
    print(f"LightGBM: {', '.join(str(count) for count in recipe.trees.values())} trees per class")
    print(f"Saved: {args.out} (digest {recipe.digest[:12]})")


if __name__ == "__main__":
    run_script(main)
