#!/usr/bin/env python
"""The default market again and again: does Phase 2 gain what was planted on each, and nothing where nothing was?

    python experiments/replicate.py --seeds 7 8 9                  # three markets with one effect per sector
    python experiments/replicate.py --seeds 7 8 9 --effect none    # the same markets with one effect for all

Each market is built, trained in Phases 1, 3 and 2, and evaluated on test, beside two controls: `common_change`, what
Phase 2 does without sectors, and `phase3_longer`, which goes on with Phase 3 for as long as Phase 2 took. How often
sectors are accepted where there is nothing to accept:

    python experiments/replicate.py --preset tiny --effect none --seeds $(seq 20) --no-longer --no-charts
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from experiments._cli import resolve_device, run_script, write_json
from lasps.config.model_config import THREE_PHASE_CONFIG
from lasps.config.settings import settings

if TYPE_CHECKING:
    from lasps.evaluation.comparison import Comparison

MODELS = ("phase1_best", "phase3_final", "phase3_longer", "common_change", "phase2_best")
PAIRS = tuple((before, "phase2_best") for before in ("common_change", "phase1_best", "phase3_final", "phase3_longer"))


def main() -> None:
    """Run every market, print a line each, write reports/replicate_EFFECT.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--effect", choices=("sector", "none"), default="sector")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--no-charts", action="store_true", help="models without the CNN")
    parser.add_argument("--no-longer", action="store_true", help="without the control of a longer Phase 3")
    parser.add_argument("--device", default=None)
    parser.add_argument("--work-dir", type=Path, default=settings.REPORT_DIR / "replicate")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    args = parser.parse_args()
    device = resolve_device(args.device)
    results = {}
    for seed in args.seeds:
        folder = args.work_dir / f"{args.preset}_{args.effect}_{seed}"
        comparison, results[str(seed)] = market_result(folder, args.preset, seed, args.effect, device, args)
        print_market(seed, comparison, results[str(seed)]["accepted"])
    print_acceptance(results)
    path = args.json or settings.REPORT_DIR / f"replicate_{args.effect}.json"
    write_json(path, results)
    logger.info(f"Saved: {path}")


def market_result(
    folder: Path, preset: str, seed: int, effect: str, device: str, asked: argparse.Namespace
) -> tuple[Comparison, dict[str, Any]]:
    """One market from bars to a comparison on test, and that as JSON."""
    from lasps.evaluation.comparison import compare
    from lasps.pipeline.datasets import build_synthetic
    from lasps.pipeline.phase_options import PhaseOptions
    from lasps.pipeline.phases import run_phases
    from lasps.pipeline.summary import baseline_tables
    from lasps.pipeline.validation import open_checkpoint, validate_checkpoint

    build_synthetic(folder / "data", preset, seed, effect, materialize=False, force=True)
    options = PhaseOptions(
        folder / "data", folder / "checkpoints", device, seed=seed, cache=False, charts=not asked.no_charts
    )
    run_phases((1,), options)
    seconds_3 = timed(lambda: run_phases((3,), options))
    seconds_2 = timed(lambda: run_phases((2,), options))
    names = [name for name in MODELS if name != "phase3_longer" or not asked.no_longer]
    if not asked.no_longer:
        train_longer(options, seconds_2 / seconds_3)
    runs = {
        name: validate_checkpoint(open_checkpoint(path_of(options, name), device), folder / "data", "test", device)
        for name in names
    }
    baselines = baseline_tables(folder / "data", ("volatility_bins", "oracle"))
    comparison = compare(
        {name: {"test": [run.forecast]} for name, run in runs.items()},
        baselines={name: {"test": [by_split["test"]]} for name, by_split in baselines.items()},
        prior=runs["phase1_best"].prior,
        prior_source="training frequencies",
    )
    told = comparison.as_json()
    models = {name: by_split["test"] for name, by_split in told["models"].items()}
    return comparison, {
        "models": models | {name: run.metrics for name, run in runs.items()},
        "differences": differences(told),
        "verdict": told["verdict"],
        "accepted": accepted_of(path_of(options, "phase2_best")),
        "seconds": {"phase3": seconds_3, "phase2": seconds_2},
    }


def differences(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """'b minus a' -> accuracy and log loss of PAIRS, from a comparison's JSON."""
    found = {(p["a"], p["b"], p["metric"]): p for p in told["pairs"]}
    return {
        f"{b} minus {a}": {
            metric: {key: found[a, b, metric][key] for key in ("difference", "interval", "n")}
            for metric in ("accuracy", "log_loss")
        }
        for a, b in PAIRS
        if (a, b, "log_loss") in found
    }


def accepted_of(phase2: Path) -> dict[str, Any]:
    """What val accepted of Phase 2."""
    from lasps.training.checkpoints import read_meta

    history = (read_meta(phase2) or {})["history"]
    return {
        "common_change": history["common_change_accepted"],
        "sectors": history["accepted"],
        "trained": len(history["sectors"]),
    }


def train_longer(options: Any, share_of_phase_3: float) -> None:
    """The control: Phase 3 goes on from phase3_final for Phase 2's time, in whole epochs, at least one."""
    from dataclasses import replace

    from lasps.pipeline.phases import run_phases

    epochs = max(1, math.ceil(share_of_phase_3 * THREE_PHASE_CONFIG["phase3_finetune"]["epochs"]))
    run_phases(
        (3,),
        replace(
            options,
            output_dir=options.output_dir / "longer",
            overrides={"epochs": epochs},
            checkpoint=options.output_dir / "phase3_final.pt",
        ),
    )


def path_of(options: Any, name: str) -> Path:
    """The file of a model's weights."""
    if name == "phase3_longer":
        return options.output_dir / "longer" / "phase3_final.pt"
    return options.output_dir / f"{name}.pt"


def timed(run: Any) -> float:
    """Seconds that `run` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def print_market(seed: int, comparison: Comparison, accepted: dict[str, Any]) -> None:
    """A market's comparison, what val accepted, and the share of the log-loss gap to the oracle that Phase 2 closed."""
    from lasps.pages.comparison_text import show_comparison

    print(f"\nMarket of seed {seed}")
    show_comparison(comparison)
    print(
        f"Common change accepted: {'yes' if accepted['common_change'] else 'no'}; sector part accepted on val: "
        f"{accepted['sectors']} of {accepted['trained']}"
    )
    loss = {model: m["test"]["log_loss"] for model, m in comparison.as_json()["models"].items()}
    closed = (loss["phase1_best"] - loss["phase2_best"]) / (loss["phase1_best"] - loss["oracle"])
    print(f"Phase 2 closed {100 * closed:.0f} % of the log-loss gap between phase1_best and the oracle")


def print_acceptance(results: dict[str, dict[str, Any]]) -> None:
    """How often val accepted a sector part: with --effect none, the rate of false acceptances."""
    rows = [result["accepted"] for result in results.values()]
    heads, trained = sum(row["sectors"] for row in rows), sum(row["trained"] for row in rows)
    print(
        f"\nSector part accepted on {sum(row['sectors'] > 0 for row in rows)} of {len(rows)} markets ({heads} of "
        f"{trained} sectors), common change on {sum(row['common_change'] for row in rows)}"
    )


if __name__ == "__main__":
    run_script(main)
