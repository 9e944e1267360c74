#!/usr/bin/env python
"""Build the tables of the README and of docs/ again from experiments/results/*.json.

    python experiments/tables.py            # write them
    python experiments/tables.py --check    # exit code 1 where a page differs from the results

A page holds a table between two lines, which stay:

    <!-- table NAME -->
    ...
    <!-- end -->
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

from experiments._cli import run_script
from experiments._results import RESULTS, read_result
from lasps.config.settings import settings

if TYPE_CHECKING:
    from lasps.evaluation.significance import Difference

ROOT = settings.ROOT
PAGES = ("README.md", "docs/results.md", "docs/model_card.md", "docs/scale.md")
BLOCK = re.compile(r"(<!-- table ([a-z0-9_]+) -->\n).*?(<!-- end -->)", re.DOTALL)
LABELS = {
    "majority": "majority (always HOLD)",
    "prior": "prior",
    "volatility_bins": "volatility bins",
    "logistic_regression": "logistic regression",
    "lightgbm": "LightGBM",
    "lightgbm_plain": "LightGBM, last day, no scores",
    "lightgbm_doubled": "LightGBM, twice the seeds",
    "lightgbm_and_second": "LightGBM and a second one",
    "lightgbm_and_logistic": "LightGBM and logistic regression",
    "mlp": "MLP on the skip",
    "ensemble": "ensemble of phase2_best",
    "blend": "blend: ensemble and LightGBM",
    "lightgbm_refitted": "LightGBM, refitted",
    "ensemble_refitted": "ensemble, refitted",
    "blend_refitted": "blend, refitted",
    "common_change": "common change alone",
    "independent_heads": "independent heads (`--rank 0`)",
    "phase2_best": "**phase2_best**",
    "oracle": "oracle (upper bound)",
}
OVERVIEW = ("volatility_bins", "lightgbm", "phase3_final", "phase2_best", "blend", "oracle")
FRESH = ("13", "14", "15")
"""Markets whose val no choice was made on."""
DEVELOPMENT = ("7", "8", "9")


def main() -> int:
    """Build every page; write it, or with --check name those that differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page differs")
    check = parser.parse_args().check
    differing = [page for page in PAGES if built(page) != (ROOT / page).read_text(encoding="utf-8")]
    for page in differing:
        if not check:
            from lasps.files import write_atomically

            write_atomically(ROOT / page, built(page))
        print(f"{page}: {'differs from experiments/results/; run: make tables' if check else 'written'}")
    return int(check and bool(differing))


def built(page: str) -> str:
    """A page's text with every table built from the results.

    Raises:
        ValueError: it asks for a table that is not known.
    """

    def table(found: re.Match[str]) -> str:
        if found[2] not in TABLES:
            raise ValueError(f"{page}: no table {found[2]!r}; expected one of {', '.join(TABLES)}")
        return f"{found[1]}{TABLES[found[2]]()}\n{found[3]}"

    return BLOCK.sub(table, (ROOT / page).read_text(encoding="utf-8"))


@cache
def result_of(name: str) -> Any:
    """What experiments/results/NAME.json measured."""
    return read_result(RESULTS / f"{name}.json")["result"]


