"""The page for whoever uses a keyboard or hears it: axe-core on every view, and a search without a mouse."""

import pytest
from service.browser.page_driver import EVERYWHERE, HITS, focused, hits, settled

pytestmark = pytest.mark.browser

VIEWS = {
    "home": ("/", "#starts-list img"),
    "search": ("/?name=cat.jpg&box=80,40,160,120", HITS),
    "viewer": ("/?name=cat.jpg&open=cat.jpg", "#viewer-facts div"),
    "why": ("/?name=cat.jpg&open=cat.jpg&why=1", ".pair-chip"),
    "duplicates": ("/?view=duplicates&threshold=0.9", ".group .hit"),
    "no duplicates": ("/?view=duplicates&threshold=1&index=views", "#duplicates-problem"),
    "nothing": ("/?name=cat.jpg&within=nowhere/", "#search-problem"),
    "problem": ("/?name=nothing.jpg", "#search-problem"),
    "missing": ("/?upload=0123&box=1,2,30,40", "#missing"),
}


def findings(page):
    """What axe-core has against the page: (impact, rule, elements)."""
    base = pytest.importorskip("axe_core_python.base", reason="checks pages: pip install axe-core-python")
    page.evaluate(base.AXE_SCRIPT)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [(one["impact"], one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found]


@pytest.mark.parametrize("size, scheme", EVERYWHERE)
def test_axe(visit, look, size, scheme):
    page = visit("/", size, scheme)
    page.expected = ["404"]
    for view, (path, sign) in VIEWS.items():
        page.goto(page.address + path)
        page.locator(sign).first.wait_for()
        page.wait_for_load_state("networkidle")
        if view in ("nothing", "duplicates", "no duplicates", "problem", "missing"):
            look(page, f"{view.replace(' ', '-')}-{size}-{scheme}")
        if view == "search":
            page.locator("#options").evaluate("options => { options.open = true; }")
        if view == "duplicates":
            page.locator("#groups-list").evaluate("list => { list.open = true; }")
        assert [one for one in findings(page) if one[0] in ("serious", "critical")] == [], view


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_on_the_token(visit, guarded, scheme):
    page = visit("/", "phone", scheme, address=guarded)
    page.expected = ["401"]
    page.locator("#token").wait_for()
    assert [one for one in findings(page) if one[0] in ("serious", "critical")] == []


def tab(page, wanted, most=60):
    """Presses Tab until what is wanted has the focus, which has to be seen each time."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            continue
        if focused(page).split(" ")[0] == wanted or focused(page) == wanted:
            return
    raise AssertionError(f"{most} times Tab, and no {wanted}")


def test_a_search_by_keyboard_alone(visit):
    page = visit("/")
    page.locator("#starts-list img").first.wait_for()
    page.keyboard.press("Tab")
    assert focused(page) == "skip"
    page.keyboard.press("Enter")
    tab(page, "hit")
    page.keyboard.press("Enter")
    page.locator("#search-title:focus").wait_for()
    settled(page)

    tab(page, "stage")
    page.keyboard.press("Enter")
    page.locator("#clear-box").wait_for()
    settled(page)
    tab(page, "min")
    page.keyboard.press("ArrowRight")
    tab(page, "expand")
    page.keyboard.press("Space")
    settled(page)
    tab(page, "hit")
    page.keyboard.press("ArrowRight")
    assert page.locator(".hit:focus .rank").text_content() == "2"
    page.keyboard.press("ArrowDown")
    columns = page.evaluate("getComputedStyle(document.querySelector('#grid ol')).gridTemplateColumns.split(' ').length")
    below = page.locator(".hit:focus .rank").text_content()
    assert below == str(2 + columns)
    page.keyboard.press("Enter")
    page.locator("#viewer").wait_for()
    page.keyboard.press("ArrowRight")
    page.locator("#viewer-facts", has_text=f"{3 + columns} of").wait_for()
    tab(page, "viewer-why")
    page.keyboard.press("Enter")
    page.locator(".pair-chip").first.wait_for()
    tab(page, "pair-chip")
    page.keyboard.press("Enter")
    assert page.locator(".both .faint").count() > 0
    page.keyboard.press("Escape")
    page.locator("#viewer").wait_for(state="hidden")
    page.locator(f"{HITS} .hit:focus").wait_for()
    assert page.locator(".hit:focus .rank").text_content() == str(3 + columns)

    page.keyboard.press("Tab")
    assert focused(page) == "from"
    wanted = page.locator(".from:focus").get_attribute("aria-label").removeprefix("Search from this: ")
    page.keyboard.press("Enter")
    page.locator("#search-title:focus", has_text=wanted).wait_for()


def test_the_focus_can_be_seen(visit):
    page = visit("/?name=cat.jpg")
    settled(page)
    unseen = []
    for _ in range(22):
        page.keyboard.press("Tab")
        ring = page.evaluate(
            """() => {
              const seen = style => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
              const element = document.activeElement;
              const around = [element, element.closest("li")].filter(Boolean);
              return around.some(one => seen(getComputedStyle(one)) || seen(getComputedStyle(one, "::after")));
            }"""
        )
        if not ring:
            unseen.append(focused(page))
    assert unseen == []


def test_what_is_said(visit):
    page = visit("/?name=cat.jpg")
    count = len(hits(page))
    assert count == 60
    assert page.locator("#status", has_text="hits. in").count() == 1
    roles = page.evaluate("[...document.querySelectorAll('header, nav, main, section[aria-labelledby]')].length")
    assert roles >= 5
    headings = page.evaluate("[...document.querySelectorAll('h1')].filter(h => h.offsetParent !== null).length")
    assert headings == 1
    assert page.title() == "Photos like cat.jpg · rw_keras"
    assert page.locator(f"{HITS} .hit").first.get_attribute("href").startswith("?name=cat.jpg&open=")


def test_arrows_are_the_sliders_where_it_has_the_focus(visit):
    page = visit("/?name=cat.jpg")
    settled(page)
    page.locator("#min").focus()
    page.keyboard.press("ArrowRight")
    assert focused(page) == "min"
    assert page.locator("#min").input_value() == "0.01"


def test_the_page_at_twice_the_letters(visit):
    """WCAG's reflow: 320 pixels wide, nothing is cut off."""
    for path in ("/", "/?name=cat.jpg", "/?view=duplicates&threshold=0.9"):
        page = visit(path, viewport={"width": 320, "height": 640})
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, path
