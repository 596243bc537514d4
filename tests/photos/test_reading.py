import contextlib
import fractions
import io
import os
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from rw_keras.photos import reading as images
from rw_keras.photos.memory import Memory
from rw_keras.photos.reading import ImageError, image_name, read_image, read_thumbnail

# What a viewer does to the stored pixels for each EXIF orientation (TIFF 6.0, tag 274).
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


def png(path, width, height, depth, color, data):
    """Writes a PNG of its chunks, for the forms that Pillow does not write."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))
    return path


def noise(*shape):
    return np.random.default_rng(7).integers(0, 256, shape, dtype="uint8")


def reduced(photo, width, height):
    """A Pillow image as the definition reduces it: rows first, then columns."""
    rows = photo.resize((width, photo.height), Image.Resampling.BICUBIC)
    return np.asarray(rows.resize((width, height), Image.Resampling.BICUBIC))


def refused(source, *words, error=ImageError, **arguments):
    """Reads what cannot be used, and checks that the message holds all the words."""
    with pytest.raises(error) as caught:
        read_image(source, **arguments)
    for word in words:
        assert str(word) in str(caught.value)


class TestForms:
    @pytest.mark.parametrize("orientation", UPRIGHT)
    @pytest.mark.parametrize("form", ["png", "tiff", "webp"])
    def test_orientation_is_applied(self, tmp_path, orientation, form):
        stored = noise(5, 9, 3)
        exif = Image.Exif()
        exif[274] = orientation
        options = {"lossless": True} if form == "webp" else {}
        Image.fromarray(stored).save(tmp_path / f"photo.{form}", exif=exif, **options)
        np.testing.assert_array_equal(read_image(tmp_path / f"photo.{form}"), UPRIGHT[orientation](stored))

    def test_orientation_of_jpeg(self, tmp_path, draw):
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(draw(1)).save(tmp_path / "turned.jpg", exif=exif, quality=95)
        Image.fromarray(draw(1)).save(tmp_path / "plain.jpg", quality=95)
        np.testing.assert_array_equal(read_image(tmp_path / "turned.jpg"), np.rot90(read_image(tmp_path / "plain.jpg"), -1))

    def test_unknown_orientation_is_none(self, tmp_path):
        exif = Image.Exif()
        exif[274] = 9
        Image.fromarray(noise(4, 6, 3)).save(tmp_path / "photo.png", exif=exif)
        np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), noise(4, 6, 3))

    def test_box_and_size_are_of_the_upright_photo(self, tmp_path):
        stored = noise(40, 100, 3)
        exif = Image.Exif()
        exif[274] = 8
        Image.fromarray(stored).save(tmp_path / "photo.png", exif=exif)
        upright = np.rot90(stored)  # 40 wide, 100 high
        np.testing.assert_array_equal(read_image(tmp_path / "photo.png", box=(5, 60, 35, 100)), upright[60:100, 5:35])
        assert read_image(tmp_path / "photo.png", max_side=50).shape == (50, 20, 3)

    def test_rgb(self, tmp_path):
        Image.fromarray(noise(6, 4, 3)).save(tmp_path / "photo.png")
        read = read_image(tmp_path / "photo.png")
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, noise(6, 4, 3))

    def test_path_as_text(self, tmp_path):
        Image.fromarray(noise(6, 4, 3)).save(tmp_path / "photo.png")
        np.testing.assert_array_equal(read_image(str(tmp_path / "photo.png")), noise(6, 4, 3))

    def test_grey(self, tmp_path):
        Image.fromarray(noise(6, 4)).save(tmp_path / "photo.png")
        np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), np.repeat(noise(6, 4)[..., None], 3, axis=2))

    def test_palette(self, tmp_path):
        photo = Image.new("P", (3, 1))
        photo.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9])
        photo.putdata([1, 0, 2])
        photo.save(tmp_path / "photo.png")
        np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), [[[200, 100, 50], [10, 20, 30], [7, 8, 9]]])

    @pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])], ids=["one colour", "a table"])
    def test_palette_transparency_is_white(self, tmp_path, transparency):
        photo = Image.new("P", (3, 1))
        photo.putpalette([10, 20, 30, 200, 100, 50, 7, 8, 9])
        photo.putdata([1, 0, 2])
        photo.save(tmp_path / "photo.png", transparency=transparency)
        np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), [[[255, 255, 255], [10, 20, 30], [7, 8, 9]]])

    def test_rgb_with_a_transparent_colour(self, tmp_path):
        pixels = np.array([[[1, 2, 3], [4, 5, 6]]], "uint8")
        Image.fromarray(pixels).save(tmp_path / "photo.png", transparency=(1, 2, 3))
        np.testing.assert_array_equal(read_image(tmp_path / "photo.png"), [[[255, 255, 255], [4, 5, 6]]])

    @pytest.mark.parametrize("channels", [2, 4], ids=["LA", "RGBA"])
    def test_transparency_lies_over_white(self, tmp_path, channels):
        pixels = noise(16, 16, channels)
        pixels[0, :, -1], pixels[1, :, -1] = 0, 255
        Image.fromarray(pixels).save(tmp_path / "photo.png")
        alpha = pixels[..., -1:] / 255
        expected = np.broadcast_to(pixels[..., :-1] * alpha + 255 * (1 - alpha), (16, 16, 3))
        read = read_image(tmp_path / "photo.png")
        np.testing.assert_allclose(read, expected, atol=1)  # half a step each for the product and the sum
        assert (read[0] == 255).all()
        np.testing.assert_array_equal(read[1], np.broadcast_to(pixels[1, :, :-1], (16, 3)))

    @pytest.mark.parametrize("box", [None, (20, 10, 90, 60)], ids=repr)
    def test_transparency_is_laid_over_white_after_reducing(self, tmp_path, box):
        """Colours times transparency and transparency are filtered each for itself, and laid over white then."""
        pixels = noise(70, 100, 4)
        pixels[20:40, :, 3], pixels[40:60, :, 3] = 0, 255
        Image.fromarray(pixels).save(tmp_path / "photo.png")
        left, top, right, bottom = box or (0, 0, 100, 70)
        part = pixels[top:bottom, left:right].astype(int)
        part[..., :3] = (2 * part[..., :3] * part[..., 3:] + 255) // 510
        size = ((right - left) * 4 + 5) // 10, ((bottom - top) * 4 + 5) // 10
        planes = [reduced(Image.fromarray(plane.astype("uint8")), *size).astype(int) for plane in np.moveaxis(part, -1, 0)]
        expected = [np.clip(colour + 255 - planes[3], None, 255) for colour in planes[:3]]
        np.testing.assert_array_equal(read_image(tmp_path / "photo.png", box, 40), np.stack(expected, axis=-1))

    def test_transparency_that_is_opaque_everywhere_changes_nothing(self):
        pixels = noise(70, 100, 4)
        pixels[..., 3] = 255
        for max_side in (None, 40):
            np.testing.assert_array_equal(read_image(pixels, None, max_side), read_image(pixels[..., :3], None, max_side))

    @pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16"])
    @pytest.mark.parametrize("max_side", [None, 40])
    def test_bands_do_not_show(self, tmp_path, mode, max_side, monkeypatch):
        photo = Image.fromarray(noise(70, 100, 4))
        photo = Image.fromarray(noise(70, 100).astype("uint16") * 257) if mode == "I;16" else photo.convert(mode)
        photo.save(tmp_path / "photo.tif")
        at_once = read_image(tmp_path / "photo.tif", (5, 6, 90, 69), max_side)
        monkeypatch.setattr(images, "_BAND", 700)
        np.testing.assert_array_equal(read_image(tmp_path / "photo.tif", (5, 6, 90, 69), max_side), at_once)

    @pytest.mark.parametrize("dtype", ["uint8", ">u2"])
    def test_grey_tiff_is_turned_upright(self, tmp_path, dtype):
        exif = Image.Exif()
        exif[274] = 6
        values = noise(5, 9).astype(dtype) * (257 if dtype == ">u2" else 1)
        Image.fromarray(values).save(tmp_path / "photo.tif", exif=exif)
        np.testing.assert_array_equal(read_image(tmp_path / "photo.tif")[..., 1], np.rot90(noise(5, 9), -1))
        assert read_thumbnail(tmp_path / "photo.tif", 5)[1] == (5, 9)

    def test_cmyk_jpeg(self, tmp_path):
        inks = {
            (0, 0, 0, 0): (255, 255, 255),
            (0, 255, 255, 0): (255, 0, 0),
            (255, 0, 255, 0): (0, 255, 0),
            (0, 0, 0, 255): (0, 0, 0),
        }
        pixels = np.repeat(np.repeat(np.array([list(inks)], "uint8"), 16, axis=0), 16, axis=1)
        Image.fromarray(pixels, "CMYK").save(tmp_path / "photo.jpg", quality=100)
        read = read_image(tmp_path / "photo.jpg")
        assert read.shape == (16, 64, 3)
        np.testing.assert_allclose(read[8, 8::16], list(inks.values()), atol=4)

    def test_16_bit_grey(self, tmp_path):
        values = np.array([[0, 255, 256, 32768, 65535]], "uint16")
        Image.fromarray(values).save(tmp_path / "photo.png")
        np.testing.assert_array_equal(read_image(tmp_path / "photo.png")[0, :, 0], [0, 0, 1, 128, 255])

    def test_16_bit_grey_is_turned_upright(self, tmp_path):
        exif = Image.Exif()
        exif[274] = 6
        values = noise(3, 5).astype("uint16") * 257
        Image.fromarray(values).save(tmp_path / "photo.png", exif=exif)
        np.testing.assert_array_equal(read_image(tmp_path / "photo.png")[..., 1], np.rot90(noise(3, 5), -1))

    def test_16_bit_grey_tiff_of_either_byte_order(self, tmp_path):
        values = np.array([[0, 255, 256, 32768, 65535]], "uint16")
        for order in ("<u2", ">u2"):
            Image.fromarray(values.astype(order)).save(tmp_path / "photo.tif")
            np.testing.assert_array_equal(read_image(tmp_path / "photo.tif")[0, :, 0], [0, 0, 1, 128, 255])

    def test_16_bit_rgb(self, tmp_path):
        values = np.array([[0, 255, 256], [32768, 65535, 4660]], ">u2")
        path = png(tmp_path / "photo.png", 2, 1, 16, 2, b"\0" + values.tobytes())
        np.testing.assert_array_equal(read_image(path), [[[0, 0, 1], [128, 255, 18]]])

    def test_1_bit(self, tmp_path):
        bits = noise(9, 11) > 127
        Image.fromarray(bits).save(tmp_path / "photo.png")
        np.testing.assert_array_equal(read_image(tmp_path / "photo.png")[..., 2], bits * np.uint8(255))

    def test_first_frame_of_an_animation(self, tmp_path):
        frames = [Image.new("RGB", (6, 4), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
        frames[0].save(tmp_path / "photo.gif", save_all=True, append_images=frames[1:])
        with Image.open(tmp_path / "photo.gif") as saved:
            assert saved.n_frames == 3
        np.testing.assert_array_equal(read_image(tmp_path / "photo.gif"), np.broadcast_to([255, 0, 0], (4, 6, 3)))


class TestThumbnail:
    @pytest.mark.parametrize("orientation", UPRIGHT)
    @pytest.mark.parametrize("form", ["png", "jpg", "tif", "webp"])
    def test_is_upright_and_says_the_size_of_the_whole(self, tmp_path, draw, orientation, form):
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(draw(1, 900, 500)).save(tmp_path / f"photo.{form}", exif=exif)
        found, size = read_thumbnail(tmp_path / f"photo.{form}", 90)
        expected = read_image(tmp_path / f"photo.{form}", max_side=90)
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).mean() < 2
        assert size == read_image(tmp_path / f"photo.{form}", max_side=None).shape[1::-1]

    def test_a_jpeg_is_decoded_at_a_part_of_its_size(self, tmp_path, draw, monkeypatch):
        lent = []
        monkeypatch.setattr(images._memory, "lend", lambda count: lent.append(count) or contextlib.nullcontext())
        Image.fromarray(draw(1, 1600, 1200)).save(tmp_path / "photo.jpg")
        read_thumbnail(tmp_path / "photo.jpg", 100)
        read_image(tmp_path / "photo.jpg", max_side=100)
        assert lent[0] < lent[1] / 10

    def test_errors(self, tmp_path):
        (tmp_path / "text.jpg").write_bytes(b"this is text")
        with pytest.raises(ImageError, match=r"text\.jpg is not an image"):
            read_thumbnail(tmp_path / "text.jpg", 90)
        with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
            read_thumbnail(tmp_path / "none.jpg", 90)


def other_profile(description=b"x"):
    """sRGB's profile, in which red and green have changed their places."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    places = {profile[at : at + 4]: at + 4 for at in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12)}
    changed = bytearray(profile)
    for one, other in ((b"rXYZ", b"gXYZ"), (b"gXYZ", b"rXYZ")):
        changed[places[one] : places[one] + 8] = profile[places[other] : places[other] + 8]
    return bytes(changed).replace(b"s\0R\0G\0B", description + b"\0R\0G\0B")


