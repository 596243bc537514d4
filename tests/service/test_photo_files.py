"""Photos as files: found only inside their folder, their sizes, and thumbnails within a bound."""

import hashlib
import io
import os
import re
import stat
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image, ImageCms

from rw_keras.photos.reading import ImageError, read_image
from rw_keras.service import photo_files
from rw_keras.service.photo_files import PhotoFiles

BYTES = os.fsdecode(b"\xff\xfe.jpg")
NAMES = ["a.jpg", "below/b.png", BYTES, "ö & ' \" \n.jpg", "link.jpg", "linked/b.png", "a\\b.jpg"]


@pytest.fixture
def folder(tmp_path, draw):
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for seed, name in enumerate(["a.jpg", "below/b.png", BYTES, NAMES[3], NAMES[6]]):
        Image.fromarray(draw(seed, 90 + seed, 60)).save(folder / name)
    (folder / "link.jpg").symlink_to("a.jpg")
    (folder / "linked").symlink_to("below")
    return folder


@pytest.fixture
def found(folder, tmp_path):
    return PhotoFiles(folder, tmp_path / "cache")


class TestPath:
    @pytest.mark.parametrize("name", NAMES)
    def test_inside(self, found, folder, name):
        path = found.path(name)
        assert path.read_bytes() == (folder / name).read_bytes()
        assert path == (folder / name).resolve()

    @pytest.mark.parametrize(
        "name",
        [
            *("", ".", "..", "/", "a", "none.jpg", "below", "below/", "a.jpg/b.jpg", "a\0.jpg", "a.jpg\0", "\ud800.jpg", "n" * 300),
            *("../secret.jpg", "below/../../secret.jpg", "/etc/passwd", "../photos-2/a.jpg", "away.jpg", "away/secret.jpg"),
            *("pipe.jpg", "loop.jpg", "dangling.jpg", "folder.jpg", "..%2fsecret.jpg", "..\\secret.jpg", "above/../secret.jpg"),
        ],
    )
    def test_outside_or_not_there(self, found, folder, tmp_path, name):
        (tmp_path / "secret.jpg").write_bytes((folder / "a.jpg").read_bytes())
        (tmp_path / "photos-2").mkdir()
        (tmp_path / "photos-2" / "a.jpg").write_bytes(b"secret")
        (folder / "away.jpg").symlink_to(tmp_path / "secret.jpg")
        (folder / "away").symlink_to(tmp_path)
        (folder / "above").symlink_to("..")
        os.mkfifo(folder / "pipe.jpg")
        (folder / "loop.jpg").symlink_to("loop.jpg")
        (folder / "dangling.jpg").symlink_to("none.jpg")
        (folder / "folder.jpg").mkdir()
        for use in (found.path, found.etag, lambda name: found.thumbnail(name, 64)):
            with pytest.raises(FileNotFoundError) as caught:
                use(name)
            assert str(tmp_path) not in str(caught.value)
        assert found.size(name) is None

    def test_no_folder(self, tmp_path):
        for folder in (None, tmp_path / "none"):
            with pytest.raises(FileNotFoundError, match=r"no file of the photo 'a\.jpg'"):
                PhotoFiles(folder, tmp_path / "cache").path("a.jpg")

    def test_a_folder_that_is_a_link(self, folder, tmp_path):
        (tmp_path / "link").symlink_to(folder)
        assert PhotoFiles(tmp_path / "link", tmp_path / "cache").path("a.jpg") == folder.resolve() / "a.jpg"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may look anywhere")
    def test_one_that_may_not_be_looked_at(self, found, folder, tmp_path):
        (folder / "below").chmod(0)
        try:
            with pytest.raises(PermissionError, match=r"'below/b\.png' cannot be looked at") as caught:
                found.path("below/b.png")
            assert str(tmp_path) not in str(caught.value)
        finally:
            (folder / "below").chmod(0o755)


class TestTag:
    def test_changes_with_the_file(self, found, folder, draw):
        tag = found.etag("a.jpg")
        assert re.fullmatch(r'"[0-9a-f]+-[0-9a-f]+"', tag)
        assert found.etag("a.jpg") == tag
        assert len({tag, found.etag("a.jpg", 64), found.etag("a.jpg", 65)}) == 3
        os.utime(folder / "a.jpg", ns=(1, 1))
        assert found.etag("a.jpg") != tag
        content = (folder / "a.jpg").read_bytes()
        (folder / "a.jpg").write_bytes(content + b"x")
        os.utime(folder / "a.jpg", ns=(1, 1))
        longer = found.etag("a.jpg")
        (folder / "a.jpg").write_bytes(content)
        os.utime(folder / "a.jpg", ns=(1, 1))
        assert found.etag("a.jpg") != longer


