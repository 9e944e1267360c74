"""The page of the day: what is forecast for the next trading days, by what, and what that has been worth."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from lasps.config.dataset_config import HORIZON
from lasps.config.sectors import SECTORS
from lasps.config.settings import CLASS_NAMES
from lasps.data.exchange import known_sessions
from lasps.data.integrity import IntegrityReport
from lasps.data.panel import Panel
from lasps.live.alarm import WINDOW, AlarmState
from lasps.live.day_scores import day_scores, difference, means
from lasps.live.ledger import P_COLUMNS, Evening
from lasps.live.model import CHAMPION, PRIOR
from lasps.live.scoring import TrackRecord
from lasps.live.screen import alarm_line, record_lines
from lasps.numbers import decimal, percent, signed, true_minus
from lasps.pages import Cell, Column, Figure, Table, make_table, render
from lasps.pipeline.forecast import write_forecast
from lasps.plots.vega.evening import candles, cumulative_edge
from lasps.reproducibility import write_atomically

ENDS, CANDLE_DAYS = 10, 60
STRONG_SCORE = 0.2
"""A sector whose mean P(BUY) - P(SELL) is this high has the full colour on the map."""


@dataclass(frozen=True)
class Today:
    """What the page shows.

    Attributes:
        evening: the newest evening of the ledger; before: the one before it, None on the first.
        panel: the universe's bars up to that day; listing: code, name.
        record: what has come due so far.
        report: the integrity gate's, of the bars that the forecasts read.
        about: the champion's model.json; empty for a checkpoint alone.
        alarm: None where none is calibrated.
    """

    evening: Evening
    before: Evening | None
    panel: Panel
    listing: pl.DataFrame
    record: TrackRecord
    report: IntegrityReport
    about: Mapping[str, Any]
    alarm: AlarmState | None = None


def write_today(today: Today, path: Path) -> list[Path]:
    """Write the page as PATH, and all its stocks beside it as .csv and .parquet, each in one step."""
    stocks = stocks_of(today)
    files = [path.with_suffix(suffix) for suffix in (".csv", ".parquet")]
    for file in files:
        write_forecast(stocks, file)
    write_atomically(path, today_page(today, stocks))
    return [path, *files]


def stocks_of(today: Today) -> pl.DataFrame:
    """Every stock that the champion forecasts, most bullish first.

    Columns: code, name, sector (Korean), date, close, p_sell, p_hold, p_buy, class, score (p_buy - p_sell); as of the
    evening before class_before, score_before and score_change, null where it was not forecast then.
    """
    now = _classed(today.evening)
    if today.before is None:
        before = now.clear().select("code", class_before="class", score_before="score")
    else:
        before = _classed(today.before).select("code", class_before="class", score_before="score")
    korean = {sector.id: sector.korean for sector in SECTORS}
    names = today.listing.select("code", "name").unique("code", keep="first")
    return (
        now.join(names, on="code", how="left")
        .join(before, on="code", how="left")
        .select(
            "code",
            pl.col("name").fill_null(pl.col("code")),
            pl.col("sector").cast(pl.Int64).replace_strict(korean, return_dtype=pl.String),
            pl.lit(today.evening.day).alias("date"),
            "close",
            *P_COLUMNS,
            "class",
            "score",
            "class_before",
            "score_before",
            score_change=pl.col("score") - pl.col("score_before"),
        )
        .sort("score", "code", descending=[True, False])
    )


def _classed(evening: Evening) -> pl.DataFrame:
    own = evening.table.filter(model=CHAMPION)
    best = own.select(P_COLUMNS).to_numpy().argmax(axis=1)
    return own.with_columns(
        pl.Series("class", [CLASS_NAMES[i] for i in best], dtype=pl.String), score=pl.col("p_buy") - pl.col("p_sell")
    )


def today_page(today: Today, stocks: pl.DataFrame) -> str:
    """The page as text."""
    evening, counts = today.evening, dict(stocks["class"].value_counts().iter_rows())
    told = ", ".join(f"{counts.get(name, 0):,} {name}" for name in ("BUY", "HOLD", "SELL"))
    late = (
        ["Written after the next session had opened: this evening is late, and is not scored."] if evening.late else []
    )
    raised = [alarm_line(today.alarm)] if today.alarm is not None and today.alarm.is_raised else []
    ends = (stocks.head(ENDS), stocks.tail(ENDS).reverse())
    table = _stock_table(stocks)
    assert table is not None
    return render(
        "today.html.j2",
        f"lasps: {evening.day}",
        context=f"As of the close of {evening.day:%A, %Y-%m-%d}, written {evening.written_at:%Y-%m-%d %H:%M} in Seoul",
        headline=f"{told} ",
        headline_numbers=f"of {stocks.height:,} stocks, {_sessions(evening.day)}",
        lately=_lately(today.record),
        made_by=true_minus(_made_by(today)),
        alarms=late + raised,
        bullish=_cards(today, ends[0]),
        bearish=_cards(today, ends[1]),
        tiles=_tiles(stocks),
        record_read=(
            "A day is due at its fifth trading day. Log loss: lower is better; rank IC: the correlation of P(BUY) - "
            "P(SELL) with the return among a day's stocks. Intervals are 95 %, over days."
        ),
        record_lines=[true_minus(line) for line in (*record_lines(today.record), alarm_line(today.alarm))],
        record_figure=_edge_figure(today.record),
        record_tables=_record_tables(today.record),
        findings=[f for f in today.report.sorted() if f.count and f.severity in ("fatal", "warning")],
        count=f"{stocks.height:,}",
        stocks=table,
        files="The same table lies beside this page as .csv and .parquet.",
    )


def _sessions(day: dt.date) -> str:
    """'for the five sessions of 24 June to 30 June 2016'; less where the table of holidays does not reach."""
    days = known_sessions(day + dt.timedelta(days=1), day + dt.timedelta(days=21))
    if days is None or len(days) < HORIZON:
        return f"for the {HORIZON} trading days after it"
    first, last = (days[i].item() for i in (0, HORIZON - 1))
    return f"for the {HORIZON} trading days {first:%Y-%m-%d} to {last:%Y-%m-%d}"


def _made_by(today: Today) -> str:
    version, about = today.evening.versions[CHAMPION], today.about
    if not about:
        return f"Model: {version}."
    age = int((today.panel.calendar > dt.date.fromisoformat(about["as_of"])).sum())
    networks, trees = (
        f"{len(about[name])} seed{'' if len(about[name]) == 1 else 's'}" for name in ("networks", "trees")
    )
    parts = f"network ({networks}) and LightGBM ({trees}), half each"
    part = "" if about["fraction"] == 1 else f" ({100 * about['fraction']:.0f} % of the rows)"
    took_over = today.before is not None and today.before.versions.get(CHAMPION) != version
    since = " It took over this evening: changes since the last one are partly its own." if took_over else ""
    return (
        f"Model {version}: {parts}, trained on {about['samples']:,} samples{part} whose labels had ended by "
        f"{about['last_label_end']}; {age} trading days old.{since}"
    )


def _lately(record: TrackRecord) -> dict[str, str]:
    """Whether the champion has been better than the prior over the last WINDOW due days, and by how much."""
    if not {CHAMPION, PRIOR} <= record.forecasts.keys():
        return {"answer": "Nothing has come due yet.", "numbers": f" A day is due at its {HORIZON}th trading day."}
    own, prior = (day_scores(name, record.forecasts[name]) for name in (CHAMPION, PRIOR))
    days = sorted(set(own["date"]) & set(prior["date"]))[-WINDOW:]
    own, prior = (table.filter(pl.col("date").is_in(days)) for table in (own, prior))
    found, m = difference(own, prior, "log_loss"), means(own)
    over = f"over the last {len(days)} due days"
    if found.low is None or found.high is None:
        return {"answer": f"Too few days to tell {over}.", "numbers": f" Log loss {decimal(m['log_loss'], 4)}"}
    told = "better than" if found.high < 0 else "worse than" if found.low > 0 else "not distinguishable from"
    numbers = (
        f" Log loss {decimal(m['log_loss'], 4)}, minus the prior's {signed(found.difference)} "
        f"[{signed(found.low)}, {signed(found.high)}]; rank IC {decimal(m['rank_ic'], 3)}"
    )
    return {"answer": f"Lately {told} the class frequencies, {over}.", "numbers": true_minus(numbers)}


def _cards(today: Today, stocks: pl.DataFrame) -> list[dict[str, Any]]:
    bars = today.panel.frame.filter(
        pl.col("code").is_in(stocks["code"].implode()), pl.col("date") <= today.evening.day
    ).partition_by("code", as_dict=True)
    shown = []
    for row in stocks.iter_rows(named=True):
        shares = {name: 100 * row[column] for name, column in zip(CLASS_NAMES, P_COLUMNS, strict=True)}
        change = "" if today.before is None else "new today"
        if row["class_before"] is not None:
            change = f"{signed(row['score_change'], 2)} since the day before"
        if row["class_before"] not in (None, row["class"]):
            change += f", was {row['class_before']}"
        shown.append(
            {name: row[name] for name in ("code", "name", "sector", "class")}
            | {
                "candles": Markup(candles(bars[row["code"],].tail(CANDLE_DAYS))),
                "shares": [(name.lower(), f"{share:.1f}") for name, share in shares.items()],
                "told": " · ".join(f"{name} {share:.0f}" for name, share in shares.items()) + " %",
                "change": true_minus(change),
            }
        )
    return shown


def _tiles(stocks: pl.DataFrame) -> list[dict[str, Any]]:
    english = {sector.korean: sector.english for sector in SECTORS}
    counted = (
        stocks.group_by("sector")
        .agg(
            pl.col("score").mean(),
            pl.col("score_change").mean(),
            *((pl.col("class") == name).sum().alias(name) for name in CLASS_NAMES),
        )
        .sort("score", "sector", descending=[True, False])
    )
    tiles = []
    for row in counted.iter_rows(named=True):
        counts = " · ".join(f"{row[name]} {name}" for name in ("BUY", "HOLD", "SELL"))
        change = "" if row["score_change"] is None else f"; {signed(row['score_change'], 3)} since the day before"
        tiles.append(
            {
                "korean": row["sector"],
                "english": english[row["sector"]],
                "score": true_minus(signed(row["score"], 3)),
                "counts": [(name, row[name]) for name in ("BUY", "HOLD", "SELL")],
                "color": "buy" if row["score"] >= 0 else "sell",
                "strength": round(60 * min(abs(row["score"]) / STRONG_SCORE, 1)),
                "told": true_minus(f"{english[row['sector']]}: {counts}{change}"),
            }
        )
    return tiles


def _edge_figure(record: TrackRecord) -> Figure | None:
    if CHAMPION not in record.forecasts:
        return None
    own, tables = day_scores(CHAMPION, record.forecasts[CHAMPION]), []
    for name in [n for n in (PRIOR, "volatility", "lightgbm") if n in record.forecasts]:
        both = own.join(day_scores(name, record.forecasts[name]), on="date", suffix="_other").sort("date")
        saved = both.select("date", edge=(pl.col("log_loss_other") - pl.col("log_loss")).cum_sum())
        tables.append(saved.with_columns(against=pl.lit(f"than {name}")))
    if not tables or own.height < 2:
        return None
    caption = "summed over due days; a falling line: the other would have been the better forecast"
    return Figure("What the champion has lost less", cumulative_edge(pl.concat(tables)), caption)


def _record_tables(record: TrackRecord) -> list[tuple[str, Table]]:
    if CHAMPION not in record.forecasts:
        return []
    scores = {name: day_scores(name, forecast) for name, forecast in record.forecasts.items()}
    days = scores[CHAMPION]["date"].sort()
    tables = []
    for title, since in ((f"The last {WINDOW} due days", days[-WINDOW:][0]), ("All due days", days[0])):
        own = {name: table.filter(pl.col("date") >= since) for name, table in scores.items()}
        rows = [_record_row(name, table, own[CHAMPION]) for name, table in own.items() if table.height]
        table = make_table(rows, RECORD, strong=lambda row: row["name"] == CHAMPION)
        if table is not None and (title.startswith("All") or len(days) > WINDOW):
            tables.append((title, table))
    return tables


def _record_row(name: str, scores: pl.DataFrame, champion: pl.DataFrame) -> dict[str, Any]:
    found = None if name == CHAMPION else difference(champion, scores, "log_loss")
    return {"name": name, "days": scores.height, "minus": found} | means(scores)


def _minus(row: Mapping[str, Any]) -> Cell:
    found = row["minus"]
    if found is None or found.low is None or found.high is None:
        return Cell("")
    css = "better" if found.high < 0 else "worse" if found.low > 0 else "unsure"
    interval = true_minus(f"[{signed(found.low)}, {signed(found.high)}]")
    return Cell(true_minus(signed(found.difference)), found.difference, css, interval)


def _number(name: str, digits: int) -> Any:
    return lambda row: Cell(true_minus(decimal(row[name], digits)), row[name])


RECORD = (
    Column("", lambda row: Cell(row["name"]), text=True),
    Column("days", lambda row: Cell(f"{row['days']}", row["days"]), always=True),
    Column("log loss", _number("log_loss", 4), always=True),
    Column("champion minus it", _minus, help="log loss, with its 95 % interval over days"),
    Column("rank IC", _number("rank_ic", 3)),
    Column("one day later", _number("rank_ic_skip1", 3), help="rank IC with returns from the next close on"),
)


def _share(name: str) -> Any:
    return lambda row: Cell(percent(row[name], 1), round(row[name], 5))


STOCKS: Sequence[Column] = (
    Column("code", lambda row: Cell(row["code"]), text=True),
    Column("name", lambda row: Cell(row["name"]), text=True),
    Column("sector", lambda row: Cell(row["sector"]), text=True),
    Column("close", lambda row: Cell(f"{row['close']:,.0f}", row["close"]), always=True),
    Column("class", lambda row: Cell(row["class"], css=row["class"]), text=True),
    Column("SELL %", _share("p_sell"), always=True),
    Column("HOLD %", _share("p_hold"), always=True),
    Column("BUY %", _share("p_buy"), always=True),
    Column("BUY - SELL", lambda row: Cell(true_minus(signed(row["score"], 3)), round(row["score"], 5)), always=True),
    Column("change", lambda row: _change(row), help="since the evening before"),
    Column("was", lambda row: Cell(row["class_before"] or "", css=row["class_before"] or ""), text=True),
)


def _change(row: Mapping[str, Any]) -> Cell:
    value = row["score_change"]
    return Cell("") if value is None else Cell(true_minus(signed(value, 3)), round(value, 5))


def _stock_table(stocks: pl.DataFrame) -> Table | None:
    return make_table(stocks.to_dicts(), STOCKS, wide=True)
