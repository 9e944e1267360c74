"""The synthetic market against the exchange's rules, plain loops, and its own stated truth."""

import math
import random
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy.stats import chi2

from lasps.config.sectors import sector_of_industry
from lasps.data.sources.synthetic import SyntheticMarket, exchange, make_market
from lasps.data.sources.synthetic.parameters import INDUSTRIES, SIGNALS, Parameters, sector_coefficients, sector_sizes


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return make_market(seed=3, n_stocks=120, n_days=420)


def labels(panel: pl.DataFrame) -> np.ndarray:
    """0, 1, 2 per row, -1 where the fifth later close is not known."""
    later = panel["close"].shift(-5).to_numpy()
    same = (panel["code"] == panel["code"].shift(-5)).fill_null(False).to_numpy()
    close = panel["close"].to_numpy()
    up, down = 100 * (later - close) >= 3 * close, 100 * (later - close) <= -3 * close
    return np.where(same, np.where(up, 2, np.where(down, 0, 1)), -1)


# --- one seed, one market


def test_one_seed_gives_one_market_byte_for_byte() -> None:
    first, second = make_market(5, n_stocks=40, n_days=150), make_market(5, n_stocks=40, n_days=150)
    for name in ("panel", "state", "listing"):
        left, right = getattr(first, name), getattr(second, name)
        for column in left.columns:
            assert left[column].dtype == right[column].dtype
            if left[column].dtype == pl.Float64:
                assert left[column].to_numpy().tobytes() == right[column].to_numpy().tobytes()
            else:
                assert left[column].to_list() == right[column].to_list()
    assert first.coefficients.tobytes() == second.coefficients.tobytes()
    rows = first.panel.sample(50, seed=0)
    left, right = (m.oracle(rows["code"], rows["date"], 200).probabilities for m in (first, second))
    assert left.tobytes() == right.tobytes()
    assert not make_market(6, n_stocks=40, n_days=150).panel["close"].equals(first.panel["close"])


def test_a_longer_market_repeats_the_days_of_a_shorter_one_so_no_state_knows_what_comes_later() -> None:
    short = make_market(5, n_stocks=40, n_days=200, regime_day=150)
    long = make_market(5, n_stocks=40, n_days=260, regime_day=150)
    last = short.calendar[-1]
    assert short.panel.height < long.panel.height
    assert long.panel.filter(pl.col("date") <= last).equals(short.panel)
    assert long.state.filter(pl.col("date") <= last).equals(short.state)


def test_the_oracle_of_a_row_does_not_depend_on_the_rows_asked_beside_it(market: SyntheticMarket) -> None:
    rows = market.panel.sample(30, seed=1)
    together = market.oracle(rows["code"], rows["date"], 500).probabilities
    alone = market.oracle([rows["code"][7]], [rows["date"][7]], 500).probabilities
    np.testing.assert_allclose(alone[0], together[7], atol=1e-6)


# --- the exchange


@pytest.mark.parametrize(
    ("price", "tick"),
    [
        (1_999, 1),
        (2_000, 5),
        (4_995, 5),
        (5_000, 10),
        (19_990, 10),
        (20_000, 50),
        (49_950, 50),
        (50_000, 100),
        (166_400, 100),
        (199_900, 100),
        (200_000, 500),
        (499_500, 500),
        (500_000, 1_000),
    ],
)
def test_ticks_are_those_of_the_exchange_since_2023(price: int, tick: int) -> None:
    assert exchange.tick_size(np.array([price], dtype=float))[0] == tick


def tick_in_plain_words(price: float) -> int:
    for below, tick in ((2_000, 1), (5_000, 5), (20_000, 10), (50_000, 50), (200_000, 100), (500_000, 500)):
        if price < below:
            return tick
    return 1_000


def test_every_bar_is_possible(market: SyntheticMarket) -> None:
    panel = market.panel
    open_, high, low, close = (panel[name].to_numpy() for name in ("open", "high", "low", "close"))
    assert (low > 0).all()
    assert (low <= np.minimum(open_, close)).all()
    assert (np.maximum(open_, close) <= high).all()
    assert panel["volume"].dtype == pl.Int64
    assert panel["volume"].min() > 0
    assert panel.equals(panel.sort("code", "date"))
    assert not panel.select("code", "date").is_duplicated().any()
    assert panel.null_count().sum_horizontal().item() == 0
    for prices in (open_, high, low, close):
        assert all(price % tick_in_plain_words(price) == 0 for price in np.unique(prices).tolist())
    days = panel["date"].dt.weekday()
    assert days.max() <= 5