class TestSize:
    @pytest.mark.parametrize("form", ["jpg", "png", "webp", "tif"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_of_the_upright_photo(self, found, folder, draw, form, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(draw(1, 70, 50)).save(folder / f"turned.{form}", exif=exif)
        height, width, _ = read_image(folder / f"turned.{form}", max_side=None).shape
        assert found.size(f"turned.{form}") == (width, height) == ((50, 70) if orientation > 4 else (70, 50))

    def test_nothing_is_decoded(self, found, folder):
        content = (folder / "a.jpg").read_bytes()
        (folder / "cut.jpg").write_bytes(content[: content.index(b"\xff\xda") + 20])
        with pytest.raises(ImageError):
            read_image(folder / "cut.jpg")
        assert found.size("cut.jpg") == (90, 60)

    def test_is_kept_until_the_file_changes(self, found, folder, draw, monkeypatch):
        reads, real = [], photo_files.upright_size
        monkeypatch.setattr(photo_files, "upright_size", lambda file: reads.append(file.name) or real(file))
        assert [found.size("a.jpg") for _ in range(3)] == [(90, 60)] * 3
        Image.fromarray(draw(9, 33, 44)).save(folder / "a.jpg")
        os.utime(folder / "a.jpg", ns=(5, 5))
        assert found.size("a.jpg") == (33, 44)
        (folder / "bad.jpg").write_bytes(b"no photo")
        assert [found.size("bad.jpg") for _ in range(3)] == [None] * 3
        assert reads == ["a.jpg", "a.jpg", "bad.jpg"]

    def test_so_many_are_kept(self, found, folder, monkeypatch):
        monkeypatch.setattr(photo_files, "_SIZES", 2)
        for name in ("a.jpg", "below/b.png", "a.jpg", BYTES):
            found.size(name)
        assert [*found._sizes] == ["a.jpg", BYTES]


class TestThumbnail:
    def read(self, content):
        photo = Image.open(io.BytesIO(content))
        photo.load()
        assert (photo.format, photo.mode) == ("JPEG", "RGB")
        return photo

    @pytest.mark.parametrize("name", NAMES)
    def test_is_the_photo_made_small(self, found, folder, name):
        photo = self.read(found.thumbnail(name, 64))
        assert max(photo.size) == 64
        expected = read_image(folder / name, max_side=64).astype(float)
        assert np.abs(np.asarray(photo) - expected).mean() < 6

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_is_upright_and_tells_nothing_of_where_it_was_taken(self, found, folder, draw, orientation):
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = orientation, "the camera"
        exif.get_ifd(0x8825).update({1: "N", 2: (51.0, 45.0, 14.0)})
        photo = Image.fromarray(draw(3, 160, 90))
        photo.save(folder / "where.jpg", exif=exif, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
        assert Image.open(folder / "where.jpg").getexif().get_ifd(0x8825)
        content = found.thumbnail("where.jpg", 80)
        thumbnail = self.read(content)
        assert not thumbnail.getexif() and {*thumbnail.info} <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert b"Exif" not in content and b"ICC" not in content and b"camera" not in content
        expected = read_image(folder / "where.jpg", max_side=80).astype(float)
        assert np.abs(np.asarray(thumbnail) - expected).mean() < 6

    def test_is_never_larger_than_the_photo(self, found):
        assert self.read(found.thumbnail("a.jpg", 1024)).size == (90, 60)

    def test_transparency_is_white(self, found, folder):
        Image.new("RGBA", (80, 80), (0, 0, 0, 0)).save(folder / "clear.png")
        assert np.asarray(self.read(found.thumbnail("clear.png", 64))).min() > 250

    @pytest.mark.parametrize("content", [b"", b"no photo", b"\xff\xd8\xff"])
    def test_what_cannot_be_decoded(self, found, folder, tmp_path, content):
        (folder / "bad.jpg").write_bytes(content)
        with pytest.raises(ImageError, match=r"^bad\.jpg") as caught:
            found.thumbnail("bad.jpg", 64)
        assert str(tmp_path) not in str(caught.value)
        assert not (tmp_path / "cache").exists()


class TestCache:
    @pytest.fixture
    def decoded(self, monkeypatch):
        """The names of the photos that are decoded."""
        names, real = [], photo_files.read_thumbnail
        monkeypatch.setattr(photo_files, "read_thumbnail", lambda file, side: names.append(file.name) or real(file, side))
        return names

    def test_is_asked_first(self, found, folder, tmp_path, decoded, draw):
        first = found.thumbnail("a.jpg", 64)
        assert found.thumbnail("a.jpg", 64) == first
        assert PhotoFiles(folder, tmp_path / "cache").thumbnail("a.jpg", 64) == first
        assert decoded == ["a.jpg"]
        assert found.thumbnail("a.jpg", 65) != first
        assert found.thumbnail("link.jpg", 64) == first  # the same file
        assert decoded == ["a.jpg"] * 2
        Image.fromarray(draw(9, 90, 60)).save(folder / "a.jpg")
        os.utime(folder / "a.jpg", ns=(5, 5))
        assert found.thumbnail("a.jpg", 64) != first
        assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
        assert len(list((tmp_path / "cache").iterdir())) == 3

    @pytest.mark.parametrize("damage", [b"", b"\xff\xd8half", b"x" * 99])
    def test_a_damaged_file_is_made_again(self, found, tmp_path, decoded, damage):
        first = found.thumbnail("a.jpg", 64)
        (kept,) = (tmp_path / "cache").iterdir()
        kept.write_bytes(damage)
        assert (found.thumbnail("a.jpg", 64), kept.read_bytes()) == (first, first)
        assert len(decoded) == 2

    def test_one_that_cannot_be_written_holds_nobody_up(self, folder, tmp_path):
        (tmp_path / "file").touch()
        content = PhotoFiles(folder, tmp_path / "file" / "cache").thumbnail("a.jpg", 64)
        assert content == PhotoFiles(folder, tmp_path / "cache").thumbnail("a.jpg", 64)

    def test_stays_within_its_bound_and_keeps_what_is_used(self, folder, tmp_path, draw, decoded):
        for number in range(60):
            Image.fromarray(draw(number, 90, 60)).save(folder / f"{number}.png")
        one = len(PhotoFiles(folder, tmp_path / "other").thumbnail("0.png", 64))
        bound, cache = 20 * one, tmp_path / "cache"
        found = PhotoFiles(folder, cache, bound)
        (cache).mkdir()
        (cache / "notes.txt").write_bytes(b"mine" * one)
        (cache / f"{'0' * 64}.jpg").mkdir()
        times = iter(range(1, 10**6))

        def used(name):
            found.thumbnail(name, 64)
            place = found._place(*found._found(name), 64)
            os.utime(place, ns=(next(times) * 10**9,) * 2)  # a file system may keep no finer times than its ticks

        for number in range(60):
            used(f"{number}.png")
            used("0.png")
            assert sum(path.stat().st_size for path in cache.glob("*.jpg") if path.is_file()) <= bound
        assert (cache / "notes.txt").exists() and (cache / f"{'0' * 64}.jpg").is_dir()
        decoded.clear()
        used("0.png")
        used("59.png")
        assert decoded == []
        used("1.png")
        assert decoded == ["1.png"]

    def test_what_killed_processes_left_goes(self, folder, tmp_path):
        cache = tmp_path / "cache"
        cache.mkdir()
        old, new = cache / f".part-{'a' * 16}", cache / f".part-{'b' * 16}"
        for path in (old, new, cache / ".part-mine"):
            path.write_bytes(b"half")
            os.utime(path, (time.time() - 7200,) * 2)
        os.utime(new)
        PhotoFiles(folder, cache).thumbnail("a.jpg", 64)
        assert (old.exists(), new.exists(), (cache / ".part-mine").exists()) == (False, True, True)

    @pytest.mark.slow
    def test_several_threads_and_processes(self, folder, tmp_path, draw):
        for number in range(30):
            Image.fromarray(draw(number, 90, 60)).save(folder / f"{number}.png")
        cache = tmp_path / "cache"
        expected = {number: PhotoFiles(folder, tmp_path / "other").thumbnail(f"{number}.png", 64) for number in range(30)}
        bound = 12 * len(expected[0])
        words = (
            "import sys, hashlib; from rw_keras.service.photo_files import PhotoFiles\n"
            f"found = PhotoFiles({str(folder)!r}, {str(cache)!r}, {bound})\n"
            "for turn in range(90):\n"
            "    number = turn * int(sys.argv[1]) % 30\n"
            "    print(number, hashlib.sha256(found.thumbnail(f'{number}.png', 64)).hexdigest())\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        processes = [
            subprocess.Popen([sys.executable, "-c", words, step], stdout=subprocess.PIPE, text=True, env=environment)
            for step in ("1", "7")
        ]
        found, wrong = PhotoFiles(folder, cache, bound), []

        def ask(step):
            for turn in range(90):
                if found.thumbnail(f"{turn * step % 30}.png", 64) != expected[turn * step % 30]:
                    wrong.append(turn)

        threads = [threading.Thread(target=ask, args=[step]) for step in (1, 11, 13)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        digests = {str(number): hashlib.sha256(content).hexdigest() for number, content in expected.items()}
        for process in processes:
            out, _ = process.communicate()
            assert process.returncode == 0
            wrong += [line for line in out.splitlines() if digests[line.split()[0]] != line.split()[1]]
            assert len(out.splitlines()) == 90
        assert wrong == []
        assert sum(path.stat().st_size for path in cache.iterdir()) <= bound
