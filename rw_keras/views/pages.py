"""HTML pages that need nothing beside them, from the templates in `templates/`."""

import base64
import hashlib

import jinja2
from markupsafe import Markup

from rw_keras.files import printable

_FOLDER = jinja2.PackageLoader("rw_keras.views", "templates")
# The styles of each page, the shared ones first.
_STYLES = {"report": ("tokens.css", "report.css"), "result_page": ("tokens.css", "tiles.css", "result_page.css")}


def _visible(value):
    """What a template writes for a value: a name of a file may hold anything, also what no page can."""
    return value if isinstance(value, Markup) else printable(str(value))


_TEMPLATES = jinja2.Environment(
    loader=_FOLDER,
    autoescape=True,
    finalize=_visible,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["printable"] = printable


def render(name: str, **values: object) -> str:
    """The page of `templates/NAME.html`, with its styles and, where there is one, `NAME.js` within.

    All that a template writes is escaped, and its policy lets this style and this script run, no others, and nothing be loaded.

    Args:
        name: the template's.
        values: what it writes, by name.

    Raises:
        jinja2.UndefinedError: when the template asks for a value that is not given.
    """
    style, script, scripts = "".join(map(_source, _STYLES[name])), "", "'none'"
    if f"{name}.js" in _FOLDER.list_templates():
        script = _source(f"{name}.js")
        scripts = _hash(script)
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {scripts}; base-uri 'none'; form-action 'none'"
    )
    return _TEMPLATES.get_template(f"{name}.html").render(policy=policy, style=Markup(style), script=Markup(script), **values)


def filled(source: str, **values: object) -> str:
    """A page whose template lies elsewhere, and which may import the templates here; all that it writes is escaped.

    Args:
        source: the template's text.
        values: what it writes, by name.

    Raises:
        jinja2.UndefinedError: when the template asks for a value that is not given.
    """
    return _TEMPLATES.from_string(source).render(**values)


def shared_file(name: str) -> str:
    """The text of a file of `templates/`, such as "tokens.css", for a page that is not whole in one file."""
    return _FOLDER.get_source(_TEMPLATES, name)[0]


def data_url(content: bytes, kind: str) -> str:
    """A picture's bytes as a URL that holds them; `kind`: "jpeg" or "png"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _source(file):
    """A file as it stands between its tags, the line break after the opening one with it, since the policy's hash is over all."""
    return "\n" + shared_file(file)


def _hash(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