class TestColours:
    """A thumbnail is in sRGB; what a network sees is what the file holds."""

    def saved(self, folder, form, profile, mode="RGB"):
        Image.new("RGB", (40, 30), (220, 40, 60)).convert(mode).save(folder / f"photo.{form}", icc_profile=profile, lossless=True)
        return folder / f"photo.{form}"

    @pytest.mark.parametrize("form", ["png", "jpg", "webp", "tif"])
    def test_of_a_profile(self, tmp_path, form):
        path = self.saved(tmp_path, form, other_profile())
        red, green, blue = read_thumbnail(path, 20)[0].mean((0, 1))
        assert green > 190 and red < 120 and abs(blue - 60) < 40
        assert read_image(path, max_side=20).mean((0, 1)) == pytest.approx([220, 40, 60], abs=3)

    @pytest.mark.parametrize(
        "profile", [None, b"", b"damaged", other_profile()[:200], other_profile(b"s")], ids="none empty damaged cut srgb".split()
    )
    def test_without_one_that_says_otherwise(self, tmp_path, profile):
        path = self.saved(tmp_path, "png", profile)
        np.testing.assert_array_equal(read_thumbnail(path, 20)[0], read_image(path, max_side=20))

    def test_of_other_colours_than_rgb(self, tmp_path):
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
        path = self.saved(tmp_path, "jpg", lab, "L")
        np.testing.assert_array_equal(read_thumbnail(path, 20)[0], read_image(path, max_side=20))


