"""A comparison for people: a text for the terminal and one HTML file with its pictures inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from matplotlib.figure import Figure

from lasps.config.settings import CLASS_NAMES
from lasps.evaluation import report_figures as figures
from lasps.evaluation.rank_ic import MIN_DAYS
from lasps.evaluation.verdict import POINTS

Result = Mapping[str, Any]
SURVIVORSHIP = (
    "Where the data holds only stocks that are still listed (as the KRX files do), delisted ones are missing and every "
    "return is flattered; differences between models less so."
)
HOW = (
    "Intervals: days are the unit, neighbouring days are correlated (5-day labels overlap); long-run variance with "
    "0.4 T^(2/3) cosines and Student's t (Lazarus et al. 2018), 95 %, two-sided. Over days: true of these weights on "
    "other days. Over seeds and days: true of the method, trained again. Figures of several seeds are their means. "
    "Primary metric: log loss on test. Per-sector p-values after Holm. Rank IC: mean over days of the Spearman "
    "correlation with the 5-day return; ICIR not annualised; skip: from close t+1 to t+6."
)


def percent(value: float | None, digits: int = 2) -> str:
    """0.5321 -> 53.21; '-' where undefined."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def decimal(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def own_days(m: Mapping[str, Any], metric: str) -> str:
    """' (5 days)' for a metric that does not exist on all days, '' where it does or nobody knows days."""
    days = m[f"{metric}_days"]
    return "" if not days or days == m["n_days"] else f" ({days:.0f} days)"


Column = tuple[str, Any]
COLUMNS: tuple[Column, ...] = (
    ("accuracy %", lambda m: percent(m["accuracy"])),
    ("majority %", lambda m: percent(m["majority_accuracy"])),
    ("log loss", lambda m: decimal(m["log_loss"])),
    ("prior", lambda m: decimal(m["prior_log_loss"])),
    ("macro-F1", lambda m: decimal(m["macro_f1"], 3)),
    ("balanced %", lambda m: percent(m["balanced_accuracy"])),
    ("rank IC", lambda m: decimal(m["rank_ic"], 3) + own_days(m, "rank_ic")),
    ("ICIR", lambda m: decimal(m["icir"], 2)),
    ("IC skip", lambda m: decimal(m["rank_ic_skip1"], 3) + own_days(m, "rank_ic_skip1")),
    ("ICIR skip", lambda m: decimal(m["icir_skip1"], 2)),
    ("calib. error", lambda m: decimal(m["expected_calibration_error"])),
)
CLASS_COLUMNS: tuple[Column, ...] = (
    *((f"{c} %", lambda m, c=c: percent(m["class_accuracy"][c], 1)) for c in CLASS_NAMES),
    *((f"{c} called", lambda m, c=c: f"{m['predicted_counts'][c]:,.0f}") for c in CLASS_NAMES),
    *((f"precision of {c} %", lambda m, c=c: percent(m["class_precision"][c], 1)) for c in CLASS_NAMES),
)
QUINTILE_COLUMNS: tuple[Column, ...] = tuple(
    (name, lambda m, k=k: decimal(m["rank_ic_in_volatility_quintiles"][k], 3))
    for k, name in enumerate(("calmest fifth", "2", "3", "4", "wildest fifth"))
)
TERMINAL_COLUMNS = tuple(
    column for column in (*COLUMNS[:5], *CLASS_COLUMNS[:3], *COLUMNS[6:])
    if column[0] not in ("majority %", "prior", "ICIR skip")
)  # fmt: skip


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell: the first to the left, the others to the right."""
    widths = [max(len(r[i]) for r in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def splits_of(result: Result) -> list[str]:
    """The result's splits in the order in which they were compared."""
    return list(result["rows"])


def model_rows(result: Result, split: str, columns: Sequence[Column] = COLUMNS) -> tuple[list[str], list[list[str]]]:
    """Header and one row per model: models first, then baselines."""
    present = [(name, by_split[split]) for name, by_split in result["models"].items() if split in by_split]
    present.sort(key=lambda x: x[1]["baseline"])
    return ["model", *(c[0] for c in columns)], [[name, *(show(m) for _, show in columns)] for name, m in present]


def difference_text(pair: Mapping[str, Any]) -> str:
    """'+0.10 [-0.20, +0.40]', in points for shares."""
    few = f" ({pair['n_days']} common days)" if pair.get("n_days") and pair["n_days"] < MIN_DAYS else ""
    if pair["difference"] is None:
        return f"-{few}"
    scale, digits = (100.0, 2) if pair["metric"] in POINTS else (1.0, 4)
    text = f"{scale * pair['difference']:+.{digits}f}"
    if pair["interval"] is None:
        return f"{text} [no interval]"
    return f"{text} [{scale * pair['interval'][0]:+.{digits}f}, {scale * pair['interval'][1]:+.{digits}f}]"


PAIR_METRICS = ("log_loss", "accuracy", "macro_f1", "rank_ic", "rank_ic_skip1")


