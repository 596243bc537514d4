"""What a strict reader of HTML, CSS and JavaScript has against a page."""

import re
import shutil
import subprocess

import html5lib
import pytest
import tinycss2

_OPTIONS = {"skip_comments": True, "skip_whitespace": True}


def check_html(text, *, whole=True):
    """Raises `html5lib.html5parser.ParseError` where a browser would have to mend: a tag that is not closed, an unknown entity."""
    parser = html5lib.HTMLParser(strict=True)
    (parser.parse if whole else parser.parseFragment)(text)


def check_css(text):
    """Raises an AssertionError for a rule or a declaration that a browser would drop."""
    rules = tinycss2.parse_stylesheet(f"{text}\nlast {{}}", **_OPTIONS)
    # Where a brace or a comment is left open, it holds the rest.
    closed = rules and rules[-1].type == "qualified-rule" and tinycss2.serialize(rules[-1].prelude).strip() == "last"
    assert closed, "a block or a comment is not closed"
    _check_rules(rules)


def _check_rules(rules):
    for rule in rules:
        assert rule.type != "error", f"line {rule.source_line}: {rule.message}"
        if rule.type == "at-rule":
            _check_rules(tinycss2.parse_rule_list(rule.content, **_OPTIONS))
        elif rule.type == "qualified-rule":
            assert tinycss2.serialize(rule.prelude).strip(), f"line {rule.source_line}: a block without a selector"
            for found in tinycss2.parse_blocks_contents(rule.content, **_OPTIONS):
                assert found.type == "declaration", f"line {found.source_line}: {getattr(found, 'message', found.type)}"
                assert tinycss2.serialize(found.value).strip(), f"line {found.source_line}: {found.name} has no value"
                broken = [token for token in found.value if token.type == "error" or token == ":"]
                assert not broken, f"line {found.source_line}: {found.name} holds {broken[0]}; is a semicolon missing before it?"


def check_script(text, folder):
    """Raises `subprocess.CalledProcessError` where JavaScript cannot be read; it is not run."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node reads scripts, and there is no node on the path")
    (folder / "script.js").write_text(text, "utf8")
    subprocess.run([node, "--check", folder / "script.js"], check=True, capture_output=True, text=True)


def check_page(page):
    """A whole page with the styles in it; see `check_script` for its scripts."""
    check_html(page)
    for style in re.findall(r"<style>(.*?)</style>", page, re.DOTALL):
        check_css(style)