class TestUprightSize:
    def test_of_a_path_and_of_a_file(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (40, 30)).save(tmp_path / "photo.jpg", exif=exif)
        assert images.upright_size(tmp_path / "photo.jpg") == (30, 40)
        assert images.upright_size(io.BytesIO((tmp_path / "photo.jpg").read_bytes())) == (30, 40)

    def test_errors(self, tmp_path):
        (tmp_path / "text.jpg").write_bytes(b"no photo")
        with pytest.raises(ImageError, match=r"text\.jpg is not an image"):
            images.upright_size(tmp_path / "text.jpg")
        with pytest.raises(FileNotFoundError):
            images.upright_size(tmp_path / "none.jpg")


class TestMemory:
    """What photos that are decoded at the same time may take together."""

    def borrow(self, memory, *counts):
        """Lends to a thread for each count, one begun after the other; a function that ends one, and a list of who has begun."""
        begun, ends, threads = [], [threading.Event() for _ in counts], []

        def work(number, asking):
            asking.set()
            with memory.lend(counts[number]):
                begun.append(number)
                ends[number].wait(10)

        for number in range(len(counts)):
            asking = threading.Event()
            threads.append(threading.Thread(target=work, args=(number, asking)))
            threads[-1].start()
            asking.wait(10)
            self.settle(threads[-1])

        def end(number):
            ends[number].set()
            threads[number].join(10)
            for thread in threads:
                self.settle(thread)

        return end, begun

    def settle(self, thread):
        thread.join(0.05)

    def test_waits_until_it_fits(self):
        end, begun = self.borrow(Memory(100), 60, 30, 20)
        assert begun == [0, 1]
        end(1)
        assert begun == [0, 1, 2]
        end(0), end(2)

    def test_one_alone_always_may_and_nobody_overtakes(self):
        end, begun = self.borrow(Memory(100), 60, 900, 10)
        assert begun == [0]
        end(0)
        assert begun == [0, 1]
        end(1)
        assert begun == [0, 1, 2]
        end(2)

    def test_a_photo_that_fails_gives_it_back(self, tmp_path, monkeypatch):
        monkeypatch.setattr(images, "_memory", memory := Memory(100))
        png(tmp_path / "cut.png", 90, 70, 8, 6, bytes(9))
        for _ in range(3):
            refused(tmp_path / "cut.png", "cut short or damaged")
        assert memory._lent == 0

    @pytest.mark.parametrize("mode, bytes_a_pixel", [("L", 1), ("RGB", 4), ("RGBA", 4), ("I;16", 2)])
    def test_counts_what_is_kept(self, tmp_path, mode, bytes_a_pixel, monkeypatch):
        lent = []
        monkeypatch.setattr(images._memory, "lend", lambda count: lent.append(count) or contextlib.nullcontext())
        Image.new(mode, (3000, 200)).save(tmp_path / "photo.png")
        read_image(tmp_path / "photo.png", max_side=30)
        exif = Image.Exif()
        exif[274] = 6
        Image.new(mode, (3000, 200)).save(tmp_path / "turned.png", exif=exif)
        read_image(tmp_path / "turned.png", max_side=30)
        assert lent[0] == pytest.approx(600_000 * bytes_a_pixel, rel=0.7)
        assert lent[1] - lent[0] == 600_000 * bytes_a_pixel

    def test_a_child_starts_with_all_of_it(self):
        if not hasattr(os, "fork"):
            pytest.skip("no os.fork here")
        with images._memory.lend(images.MEMORY), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads that a child does not have
            child = os.fork()
            if child == 0:
                os._exit(0 if images._memory._lent == 0 and not images._memory._turn.locked() else 1)
            assert os.waitpid(child, 0)[1] == 0


