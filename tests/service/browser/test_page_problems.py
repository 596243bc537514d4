"""What the page says when something goes wrong, and how it goes on."""

import json

import httpx
import pytest
from service.browser.page_driver import HITS, READ, hits, settled

pytestmark = pytest.mark.browser


def problem(status, detail, **headers):
    body = json.dumps({"type": "about:blank", "title": "-", "status": status, "detail": detail})
    return {"status": status, "headers": headers, "content_type": "application/problem+json", "body": body}


def answer_first(page, *answers):
    """Answers the first searches so; the service answers those that follow."""
    left = list(answers)
    page.route("**/v1/search", lambda route: route.fulfill(**left.pop(0)) if left else route.continue_())


def test_a_token(visit, guarded, look):
    page = visit("/?name=cat.jpg", address=guarded)
    page.expected = ["401"]
    dialog = page.locator("#token")
    dialog.wait_for()
    look(page, "token-tablet-light")
    page.keyboard.type("a-token-that-is-wrong")
    page.keyboard.press("Enter")
    page.locator("#token-wrong", has_text="does not know this token").wait_for()
    page.keyboard.type(READ)
    page.keyboard.press("Enter")
    dialog.wait_for(state="hidden")
    assert hits(page)[0] in ("cat.jpg", "copy of cat.jpg")
    # An image cannot bring the token.
    page.locator(f"{HITS} img[src^='blob:']").nth(5).wait_for()
    page.locator(f"{HITS} .hit").first.click()
    page.locator("#viewer-photo[src^='blob:']").wait_for()
    with page.context.expect_page() as original:
        page.locator("#viewer-original").click()
    original.value.wait_for_url("blob:**")
    page.reload()  # the tab's session has it
    page.locator("#viewer-photo[src^='blob:']").wait_for()
    assert dialog.is_hidden()
    assert not any(READ in one.url for one in page.asked)


def test_a_token_later(visit, guarded):
    page = visit("/", address=guarded)
    page.expected = ["401"]
    page.get_by_role("button", name="Not now").click()
    page.locator("#home-problem", has_text="asks for a token").wait_for()
    page.get_by_role("button", name="Enter the token").click()
    page.locator("#token").wait_for()


def test_a_photo_that_is_too_large(visit, guarded, gallery, tmp_path, look):
    page = visit("/", address=guarded)
    page.expected = ["401", "413", "ERR_"]
    page.locator("#token-value:focus").wait_for()
    page.keyboard.type(READ)
    page.keyboard.press("Enter")
    page.locator("#token").wait_for(state="hidden")
    large = tmp_path / "large.jpg"
    large.write_bytes((gallery / "photos" / "cat.jpg").read_bytes() + bytes(300_000))
    page.locator("#choose").set_input_files(large)
    page.locator(".problem:visible", has_text="The photo is too large").wait_for()
    look(page, "too-large-tablet-light")


def test_what_is_no_photo(visit, tmp_path, look):
    page = visit()
    page.expected = ["422", "415"]
    (tmp_path / "text.jpg").write_text("This is a text.")
    page.locator("#choose").set_input_files(tmp_path / "text.jpg")
    page.locator("#search-problem strong").wait_for()
    assert page.locator("#unseen-photo").is_visible()
    look(page, "no-photo-tablet-light")


def test_a_photo_that_is_not_in_the_index(visit, look):
    page = visit("/?name=nothing.jpg")
    page.expected = ["404"]
    page.locator("#search-problem", has_text="no photo 'nothing.jpg'").wait_for()
    look(page, "not-there-tablet-light")


def test_a_box_outside_the_photo(visit):
    page = visit("/?name=cat.jpg&box=100,100,5000,5000")
    page.expected = ["422"]
    page.get_by_role("button", name="Search without the box").click()
    assert hits(page)[0] == "cat.jpg"


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_is_busy_is_asked_again(visit, look, status):
    page = visit()
    page.expected = [str(status)]
    page.locator("#starts-list img").first.wait_for()
    answer_first(page, problem(status, "Ask again.", **{"Retry-After": "2"}))
    page.locator("#starts-list .hit").first.click()
    page.locator("#search-problem", has_text="Trying again in").wait_for()
    look(page, f"busy-{status}-tablet-light")
    assert hits(page)


