"""Pages in a real browser: the system's Chromium, driven by playwright, which fetches none of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from lasps.data import integrity
from lasps.data.integrity.show import write_html
from lasps.data.sources.synthetic import make_market
from lasps.pages.comparison import comparison_page

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)")
DESK, PHONE = (1400, 900), (390, 844)
CONTRAST = 4.5
"""WCAG 2.1 AA, for text."""

EMPTY = """() => [...document.querySelectorAll('h1,h2,h3,p,td,th,li,summary,figcaption,.chart,table,section,figure')]
  .filter(e => !e.closest('details:not([open])') && !e.textContent.trim() && !e.querySelector('svg,img'))
  .map(e => e.outerHTML.slice(0, 120))"""
BLANK_COLUMNS = """() => [...document.querySelectorAll('table')].flatMap(t => [...t.tHead.rows[0].cells].map((th, i) =>
  [th.textContent, new Set([...t.tBodies[0].rows].map(r => r.cells[i].textContent.trim()))]))
  .filter(([, texts]) => [...texts].every(x => x === '-')).map(([title]) => title)"""
UNDRAWN = """() => [...document.querySelectorAll('.chart')]
  .filter(c => !c.closest('details:not([open])') && c.querySelectorAll('svg path, svg line, svg text').length < 5)
  .map(c => c.getAttribute('aria-label'))"""
FAINT = """(limit) => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const lum = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c[3] === 255) return c; } throw Error('nothing opaque behind the text'); };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  for (let n; (n = walker.nextNode());) {
    const e = n.parentElement, style = getComputedStyle(e);
    if (!n.textContent.trim() || ['SCRIPT', 'STYLE'].includes(e.tagName) || e.closest('details:not([open])')) continue;
    if (style.visibility === 'hidden' || !e.getClientRects().length) continue;
    const ink = rgb(e.closest('svg') ? style.fill : style.color), a = lum(ink), b = lum(behind(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < limit) found.push([n.textContent.trim().slice(0, 40), ratio.toFixed(2)]);
  }
  return found; }"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make setup)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, tmp_path) -> Iterator[Any]:
    """Open HTML text at a size and colour scheme; anything said on the console fails the test."""
    said: list[str] = []
    contexts: list[Any] = []

    def opened(html: str, size: tuple[int, int] = DESK, scheme: str = "light", unfold: bool = False) -> Any:
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.set_default_timeout(120_000)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready=yes]", state="attached")
        if unfold:
            page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
            page.wait_for_function("[...document.querySelectorAll('.chart')].every(c => c.querySelector('svg'))")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture(scope="module")
def integrity_page(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("integrity") / "page.html"
    return write_html(integrity.check(raw=make_market(seed=7, n_stocks=40, n_days=200).panel), path).read_text("utf-8")


def test_the_first_screen_holds_verdict_plot_and_table(made, open_page) -> None:
    page = open_page(comparison_page(made()))
    for selector in ("#verdict", "#first .chart svg", "#first table"):
        box = page.locator(selector).bounding_box()
        assert box is not None and box["height"] > 20 and box["y"] + box["height"] <= DESK[1], (selector, box)
    words = page.locator("#first .chart").inner_text()
    assert "LightGBM: better" in words and "the oracle: still to gain" in words


@pytest.mark.parametrize("dated", [True, False])
def test_nothing_on_the_page_is_empty_even_unfolded(made, open_page, dated: bool) -> None:
    page = open_page(comparison_page(made(splits=("test", "val"), dated=dated)), unfold=True)
    assert page.evaluate(EMPTY) == [] and page.evaluate(UNDRAWN) == [] and page.evaluate(BLANK_COLUMNS) == []


def test_a_table_sorts_by_a_click_both_ways_and_by_the_keyboard(made, open_page) -> None:
    page = open_page(comparison_page(made()))
    names = "() => [...document.querySelectorAll('#first tbody tr')].map(r => r.cells[0].firstChild.textContent)"
    title = page.locator("#first th", has_text="log loss")
    title.click()
    assert page.evaluate(names)[:2] == ["volatility_bins", "lightgbm"]
    title.press("Enter")
    assert page.evaluate(names)[:2] == ["oracle", "phase2_best"]
    assert title.get_attribute("aria-sort") == "ascending"
    page.locator("#first th", has_text="model").click()
    assert page.evaluate(names)[0] == "lightgbm"


def test_undefined_numbers_stay_at_the_end_of_a_sorted_table(made, open_page) -> None:
    page = open_page(comparison_page(made()), unfold=True)
    title = page.locator("#rest table").first.locator("th", has_text="ICIR").first
    column = title.evaluate("th => th.cellIndex")
    for _ in range(2):
        title.click()
        last = page.locator("#rest table").first.locator("tbody tr").last.locator("td").nth(column)
        assert last.inner_text() == "-"


def test_hovering_a_plot_tells_its_values(made, open_page) -> None:
    page = open_page(comparison_page(made()))
    page.locator("#first .chart svg .mark-symbol path").first.hover()
    assert "phase3_final" in page.locator("#tip").inner_text() and "−0.04" in page.locator("#tip").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(made, integrity_page, open_page, scheme: str) -> None:
    for html in (comparison_page(made(n_days=62, shift=0.06, splits=("test", "val"))), integrity_page):
        page = open_page(html, scheme=scheme, unfold=True)
        assert page.evaluate(FAINT, CONTRAST) == []


def test_a_phone_does_not_scroll_sideways(made, integrity_page, open_page) -> None:
    for html in (comparison_page(made(splits=("test", "val"))), integrity_page):
        page = open_page(html, size=PHONE, unfold=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        clipped = page.evaluate(
            "[...document.querySelectorAll('.chart svg')].filter(s => s.getBoundingClientRect().right"
            f" > {PHONE[0]} || s.getBoundingClientRect().width < 250).length"
        )
        assert clipped == 0


def test_the_integrity_page_says_what_is_wrong_and_draws_the_data(integrity_page, open_page) -> None:
    page = open_page(integrity_page, unfold=True)
    assert page.locator("h1").inner_text().startswith(("Fit to train on", "Not fit to train on"))
    assert page.evaluate(EMPTY) == [] and page.evaluate(UNDRAWN) == [] and page.locator(".chart svg").count() == 2