class TestArrays:
    def test_uint8_is_taken_as_it_is(self):
        np.testing.assert_array_equal(read_image(noise(5, 7, 3)), noise(5, 7, 3))

    def test_the_argument_stays_as_it_is(self):
        pixels = noise(64, 48, 4)
        read_image(pixels, box=(1, 2, 30, 40), max_side=20)
        np.testing.assert_array_equal(pixels, noise(64, 48, 4))

    def test_views_that_are_not_contiguous(self):
        np.testing.assert_array_equal(read_image(noise(10, 14, 3)[::2, ::-2]), noise(10, 14, 3)[::2, ::-2])

    @pytest.mark.parametrize("dtype", ["int16", "uint16", "int64", "float16", "float32", "float64"])
    def test_other_dtypes(self, dtype):
        np.testing.assert_array_equal(read_image(noise(5, 7, 3).astype(dtype)), noise(5, 7, 3))

    def test_floats_are_rounded(self):
        pixels = np.broadcast_to(np.array([[0.4], [1.6], [254.51], [255.0]]), (4, 3)).reshape(2, 2, 3)
        np.testing.assert_array_equal(read_image(pixels)[..., 0], [[0, 2], [255, 255]])

    @pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
    def test_grey(self, shape):
        np.testing.assert_array_equal(read_image(noise(*shape)), np.repeat(noise(5, 7, 1), 3, axis=2))

    def test_rgba_lies_over_white(self):
        pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], "uint8")
        np.testing.assert_array_equal(read_image(pixels), [[[10, 20, 30], [255, 255, 255]]])

    def test_a_black_float_photo(self):
        assert not read_image(np.zeros((4, 4, 3))).any()

    @pytest.mark.parametrize("shape", [(3,), (2, 5, 7, 3), (5, 7, 2), (5, 7, 5), (0, 7, 3), (5, 0)])
    def test_refuses_shapes(self, shape):
        refused(np.zeros(shape, "uint8"), shape, "(height, width, 3)")

    @pytest.mark.parametrize("dtype", [bool, "complex64", "U1", object])
    def test_refuses_dtypes(self, dtype):
        refused(np.zeros((4, 4, 3), dtype), "(4, 4, 3)", np.dtype(dtype))

    @pytest.mark.parametrize(
        ("value", "dtype"), [(-1, "int32"), (256, "int64"), (-0.1, "float32"), (255.5, "float64"), (np.inf, "float32")]
    )
    def test_refuses_values(self, value, dtype):
        pixels = np.full((4, 4, 3), 9, dtype)
        pixels[1, 2, 0] = value
        refused(pixels, "(4, 4, 3)", pixels[1, 2, 0], "0..255")

    def test_refuses_nan(self):
        pixels = np.full((4, 4, 3), 9.0)
        pixels[1, 2, 0] = np.nan
        refused(pixels, "(4, 4, 3)", "nan", "0..255")

    def test_refuses_white_as_one(self):
        for pixels in (noise(4, 4, 3) / 256, np.ones((4, 4, 3), "float32")):
            refused(pixels, "(4, 4, 3)", pixels.max(), "multiply it by 255")


