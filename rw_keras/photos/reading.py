"""Reading photos: the one place that decodes, turns upright, crops and resizes.

The definition, for every photo and box of this package:

1. Decode to 8 bits. Grey and palette files are expanded, CMYK converted; of 16 bits the upper 8 are taken. The EXIF orientation is
   applied; of an animation the first frame counts, of several images in a HEIC file the primary one. A camera's raw file is
   developed by LibRaw with the camera's white balance, and is upright then.
2. Factor `f = min(1, max_side / longer side)` of the full upright photo: nothing is ever enlarged.
3. The box, rounded to whole pixels, is cut out of the full-size photo.
4. Photo or box is resized by `f`, both sides rounded to the nearest pixel: bicubic (a = -0.5), antialiased (the
   filter is widened by the factor), first along rows, then along columns, each rounded to 8 bits, as Pillow's `resize`
   does it. `f = 1` changes nothing. Where there is transparency, the colours are multiplied by it first and rounded to 8 bits, and
   resized so, and their transparency with them.
5. What is transparent is laid over white: colour + 255 - alpha, and no less than the colour black or more than white.

Decoding takes memory: photos that are decoded at the same time, in all threads of a process, share `MEMORY` bytes.
"""

import contextlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rw_keras import _moved
from rw_keras.photos import formats
from rw_keras.photos.colours import in_srgb
from rw_keras.photos.memory import Memory

# What decoding takes at once. Ten threads with photos of 24 megapixels fit; more wait for one another.
MEMORY = 1 << 30

# Bytes of a pixel as Pillow keeps it (4 in all other modes), and what decoders take beside: whole frames, planes, a strip.
_KEPT = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
_BESIDE = {"WEBP": 12, "AVIF": 8, "HEIF": 8, "TIFF": 4}
_RAW_BYTES = 16

# Pixels that are converted at once: a photo that is not RGB is reduced in bands of so many.
_BAND = 4 << 20

__getattr__ = _moved.names(__name__, list_photos="photos.sources")

Photo = str | os.PathLike[str] | np.ndarray
Box = Sequence[float]


class ImageError(ValueError):
    """A photo, or a box in it, that cannot be used. The message names it, says why, and what to do."""


class MissingReaderError(ImageError):
    """A photo whose format needs a reader that is not installed: the message has the line. Nothing is wrong with the photo."""


_memory = Memory(MEMORY)
if hasattr(os, "register_at_fork"):  # a child has none of the threads that would give back what they were lent
    os.register_at_fork(after_in_child=lambda: _memory.__init__(MEMORY))


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
        OSError: when it cannot be read at the moment.
        ImageError: when it is no photo that can be decoded, the box does not fit, or too few pixels are left.
        MissingReaderError: (an ImageError) when it is HEIC, AVIF or camera raw, and the extra that reads it is not installed.
    """
    check_max_side(max_side)

    def finish(photo, name):
        return _finished(photo, name, box, max_side, min_side)

    if not _is_file(source):
        name = image_name(source)
        return finish(_from_array(source, name), name)
    with _opened(source) as (photo, name), _decoded(photo, box, max_side) as upright:
        return finish(upright, name)


def read_thumbnail(source: str | os.PathLike[str], side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """A photo for the eye, and how large it is.

    A JPEG is decoded at a half, a quarter or an eighth of its size where that is enough, in a fraction of the time, to nearly the
    pixels of `read_image`. Colours that are meant by a profile in the file are brought to sRGB, which the eye is shown.

    Args:
        source: see `read_image`; no array.
        side: about how many pixels the longer side is reduced to.

    Returns:
        `(H, W, 3)` uint8, and width and height in pixels of the upright full-size photo.

    Raises:
        FileNotFoundError, OSError, ImageError: see `read_image`.
    """
    with _opened(source) as (photo, name):
        size, profile = _upright_size(photo), None
        if isinstance(photo, Image.Image):
            profile = photo.info.get("icc_profile")
            photo.draft(photo.mode, (2 * side, 2 * side))
        with _decoded(photo, None, side) as upright:
            return in_srgb(_finished(upright, name, None, side, 1), profile), size


def upright_size(source: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height in pixels of a photo as `read_image` turns it, from the head of its file: nothing is decoded.

    Args:
        source: see `read_image`; no array.

    Raises:
        FileNotFoundError, OSError, ImageError: see `read_image`.
    """
    with _opened(source) as (photo, _):
        return _upright_size(photo)


def check_max_side(max_side: int | None) -> None:
    """Says so when `max_side` is neither `None` nor a whole number from 1 up."""
    if max_side is not None and (isinstance(max_side, bool) or not isinstance(max_side, (int, np.integer)) or max_side < 1):
        raise ValueError(f"max_side is a whole number of pixels from 1 up, or None for no limit, but got {max_side!r}.")


