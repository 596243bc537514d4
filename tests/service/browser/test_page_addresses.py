"""The address has the state: back, forward, reload and links work."""

import pytest
from service.browser.page_driver import HITS, box_of, choose, drag, hits, settled

pytestmark = pytest.mark.browser


def test_back_and_forward(visit, gallery):
    page = visit()
    page.locator("#starts-list img").first.wait_for()
    choose(page, gallery / "photos" / "cat.jpg")
    first = hits(page)
    drag(page, (0.2, 0.2), (0.7, 0.7))
    box = box_of(page)
    boxed = hits(page)
    page.locator("#expand").click()
    page.locator("#options-set", has_text="1 set").wait_for()
    settled(page)
    page.locator(f"{HITS} .hit").first.click()
    page.locator("#viewer").wait_for()
    asked = len(page.asked)

    page.go_back()
    page.locator("#viewer").wait_for(state="hidden")
    page.go_back()
    page.locator("#expand:not(:checked)").wait_for()
    assert (box_of(page), hits(page)) == (box, boxed)
    page.go_back()
    page.locator("#clear-box").wait_for(state="hidden")
    assert hits(page) == first
    assert not [one for one in page.asked[asked:] if one.url.endswith("/v1/search")]  # they are kept
    page.go_back()
    page.locator("#home").wait_for()
    for _ in range(4):
        page.go_forward()
    page.locator("#viewer").wait_for()
    assert page.locator("#expand").is_checked()


def test_a_reload_keeps_the_photo_of_this_device(visit, gallery):
    page = visit()
    choose(page, gallery / "photos" / "coffee.jpg")
    drag(page, (0.2, 0.2), (0.7, 0.7))
    found, box = hits(page), box_of(page)
    page.reload()
    assert hits(page) == found
    assert box_of(page) == box
    assert page.locator("#query-box rect.box").count() == 1
    assert page.locator("#search-title").text_content() == "Photos like coffee.jpg"


def test_a_reload_of_the_large_view(visit):
    page = visit("/?name=cat.jpg&open=copy%20of%20cat.jpg&why=1")
    page.locator(".pair-chip").first.wait_for()
    page.reload()
    page.locator(".pair-chip").first.wait_for()
    assert page.locator("#viewer-name").text_content() == "copy of cat.jpg"
    page.keyboard.press("Escape")
    page.locator("#viewer").wait_for(state="hidden")
    assert page.evaluate("location.search") == "?name=cat.jpg"


def test_a_link_opens_a_hit_of_a_later_page(visit, ask):
    far = ask(name="cat.jpg", k=70)["hits"][64]["name"]
    page = visit(f"/?name=cat.jpg&open={far.replace(' ', '%20')}")
    page.locator("#viewer-facts", has_text="65 of").wait_for()


def test_a_link_to_a_photo_of_the_index_is_whole(visit, gallery):
    link = "/?name=temple.jpg&box=80,40,160,120&expand=5&min=0.2&within=views/"
    page = visit(link)
    found = hits(page)
    assert page.evaluate("location.pathname + location.search") == link
    other = visit(link, size="phone")
    assert hits(other) == found
    assert other.locator("#expand").is_checked()


def test_a_link_cannot_hold_a_photo_of_a_device(visit, gallery, look):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    choose(page, gallery / "photos" / "temple.jpg")
    drag(page, (0.25, 0.2), (0.75, 0.8))
    found, box = hits(page), box_of(page)
    page.locator("#share").click()
    page.locator("#note", has_text="stays on this device").wait_for()
    link = page.evaluate("navigator.clipboard.readText()").removeprefix(page.address)

    other = visit(link)  # another browser
    other.get_by_text("This photo is not here").wait_for()
    look(other, "missing-tablet-light")
    choose(other, gallery / "photos" / "temple.jpg")
    assert hits(other) == found
    assert box_of(other) == box


def test_a_box_that_does_not_fit_another_photo_is_left_out(visit, gallery):
    page = visit("/?upload=0123&box=200,100,300,200")
    page.get_by_text("This photo is not here").wait_for()
    page.locator("#choose").set_input_files(gallery / "photos" / "views" / "cat jpeg.jpg")
    page.locator("#missing").wait_for(state="hidden")
    settled(page)
    page.locator("#query-facts", has_text="px").wait_for()
    assert box_of(page) is None


def test_where_the_page_was_scrolled_to(visit):
    page = visit("/?name=cat.jpg")
    settled(page)
    page.mouse.wheel(0, 900)
    page.wait_for_timeout(400)
    before = page.evaluate("scrollY")
    assert before > 500
    page.locator("#grid li:nth-child(8) .from").click()
    page.locator("#search-title:focus").wait_for()
    assert page.evaluate("scrollY") == 0
    page.go_back()
    page.locator("#search-title", has_text="like cat.jpg").wait_for()
    settled(page)
    assert page.evaluate("scrollY") == pytest.approx(before, abs=2)


def test_an_address_of_nonsense_is_the_page(visit):
    page = visit("/?view=x&box=1,2,three&min=&threshold=y&nothing=1&%zz=%e9&rerank")
    page.locator("#home").wait_for()


def test_links_open_in_new_tabs(visit):
    page = visit("/?name=cat.jpg")
    settled(page)
    with page.context.expect_page() as opened:
        page.locator(f"{HITS} .hit").nth(1).click(modifiers=["Control"])
    opened.value.locator("#viewer").wait_for()
    assert "open=" in opened.value.url
    assert page.locator("#viewer").is_hidden()
