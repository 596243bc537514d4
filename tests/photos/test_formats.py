import io
import struct
import sys

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from rw_keras.photos import formats
from rw_keras.photos.reading import ImageError, MissingReaderError, read_image, read_thumbnail
from rw_keras.photos.sources import list_photos

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\nshowpage\n%%EOF\n"
BRANDS = struct.pack(">I4s4sI4s", 20, b"ftyp", b"mif1", 0, b"heic")


def dng(cfa, orientation=1):
    """A camera's raw file of the simplest kind: `cfa` `(H, W)` uint16 is a mosaic of red, green, green, blue."""
    height, width = cfa.shape

    def shorts(*values):
        return 3, len(values), struct.pack(f"<{len(values)}H", *values)

    def long(value):
        return 4, 1, struct.pack("<I", value)

    def text(value):
        return 2, len(value) + 1, value.encode() + b"\0"

    def fractions(kind, *values):
        return kind, len(values), b"".join(struct.pack("<ii", value, 1) for value in values)

    tags = {
        254: long(0),
        256: long(width),
        257: long(height),
        258: shorts(16),
        259: shorts(1),  # not compressed
        262: shorts(32803),  # a mosaic
        271: text("Made"),
        272: text("Up"),
        273: long(0),  # where the pixels begin, see below
        274: shorts(orientation),
        277: shorts(1),
        278: long(height),
        279: long(cfa.nbytes),
        284: shorts(1),
        33421: shorts(2, 2),
        33422: (1, 4, bytes([0, 1, 1, 2])),
        50706: (1, 4, bytes([1, 4, 0, 0])),  # DNGVersion
        50707: (1, 4, bytes([1, 1, 0, 0])),
        50708: text("Made Up"),
        50717: long(65535),
        50721: fractions(10, 1, 0, 0, 0, 1, 0, 0, 0, 1),
        50728: fractions(5, 1, 1, 1),
        50778: shorts(21),
    }
    beside = 8 + 2 + 12 * len(tags) + 4
    pixels_at = beside + sum(len(value) for _, _, value in tags.values() if len(value) > 4)
    tags[273] = long(pixels_at)
    entries = values = b""
    for tag, (kind, count, value) in tags.items():
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", beside + len(values))
        values += value if len(value) > 4 else b""
        entries += struct.pack("<HHI", tag, kind, count) + place
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + values + cfa.astype("<u2").tobytes()


def mosaic():
    """A dark photo of 96 x 64 whose upper left quarter is light."""
    cfa = np.full((64, 96), 4000, "uint16")
    cfa[:32, :48] = 40000
    return cfa


# Where the light quarter is after the EXIF orientation was applied, as (row, column).
LIGHT = {1: (0, 0), 3: (1, 1), 6: (0, 1), 8: (1, 0)}


def lightest(pixels):
    quarters = [[half.mean() for half in np.array_split(rows, 2, axis=1)] for rows in np.array_split(pixels, 2)]
    return divmod(int(np.argmax(quarters)), 2)


