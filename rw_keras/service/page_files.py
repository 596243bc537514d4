"""The page that people use, as files: HTML, styles and scripts of this package, and nothing of any other host."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.resources
import types
from collections.abc import Mapping

from rw_keras.views.pages import filled, shared_file

# Media types by the ending of a file's name; the system's own table may lack some, or have others.
_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}
# What the page shares with `rw-keras search --html`.
_SHARED = ("tokens.css", "tiles.css", "result_page.js")
# A hit before any is known: the page fills copies of its tile.
_NO_PHOTO = types.SimpleNamespace(jpeg="data:,", pixels=types.SimpleNamespace(shape=(1, 1, 3)), width=0, height=0, size="")
_NO_HIT = types.SimpleNamespace(rank="", name="", cosine=0.0, bar=0.0, link="#", photo=_NO_PHOTO, missing=None)


@dataclasses.dataclass(frozen=True)
class PageFile:
    """A file of the page.

    Attributes:
        content: its bytes.
        media_type: what `Content-Type` says.
        etag: a strong validator, in quotes: another one for other bytes.
    """

    content: bytes
    media_type: str
    etag: str


@functools.cache
def page_files() -> Mapping[str, PageFile]:
    """The files of the page, by name: "index.html" is the page itself, and asks for the others below `/page/`.

    All together are some 100 kB, and are read once.
    """
    folder = importlib.resources.files("rw_keras.service") / "page"
    found = {entry.name: entry.read_text("utf8") for entry in folder.iterdir() if entry.name.rpartition(".")[2] in _TYPES}
    found["index.html"] = filled(found["index.html"], hit=_NO_HIT)
    found |= {name: shared_file(name) for name in _SHARED}
    return types.MappingProxyType({name: _page_file(name, text.encode()) for name, text in sorted(found.items())})


def _page_file(name, content):
    digest = hashlib.sha256(content).hexdigest()[:32]
    return PageFile(content, _TYPES[name.rpartition(".")[2]], f'"{digest}"')
