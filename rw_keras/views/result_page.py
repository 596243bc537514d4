"""What a search found, to look at: one HTML page that needs nothing beside it, or one picture."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import urllib.parse
from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image

from rw_keras.files import inside
from rw_keras.photos.reading import Box, ImageError, read_image, read_thumbnail
from rw_keras.photos.remote import opened
from rw_keras.storage import is_url, is_web
from rw_keras.views.contact_sheet import Hit, Row, contact_sheet
from rw_keras.views.pages import data_url, render

Found = tuple[int, str, float, str | os.PathLike[str] | None]
"""A hit: its rank, its name in the index, its cosine, and the file, or `None` where nobody knows it."""

# Longer sides of the pictures in the page: twice what is shown, for screens of fine pixels.
_QUERY_SIDE, _HIT_SIDE, _QUALITY = 640, 480, 80
# Hits that are shown with their pictures; of more, a page takes minutes to make and is too large for a browser.
PICTURES = 200
# In a picture: the longer sides to begin with, and the most hits that stand beside each other.
_SHEET_SIDE, _COLUMNS = 360, 8


def result_page(
    query: str | os.PathLike[str],
    box: Box | None,
    hits: Iterable[Found],
    *,
    folder: str | os.PathLike[str] | None = None,
    options: Mapping[str, object] | None = None,
    title: str | None = None,
    note: str | None = None,
    measure: str = "cosine",
) -> str:
    """A search as one HTML page: pictures, style and script are all within, and nothing is asked of any host.

    A hit whose file is gone, or can no longer be read, has a sentence in place of its picture. After the first `PICTURES` hits the
    others are listed by name, and the page says so.

    Args:
        query: the path, or the URL, of the photo that was searched with.
        box: the part of it that was asked for, in pixels of the upright full-size photo; `None`: all of it.
        hits: (rank, name, cosine or score, path or `None`) each, best first. A name in an index may be anything: whoever joins it
            to a folder takes `rw_keras.files.inside`.
        folder: where the page will lie. Links to photos near it are relative, so that both can be moved together;
            the others, and all where this is `None`, are file:// URLs.
        options: what else the reader should know of the search, such as the index and k, by name.
        title: the heading. Default: one that names the query.
        note: a sentence below it.
        measure: what the numbers of the hits are called: "score" where they were re-ranked by their regions.

    Raises:
        FileNotFoundError, ImageError: when the query cannot be read, or the box does not fit.
    """
    asked = _read_query(query, box, _QUERY_SIDE)
    name = pathlib.PurePath(query).name
    hits = list(hits)
    return render(
        "result_page",
        title=f"Photos like {name}" if title is None else title,
        note=note,
        options=options,
        query={"name": name, "link": _link(query, folder), "photo": asked},
        box=box,
        measure=measure,
        # One after the other: their pixels need not be in memory together.
        hits=(_Tile.of(*hit, folder) for hit in hits[:PICTURES]),
        others=[_Place.of(*hit, folder) for hit in hits[PICTURES:]],
        count=len(hits),
    )


def search_sheet(
    query: str | os.PathLike[str], box: Box | None, hits: Iterable[Found], *, title: str | None = None, measure: str = "cosine"
) -> Image.Image:
    """A search as one picture, see `contact_sheet`: more than eight hits are spread evenly over several lines.

    After the first `PICTURES` hits the others are left out, and the heading says so.

    Args:
        query, box, hits, measure: see `result_page`.
        title: the heading. Default: one that names the query.

    Raises:
        FileNotFoundError, ImageError: when the query cannot be read, or the box does not fit.
    """
    hits = list(hits)
    shown = hits[:PICTURES]
    few = "" if shown == hits else f": the first {PICTURES} of {len(hits)} hits"
    asked = _read_query(query, box, _SHEET_SIDE)
    name = pathlib.PurePath(query).name
    scale = asked.pixels.shape[1] / asked.width
    small_box = None if box is None else [value * scale for value in asked.within(box)]
    found = []
    for rank, hit, cosine, path in shown:
        photo, _ = _read_hit(hit, path, _SHEET_SIDE)
        found.append(Hit(None if photo is None else photo.pixels, hit, cosine, rank=rank, measure=measure))
    lines = max(1, -(-len(found) // _COLUMNS))
    columns = max(1, -(-len(found) // lines))
    row = Row(asked.pixels, name, small_box, found)
    return contact_sheet([row], (f"Photos like {name}" if title is None else title) + few, columns)


@dataclasses.dataclass(frozen=True)
class _Photo:
    """A photo's reduced pixels; width and height of the whole; and how large its file is, in words."""

    pixels: np.ndarray
    width: int
    height: int
    size: str

    @classmethod
    def read(cls, path: str | os.PathLike[str], side: int) -> _Photo:
        file = opened(path)
        size = None if file is path else file.seek(0, os.SEEK_END)
        pixels, (width, height) = read_thumbnail(file, side)
        size = os.stat(path).st_size if size is None else size
        return cls(pixels, width, height, _size_in_words(size))

    @property
    def jpeg(self) -> str:
        """The pixels as a URL that holds them."""
        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, "JPEG", quality=_QUALITY, optimize=True, progressive=True)
        return data_url(file.getvalue(), "jpeg")

    def within(self, box: Box) -> list[float]:
        """The part of a box that lies in the photo."""
        return [min(max(float(value), 0), side) for value, side in zip(box, (self.width, self.height) * 2)]