def refused(path, *words, error=ImageError):
    with pytest.raises(error) as caught:
        read_image(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


class TestOthers:
    def test_an_eps_named_like_a_photo_starts_no_program(self, tmp_path, monkeypatch):
        started = []
        monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **options: started.append(arguments))
        (tmp_path / "holiday.jpg").write_bytes(EPS)
        refused(tmp_path / "holiday.jpg", "holds EPS, which is not read as a photo; convert it to JPEG, PNG,")
        assert not started

    @pytest.mark.parametrize(
        "form, word", [("JPEG2000", "JPEG 2000"), ("ICO", "icon"), ("PDF", "PDF"), ("DDS", "DDS"), ("QOI", "QOI")]
    )
    def test_is_named(self, tmp_path, draw, form, word):
        try:
            Image.fromarray(draw(1)).save(tmp_path / "a.jpg", form)
        except (KeyError, OSError):
            pytest.skip(f"this Pillow writes no {form}")
        refused(tmp_path / "a.jpg", f"holds {word}, which is not read")

    @pytest.mark.parametrize("form", ["TGA", "PCX", "SGI", "MSP"])
    def test_that_has_no_name_here_is_not_read_either(self, tmp_path, form):
        Image.new("1" if form == "MSP" else "L", (64, 48)).save(tmp_path / "a.jpg", form)
        refused(tmp_path / "a.jpg", "not an image that can be read")

    def test_a_video(self, tmp_path):
        (tmp_path / "a.jpg").write_bytes(struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 0, b"mp42") + bytes(100))
        refused(tmp_path / "a.jpg", "holds a video")

    def test_several_photos_in_a_jpeg_are_read_as_the_first(self, tmp_path, draw):
        first, second = (Image.fromarray(draw(seed)) for seed in (1, 2))
        first.save(tmp_path / "mpo.jpg", "MPO", save_all=True, append_images=[second], quality=95)
        first.save(tmp_path / "a.jpg", quality=95)
        with Image.open(tmp_path / "mpo.jpg") as photo:
            assert photo.format == "MPO"
        np.testing.assert_array_equal(read_image(tmp_path / "mpo.jpg"), read_image(tmp_path / "a.jpg"))


class TestWithoutTheExtra:
    """What reads these formats is hidden, where it is installed."""

    CONTENTS = (
        ("a.heic", BRANDS, "heif"),
        ("phone.jpg", BRANDS, "heif"),
        ("a.avif", BRANDS[:16] + b"avif", "heif"),
        ("a.dng", dng(mosaic()), "raw"),
        ("a.nef", b"MM\0*\0\0\0\x08\0\0" + bytes(60), "raw"),
        ("a.jpg", b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "raw"),
        ("a.raf", b"FUJIFILMCCD-RAW 0201" + bytes(60), "raw"),
        ("a.jpg", struct.pack(">I4s4sI4s", 20, b"ftyp", b"crx ", 0, b"isom"), "raw"),
        ("a.kdc", b"EASTMAN KODAK COMPANY" + bytes(60), "raw"),
    )

    @pytest.mark.parametrize("name, content, extra", CONTENTS, ids=[f"{name}-{extra}" for name, _, extra in CONTENTS])
    def test_the_install_line_is_given(self, tmp_path, name, content, extra, monkeypatch):
        for package in ("pillow_heif", "rawpy"):
            monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setattr(formats, "pillow_reads_avif", lambda: False)
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, f'install what reads it: pip install "rw_keras[{extra}]"', error=MissingReaderError)

    @pytest.mark.parametrize("ending", ["heic", "HIF", "avif", "cr2", "DNG"])
    def test_they_are_found_in_a_folder(self, tmp_path, ending):
        (tmp_path / f"a.{ending}").touch()
        assert list_photos(tmp_path) == [tmp_path / f"a.{ending}"]

    def test_the_thumbnail_of_a_raw_file_is_not_taken_for_the_photo(self, tmp_path, draw, monkeypatch):
        monkeypatch.setitem(sys.modules, "rawpy", None)
        tags = {254: 1, 330: 8}  # a reduced image, and where the whole ones are noted
        Image.fromarray(draw(1)).save(tmp_path / "a.tif", tiffinfo=tags)
        refused(tmp_path / "a.tif", "camera raw", error=MissingReaderError)
        Image.fromarray(draw(1)).save(tmp_path / "b.tif", tiffinfo={254: 1})
        np.testing.assert_array_equal(read_image(tmp_path / "b.tif"), draw(1))

    def test_a_jpeg_named_like_a_raw_file_is_read(self, tmp_path, draw):
        Image.fromarray(draw(1)).save(tmp_path / "a.dng", "PNG")
        np.testing.assert_array_equal(read_image(tmp_path / "a.dng"), draw(1))