class TestSize:
    def test_never_enlarged(self):
        np.testing.assert_array_equal(read_image(noise(30, 40, 3), max_side=4000), noise(30, 40, 3))
        np.testing.assert_array_equal(read_image(noise(30, 40, 3), max_side=40), noise(30, 40, 3))
        np.testing.assert_array_equal(read_image(noise(30, 40, 3), box=(3, 4, 9, 12), max_side=40), noise(30, 40, 3)[4:12, 3:9])

    def test_no_limit(self):
        np.testing.assert_array_equal(read_image(noise(3, 1500, 3), max_side=None), noise(3, 1500, 3))

    def test_default_is_1024(self):
        assert read_image(noise(8, 2048, 3)).shape == (4, 1024, 3)

    @given(width=st.integers(1, 400), height=st.integers(1, 400), max_side=st.integers(1, 400))
    def test_sides_are_rounded_to_the_nearest_pixel(self, width, height, max_side):
        factor = min(fractions.Fraction(1), fractions.Fraction(max_side, max(width, height)))
        pixels = np.zeros((height, width), "uint8")
        if min(width, height) * factor < fractions.Fraction(1, 2):
            refused(pixels, f"max_side={max_side}", "too small", max_side=max_side)
            return
        rows, columns, _ = read_image(pixels, max_side=max_side).shape
        assert max(rows, columns) == min(max_side, max(width, height))
        assert abs(columns - width * factor) <= fractions.Fraction(1, 2)
        assert abs(rows - height * factor) <= fractions.Fraction(1, 2)

    @pytest.mark.parametrize(("width", "height", "to"), [(500, 333, (100, 67)), (333, 500, (67, 100)), (9, 900, (1, 100))])
    def test_resized_as_pillow_does(self, width, height, to):
        pixels = noise(height, width, 3)
        np.testing.assert_array_equal(read_image(pixels, max_side=100), reduced(Image.fromarray(pixels), *to))

    def test_box_is_cut_first_and_reduced_by_the_factor_of_the_photo(self):
        pixels = noise(300, 500, 3)
        cut = Image.fromarray(pixels).crop((51, 20, 403, 201))
        expected = reduced(cut, 141, 72)  # 352 and 181 times 200 / 500
        read = read_image(pixels, box=(51, 20, 403, 201), max_side=200)
        np.testing.assert_array_equal(read, expected)
        afterwards = reduced(Image.fromarray(pixels), 200, 120)[8:80, 20:161]
        assert (read != afterwards).any()

    def test_a_box_of_all_is_the_photo(self):
        np.testing.assert_array_equal(read_image(noise(90, 70, 3), (0, 0, 70, 90), 50), read_image(noise(90, 70, 3), None, 50))

    @pytest.mark.parametrize("max_side", [0, -5, 1.5, 512.0, True, "512"])
    def test_refuses_max_side(self, max_side):
        refused(noise(9, 9, 3), repr(max_side), "max_side", max_side=max_side, error=ValueError)

    def test_numpy_max_side(self):
        assert read_image(noise(9, 9, 3), max_side=np.int64(3)).shape == (3, 3, 3)

    def test_refuses_too_few_pixels(self, tmp_path):
        Image.fromarray(noise(15, 40, 3)).save(tmp_path / "small.png")
        refused(tmp_path / "small.png", tmp_path / "small.png", "40 x 15", "16", min_side=16)
        assert read_image(tmp_path / "small.png", min_side=15).shape == (15, 40, 3)

    def test_refuses_too_few_pixels_after_reduction(self):
        refused(noise(200, 400, 3), "(200, 400, 3)", "30 x 15", "max_side=30", max_side=30, min_side=16)

    def test_refuses_a_box_of_too_few_pixels(self):
        refused(noise(200, 400, 3), "(1, 2, 11, 102)", "(200, 400, 3)", "10 x 100", box=(1, 2, 11, 102), min_side=16)