@dataclasses.dataclass(frozen=True)
class _Place:
    """A hit as it is listed; `link` is a URL of its file, `None` where there is none."""

    rank: int
    name: str
    cosine: float
    link: str | None

    @classmethod
    def of(cls, rank, name, cosine, path, folder, **more):
        there = path is not None and (is_url(path) or os.path.lexists(path))
        return cls(rank, name, cosine, _link(path, folder) if there else None, **more)


@dataclasses.dataclass(frozen=True)
class _Tile(_Place):
    """A hit with its photo, or `None` and a sentence that says why there is none."""

    photo: _Photo | None
    missing: str | None

    @classmethod
    def of(cls, rank, name, cosine, path, folder):
        photo, missing = _read_hit(name, path, _HIT_SIDE)
        return super().of(rank, name, cosine, path, folder, photo=photo, missing=missing)

    @property
    def bar(self) -> float:
        """How long the bar of its cosine is, of 100."""
        return 100 * min(max(self.cosine, 0), 1)


def _read_query(path, box, side):
    if box is not None:
        read_image(opened(path), box, None)  # says what is wrong with a box
    return _Photo.read(path, side)


def _read_hit(name, path, side):
    """The photo of a hit, or `None` and a sentence that says why there is none."""
    if path is None and inside(os.curdir, name) is None:
        return None, "This name leads out of the photos’ folder, so its photo is not shown."
    if path is None:
        return None, "The index does not say where this photo lies."
    try:
        return _Photo.read(path, side), None
    except FileNotFoundError:
        return None, "This photo was moved or removed after it was indexed. Index its folder again."
    except (ImageError, OSError):
        return None, "This photo can no longer be read. Replace the file, or index its folder again."


def _link(path, folder):
    """A URL of a file, as an attribute's value: every byte but plain letters, digits and `/._-~` is percent-encoded."""
    if is_web(path):
        return path
    if is_url(path):
        scheme, mark, rest = path.partition("://")
        return f"{scheme}{mark}{urllib.parse.quote(os.fsencode(rest))}"
    path = os.path.abspath(path)
    if folder is not None:
        folder = os.path.abspath(folder)
        with contextlib.suppress(ValueError):  # on another drive
            shared = os.path.commonpath([path, folder])
            # Where all that they share is the root, a relative link would climb up to it: that moves no better.
            if shared == folder or os.path.dirname(shared) != shared:
                return urllib.parse.quote(os.fsencode(os.path.relpath(path, folder).replace(os.sep, "/")))
    return pathlib.Path(path).as_uri()


def _size_in_words(size):
    size = float(size)
    units = iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    for larger in units:
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 9.95 else f"{size:.1f} {unit}"
