"""A comparison for people: a text for the terminal and one HTML file with its pictures inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from matplotlib.figure import Figure

from lasps.config.settings import CLASS_NAMES
from lasps.evaluation import report_figures as figures
from lasps.evaluation.verdict import POINTS

Result = Mapping[str, Any]
SURVIVORSHIP = (
    "Where the data holds only stocks that are still listed (as the KRX files do), delisted ones are missing and every "
    "return is flattered; differences between models less so."
)
HOW = (
    "Intervals: days are the unit, neighbouring days are correlated (5-day labels overlap); long-run variance with "
    "0.4 T^(2/3) cosines and Student's t (Lazarus et al. 2018), 95 %, two-sided. Primary metric: log loss on test. "
    "Per-sector p-values after Holm. Rank IC: mean over days of the Spearman correlation with the 5-day return; "
    "ICIR not annualised; skip: from close t+1 to t+6."
)


def percent(value: float | None, digits: int = 2) -> str:
    """0.5321 -> 53.21; '-' where undefined."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def decimal(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


COLUMNS: tuple[tuple[str, Any], ...] = (
    ("accuracy %", lambda m: percent(m["accuracy"])),
    ("majority %", lambda m: percent(m["majority_accuracy"])),
    ("log loss", lambda m: decimal(m["log_loss"])),
    ("prior", lambda m: decimal(m["prior_log_loss"])),
    ("macro-F1", lambda m: decimal(m["macro_f1"], 3)),
    ("balanced %", lambda m: percent(m["balanced_accuracy"])),
    *((f"{c} %", lambda m, c=c: percent(m["class_accuracy"][c], 1)) for c in CLASS_NAMES),
    *((f"{c} prec %", lambda m, c=c: percent(m["class_precision"][c], 1)) for c in CLASS_NAMES),
    ("rank IC", lambda m: decimal(m["rank_ic"], 3)),
    ("ICIR", lambda m: decimal(m["icir"], 2)),
    ("IC skip", lambda m: decimal(m["rank_ic_skip1"], 3)),
    ("ICIR skip", lambda m: decimal(m["icir_skip1"], 2)),
    ("calib. error", lambda m: decimal(m["expected_calibration_error"])),
)
TERMINAL_COLUMNS = ("accuracy %", "log loss", "macro-F1", "SELL %", "HOLD %", "BUY %", "rank IC", "ICIR", "IC skip",
                    "calib. error")  # fmt: skip


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


def model_rows(result: Result, split: str, columns: Sequence[str] | None = None) -> tuple[list[str], list[list[str]]]:
    """Header and one row per model: models first, then baselines."""
    chosen = [c for c in COLUMNS if columns is None or c[0] in columns]
    present = [(name, by_split[split]) for name, by_split in result["models"].items() if split in by_split]
    present.sort(key=lambda x: x[1]["baseline"])
    return ["model", *(c[0] for c in chosen)], [[name, *(show(m) for _, show in chosen)] for name, m in present]


def difference_text(pair: Mapping[str, Any]) -> str:
    """'+0.10 [-0.20, +0.40]', in points for shares."""
    if pair["difference"] is None:
        return "-"
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
        p = "-" if primary["p_value"] is None else f"{primary['p_value']:.4f}"
        rows.append([f"{b} minus {a}", *(difference_text(by_metric[m]) for m in metrics), p, better])
    titles = [m.replace("_", " ") + (" (points)" if m in POINTS else "") for m in metrics]
    return ["b minus a", *titles, "p", "better"], rows


def book_rows(result: Result, split: str) -> tuple[list[str], list[list[str]]]:
    """Long-only top decile against the universe, turnover and costs; long-short last."""
    header = ["model", "universe %", "top decile %", "top - universe %", "turnover %", "cost %", "net %",
              "long-short %", "where allowed %"]  # fmt: skip
    rows = []
    for name, by_split in result["models"].items():
        book = by_split.get(split, {}).get("portfolio")
        if book:
            rows.append([name, percent(book["universe_return"]), percent(book["top_decile_return"]),
                         _mean_interval(book["top_minus_universe"]), percent(book["turnover"], 0),
                         percent(book["cost_per_holding"]), _mean_interval(book["net_top_minus_universe"]),
                         _mean_interval(book["long_short"]), _mean_interval(book["long_short_allowed"])])  # fmt: skip
    return header, rows


def _mean_interval(x: Mapping[str, Any]) -> str:
    if x["mean"] is None:
        return "-"
    interval = x["interval"]
    return percent(x["mean"]) + ("" if interval is None else f" [{percent(interval[0])}, {percent(interval[1])}]")


def seed_rows(result: Result, split: str) -> tuple[list[str], list[list[str]]]:
    """One row per seed and, below, the spread (standard deviation over seeds)."""
    keys = ("accuracy", "log_loss", "macro_f1", "rank_ic")
    rows = []
    for name, by_split in result["models"].items():
        m = by_split.get(split)
        if m and m["seed_spread"] is not None:
            rows += [[f"{name}, seed {s['seed']}", *(decimal(s[k]) for k in keys)] for s in m["seeds"]]
            rows.append([f"{name}, spread", *(decimal(m["seed_spread"].get(k)) for k in keys)])
    return ["model, seed", *keys], rows


def split_title(result: Result, split: str) -> str:
    """'test: 5,280 rows on 132 days', and whether it may be judged."""
    any_model = next(m[split] for m in result["models"].values() if split in m)
    days = f" on {any_model['n_days']} days" if any_model["n_days"] else ", no dates"
    note = "; a selection split: shown, not judged" if split in result["selection_splits"] else ""
    return f"{split}: {any_model['n']:,} rows{days}{note}"


def prior_text(result: Result, split: str) -> str:
    prior = result["prior"][split]
    shares = " / ".join(f"{100 * v:.1f}" for v in prior["values"])
    majority = CLASS_NAMES[max(range(3), key=lambda i: prior["values"][i])]
    return f"prior SELL / HOLD / BUY {shares} %, majority {majority} ({prior['source']})"


def comparison_text(result: Result) -> str:
    """The comparison for a terminal: first line, verdict, tables, notes."""
    parts = [result["first_line"], "", result["verdict"]]
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
    drawn = [
        (
            "Differences in log loss, b minus a. Grey: the interval covers zero.",
            figures.difference_figure(result, split),
        ),
        ("Calibration: a model on the diagonal means what it says.", figures.calibration_figure(result, split)),
        ("Class-wise accuracy.", figures.recall_figure(result, split)),
        ("Accuracy against coverage.", figures.coverage_figure(result, split)),
        ("Forward return by decile.", figures.decile_figure(result, split)),
        ("Rank IC within volatility quintiles.", figures.quintile_figure(result, split)),
    ]
    pairs = dict.fromkeys((s["a"], s["b"]) for s in result["sectors"] if s["split"] == split)
    drawn += [(f"{b} minus {a} per sector.", figures.sector_figure(result, split, a, b)) for a, b in pairs]
    return [(caption, figure) for caption, figure in drawn if figure is not None]


def comparison_html(result: Result, title: str = "lasps: comparison") -> str:
    """The whole comparison as one HTML page, pictures included."""
    sections = []
    for split in splits_of(result):
        tables = [
            ("Models", *model_rows(result, split)),
            ("Differences, b minus a", *pair_rows(result, split)),
            ("Seeds", *seed_rows(result, split)),
            ("5-day returns of the top decile, long only; long-short last", *book_rows(result, split)),
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
