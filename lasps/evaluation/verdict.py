"""What the numbers allow to be said, in sentences a tired person can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lasps.evaluation.metrics import LOWER_IS_BETTER
from lasps.evaluation.rank_ic import MIN_DAYS
from lasps.evaluation.significance import Difference, SectorDifference

if TYPE_CHECKING:
    from lasps.evaluation.pairs import Pair

PRIMARY = "log_loss"
SELECTION_SPLITS = frozenset({"train", "val"})
"""Splits that weights, heads or hyperparameters were chosen on: their scores are shown, never judged."""
MUST_BEAT = ("lightgbm", "volatility_bins")
POINTS = frozenset({"accuracy", "balanced_accuracy", "macro_f1"})


def better_side(d: Difference, selection: bool) -> str | None:
    """ "a" or "b" where the interval excludes zero on a split that nothing was chosen on, else None."""
    if selection or not d.excludes_zero:
        return None
    return "b" if (d.difference < 0) == (d.metric in LOWER_IS_BETTER) else "a"


def number(d: Difference, sign: int = 1) -> str:
    """The difference with its interval: nats and correlations as they are, shares as percentage points."""
    scale, digits, unit = (100.0, 1, " points") if d.metric in POINTS else (1.0, 4, "")
    text = f"{sign * scale * d.difference:+.{digits}f}{unit}"
    if d.interval is None:
        return f"{text} [no interval]"
    low, high = sorted(sign * scale * x for x in d.interval)
    return f"{text} [{low:+.{digits}f}, {high:+.{digits}f}]"


def sentence(pair: Pair, split: str) -> str:
    """The verdict on one pair (differences are b minus a), on the primary metric alone."""
    a, b, primary, accuracy = pair.a, pair.b, pair.primary, pair.differences.get("accuracy")
    if split in SELECTION_SPLITS:
        return (
            f"{split} is a selection split, so nothing is judged on it: {b} minus {a} is log loss {number(primary)}"
            f"{_accuracy(accuracy, 1, judged=False)}."
        )
    if primary.interval is None:
        return (
            f"{b} minus {a} on {split}: log loss {number(primary)}; {_why_no_interval(primary)}, so neither is "
            "called better."
        )
    side = pair.better(PRIMARY, selection=False)
    sign, (first, second) = (1, (b, a)) if side != "a" else (-1, (a, b))
    if side is None:
        corrected = " after Holm's correction" if primary.excludes_zero else ""
        start = f"{b} and {a} are not distinguishable on {split}{corrected} ({b} minus {a}: log loss {number(primary)})"
    else:
        start = f"{first} is better than {second} on {split} (log loss {number(primary, sign)})"
    return start + _accuracy(accuracy, sign, judged=True) + _sectors(pair.sectors) + _over(primary) + "."


def _why_no_interval(d: Difference) -> str:
    if d.n_days == 0:
        return "the tables have no dates, and an interval over rows would be far too narrow"
    if d.n_days < MIN_DAYS:
        return f"{d.n_days} days are too few for an interval (at least {MIN_DAYS})"
    return "the difference is not finite"


def _accuracy(d: Difference | None, sign: int, judged: bool) -> str:
    if d is None:
        return ""
    distinct = "" if d.excludes_zero or not judged else " is not distinguishable"
    return f"; accuracy {number(d, sign)}{distinct}"


def _sectors(sectors: Sequence[SectorDifference]) -> str:
    tested = [s for s in sectors if s.adjusted_p is not None]
    if not tested:
        return ""
    return f"; {sum(s.significant for s in tested)} of {len(tested)} sectors differ after correction"


def _over(d: Difference) -> str:
    return f" ({d.n_seeds} seeds, interval over seeds and days)" if d.n_seeds > 1 else ""


def listed(names: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def first_line(model: str, against: Mapping[str, Pair], split: str) -> str:
    """Whether a model beats LightGBM and volatility bins: {baseline: model minus baseline}."""
    if split in SELECTION_SPLITS:
        return f"{model} is not judged against the baselines: {split} is a selection split."
    known = {name: against[name] for name in MUST_BEAT if name in against}
    if not known:
        return f"{model} is not compared with {listed(MUST_BEAT)} on {split} (--baselines does)."
    wins = [name for name, p in known.items() if p.better(PRIMARY, selection=False) == "b"]
    parts = [
        (f"{verb} {listed(f'{n} (log loss {number(known[n].primary)})' for n in names)}")
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
