"""The report in a browser: quiet, alone, sorted and filtered, readable in the dark and on a phone."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import pytest

import reports

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ALONE = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
DARK = 0.2
"""Relative luminance below which a page is dark."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=ALONE)
        yield found
        found.close()


@pytest.fixture(scope="module")
def written(make, tmp_path_factory):
    path = tmp_path_factory.mktemp("browser") / "golden.json"
    content = make.golden()
    content["convbench"]["gains"] = {"im2col": "one matrix product"}
    path.write_text(json.dumps(content))
    return reports.write(path, path.parent / "out")


@pytest.fixture
def opened(browser, written):
    """A function that opens the report; what the browser has to say, and asks for, is collected."""
    pages = []

    def open_page(width=1280, scheme="light", path=written):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()


def rows(page):
    return page.eval_on_selector_all(
        "[data-results] tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )


def column(page, head):
    heads = page.eval_on_selector_all("[data-results] th", "heads => heads.map(head => head.textContent)")
    return [row[heads.index(head)] for row in rows(page)]


def sort_by(page, head):
    page.locator("[data-results] th button").get_by_text(head, exact=True).click()


def luminance(page, selector, what):
    """The relative luminance of a computed colour (WCAG)."""
    text = page.eval_on_selector(selector, f"element => getComputedStyle(element).{what}")
    parts = [int(part) / 255 for part in text[text.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_no_error_and_no_request_leaves_the_page(opened, written):
    page = opened()
    page.eval_on_selector_all("img", "pictures => pictures.forEach(picture => { picture.loading = 'eager' })")
    page.wait_for_function("[...document.images].every(picture => picture.complete && picture.naturalWidth)")
    assert len(page.query_selector_all("img")) > 10
    assert page.said == []
    others = [url for url in page.asked if not url.startswith("data:")]
    assert others == [written.as_uri()]


def test_every_result_is_in_the_table(opened):
    assert len(rows(opened())) == 13


def test_sorting(opened):
    page = opened()
    sort_by(page, "median time")
    assert column(page, "median time")[:3] == ["2.00 ms", "4.00 ms", "8.00 ms"]
    assert page.get_attribute("[data-results] th[aria-sort]", "aria-sort") == "ascending"
    sort_by(page, "median time")
    assert column(page, "median time")[:3] == ["900 ms", "800 ms", "600 ms"]
    sort_by(page, "layer")
    layers = column(page, "layer")
    assert all(one <= other for one, other in pairwise(layers))
    assert layers[0] != layers[-1]
    for _ in range(2):  # what is not known stands last, up or down
        sort_by(page, "compile time")
        assert column(page, "compile time")[2:] == ["\N{EN DASH}"] * 11


def test_filtering(opened):
    page = opened()
    page.get_by_label("search").fill("CONV im2")
    assert set(column(page, "backend")) == {"im2col"}
    assert "5 cases shown, of 13 in all" in page.inner_text("[data-results]")
    page.locator("[data-results] [name='batch size']").select_option("32")
    assert column(page, "layer") == ["a:conv"]
    page.get_by_label("search").fill("nothing like it")
    assert rows(page) == []
    page.get_by_label("search").fill("")
    page.locator("[data-results] [name='batch size']").select_option("")
    assert len(rows(page)) == 13


def test_a_long_table_is_shown_in_part_until_asked_for(opened, make, tmp_path):
    timed = [make.timed("a:conv", "numba", batch, 0.001 * batch) for batch in range(1, 231)]
    path = tmp_path / "long.json"
    path.write_text(json.dumps(make.document(timed)))
    page = opened(path=reports.write(path, tmp_path / "out"))
    assert len(rows(page)) == 200
    page.get_by_text("show all").click()
    assert len(rows(page)) == 230


def test_the_ladder_of_a_chosen_layer(opened):
    page = opened()
    assert page.locator(".rungs .name").all_inner_texts() == ["loops", "im2col", "numba"]
    assert "100\N{MULTIPLICATION SIGN} as fast as the one above: one matrix product" in page.inner_text(
        ".rungs"
    )
    page.locator("[data-ladder] [name=layer]").select_option("d:pool")
    assert "Fewer than two backends have times here" in page.inner_text(".rungs")
    page.locator("[data-ladder] [name='batch size']").select_option("8")
    assert page.locator(".rungs .name").all_inner_texts() == ["loops", "numba"]
    assert "50.0\N{MULTIPLICATION SIGN} as fast" in page.inner_text(".rungs")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out_in_either_scheme(opened, scheme):
    page = opened(scheme=scheme)
    ground = luminance(page, "body", "backgroundColor")
    assert (ground < DARK) == (scheme == "dark")
    places = (
        "p",
        "h2",
        "a",
        "small",
        ".soft",
        "th button",
        "td",
        "select",
        "label",
        ".doubt strong",
        ".why b",
    )
    for selector in places:
        ink = luminance(page, selector, "color")
        light, dark = max(ink, ground), min(ink, ground)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, selector  # WCAG 2.1, level AA


def test_a_phone_scrolls_figures_and_tables_not_the_page(opened):
    page = opened(width=400)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    wide = page.eval_on_selector_all(
        "p, h1, h2, h3, form, .scroll, .rungs, pre",
        "all => all.filter(one => one.getBoundingClientRect().right > 400).map(one => one.outerHTML)",
    )
    assert wide == []


def test_a_print_shows_whole_tables(opened):
    page = opened()
    page.emulate_media(media="print")
    assert page.eval_on_selector("[data-results] form", "form => getComputedStyle(form).display") == "none"
    assert page.eval_on_selector(".tall", "table => getComputedStyle(table).maxHeight") == "none"
