"""Searching on the page as somebody does: at three sizes, in light and dark."""

import re

import pytest
from service.browser.page_driver import EVERYWHERE, HITS, box_of, choose, drag, hits, settled

from rw_keras.files import printable

pytestmark = pytest.mark.browser

# What the gallery's temple.jpg has.
WIDTH, HEIGHT = 320, 214


def names(answer):
    return [printable(hit["name"]) for hit in answer["hits"]]


@pytest.mark.parametrize("size, scheme", EVERYWHERE)
def test_a_search(visit, gallery, ask, look, size, scheme):
    page = visit("/", size, scheme)
    page.locator("#starts-list img").first.wait_for()
    assert re.fullmatch(r"\d+ photos in gallery", page.locator("#starts-facts").text_content())
    look(page, f"home-{size}-{scheme}")

    choose(page, gallery / "photos" / "temple.jpg")
    assert page.locator("#search-title").text_content() == "Photos like temple.jpg"
    assert hits(page) == names(ask(name="temple.jpg", k=60))
    look(page, f"search-{size}-{scheme}")

    drag(page, (0.25, 0.2), (0.75, 0.8), size == "phone")
    page.locator("#clear-box").wait_for()
    box = box_of(page)
    assert box == pytest.approx([0.25 * WIDTH, 0.2 * HEIGHT, 0.75 * WIDTH, 0.8 * HEIGHT], abs=2)
    assert hits(page) == names(ask(name="temple.jpg", box=box, k=60))
    look(page, f"box-{size}-{scheme}")

    page.locator(f"{HITS} .hit").nth(1).click()
    page.locator("#viewer").wait_for()
    assert page.locator("#viewer-name").text_content() == hits(page)[1]
    look(page, f"viewer-{size}-{scheme}")
    page.keyboard.press("ArrowRight")
    page.locator("#viewer-facts", has_text="3 of").wait_for()
    assert page.locator("#viewer-name").text_content() == hits(page)[2]

    page.locator("#viewer-why").click()
    page.locator(".pair-chip").first.wait_for()
    assert page.locator(".both img").count() == 2
    look(page, f"why-{size}-{scheme}")
    page.keyboard.press("Escape")
    page.locator("#viewer").wait_for(state="hidden")

    third = hits(page)[2]
    page.locator(f"{HITS} .from").nth(2).click()
    page.locator("#search-title", has_text=third).wait_for()
    assert hits(page)[0] == third
    page.go_back()
    page.locator("#search-title", has_text="temple.jpg").wait_for()
    assert box_of(page) == box
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_the_photo_goes_up_as_it_is(visit, gallery, service):
    """Its bytes, and no name of this device."""
    page = visit()
    page.evaluate(
        """() => {
          window.sent = [];
          const real = window.fetch;
          window.fetch = (url, options) => {
            if (options?.body instanceof FormData) sent.push(...options.body.entries());
            return real(url, options);
          };
        }"""
    )
    choose(page, gallery / "photos" / "retina.jpg")
    sent = page.evaluate("Promise.all(sent.map(async ([k, v]) => [k, v.name ?? v, v.bytes ? [...await v.bytes()] : null]))")
    assert [(field, value) for field, value, _ in sent] == [("index", "gallery"), ("k", "60"), ("file", "The photo")]
    assert bytes(sent[-1][2]) == (gallery / "photos" / "retina.jpg").read_bytes()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_photo_is_dropped_or_pasted(visit, gallery, way):
    page = visit()
    page.locator("#starts-list img").first.wait_for()
    content = list((gallery / "photos" / "coffee.jpg").read_bytes())
    page.evaluate(
        """([way, content]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(content)], "mine.jpg", { type: "image/jpeg" }));
          const fire = name => document.body.dispatchEvent(
            name === "paste"
              ? new ClipboardEvent(name, { clipboardData: data, bubbles: true, cancelable: true })
              : new DragEvent(name, { dataTransfer: data, bubbles: true, cancelable: true }));
          if (way === "drop") ["dragenter", "dragover"].forEach(fire);
          window.sign = !document.getElementById("dropping").hidden;
          fire(way);
        }""",
        [way, content],
    )
    page.locator("#search-title", has_text="mine.jpg").wait_for()
    assert page.evaluate("sign") == (way == "drop")
    assert page.locator("#dropping").is_hidden()
    assert set(hits(page)[:2]) == {"coffee.jpg", "copy of coffee.jpg"}


