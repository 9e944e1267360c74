"""What the numbers allow to be said, in one sentence a tired person can read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from lasps.evaluation.metrics import LOWER_IS_BETTER
from lasps.evaluation.significance import MIN_DAYS, Difference, SectorDifference

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


def sentence(
    a: str, b: str, split: str, primary: Difference, accuracy: Difference | None, sectors: Sequence[SectorDifference]
) -> str:
    """The verdict on one pair (differences are b minus a), on the primary metric alone."""
    if split in SELECTION_SPLITS:
        return (f"{split} is a selection split, so nothing is judged on it: {b} minus {a} is log loss {number(primary)}"
                f"{_accuracy(accuracy, 1, judged=False)}.")  # fmt: skip
    if primary.interval is None:
        return (f"{b} minus {a} on {split}: log loss {number(primary)}; {_why_no_interval(primary)}, so neither is "
                "called better.")  # fmt: skip
    side = better_side(primary, selection=False)
    sign, (first, second) = (1, (b, a)) if side != "a" else (-1, (a, b))
    if side is None:
        start = f"{b} and {a} are not distinguishable on {split} ({b} minus {a}: log loss {number(primary)})"
    else:
        start = f"{first} is better than {second} on {split} (log loss {number(primary, sign)})"
    return start + _accuracy(accuracy, sign, judged=True) + _sectors(sectors) + _over(primary) + "."


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


def first_line(against: Mapping[str, Mapping[str, Difference]], split: str) -> str:
    """Which models beat LightGBM and volatility bins: {model: {baseline: model minus baseline in log loss}}."""
    if split in SELECTION_SPLITS:
        return f"{listed(against)} {_are(against)} not judged against the baselines: {split} is a selection split."
    alone = [model for model, known in against.items() if not set(MUST_BEAT) & set(known)]
    said = [_beats(model, known, split) for model, known in against.items() if model not in alone]
    if alone:
        said.insert(0, f"{listed(alone)} {_are(alone)} not compared with {listed(MUST_BEAT)} on {split} "
                       "(--baselines does).")  # fmt: skip
    return " ".join(said)


def listed(names: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _are(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _beats(model: str, against: Mapping[str, Difference], split: str) -> str:
    known = {name: against[name] for name in MUST_BEAT if name in against}
    wins = [name for name, d in known.items() if better_side(d, selection=False) == "b"]
    parts = [(f"{verb} {listed(f'{n} (log loss {number(known[n])})' for n in names)}")
             for verb, names in (("does not beat", [n for n in known if n not in wins]), ("beats", wins)) if names]
    missing = [f"was not compared with {name}" for name in MUST_BEAT if name not in known]
    return f"{model} {'; it '.join(parts + missing)} on {split}."