def pair_rows(result: Result, split: str, metrics: Sequence[str] = PAIR_METRICS) -> tuple[list[str], list[list[str]]]:
    """One row per pair, one column per metric, and who is better in log loss."""
    table: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for pair in result["pairs"]:
        if pair["split"] == split:
            table.setdefault((pair["a"], pair["b"]), {})[pair["metric"]] = pair
    rows = []
    for (a, b), by_metric in table.items():
        primary = by_metric["log_loss"]
        better = {"a": a, "b": b, None: "-"}[primary["better"]]
        first, *others = (difference_text(by_metric[m]) for m in metrics)
        rows.append([f"{b} minus {a}", first, p_text(primary["p_value"]), better, over_text(primary), *others])
    titles = [m.replace("_", " ") + (" (points)" if m in POINTS else "") for m in metrics]
    return ["b minus a", titles[0], "p", "better", "interval over", *titles[1:]], rows


def p_text(p: float | None) -> str:
    """Two-sided p of the primary metric."""
    return "-" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def over_text(pair: Mapping[str, Any]) -> str:
    """What an interval would be repeated over: 'days', or '3 seeds and days'."""
    return f"{pair['n_seeds']} {pair['over']}" if pair["n_seeds"] > 1 else str(pair["over"])


def book_rows(result: Result, split: str) -> tuple[list[str], list[list[str]]]:
    """Long-only top decile against the universe, turnover and costs; long-short last."""
    header = ["model", "universe %", "top decile %", "top - universe %", "turnover %", "cost %", "net %",
              "long-short %", "where shorting was allowed %", "days of a short-selling ban"]  # fmt: skip
    rows = []
    for name, by_split in result["models"].items():
        book = by_split.get(split, {}).get("portfolio")
        if book:
            rows.append([name, percent(book["universe_return"]), percent(book["top_decile_return"]),
                         _mean_interval(book["top_minus_universe"]), percent(book["turnover"], 0),
                         percent(book["cost_per_holding"]), _mean_interval(book["net_top_minus_universe"]),
                         _mean_interval(book["long_short"]), _mean_interval(book["long_short_allowed"]),
                         f"{book['long_short_banned_days']} of {book['n_days']}"])  # fmt: skip
    return header, rows


def _mean_interval(x: Mapping[str, Any]) -> str:
    if x["mean"] is None:
        return "-"
    interval = x["interval"]
    return percent(x["mean"]) + ("" if interval is None else f" [{percent(interval[0])}, {percent(interval[1])}]")


def seed_rows(result: Result, split: str) -> tuple[list[str], list[list[str]]]:
    """One row per seed and, below, mean and spread (standard deviation over seeds)."""
    keys = ("accuracy", "log_loss", "macro_f1", "rank_ic")
    rows = []
    for name, by_split in result["models"].items():
        m = by_split.get(split)
        if m and m["seed_spread"] is not None:
            rows += [[f"{name}, seed {s['seed']}", *(decimal(s[k]) for k in keys)] for s in m["seeds"]]
            rows.append([f"{name}, mean", *(decimal(m[k]) for k in keys)])
            rows.append([f"{name}, spread", *(decimal(m["seed_spread"].get(k)) for k in keys)])
    return ["model, seed", *(k.replace("_", " ") for k in keys)], rows


def seed_pair_rows(result: Result, split: str) -> tuple[list[str], list[list[str]]]:
    """Differences in log loss seed by seed, each with an interval over days alone."""
    pairs = [p for p in result["pairs"] if p["split"] == split and p["metric"] == "log_loss" and p["by_seed"]]
    seeds = [s["seed"] for s in pairs[0]["by_seed"]] if pairs else []
    rows = [[f"{p['b']} minus {p['a']}", *(difference_text({**s, "metric": p["metric"]}) for s in p["by_seed"])]
            for p in pairs if [s["seed"] for s in p["by_seed"]] == seeds]  # fmt: skip
    return ["b minus a, log loss", *(f"seed {s}" for s in seeds)], rows


def split_title(result: Result, split: str) -> str:
    """'test: 5,280 rows on 132 days', and whether it may be judged."""
    any_model = next(m[split] for m in result["models"].values() if split in m)
    days = f" on {any_model['n_days']} days" if any_model["n_days"] else ", no dates"
    note = "; a selection split: shown, not judged" if split in result["selection_splits"] else ""
    return f"{split}: {any_model['n']:,} rows{days}{note}"


def class_title(result: Result, split: str) -> str:
    """'Classes (n: SELL 130,000, ...)': class-wise accuracy, how often each is called, precision."""
    any_model = next(m[split] for m in result["models"].values() if split in m)
    counts = ", ".join(f"{name} {n:,}" for name, n in any_model["class_counts"].items())
    return f"Classes (n: {counts}): accuracy, how often called, precision"


