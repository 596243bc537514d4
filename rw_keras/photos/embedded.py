"""Ten colour photographs that come with scikit-learn and scikit-image, and harder views of them: no download.

A smoke test, not a benchmark: ten photos are told apart by nearly anything.
"""

import dataclasses
import importlib.util
import io
import pathlib

import numpy as np
from PIL import Image, ImageFilter

from rw_keras.photos.reading import read_image

_FILES = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "galaxies": ("skimage", "data/hubble_deep_field.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "temple": ("sklearn", "datasets/images/china.jpg"),
    "tissue": ("skimage", "data/ihc.png"),
}
_OTHER_EYE = ("skimage", "data/motorcycle_right.png")
_SEED = 20260


@dataclasses.dataclass(frozen=True)
class View:
    """A query: a harder view of a photo.

    Attributes:
        photo: `(H, W, 3)` uint8.
        box: (x1, y1, x2, y2) of the part that is asked for, or `None` for all of it.
        positives: the names of the photos that are right.
    """

    photo: np.ndarray
    box: tuple | None
    positives: frozenset


def load(max_side: int = 640) -> tuple[dict[str, np.ndarray], dict[str, View]]:
    """The set: photos to index, and queries.

    Args:
        max_side: photos are reduced to this many pixels on the longer side before views of them are made.

    Returns:
        photos: name -> `(H, W, 3)` uint8, ten of them.
        queries: name -> `View`, 61 of them: of each photo a box of half its sides, a perspective, rotated, blurred,
            JPEG-compressed and dimmed view, the same ones in every run; and the other eye of the stereo pair.

    Raises:
        ImportError: when scikit-learn or scikit-image is not installed.
    """
    photos = {name: photo(name, max_side) for name in _FILES}
    random = np.random.default_rng(_SEED)
    queries = {}
    for name, pixels in photos.items():
        for kind, make in _VIEWS.items():
            view, box = make(Image.fromarray(pixels), random)
            queries[f"{name}, {kind}"] = View(np.asarray(view), box, frozenset({name}))
    queries["motorcycle, other eye"] = View(read_image(_path(*_OTHER_EYE), max_side=max_side), None, frozenset({"motorcycle"}))
    return photos, queries


def photo(name: str, max_side: int = 640) -> np.ndarray:
    """One photo of the set, `(H, W, 3)` uint8, without any views."""
    return read_image(_path(*_FILES[name]), max_side=max_side)


def _path(package, inside):
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ImportError(
            'The embedded photos come with scikit-learn and scikit-image; install both with: pip install "rw_keras[demo]"'
        )
    return pathlib.Path(spec.origin).parent / inside


def _half(photo, random):
    width, height = photo.size
    left, top = int(random.uniform(0, width / 2)), int(random.uniform(0, height / 2))
    return photo, (left, top, left + width // 2, top + height // 2)


def _perspective(photo, random):
    """The photo seen from the side: the corners drawn in by up to a quarter, what lies outside cut off."""
    width, height = photo.size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], "float64")
    inward = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    source = corners + inward * random.uniform(0, 0.25, (4, 2)) * (width, height)
    # Pillow wants the eight coefficients of the map from the new photo's places to the old one's.
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, source):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    coefficients = np.linalg.solve(np.array(rows), np.array(values))
    return photo.transform(photo.size, Image.Transform.PERSPECTIVE, tuple(coefficients), Image.Resampling.BICUBIC), None


def _rotation(photo, random):
    """Turned by 10 to 25 degrees, and cropped to what stays filled."""
    angle = float(random.choice([-1, 1]) * random.uniform(10, 25))
    width, height = photo.size
    turned = photo.rotate(angle, Image.Resampling.BICUBIC)
    sine, cosine = abs(np.sin(np.radians(angle))), np.cos(np.radians(angle))
    scale = 1 / (cosine + sine * max(width / height, height / width))
    inner_width, inner_height = int(width * scale) - 2, int(height * scale) - 2
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    return turned.crop((left, top, left + inner_width, top + inner_height)), None


def _blur(photo, random):
    return photo.filter(ImageFilter.GaussianBlur(max(photo.size) / 150)), None


def _jpeg(photo, random):
    small = photo.resize((photo.width // 3, photo.height // 3), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=10)
    return Image.open(buffer).convert("RGB"), None


def _dimming(photo, random):
    return Image.fromarray((np.asarray(photo) * 0.25).astype("uint8")), None


_VIEWS = {"half": _half, "perspective": _perspective, "rotated": _rotation, "blurred": _blur, "jpeg": _jpeg, "dimmed": _dimming}
