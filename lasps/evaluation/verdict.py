"""What the numbers allow to say, in short sentences; reads the rows of a Comparison's frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lasps import numbers
from lasps.evaluation.rank_ic import MIN_DAYS
from lasps.evaluation.significance import CONFIDENCE

Row = Mapping[str, Any]
PRIMARY = "log_loss"
SELECTION_SPLITS = frozenset({"train", "val"})
"""Splits that weights, heads or hyperparameters were chosen on: their scores are shown without a verdict."""
MUST_BEAT = ("lightgbm", "volatility_bins")
ENSEMBLE, BLEND, TWIN, MLP = "ensemble", "blend", "lightgbm", "mlp"
CONTROLS = ("lightgbm_doubled", "lightgbm_and_second", "lightgbm_and_logistic")
"""What blends of trees alone reach: the twin with twice the seeds; with a differently set LightGBM, half each; with
logistic regression, half each."""
COMBINED = (ENSEMBLE, BLEND, *CONTROLS)
"""Rows that are means of forecasts: neither the network nor a baseline."""


def number(row: Row, sign: int = 1) -> str:
    """A row's difference with its interval: nats and correlations as they are, shares as percentage points."""
    value, *ends = (None if row[k] is None else sign * row[k] for k in ("difference", "low", "high"))
    low, high = (None, None) if None in ends else sorted(ends)  # type: ignore[type-var]
    text = numbers.difference(row["metric"], value, low, high, digits=1, unit=" points")
    return text if low is not None else f"{text} [no interval]"


def sentence(pair: Mapping[str, Row], sectors: Sequence[Row], split: str) -> str:
    """The verdict on one pair (differences are b minus a), on the primary metric alone.

    Args:
        pair: metric -> its row of `pairs`; sectors: the pair's rows of `sectors`.
    """
    primary, accuracy = pair[PRIMARY], pair.get("accuracy")
    a, b = primary["a"], primary["b"]
    if split in SELECTION_SPLITS:
        return (
            f"{split} is a selection split, so nothing is tested on it: {b} minus {a} is log loss {number(primary)}"
            f"{_accuracy(accuracy, 1, tested=False)}."
        )
    if primary["low"] is None:
        return (
            f"{b} minus {a} on {split}: log loss {number(primary)}; {_why_no_interval(primary)}, so neither is "
            "called better."
        )
    sign, (first, second) = (-1, (a, b)) if primary["better"] == "a" else (1, (b, a))
    if primary["better"] is None:
        corrected = " after Holm's correction" if _excludes_zero(primary) else ""
        start = f"{b} and {a} are not distinguishable on {split}{corrected} ({b} minus {a}: log loss {number(primary)})"
    else:
        start = f"{first} is better than {second} on {split} (log loss {number(primary, sign)})"
    n_seeds = primary["n_seeds"]
    over = f" ({n_seeds} seeds, interval over seeds and days)" if n_seeds > 1 else ""
    return start + _accuracy(accuracy, sign, tested=True) + _sectors(sectors) + over + "."


def _excludes_zero(row: Row) -> bool:
    return row["low"] is not None and (row["low"] > 0 or row["high"] < 0)


def _why_no_interval(row: Row) -> str:
    if row["n_days"] == 0:
        return "the tables have no dates, and an interval over rows would be far too narrow"
    if row["n_days"] < MIN_DAYS:
        return f"{row['n_days']} days are too few for an interval (at least {MIN_DAYS})"
    return "the difference is not finite"


def _accuracy(row: Row | None, sign: int, tested: bool) -> str:
    if row is None:
        return ""
    return f"; accuracy {number(row, sign)}" + ("" if _excludes_zero(row) or not tested else " is not distinguishable")


def _sectors(sectors: Sequence[Row]) -> str:
    tested = [s["adjusted_p"] for s in sectors if s["adjusted_p"] is not None]
    if not tested:
        return ""
    return f"; {sum(p < 1 - CONFIDENCE for p in tested)} of {len(tested)} sectors differ after correction"


def listed(names: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def first_line(model: str, against: Mapping[str, Row], split: str) -> str:
    """Whether a model beats LightGBM and volatility bins: {baseline: row of model minus baseline in log loss}."""
    if split in SELECTION_SPLITS:
        return f"{model} is not tested against the baselines: {split} is a selection split."
    known = {name: against[name] for name in MUST_BEAT if name in against}
    if not known:
        return f"{model} is not compared with {listed(MUST_BEAT)} on {split} (--baselines does)."
    wins = [name for name, row in known.items() if row["better"] == "b"]
    parts = [
        (f"{verb} {listed(f'{n} (log loss {number(known[n])})' for n in names)}")
        for verb, names in (("does not beat", [n for n in known if n not in wins]), ("beats", wins))
        if names
    ]
    missing = [f"was not compared with {name}" for name in MUST_BEAT if name not in known]
    return f"{model} {'; it '.join(parts + missing)} on {split}."


def gap_closed(log_loss: Mapping[str, float | None], model: str, split: str) -> str | None:
    """How much of the way from volatility bins to a known oracle a model has gone; None without these."""
    base, best, own = (log_loss.get(name) for name in (MUST_BEAT[1], "oracle", model))
    if base is None or best is None or own is None or best >= base:
        return None
    return (
        f"{model} closes {100 * (base - own) / (base - best):.0f} % of the log-loss gap between {MUST_BEAT[1]} and "
        f"the oracle on {split}."
    )


def together(against: Mapping[str, Row], log_loss: Mapping[str, float | None], split: str, network: str) -> str | None:
    """Whether network and trees are better together: the blend against the best of the controls, else the twin.

    Where the network alone has a lower log loss than the blend, it says that, and nothing of trees.

    Args:
        against: name -> the row of blend minus it in log loss.
        network: the ensemble; of one seed, the model that is for use.
    """
    own, both = log_loss.get(network), log_loss.get(BLEND)
    if own is not None and both is not None and own < both:
        what = f"{BLEND} (network and {TWIN}, half each)"
        return f"{what} does not reach {network} alone on {split}: log loss {both:.4f} against {own:.4f}."
    known = {name: loss for name in CONTROLS if name in against and (loss := log_loss.get(name)) is not None}
    if not known and TWIN not in against:
        return None
    best = min([TWIN, *known] if TWIN in against else list(known), key=lambda name: log_loss.get(name) or float("inf"))
    row = against[best]
    what = f"{BLEND} (network and {TWIN}, half each) minus {best}"
    rest = (
        f", the best of {TWIN} and its {len(known)} controls" if known else " (--controls adds blends of trees alone)"
    )
    if split in SELECTION_SPLITS or row["low"] is None:
        return f"{what}{rest}, on {split}: log loss {number(row)}, not tested."
    told = {"b": "they are better together", "a": "together they are worse", None: "not distinguishable"}
    return f"{what}{rest}, on {split}: log loss {number(row)}: {told[row['better']]}."


def cheapest(row: Row | None, split: str) -> str | None:
    """A warning where the MLP on the skip is no worse than the network's ensemble (or the network): {row}: that minus
    it in log loss.
    """
    if row is None or row["difference"] is None or row["difference"] < 0:
        return None
    tested = split not in SELECTION_SPLITS and row["better"] == "a"
    how = "is better than" if tested else "has a lower log loss than"
    return (
        f"{MLP}, without sequence, chart or sector heads, {how} {row['b']} on {split} "
        f"({row['b']} minus {MLP}: log loss {number(row)})."
    )