# ---------------------------------------------------------------------------------------------- Markdown


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(value: float | None, digits: int = 2) -> str:
    """0.5769 -> 57.69 %."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def number(value: float | None, digits: int) -> str:
    """A number, or a dash where it is undefined."""
    return "-" if value is None else f"{value:.{digits}f}"


def bold(text: str, model: str) -> str:
    """The row of the model that is the subject, in bold."""
    return f"**{text}**" if model == "phase2_best" else text


def difference(row: Mapping[str, Any], digits: int, scale: float = 1.0) -> str:
    """A difference and its interval; of models that are alike to the bit there is none."""
    if row["interval"] is None:
        return f"{scale * row['difference']:+.{digits}f}"
    low, high = (f"{scale * bound:+.{digits}f}" for bound in row["interval"])
    return f"{scale * row['difference']:+.{digits}f} [{low}, {high}]"


def model_table(models: Mapping[str, Mapping[str, Any]], names: Sequence[str], classes: bool = False) -> str:
    """One row per model: accuracy (and by class), macro-F1, log loss, rank IC."""
    per_class = ["SELL", "HOLD", "BUY"] if classes else []
    rows = [
        [
            LABELS.get(name, name),
            bold(percent(m["accuracy"]), name),
            *(percent(m["class_accuracy"][label], 1) for label in per_class),
            number(m["macro_f1"], 3),
            bold(number(m["log_loss"], 4), name),
            number(m["rank_ic"], 3),
        ]
        for name, m in ((name, models[name]) for name in names if name in models)
    ]
    return markdown(["", "accuracy", *per_class, "macro-F1", "log loss", "rank IC"], rows)


def overview() -> str:
    """Four models (and the oracle) on the default market and both real ones: accuracy, log loss, rank IC."""
    found = [result_of("replicate_sector")["7"], result_of("krx_2010s"), result_of("krx_2020s")]
    columns = [market["models"] for market in found]
    sizes = [f"{m['phase2_best']['n']:,} samples, {m['phase2_best']['n_days']} days" for m in columns]
    rows = [["test", *sizes], *([LABELS.get(name, name), *(_cell(m, name) for m in columns)] for name in OVERVIEW)]
    return markdown(["accuracy, log loss, rank IC", "default market (synthetic)", "krx-2010s", "krx-2020s"], rows)


def _cell(models: Mapping[str, Mapping[str, Any]], name: str) -> str:
    m = models.get(name)
    return "-" if m is None else f"{percent(m['accuracy'])}, {number(m['log_loss'], 4)}, {number(m['rank_ic'], 3)}"


# ---------------------------------------------------------------------------------------------- synthetic markets


def default_market_full() -> str:
    """The default market, every model and class."""
    models = result_of("replicate_sector")["7"]["models"]
    names = ["majority", "prior", "volatility_bins", "lightgbm", "phase1_best", "phase3_final"]
    names += ["common_change", "phase3_longer", "independent_heads", "phase2_best", "oracle"]
    return model_table(models, names, classes=True)


def sector_effect() -> str:
    """The difference that the sectors make on the default market, and on the fresh ones, as sentences."""
    markets = result_of("replicate_sector")
    own = markets["7"]["differences"]["phase2_best minus common_change"]
    points = [100 * markets[m]["differences"]["phase2_best minus phase1_best"]["accuracy"]["difference"] for m in FRESH]
    closed = [markets[m]["gap_closed"]["phase2_best"] for m in FRESH]
    accuracy, log_loss = difference(own["accuracy"], 2, 100), difference(own["log_loss"], 4)
    return (
        f"phase2_best minus the common change (the sector effect): accuracy {accuracy} points,\nlog loss {log_loss} "
        f"(95 % intervals over days). Fresh markets (13, 14, 15): {listed(f'{p:+.1f}' for p in points)} points over\n"
        f"phase1_best, {listed(f'{100 * c:.0f}' for c in closed)} % of its log-loss gap to the oracle closed (mean "
        f"{100 * fmean(closed):.0f} %)."
    )


def markets() -> str:
    """Every market with a planted effect: models, gap closed, differences."""
    found = result_of("replicate_sector")
    names = ("phase1_best", "common_change", "independent_heads", "phase2_best", "oracle")
    rows = []
    for seed in (*FRESH, *DEVELOPMENT):
        market = found[seed]
        minus = market["differences"]["phase2_best minus common_change"]["log_loss"]
        rows.append(
            [
                seed,
                ", ".join(bold(f"{100 * market['models'][n]['accuracy']:.2f}", n) for n in names),
                ", ".join(bold(f"{market['models'][n]['log_loss']:.4f}", n) for n in names),
                ", ".join(bold(percent(market["gap_closed"][n], 0), n) for n in ("independent_heads", "phase2_best")),
                difference(minus, 4),
            ]
        )
    shown = "phase1_best, common change, independent heads, phase2_best, oracle"
    head = ["market", f"accuracy: {shown}", "log loss: the same", "gap closed: independent heads, phase2_best"]
    return markdown([*head, "log loss, phase2_best minus common change"], rows)


def markets_without_effect() -> str:
    """The same markets with one effect for all sectors: what is accepted, and what it costs."""
    rows = []
    for seed, market in result_of("replicate_none").items():
        minus = market["differences"]["phase2_best minus common_change"]
        rows.append(
            [
                seed,
                f"{market['accepted']['sectors']} of {market['accepted']['trained']}",
                "yes" if market["accepted"]["common_change"] else "no",
                difference(minus["accuracy"], 2, 100),
                difference(minus["log_loss"], 4),
            ]
        )
    head = ["market", "sectors accepted", "common change accepted", "accuracy, points", "log loss"]
    return markdown(head, rows)


def tiny_without_effect() -> str:
    """Twenty tiny markets without a sector effect, as a sentence."""
    rows = [market["accepted"] for market in result_of("replicate_tiny_none").values()]
    sectors, trained = sum(row["sectors"] for row in rows), sum(row["trained"] for row in rows)
    return (
        f"On {len(rows)} tiny markets of that kind (no charts) the sector part was accepted on "
        f"{sum(row['sectors'] > 0 for row in rows)} ({sectors} of {trained} sectors), a common\nchange on "
        f"{sum(row['common_change'] for row in rows)} (`replicate_tiny_none.json`)."
    )


# ---------------------------------------------------------------------------------------------- real markets


def krx(protocol: str) -> str:
    """A real protocol's rows on test, from constant forecasts to refitted models; of several seeds the mean."""
    models = result_of(protocol)["models"]
    rows = [
        [
            LABELS.get(name, name),
            number(m["log_loss"], 4),
            percent(m["accuracy"]),
            number(m["macro_f1"], 3),
            number(m["rank_ic"], 3),
            number(m["rank_ic_skip1"], 3),
            percent(m.get("net_top_decile")),
        ]
        for name, m in ((name, models[name]) for name in REAL_ROWS if name in models)
    ]
    return markdown(["", "log loss", "accuracy", "macro-F1", "rank IC", "one day later", "top tenth, net"], rows)


