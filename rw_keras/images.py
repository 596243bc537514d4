"""Reading photos: the one place that decodes, turns upright, crops and resizes.

The definition, for every photo and box of this package:

1. Decode to 8-bit RGB. Grey and palette files are expanded, CMYK converted, transparency laid over white; of
   16 bits the upper 8 are taken. The EXIF orientation is applied, and of an animation the first frame counts.
2. Factor `f = min(1, max_side / longer side)` of the full upright photo: nothing is ever enlarged.
3. The box, rounded to whole pixels, is cut out of the full-size photo.
4. Photo or box is resized by `f`, both sides rounded to the nearest pixel: bicubic (a = -0.5), antialiased (the
   filter is widened by the factor), first along rows, then along columns, each rounded to 8 bits, as Pillow's `resize`
   does it. `f = 1` changes nothing.
"""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

EXTENSIONS = frozenset(".bmp .gif .jfif .jpe .jpeg .jpg .png .ppm .pgm .tif .tiff .webp".split())


Photo = str | os.PathLike[str] | np.ndarray
Box = Sequence[float]


class ImageError(ValueError):
    """A photo, or a box in it, that cannot be used. The message names it, says why, and what to do."""


def read_image(source: Photo, box: Box | None = None, max_side: int | None = 1024, min_side: int = 1) -> np.ndarray:
    """Reads a photo, or a box of it, as the network takes it.

    Args:
        source: the path of a file, a binary file object that can seek, or an array of pixels 0..255: `(H, W, 3)` RGB,
            `(H, W, 4)` RGBA, `(H, W)` or `(H, W, 1)` grey; uint8, other integers or float (rounded to whole values).
        box: (x1, y1, x2, y2) in pixels of the upright full-size photo, x2 and y2 exclusive; `None`: all of it.
        max_side: the longer side of the photo is reduced to this many pixels, and a box by the same factor;
            `None`: no limit.
        min_side: the fewest pixels that a side of the result may have.

    Returns:
        `(H, W, 3)` uint8.

    Raises:
        FileNotFoundError: when there is no such file.
        ImageError: when it cannot be read, the box does not fit, or too few pixels are left.
    """
    check_max_side(max_side)
    photo, name = _open(source)
    width, height = photo.size
    factor = 1.0 if max_side is None else min(1.0, max_side / max(width, height))
    what = name
    if box is not None:
        corners = _corners(box, width, height, name)
        photo = photo.crop(corners)
        what = f"the box {tuple(box)} of {name}"
    size = tuple(int(side * factor + 0.5) for side in photo.size)
    if min(size) < min_side:
        at = f" at max_side={max_side}" if factor < 1 else ""
        raise ImageError(
            f"{what} is {size[0]} x {size[1]} pixels{at}, too small: each side needs {min_side} or more, or the "
            "network's feature map is empty; take a larger photo, box or max_side."
        )
    if size != photo.size:
        # One axis at a time: left alone, some versions of Pillow take the columns of a tall photo first.
        photo = photo.resize((size[0], photo.height), Image.Resampling.BICUBIC).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(photo)


def check_max_side(max_side: int | None) -> None:
    """Says so when `max_side` is neither `None` nor a whole number from 1 up."""
    if max_side is not None and (isinstance(max_side, bool) or not isinstance(max_side, (int, np.integer)) or max_side < 1):
        raise ValueError(f"max_side is a whole number of pixels from 1 up, or None for no limit, but got {max_side!r}.")


