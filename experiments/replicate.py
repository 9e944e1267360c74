#!/usr/bin/env python
"""The default market again and again: does Phase 2 gain what was planted on each, and nothing where nothing was?

    python experiments/replicate.py --seeds 7 8 9                  # three markets with one effect per sector
    python experiments/replicate.py --seeds 7 8 9 --effect none    # the same markets with one effect for all

Each market is built, trained in Phases 1, 3 and 2, and evaluated on test, beside baselines and three controls:
`common_change`, what Phase 2 does without sectors; `independent_heads`, Phase 2 with --rank 0, where sectors share
nothing; `phase3_longer`, which goes on with Phase 3 for as long as Phase 2 took. How often sectors are accepted where
there is nothing to accept:

    python experiments/replicate.py --preset tiny --effect none --seeds $(seq 20) --no-longer --no-charts

A market that this commit has finished under --work-dir is not run again. With --workers N, or a Ray cluster at
RAY_ADDRESS, each market is a task of its own (docs/scale.md).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger

from experiments._cli import add_workers_flag, fan_out, resolve_device, run_script, write_json
from experiments._results import differences_of, metrics_of, write_result
from lasps.config.model_config import THREE_PHASE_CONFIG
from lasps.config.settings import settings

if TYPE_CHECKING:
    from lasps.pipeline.phase_options import PhaseOptions

BASELINES = ("majority", "prior", "volatility_bins", "lightgbm", "oracle")
FOLDERS = {"independent_heads": "independent", "phase3_longer": "longer"}
"""Controls that are trained beside a seed's own phases: their folder inside of the seed's."""


def main() -> None:
    """Run every market, print a table each, write reports/replicate_EFFECT.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--effect", choices=("sector", "none"), default="sector")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--no-charts", action="store_true", help="models without the CNN")
    parser.add_argument("--no-longer", action="store_true", help="without the control of a longer Phase 3")
    parser.add_argument("--device", default=None)
    parser.add_argument("--work-dir", type=Path, default=settings.REPORT_DIR / "replicate")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    add_workers_flag(parser)
    args = parser.parse_args()
    from lasps.tasks import Task, gpus_for

    device = resolve_device(args.device)
    tasks = [Task(f"market {seed}", market_result, (seed, device, args), gpus_for(device)) for seed in args.seeds]
    results = fan_out(tasks, args.workers, done=lambda task, market: print_market(task.arguments[0], market))
    markets = dict(zip(map(str, args.seeds), results, strict=True))
    print_acceptance(markets)
    path = args.json or settings.REPORT_DIR / f"replicate_{args.effect}.json"
    data = {f"{args.preset}, effect {args.effect}, seed {seed}": m["fingerprint"] for seed, m in markets.items()}
    write_result(path, markets, seeds=args.seeds, data=data)
    logger.info(f"Saved: {path}")


def market_result(seed: int, device: str, args: argparse.Namespace) -> dict[str, Any]:
    """The result of one market: read where this commit has run it with the same options, else run now."""
    from lasps.reproducibility import git_commit

    folder = args.work_dir / f"{args.preset}_{args.effect}_{seed}"
    options = {"commit": git_commit(), "device": device, "charts": not args.no_charts, "longer": not args.no_longer}
    path = folder / "result.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if content.get("of") != options:
        content = {"of": options, "market": run_market(folder, seed, device, args)}
        write_json(path, content)
    return dict(content["market"])


def run_market(folder: Path, seed: int, device: str, args: argparse.Namespace) -> dict[str, Any]:
    """One market from bars to its comparison on test."""
    from lasps.pipeline.datasets import build_synthetic
    from lasps.pipeline.phase_options import PhaseOptions
    from lasps.pipeline.phases import run_phases

    data = build_synthetic(folder / "data", args.preset, seed, args.effect, materialize=False, force=True)
    options = PhaseOptions(
        folder / "data", folder / "checkpoints", device, seed=seed, cache=False, charts=not args.no_charts
    )
    run_phases((1,), options)
    seconds_3 = timed(lambda: run_phases((3,), options))
    seconds_2 = timed(lambda: run_phases((2,), options))
    train_independent(options)
    names = ["phase1_best", "phase3_final", "common_change", "independent_heads", "phase2_best"]
    if not args.no_longer:
        train_longer(options, seconds_2 / seconds_3)
        names.insert(2, "phase3_longer")
    comparison = compared(folder / "data", {name: path_of(options, name) for name in names}, device)
    models = metrics_of(comparison)
    return {
        "fingerprint": data["fingerprint"],
        "models": models,
        "differences": {k: v for k, v in differences_of(comparison).items() if k.startswith("phase2_best minus")},
        "verdict": comparison["verdict"],
        "accepted": accepted_of(path_of(options, "phase2_best")),
        "gap_closed": {name: gap_closed(models, name) for name in ("independent_heads", "phase2_best")},
        "seconds": {"phase3": seconds_3, "phase2": seconds_2},
    }