class TestBox:
    def test_corners_are_rounded(self):
        read = read_image(noise(30, 30, 3), box=(0.4, 0.5, 9.6, 10.49))
        np.testing.assert_array_equal(read, noise(30, 30, 3)[1:10, 0:10])

    @pytest.mark.parametrize("box", [[2, 3, 9, 8], np.array([2, 3, 9, 8], "float32"), ("2", "3", "9", "8")], ids=repr)
    def test_four_numbers_in_any_form(self, box):
        np.testing.assert_array_equal(read_image(noise(30, 30, 3), box=box), noise(30, 30, 3)[3:8, 2:9])

    def test_may_leave_by_less_than_a_pixel(self):
        np.testing.assert_array_equal(read_image(noise(20, 30, 3), box=(-0.9, -0.6, 30.9, 20.7)), noise(20, 30, 3))

    @pytest.mark.parametrize("box", [(-1, 0, 9, 9), (0, -1, 9, 9), (0, 0, 31, 9), (0, 0, 9, 21), (40, 0, 50, 9)])
    def test_refuses_to_leave_the_photo(self, box):
        refused(noise(20, 30, 3), box, "(20, 30, 3)", "30 x 20", box=box)

    @pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9), (5, 9, 9, 5), (5.1, 5, 5.4, 9), (0, 0, 0, 0)])
    def test_refuses_an_empty_one(self, box):
        refused(noise(20, 30, 3), box, "(20, 30, 3)", "empty", box=box)

    @pytest.mark.parametrize(
        "box",
        [(1, 2, 3), (1, 2, 3, 4, 5), (), 7, "box", ("a", 2, 3, 4), (1, 2, None, 4), (np.nan, 2, 3, 4), (1, 2, np.inf, 4)],
        ids=repr,
    )
    def test_refuses_what_is_not_four_numbers(self, box):
        refused(noise(20, 30, 3), repr(box), "(20, 30, 3)", "x1, y1, x2, y2", box=box)

    def test_error_names_the_file(self, tmp_path):
        Image.fromarray(noise(20, 30, 3)).save(tmp_path / "photo.png")
        refused(tmp_path / "photo.png", tmp_path / "photo.png", "(0, 0, 99, 9)", box=(0, 0, 99, 9))


