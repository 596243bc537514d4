"""The page's files, without a browser: that they are sound, keep to the page's policy, and are served."""

import re

import pytest
from views.page_lint import check_css, check_html, check_script

from rw_keras.service.page_files import page_files
from rw_keras.views.pages import shared_file

FILES = page_files()
MOST_LINES, MOST_FUNCTION_LINES = 400, 60


def of(ending):
    found = [name for name in FILES if name.endswith(ending)]
    assert found
    return pytest.mark.parametrize("name", found)


def text(name):
    return FILES[name].content.decode()


def test_the_page_can_be_read():
    check_html(text("index.html").lstrip())


@of(".css")
def test_styles(name):
    check_css(text(name))


@of(".js")
def test_scripts(name, tmp_path):
    check_script(text(name), tmp_path)


def test_the_policy_is_kept():
    """No style or script within the page, no address of another host, and nothing that turns text into tags."""
    page = text("index.html")
    assert not re.search(r"\s(?:style|on\w+)=|<style|javascript:", page)
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert {*re.findall(r'(?:src|href)="([^"]*)"', page)} - {"data:,", "/", "/?view=duplicates"} == {
        *(f"/page/{name}" for name in ("icon.svg", "manifest.webmanifest", "tokens.css", "tiles.css", "page.css", "theme.js")),
        *("/page/result_page.js", "/page/main.js", "#content", "#"),
        *(f"#icon-{name}" for name in re.findall(r'href="#icon-(\w+)"', page)),
    }
    for name in FILES:
        # The name of SVG's elements is no address.
        foreign = {*re.findall(r"https?://[^\s\"'`]+", text(name))} - {"http://www.w3.org/2000/svg"}
        assert foreign == set(), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text(name)), name
        assert not re.search(r"url\(|@import", text(name)), name


def test_all_that_is_asked_for_is_there():
    page = text("index.html")
    asked = {*re.findall(r'"/page/([^"]*)"', page + text("manifest.webmanifest"))}
    imported = {name for file in FILES if file.endswith(".js") for name in re.findall(r'from "\./([^"]*)"', text(file))}
    assert asked | imported | {"index.html"} == set(FILES)
    icons = {*re.findall(r'id="icon-(\w+)"', page)}
    assert {*re.findall(r'href="#icon-(\w+)"', page)} <= icons
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    named = {name for file in FILES if file.endswith(".js") for name in re.findall(r'byId\("([^"]*)"\)', text(file))}
    assert named <= set(ids)


def test_modules_import_in_no_circle():
    import graphlib

    sorter = graphlib.TopologicalSorter()
    for file in FILES:
        if file.endswith(".js"):
            sorter.add(file, *re.findall(r'from "\./([^"]*)"', text(file)))
    sorter.prepare()  # raises a CycleError that names the circle


@of(".js")
def test_modules_are_short(name):
    assert text(name).count("\n") <= MOST_LINES
    lengths = {
        found[1]: found[0].count("\n")
        for found in re.finditer(r"^(?:export )?(?:async )?function (\w+).*?^}", text(name), re.M | re.S)
    }
    assert {function: length for function, length in lengths.items() if length > MOST_FUNCTION_LINES} == {}


def test_what_is_shared_with_search_html_is_the_same_file():
    for name in ("tokens.css", "tiles.css", "result_page.js"):
        assert text(name) == shared_file(name)
    assert '<a class="hit" href="#"><span class="well">' in text("index.html")  # the macro's tile


def test_tags_of_files_differ_and_stay():
    tags = {file.etag for file in FILES.values()}
    assert len(tags) == len(FILES)
    assert page_files()["main.js"].etag == FILES["main.js"].etag


def test_the_page_is_served(ask):
    answer = ask("GET", "/")
    assert answer.status_code == 200
    assert answer.content == FILES["index.html"].content
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; ")
    assert "unsafe" not in policy
    for name, file in FILES.items():
        answer = ask("GET", f"/page/{name}")
        assert (answer.content, answer.headers["content-type"]) == (file.content, file.media_type)
        assert answer.headers["cache-control"] == "no-cache"
        again = ask("GET", f"/page/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "../app.py", "..%2fapp.py", "page_files.py", ""])
def test_nothing_else_is_served_with_it(ask, name):
    answer = ask("GET", f"/page/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_page_needs_no_token(ask):
    settings = {"read_tokens": ("a-token-that-may-read",), "open_reading": False}
    assert ask("GET", "/", settings).status_code == 200
    assert ask("GET", "/page/main.js", settings).status_code == 200
    assert ask("GET", "/v1/indexes", settings).status_code == 401


def test_how_large_a_body_may_be(ask):
    assert ask("GET", "/v1/indexes").json()["limits"]["body_bytes"] == 32 << 20
