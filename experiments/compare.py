#!/usr/bin/env python
"""Is B better than A, and is either better than nothing? Metrics, differences with intervals, and a verdict.

    python experiments/compare.py checkpoints/phase3_final.pt checkpoints/phase2_best.pt --baselines
    python experiments/compare.py phase3=ck7/phase3_final.pt,ck8/phase3_final.pt phase2=ck7/phase2_best.pt,ck8/...

Each MODEL is [NAME=]WHERE[,WHERE ...]: a checkpoint, a prediction file (.parquet, .csv) or an MLflow run id, several
of them for several seeds. Models of one name and different seeds are seeds of one model, too (ck*/phase2_best.pt).
Differences are B minus A; with several seeds, intervals are over seeds and days.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments._cli import add_data_flags, positive_int, resolve_device, run_script, write_json
from lasps.config.settings import settings

if TYPE_CHECKING:
    from lasps.evaluation.comparison import Comparison
    from lasps.pipeline.comparing import Loader
    from lasps.tracking import Tracker

NOT_IN_METRIC_NAMES = r"[^\w.\-/]"


def parse_args() -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="[NAME=]WHERE[,WHERE ...]")
    add_data_flags(parser, batch_size=512)
    parser.add_argument(
        "--split", choices=("test", "val", "both"), default="test", help="val is a selection split: shown, never tested"
    )
    parser.add_argument("--baselines", action="store_true", help="fit (once) and show every baseline of --data-dir")
    parser.add_argument(
        "--controls",
        action="store_true",
        help="with the baselines, what blends of trees alone gain: more fits of LightGBM, up to three times as long",
    )
    parser.add_argument(
        "--tried",
        type=positive_int,
        nargs=2,
        default=None,
        metavar=("NETWORK", "LIGHTGBM"),
        help="how many settings of each were tried on val, to be shown: an opponent that was tuned less proves little",
    )
    parser.add_argument(
        "--prior",
        type=prior,
        default=None,
        metavar="A,B,C",
        help="training shares of SELL, HOLD, BUY; default: those of --data-dir, else in-sample",
    )
    parser.add_argument("--html", type=Path, default=None, metavar="FILE", help="write the comparison page")
    parser.add_argument(
        "--picture",
        type=Path,
        default=None,
        metavar="FILE.png",
        help="class-wise accuracy of every model, and the last two sector by sector, in one picture",
    )
    parser.add_argument(
        "--cost",
        type=fraction,
        default=0.0010,
        metavar="C",
        help="commission and half spread per side, as a fraction of the traded value",
    )
    parser.add_argument(
        "--result", type=Path, default=None, metavar="FILE", help="write what tables of docs/ are made from"
    )
    parser.add_argument("--note", default="", help="what a reader of --result must know, e.g. looks at this test")
    parser.add_argument("--full", action="store_true", help="print every baseline, pair, seed and split")
    parser.add_argument("--tax", type=fraction, default=None, help="tax on sales; default: the year's Korean rate")
    return parser.parse_args()


def prior(text: str) -> tuple[float, ...]:
    """An argparse type: three shares with sum 1."""
    from lasps.evaluation.metrics import checked_prior

    try:
        return tuple(float(x) for x in checked_prior([float(part) for part in text.split(",")]))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def fraction(text: str) -> float:
    """An argparse type: a fraction of the traded value."""
    value = float(text)
    if not 0 <= value < 0.1:
        raise argparse.ArgumentTypeError(f"expected a fraction in 0..0.1, such as 0.001 for 0.1 %, got {text}")
    return value


def compared(args: argparse.Namespace) -> Comparison:
    """Load what is to be compared, and compare it."""
    from loguru import logger

    from lasps.data.datasets.dataset import Dataset
    from lasps.evaluation.comparison import compare
    from lasps.evaluation.portfolio import Costs
    from lasps.pipeline.comparing import Loader, load_models, prior_of

    splits = ("val", "test") if args.split == "both" else (args.split,)
    needs_model = any(end in text for text in args.models for end in (".pt", ".json"))
    data = Dataset.open(args.data_dir)
    loader = Loader(splits, data, resolve_device(args.device) if needs_model else "cpu", args.batch_size)
    models = load_models(args.models, loader)
    shares, source = (args.prior, "--prior") if args.prior else prior_of(data, models)
    if shares is None:
        logger.warning(f"no training frequencies ({source}): the prior is in-sample")
    baselines = all_baselines(args, models, loader) if args.baselines or args.controls else None
    return compare(
        models,
        prior=shares,
        prior_source=source,
        baselines=baselines,
        sector_names=data.sector_names,
        costs=Costs(args.cost, args.tax),
        remarks=remarks_on(args, models),
    )


def remarks_on(args: argparse.Namespace, models: dict[str, Any]) -> list[str]:
    """Over how many seeds the baselines are averaged, and how many settings were tried on val."""
    from lasps.evaluation.pairs import deployed_of

    if not (args.baselines or args.controls):
        return []
    deployed = deployed_of(list(models))
    n = max(len(forecasts) for forecasts in models[deployed].values())
    seeds = f"{n} seed{'s' if n > 1 else ''}"
    remarks = [f"lightgbm and mlp are the mean of {seeds} each, as many as {deployed} has"]
    if args.tried:
        remarks.append(f"settings tried on val: {args.tried[0]} of the network, {args.tried[1]} of lightgbm")
    return remarks


def all_baselines(args: argparse.Namespace, models: dict[str, Any], loader: Loader) -> dict[str, Any]:
    """The dataset's baselines, the phase1_best that lies beside the models where it is none of them, and ensemble,
    blend and controls of the model that is for use.
    """
    from lasps.evaluation.baselines import BASELINES, CONTROLS, SEEDED
    from lasps.evaluation.combined import with_combinations
    from lasps.evaluation.pairs import deployed_of
    from lasps.pipeline.baseline_cache import cached_baselines
    from lasps.pipeline.comparing import PHASE1, load_models, phase1_beside

    found: dict[str, Any] = {}
    if not any(name.endswith(PHASE1) for name in models):
        beside = phase1_beside(args.models)
        found = load_models(beside, loader) if beside else {}
    network = models[deployed_of(list(models))]
    n = max(len(forecasts) for forecasts in network.values())
    names = [name for name in BASELINES if args.controls or name not in CONTROLS]
    seeds = dict.fromkeys(SEEDED, n) | ({"lightgbm": 2 * n} if args.controls else {})
    fitted = cached_baselines(loader.data, loader.splits, settings.REPORT_DIR / "cache", names, seeds)
    return found | with_combinations(network, fitted)


def save_picture(path: Path, comparison: Comparison, split: str) -> None:
    """One PNG of a comparison for a page of text; identical models share their bars."""
    import polars as pl

    from lasps.files import write_atomically
    from lasps.plots.comparison import overview

    shown = comparison.on(split)
    models = shown.models.filter(kind="model")["model"]
    a, b = ([None, *models])[-2:]
    names = {model: " = ".join(comparison.names_of(model)) for model in models}
    classes = shown.classes.filter(pl.col("model").is_in(models.implode())).with_columns(pl.col("model").replace(names))
    sectors = shown.sectors.filter(pl.col("a") == a, pl.col("b") == b)
    picture = overview(classes, sectors, a, b, list(comparison.sector_names) or None)
    write_atomically(path, lambda file: picture.savefig(file, format="png", dpi=100))


def save_result(args: argparse.Namespace, told: dict[str, Any]) -> None:
    """Test metrics and differences, with what they were measured with, for experiments/results/."""
    from experiments._results import differences_of, metrics_of, write_result
    from lasps.data.datasets.dataset import Dataset

    result = {"models": metrics_of(told), "differences": differences_of(told), "verdict": told["verdict"]}
    seeds = sorted({seed["seed"] for by in told["models"].values() for seed in by["test"]["seeds"] if seed["seed"]})
    write_result(
        args.result,
        result,
        seeds=seeds,
        data={args.data_dir.name: Dataset.open(args.data_dir).fingerprint},
        note=args.note,
    )


def log_comparison(comparison: Comparison, page: str | None, tracker: Tracker) -> None:
    """A run `compare`: its description is the verdict, its artifacts the JSON and the page, which opens in the UI."""
    from lasps.evaluation.metrics import flat_metrics

    result, verdict = comparison.as_json(), "\n".join(comparison.verdict)
    tags = {"verdict": verdict[:4000], "first_line": comparison.first_line, "mlflow.note.content": note_of(comparison)}
    with tracker.run("compare", tags=tags) as run, tempfile.TemporaryDirectory() as folder:
        for name, by_split in result["models"].items():
            keep = ("n", "accuracy", "log_loss", "macro_f1", "rank_ic", "rank_ic_skip1", "expected_calibration_error")
            safe = re.sub(NOT_IN_METRIC_NAMES, "_", name)
            for split, m in by_split.items():
                run.log_metrics(flat_metrics({k: m[k] for k in keep}, f"{split}/{safe}/"))
        write_json(Path(folder) / "comparison.json", result)
        run.log_artifact(Path(folder) / "comparison.json")
        if page is not None:
            (Path(folder) / "comparison.html").write_text(page, encoding="utf-8")
            run.log_artifact(Path(folder) / "comparison.html")


def note_of(comparison: Comparison) -> str:
    """The run's description: the verdict as Markdown, and where the page is."""
    sentences = [re.sub(r"(?<=\w)_(?=\w)", r"\\_", sentence) for sentence in comparison.verdict]
    return "\n\n".join([*sentences, "The page: *Artifacts*, comparison.html."])


