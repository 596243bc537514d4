"""What a search found, to look at: one HTML page that needs nothing beside it, or one picture."""

import base64
import contextlib
import dataclasses
import hashlib
import html
import io
import os
import pathlib
import urllib.parse
from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image

from rw_keras.files import inside, printable
from rw_keras.photos.reading import Box, ImageError, read_image, read_thumbnail
from rw_keras.views.contact_sheet import Hit, Row, contact_sheet

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
) -> str:
    """A search as one HTML page: pictures, style and script are all within, and nothing is asked of any host.

    A hit whose file is gone, or can no longer be read, has a sentence in place of its picture. After the first `PICTURES` hits the
    others are listed by name, and the page says so.

    Args:
        query: the path of the photo that was searched with.
        box: the part of it that was asked for, in pixels of the upright full-size photo; `None`: all of it.
        hits: (rank, name, cosine, path or `None`) each, best first. A name in an index may be anything: whoever joins it to a
            folder takes `rw_keras.files.inside`.
        folder: where the page will lie. Links to photos near it are relative, so that both can be moved together;
            the others, and all where this is `None`, are file:// URLs.
        options: what else the reader should know of the search, such as the index and k, by name.
        title: the heading. Default: one that names the query.
        note: a sentence below it.

    Raises:
        FileNotFoundError, ImageError: when the query cannot be read, or the box does not fit.
    """
    asked = _read_query(query, box, _QUERY_SIDE)
    name = pathlib.PurePath(query).name
    hits = list(hits)
    tiles = [_tile(*hit, folder) for hit in hits[:PICTURES]]
    title = _text(f"Photos like {name}" if title is None else title)
    facts = "".join(f"<div><dt>{_text(key)}</dt><dd>{_text(value)}</dd></div>" for key, value in (options or {}).items())
    boxed = "" if box is None else f'<p class="facts">box {", ".join(f"{value:g}" for value in box)}</p>'
    alt = f"Query photo{'' if box is None else ', with a yellow box around the part that was asked for'}"
    listed = "\n".join(tiles)
    rest = _rest(hits[PICTURES:], folder)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<a class="skip" href="#hits">Skip to the hits</a>
<header>
<h1>{title}</h1>
{f'<p class="note">{_text(note)}</p>' if note else ""}
{f"<dl>{facts}</dl>" if facts else ""}
</header>
<main>
<section class="query" aria-labelledby="query-heading">
<h2 id="query-heading">Query</h2>
<a href="{_link(query, folder)}"><span class="boxed">{_picture(asked.pixels, alt)}{_drawn(box, asked)}</span>
<span class="name">{_name(name)}</span></a>
<p class="facts">{asked.facts}</p>
{boxed}
</section>
<section aria-labelledby="hits">
<h2 id="hits" tabindex="-1">{len(hits) or "No"} hit{"" if len(hits) == 1 else "s"}</h2>
{f'<p class="note few">The first {PICTURES} with their pictures; <a href="#rest">the others by name</a>.</p>' if rest else ""}
<p id="keys" hidden><kbd>←</kbd> <kbd>→</kbd> <kbd>↑</kbd> <kbd>↓</kbd> or <kbd>j</kbd> <kbd>k</kbd> move between hits, \
<kbd>Enter</kbd> opens the photo.</p>
<ol>
{listed}
</ol>
{rest}</section>
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def search_sheet(query: str | os.PathLike[str], box: Box | None, hits: Iterable[Found], *, title: str | None = None) -> Image.Image:
    """A search as one picture, see `contact_sheet`: more than eight hits are spread evenly over several lines.

    After the first `PICTURES` hits the others are left out, and the heading says so.

    Args:
        query, box, hits: see `result_page`.
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
    small_box = None if box is None else [value * scale for value in _within(box, asked)]
    found = []
    for rank, hit, cosine, path in shown:
        photo, _ = _read_hit(hit, path, _SHEET_SIDE)
        found.append(Hit(None if photo is None else photo.pixels, hit, cosine, rank=rank))
    lines = max(1, -(-len(found) // _COLUMNS))
    columns = max(1, -(-len(found) // lines))
    row = Row(asked.pixels, name, small_box, found)
    return contact_sheet([row], (f"Photos like {name}" if title is None else title) + few, columns)


@dataclasses.dataclass(frozen=True)
class _Photo:
    """A photo's reduced pixels; width and height of the whole; and what to say of it."""

    pixels: np.ndarray
    width: int
    height: int
    facts: str


