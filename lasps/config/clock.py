"""What time it is in Seoul, and which day of the exchange is over: the one place that looks at the clock.

A bar counts only when its day is over; until then every source serves a running one that looks like any other. Of a
regular day the close is fixed at 15:30, and trading at that close adds to the volume until 16:00: from then on open,
high, low, close and volume stand (the single-price session until 18:00 has prices of its own, which no daily bar
shows). On the day of the university entrance examination, a Thursday in November (2020 in December), everything
happens an hour later; every Thursday from November to the tenth of December waits that hour, as no table of
examination days can be complete.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone

SEOUL = timezone(timedelta(hours=9), "KST")
"""Korea has had no daylight saving since 1988."""
DAY_ENDS, LATE_DAY_ENDS = time(16), time(17)
"""KRX: after-hours trading at the closing price ends at 16:00, on examination days at 17:00."""


def now() -> datetime:
    """The moment, with its time zone. Give functions that take a `now` another one to ask as of another moment."""
    return datetime.now(SEOUL)


def in_seoul(moment: datetime) -> datetime:
    """The moment on Seoul's clocks.

    Raises:
        ValueError: a moment without a time zone, which could be any of 26 hours.
    """
    if moment.tzinfo is None:
        raise ValueError(f"expected a moment with a time zone, such as datetime.now(timezone.utc), got {moment}")
    return moment.astimezone(SEOUL)


def day_ends(day: date) -> datetime:
    """When a day of the exchange is over: no bar of it changes from then on."""
    may_be_late = day.weekday() == 3 and (day.month == 11 or (day.month == 12 and day.day <= 10))
    return datetime.combine(day, LATE_DAY_ENDS if may_be_late else DAY_ENDS, SEOUL)


def last_day_over(moment: datetime) -> date:
    """The latest weekday that was over at `moment`; whether it was a holiday is for the data to say.

    Raises:
        ValueError: a moment without a time zone.
    """
    moment = in_seoul(moment)
    day = moment.date() if moment >= day_ends(moment.date()) else moment.date() - timedelta(days=1)
    return day - timedelta(days=max(0, day.weekday() - 4))
