"""Small sets laid out as the originals, and the methods that are tried on them."""

import pathlib

from PIL import Image

WANTED = {"rw": ("rw", 3), "root_rw": ("root_rw", 3), "rmac": ("rmac", 3), "crow": ("crow", 3), "rw, 1 scale": ("rw", 1)}


def write_set(folder, draw, prefix="", truth=True, landmarks=("hall", "keep"), photos=18):
    """A folder of photos of a few things, and a query or two for each landmark."""
    (folder / "jpg").mkdir(parents=True)
    (folder / "gt").mkdir()
    things = len(landmarks) + 1
    names = [f"{folder.name}_{number:06d}" for number in range(photos)]
    for number, name in enumerate(names):
        size = (96 - number % 5, 64 + number % 7) if number % 4 else (64, 88)
        Image.fromarray(draw(number % things * 100 + number // (2 * things), *size)).save(folder / "jpg" / f"{name}.jpg")
    for place, landmark in enumerate(landmarks if truth else ()):
        own = names[place::things]
        for query in (1, 2):
            path = str(folder / "gt" / f"{landmark}_{query}")
            pathlib.Path(f"{path}_query.txt").write_text(f"{prefix}{own[query]} 2 3 60 50")
            for kind, listed in (("good", own[:3]), ("ok", own[3:4]), ("junk", own[4:5])):
                pathlib.Path(f"{path}_{kind}.txt").write_text("".join(f"{name}\n" for name in listed))
    if not truth:
        (folder / "gt").rmdir()
