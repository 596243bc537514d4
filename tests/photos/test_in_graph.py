"""The graph reads photos as `rw_keras.photos.reading` does: the same pixels, for every format that both read."""

import io
import random
import re
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from rw_keras.photos import in_graph as graph_images
from rw_keras.photos.reading import ImageError, read_image


@pytest.fixture(scope="module")
def read():
    """A function (bytes, max_side, box, min_side) -> pixels, by one graph for all."""

    @tf.function(
        input_signature=[
            tf.TensorSpec((), tf.string),
            tf.TensorSpec((), tf.float64),
            tf.TensorSpec((4,), tf.float32),
            tf.TensorSpec((), tf.bool),
            tf.TensorSpec((), tf.int32),
        ]
    )
    def graph(content, max_side, box, boxed, min_side):
        name = tf.constant("photo 3")
        return tf.cond(
            boxed,
            lambda: graph_images.read_image(content, max_side, name, box, min_side),
            lambda: graph_images.read_image(content, max_side, name, None, min_side),
        )

    def run(content, max_side=100, box=None, min_side=1):
        return graph(content, float(max_side), box or (0, 0, 0, 0), box is not None, min_side).numpy()

    return run


needs_webp = pytest.mark.skipif(not graph_images.READS_WEBP, reason="this TensorFlow reads no WebP")


@pytest.fixture(scope="module")
def photo(draw):
    noise = np.random.default_rng(3).integers(0, 40, (90, 131, 3))
    return Image.fromarray(np.clip(draw(1, 131, 90).astype(int) + noise, 0, 255).astype("uint8"))


def encoded(photo, form, **options):
    buffer = io.BytesIO()
    photo.save(buffer, form, **options)
    return buffer.getvalue()


def see_through(photo, mode):
    made = photo.convert(mode)
    made.putalpha(Image.fromarray(np.random.default_rng(4).integers(0, 256, (photo.height, photo.width), "uint8")))
    return made


def same(read, tmp_path, content, **arguments):
    """Both readings of the same bytes, checked to be equal."""
    file = tmp_path / "photo"
    file.write_bytes(content)
    expected = read_image(file, **{"max_side": 100, **arguments})
    found = read(content, **arguments)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    return expected


