#!/usr/bin/env python
"""What a recipe would have earned, refitted evening after evening over history.

    python experiments/walk_forward.py --source bars.parquet --listing listing.csv --protocol krx-2010s --every 60
        --recipe experiments/recipes/krx_2010s.json --results experiments/results/walk_forward/krx_2010s

Each refit trains on all labels that had ended by its evening and forecasts every day from then to the end. Its model
and forecasts stay in --output-dir; the scores of each day go to --results (AS_OF.csv, and AS_OF.json with what they
were measured with), where a finished refit is found again and not repeated: the run can be stopped, and goes on in
another checkout from the scores alone. With --workers N, or a Ray cluster at RAY_ADDRESS, each refit is a task of its
own, which reads the bars by their path (docs/scale.md).

The bars are those of today, adjusted for what happened later, and so is the listing: an evening of then saw prices
before later splits, which move the rounding of small prices. With --evenings, the evenings of make daily are run one
after another into a simulation's ledger instead; with --vintages, on bars and listing as they were known then.
--against says how far that ledger is from a real one.
"""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments._cli import (
    add_reading_flags,
    add_waive_flag,
    add_workers_flag,
    fan_out,
    names_in,
    part,
    positive_int,
    reading_of,
    resolve_device,
    run_script,
)
from experiments._results import machine
from lasps.config.settings import settings

if TYPE_CHECKING:
    import polars as pl

    from lasps.live.walk_forward import Inputs, Market


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="bars: parquet, CSV or a folder of CSVs")
    parser.add_argument("--listing", type=Path, required=True, help="code, name, market, industry")
    parser.add_argument("--recipe", type=Path, required=True, help="of freeze.py")
    parser.add_argument("--protocol", default=None, help="its split gives --first and --last: krx-2010s, krx-2020s")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="of --protocol")
    parser.add_argument("--first", type=dt.date.fromisoformat, default=None, help="the first refit's evening")
    parser.add_argument("--last", type=dt.date.fromisoformat, default=None, help="the last day that is forecast")
    parser.add_argument("--every", type=positive_int, help="market days between refits; default: only one")
    parser.add_argument("--seeds", type=positive_int, default=None, help="the recipe's first so many; default: all")
    parser.add_argument("--train-fraction", type=part, default=1.0, help="of the rows, by a hash of code and date")
    parser.add_argument("--output-dir", type=Path, default=settings.CHECKPOINT_DIR / "walk_forward")
    parser.add_argument("--results", type=Path, default=None, help="folder of the scores; default: --output-dir/scores")
    parser.add_argument("--evenings", action="store_true", help="evening by evening, into the live folder --output-dir")
    parser.add_argument(
        "--vintages", type=Path, default=None, metavar="DIR", help="DAY.parquet and DAY.csv (listing) of each evening"
    )
    parser.add_argument("--against", type=Path, default=None, metavar="DIR", help="a live folder to compare with")
    parser.add_argument("--device", default=None)
    add_reading_flags(parser)
    add_waive_flag(parser)
    add_workers_flag(parser)
    args = parser.parse_args()
    if args.protocol is not None:
        from lasps.data.splits import PROTOCOLS

        if args.protocol not in PROTOCOLS:
            parser.error(f"--protocol: expected one of {', '.join(PROTOCOLS)}, got {args.protocol}")
        first, last = PROTOCOLS[args.protocol].span(args.split)
        args.first, args.last = args.first or first, args.last or last
    if args.first is None or args.last is None:
        parser.error("expected --protocol, or --first and --last")
    args.results = args.results or args.output_dir / "scores"
    return args


def main() -> None:
    """Every refit that has no scores yet; then the schedule's scores beside the first refit's."""
    args = parse_args()
    from lasps.data.datasets.scan import frame_digest
    from lasps.live.alarm import MIN_DAYS, calibrated
    from lasps.live.evening import Refits
    from lasps.live.succession import ROLLBACK
    from lasps.live.walk_forward import (
        edge_of,
        origins,
        read_inputs,
        read_scores,
        scheduled,
        simulate,
        with_succession,
    )
    from lasps.tasks import Task, gpus_for

    args.device = resolve_device(args.device)
    market = read_inputs(inputs_of(args))
    rows, recipe = market.rows, market.recipe
    if args.evenings:
        every_day = origins(rows.panel.calendar, args.first, args.last, 1)
        refits = Refits(recipe, args.every or len(every_day), args.train_fraction)
        simulate(every_day, served_by(args, market), args.output_dir, refits, args.device)
        show_simulation(args)
        return
    key = {
        "recipe": recipe.digest,
        "train_fraction": args.train_fraction,
        "last": str(args.last),
        "bars": frame_digest(rows.panel.frame),
    }
    evenings = origins(rows.panel.calendar, args.first, args.last, args.every)
    gpus = gpus_for(args.device)
    fan_out([Task(f"refit of {as_of}", refit_of, (args, as_of, key), gpus) for as_of in evenings], args.workers)
    done = read_scores(args.results)
    lived, succession = with_succession(done, evenings, rows.panel.calendar)
    show_schedule(lived, scheduled(done, evenings[:1]), evenings)
    for decision in succession.decisions:
        if decision.what == ROLLBACK:
            print(f"{decision.day}: back to {decision.champion} from {decision.before}, {decision.reason}")
    daily = edge_of(lived)
    if len(daily) >= MIN_DAYS:
        path = args.results / "alarm.json"
        calibrated(daily, f"{len(evenings)} refits, {evenings[0]} to {lived['date'].max()!s}").write(path)
        print(f"Alarm of champion minus prior, calibrated on {len(daily)} days: {path}")


