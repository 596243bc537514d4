import base64
import hashlib
import pathlib
import re
import subprocess
import sys

import jinja2
import numpy as np
import pytest
from html5lib.html5parser import ParseError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from views.page_lint import check_css, check_html, check_page, check_script

import rw_keras.views
from rw_keras.evaluation.report import Report
from rw_keras.evaluation.tables import Table
from rw_keras.views import pages
from rw_keras.views.result_page import result_page

FOLDER = pathlib.Path(rw_keras.views.__file__).parent / "templates"
HOSTILE = ["</script><script>alert(1)</script>", "</style>", "<!--", "\"><img src=x onerror='alert(1)'>", "{{ 7 * 7 }}", "&lt;"]
# What no page can hold: NUL, a lone surrogate, a control character, a mark that turns the text around.
UNPRINTABLE = ["\0", "\ud800", "\x1b[2J", "\u202e"]


def of(ending):
    found = sorted(FOLDER.glob(f"*{ending}"))
    assert found
    return pytest.mark.parametrize("path", found, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "a.png"
    Image.fromarray(np.zeros((6, 8, 3), "uint8")).save(path)
    return path


def report(folder, text):
    made = Report(folder, text, [text], text)
    made.add_table(Table("one", f"One: {text}", [text], [[text], ["long" * 9]], [text]), b"png")
    made.add_figure("two", text, b"jpeg", "jpeg", text)
    return made.finish().read_text()


class TestLint:
    """Every template, and pages that take every branch."""

    @of(".html")
    def test_templates(self, path):
        source = path.read_text()
        assert pages._TEMPLATES.parse(source)
        # With the tags of Jinja left out, both branches of a condition stand there.
        html = re.sub(r"\{#.*?#\}|\{%.*?%\}", "", source, flags=re.DOTALL)
        html = re.sub(r"\{\{.*?\}\}", "1", html, flags=re.DOTALL)
        check_html(html.lstrip(), whole="<!DOCTYPE" in html)

    @of(".css")
    def test_styles(self, path):
        check_css(path.read_text())

    @of(".js")
    def test_scripts(self, path, tmp_path):
        check_script(path.read_text(), tmp_path)

    @pytest.mark.parametrize("box", [None, (1, 2, 7, 5)])
    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_result_pages(self, photo, monkeypatch, box, count):
        monkeypatch.setattr("rw_keras.views.result_page.PICTURES", 2)
        hits = [(1, "a.png", 0.5, photo), (2, "gone", 0.4, None), (3, "b", 0.3, None), (4, "c", 0.2, photo)]
        for more in ({}, {"note": "A note.", "options": {"k": 3}}):
            check_page(result_page(photo, box, hits[: count + (count > 2)], **more))

    def test_reports(self, tmp_path):
        check_page(report(tmp_path, "text"))

    @pytest.mark.parametrize(
        "html",
        [
            "<p>a<b>b</p>",
            "<div><p>a</p>",
            "<p>a</p></div>",
            "<ul><li>a</ul></li>",
            '<p id="a" id="b">a</p>',
            "<p>&nothing;</p>",
        ],
    )
    def test_finds_what_is_wrong_in_html(self, html):
        with pytest.raises(ParseError):
            check_html(f"<!DOCTYPE html><html><head><title>a</title></head><body>{html}</body></html>")

    @pytest.mark.parametrize(
        "css",
        [
            "a { color: red",
            "a { color }",
            "a { color: }",
            "a { color: red; } }",
            "{ color: red; }",
            "a { color: red width: 1px; }",
            "@media print { a { color: red }",
            "@media print { a { color } }",
            "/* a { }",
            'a { content: "; }',
        ],
    )
    def test_finds_what_is_wrong_in_css(self, css):
        with pytest.raises(AssertionError):
            check_css(css)

    @pytest.mark.parametrize("script", ["(() => {", "const a = ;", "if (a { }"])
    def test_finds_what_is_wrong_in_scripts(self, script, tmp_path):
        with pytest.raises(subprocess.CalledProcessError, match="node"):
            check_script(script, tmp_path)


@pytest.mark.slow
@given(st.lists(st.sampled_from([*HOSTILE, *UNPRINTABLE]) | st.text(max_size=8), min_size=1, max_size=4).map("".join).filter(len))
def test_text_stays_text(photo, tmp_path_factory, text):
    """Whatever a name, a title or an option holds, a page has the same tags, and can be written as UTF-8."""

    def shapes(text):
        place = [(1, text, 0.5, None), (2, text, 0.5, photo)]
        page = result_page(photo, None, place, title=text, note=f"a{text}", options={text: text})
        return [re.sub(r">[^<]*", ">", re.sub(r"<wbr>", "", one)) for one in (page, report(folder, text))]

    folder = tmp_path_factory.getbasetemp() / "report"
    for plain, hostile in zip(shapes("text"), shapes(text)):
        hostile.encode()
        assert not set(UNPRINTABLE) & set(hostile)
        assert re.sub(r'alt="[^"]*"| class="long"', "", hostile) == re.sub(r'alt="[^"]*"| class="long"', "", plain)


@pytest.mark.parametrize("text", [*HOSTILE, *UNPRINTABLE])
def test_hostile_text_makes_no_page_that_has_to_be_mended(photo, tmp_path, text):
    check_page(result_page(photo, None, [(1, text, 0.5, None)], title=text, note=text, options={text: text}))
    check_page(report(tmp_path, text))


@pytest.mark.parametrize("name", ["result_page", "report"])
def test_the_policy_lets_what_is_in_the_page_run_and_nothing_else(photo, tmp_path, name):
    page = result_page(photo, None, []) if name == "result_page" else report(tmp_path, "text")
    policy = re.search(r'Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for tag, kind in (("style", "style-src"), ("script", "script-src")):
        hashes = [
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        ]
        assert f"{kind} {' '.join(hashes) or chr(39) + 'none' + chr(39)};" in policy
    assert not re.search(r"\s(?:style|on\w+)=", page)  # which the policy forbids


def test_a_value_that_is_not_given_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="title"):
        pages.render("report", facts=[], parts=[])


def test_the_package_loads_its_modules_when_asked():
    script = """
import sys, rw_keras
print(rw_keras.views.contact_sheet.Hit.__name__, "explain" in dir(rw_keras.views), "rw_keras.views.explain" in sys.modules)
assert not hasattr(rw_keras.views, "nothing")
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "Hit True False\n"), run.stderr
