"""What `make daily` and `make score` print."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from lasps import terminal
from lasps.evaluation.comparison import compare
from lasps.evaluation.metrics import class_frequencies, summary
from lasps.evaluation.verdict import PRIMARY, number
from lasps.live.alarm import WINDOW, AlarmState
from lasps.live.ledger import Evening
from lasps.live.model import CHAMPION, PRIOR
from lasps.live.scoring import TrackRecord
from lasps.numbers import decimal, percent


def show_record(record: TrackRecord) -> None:
    """How many evenings there are, what is open, every model's metrics, and the champion against the prior."""
    print()
    terminal.show_lines(record_lines(record))
    if not record.forecasts:
        return
    rows = []
    for name, forecast in record.forecasts.items():
        m = summary(forecast, class_frequencies(forecast.labels))
        days_of = f"{m['n_days']}"
        cells = [
            decimal(m["log_loss"], 4),
            percent(m["accuracy"], 2),
            decimal(m["rank_ic"], 3),
            decimal(m["rank_ic_skip1"], 3),
        ]
        rows.append([name, days_of, f"{m['n']:,}", *cells])
    terminal.show_table(["model", "days", "stocks x days", "log loss", "accuracy %", "rank IC", "one day later"], rows)
    if {CHAMPION, PRIOR} <= record.forecasts.keys():
        terminal.show_lines([against_prior(record)])


def record_lines(record: TrackRecord) -> list[str]:
    """How many evenings are scored, late or not due yet, what is open, and whose prices were adjusted again since."""
    days = record.days
    counted = days.filter(days["due"] & ~days["late"])
    late, waiting = int(days["late"].sum()), int((~days["due"]).sum())
    counts = f"{counted.height} scored, {waiting} not due yet, {late} late and not scored"
    lines = [f"{_evenings(days.height)} in the ledger: {counts}", *open_lines(record)]
    if moved := int(days["readjusted"].sum()):
        lines.append(f"{moved:,} closes are others now than on their evening: prices were adjusted again since")
    return lines


def alarm_line(state: AlarmState | None) -> str:
    """Whether the champion still is what it was when its alarm was calibrated."""
    if state is None:
        return "alarm: none is calibrated. `make walk-forward` writes one: copy its alarm.json into the live folder"
    if state.value is None:
        return f"alarm: quiet, it needs {WINDOW} due days"
    value = f"champion minus prior over the last {WINDOW} due days: log loss {state.value:+.4f}"
    if state.since is None:
        return f"alarm: quiet ({value})"
    return f"ALARM since {state.since}: the champion is no longer what it was ({value})"


def ledger_lines(evenings: Sequence[Evening]) -> list[str]:
    """What a ledger holds: its evenings, and which version of the champion forecast from when to when."""
    late = sum(evening.late for evening in evenings)
    first, last = evenings[0].day, evenings[-1].day
    lines = [f"{_evenings(len(evenings))} from {first} to {last}, {late} of them late: the chain is whole"]
    for version, own in groupby(evenings, key=lambda evening: evening.versions.get(CHAMPION, "none")):
        days = [evening.day for evening in own]
        lines.append(f"{CHAMPION} {version}: {_evenings(len(days))}, {days[0]} to {days[-1]}")
    return lines


def _evenings(n: int) -> str:
    return f"{n:,} evening{'' if n == 1 else 's'}"


def open_lines(record: TrackRecord) -> list[str]:
    """'12 labels are open, 3 of them of stocks that ...': counted, not dropped."""
    waiting = record.open
    if waiting.is_empty():
        return []
    worst = waiting.sort("last_return", nulls_last=True).head(3)
    named = [
        f"{row['code']} of {row['date']} at {100 * row['last_return']:+.0f} % ({row['last_day']})"
        for row in worst.iter_rows(named=True)
        if row["last_return"] is not None
    ]
    gone = waiting.filter(status="gone").height
    lines = [
        f"{waiting.height} labels of due days are open"
        + (f", {gone} of stocks that the bars no longer have" if gone else "")
    ]
    if named:
        lines.append(f"lowest so far: {', '.join(named)}")
    bounds = [f"{name} {low:.4f}, {high:.4f}" for name, (low, high) in record.with_open_as_sell.items()]
    return [*lines, f"log loss without them, and if all were SELL: {'; '.join(bounds)}"]


def against_prior(record: TrackRecord) -> str:
    """Champion minus prior in log loss, with its interval over days."""
    found = compare(
        {CHAMPION: {"test": [record.forecasts[CHAMPION]]}}, baselines={PRIOR: {"test": [record.forecasts[PRIOR]]}}
    )
    row = found.pairs.filter(a=PRIOR, b=CHAMPION, metric=PRIMARY).row(0, named=True)
    told = {"b": "better", "a": "worse", None: "not distinguishable"}[row["better"]]
    return f"{CHAMPION} minus {PRIOR}: log loss {number(row)}: {told}"
