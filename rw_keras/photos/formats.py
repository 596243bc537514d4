"""Which files are read as photos, and what is said of the others."""

import functools
import importlib.util
from typing import BinaryIO

from PIL import TiffImagePlugin

EXTENSIONS = frozenset(".bmp .gif .jfif .jpe .jpeg .jpg .png .ppm .pgm .tif .tiff .webp".split())
HEIF_EXTENSIONS = frozenset(".heic .heif .hif".split())
AVIF_EXTENSIONS = frozenset([".avif"])
RAW_EXTENSIONS = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .rw2 .sr2 .srf .srw .x3f".split()
)
# What a folder or an archive is searched for. A photo whose reader is not installed is found all the same, and listed as a failure.
LISTED = EXTENSIONS | HEIF_EXTENSIONS | AVIF_EXTENSIONS | RAW_EXTENSIONS

# Pillow's other plugins never see a file: some start programs, such as Ghostscript, and each is one more way in.
PILLOW = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
WORDS = "JPEG, PNG, GIF, BMP, PPM, TIFF or WebP"

HEIF, AVIF, RAW = "HEIC", "AVIF", "camera raw"

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
_RAW_SIGNATURES = (
    b"FUJIFILMCCD-RAW",
    b"FOVb",  # Sigma
    b"IIRO",  # Olympus, in three forms
    b"IIRS",
    b"MMOR",
    b"IIU\0",  # Panasonic
    b"II\x1a\0\0\0HEAPCCDR",  # the first of Canon's
    b"\0MRM",  # Minolta
)
_OTHERS = {
    "EPS": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    "PDF": (b"%PDF",),
    "SVG": (b"<svg",),
    "Photoshop": (b"8BPS",),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    "JPEG XL": (b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a"),
    "QOI": (b"qoif",),
    "DDS": (b"DDS ",),
    "icon": (b"\0\0\1\0", b"icns"),
    "OpenEXR": (b"\x76\x2f\x31\x01",),
    "FITS": (b"SIMPLE  =",),
    "XCF": (b"gimp xcf",),
    "HTML": (b"<!DOCTYPE html", b"<!doctype html", b"<html"),
}
_PLAIN = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF")


def kind(file: BinaryIO, ending: str) -> str | None:
    """What a file is: `HEIF`, `AVIF`, `RAW`, the name of a format that is not read, or `None` where Pillow is to find out.

    Args:
        file: is read from its beginning, and left there.
        ending: of its name, with the dot: some cameras' raw files are told by nothing else.
    """
    file.seek(0)
    head = file.read(64)
    if head[4:8] == b"ftyp":
        file.seek(0)
        return _kind_of_boxes(head)
    named_raw = ending.lower() in RAW_EXTENSIONS
    if head.startswith((b"II*\0", b"MM\0*")):
        raw = named_raw or head[8:10] == b"CR" or _is_raw_tiff(file)  # CR: Canon's CR2
        file.seek(0)
        return RAW if raw else None
    file.seek(0)
    if head.startswith(_RAW_SIGNATURES):
        return RAW
    for name, signatures in _OTHERS.items():
        if head.startswith(signatures):
            return name
    return RAW if named_raw and not head.startswith(_PLAIN) else None


def _kind_of_boxes(head):
    """Of a file in the container of MP4, by the brands that it names."""
    length = int.from_bytes(head[:4], "big")
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(length, len(head)), 4))}
    if b"crx " in brands:  # Canon's CR3
        return RAW
    if brands & {b"avif", b"avis"}:
        return AVIF
    return HEIF if brands & _HEIF_BRANDS else "a video"


def _is_raw_tiff(file):
    """Whether a TIFF is a camera's raw file, of which Pillow would take the thumbnail for the photo."""
    try:
        file.seek(0)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        thumbnail = tags.get(0x00FE, 0) & 1 and 0x014A in tags  # a reduced image, and others below it
        mosaic = tags.get(0x0106) in (32803, 34892)
    except Exception:  # a damaged file: whoever reads it says so
        return False
    return bool(thumbnail or mosaic or 0xC612 in tags)  # DNGVersion


def install_line(kind: str) -> str:
    """What installs the reader of a kind of photo."""
    return f'pip install "rw_keras[{"raw" if kind == RAW else "heif"}]"'


def is_readable(ending: str) -> bool:
    """Whether what reads files of this ending is installed."""
    ending = ending.lower()
    if ending in RAW_EXTENSIONS:
        return _installed("rawpy")
    if ending in HEIF_EXTENSIONS:
        return _installed("pillow_heif")
    return ending not in AVIF_EXTENSIONS or pillow_reads_avif()


@functools.cache
def _installed(package):
    return importlib.util.find_spec(package) is not None


@functools.cache
def pillow_reads_avif() -> bool:
    """Whether Pillow is of a version, and was built, to read AVIF."""
    try:
        from PIL import AvifImagePlugin
    except ImportError:
        return False
    return AvifImagePlugin.SUPPORTED