def prior_text(result: Result, split: str) -> str:
    prior = result["prior"][split]
    shares = " / ".join(f"{100 * v:.1f}" for v in prior["values"])
    majority = CLASS_NAMES[max(range(3), key=lambda i: prior["values"][i])]
    return f"prior SELL / HOLD / BUY {shares} %, majority {majority} ({prior['source']})"


def comparison_text(result: Result) -> str:
    """The comparison for a terminal: first line, verdict, tables, notes."""
    parts = [result["verdict"]]
    for split in splits_of(result):
        any_model = next(m[split] for m in result["models"].values() if split in m)
        baseline = (f"majority accuracy {percent(any_model['majority_accuracy'])} %, prior's log loss "
                    f"{decimal(any_model['prior_log_loss'])}; {prior_text(result, split)}")  # fmt: skip
        parts += [
            "",
            split_title(result, split),
            baseline,
            "",
            text_table(*model_rows(result, split, TERMINAL_COLUMNS)),
        ]
        for header, rows in (pair_rows(result, split, ("log_loss", "accuracy", "rank_ic")), seed_rows(result, split)):
            if rows:
                parts += ["", text_table(header, rows)]
        header, rows = book_rows(result, split)
        if rows:
            keep = [0, 2, 3, 4, 6]
            parts += [
                "",
                "5-day returns, %:",
                text_table([header[i] for i in keep], [[r[i] for i in keep] for r in rows]),
            ]
    return "\n".join([*parts, *([""] if result["notes"] else []), *(f"Note: {n}" for n in result["notes"])])


def sector_rows(result: Result, split: str) -> tuple[list[str], list[list[str]]]:
    """Per sector: n, majority, and each model's accuracy and log loss."""
    models = [(name, m[split]) for name, m in result["models"].items() if split in m and not m[split]["baseline"]]
    names = result.get("sector_names") or []
    header = ["sector", "n", "majority %"]
    for name, _ in models:
        header += [f"{name} accuracy %", f"{name} log loss", f"{name} rank IC"]
    rows = []
    for sector in sorted(models[0][1]["sectors"], key=int) if models else []:
        first = models[0][1]["sectors"][sector]
        row = [figures.sector_name(names, int(sector)), f"{first['n']:,}", percent(first["majority_accuracy"])]
        for _, m in models:
            s = m["sectors"][sector]
            row += [percent(s["accuracy"]), decimal(s["log_loss"]), decimal(s["rank_ic"], 3)]
        rows.append(row)
    return header, rows


def comparison_figures(result: Result, split: str) -> list[tuple[str, Figure]]:
    """(caption, figure) of everything that can be drawn for the split."""
    colors = "Red: b is better, blue: b is worse, grey: not distinguishable"
    drawn = [
        (f"Differences in log loss, b minus a. {colors}.", figures.difference_figure(result, split)),
        ("Class-wise accuracy: the share of each class that is called as it.", figures.recall_figure(result, split)),
        ("Accuracy against coverage: what acting on the surest calls alone would bring.",
         figures.coverage_figure(result, split)),
        ("Calibration: a model on the diagonal means what it says.", figures.calibration_figure(result, split)),
        ("Forward return by decile of the score, minus the equal-weight universe.",
         figures.decile_figure(result, split)),
        ("Rank IC within volatility quintiles: what is left once volatility is known.",
         figures.quintile_figure(result, split)),
    ]  # fmt: skip
    pairs = dict.fromkeys((s["a"], s["b"]) for s in result["sectors"] if s["split"] == split)
    drawn += [(f"{b} minus {a} per sector, intervals without correction. {colors} after Holm's correction.",
               figures.sector_figure(result, split, a, b)) for a, b in pairs]  # fmt: skip
    return [(caption, figure) for caption, figure in drawn if figure is not None]


def comparison_html(result: Result, title: str = "lasps: comparison") -> str:
    """The whole comparison as one HTML page, pictures included."""
    sections = []
    for split in splits_of(result):
        tables = [
            ("Models", *model_rows(result, split)),
            ("Differences, b minus a", *pair_rows(result, split)),
            ("Seeds", *seed_rows(result, split)),
            ("Seed by seed: differences of these weights, intervals over days alone", *seed_pair_rows(result, split)),
            (class_title(result, split), *model_rows(result, split, CLASS_COLUMNS)),
            ("Rank IC within quintiles of 20-day volatility", *model_rows(result, split, QUINTILE_COLUMNS)),
            ("5-day returns: long-only top decile first, long-short last", *book_rows(result, split)),
            ("Sectors", *sector_rows(result, split)),
        ]
        sections.append({
            "title": split_title(result, split), "prior": prior_text(result, split),
            "tables": [{"title": t, "header": h, "rows": r} for t, h, r in tables if r],
            "figures": [{"caption": c, "uri": figures.as_base64(f)} for c, f in comparison_figures(result, split)],
        })  # fmt: skip
    source = files("lasps.evaluation").joinpath("comparison.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    return template.render(title=title, result=result, sections=sections, how=HOW, survivorship=SURVIVORSHIP)