def krx_differences(protocol: str) -> str:
    """What each step adds, with intervals over days; the best control is the one with the lowest log loss."""
    result = result_of(protocol)
    models, found = result["models"], result["differences"]
    controls = [name for name in CONTROLS if name in models]
    best = min(controls, key=lambda name: models[name]["log_loss"], default="")
    rows = []
    for b, a in (*REAL_PAIRS, ("blend", best)):
        minus = found.get(f"{b} minus {a}")
        if minus is not None:
            cells = [difference(minus["log_loss"], 4), difference(minus["rank_ic"], 3)]
            labels = [LABELS.get(name, name) for name in (b, a)]
            rows.append([" minus ".join(labels), *cells, difference(minus["accuracy"], 2, 100)])
    return markdown(["", "log loss", "rank IC", "accuracy, points"], rows)


CONTROLS = ("lightgbm_doubled", "lightgbm_and_second", "lightgbm_and_logistic")
REAL_ROWS = (
    *("majority", "prior", "volatility_bins", "logistic_regression", "lightgbm_plain", "lightgbm", "mlp"),
    *("phase1_best", "phase3_final", "common_change", "phase2_best", "ensemble", *CONTROLS, "blend"),
    *("lightgbm_refitted", "ensemble_refitted", "blend_refitted"),
)
REAL_PAIRS = (
    *(("phase2_best", a) for a in ("phase3_final", "lightgbm", "volatility_bins")),
    ("lightgbm", "lightgbm_plain"),
    *(("ensemble", a) for a in ("lightgbm", "mlp")),
    *(("blend", a) for a in ("lightgbm", "ensemble", "mlp", "lightgbm_plain")),
    *(("blend_refitted", a) for a in ("blend", "lightgbm_plain")),
    ("lightgbm_refitted", "lightgbm"),
    ("ensemble_refitted", "ensemble"),
)
WALKED = {"champion": "champion (half network, half LightGBM)", "network": "network", "lightgbm": "LightGBM"}