def _read(path, side):
    pixels, (width, height) = read_thumbnail(path, side)
    return _Photo(pixels, width, height, f"{width} × {height} px · {_size_in_words(path)}")


def _read_query(path, box, side):
    if box is not None:
        read_image(path, box, None)  # says what is wrong with a box
    return _read(path, side)


def _read_hit(name, path, side):
    """The photo of a hit, or `None` and a sentence that says why there is none."""
    if path is None and inside(os.curdir, name) is None:
        return None, "This name leads out of the photos’ folder, so its photo is not shown."
    if path is None:
        return None, "The index does not say where this photo lies."
    try:
        return _read(path, side), None
    except FileNotFoundError:
        return None, "This photo was moved or removed after it was indexed. Index its folder again."
    except (ImageError, OSError):
        return None, "This photo can no longer be read. Replace the file, or index its folder again."


def _tile(rank, name, cosine, path, folder):
    """A hit's place in the list. It is a link where there is a file, and can have the focus in any case."""
    photo, sentence = _read_hit(name, path, _HIT_SIDE)
    if photo is None:
        picture, facts = f'<span class="gone">{sentence}</span>', ""
    else:
        picture, facts = _picture(photo.pixels, f"Photo at rank {rank}"), f'<p class="facts">{photo.facts}</p>'
    inner = f"""<span class="well">{picture}<span class="rank"{"" if photo is None else ' aria-hidden="true"'}>{rank}</span></span>
<span class="name">{_name(name)}</span>"""
    there = path is not None and os.path.lexists(path)
    tile = f'<a class="hit" href="{_link(path, folder)}">{inner}</a>' if there else f'<div class="hit" tabindex="-1">{inner}</div>'
    filled = 100 * min(max(cosine, 0), 1)
    return f"""<li>{tile}
<p class="cosine"><span>cosine</span> <b>{cosine:.3f}</b>
<svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="4"/>\
<rect class="bar" width="{filled:.1f}" height="4"/></svg></p>
{facts}</li>"""


def _rest(hits, folder):
    """The list of the hits that have no picture; nothing where there are none."""
    if not hits:
        return ""

    def line(rank, name, cosine, path):
        there = path is not None and os.path.lexists(path)
        words = f'<a href="{_link(path, folder)}">{_name(name)}</a>' if there else _name(name)
        return f'<li><span>{rank}</span> <span class="name">{words}</span> <b>{cosine:.3f}</b></li>'

    listed = "\n".join(line(*hit) for hit in hits)
    return f"""<h2 id="rest" tabindex="-1">{len(hits)} more, by name, with the cosine</h2>
<ol class="names">
{listed}
</ol>
"""


def _picture(pixels, alt):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY, optimize=True, progressive=True)
    data = base64.b64encode(file.getvalue()).decode()
    height, width = pixels.shape[:2]
    return f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{alt}">'


def _drawn(box, photo):
    """The box over the query, in the photo's own pixels, so that it holds at any size on the screen."""
    if box is None:
        return ""
    x1, y1, x2, y2 = _within(box, photo)
    outline = f'x="{x1:g}" y="{y1:g}" width="{x2 - x1:g}" height="{y2 - y1:g}"'
    return f"""<svg viewBox="0 0 {photo.width} {photo.height}" preserveAspectRatio="none" aria-hidden="true">\
<path class="shade" fill-rule="evenodd" d="M0 0H{photo.width}V{photo.height}H0ZM{x1:g} {y1:g}H{x2:g}V{y2:g}H{x1:g}Z"/>\
<rect class="halo" {outline}/><rect class="box" {outline}/></svg>"""