def main() -> None:
    """Compare, print, write, log."""
    args = parse_args()
    from lasps.files import write_atomically
    from lasps.pages.comparison import comparison_page
    from lasps.pages.comparison_text import show_comparison
    from lasps.terminal import show_end
    from lasps.tracking import open_tracker

    comparison = compared(args)
    show_comparison(comparison, args.full)
    write_json(args.json, comparison.as_json())
    if args.result:
        save_result(args, comparison.as_json())
    page = comparison_page(comparison) if args.html or not args.no_track else None
    if args.html and page is not None:
        write_atomically(args.html, page)
    if args.picture:
        save_picture(args.picture, comparison, "test" if args.split == "both" else args.split)
    log_comparison(comparison, page, open_tracker(enabled=not args.no_track))
    show_end([str(path) for path in (args.html, args.json, args.picture) if path], next_steps(args))


def next_steps(args: argparse.Namespace) -> list[tuple[str, str]]:
    """What to do after a comparison."""
    steps = [] if args.full else [("compare.py ... --full", "every baseline, pair, seed and split")]
    if not args.baselines:
        steps.append(("compare.py ... --baselines", "LightGBM and the other baselines beside them"))
    return [*steps, ("make ui", "the run 'compare'"), ("make notebooks", "which predictions changed")]


if __name__ == "__main__":
    run_script(main)
