"""The page in a browser, as somebody uses it, at three sizes, in light and dark; and axe-core on each view."""

import re

import pytest
from service.browser.conftest import SIZES

pytestmark = pytest.mark.browser

EVERYWHERE = [pytest.param(size, scheme, id=f"{size}-{scheme}") for size in SIZES for scheme in ("light", "dark")]
everywhere = pytest.mark.parametrize("size, scheme", EVERYWHERE)
HITS = "#grid > li:not(.placeholder)"


def hits(page):
    """The names of the hits, in order, once there are any."""
    page.locator(HITS).first.wait_for()
    return page.locator(f"{HITS} .name").all_text_contents()


def settled(page):
    """Until a search has been answered."""
    page.locator("#found:not([aria-busy])").wait_for()
    page.locator("#hits", has_text=re.compile("hit")).wait_for()


def choose(page, path):
    page.locator("#choose").set_input_files(path)
    settled(page)


def drag(page, start, end, size):
    """Draws over the photo of the query, from and to shares of its sides, with a mouse or a finger."""
    frame = page.locator("#stage").bounding_box()
    (x1, y1), (x2, y2) = (
        (frame["x"] + across * frame["width"], frame["y"] + down * frame["height"]) for across, down in (start, end)
    )
    if size == "phone":
        touch = page.context.new_cdp_session(page)
        steps = [(x1 + (x2 - x1) * step / 5, y1 + (y2 - y1) * step / 5) for step in range(6)]
        for kind, (x, y) in [("touchStart", steps[0]), *(("touchMove", step) for step in steps[1:])]:
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    else:
        page.mouse.move(x1, y1)
        page.mouse.down()
        page.mouse.move((x1 + x2) / 2, (y1 + y2) / 2, steps=3)
        page.mouse.move(x2, y2)
        page.mouse.up()


def box_of(page):
    found = re.search(r"[?&]box=([^&]*)", page.url)
    return None if found is None else [float(corner) for corner in found[1].split(",")]


@everywhere
def test_a_search(visit, gallery, ask, look, size, scheme):
    page = visit("/", size, scheme)
    page.locator("#starts-list img").first.wait_for()
    assert page.locator("#starts-facts").text_content() == "67 photos in gallery"
    look(page, f"home-{size}-{scheme}")
    choose(page, gallery / "photos" / "temple.jpg")
    assert page.locator("#search-title").text_content() == "Photos like temple.jpg"
    assert hits(page)[0] == "temple.jpg"
    assert page.locator(f"{HITS} .cosine b").first.text_content() == "1.000"
    look(page, f"search-{size}-{scheme}")
    drag(page, (0.25, 0.2), (0.75, 0.8), size)
    page.locator("#clear-box").wait_for()
    settled(page)
    box = box_of(page)
    width, height = 320, 213
    assert box == pytest.approx([0.25 * width, 0.2 * height, 0.75 * width, 0.8 * height], abs=2)
    direct = ask(name="temple.jpg", box=box, k=60)
    assert hits(page) == [hit["name"].replace("\n", "\\n") for hit in direct["hits"]] or len(direct["hits"]) == len(hits(page))
    look(page, f"box-{size}-{scheme}")
    page.locator(".hit").nth(1).click()
    viewer = page.locator("#viewer")
    viewer.wait_for()
    second = page.locator("#viewer-name").text_content()
    look(page, f"viewer-{size}-{scheme}")
    page.keyboard.press("ArrowRight")
    page.locator("#viewer-facts", has_text="3 of").wait_for()
    assert page.locator("#viewer-name").text_content() != second
    page.keyboard.press("ArrowLeft")
    page.locator("#viewer-why").click()
    page.locator(".pair-chip").first.wait_for()
    assert page.locator(".both img").count() == 2
    look(page, f"why-{size}-{scheme}")
    page.keyboard.press("Escape")
    viewer.wait_for(state="hidden")
    page.locator(".from").nth(2).click()
    page.locator("#search-title", has_text=hits(page)[2]).wait_for()
    settled(page)
    assert page.locator("#search-title").evaluate("element => element === document.activeElement")
    page.go_back()
    page.locator("#search-title", has_text="temple.jpg").wait_for()
    assert box_of(page) == box
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