def test_no_price_leaves_the_daily_limit_and_a_wild_market_reaches_it() -> None:
    wild = make_market(2, n_stocks=40, n_days=120, parameters=Parameters(base_volatility=0.15))
    panel = wild.panel.with_columns(base=pl.col("close").shift(1).over("code")).drop_nulls()
    assert (100 * panel["high"] <= 130 * panel["base"]).all()
    assert (100 * panel["low"] >= 70 * panel["base"]).all()
    at_limit = (panel["close"] / panel["base"] > 1.28).sum()
    assert at_limit > 20
    assert (panel["low"] <= panel["close"]).all()
    assert (panel["close"] <= panel["high"]).all()


def test_label_borders_are_where_the_rounded_close_changes_its_class() -> None:
    rng = np.random.default_rng(0)
    closes = exchange.round_to_tick(np.exp(rng.uniform(np.log(300), np.log(900_000), 3_000)))
    closes = np.concatenate([closes, [1_999.0, 2_000, 1_941, 1_942, 4_855, 20_000, 20_600, 51_500, 515_000]])
    sell, buy = exchange.label_borders(closes)
    for border, side in ((sell, 0), (buy, 2)):
        for nudge in (1 - 1e-9, 1 + 1e-9):
            later = exchange.round_to_tick(border * nudge)
            change = 100 * (later - closes)
            label = np.where(change >= 3 * closes, 2, np.where(change <= -3 * closes, 0, 1))
            inside = (nudge < 1) if side == 0 else (nudge > 1)
            assert (label == (side if inside else 1)).all()


def test_halted_days_are_not_rows_and_some_stocks_are_listed_late(market: SyntheticMarket) -> None:
    first = market.panel.group_by("code").agg(pl.col("date").min(), n=pl.len())
    late = first.filter(pl.col("date") > market.calendar[0])
    assert 3 <= late.height <= 40
    since = np.searchsorted(np.array(market.calendar), first["date"].to_numpy().astype("datetime64[D]").astype(object))
    missing = (len(market.calendar) - since) - first["n"].to_numpy()
    assert (missing >= 0).all()
    assert 0 < missing.sum() < 0.01 * market.panel.height


# --- the listing and the planted effect


def test_every_industry_means_the_sector_it_is_used_for() -> None:
    assert [sector for sector, *_ in INDUSTRIES] == list(range(20))
    assert [sector_of_industry(industry) for _, industry, *_ in INDUSTRIES] == list(range(20))


def test_the_listing_names_every_stock_once_and_no_stock_is_called_a_spac(market: SyntheticMarket) -> None:
    listing = market.listing
    assert listing["code"].n_unique() == listing["name"].n_unique() == listing.height == 120
    assert set(market.panel["code"]) == set(listing["code"])
    assert listing["code"].str.contains(r"^\d{5}0$").all()
    assert not listing["name"].str.contains("스팩").any()
    mapped = [sector_of_industry(name) for name in listing["industry"]]
    assert mapped == market.stocks.sector.tolist()
    assert len(set(mapped[:40])) > 10  # the order of the codes does not follow the sectors


def test_sector_effects_balance_out_and_without_effect_all_sectors_share_one() -> None:
    sizes = sector_sizes(360)
    assert sizes.sum() == 360
    assert sizes.min() >= 6
    assert sizes.max() >= 2 * sizes.min()
    for seed in range(5):
        beta = sector_coefficients(sizes, "sector", np.random.default_rng(seed))
        np.testing.assert_allclose(np.linalg.norm(beta, axis=1), 1)
        assert np.linalg.norm(sizes @ beta / sizes.sum()) < 0.05
        second = (beta * sizes[:, None]).T @ beta / sizes.sum()
        assert np.abs(second - np.eye(len(SIGNALS)) / len(SIGNALS)).max() < 0.05
        one = sector_coefficients(sizes, "none", np.random.default_rng(seed))
        assert (one == one[0]).all()
        assert np.linalg.norm(one[0]) == pytest.approx(1)