def test_what_is_no_photo_is_not_taken(visit):
    page = visit()
    page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File(["text"], "a.txt", { type: "text/plain" }));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }"""
    )
    assert "not a photo" in page.locator("#note").text_content()
    assert page.locator("#home").is_visible()


def test_a_box_is_moved_and_resized(visit):
    page = visit("/?name=temple.jpg&box=80,40,160,120")
    settled(page)
    drag(page, (0.4, 0.4), (0.5, 0.5))  # within it: it is moved
    settled(page)
    assert box_of(page) == pytest.approx([80 + 32, 40 + 21, 160 + 32, 120 + 21], abs=2)
    moved = box_of(page)
    drag(page, (moved[2] / WIDTH, moved[3] / HEIGHT), (0.9, 0.9))  # its corner
    assert box_of(page) == pytest.approx([*moved[:2], 0.9 * WIDTH, 0.9 * HEIGHT], abs=3)
    drag(page, (0.05, 0.95), (0.02, 0.99))  # far too small a one is made as large as the network needs
    assert box_of(page)[2] - box_of(page)[0] >= 16
    page.locator("#clear-box").click()
    assert box_of(page) is None
    assert page.locator("#query-box rect").count() == 0


def test_a_box_by_keyboard(visit):
    page = visit("/?name=temple.jpg")
    page.locator("#stage.drawable").focus()
    page.keyboard.press("Enter")
    page.locator("#clear-box").wait_for()
    assert box_of(page) == [80, 54, 240, 161]
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowUp"):
        page.keyboard.press(key)
    page.locator("#box-status", has_text="percent of the photo").wait_for()
    page.wait_for_url(lambda url: "box=93," in url)
    assert box_of(page) == pytest.approx([80 + 2 * 6.4, 54 + 4.28, 240 + 3 * 6.4, 161], abs=1)
    settled(page)
    page.keyboard.press("Escape")
    page.locator("#clear-box").wait_for(state="hidden")
    assert box_of(page) is None
    assert page.locator("#stage").evaluate("e => e === document.activeElement")


def test_more_hits_come_by_scrolling_and_by_the_button(visit, ask):
    page = visit("/?name=cat.jpg", scheme="dark")
    settled(page)
    total = ask(name="cat.jpg", k=1)["total"]
    assert page.locator("#hits").text_content() == f"{total} hits"
    assert 60 < total <= 120
    for _ in range(20):
        page.mouse.wheel(0, 3000)
        if page.locator(HITS).count() == total:
            break
        page.wait_for_timeout(100)
    assert hits(page) == names(ask(name="cat.jpg", k=total))
    assert page.locator(f"{HITS} .rank").all_text_contents() == [str(rank) for rank in range(1, total + 1)]
    assert page.locator("#more").is_hidden()


def test_more_hits_by_the_button_alone(visit, ask):
    page = visit("/?name=cat.jpg", size="phone")
    settled(page)
    page.evaluate("document.getElementById('more').click()")
    page.locator(".rank", has_text=re.compile("^61$")).wait_for()


def test_options_are_those_of_the_search(visit, ask):
    page = visit("/?name=rocket.jpg")
    settled(page)
    assert page.locator("#rerank").is_checked() == (ask(name="rocket.jpg")["measure"] == "score")

    page.locator("#expand").click()
    assert hits(page) == names(ask(name="rocket.jpg", k=60, expand=5))
    assert "expand=5" in page.url
    page.locator("#expand").click()

    was = page.locator("#rerank").is_checked()
    page.locator("#rerank").click()
    assert hits(page) == names(ask(name="rocket.jpg", k=60, rerank=0 if was else 400))

    page.locator("#leave").click()
    page.locator("#options-set", has_text="2 set").wait_for()
    assert "rocket.jpg" not in hits(page)

    page.locator("#within").fill("views/")
    page.wait_for_url("**within=views/**")
    page.locator("#options-set", has_text="3 set").wait_for()
    assert all(name.startswith("views/") for name in hits(page))

    page.locator("#within").fill("nowhere/")
    page.locator("#search-problem", has_text="Nothing was found").wait_for()
    page.get_by_role("button", name="Without these limits").click()
    settled(page)
    assert page.locator("#within").input_value() == ""
    assert len(hits(page)) == 60


def test_conditions_on_metadata(visit, ask):
    page = visit("/?name=cat.jpg")
    settled(page)
    field = page.get_by_label("subject")
    field.fill("coffee")
    field.press("Enter")
    page.locator("#hits", has_text=re.compile(r"^\d hits")).wait_for()
    assert hits(page) == names(ask(name="cat.jpg", within=["subject=coffee"], k=60))
    page.get_by_label("width").fill(">400")
    page.get_by_label("width").press("Enter")
    page.locator("#search-problem", has_text="Nothing was found").wait_for()
    assert page.locator("#within").is_disabled()


def test_the_threshold(visit, ask):
    page = visit("/?name=cat.jpg&rerank=0")
    settled(page)
    slider = page.locator("#min")
    slider.fill("0.8")
    wanted = names(ask(name="cat.jpg", rerank=0, min_score=0.8, k=60))
    page.wait_for_url("**min=0.8**")
    assert hits(page) == wanted
    assert 0 < len(wanted) < 60
    assert page.locator("#min-value").text_content() == "0.80"


def test_another_index(visit):
    page = visit("/?name=cat.jpg&expand=5")
    settled(page)
    page.locator("#index").select_option("views")
    page.locator("#home").wait_for()
    assert page.url.endswith("/?index=views")
    page.locator("#starts-list .hit").first.click()
    settled(page)
    assert page.locator("#rerank-choice").is_hidden()  # it has no regions
    assert "index=views" in page.url


def test_copies(visit, service):
    page = visit("/?name=cat.jpg&open=copy%20of%20cat.jpg", permissions=["clipboard-read", "clipboard-write"])
    page.locator("#viewer").wait_for()
    page.locator("#viewer-copy").click()
    page.locator("#note", has_text="The name copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "copy of cat.jpg"
    page.keyboard.press("Escape")
    page.locator("#share").click()
    page.locator("#note", has_text="The link copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == f"{service}/?name=cat.jpg"


def test_nothing_moves_while_photos_come(visit):
    page = visit("/?name=temple.jpg")
    page.evaluate(
        """() => {
          window.moved = [];
          new PerformanceObserver(list => {
            for (const entry of list.getEntries())
              for (const { node } of entry.sources) if (node?.closest?.("#grid")) moved.push(entry.value);
          }).observe({ type: "layout-shift", buffered: true });
        }"""
    )
    settled(page)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("moved") == []


def test_less_motion(visit):
    page = visit("/?name=temple.jpg", reduced_motion="reduce")
    settled(page)
    moving = page.evaluate(
        "[...document.querySelectorAll('*')].filter(e => parseFloat(getComputedStyle(e).transitionDuration) > 0).length"
    )
    assert moving == 0


def test_colours_are_chosen_and_kept(visit):
    page = visit("/", scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(246, 246, 248)"
    page.get_by_role("button", name="Dark colours").click()
    assert page.evaluate(background) == "rgb(19, 20, 23)"
    page.reload()
    assert page.evaluate(background) == "rgb(19, 20, 23)"
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"