def _within(box, photo):
    return [min(max(float(value), 0), side) for value, side in zip(box, (photo.width, photo.height) * 2)]


def _link(path, folder):
    """A URL of a file, as an attribute's value: every byte but plain letters, digits and `/._-~` is percent-encoded."""
    path = os.path.abspath(path)
    if folder is not None:
        folder = os.path.abspath(folder)
        with contextlib.suppress(ValueError):  # on another drive
            shared = os.path.commonpath([path, folder])
            # Where all that they share is the root, a relative link would climb up to it: that moves no better.
            if shared == folder or os.path.dirname(shared) != shared:
                return urllib.parse.quote(os.fsencode(os.path.relpath(path, folder).replace(os.sep, "/")))
    return pathlib.Path(path).as_uri()


def _size_in_words(path):
    size = float(os.stat(path).st_size)
    units = iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    for larger in units:
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 9.95 else f"{size:.1f} {unit}"


def _text(value):
    return html.escape(printable(str(value)))


def _name(name):
    """A file name that may break after its separators; one in Hebrew or Arabic does not turn its neighbours around."""
    return "<bdi>" + _text(name).replace("/", "/<wbr>").replace("_", "_<wbr>") + "</bdi>"


# Nothing in it moves, so there is nothing to still for those who ask for less motion.
_STYLE = """
:root { color-scheme: light dark; --paper: #f5f5f6; --card: #fff; --well: #ebebee; --ink: #18181b; --quiet: #5a5a64;
  --line: #d9d9df; --link: #1b4fa5; --bar: #2f6bc9; --track: #dfdfe5; --focus: #1b4fa5; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #131417; --card: #1d1f23; --well: #26282d; --ink: #ececef; --quiet: #a9abb4; --line: #34363c;
    --link: #9dc1fb; --bar: #7aa9f0; --track: #3a3d44; --focus: #9dc1fb; }
}
* { box-sizing: border-box; margin: 0; }
body { background: var(--paper); color: var(--ink); font: 1rem/1.45 system-ui, sans-serif; max-width: 110rem; margin: auto;
  padding: 1.5rem clamp(1rem, 3vw, 2.5rem) 3rem; }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin-bottom: .5rem; }
h2:focus { outline: none; }
/* Lines below a name would hide its underscores. */
a { color: var(--link); text-decoration: none; }
a:hover .name { text-decoration: underline; text-underline-offset: .2em; }
img { display: block; }
.skip { position: absolute; left: -100vw; background: var(--card); padding: .6rem 1rem; border-radius: .4rem; z-index: 1; }
.skip:focus { left: 1rem; top: 1rem; }
a:not(.hit):focus-visible, .skip:focus { outline: 3px solid var(--focus); outline-offset: 3px; border-radius: .4rem; }
.note { color: var(--quiet); margin-top: .35rem; max-width: 70ch; }
dl { display: flex; flex-wrap: wrap; gap: .2rem 1.5rem; margin-top: .5rem; font-size: .875rem; }
dl div { display: flex; gap: .4rem; }
dt, .facts, .cosine span, #keys { color: var(--quiet); }
dd { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
main { display: grid; gap: 2rem; margin-top: 1.5rem; }
.name { display: block; overflow-wrap: anywhere; line-height: 1.3; }
.facts, .cosine, #keys { font-size: .875rem; font-variant-numeric: tabular-nums; }
.query .name { margin-top: .6rem; }
.boxed { display: block; position: relative; width: fit-content; }
.boxed img { max-width: 100%; max-height: 45vh; width: auto; height: auto; border-radius: .25rem; }
.boxed svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.boxed svg * { fill: none; vector-effect: non-scaling-stroke; }
.boxed .shade { fill: #000; fill-opacity: .45; }
.halo { stroke: #18181b; stroke-width: 5px; }
.box { stroke: #f5b400; stroke-width: 3px; }
#keys { display: none; margin-bottom: .75rem; }
kbd { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--line); border-radius: .25rem;
  padding: 0 .3rem; }
ol { list-style: none; padding: 0; display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(13.5rem, 1fr)); }
li { position: relative; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .6rem;
  scroll-margin: 1rem; display: flex; flex-direction: column; gap: .2rem; }
.names { display: block; }
.names li { flex-direction: row; align-items: baseline; gap: .75rem; padding: .3rem .6rem; border-width: 0 0 1px; border-radius: 0;
  font-variant-numeric: tabular-nums; }
.names .name { flex: 1; min-width: 0; }
.names span:first-child { color: var(--quiet); min-width: 3rem; text-align: right; }
.few { margin-bottom: .75rem; }
#rest { margin-top: 2rem; }
.hit { outline: none; display: block; }
/* The ring stands around the whole tile, and lets its text be selected. */
.hit:focus::after, .hit:focus-visible::after { content: ""; position: absolute; inset: -2px; border-radius: .7rem;
  outline: 3px solid var(--focus); outline-offset: 1px; pointer-events: none; }
.hit:focus:not(:focus-visible)::after { outline: none; }
.well { display: block; position: relative; aspect-ratio: 1; background: var(--well); border-radius: .25rem; overflow: hidden;
  margin-bottom: .5rem; }
.well img { width: 100%; height: 100%; object-fit: scale-down; }
.gone { position: absolute; inset: 0; display: grid; place-content: center; text-align: center; padding: 1.5rem;
  color: var(--quiet); font-size: .875rem; }
.rank { position: absolute; left: .4rem; top: .4rem; min-width: 1.75rem; padding: .05rem .4rem; text-align: center;
  font-weight: 600; font-size: .875rem; color: #fff; background: rgb(24 24 27 / .85); border-radius: .3rem; }
.cosine { display: flex; align-items: center; gap: .4rem; }
.cosine svg { flex: 1; height: .4rem; border-radius: .2rem; margin-left: .2rem; }
.track { fill: var(--track); }
.bar { fill: var(--bar); }
@media (hover: hover) and (min-width: 34.01rem) { #keys:not([hidden]) { display: block; } }
@media (min-width: 44rem) {
  main { grid-template-columns: clamp(12rem, 27%, 22rem) minmax(0, 1fr); gap: clamp(1.5rem, 3vw, 2.5rem); align-items: start; }
  .query { position: sticky; top: 1.5rem; }
  .boxed img { max-height: 65vh; }
}
@media (max-width: 34rem) {
  ol { grid-template-columns: 1fr; }
  .well { aspect-ratio: auto; min-height: 8rem; }
  .well img { width: auto; height: auto; max-width: 100%; max-height: 85vh; margin: auto; }
}
"""

