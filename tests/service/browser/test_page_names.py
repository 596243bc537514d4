"""Names that would break a page, or an address, are names like others."""

import json

import pytest
from service.browser.page_driver import HITS, HOSTILE, hits

from rw_keras.files import printable

pytestmark = pytest.mark.browser


def test_hostile_names_are_shown(visit):
    page = visit("/?name=cat.jpg&within=hostile/")
    assert sorted(hits(page)) == sorted(printable(f"hostile/{name}") for name in HOSTILE)
    page.wait_for_load_state("networkidle")
    pictures = "[...document.querySelectorAll('#grid img')].filter(image => image.naturalWidth > 0).length"
    assert page.evaluate(pictures) == len(HOSTILE)
    assert page.evaluate("document.querySelectorAll('#grid script, #grid img[onerror]').length") == 0
    assert page.title() == "Photos like cat.jpg · rw_keras"


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_is_searched_with_and_opened(visit, name):
    written = printable(f"hostile/{name}")
    page = visit("/?name=cat.jpg&within=hostile/", permissions=["clipboard-read", "clipboard-write"])
    place = hits(page).index(written)
    page.locator(f"{HITS} .hit").nth(place).click()
    page.locator("#viewer").wait_for()
    assert page.locator("#viewer-name").text_content() == written
    page.reload()
    page.locator("#viewer-facts", has_text=" of 10").wait_for()
    assert page.locator("#viewer-name").text_content() == written
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.getElementById('viewer-photo').naturalWidth") > 0
    page.locator("#viewer-why").click()
    page.locator(".pair-chip").first.wait_for()
    page.locator("#viewer-from").click()
    page.locator("#viewer").wait_for(state="hidden")
    assert page.locator("#search-title").text_content() == f"Photos like {written}"
    assert hits(page)[0] == written
    page.reload()
    assert hits(page)[0] == written
    assert page.locator("#search-title").text_content() == f"Photos like {written}"


def test_a_photo_of_this_device_explains_hostile_names(visit, gallery):
    page = visit("/?within=hostile/")
    page.locator("#choose").set_input_files(gallery / "photos" / "tissue.jpg")
    for name in (HOSTILE[7], HOSTILE[8]):  # "[1, 2].jpg", and what is no UTF-8
        place = hits(page).index(printable(f"hostile/{name}"))
        page.locator(f"{HITS} .hit").nth(place).click()
        page.locator("#viewer-why").click()
        page.locator(".pair-chip").first.wait_for()
        page.keyboard.press("Escape")
        page.locator("#viewer").wait_for(state="hidden")


def test_names_are_written_as_python_writes_them(visit):
    page = visit()
    texts = [
        "a b",
        "\0\x1b\x7f",
        "\x85\xa0\xad",
        "\u200b\u2028\u202e\u3000",
        "\ue000\U000e0001",
        "🏛é\u0301",
        "\udce9\udcff",
        "a\\b\t\n\r",
    ]
    # A name of the index, and one of this device, which may have a lone surrogate of any kind.
    written = page.evaluate(
        """async texts => {
          const { printable } = await import("/page/names.js");
          return JSON.parse(texts).map(printable);
        }""",
        json.dumps(texts),
    )
    assert written == [printable(text) for text in texts]


def test_names_in_addresses(visit):
    page = visit()
    texts = ["a/b c.jpg", "%41+&=#?", "é写🏛", "\udce9\udcff.jpg", "\udc80é\udcc3", "\ufeffa", "\u202e\n\0"]
    found = page.evaluate(
        """async texts => {
          const { encodeName, decodeName } = await import("/page/names.js");
          const own = JSON.parse(texts);
          return JSON.stringify([own.map(encodeName), own.map(text => decodeName(encodeName(text)))]);
        }""",
        json.dumps(texts),
    )
    import os
    import urllib.parse

    encoded, back = json.loads(found)
    assert encoded == [urllib.parse.quote(os.fsencode(text), safe="/") for text in texts]
    assert back == texts
