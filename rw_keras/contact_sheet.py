"""One picture of searches: a query a row, its box, and its top hits, the right ones framed."""

import dataclasses

from PIL import Image, ImageDraw, ImageFont

_TILE, _GAP, _TEXT = 180, 14, 40
_RIGHT, _BOX = (22, 132, 74), (245, 180, 0)
_INK, _QUIET, _PAPER = (24, 24, 27), (100, 100, 108), (255, 255, 255)


@dataclasses.dataclass(frozen=True)
class Hit:
    """A found photo: pixels `(H, W, 3)` uint8, its name, the cosine, and whether it is right."""

    photo: object
    name: str
    score: float
    right: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """A search: the query's pixels, its name, its box or `None`, and its hits, best first."""

    photo: object
    name: str
    box: object
    hits: list


def contact_sheet(rows, title):
    """Draws searches as one Pillow image: right hits have a green frame, the query's box is yellow."""
    columns = 1 + max(len(row.hits) for row in rows)
    height = _TILE + _TEXT + _GAP
    sheet = Image.new("RGB", (columns * (_TILE + _GAP) + 2 * _GAP, len(rows) * height + 4 * _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, _INK, ImageFont.load_default(16))
    draw.line([(_TILE + 1.5 * _GAP, 3 * _GAP), (_TILE + 1.5 * _GAP, sheet.height - _GAP)], (220, 220, 224), 1)
    for number, row in enumerate(rows):
        top = 3.5 * _GAP + number * height
        _tile(draw, sheet, (_GAP, top), row.photo, row.name, "query", False, row.box)
        for place, hit in enumerate(row.hits, 1):
            left = 2 * _GAP + place * (_TILE + _GAP)
            _tile(draw, sheet, (left, top), hit.photo, f"{place}. {hit.name}", f"cosine {hit.score:.3f}", hit.right, None)
    return sheet


def _tile(draw, sheet, corner, photo, name, note, right, box):
    photo = Image.fromarray(photo)
    scale = min(_TILE / photo.width, _TILE / photo.height)
    small = photo.resize((max(1, round(photo.width * scale)), max(1, round(photo.height * scale))), Image.Resampling.BICUBIC)
    left, top = (int(corner[0]) + (_TILE - small.width) // 2, int(corner[1]) + (_TILE - small.height) // 2)
    sheet.paste(small, (left, top))
    if right:
        draw.rectangle([left - 4, top - 4, left + small.width + 3, top + small.height + 3], outline=_RIGHT, width=4)
    if box is not None:
        x1, y1, x2, y2 = (value * scale for value in box)
        draw.rectangle([left + x1, top + y1, left + x2 - 1, top + y2 - 1], outline=_BOX, width=3)
    below = int(corner[1]) + _TILE + 6
    draw.text((corner[0], below), _shortened(draw, name, ImageFont.load_default(13)), _INK, ImageFont.load_default(13))
    draw.text((corner[0], below + 16), note, _QUIET, ImageFont.load_default(12))


def _shortened(draw, text, font):
    while len(text) > 1 and draw.textlength(text, font) > _TILE:
        text = text[:-2] + "…"
    return text