def inputs_of(args: argparse.Namespace) -> Inputs:
    """The files of the command line."""
    from lasps.live.walk_forward import Inputs

    files = args.source, args.listing, args.recipe
    return Inputs(*files, seeds=args.seeds, waived=names_in(args.waive), **reading_of(args))


def refit_of(args: argparse.Namespace, as_of: dt.date, key: dict[str, Any]) -> None:
    """One refit and the scores of its forecasts, unless they stand in --results."""
    from lasps.live.walk_forward import is_done, read_inputs, run_origin, write_scores

    if is_done(args.results, as_of, key):
        return
    market, folder = read_inputs(inputs_of(args)), args.output_dir / as_of.isoformat()
    model, scores = run_origin(market.recipe, market.rows, as_of, args.last, folder, args.device, args.train_fraction)
    write_scores(args.results, as_of, scores, key | about(model.about))


def served_by(args: argparse.Namespace, market: Market) -> Callable[[dt.date], tuple[pl.DataFrame, pl.DataFrame]]:
    """What an evening knows: its own files, or today's bars until then and today's listing."""
    import polars as pl

    from lasps.data.sources.files import read_bars, read_listing

    if args.vintages is None:
        print("Today's bars and listing: adjusted for what happened later, and without who has left since")
        return lambda day: (market.bars.filter(pl.col("date").cast(pl.Date) <= day), market.listing)
    own: Path = args.vintages
    return lambda day: (
        read_bars(own / f"{day}.parquet", **reading_of(args)),
        read_listing(own / f"{day}.csv", pad_codes=args.pad_codes),
    )


def show_simulation(args: argparse.Namespace) -> None:
    """How many evenings stand in the simulation, and how far they are from a real ledger."""
    import numpy as np

    from lasps.live.folder import LiveFolder
    from lasps.live.ledger import SIMULATION
    from lasps.live.walk_forward import apart

    simulated = LiveFolder(args.output_dir, SIMULATION).ledger
    print(f"{len(simulated.days())} simulated evenings in {args.output_dir}: make score ARGS=--simulation")
    if args.against is not None:
        table = apart(simulated, LiveFolder(args.against).ledger)
        if table.is_empty():
            raise ValueError(f"--against {args.against}: expected an evening that was simulated too, found none")
        mean, largest = (float(np.mean(table[name].to_numpy())) for name in ("mean", "largest"))
        print(f"{table.height} evenings of {args.against}: probabilities {mean:.1e} apart, the largest {largest:.1e}")


def show_schedule(refitted: pl.DataFrame, once: pl.DataFrame, evenings: list[dt.date]) -> None:
    """Every model's scores under the schedule and refitted once at its start, and the difference with its interval."""
    from lasps import terminal
    from lasps.live.day_scores import difference, means
    from lasps.numbers import decimal, percent

    rows = []
    for name in refitted["model"].unique(maintain_order=True).to_list():
        own, first = (table.filter(model=name) for table in (refitted, once))
        found = means(own)
        cells = [decimal(found["log_loss"], 4), decimal(means(first)["log_loss"], 4), percent(found["accuracy"], 2)]
        cells += [decimal(found["rank_ic"], 3), decimal(found["rank_ic_skip1"], 3)]
        for metric, digits in (("log_loss", 4), ("rank_ic", 3)):
            d = difference(own, first, metric)
            ends = "" if d.low is None or d.high is None else f" [{d.low:+.{digits}f}, {d.high:+.{digits}f}]"
            cells.append(f"{d.difference:+.{digits}f}{ends}")
        rows.append([name, f"{own['n'].sum():,}", *cells])
    print(
        f"{len(evenings)} refits from {evenings[0]}, {refitted['date'].n_unique()} days to {refitted['date'].max()!s}"
    )
    headings = ["model", "samples", "log loss", "refitted once", "accuracy %", "rank IC", "one day later"]
    terminal.show_table([*headings, "minus once: log loss", "rank IC"], rows)


def about(model: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader of a refit's scores must know of it."""
    kept = ("name", "samples", "last_label_end", "stocks")
    return {key: model[key] for key in kept} | {"machine": machine(), "made": f"{dt.date.today()}"}


if __name__ == "__main__":
    run_script(main)