def test_without_effect_it_is_the_same_market_but_for_the_coefficients() -> None:
    sector, none = (make_market(4, effect, n_stocks=30, n_days=120) for effect in ("sector", "none"))
    assert (none.coefficients == none.coefficients[0]).all()
    assert sector.state.select(SIGNALS).equals(none.state.select(SIGNALS))
    assert sector.listing.equals(none.listing)
    assert not sector.panel["close"].equals(none.panel["close"])


def test_signals_can_be_read_off_the_last_bar(market: SyntheticMarket) -> None:
    readings = {
        "volume": pl.col("volume").log() - pl.col("volume").log().rolling_mean(60).over("code"),
        "wick_width": (
            pl.col("high") / pl.col("low") * pl.min_horizontal("open", "close") / pl.max_horizontal("open", "close")
            + 1e-4
        )
        .sub(1)
        .log(),
        "wick_asymmetry": (pl.col("high") + pl.col("low") - pl.col("open") - pl.col("close"))
        / (pl.col("high") - pl.col("low") + 1),
        "overnight": pl.col("open") / pl.col("close").shift(1).over("code") - 1,
    }
    read = market.panel.with_columns(**{f"{name}_read": reading for name, reading in readings.items()})
    both = read.select([f"{name}_read" for name in SIGNALS]).hstack(market.state.select(SIGNALS)).drop_nulls()
    for name in SIGNALS:
        assert both.select(pl.corr(name, f"{name}_read")).item() > 0.7, name


def test_the_median_stock_has_the_stated_volatility_on_average(market: SyntheticMarket) -> None:
    variance = np.exp(2 * market.state["log_volatility"].to_numpy())
    assert variance.mean() == pytest.approx(1, abs=0.05)


def test_signals_look_alike_in_every_sector(market: SyntheticMarket) -> None:
    sector = pl.Series(market.stocks.sector).gather(market.panel["code"].rank("dense").cast(pl.Int64) - 1)
    spread = market.state.with_columns(sector=sector).group_by("sector").agg(pl.col(SIGNALS).std())
    for name in SIGNALS:
        assert spread[name].is_between(0.85, 1.15).all()


# --- the truth


def test_class_shares_are_near_those_of_the_korean_market(market: SyntheticMarket) -> None:
    known = labels(market.panel)
    shares = np.bincount(known[known >= 0]) / (known >= 0).sum()
    np.testing.assert_allclose(shares, [0.26, 0.53, 0.21], atol=0.05)


def test_labels_come_as_often_as_stated() -> None:
    """Chi-square over bins of the predicted probability; every tenth row of a stock, so that labels do not overlap.

    Stocks of one day share the market's and the sector's return, which would widen the statistic's distribution, so
    this market has next to no common factors; the test after the next one tests those. 99.9 % quantile.
    """
    usual = Parameters()
    before, after = (replace(regime, market_volatility=0.0005) for regime in (usual.before, usual.after))
    calm = replace(usual, before=before, after=after)
    market = make_market(11, n_stocks=150, n_days=420, parameters=calm)
    known = labels(market.panel)
    position = market.panel.select(pl.int_range(pl.len()).over("code")).to_series().to_numpy()
    rows = np.flatnonzero((known >= 0) & (position % 10 == 2))
    stated = market.oracle(market.panel["code"].gather(rows), market.panel["date"].gather(rows), 2_000).probabilities
    for label in range(3):
        p, hit = stated[:, label], known[rows] == label
        bins = np.digitize(p, np.quantile(p, np.linspace(0, 1, 21)[1:-1]))
        expected, realised = np.bincount(bins, p), np.bincount(bins, hit)
        statistic = ((realised - expected) ** 2 / np.bincount(bins, p * (1 - p))).sum()
        assert statistic < chi2.ppf(0.999, 20), (label, statistic)


def test_stated_probabilities_beat_the_class_shares_and_their_own_log_loss_is_as_stated(
    market: SyntheticMarket,
) -> None:
    known = labels(market.panel)
    rows = np.flatnonzero(known >= 0)[::7]
    forecast = market.oracle(market.panel["code"].gather(rows), market.panel["date"].gather(rows), 2_000)
    p, y = forecast.probabilities, known[rows]
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-9)
    assert (p >= 0).all()
    assert 0 < forecast.standard_error.max() < 0.005
    log_loss = -np.log(p[np.arange(len(y)), y]).mean()
    assert log_loss == pytest.approx(-(p * np.log(p)).sum(axis=1).mean(), abs=0.03)
    shares = np.bincount(y) / len(y)
    assert log_loss < -(shares * np.log(shares)).sum() - 0.1


