"""The report in a browser: it draws every plot, fetches nothing, and can be read in the light and in the dark."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pages import HOSTILE, whole_report
from playwright.sync_api import Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

#: Every element with text of its own: the text, and its contrast to what is behind it (WCAG 2.1, 1.4.3).
CONTRASTS = """() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = colour => {
    const linear = c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const [r, g, b] = channels(colour).map(c => linear(c / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if ((channels(colour)[3] ?? 1) > 0) return colour;
    }
  };
  return [...document.body.querySelectorAll("*")]
    .filter(each => [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
    .filter(each => each.getClientRects().length && !each.closest(".mark-text.role-mark"))
    .map(each => {
      const style = getComputedStyle(each);
      const [a, b] = [each.ownerSVGElement ? style.fill : style.color, behind(each)].map(luminance);
      return [each.textContent.trim().slice(0, 40), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)];
    });
}"""

#: Of every plot: its box, what it is called, and how many shapes were drawn with a size.
PLOTS = """() => [...document.querySelectorAll(".plot")].map(plot => {
  const svgs = plot.querySelectorAll("svg");
  const box = plot.getBoundingClientRect();
  const shapes = [...plot.querySelectorAll("svg .role-mark path, svg .role-mark line")];
  return {
    svgs: svgs.length,
    width: svgs[0]?.getBoundingClientRect().width ?? 0,
    room: box.width,
    height: box.height,
    label: svgs[0]?.getAttribute("aria-label") ?? "",
    shapes: shapes.filter(shape => { const b = shape.getBBox(); return b.width + b.height > 0; }).length,
  };
})"""


@dataclass
class Opened:
    """A page, and what the browser said and asked for meanwhile."""

    page: Page
    path: Path
    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        pytest.fail("no browser to open the report with: apt-get install chromium")
    path = whole_report(tmp_path_factory.mktemp("report"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=QUIET)
        context = browser.new_context(offline=True, color_scheme="light", viewport={"width": 1280, "height": 900})
        found = Opened(context.new_page(), path)
        found.page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
        found.page.on("pageerror", lambda error: found.said.append(f"error: {error}"))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.goto(path.as_uri())
        found.page.wait_for_selector("html[data-ready]", timeout=30_000)
        yield found
        browser.close()


@pytest.fixture
def page(opened: Opened) -> Iterator[Page]:
    """The page as it was opened; a test may change the circumstances."""
    yield opened.page
    opened.page.emulate_media(color_scheme="light", media="screen")
    opened.page.set_viewport_size({"width": 1280, "height": 900})


def test_nothing_is_wrong_and_nothing_fetched(opened: Opened) -> None:
    assert opened.said == []
    assert opened.requests == [opened.path.as_uri()]
    assert opened.path.stat().st_size < 1_500_000


def test_every_plot_is_drawn(page: Page) -> None:
    plots: list[dict[str, Any]] = page.evaluate(PLOTS)
    # compared, wrong (nothing to compare), staged (a plot of stages), old (ratios and steps), empty (throughput), and
    # two swept keys with six metrics each
    assert len(plots) == page.locator("[data-drawn]").count() == 9 + 8 + 10 + 2 + 1 + 2 * 6
    for plot in plots:
        assert plot["svgs"] == 1
        assert plot["shapes"] > 0, plot["label"]
        assert plot["height"] > 80
        assert 0.97 < plot["width"] / plot["room"] < 1.01, plot["label"]


def test_every_plot_has_a_name_and_every_heading_its_place(page: Page) -> None:
    assert all(plot["label"] for plot in page.evaluate(PLOTS))
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(each => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.locator("html[lang=en]").count() == 1
    assert (
        page.locator(
            "figure:has(.plot):not(:has(details)):not(:has-text('Scaling')):not(:has-text('over time'))"
        ).count()
        == 0
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 500
    assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []


def test_the_dark_needs_no_second_drawing(page: Page, tmp_path: Path) -> None:
    def colours() -> list[str]:
        look = "(selector, key) => getComputedStyle(document.querySelector(selector))[key]"
        return [
            page.evaluate(f"({look})({selector!r}, {key!r})")
            for selector, key in (
                ("body", "backgroundColor"),
                (".plot .role-axis-label text", "fill"),
                (".plot .mark-symbol.role-mark path", "fill"),
                (".plot .mark-line path", "stroke"),
            )
        ]

    light = colours()
    page.screenshot(path=tmp_path / "light.png")
    page.emulate_media(color_scheme="dark")
    dark = colours()
    page.screenshot(path=tmp_path / "dark.png")
    assert all(one != other for one, other in zip(light, dark, strict=True))
    assert min((tmp_path / f"{name}.png").stat().st_size for name in ("light", "dark")) > 20_000


def test_paper_is_light_even_in_the_dark(page: Page) -> None:
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert all(ratio >= 4.5 for _, ratio in page.evaluate(CONTRASTS))


def test_a_narrow_screen_scrolls_within_plots_and_tables_only(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("[...document.querySelectorAll('.frame')].some(each => each.scrollWidth > each.clientWidth)")
    # No column is so narrow that words break within.
    widths = page.evaluate(
        "[...document.querySelectorAll('td')].filter(e => e.innerText.length > 28).map(e => e.offsetWidth)"
    )
    assert min(filter(None, widths)) > 150


@pytest.mark.parametrize("width", [1200, 800, 390])
def test_a_verdict_stays_on_one_line(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    badges: list[dict[str, float]] = page.evaluate(
        """() => [...document.querySelectorAll(".verdict")].map(each => ({
          lines: each.getBoundingClientRect().height / parseFloat(getComputedStyle(each).lineHeight),
          rects: each.getClientRects().length,
        }))"""
    )
    assert len(badges) == 2 * 7  # in the overview and above each result
    assert all(badge["lines"] < 1.5 and badge["rects"] == 1 for badge in badges)


def test_numbers_stand_right_aligned_under_their_headers(page: Page) -> None:
    cells: list[list[str]] = page.evaluate(
        """() => [...document.querySelectorAll("table")].flatMap(table =>
          [...table.querySelectorAll("tr")].map(row => [...row.children].map(
            each => [each.tagName, each.innerText.trim(), getComputedStyle(each).textAlign])).flat())"""
    )
    times = {align for tag, text, align in cells if re.fullmatch(r"[\d.]+ [num]?s", text)}
    assert times == {"right"}
    assert {align for tag, text, align in cells if tag == "TH" and text in ("p50", "p90", "p99", "max")} == {"right"}
    assert {align for tag, text, align in cells if text == "block-first"} <= {"left", "start"}


def test_what_a_result_holds_is_text_and_nothing_else(page: Page) -> None:
    assert page.evaluate("window.hacked") is None
    assert page.title() == HOSTILE
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator(".note.bad").inner_text()


def test_the_policy_stops_a_script_that_got_in(opened: Opened) -> None:
    opened.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.hacked = 1";
          document.body.append(script);
        }"""
    )
    assert opened.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in line for line in opened.said)
    opened.said.clear()
