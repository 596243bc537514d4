"""What tests of the page do in a browser."""

import os
import re

import pytest

SIZES = {
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2},
    "tablet": {"viewport": {"width": 1024, "height": 768}},
    "wide": {"viewport": {"width": 1680, "height": 1050}},
}
EVERYWHERE = [pytest.param(size, scheme, id=f"{size}-{scheme}") for size in SIZES for scheme in ("light", "dark")]
READ, WRITE = "a-token-that-may-read", "a-token-that-may-write"
# As Linux has them. One is no UTF-8.
HOSTILE = [
    "<img src=x onerror=\"document.title='broken'\">.jpg",
    "\"><script>document.title='broken'<script>.jpg",
    "javascript:alert(1).jpg",
    "hash#query?per%20cent%&amp;=+.jpg",
    "line\nbreak\tand tab.jpg",
    "שלום \u202egpj.spoofed.jpg",
    "Ünïcødé 写真 🏛.jpg",
    "[1, 2].jpg",
    os.fsdecode(b"latin-\xe9\xff.jpg"),
    "  two  spaces  each .jpg",
]
HITS = "#grid li:not(.placeholder):not([hidden])"


def hits(page):
    """The names of the hits, as they are written, once a search has been answered."""
    settled(page)
    return page.locator(f"{HITS} .name").all_text_contents()


def settled(page):
    """Waits until a search has been answered."""
    page.locator("#found:not([aria-busy]) #took:not(:empty)").wait_for()


def choose(page, path):
    """Gives the page a photo of this device."""
    page.locator("#choose").set_input_files(path)
    page.locator("#search:not([hidden])").wait_for()
    settled(page)


def drag(page, start, end, touches=False):
    """Draws over the photo of the query, from and to shares of its sides, with a mouse or a finger."""
    page.locator("#stage.drawable").wait_for()
    page.locator("#stage").scroll_into_view_if_needed()
    frame = page.locator("#query-box").bounding_box()
    (x1, y1), (x2, y2) = ((frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in (start, end))
    steps = [(x1 + (x2 - x1) * step / 5, y1 + (y2 - y1) * step / 5) for step in range(6)]
    if touches:
        session = page.context.new_cdp_session(page)
        for kind, points in [("touchStart", steps[:1]), *(("touchMove", [step]) for step in steps[1:]), ("touchEnd", [])]:
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})
        return
    page.mouse.move(*steps[0])
    page.mouse.down()
    for step in steps[1:]:
        page.mouse.move(*step)
    page.mouse.up()


def box_of(page):
    """The box in the page's address, or `None`."""
    found = re.search(r"[?&]box=([^&]*)", page.evaluate("location.search"))
    return None if found is None else [float(corner) for corner in found[1].split(",")]


def focused(page):
    """The id of what has the focus, or its class, or its tag."""
    return page.evaluate("(e => e.id || e.className || e.tagName)(document.activeElement)")