def walk_forward(name: str) -> str:
    """What each schedule of refits earned on the same days, against the first refit alone, with intervals over days."""
    from lasps.live.day_scores import difference as minus
    from lasps.live.day_scores import means
    from lasps.live.walk_forward import read_scores, scheduled

    scores = read_scores(RESULTS / "walk_forward" / name)
    evenings = sorted(scores)
    once = scheduled(scores, evenings[:1])
    schedules = {"every refit": evenings, "every second": evenings[::2], "the first alone": evenings[:1]}
    schedules = {name: own for name, own in schedules.items() if len(own) > 1 or name == "the first alone"}
    rows = []
    for schedule, own in schedules.items():
        lived = scheduled(scores, own)
        for model, label in WALKED.items():
            table, first = lived.filter(model=model), once.filter(model=model)
            found, cells = means(table), ["", ""]
            if len(own) > 1:
                differences = [minus(table, first, metric) for metric in ("log_loss", "rank_ic")]
                cells = [with_interval(d, digits) for d, digits in zip(differences, (4, 3), strict=True)]
            scored = [number(found["log_loss"], 4), number(found["rank_ic"], 3), number(found["rank_ic_skip1"], 3)]
            rows.append([f"{schedule} ({len(own)})", label, *scored, *cells])
    head = ["refits", "", "log loss", "rank IC", "one day later", "minus the first alone: log loss", "rank IC"]
    return markdown(head, rows)


def with_interval(found: Difference, digits: int) -> str:
    """A difference and its interval, as the other tables show them."""
    row = {"difference": found.difference, "interval": None if found.low is None else [found.low, found.high]}
    return difference(row, digits)


def folds() -> str:
    """Three walk-forward folds inside 2010-2014: network, ensemble, LightGBM, MLP and blend on each fold's test."""
    rows = []
    for fold in ("1", "2", "3"):
        models = result_of("krx_2010s_folds")[fold]["models"]
        for name in (
            "prior",
            "volatility_bins",
            "lightgbm_plain",
            "lightgbm",
            "mlp",
            "phase2_best",
            "ensemble",
            "blend",
        ):
            if name in models:
                m = models[name]
                own = [number(m["log_loss"], 4), number(m["rank_ic"], 3), number(m["rank_ic_skip1"], 3)]
                rows.append([fold, LABELS.get(name, name), f"{m['n']:,}", *own])
    return markdown(["fold", "", "samples", "log loss", "rank IC", "one day later"], rows)


def fold_differences() -> str:
    """What the blend and the ensemble add on each fold, with intervals over days."""
    rows = []
    for b, a in (("ensemble", "lightgbm"), ("blend", "lightgbm"), ("blend", "ensemble"), ("blend", "lightgbm_plain")):
        cells = []
        for fold in ("1", "2", "3"):
            found = result_of("krx_2010s_folds")[fold]["differences"].get(f"{b} minus {a}")
            cells += (
                ["-", "-"] if found is None else [difference(found["log_loss"], 4), difference(found["rank_ic"], 3)]
            )
        rows.append([" minus ".join(LABELS.get(name, name) for name in (b, a)), *cells])
    head = [f"fold {fold}: {metric}" for fold in ("1", "2", "3") for metric in ("log loss", "rank IC")]
    return markdown(["", *head], rows)


def growth() -> str:
    """What a build costs by size of the market."""
    rows = [
        [
            f"{row['stocks']:,} x {row['days']:,}",
            f"{row['rows'] / 1e6:.2f} million",
            f"{row['seconds']:.0f} s",
            f"{row['peak_gb']:.1f} GB",
            f"{row['disk_gb']:.2f} GB",
        ]
        for row in result_of("growth")["rows"]
    ]
    return markdown(["stocks x days", "rows of bars", "build", "peak memory", "on disk"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "overview": overview,
    "default_market_full": default_market_full,
    "sector_effect": sector_effect,
    "markets": markets,
    "markets_without_effect": markets_without_effect,
    "tiny_without_effect": tiny_without_effect,
    "krx_2010s_full": lambda: krx("krx_2010s"),
    "krx_2020s_full": lambda: krx("krx_2020s"),
    "krx_2010s_differences": lambda: krx_differences("krx_2010s"),
    "krx_2020s_differences": lambda: krx_differences("krx_2020s"),
    "krx_2010s_walk_forward": lambda: walk_forward("krx_2010s"),
    "krx_2010s_folds": folds,
    "krx_2010s_fold_differences": fold_differences,
    "growth": growth,
}


def listed(parts: Iterable[str]) -> str:
    """a, b and c."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


if __name__ == "__main__":
    run_script(main)