@pytest.mark.parametrize(
    "status, title, again",
    [
        (400, "did not understand", True),
        (410, "no longer kept", True),
        (415, "not a photo", False),
        (500, "Something went wrong", True),
        (503, "The service is busy", True),
        (504, "took too long", True),
    ],
)
def test_every_status_has_its_words(visit, status, title, again):
    page = visit()
    page.expected = [str(status)]
    page.locator("#starts-list img").first.wait_for()
    answer_first(page, problem(status, "The service’s own sentence."))
    page.locator("#starts-list .hit").first.click()
    message = page.locator("#search-problem", has_text=title)
    message.wait_for()
    assert "The service’s own sentence." in message.text_content()
    assert message.locator("button").count() == again
    assert title in page.locator("#status").text_content()
    if again:
        message.locator("button").click()
        assert hits(page)
        assert page.locator("#search-problem").is_hidden()


def test_results_that_have_expired_are_asked_for_again(visit):
    page = visit("/?name=cat.jpg", size="phone")
    page.expected = ["410"]
    settled(page)
    answer_first(page, problem(410, "This cursor has expired."))
    page.evaluate("document.getElementById('more').click()")
    page.get_by_role("button", name="Search again").click()
    page.locator("#search-problem").wait_for(state="hidden")
    assert len(hits(page)) >= 60


def test_only_the_last_of_several_searches_counts(visit, ask):
    page = visit("/?name=cat.jpg&rerank=0")
    page.expected = ["ERR_"]
    settled(page)
    for value in ("0.1", "0.2", "0.3", "0.6"):
        page.locator("#min").fill(value)
    settled(page)
    page.wait_for_load_state("networkidle")
    assert len(hits(page)) == min(60, ask(name="cat.jpg", rerank=0, min_score=0.6, k=60)["total"])


def test_offline(visit, look):
    page = visit("/?name=cat.jpg")
    page.expected = ["ERR_INTERNET_DISCONNECTED", "net::"]
    found = hits(page)
    page.wait_for_load_state("networkidle")
    page.context.set_offline(True)
    page.locator("#offline").wait_for()
    assert hits(page) == found  # what is there stays
    page.locator("#leave").click()
    page.locator("#search-problem", has_text="You are offline").wait_for()
    look(page, "offline-tablet-light")
    page.context.set_offline(False)
    page.locator("#offline").wait_for(state="hidden")
    page.locator("#search-problem").wait_for(state="hidden")
    assert "cat.jpg" not in hits(page)


def test_a_service_that_cannot_be_reached(visit):
    page = visit()
    page.expected = ["ERR_"]
    page.route("**/v1/search", lambda route: route.abort("connectionrefused"))
    page.locator("#starts-list img, #home-problem").first.wait_for(state="attached")
    page.goto(page.address + "/?name=cat.jpg")
    page.locator("#search-problem", has_text="The service cannot be reached").wait_for()
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Try again").click()
    assert hits(page)


def test_a_photo_that_was_removed(visit, gallery, indices):
    """Its tile and its large view say so."""
    path = gallery / "photos" / "flower.jpg"
    aside = gallery / "aside.jpg"
    path.rename(aside)
    try:
        page = visit("/?name=flower.jpg&open=flower.jpg")
        page.expected = ["404"]
        page.locator("#viewer-gone").wait_for()
        page.keyboard.press("Escape")
        page.locator("#grid .gone").first.wait_for()
    finally:
        aside.rename(path)


def test_the_page_says_what_it_may_load(service):
    answer = httpx.get(service)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert httpx.get(f"{service}/page/main.js").headers["content-type"].startswith("text/javascript")