class TestUnreadable:
    def test_missing(self, tmp_path):
        refused(tmp_path / "none.jpg", tmp_path / "none.jpg", error=FileNotFoundError)

    def test_folder(self, tmp_path):
        refused(tmp_path, tmp_path, "folder")

    def test_empty(self, tmp_path):
        (tmp_path / "empty.jpg").touch()
        refused(tmp_path / "empty.jpg", tmp_path / "empty.jpg", "0 bytes")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
    def test_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.jpg")
        refused(tmp_path / "pipe.jpg", tmp_path / "pipe.jpg", "pipe, a socket or a device")

    def test_an_error_of_the_disk_is_no_damage(self):
        """It may pass, and says nothing of the photo."""

        class Failing(io.BytesIO):
            name = "photo.jpg"

            def read(self, *count):
                raise OSError(5, "Input/output error")

        refused(Failing(b"content"), "photo.jpg cannot be read: Input/output error", error=OSError)

    @pytest.mark.parametrize("ending", ["jpg", "png", "gif", "webp", "tif", "bmp"])
    def test_cut_short(self, tmp_path, ending):
        path = tmp_path / f"cut.{ending}"
        Image.fromarray(noise(60, 80, 3)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        refused(path, path, "replace or remove it")

    @pytest.mark.parametrize("content", [b"this is text", bytes(5000), b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
    def test_not_an_image(self, tmp_path, content):
        (tmp_path / "text.jpg").write_bytes(content)
        refused(tmp_path / "text.jpg", tmp_path / "text.jpg", "replace or remove it")

    def test_damaged_in_the_middle(self, tmp_path):
        path = tmp_path / "photo.png"
        Image.fromarray(noise(60, 80, 3)).save(path)
        content = bytearray(path.read_bytes())
        content[5000:5400] = bytes(400)
        path.write_bytes(content)
        refused(path, path, "damaged")

    def test_decompression_bomb(self, tmp_path):
        path = png(tmp_path / "bomb.png", 30000, 30000, 1, 0, bytes(100))
        refused(path, path, "900000000", "MAX_IMAGE_PIXELS")

    def test_floating_point_tiff(self, tmp_path):
        Image.fromarray(np.zeros((4, 4), "float32")).save(tmp_path / "photo.tif")
        refused(tmp_path / "photo.tif", tmp_path / "photo.tif", "8 bits")

    def test_32_bit_tiff(self, tmp_path):
        Image.fromarray(np.array([[0, 70000]], "int32")).save(tmp_path / "photo.tif")
        refused(tmp_path / "photo.tif", tmp_path / "photo.tif", "70000")

    def test_pillow_writes_no_warnings_for_a_good_photo(self, tmp_path):
        Image.fromarray(noise(20, 30, 4)).save(tmp_path / "photo.png")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_image(tmp_path / "photo.png", box=(1, 1, 20, 20), max_side=16)

    def test_image_error_is_a_value_error(self):
        assert issubclass(ImageError, ValueError)

    def test_image_name(self, tmp_path):
        assert image_name(tmp_path / "a.png") == str(tmp_path / "a.png")
        assert image_name(np.zeros((4, 5, 3))) == "the array of shape (4, 5, 3)"