class TestFormats:
    @pytest.mark.slow
    @pytest.mark.parametrize("quality", [10, 75, 100])
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}], ids=repr)
    def test_jpeg(self, read, photo, tmp_path, quality, options):
        same(read, tmp_path, encoded(photo, "JPEG", quality=quality, **options))

    @pytest.mark.parametrize("mode", ["L", "CMYK"])
    def test_jpeg_of_other_colours(self, read, photo, tmp_path, mode):
        same(read, tmp_path, encoded(photo.convert(mode), "JPEG"))

    @pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
    def test_png(self, read, photo, tmp_path, mode):
        same(read, tmp_path, encoded(photo.convert(mode), "PNG"))

    @pytest.mark.parametrize("colours", [2, 4, 16, 256])
    def test_png_of_few_colours(self, read, photo, tmp_path, colours):
        same(read, tmp_path, encoded(photo.quantize(colours), "PNG"))

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparency_lies_over_white(self, read, photo, tmp_path, mode):
        same(read, tmp_path, encoded(see_through(photo, mode), "PNG"))

    def test_one_transparent_colour(self, read, photo, tmp_path):
        same(read, tmp_path, encoded(photo.convert("P"), "PNG", transparency=5))

    def test_grey_png_of_16_bits(self, read, tmp_path):
        values = np.random.default_rng(5).integers(0, 65536, (40, 50)).astype("uint16")
        same(read, tmp_path, encoded(Image.fromarray(values), "PNG"))

    def test_colour_png_of_16_bits(self, read, tmp_path):
        values = np.random.default_rng(6).integers(0, 65536, (40, 50, 3)).astype(">u2")
        rows = b"".join(b"\0" + row.tobytes() for row in values)

        def chunk(name, content):
            return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

        header = struct.pack(">IIBBBBB", 50, 40, 16, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        same(read, tmp_path, png)

    @needs_webp
    @pytest.mark.parametrize("options", [{"quality": 60}, {"lossless": True}], ids=repr)
    def test_webp(self, read, photo, tmp_path, options):
        same(read, tmp_path, encoded(photo, "WEBP", **options))

    @needs_webp
    def test_webp_with_transparency(self, read, photo, tmp_path):
        same(read, tmp_path, encoded(see_through(photo, "RGBA"), "WEBP", lossless=True))

    @pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
    def test_bmp(self, read, photo, tmp_path, mode):
        same(read, tmp_path, encoded(photo.convert(mode), "BMP"))

    def test_gif(self, read, photo, tmp_path):
        others = [photo.transpose(Image.Transpose.ROTATE_180).convert("P")]
        same(read, tmp_path, encoded(photo.convert("P"), "GIF", save_all=True, append_images=others))

    def test_gif_of_which_only_the_first_frame_is_whole(self, read, photo, tmp_path):
        """The others are not looked at, so that they cannot take memory."""
        others = [photo.transpose(Image.Transpose.ROTATE_180).convert("P")]
        content = encoded(photo.convert("P"), "GIF", save_all=True, append_images=others, comment=b"holiday " * 99)
        same(read, tmp_path, content[: -len(content) // 4])

    @pytest.mark.slow
    @pytest.mark.parametrize("form, mode", [("PNG", "RGBA"), ("PNG", "L"), ("JPEG", "RGB"), ("BMP", "RGBA")])
    def test_a_photo_of_several_bands(self, read, tmp_path, draw, form, mode):
        large = Image.fromarray(draw(1, 1700, 1300))
        large = see_through(large, "RGBA") if mode == "RGBA" else large.convert(mode)
        assert large.width * large.height > 2 * graph_images._BAND
        same(read, tmp_path, encoded(large, form), max_side=333, box=(5, 1, 1690, 1290))


class TestOrientation:
    @pytest.mark.parametrize("form", ["JPEG", "PNG", pytest.param("WEBP", marks=needs_webp)])
    @pytest.mark.parametrize("orientation", range(10))
    def test_every_value(self, read, photo, tmp_path, form, orientation):
        exif = Image.Exif()
        exif[0x010F] = "a maker, so that the orientation is not the first entry"
        exif[0x0112] = orientation
        found = same(read, tmp_path, encoded(photo, form, exif=exif))
        assert (found.shape[0] > found.shape[1]) == (orientation in (5, 6, 7, 8))

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_both_orders_of_bytes(self, read, photo, tmp_path, order):
        mark = b"II" if order == "<" else b"MM"
        tiff = mark + struct.pack(f"{order}HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
        segment = b"Exif\0\0" + tiff
        jpeg = encoded(photo, "JPEG")
        jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
        assert same(read, tmp_path, jpeg).shape[0] == 100

    def test_damage_is_no_orientation(self, read, photo):
        """Whatever stands in an EXIF segment, the photo is read, as it lies."""
        dice = random.Random(7)
        jpeg = encoded(photo, "JPEG")
        plain = read(jpeg)
        for length in (0, 1, 7, 8, 9, 10, 13, 14, 25, 60):
            tiff = dice.choice([b"II*\0", b"MM\0*", b""]) + bytes(dice.randrange(256) for _ in range(length))
            segment = b"Exif\0\0" + tiff
            damaged = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
            np.testing.assert_array_equal(read(damaged), plain)


class TestSize:
    @pytest.mark.parametrize("max_side", [1, 2, 7, 64, 99, 130, 131, 132, 5000])
    def test_is_pillows(self, read, photo, tmp_path, max_side):
        same(read, tmp_path, encoded(photo, "PNG"), max_side=max_side)

    @pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (1000, 3), (37, 211)])
    def test_of_odd_photos(self, read, tmp_path, size):
        pixels = np.random.default_rng(8).integers(0, 256, (size[1], size[0], 3), "uint8")
        same(read, tmp_path, encoded(Image.fromarray(pixels), "PNG"), max_side=290 if min(size) == 1 else 200)

    def test_extremes_are_clipped(self, read, tmp_path):
        """A filter with negative lobes overshoots at edges of black and white."""
        checks = (np.indices((90, 120)).sum(axis=0) // 3 % 2 * 255).astype("uint8")
        same(read, tmp_path, encoded(Image.fromarray(checks), "PNG"), max_side=77)


class TestBox:
    @pytest.mark.parametrize("box", [(10, 20, 90, 80), (-0.9, 0.4, 100.5, 89.5), (0, 0, 131.9, 90.9), (128, 0, 131, 90)], ids=repr)
    @pytest.mark.parametrize("max_side", [60, 500])
    def test_is_cut_before_the_size_is_reduced(self, read, photo, tmp_path, box, max_side):
        same(read, tmp_path, encoded(photo, "JPEG"), box=box, max_side=max_side)

    @pytest.mark.parametrize(
        "box", [(0, 0, 132, 50), (-1, 0, 50, 50), (0, 0, 50, 91), (5, 5, 5, 50), (50, 5, 40, 50), (0, 0, np.nan, 5)]
    )
    def test_that_does_not_fit_is_refused(self, read, photo, box):
        with pytest.raises(ImageError):
            read_image(np.asarray(photo), box)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"photo 3.*\[131 90\] pixels wide and high; its box"):
            read(encoded(photo, "JPEG"), box=box)


class TestErrors:
    @pytest.mark.parametrize("content", [b"", b"\xff", b"no photo", b"RIFF....WAVEfmt ", b"II*\0\x08\0\0\0\0\0\0\0"], ids=repr)
    def test_unknown_bytes_are_named(self, read, content):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"photo 3.*is not a JPEG, PNG, (WebP, )?BMP or GIF"):
            read(content)

    @pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
    def test_a_damaged_photo_fails(self, read, photo, form):
        content = encoded(photo, form)
        with pytest.raises(tf.errors.InvalidArgumentError):
            read(content[: len(content) // 2])

    @pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF"])
    def test_a_header_of_far_too_many_pixels_is_refused(self, read, photo, form):
        """Before anything is decoded, so the payload may be small."""
        content = bytearray(encoded(photo.convert("P") if form == "GIF" else photo, form))
        if form == "JPEG":
            start = content.index(b"\xff\xc0") + 5
            content[start : start + 4] = struct.pack(">HH", 30000, 30000)
        elif form == "PNG":
            content[16:24] = struct.pack(">II", 30000, 30000)
        elif form == "BMP":
            content[18:26] = struct.pack("<ii", 30000, -30000)
        else:
            content[6:10] = struct.pack("<HH", 30000, 30000)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"photo 3.*900000000.*more than the 178956970 of a photo"):
            read(bytes(content))

    def test_a_gif_whose_frame_is_far_larger_than_its_screen_is_refused(self, read, photo):
        content = bytearray(encoded(photo.convert("P"), "GIF"))
        place = content.index(b"\x2c\0\0\0\0" + struct.pack("<HH", *photo.size))
        content[place + 5 : place + 9] = struct.pack("<HH", 60000, 60000)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"photo 3.*3600000000.*more than the 178956970 of a photo"):
            read(bytes(content))

    @needs_webp
    @pytest.mark.parametrize("form", ["lossy", "lossless", "extended"])
    def test_a_webp_of_far_too_many_pixels_is_refused(self, read, photo, form):
        exif = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" if form == "extended" else b""
        content = bytearray(encoded(photo, "WEBP", lossless=form == "lossless", exif=exif))
        assert content[12:16] == {"lossy": b"VP8 ", "lossless": b"VP8L", "extended": b"VP8X"}[form]
        if form == "lossy":
            content[26:30] = struct.pack("<HH", 16383, 16383)
        elif form == "lossless":
            content[21:25] = struct.pack("<I", 16382 | 16382 << 14)
        else:
            content[24:30] = (16382).to_bytes(3, "little") * 2
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"photo 3.*268402689.*more than the 178956970 of a photo"):
            read(bytes(content))

    @needs_webp
    def test_the_frames_of_a_webp_count_together(self, read, photo):
        """Their decoder gives them all."""
        frames = [photo.rotate(angle) for angle in range(3)]
        content = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
        assert read(content).shape == (69, 100, 3)
        content = bytearray(content)
        content[24:30] = (9999).to_bytes(3, "little") * 2
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"photo 3.*300000000.*more than the 178956970 of a photo"):
            read(bytes(content))

    def test_a_bmp_of_one_bit_is_refused(self, read, photo):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"photo 3.*fewer than 8 bits"):
            read(encoded(photo.convert("1"), "BMP"))

    def test_too_small_is_said_so(self, read, photo):
        said = re.escape("is [69 100] pixels high and wide, too small: each side needs 70 or more after max_side=100")
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"photo 3.*{said}"):
            read(encoded(photo, "JPEG"), min_side=70)