def broken_link(path: str | os.PathLike[str]) -> str:
    """The sentence about a symbolic link that leads to nothing, or to itself."""
    return f"{path} is a link to {os.readlink(path)}, which is not there; restore that, or remove the link."


def image_name(source: Photo) -> str:
    """What messages call a photo: its path, or the shape of its array."""
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    if hasattr(source, "read"):
        return str(getattr(source, "name", "the file object"))
    return f"the array of shape {np.shape(source)}"


def _is_file(source):
    return hasattr(source, "read") or isinstance(source, (str, os.PathLike))


@contextlib.contextmanager
def _opened(source):
    """A file whose head has been read, as Pillow's image or LibRaw's, and its name for messages; errors within become sentences."""
    name = image_name(source)
    with contextlib.ExitStack() as stack:
        if not hasattr(source, "read"):
            path = pathlib.Path(source)
            if path.is_dir():
                raise ImageError(f"{name} is a folder; pass the path of a photo.")
            if not path.exists():
                if path.is_symlink():
                    raise FileNotFoundError(broken_link(path))
                raise FileNotFoundError(f"There is no file {name}; pass the path of a photo.")
            if not path.is_file():
                raise ImageError(f"{name} is no file but a pipe, a socket or a device; pass the path of a photo.")
            source = stack.enter_context(open(path, "rb"))
        try:
            if source.seek(0, os.SEEK_END) == 0:
                raise ImageError(f"{name} is empty (0 bytes); replace or remove it.")
            source.seek(0)
            yield stack.enter_context(_recognised(source, name)), name
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise ImageError(f"{name} is not an image that can be read; replace or remove it.") from None
        except Image.DecompressionBombError as error:
            raise ImageError(f"{name} is too large: {error} If it is a photo, raise PIL.Image.MAX_IMAGE_PIXELS.") from None
        except Exception as error:  # each decoder has errors of its own
            if isinstance(error, OSError) and error.errno is not None:  # the disk's, not a decoder's
                raise OSError(error.errno, f"{name} cannot be read: {error.strerror}") from error
            reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else error  # LibRaw's are bytes
            raise ImageError(f"{name} cannot be decoded, it is cut short or damaged: {reason}; replace or remove it.") from error


def _recognised(file, name):
    """Pillow's or LibRaw's image of a file, of which nothing is decoded yet."""
    kind = formats.kind(file, os.path.splitext(name)[1])
    if kind is None:
        return Image.open(file, formats=formats.PILLOW)
    if kind == formats.AVIF and formats.pillow_reads_avif():
        return Image.open(file, formats=("AVIF",))
    if kind not in (formats.HEIF, formats.AVIF, formats.RAW):
        raise ImageError(f"{name} holds {kind}, which is not read as a photo; convert it to {formats.WORDS}, or remove it.")
    try:
        if kind == formats.RAW:
            import rawpy

            photo = rawpy.imread(file)
            _check_pixels(photo.sizes.iwidth, photo.sizes.iheight, name)
            return photo
        if kind == formats.HEIF:
            import pillow_heif

            photo = pillow_heif.HeifImageFile(file)
            _check_pixels(*photo.size, name)
            return photo
    except ImportError:
        pass
    raise MissingReaderError(f"{name} holds {kind}; install what reads it: {formats.install_line(kind)}")


@contextlib.contextmanager
def _decoded(photo, box, max_side):
    """The upright photo as Pillow's image in a mode of its own, with the memory that it and its reducing take."""
    if not isinstance(photo, Image.Image):  # camera raw
        with _memory.lend(_RAW_BYTES * photo.sizes.iwidth * photo.sizes.iheight):
            yield Image.fromarray(photo.postprocess(use_camera_wb=True, output_bps=8))
        return
    with _memory.lend(_bytes_taken(photo, box, max_side)):
        try:
            photo.load()
            ImageOps.exif_transpose(photo, in_place=True)
            yield photo
        finally:
            photo.close()  # its pixels go before another photo is lent their bytes


def _upright_size(photo):
    """Width and height of a photo that has not been decoded, as it will be."""
    if not isinstance(photo, Image.Image):
        width, height, turned = photo.sizes.iwidth, photo.sizes.iheight, photo.sizes.flip >= 4
    else:
        # Some versions of Pillow have turned a TIFF's size already.
        width, height = (photo.tag_v2[256], photo.tag_v2[257]) if photo.format == "TIFF" else photo.size
        turned = _orientation(photo) >= 5
    return (height, width) if turned else (width, height)