def test_the_stated_standard_error_is_the_spread_over_independent_paths(market: SyntheticMarket) -> None:
    row = market.panel[5_000]
    drawn = []
    for seed in range(60):
        other = replace(market, seed=seed)  # the same rows and state, other variance paths
        drawn.append(other.oracle(row["code"], row["date"], 100).probabilities[0])
    stated = market.oracle(row["code"], row["date"], 100).standard_error[0]
    np.testing.assert_allclose(np.std(drawn, axis=0, ddof=1), stated, rtol=0.4)


def draw_ahead(market: SyntheticMarket, row: int, halts: bool, rng: random.Random) -> int:
    """The class five traded days after a panel row, in plain steps: every shock drawn, ticks and limits kept."""
    p, stocks = market.parameters, market.stocks
    state = market.state.row(row, named=True)
    stock = market.listing["code"].to_list().index(state["code"])
    day = market.calendar.index(state["date"])
    a, b, beta = stocks.base_volatility[stock], stocks.market_beta[stock], market.coefficients[stocks.sector[stock]]
    z = [state[name] for name in SIGNALS]
    h, market_h, log_price = state["log_volatility"], state["market_log_volatility"], state["log_price"]
    start = close = market.panel["close"][row]
    traded = 0
    stopped = 0
    while traded < 5:
        day += 1
        regime = p.after if day >= market.regime_day else p.before
        phi, spread = p.market_persistence, p.market_spread
        market_h = (1 - phi) * -(spread**2) + phi * market_h + spread * math.sqrt(1 - phi**2) * rng.gauss(0, 1)
        sigma = regime.market_volatility * math.exp(market_h)
        half = p.degrees_of_freedom / 2
        market_t = rng.gauss(0, 1) * math.sqrt((half - 1) / rng.gammavariate(half, 1))
        sector = p.sector_factor * sigma * rng.gauss(0, 1)
        if halts and rng.random() < p.halt_probability:
            stopped = max(stopped, rng.randint(1, p.halt_days_max))
        if stopped > 0:
            stopped -= 1
            continue
        traded += 1
        phi, spread = p.log_volatility_persistence, p.log_volatility_spread
        h = (1 - phi) * -(spread**2) + phi * h + spread * math.sqrt(1 - phi**2) * rng.gauss(0, 1)
        own = math.exp(h) * rng.gauss(0, 1) * math.sqrt((half - 1) / rng.gammavariate(half, 1))
        drift = regime.drift + p.effect_size * sum(c * x for c, x in zip(beta, z, strict=True))
        log_price += a * (drift + own) + b * sigma * market_t + sector
        z = [f * x + math.sqrt(1 - f * f) * rng.gauss(0, 1) for f, x in zip(p.signal_persistence, z, strict=True)]
        price = math.exp(log_price)
        tick = tick_in_plain_words(price)
        price = math.floor(price / tick + 0.5) * tick
        top = math.floor(1.3 * close + 1e-9)
        bottom = math.ceil(0.7 * close - 1e-9)
        close = min(max(price, bottom + -bottom % tick_in_plain_words(bottom)), top - top % tick_in_plain_words(top))
    if 100 * (close - start) >= 3 * start:
        return 2
    return 0 if 100 * (close - start) <= -3 * start else 1


@pytest.mark.parametrize("volatile", [False, True])
def test_the_oracle_agrees_with_plain_simulation_of_every_shock_with_ticks_limits_and_halts(
    market: SyntheticMarket, volatile: bool
) -> None:
    """The second state is the most volatile stock at its widest, where the daily limit matters most."""
    state = market.state
    if volatile:
        wildest = market.listing["code"][int(np.argmax(market.stocks.base_volatility))]
        row = int(state.with_row_index().filter(pl.col("code") == wildest).sort("log_volatility")["index"][-20])
    else:
        row = int((state["volume"] ** 2 + state["overnight"] ** 2)[:20_000].arg_max() or 0)
    n = 4_000
    rng = random.Random(17)
    drawn = np.bincount([draw_ahead(market, row, True, rng) for _ in range(n)], minlength=3)
    stated = market.oracle([state["code"][row]], [state["date"][row]], 4_000).probabilities[0]
    assert (stated * n > 5).all()
    statistic = ((drawn - n * stated) ** 2 / (n * stated)).sum()
    assert statistic < chi2.ppf(0.999, 2), (drawn / n, stated)


