"""The second view: photos that are almost the same."""

import pytest
from service.browser.page_driver import hits, settled

pytestmark = pytest.mark.browser


def groups(page):
    page.locator("#groups-facts", has_text="group").wait_for()
    page.locator(".group").first.wait_for()
    return page.evaluate(
        "[...document.querySelectorAll('.group')].map(g => [...g.querySelectorAll('.name')].map(n => n.textContent).sort())"
    )


@pytest.mark.parametrize("size, scheme", [("phone", "dark"), ("wide", "light")])
def test_duplicates(visit, size, scheme, look):
    page = visit("/", size, scheme, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("link", name="Duplicates").click()
    page.locator("#duplicates-title:focus").wait_for()
    found = groups(page)
    assert ["cat.jpg", "copy of cat.jpg"] in [[name for name in group if name.endswith("cat.jpg")] for group in found]
    look(page, f"groups-{size}-{scheme}")
    page.locator("#copy-groups").click()
    page.locator("#note", has_text="The list copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert [sorted(group.split("\n")) for group in copied.split("\n\n")] == found
    assert page.locator("#groups-text").input_value() == copied


def test_the_threshold_of_duplicates(visit):
    page = visit("/?view=duplicates")
    before = len(groups(page))
    page.locator("#threshold").fill("1")
    page.wait_for_url("**threshold=1")
    page.locator("#groups:not(.busy)").wait_for()
    page.locator("#threshold").fill("0.7")
    page.wait_for_url("**threshold=0.7")
    page.locator("#groups:not(.busy) .group").first.wait_for()
    wide = groups(page)
    assert sum(map(len, wide)) > 4
    assert before >= 1


def test_the_large_view_of_duplicates(visit):
    page = visit("/?view=duplicates&threshold=0.99")
    groups(page)
    page.locator(".group .hit").first.click()
    page.locator("#viewer").wait_for()
    assert page.locator("#viewer-why").is_hidden()
    first = page.locator("#viewer-name").text_content()
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-name").text_content() != first
    page.keyboard.press("Escape")
    page.locator(".group .hit:focus").wait_for()
    page.locator(".group .from").first.click()
    settled(page)
    assert hits(page)[0] == first
    page.go_back()
    page.locator(".group").first.wait_for()
    assert "view=duplicates" in page.url


def test_groups_that_take_a_while(visit):
    """The service answers 503 while it compares, and is asked again until it has done."""
    page = visit()
    page.expected = ["503"]
    left = [{"status": 503, "headers": {"Retry-After": "1"}, "content_type": "application/problem+json", "body": "{}"}] * 5
    page.route("**/v1/duplicates?*", lambda route: route.fulfill(**left.pop()) if left else route.continue_())
    page.get_by_role("link", name="Duplicates").click()
    page.locator("#groups-facts", has_text="Comparing all photos").wait_for()
    assert groups(page)
    assert not left


def test_no_duplicates(visit):
    page = visit("/?view=duplicates&index=views&threshold=1")
    page.locator("#duplicates-problem", has_text="No two photos are so much alike").wait_for()
    assert page.locator("#copy-groups").is_hidden()