def _check_pixels(width, height, name):
    """Refuses as many pixels as Pillow refuses, where it is not Pillow that opens a file."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > 2 * limit:
        raise ImageError(
            f"{name} is too large: it has {width * height} pixels, more than {2 * limit}. If it is a photo, raise "
            "PIL.Image.MAX_IMAGE_PIXELS."
        )


def _orientation(photo):
    """The EXIF orientation of a photo that may not have been decoded; 1 where there is none."""
    if photo.format == "PNG" and not {"exif", "Raw profile type exif", "XML:com.adobe.xmp"} & photo.info.keys():
        return 1  # it may stand behind the pixels, but Pillow decodes them to look there
    value = photo.getexif().get(0x0112, 1)
    return value if value in range(1, 9) else 1


def _bytes_taken(photo, box, max_side):
    """About what it takes at most to decode and reduce a photo."""
    pixels, longer = photo.width * photo.height, max(photo.size)
    a_pixel = kept = _KEPT.get(photo.mode, 4)
    a_pixel += _BESIDE.get(photo.format, 0)
    if photo.info.get("progressive"):
        a_pixel += 2 * len(photo.getbands())  # coefficients of 16 bits
    a_pixel += kept * ((_orientation(photo) != 1) + (box is not None))
    side = longer if max_side is None else min(longer, max_side)
    return a_pixel * pixels + 4 * min(pixels, side * longer) + 3 * min(pixels, side * side)


def _finished(photo, name, box, max_side, min_side):
    """Steps 2 to 5 of the definition: an upright photo, or a box of it, as an array."""
    width, height = photo.size
    factor = 1.0 if max_side is None else min(1.0, max_side / max(width, height))
    what, corners = name, (0, 0, width, height)
    if box is not None:
        corners = _corners(box, width, height, name)
        what = f"the box {tuple(box)} of {name}"
    size = tuple(int((end - start) * factor + 0.5) for start, end in (corners[::2], corners[1::2]))
    if min(size) < min_side:
        at = f" at max_side={max_side}" if factor < 1 else ""
        raise ImageError(
            f"{what} is {size[0]} x {size[1]} pixels{at}, too small: each side needs {min_side} or more, or the "
            "network's feature map is empty; take a larger photo, box or max_side."
        )
    if photo.mode == "F":
        raise ImageError(f"{name} holds floating-point values, whose white is not known; convert it to 8 bits.")
    if photo.mode == "I":  # 16 bits, or more, in 32
        low, high = photo.getextrema()
        if low < 0 or high > 65535:
            raise ImageError(f"{name} has values from {low} to {high}; convert it to 8 or 16 bits.")
    return np.asarray(_reduced(photo, corners, size))


def _reduced(photo, corners, size):
    """A part of a photo as an RGB image of a size.

    Rows are filtered before columns: one axis at a time, because some versions of Pillow take the columns of a tall photo first.
    """
    left, top, right, bottom = corners
    mode = _mode_of_filter(photo)
    across = (size[0], bottom - top)
    if photo.mode == mode:
        part = photo if corners == (0, 0, *photo.size) else photo.crop(corners)
        return _over_white(_resized(_resized(part, across), size))
    # A band after the other, because a conversion of the whole photo would take its memory again, and for some modes three times.
    finished = size[1] == across[1]
    rows = Image.new("RGB" if finished else mode, across)
    height = max(1, _BAND // (right - left))
    for start in range(top, bottom, height):
        band = _converted(photo.crop((left, start, right, min(start + height, bottom))), mode)
        band = _resized(band, (size[0], band.height))
        rows.paste(_over_white(band) if finished else band, (0, start - top))
    return rows if finished else _over_white(_resized(rows, size))


def _mode_of_filter(photo):
    """The mode in which a photo is resized: RGBa is RGB multiplied by its transparency."""
    if photo.mode.startswith("I"):  # 16 bits, in one of Pillow's forms
        return "L"
    if photo.has_transparency_data:
        return "RGBa"
    return "L" if photo.mode in ("1", "L") else "RGB"


def _converted(photo, mode):
    if photo.mode.startswith("I"):
        return Image.fromarray((np.asarray(photo) >> 8).astype("uint8"))
    return photo.convert("RGBA").convert("RGBa") if mode == "RGBa" else photo.convert(mode)


def _resized(photo, size):
    return photo if photo.size == size else photo.resize(size, Image.Resampling.BICUBIC)


def _over_white(photo):
    """An RGB image of one in the mode of the filter."""
    if photo.mode != "RGBa":
        return photo if photo.mode == "RGB" else photo.convert("RGB")
    pixels = np.asarray(photo)
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    return Image.fromarray(255 - (alpha - np.minimum(colour, alpha)))


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
    return Image.fromarray(np.ascontiguousarray(pixels))


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