_SCRIPT = """
(() => {
  const hits = [...document.querySelectorAll(".hit")];
  const top = hit => hit.closest("li").offsetTop;
  document.getElementById("keys").hidden = hits.length === 0;
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || hits.length === 0) return;
    const at = hits.indexOf(document.activeElement);
    const last = hits.length - 1;
    const columns = hits.filter(hit => top(hit) === top(hits[0])).length;
    let to = -1;
    switch (event.key.toLowerCase()) {
      case "j": case "arrowright": to = at + 1; break;
      case "k": case "arrowleft": to = at - 1; break;
      // Up and down go on scrolling the page while no hit has the focus.
      case "arrowup": to = at - columns; break;
      case "arrowdown": if (at >= 0 && top(hits[at]) < top(hits[last])) to = Math.min(at + columns, last); break;
    }
    if (to < 0 || to > last) {
      // Beyond the first and last line they go to its ends, at once: a scroll under way would meet the next key's.
      if (at < 0 || !/^arrow(up|down)$/i.test(event.key)) return;
      event.preventDefault();
      scrollTo(0, /up/i.test(event.key) ? 0 : document.documentElement.scrollHeight);
      return;
    }
    event.preventDefault();
    hits[to].focus({ preventScroll: true });
    hits[to].closest("li").scrollIntoView({ block: "nearest" });
  });
})();
"""


def _hash(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# This style and this script and no other run, and nothing is loaded, whatever a name may hold.
_POLICY = (
    f"default-src 'none'; img-src data:; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
    "base-uri 'none'; form-action 'none'"
)
