"""One picture of searches: a query a row, its box, and its top hits, the right ones framed."""

import dataclasses
import os
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from rw_keras.files import checked_path, file_to_write, printable

_TILE, _GAP, _TEXT = 180, 14, 40
RIGHT, _BOX = (22, 132, 74), (245, 180, 0)
_INK, _QUIET, _PAPER = (24, 24, 27), (100, 100, 108), (255, 255, 255)


@dataclasses.dataclass(frozen=True)
class Hit:
    """A found photo: pixels `(H, W, 3)` uint8 (`None`: there are none to show), its name, the cosine, whether it is right, its
    rank (`None`: its place in the row), the colour of its frame (`None`: green where it is right, else no frame), and what the
    cosine is called, "score" where it is none."""

    photo: object
    name: str
    score: float
    right: bool = False
    rank: int | None = None
    frame: tuple[int, int, int] | None = None
    measure: str = "cosine"


@dataclasses.dataclass(frozen=True)
class Row:
    """A search: the query's pixels, its name, its box or `None`, and its hits, best first."""

    photo: object
    name: str
    box: object
    hits: list


def contact_sheet(rows: Sequence[Row], title: str, columns: int | None = None) -> Image.Image:
    """Draws searches as one Pillow image: right hits have a green frame, the query's box is yellow.

    Of a row with more than `columns` hits, the others stand in lines below.
    """
    most = max(len(row.hits) for row in rows)
    columns = most if columns is None else min(columns, most)
    height = _TILE + _TEXT + _GAP
    lines = [max(1, -(-len(row.hits) // max(1, columns))) for row in rows]
    sheet = Image.new("RGB", ((1 + columns) * (_TILE + _GAP) + 2 * _GAP, sum(lines) * height + 4 * _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    draw.text((_GAP, _GAP), _shortened(draw, title, font, sheet.width - 2 * _GAP), _INK, font)
    draw.line([(_TILE + 1.5 * _GAP, 3 * _GAP), (_TILE + 1.5 * _GAP, sheet.height - _GAP)], (220, 220, 224), 1)
    for number, row in enumerate(rows):
        top = 3.5 * _GAP + sum(lines[:number]) * height
        _tile(draw, sheet, (_GAP, top), row.photo, row.name, "query", None, row.box)
        for place, hit in enumerate(row.hits):
            line, column = divmod(place, columns)
            corner = (2 * _GAP + (1 + column) * (_TILE + _GAP), top + line * height)
            rank = place + 1 if hit.rank is None else hit.rank
            frame = hit.frame or (RIGHT if hit.right else None)
            _tile(draw, sheet, corner, hit.photo, f"{rank}. {hit.name}", f"{hit.measure} {hit.score:.3f}", frame, None)
    return sheet


def _tile(draw, sheet, corner, photo, name, note, frame, box):
    photo = _placeholder() if photo is None else Image.fromarray(photo)
    scale = min(_TILE / photo.width, _TILE / photo.height)
    small = photo.resize((max(1, round(photo.width * scale)), max(1, round(photo.height * scale))), Image.Resampling.BICUBIC)
    left, top = (int(corner[0]) + (_TILE - small.width) // 2, int(corner[1]) + (_TILE - small.height) // 2)
    sheet.paste(small, (left, top))
    if frame is not None:
        draw.rectangle([left - 4, top - 4, left + small.width + 3, top + small.height + 3], outline=frame, width=4)
    if box is not None:
        x1, y1, x2, y2 = (value * scale for value in box)
        # Of a large photo, a small box may be less than a pixel here.
        draw.rectangle([left + x1, top + y1, left + max(x1, x2 - 1), top + max(y1, y2 - 1)], outline=_BOX, width=3)
    below = int(corner[1]) + _TILE + 6
    font = ImageFont.load_default(13)
    draw.text((corner[0], below), _shortened(draw, name, font, _TILE), _INK, font)
    draw.text((corner[0], below + 16), note, _QUIET, ImageFont.load_default(12))


def _placeholder():
    tile = Image.new("RGB", (_TILE, _TILE), (235, 235, 238))
    ImageDraw.Draw(tile).text((_TILE / 2, _TILE / 2), "cannot be shown", _QUIET, ImageFont.load_default(12), "mm")
    return tile


def _shortened(draw, text, font, width):
    text = printable(text)
    while len(text) > 1 and draw.textlength(text, font) > width:
        text = text[:-2] + "…"
    return text


def check_picture(path: str | os.PathLike[str]) -> None:
    """Refuses the name of a picture that could not be written, before any work is done for it.

    Raises:
        ValueError: for a name without an ending of a picture, or one that no file can have.
        FileNotFoundError: when there is no such folder.
    """
    path = checked_path(path)
    Image.init()
    endings = sorted(ending for ending, kind in Image.registered_extensions().items() if kind in Image.SAVE)
    if path.suffix.lower() not in endings:
        raise ValueError(f"A picture's name ends in .png or .jpg, but got {path}; call it {path.with_suffix('.png')}.")
    file_to_write(path)