def list_photos(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The photos in a folder and those below it, by their endings (`EXTENSIONS`), sorted by name.

    Raises:
        FileNotFoundError: when there is no such folder.
        ImageError: when there is no photo in it.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; pass the folder that holds the photos.")
    found: list[pathlib.Path] = []
    for parent, _, files in os.walk(folder):
        found += (pathlib.Path(parent, name) for name in files if pathlib.PurePath(name).suffix.lower() in EXTENSIONS)
    if not found:
        raise ImageError(f"There is no photo in {folder} ({', '.join(sorted(EXTENSIONS))}); pass a folder that holds some.")
    return sorted(found)


def image_name(source: Photo) -> str:
    """What messages call a photo: its path, or the shape of its array."""
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    if hasattr(source, "read"):
        return str(getattr(source, "name", "the file object"))
    return f"the array of shape {np.shape(source)}"


def _open(source):
    """An upright 8-bit RGB Pillow image, and its name for messages."""
    name = image_name(source)
    if hasattr(source, "read"):
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
    elif not isinstance(source, (str, os.PathLike)):
        return _from_array(source, name), name
    else:
        path = source = pathlib.Path(source)
        if path.is_dir():
            raise ImageError(f"{name} is a folder; pass the path of a photo.")
        if not path.exists():
            raise FileNotFoundError(f"There is no file {name}; pass the path of a photo.")
        size = path.stat().st_size
    if size == 0:
        raise ImageError(f"{name} is empty (0 bytes); replace or remove it.")
    try:
        photo = Image.open(source)
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not an image that can be read; replace or remove it.") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {error} If it is a photo, raise PIL.Image.MAX_IMAGE_PIXELS.") from None
    except Exception as error:  # each decoder has errors of its own
        raise ImageError(f"{name} cannot be read: {error}; replace or remove it.") from error
    with photo:
        try:
            photo.load()
            return _to_rgb(ImageOps.exif_transpose(photo), name), name
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"{name} cannot be decoded, it is cut short or damaged: {error}; replace or remove it.") from error


def _to_rgb(photo, name):
    if photo.mode.startswith("I"):  # 16 bits, in one of Pillow's forms
        values = np.asarray(photo)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{name} has values from {values.min()} to {values.max()}; convert it to 8 or 16 bits.")
        photo = Image.fromarray((values >> 8).astype("uint8"))
    elif photo.mode == "F":
        raise ImageError(f"{name} holds floating-point values, whose white is not known; convert it to 8 bits.")
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        white = Image.new("RGBA", photo.size, "white")
        photo = Image.alpha_composite(white, photo)
    return photo.convert("RGB")


def _from_array(source, name):
    pixels = np.asarray(source)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)) or 0 in pixels.shape:
        raise ImageError(f"{name} is no photo; pass (height, width, 3) RGB, (height, width, 4) RGBA or (height, width) grey.")
    if pixels.dtype == bool or pixels.dtype.kind not in "uif":
        raise ImageError(f"{name} has the dtype {pixels.dtype}; pass pixels 0..255 as uint8 or float.")
    if pixels.dtype != np.uint8:
        low, high = pixels.min(), pixels.max()
        if not (low >= 0 and high <= 255):  # NaN fails this, too
            raise ImageError(f"{name} has values from {low} to {high}; pass pixels 0..255.")
        if pixels.dtype.kind == "f" and 0 < high <= 1:
            raise ImageError(f"{name} has values from {low} to {high}, as if white were 1; multiply it by 255.")
        pixels = np.rint(pixels).astype("uint8")
    return _to_rgb(Image.fromarray(np.ascontiguousarray(pixels)), name)


def _corners(box, width, height, name):
    """The box in whole pixels. It may leave the photo by less than one, as rounded boxes do."""
    try:
        x1, y1, x2, y2 = (float(value) for value in box)
        corners = [int(np.floor(value + 0.5)) for value in (x1, y1, x2, y2)]
    except (TypeError, ValueError, OverflowError):
        raise ImageError(f"The box {box!r} of {name} is not four numbers x1, y1, x2, y2.") from None
    if x1 <= -1 or y1 <= -1 or x2 >= width + 1 or y2 >= height + 1:
        raise ImageError(
            f"The box {tuple(box)} leaves {name}, which is {width} x {height} pixels; give x1, y1, x2, y2 in pixels of "
            "the upright full-size photo."
        )
    x1, y1, x2, y2 = np.clip(corners, 0, (width, height, width, height)).tolist()
    if x1 >= x2 or y1 >= y2:
        raise ImageError(f"The box {tuple(box)} of {name} is empty; give x1 < x2 and y1 < y2.")
    return x1, y1, x2, y2