@pytest.mark.parametrize(("market_volatility", "base_volatility"), [(0.012, 0.0112), (0.0005, 0.02)])
def test_the_oracle_agrees_to_the_third_digit_with_a_large_simulation_of_heavy_tails_and_quick_volatility(
    market_volatility: float, base_volatility: float
) -> None:
    usual = Parameters()
    before, after = (replace(regime, market_volatility=market_volatility) for regime in (usual.before, usual.after))
    heavy = replace(usual, before=before, after=after, degrees_of_freedom=3.5, market_beta_spread=0.9)
    heavy = replace(heavy, base_volatility=base_volatility, log_volatility_persistence=0.7, log_volatility_spread=0.6)
    heavy = replace(heavy, market_persistence=0.8, market_spread=0.5)
    market = make_market(13, n_stocks=30, n_days=120, parameters=heavy)
    stock = int(np.argmax(market.stocks.market_beta))
    of_stock = market.state.with_row_index().filter(pl.col("code") == market.listing["code"][stock])
    row = int(of_stock.sort("log_volatility")["index"][-30])  # far above its mean, so that it comes back
    state, n, rng = market.state.row(row, named=True), 400_000, np.random.default_rng(1)
    z = np.tile([state[name] for name in SIGNALS], (n, 1))
    h, common_h, moved = np.full(n, state["log_volatility"]), np.full(n, state["market_log_volatility"]), np.zeros(n)
    phi_z = np.array(heavy.signal_persistence)
    student_scale = math.sqrt(1.5 / 3.5)  # of unit variance at 3.5 degrees of freedom
    for ahead in range(1, 6):
        regime = after if market.calendar.index(state["date"]) + ahead >= market.regime_day else before
        h = -0.36 + 0.7 * (h + 0.36) + 0.6 * math.sqrt(1 - 0.49) * rng.standard_normal(n)
        common_h = -0.25 + 0.8 * (common_h + 0.25) + 0.5 * math.sqrt(1 - 0.64) * rng.standard_normal(n)
        factor = regime.market_volatility * np.exp(common_h)
        own = regime.drift + heavy.effect_size * z @ market.coefficients[market.stocks.sector[stock]]
        own += np.exp(h) * student_scale * rng.standard_t(3.5, n)
        moved += market.stocks.base_volatility[stock] * own
        moved += market.stocks.market_beta[stock] * factor * student_scale * rng.standard_t(3.5, n)
        moved += heavy.sector_factor * factor * rng.standard_normal(n)
        z = phi_z * z + np.sqrt(1 - phi_z**2) * rng.standard_normal(z.shape)
    start, end = market.panel["close"][row], exchange.round_to_tick(np.exp(state["log_price"] + moved))
    drawn = [(100 * (end - start) <= -3 * start).mean(), 0.0, (100 * (end - start) >= 3 * start).mean()]
    drawn[1] = 1 - drawn[0] - drawn[2]
    forecast = market.oracle([state["code"]], [state["date"]], 100_000)
    error = np.hypot(forecast.standard_error[0], math.sqrt(0.25 / n))
    assert error.max() < 0.0015
    assert (np.abs(forecast.probabilities[0] - drawn) < 4 * error).all()


# --- what is refused


def test_unknown_rows_and_sizes_are_refused(market: SyntheticMarket) -> None:
    with pytest.raises(ValueError, match=r"not.*first is \(999990"):
        market.oracle(["999990"], [market.calendar[0]])
    with pytest.raises(ValueError, match="effect: expected one of sector, none, got 'some'"):
        make_market(1, "some")
    with pytest.raises(ValueError, match="n_stocks"):
        make_market(1, n_stocks=19)
    with pytest.raises(ValueError, match="n_days"):
        make_market(1, n_days=50)
    with pytest.raises(ValueError, match="n_paths"):
        market.oracle([market.panel["code"][0]], [market.panel["date"][0]], n_paths=1)
