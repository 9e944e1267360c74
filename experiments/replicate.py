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
from typing import Any

from loguru import logger

from experiments._cli import resolve_device, run_script, write_json
from lasps.config.model_config import THREE_PHASE_CONFIG
from lasps.config.settings import settings

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
        results[str(seed)] = market_result(folder, args.preset, seed, args.effect, device, args)
        print_market(seed, results[str(seed)])
    print_acceptance(results)
    path = args.json or settings.REPORT_DIR / f"replicate_{args.effect}.json"
    write_json(path, results)
    logger.info(f"Saved: {path}")


def market_result(folder: Path, preset: str, seed: int, effect: str, device: str,
                  asked: argparse.Namespace) -> dict[str, Any]:
    """One market from bars to differences on test."""
    from lasps.evaluation.metrics import summary
    from lasps.evaluation.significance import day_difference
    from lasps.pipeline.datasets import build_synthetic
    from lasps.pipeline.phase_options import PhaseOptions
    from lasps.pipeline.phases import run_phases
    from lasps.pipeline.summary import baseline_tables
    from lasps.pipeline.validation import open_checkpoint, validate_checkpoint

    build_synthetic(folder / "data", preset, seed, effect, materialize=False, force=True)
    options = PhaseOptions(folder / "data", folder / "checkpoints", device, seed=seed, cache=False,
                           charts=not asked.no_charts)
    run_phases((1,), options)
    seconds_3 = timed(lambda: run_phases((3,), options))
    seconds_2 = timed(lambda: run_phases((2,), options))
    names = [name for name in MODELS if name != "phase3_longer" or not asked.no_longer]
    if not asked.no_longer:
        train_longer(options, seconds_2 / seconds_3)
    runs = {name: validate_checkpoint(open_checkpoint(path_of(options, name), device), folder / "data", "test", device)
            for name in names}
    oracle = baseline_tables(folder / "data", ("volatility_bins", "oracle"))
    metrics = {name: run.metrics for name, run in runs.items()} | {
        name: summary(forecasts["test"], runs["phase1_best"].prior) for name, forecasts in oracle.items()}
    differences = {f"{b} minus {a}": {metric: as_row(day_difference(runs[a].forecast, runs[b].forecast, metric))
                                      for metric in ("accuracy", "log_loss")} for a, b in PAIRS if a in runs}
    return {"models": metrics, "differences": differences, "accepted": accepted_of(path_of(options, "phase2_best")),
            "seconds": {"phase3": seconds_3, "phase2": seconds_2}}


def accepted_of(phase2: Path) -> dict[str, Any]:
    """What val accepted of Phase 2."""
    from lasps.training.checkpoints import read_meta

    history = (read_meta(phase2) or {})["history"]
    return {"common_change": history["common_change_accepted"], "sectors": history["accepted"],
            "trained": len(history["sectors"])}


def train_longer(options: Any, share_of_phase_3: float) -> None:
    """The control: Phase 3 goes on from phase3_final for Phase 2's time, in whole epochs, at least one."""
    from dataclasses import replace

    from lasps.pipeline.phases import run_phases

    epochs = max(1, math.ceil(share_of_phase_3 * THREE_PHASE_CONFIG["phase3_finetune"]["epochs"]))
    run_phases((3,), replace(options, output_dir=options.output_dir / "longer", overrides={"epochs": epochs},
                             checkpoint=options.output_dir / "phase3_final.pt"))


def path_of(options: Any, name: str) -> Path:
    """The file of a model's weights."""
    if name == "phase3_longer":
        return options.output_dir / "longer" / "phase3_final.pt"
    return options.output_dir / f"{name}.pt"


def as_row(difference: Any) -> dict[str, Any]:
    """A difference as JSON."""
    return {"difference": difference.difference, "interval": [difference.low, difference.high], "n": difference.n}


def timed(run: Any) -> float:
    """Seconds that `run` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def print_market(seed: int, result: dict[str, Any]) -> None:
    """A market in a few lines, and the share of the log-loss gap to the oracle that Phase 2 closed."""
    models = result["models"]
    print(f"\nmarket seed {seed}, test n = {models['phase1_best']['n']:,}")
    for name in (name for name in ("volatility_bins", *MODELS, "oracle") if name in models):
        m = models[name]
        print(f"  {name:<16} accuracy {100 * m['accuracy']:6.2f} %   log loss {m['log_loss']:.4f}")
    for pair, metrics in result["differences"].items():
        (accuracy, loss) = metrics["accuracy"], metrics["log_loss"]
        low, high = (100 * x for x in accuracy["interval"])
        print(f"  {pair}: accuracy {100 * accuracy['difference']:+.2f} points [{low:+.2f}, {high:+.2f}], log loss "
              f"{loss['difference']:+.4f} [{loss['interval'][0]:+.4f}, {loss['interval'][1]:+.4f}]")
    gap = models["phase1_best"]["log_loss"] - models["oracle"]["log_loss"]
    closed = models["phase1_best"]["log_loss"] - models["phase2_best"]["log_loss"]
    accepted = result["accepted"]
    print(f"  Common change accepted: {'yes' if accepted['common_change'] else 'no'}; sector part accepted on val: "
          f"{accepted['sectors']} of {accepted['trained']}")
    print(f"  Phase 2 closed {100 * closed / gap:.0f} % of the log-loss gap between phase1_best and the oracle")


def print_acceptance(results: dict[str, dict[str, Any]]) -> None:
    """How often val accepted a sector part: with --effect none, the rate of false acceptances."""
    rows = [result["accepted"] for result in results.values()]
    heads, trained = sum(row["sectors"] for row in rows), sum(row["trained"] for row in rows)
    print(f"\nSector part accepted on {sum(row['sectors'] > 0 for row in rows)} of {len(rows)} markets ({heads} of "
          f"{trained} sectors), common change on {sum(row['common_change'] for row in rows)}")


if __name__ == "__main__":
    run_script(main)
