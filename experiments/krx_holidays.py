#!/usr/bin/env python
"""Write lasps/config/krx_holidays.csv again from the package exchange_calendars (a development dependency).

    pip install -U exchange_calendars && python experiments/krx_holidays.py

Run it when the gate names a market day that was a holiday: Korea decrees some holidays only weeks ahead.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments._cli import run_script

TABLE = Path(__file__).resolve().parents[1] / "lasps" / "config" / "krx_holidays.csv"
FIRST_YEAR, LAST_YEAR = 1999, 2030


def holidays() -> list[str]:
    """The days from Monday to Friday on which XKRX has no session, as ISO dates.

    From 1999 on: before, KRX traded on Saturdays, which that calendar does not have.
    """
    import numpy as np
    from exchange_calendars.exchange_calendar_xkrx import XKRXExchangeCalendar

    from lasps.data.exchange import may_be_open

    calendar = XKRXExchangeCalendar(start=f"{FIRST_YEAR}-01-01", end=f"{LAST_YEAR}-12-31")
    sessions = calendar.sessions.to_numpy().astype("datetime64[D]")
    days = np.arange(np.datetime64(f"{FIRST_YEAR}-01-01"), np.datetime64(f"{LAST_YEAR + 1}-01-01"))
    return [str(day) for day in days[may_be_open(days) & ~np.isin(days, sessions)]]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=TABLE, metavar="FILE")
    args = parser.parse_args()
    from importlib.metadata import version

    from lasps.reproducibility import write_atomically

    head = f"# XKRX of exchange_calendars {version('exchange_calendars')}, by experiments/krx_holidays.py\ndate\n"
    write_atomically(args.out, head + "\n".join(holidays()) + "\n")


if __name__ == "__main__":
    run_script(main)