def compared(data_dir: Path, paths: dict[str, Path], device: str) -> dict[str, Any]:
    """The JSON of a comparison of checkpoints and baselines on test."""
    from lasps.data.datasets.dataset import Dataset
    from lasps.evaluation.comparison import compare
    from lasps.pipeline.summary import baseline_tables
    from lasps.pipeline.validation import validate_checkpoint
    from lasps.training.checkpoints import Checkpoint

    data = Dataset.open(data_dir)
    runs = {name: validate_checkpoint(Checkpoint.open(path, device), data, "test") for name, path in paths.items()}
    return compare(
        {name: {"test": [run.forecast]} for name, run in runs.items()},
        baselines={name: {"test": [by["test"]]} for name, by in baseline_tables(data, BASELINES).items()},
        prior=runs["phase1_best"].prior,
        prior_source="training frequencies",
    ).as_json()


def accepted_of(phase2: Path) -> dict[str, Any]:
    """What val accepted of Phase 2."""
    from lasps.training.checkpoints import read_card

    history = read_card(phase2).history
    return {
        "common_change": history["common_change_accepted"],
        "sectors": history["accepted"],
        "trained": len(history["sectors"]),
    }


def gap_closed(models: dict[str, dict[str, Any]], name: str) -> float | None:
    """The share of phase1_best's distance in log loss from the oracle that a model closes; None without an oracle."""
    if "oracle" not in models:
        return None
    start = models["phase1_best"]["log_loss"]
    return float((start - models[name]["log_loss"]) / (start - models["oracle"]["log_loss"]))


def train_independent(options: PhaseOptions) -> None:
    """The control: Phase 2 with heads that share nothing, from the same phase3_final."""
    from lasps.pipeline.phases import run_phases

    run_phases((2,), beside(options, "independent_heads", {"rank": 0}))


def train_longer(options: PhaseOptions, share_of_phase_3: float) -> None:
    """The control: Phase 3 goes on from phase3_final for Phase 2's time, in whole epochs, at least one."""
    from lasps.pipeline.phases import run_phases

    epochs = max(1, math.ceil(share_of_phase_3 * THREE_PHASE_CONFIG["phase3_finetune"]["epochs"]))
    run_phases((3,), beside(options, "phase3_longer", {"epochs": epochs}))


def beside(options: PhaseOptions, control: str, overrides: dict[str, Any]) -> PhaseOptions:
    """Options of a control: from the seed's phase3_final, in a folder of its own."""
    start = options.output_dir / "phase3_final.pt"
    return replace(options, output_dir=options.output_dir / FOLDERS[control], overrides=overrides, checkpoint=start)


def path_of(options: PhaseOptions, name: str) -> Path:
    """The file of a model's weights."""
    if name in FOLDERS:
        phase = "phase3_final" if name == "phase3_longer" else "phase2_best"
        return options.output_dir / FOLDERS[name] / f"{phase}.pt"
    return options.output_dir / f"{name}.pt"


def timed(run: Callable[[], object]) -> float:
    """Seconds that `run` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def print_market(seed: int, market: dict[str, Any]) -> None:
    """A market's models on test, what val accepted, and the share of the gap to the oracle that Phase 2 closed."""
    print(f"\nMarket of seed {seed}\n{'':20} accuracy  macro-F1  log loss  rank IC")
    for name, m in market["models"].items():
        loss, rank_ic = (number(m[key], digits) for key, digits in (("log_loss", 4), ("rank_ic", 3)))
        print(f"{name:20} {100 * m['accuracy']:7.2f} % {m['macro_f1']:9.3f} {loss:>9} {rank_ic:>8}")
    accepted, closed = market["accepted"], market["gap_closed"]
    print(
        f"Common change accepted: {'yes' if accepted['common_change'] else 'no'}; sector part accepted on val: "
        f"{accepted['sectors']} of {accepted['trained']}"
    )
    if closed["phase2_best"] is not None:
        print(
            f"Closed of the log-loss gap between phase1_best and the oracle: {100 * closed['phase2_best']:.0f} % "
            f"(independent heads {100 * closed['independent_heads']:.0f} %)"
        )


def number(value: float | None, digits: int) -> str:
    """A number for a table; a dash where it is undefined."""
    return "-" if value is None else f"{value:.{digits}f}"


def print_acceptance(markets: dict[str, dict[str, Any]]) -> None:
    """How often val accepted a sector part: with --effect none, the rate of false acceptances."""
    rows = [market["accepted"] for market in markets.values()]
    heads, trained = sum(row["sectors"] for row in rows), sum(row["trained"] for row in rows)
    print(
        f"\nSector part accepted on {sum(row['sectors'] > 0 for row in rows)} of {len(rows)} markets ({heads} of "
        f"{trained} sectors), common change on {sum(row['common_change'] for row in rows)}"
    )


if __name__ == "__main__":
    run_script(main)