class TestHEIC:
    @pytest.fixture(autouse=True)
    def heif(self):
        return pytest.importorskip("pillow_heif", reason='reads HEIC: pip install ".[heif]"')

    @pytest.mark.parametrize("orientation", [1, 3, 6, 8])
    def test_is_read_and_turned_upright_once(self, tmp_path, draw, heif, orientation):
        exif = Image.Exif()
        exif[274] = orientation
        heif.from_pillow(Image.fromarray(draw(1))).save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())
        expected = np.rot90(draw(1), {1: 0, 3: 2, 6: -1, 8: 1}[orientation]).astype(int)
        found = read_image(tmp_path / "a.heic")
        assert found.shape == expected.shape
        assert np.abs(found - expected).mean() < 8
        assert read_thumbnail(tmp_path / "a.heic", 99)[1] == (found.shape[1], found.shape[0])

    def test_box_size_and_bytes(self, tmp_path, draw, heif):
        heif.from_pillow(Image.fromarray(draw(1))).save(tmp_path / "a.jpg", format="HEIF")
        whole = read_image(io.BytesIO((tmp_path / "a.jpg").read_bytes()))
        np.testing.assert_array_equal(read_image(tmp_path / "a.jpg", (4, 5, 40, 40)), whole[5:40, 4:40])
        assert read_image(tmp_path / "a.jpg", max_side=32).shape == (24, 32, 3)

    def test_damage(self, tmp_path, draw, heif):
        heif.from_pillow(Image.fromarray(draw(1))).save(tmp_path / "a.heic")
        (tmp_path / "a.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:-200])
        refused(tmp_path / "a.heic", "replace or remove it")

    def test_too_many_pixels(self, tmp_path, draw, heif, monkeypatch):
        heif.from_pillow(Image.fromarray(draw(1))).save(tmp_path / "a.heic")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        refused(tmp_path / "a.heic", "3072 pixels, more than 2000", "MAX_IMAGE_PIXELS")


@pytest.mark.skipif(not formats.pillow_reads_avif(), reason='reads AVIF: pip install ".[heif]"')
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_avif_is_read_and_turned_upright_once(tmp_path, draw, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(draw(1)).save(tmp_path / "a.avif", quality=95, exif=exif)
    expected = np.rot90(draw(1), {1: 0, 3: 2, 6: -1, 8: 1}[orientation]).astype(int)
    found = read_image(tmp_path / "a.avif")
    assert np.abs(found - expected).mean() < 8
    assert read_thumbnail(tmp_path / "a.avif", 99)[1] == (found.shape[1], found.shape[0])


class TestRaw:
    @pytest.fixture(autouse=True)
    def rawpy(self):
        return pytest.importorskip("rawpy", reason='reads camera raw: pip install ".[raw]"')

    @pytest.mark.parametrize("orientation", LIGHT)
    @pytest.mark.parametrize("name", ["a.dng", "a.tif", None])
    def test_is_developed_and_turned_upright_once(self, tmp_path, orientation, name):
        content = dng(mosaic(), orientation)
        source = io.BytesIO(content) if name is None else tmp_path / name
        if name is not None:
            source.write_bytes(content)
        found = read_image(source)
        assert found.shape == ((64, 96, 3) if orientation in (1, 3) else (96, 64, 3))
        assert lightest(found) == LIGHT[orientation]
        assert np.ptp(found[10, 10].astype(int)) < 3  # grey by the camera's white balance
        assert read_thumbnail(source, 99)[1] == (found.shape[1], found.shape[0])
        assert read_image(source, max_side=48).shape == ((32, 48, 3) if orientation in (1, 3) else (48, 32, 3))

    def test_damage(self, tmp_path):
        (tmp_path / "a.dng").write_bytes(dng(mosaic())[:2000])
        refused(tmp_path / "a.dng", "replace or remove it")
        (tmp_path / "b.dng").write_bytes(b"no photo")
        refused(tmp_path / "b.dng", "replace or remove it")
