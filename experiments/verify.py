#!/usr/bin/env python
"""Known answers: does the comparison find what is there, and claim nothing that is not? Writes docs/verification.md.

    python experiments/verify.py

Simulated forecasts and heads first (minutes), then two whole pipelines on the default market, one with a sector effect
and one without (--no-pipelines leaves them out). Exit code 1 if a check fails. With --workers N, or a Ray cluster at
RAY_ADDRESS, each check is a task of its own (docs/scale.md).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments._cli import add_workers_flag, fan_out, positive_int, run_script
from experiments._results import RESULTS, write_result
from lasps.config.settings import settings

if TYPE_CHECKING:
    from experiments.verification.known_answers import Finding
    from lasps.tasks import Task

EXIT_FAILED = 1
PAGE = """# Verification: known answers

Written by `make verify` ({when}, {minutes:.0f} minutes). Every line is about markets whose truth is known, evaluated by
the code behind `make compare`.

{table}

How the markets are made: `experiments/verification/simulation.py` (fat tails, a market factor, clustered volatility,
fading signals, bid-ask bounce, 5-day labels that overlap; half of a forecaster's error is about the whole market, so
that stocks do not average it away). The heads are Phase 2's (`lasps.training`), {sectors} sectors on
{width} features; "better" is the verdict on test log loss, two-sided 95 %, over days.

The calibration error is a sum of absolute values: leaving days out overstates how it moves, so its intervals are wider
than they need be. Intervals against a forecaster who is blind to volatility (majority, prior, persistence) are too
narrow: that difference moves with the market's volatility, which changes more slowly than the cosines see. The other
lines are about models that all know volatility, as LightGBM, volatility bins and the networks do.

## The rule for leaks

```
{rule}
```
"""


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=positive_int, default=1000, help="simulated comparisons per line")
    parser.add_argument("--seeds", type=positive_int, default=20, help="markets per line about heads and leaks")
    parser.add_argument("--no-pipelines", action="store_true", help="leave out the two whole pipelines")
    parser.add_argument("--out", type=Path, default=settings.ROOT / "docs" / "verification.md")
    parser.add_argument("--json", type=Path, default=RESULTS / "verification.json", metavar="FILE")
    add_workers_flag(parser)
    return parser.parse_args()


def simulated(runs: int, seeds: int) -> list[Task]:
    """The checks on simulated forecasts and on heads; each task returns its findings."""
    from experiments.verification import heads, known_answers
    from lasps.tasks import Task

    return [
        Task("planted effect", partial(heads.check_planted_effect, seeds)),
        Task("no effect", partial(heads.check_no_effect, seeds)),
        Task("false claims", partial(known_answers.check_false_claims, runs=max(runs, 500))),
        Task("coverage", partial(known_answers.check_coverage, runs=runs)),
        Task("coverage over regimes", partial(known_answers.check_regime_coverage, runs=runs)),
        Task("coverage over seeds", partial(known_answers.check_seed_coverage, runs=runs)),
        Task(
            "permuted labels",
            partial(
                known_answers.check_permuted_labels,
                {"logistic head": known_answers.fit_logistic, "Phase 1 head": heads.fit_common_head},
                runs=seeds,
            ),
        ),
        Task("leaks", partial(known_answers.check_leaks, runs=seeds)),
    ]


# ------------------------------------------------------------------------------------------------ whole pipelines


def pipelines() -> list[Task]:
    """Build, train, compare on the default market, with a sector effect and without."""
    from lasps.tasks import Task

    expected = (("sector", 'phase2_best "better"'), ("none", 'phase2_best not "better"'))
    return [Task(f"pipeline, effect {effect}", pipeline_finding, (effect, said)) for effect, said in expected]


def pipeline_finding(effect: str, promised: str) -> list[Finding]:
    """Whether Phase 2 is found better on a market with a sector effect, and not on one without."""
    from experiments.verification.known_answers import Finding

    with tempfile.TemporaryDirectory() as folder:
        result = run_pipeline(effect, Path(folder))
    pair = next(
        p for p in result["pairs"] if p["metric"] == "log_loss" and p["a"] == "phase1_best" and p["b"] == "phase2_best"
    )
    interval = pair["interval"]
    spread = f"[{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else "(the same forecasts)"
    found = f"log loss {pair['difference']:+.4f} {spread} against phase1_best"
    passed = (pair["better"] == "b") == (effect == "sector")
    return [Finding(f"whole pipeline, --effect {effect}", promised, found, passed)]


def run_pipeline(effect: str, folder: Path) -> dict[str, Any]:
    """build_dataset, train and compare as a user would call them; the comparison's JSON."""
    data, checkpoints, out = folder / "data", folder / "checkpoints", folder / "comparison.json"
    models = [checkpoints / f"{name}.pt" for name in ("phase1_best", "phase3_final", "phase2_best")]
    call("build_dataset.py", "--preset", "default", "--effect", effect, "--data-dir", data)
    call("train.py", "--phase", "0", "--data-dir", data, "--output-dir", checkpoints, "--device", "cpu", "--no-track")
    call("compare.py", *models, "--data-dir", data, "--device", "cpu", "--no-track", "--json", out)
    return dict(json.loads(out.read_text(encoding="utf-8")))


def call(script: str, *arguments: str | Path) -> None:
    """Run a script of this folder; ValueError with the end of its messages if it fails."""
    command = [sys.executable, str(Path(__file__).parent / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=settings.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{script} ended with exit code {done.returncode}: {done.stderr[-2000:]}")


# ------------------------------------------------------------------------------------------------ the page


def page(findings: list[Finding], minutes: float) -> str:
    """docs/verification.md."""
    from experiments.verification import heads
    from experiments.verification.known_answers import as_markdown
    from lasps.evaluation import leaks

    return PAGE.format(
        table=as_markdown(findings),
        when=time.strftime("%Y-%m-%d"),
        minutes=minutes,
        rule=(leaks.__doc__ or "").strip(),
        sectors=heads.SECTORS,
        width=heads.WIDTH,
    )


def main() -> int:
    """Run the checks, print the table, write the page."""
    args = parse_args()
    from loguru import logger

    from experiments.verification.known_answers import as_markdown
    from lasps.reproducibility import write_atomically

    started = time.monotonic()
    tasks = simulated(args.runs, args.seeds) + ([] if args.no_pipelines else pipelines())
    findings = [finding for found in fan_out(tasks, args.workers) for finding in found]
    print(as_markdown(findings))
    write_atomically(args.out, page(findings, (time.monotonic() - started) / 60))
    logger.info(f"Saved: {args.out}")
    write_result(args.json, {"findings": [asdict(f) for f in findings]}, seeds=range(args.seeds))
    failed = [f.what for f in findings if f.passed is False]
    for what in failed:
        logger.error(f"check failed: {what}")
    return EXIT_FAILED if failed else 0


if __name__ == "__main__":
    run_script(main)
