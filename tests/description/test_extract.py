"""`extract`: photos into an index on disk. What kills and full disks do to the index itself is in test_collection.py."""

import errno
import io
import json
import os
import pathlib
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from small_indices import held, quiet, save

from rw_keras.description import batcher, progress, reader, runner
from rw_keras.description.describe import Batch, describe
from rw_keras.description.extract import Extraction, extract
from rw_keras.description.runner import Runner
from rw_keras.model.recipe import recipe
from rw_keras.photos.reading import ImageError
from rw_keras.photos.sources import photo_items
from rw_keras.retrieval import Index, store
from rw_keras.retrieval.int8 import encoded
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.writer import Writer

SIZES = ((64, 48), (48, 64), (40, 40), (80, 24))


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Few photos are enough for several windows, shards and a merge."""
    monkeypatch.setattr(batcher, "WINDOW", 16)
    monkeypatch.setattr(store, "SEGMENT_ROWS", 64)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def folder(tmp_path, draw):
    """Sixty small photos of four sizes, some of them in folders below."""
    folder = tmp_path / "photos"
    for number in range(60):
        save(folder / f"{'more/' * (number % 3 == 2)}{number:03d}.png", draw(number, *SIZES[number * 7 // 3 % 4]))
    return folder


def contents(out):
    """All that an index holds: photos in order with everything that is known of them, descriptors byte for byte, and fields."""
    found = store.read(out)
    rows = found.rows if found.places is None else found.rows[found.places]
    with sqlite3.connect(out / store.DATABASE) as database:
        photos = database.execute("SELECT name, row IS NULL, size, time, sha256, listed, fault FROM photos ORDER BY id").fetchall()
    fields = {field: value for field, value in found.about.items() if field not in ("identity", "generation", "next_row", "sums")}
    return photos, np.asarray(rows).tobytes(), fields, found.metadata


def files(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def same(one, other):
    assert list(one) == list(other)
    np.testing.assert_array_equal(list(one.values()), list(other.values()))


def counts(done):
    return done.described, done.changed, done.kept, done.removed, len(done.failures)


def photos_of(runs):
    return sum(shape[0] for shape in runs)


def later(path, seconds=5):
    """Lets a file look as if it had been written again."""
    about = path.stat()
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + seconds * 10**9))


class TestFirstRun:
    def test_descriptors_are_those_of_describe(self, model, folder, out):
        done = quiet(model, folder, out, max_side=60)
        index = held(out)
        assert list(index) == [item.name for item in photo_items(folder)]
        expected = [describe(model, folder / name, max_side=60) for name in index]
        np.testing.assert_allclose(list(index.values()), expected, atol=1e-6)
        assert isinstance(done, Extraction)
        assert done.folder == out
        assert counts(done) == (60, 0, 0, 0, 0)
        assert 0 < done.network_seconds <= done.seconds < 600
        assert str(done) == "60 described, 0 left out; 60 photos in the index"

    def test_fields(self, model, folder, out):
        quiet(model, folder, out, max_side=60)
        manifest = store.about(out)
        assert (manifest["dimensions"], manifest["dtype"]) == (12, "float32")
        assert manifest["recipe"]["max_side"] == 60
        assert {field: manifest["recipe"][field] for field in model.recipe} == json.loads(json.dumps(model.recipe.to_dict()))
        assert manifest["versions"]["numpy"] == np.__version__
        assert {"rw_keras", "keras", "tensorflow", "pillow"} <= set(manifest["versions"])

    def test_float16(self, model, folder, out, tmp_path):
        quiet(model, folder, out)
        quiet(model, folder, tmp_path / "half", dtype="float16")
        half = store.read(tmp_path / "half").rows
        assert half.dtype == np.float16
        np.testing.assert_array_equal(np.asarray(half), np.stack(list(held(out).values())).astype("float16"))
        assert counts(quiet(model, folder, tmp_path / "half")) == (0, 0, 60, 0, 0)
        assert store.read(tmp_path / "half").rows.dtype == np.float16
        with pytest.raises(ValueError, match="its dtype is 'float16', the one asked for 'float32'"):
            quiet(model, folder, tmp_path / "half", dtype="float32")

    def test_int8(self, model, folder, out, tmp_path):
        quiet(model, folder, out)
        quiet(model, folder, tmp_path / "small", dtype="int8")
        exact, small = (Index.load(path).descriptors[:] for path in (out, tmp_path / "small"))
        np.testing.assert_array_equal(small, Rows.of(encoded(exact, "int8"))[:])
        assert counts(quiet(model, folder, tmp_path / "small")) == (0, 0, 60, 0, 0)
        assert store.check(tmp_path / "small") == []

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"batch_size": 0}, 'batch_size is "auto" or a whole number of at least 1, but got 0'),
            ({"batch_size": True}, "batch_size.*True"),
            ({"batch_size": 2.0}, r"batch_size.*2\.0"),
            ({"workers": 0}, "workers.*got 0"),
            ({"workers": "many"}, "workers.*'many'"),
            ({"dtype": "float64"}, "dtype is one of float32, float16, int8, but got 'float64'"),
            ({"max_side": 0}, "max_side.*0"),
            ({"photos": []}, "no photo"),
        ],
        ids=str,
    )
    def test_arguments_out_of_range(self, model, folder, out, arguments, words):
        with pytest.raises(ValueError, match=words):
            quiet(model, **{"photos": folder, "out": out, **arguments})
        assert not out.exists()

    def test_another_model_or_size_is_refused(self, model, tiny_model, folder, out):
        quiet(model, folder, out)
        before = contents(out)
        for other, max_side, field in (
            (tiny_model(seed=1), 1024, "weights"),
            (tiny_model(levels=2), 1024, "levels"),
            (model, 9, "max_"),
        ):
            with pytest.raises(ValueError, match=f"made in another way: .*its {field}.* is .*, the one asked for "):
                quiet(other, folder, out, max_side=max_side)
        assert contents(out) == before

    def test_anew(self, model, folder, out, tmp_path, computed):
        quiet(model, folder, out)
        (folder / "000.png").unlink()
        quiet(model, folder, tmp_path / "fresh", max_side=50)
        computed.clear()
        assert counts(quiet(model, folder, out, max_side=50, resume=False)) == (59, 0, 0, 0, 0)
        assert photos_of(computed) == 59
        assert contents(out) == contents(tmp_path / "fresh")

    @pytest.mark.usefixtures("impatient")
    def test_anew_does_not_take_the_index_from_another_process(self, model, folder, out):
        quiet(model, folder, out)
        before = contents(out)
        with Writer(out, {**recipe(model), "max_side": 1024}, 12):
            with pytest.raises(ValueError, match="being written by another process"):
                quiet(model, folder, out, resume=False)
            assert contents(out) == before


class TestBatches:
    @pytest.mark.slow
    def test_depend_on_the_list_alone(self, model, folder, out, tmp_path, computed, monkeypatch):
        """However the threads take turns, however slow one photo is."""
        quiet(model, folder, out, workers=1)
        expected, batches = contents(out), list(computed)
        real = reader.read_image
        for workers in (2, 3, 4, "auto"):
            chance = np.random.default_rng(0)

            def uneven(*arguments, chance=chance):
                time.sleep(chance.uniform(0, 0.005))
                return real(*arguments)

            monkeypatch.setattr(reader, "read_image", uneven)
            computed.clear()
            quiet(model, folder, tmp_path / f"{workers}", workers=workers)
            assert list(computed) == batches
            assert contents(tmp_path / f"{workers}") == expected

    @pytest.mark.parametrize("batch_size", [1, 3, 100, "auto"])
    def test_hold_photos_of_one_size(self, model, folder, out, computed, batch_size):
        quiet(model, folder, out, batch_size=batch_size)
        assert photos_of(computed) == 60
        assert max(shape[0] for shape in computed) == {1: 1, 3: 3}.get(batch_size, max(shape[0] for shape in computed))
        assert max(shape[0] for shape in computed) > 1 or batch_size == 1
        index = held(out)
        assert list(index) == [item.name for item in photo_items(folder)]
        np.testing.assert_allclose(list(index.values()), [describe(model, folder / name) for name in index], atol=1e-6)

    def test_a_window_waits_for_no_other(self, model, draw, out, computed):
        """Photos 0..15 are on the disk before photo 16 is described: each of the sixteen sizes makes a batch of two windows."""
        photos = [draw(seed, 40 + seed % 8, 40) for seed in range(40)]
        seen = []
        computed.before[9] = lambda: seen.append(len(store.read(out).names))
        quiet(model, photos, out)
        assert [shape[0] for shape in computed] == [2] * 8 + [2] * 8 + [1] * 8
        assert seen == [16]

    @pytest.mark.parametrize(
        ("pixels", "expected"), [((48, 64), 64), ((384, 512), 1), ((1024, 768), 1), ((192, 256), 4), ((9, 9), 2427)]
    )
    def test_auto(self, model, pixels, expected):
        assert Runner(model, "auto", []).batch_of((*pixels, 3)) == expected
        assert Runner(model, 5, []).batch_of((*pixels, 3)) == 5

    def test_photos_that_wait_have_a_budget(self, model, draw, out, tmp_path, computed, monkeypatch):
        photos = [draw(seed, 40 + seed % 5, 40) for seed in range(16)]
        quiet(model, photos, out)
        assert [shape[0] for shape in computed] == [4, 3, 3, 3, 3]
        computed.clear()
        monkeypatch.setattr(batcher, "_WAITING_BYTES", 3 * 45 * 40 * 3)
        waiting = []
        real = batcher.Batcher.take

        def take(self, *arguments):
            real(self, *arguments)
            waiting.append(sum(pixels.nbytes for group in self._groups.values() for _, pixels in group))

        monkeypatch.setattr(batcher.Batcher, "take", take)
        quiet(model, photos, tmp_path / "other")
        assert max(waiting) <= batcher._WAITING_BYTES
        assert len(computed) > 5
        assert photos_of(computed) == 16
        one, other = held(out), held(tmp_path / "other")
        assert list(one) == list(other)
        np.testing.assert_allclose(list(one.values()), list(other.values()), atol=1e-6)

    def test_few_photos_are_decoded_ahead(self, model, draw, out, monkeypatch):
        """A slow network does not fill the memory."""
        read, ahead = 0, []
        real = reader.read_image

        def counting(*arguments):
            nonlocal read
            read += 1
            return real(*arguments)

        monkeypatch.setattr(reader, "read_image", counting)
        taken = batcher.Batcher.take

        def take(self, *arguments):
            time.sleep(0.01)
            ahead.append(read - len(ahead))
            taken(self, *arguments)

        monkeypatch.setattr(batcher.Batcher, "take", take)
        quiet(model, [draw(seed) for seed in range(40)], out, workers=2)
        assert max(ahead) <= 2 * 2 + 2

    def test_large_photos_are_not_decoded_ahead(self, model, draw, out, monkeypatch):
        """Without a limit of their side, photos in hand are bounded by their bytes."""
        size = 64 * 48 * 3
        monkeypatch.setattr(reader, "_BUDGET", 3 * size)
        lock, held, most = threading.Lock(), 0, 0
        real, taken = reader.read_image, batcher.Batcher.take

        def change(count):
            nonlocal held, most
            with lock:
                held += count
                most = max(most, held)

        monkeypatch.setattr(reader, "read_image", lambda *arguments: (real(*arguments), change(1))[0])

        def take(self, *arguments):
            change(-1)
            time.sleep(0.005)
            taken(self, *arguments)

        monkeypatch.setattr(batcher.Batcher, "take", take)
        quiet(model, [draw(seed) for seed in range(40)], out, workers=8, max_side=None)
        assert most <= 4
        assert len(Index.load(out)) == 40

    def test_a_device_has_few_batches_in_hand(self, model, monkeypatch):
        """Reading does not run away from slow devices."""
        go_on, began = threading.Semaphore(0), threading.Semaphore(0)

        def slow(pixels):
            began.release()
            assert go_on.acquire(timeout=20)
            return Batch(np.zeros((len(pixels), 12), "float32"), None)

        monkeypatch.setattr(runner, "_replica", lambda model, device, regions: slow)
        network, found = Runner(model, 1, ["CPU:0"]), []
        thread = threading.Thread(target=lambda: found.extend(network.run(np.zeros((1, 8, 8, 3))) for _ in range(5)))
        thread.start()
        assert began.acquire(timeout=20)
        thread.join(0.2)
        assert thread.is_alive()
        assert len(found) == 2
        for _ in range(5):
            go_on.release()
        thread.join(20)
        assert [future.result(20).descriptors.shape for future in found] == [(1, 12)] * 5

    @pytest.mark.slow
    @pytest.mark.parametrize("devices", [["CPU:0"], ["CPU:0", "CPU:0"]], ids=len)
    def test_named_devices_get_the_batches(self, model, folder, out, tmp_path, devices, monkeypatch):
        asked, real = [], runner._replica
        monkeypatch.setattr(runner, "_replica", lambda model, device, regions: asked.append(device) or real(model, device, regions))
        quiet(model, folder, out)
        assert asked == []
        quiet(model, folder, tmp_path / "named", devices=devices)
        assert asked == devices
        same(held(out), held(tmp_path / "named"))

    @pytest.mark.slow
    def test_two_devices(self, tiny_model, folder, tmp_path, out):
        """In a process of its own: devices are made before TensorFlow starts."""
        model = tiny_model()
        quiet(model, folder, out)
        model.save(tmp_path / "model.keras")
        arguments = map(str, (tmp_path / "model.keras", folder, tmp_path / "two"))
        run = subprocess.run([sys.executable, "-c", TWO_DEVICES, *arguments], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-2000:]
        same(held(out), held(tmp_path / "two"))


TWO_DEVICES = """
import sys
import tensorflow as tf
(processor,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
import rw_keras
from rw_keras.description import batcher, runner
from rw_keras.retrieval import Index, store
batcher.WINDOW, store.SEGMENT_ROWS = 16, 64
real, used = runner.Runner._timed, []

def timed(self, function, pixels):
    vectors = function(pixels)
    used.append((id(function), function.model.weights[0].value.device))
    return vectors

runner.Runner._timed = timed
model = rw_keras.load_model(sys.argv[1])
rw_keras.extract(model, sys.argv[2], sys.argv[3], devices=["CPU:0", "CPU:1"], progress=False)
assert {device.rpartition("/")[2] for _, device in used} == {"device:CPU:0", "device:CPU:1"}, used
numbers = [sum(one == function for one, _ in used) for function in {function for function, _ in used}]
assert len(numbers) == 2 and abs(numbers[0] - numbers[1]) <= 1, numbers
"""


class TestUpdate:
    def check(self, model, folder, out, tmp_path):
        """The index holds what a fresh one would, and another run finds nothing to do."""
        shutil.rmtree(tmp_path / "fresh", ignore_errors=True)
        quiet(model, folder, tmp_path / "fresh")
        one, fresh = held(out), held(tmp_path / "fresh")
        assert one.keys() == fresh.keys()
        np.testing.assert_allclose([one[name] for name in fresh], list(fresh.values()), atol=1e-6)
        assert store.read(out).failures == store.read(tmp_path / "fresh").failures
        before = contents(out)
        done = quiet(model, folder, out)
        assert counts(done) == (0, 0, len(fresh), 0, len(done.failures))
        assert contents(out) == before

    def test_a_second_run_describes_nothing(self, model, folder, out, computed):
        (folder / "bad.jpg").write_text("no photo")
        first = quiet(model, folder, out)
        before = contents(out)
        computed.clear()
        for checksum in (False, False):
            done = quiet(model, folder, out, checksum=checksum)
            assert counts(done) == (0, 0, 60, 0, 1)
            assert done.failures == first.failures
            assert str(done) == "0 described, 60 kept, 1 left out; 60 photos in the index"
        assert computed == []
        assert contents(out) == before

    def test_changes_of_all_kinds(self, model, folder, out, tmp_path, draw, computed):
        quiet(model, folder, out)
        save(folder / "000.png", draw(100))
        save(folder / "001.png", draw(101, 30, 30))
        later(folder / "003.png")
        (folder / "004.png").unlink()
        (folder / "more/002.png").unlink()
        (folder / "006.png").rename(folder / "moved.png")
        save(folder / "new/a.png", draw(102))
        computed.clear()
        done = quiet(model, folder, out)
        assert counts(done) == (5, 3, 54, 3, 0)
        assert str(done) == "5 described (3 of them had changed), 54 kept, 3 removed, 0 left out; 59 photos in the index"
        assert photos_of(computed) == 5
        self.check(model, folder, out, tmp_path)

    def test_content_of_the_same_size_and_time_counts_with_checksums(self, model, tmp_path, out, draw, computed):
        folder = tmp_path / "photos"
        for seed in range(3):
            folder.mkdir(exist_ok=True)
            Image.fromarray(draw(seed)).save(folder / f"{seed}.bmp")
        for place in (out, tmp_path / "checked"):
            quiet(model, folder, place, checksum=place != out)
        about = (folder / "1.bmp").stat()
        Image.fromarray(draw(50)).save(folder / "1.bmp")
        os.utime(folder / "1.bmp", ns=(about.st_atime_ns, about.st_mtime_ns))
        assert (folder / "1.bmp").stat().st_size == about.st_size
        computed.clear()
        assert counts(quiet(model, folder, out)) == (0, 0, 3, 0, 0)
        assert counts(quiet(model, folder, tmp_path / "checked", checksum=True)) == (1, 1, 2, 0, 0)
        assert photos_of(computed) == 1
        np.testing.assert_allclose(held(tmp_path / "checked")["1.bmp"], describe(model, draw(50)), atol=1e-6)

    def test_a_touched_photo_is_kept_with_checksums(self, model, folder, out, computed):
        quiet(model, folder, out, checksum=True)
        before = contents(out)
        computed.clear()
        assert counts(quiet(model, folder, out, checksum=True)) == (0, 0, 60, 0, 0)
        later(folder / "000.png")
        assert counts(quiet(model, folder, out, checksum=True)) == (0, 0, 60, 0, 0)
        assert computed == []
        assert contents(out)[1:] == before[1:]
        # The new time is noted, so that a run without checksums sees no change either.
        assert counts(quiet(model, folder, out)) == (0, 0, 60, 0, 0)
        later(folder / "000.png")
        assert counts(quiet(model, folder, out)) == (1, 1, 59, 0, 0)

    @pytest.mark.parametrize("checksum", [False, True])
    def test_unreadable_and_readable_again(self, model, folder, out, tmp_path, computed, checksum):
        quiet(model, folder, out, checksum=checksum)
        good = (folder / "000.png").read_bytes()
        for _ in range(2):
            (folder / "000.png").write_bytes(good[:100])
            done = quiet(model, folder, out, checksum=checksum)
            assert counts(done) == (0, 0, 59, 0, 1)
            assert "000.png" not in held(out)
            ((name, reason),) = done.failures
            assert name == "000.png"
            assert "000.png cannot be" in reason
            computed.clear()
            assert counts(quiet(model, folder, out, checksum=checksum)) == (0, 0, 59, 0, 1)
            assert computed == []
            (folder / "000.png").write_bytes(good)
            assert counts(quiet(model, folder, out, checksum=checksum)) == (1, 0, 59, 0, 0)
        index = held(out)
        np.testing.assert_allclose(index["000.png"], describe(model, folder / "000.png"), atol=1e-6)

    def test_a_failure_that_is_gone_is_no_longer_listed(self, model, folder, out, tmp_path):
        (folder / "bad.jpg").write_text("no photo")
        quiet(model, folder, out)
        (folder / "bad.jpg").unlink()
        assert counts(quiet(model, folder, out)) == (0, 0, 60, 0, 0)
        assert store.read(out).failures == []

    @pytest.mark.slow
    def test_all_changed_again_and_again(self, model, folder, out, tmp_path, draw):
        for run in range(4):
            for path in folder.rglob("*.png"):
                later(path)
            assert counts(quiet(model, folder, out))[0] == 60
            self.check(model, folder, out, tmp_path)
            assert len(list(out.glob("rows-*"))) == 1, run

    @pytest.mark.slow
    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError], ids=lambda error: error.__name__)
    @pytest.mark.parametrize("spoiled", [False, True], ids=["readable", "spoiled"])
    def test_interrupted(self, model, folder, out, tmp_path, draw, computed, error, spoiled):
        """Anywhere, in a first run and in an update: the result is that of a run which was not, byte for byte."""
        if spoiled:
            (folder / "003.jpg").mkdir()
            (folder / "004.jpg").symlink_to("none.jpg")
            (folder / "005.jpg").touch()
            (folder / "006.jpg").write_text("no photo")

        def interrupt():
            raise error

        for _ in range(2):
            shutil.rmtree(tmp_path / "copy", ignore_errors=True)
            if out.exists():
                shutil.copytree(out, tmp_path / "copy")
            quiet(model, folder, tmp_path / "copy", batch_size=4)
            for batches in (6, 5, 7):
                computed.clear()
                computed.before[batches] = interrupt
                with pytest.raises(error):
                    quiet(model, folder, out, batch_size=4)
            computed.before.clear()
            quiet(model, folder, out, batch_size=4)
            assert contents(out) == contents(tmp_path / "copy")
            for number in range(0, 60, 3):
                save(folder / f"{number:03d}.png", draw(200 + number))
            for number in range(1, 60, 3):
                save(folder / f"{number:03d} new.png", draw(300 + number, *SIZES[number % 4]))
            (folder / "007.png").unlink(missing_ok=True)

    def test_interrupted_in_between(self, model, folder, out, computed):
        """What is on the disk is not described again."""

        def interrupt():
            raise KeyboardInterrupt

        computed.before[20] = interrupt
        with pytest.raises(KeyboardInterrupt):
            quiet(model, folder, out, batch_size=2)
        before = photos_of(computed)
        assert before > 32
        computed.clear()
        computed.before.clear()
        done = quiet(model, folder, out, batch_size=2)
        assert 60 - before <= photos_of(computed) == done.described < 60 - before + 17
        assert done.kept == 60 - done.described


def huge_png(width, height):
    """A black PNG of one bit a pixel: a few hundred kilobytes for 900 million pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer, rows = zlib.compressobj(9), []
    for _ in range(0, height, 1000):
        rows.append(packer.compress(bytes((width // 8 + 1) * 1000)))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", b"".join([*rows, packer.flush()])) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


class TestBadPhotos:
    @pytest.fixture
    def bad(self, folder):
        """Photos that cannot be read, and what is said of them."""
        (folder / "folder.jpg").mkdir()
        (folder / "empty.jpg").touch()
        Image.effect_noise((64, 48), 90).save(folder / "cut.jpg")
        (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:1500])
        (folder / "text.jpg").write_text("no photo")
        (folder / "link.jpg").symlink_to("none.jpg")
        (folder / "tiny.png").write_bytes((folder / "000.png").read_bytes())
        save(folder / "tiny.png", np.zeros((5, 30, 3), "uint8"))
        os.mkfifo(folder / "pipe.jpg")
        return {
            "folder.jpg": "is a folder",
            "empty.jpg": "is empty",
            "cut.jpg": "cut short or damaged",
            "text.jpg": "not an image",
            "link.jpg": "is a link to none.jpg, which is not there",
            "tiny.png": "too small: each side needs 8",
            "pipe.jpg": "pipe.jpg",
        }

    @pytest.mark.parametrize("checksum", [False, True])
    def test_are_listed_with_their_reasons(self, model, folder, out, bad, checksum):
        done = []
        # On a thread: opening a pipe that nobody writes to never returns.
        thread = threading.Thread(
            target=lambda: done.extend(quiet(model, folder, out, checksum=checksum) for _ in range(2)), daemon=True
        )
        thread.start()
        thread.join(20)
        if thread.is_alive():
            with open(folder / "pipe.jpg", "wb"):  # lets it go on
                thread.join(10)
            pytest.fail("hangs at a pipe")
        for run, described in zip(done, (60, 0)):
            assert counts(run) == (described, 0, 60 - described, 0, len(bad))
            assert run.failures == sorted(run.failures)
            assert dict(run.failures).keys() == bad.keys()
            for name, reason in run.failures:
                assert bad[name] in reason
                assert str(folder / name) in reason
        assert list(held(out)) == [item.name for item in photo_items(folder) if item.name not in bad]
        assert store.read(out).failures == done[0].failures

    def test_strict(self, model, folder, out, bad, computed):
        with pytest.raises((ImageError, OSError), match="|".join(bad)):
            quiet(model, folder, out, strict=True)
        for name in bad:
            path = folder / name
            path.rmdir() if path.is_dir() else path.unlink()
        assert counts(quiet(model, folder, out, strict=True))[4] == 0
        assert len(held(out)) == 60

    def test_strict_counts_what_an_earlier_run_found(self, model, folder, out):
        (folder / "text.jpg").write_text("no photo")
        quiet(model, folder, out)
        with pytest.raises(ImageError, match=r"text\.jpg"):
            quiet(model, folder, out, strict=True)

    def test_strict_keeps_what_was_described(self, model, folder, out, computed):
        (folder / "more" / "zzz.jpg").write_text("no photo")
        with pytest.raises(ImageError, match=r"zzz\.jpg"):
            quiet(model, folder, out, strict=True)
        (folder / "more" / "zzz.jpg").unlink()
        computed.clear()
        quiet(model, folder, out, strict=True)
        assert photos_of(computed) <= 16

    def test_nothing_readable(self, model, tmp_path, out):
        make = tmp_path / "photos"
        make.mkdir()
        (make / "a.jpg").write_text("no photo")
        (make / "b.jpg").touch()
        for _ in range(2):
            with pytest.raises(ImageError, match=r"None of the 2 photos can be read.*\n.*a\.jpg.*\n.*b\.jpg"):
                quiet(model, make, out)
            assert not out.exists()

    def test_a_huge_photo_takes_no_memory(self, model, folder, out):
        (folder / "huge.png").write_bytes(huge_png(30_000, 30_000))
        assert (folder / "huge.png").stat().st_size < 1 << 20
        tracemalloc.start()
        peak = peak_of_process()
        done = quiet(model, folder, out)
        tracemalloc.stop()
        ((name, reason),) = done.failures
        assert name == "huge.png"
        assert "huge.png is too large" in reason
        assert "900000000 pixels" in reason
        assert peak_of_process() - peak < 100

    @pytest.mark.parametrize("name", ["a b.png", "new\nline.png", "東京.png", os.fsdecode(b"\xff.png"), "'\"$(x).png", " .png"])
    def test_names(self, model, tmp_path, out, draw, name):
        (tmp_path / "photos").mkdir()
        with open(tmp_path / "photos" / name, "wb") as file:
            Image.fromarray(draw(1)).save(file, "png")
        (tmp_path / "photos" / f"bad {name}").write_text("no photo")
        for described in (1, 0):
            done = quiet(model, tmp_path / "photos", out)
            assert counts(done) == (described, 0, 1 - described, 0, 1)
            assert list(held(out)) == [name]
            assert [failed for failed, _ in done.failures] == [f"bad {name}"]

    def test_a_photo_that_vanishes(self, model, folder, out, monkeypatch):
        real = reader.read_image

        def vanishing(source, *arguments):
            if str(source).endswith("030.png"):
                pathlib.Path(source).unlink(missing_ok=True)
            return real(source, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(reader, "read_image", vanishing)
            done = quiet(model, folder, out)
        assert counts(done) == (59, 0, 0, 0, 1)
        assert "There is no file" in done.failures[0][1]
        assert counts(quiet(model, folder, out)) == (0, 0, 59, 0, 0)

    @pytest.mark.parametrize(
        "error",
        [PermissionError(13, "Permission denied", "030.png"), OSError(5, "Input/output error", "030.png"), MemoryError()],
        ids=lambda error: type(error).__name__,
    )
    def test_what_may_pass_is_tried_again(self, model, folder, out, monkeypatch, error):
        """Not the photo's content was at fault: a share that was away, a permission, too little memory."""
        real = reader.read_image

        def failing(source, *arguments):
            if str(source).endswith("030.png"):
                raise error
            return real(source, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(reader, "read_image", failing)
            done = quiet(model, folder, out)
        assert counts(done) == (59, 0, 0, 0, 1)
        assert "030.png" in done.failures[0][1]
        assert counts(quiet(model, folder, out)) == (1, 0, 59, 0, 0)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
    def test_a_photo_that_may_not_be_read(self, model, folder, out):
        (folder / "000.png").chmod(0)
        done = quiet(model, folder, out)
        assert counts(done) == (59, 0, 0, 0, 1)
        assert "000.png" in done.failures[0][1]


def peak_of_process():
    """MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class TestDisk:
    @pytest.mark.parametrize(("call", "number"), [("replace", 1), ("fsync", 1), ("fsync", 2), ("fsync", 4), ("fsync", 6)])
    def test_full(self, model, folder, out, tmp_path, computed, monkeypatch, call, number):
        """In the journal, in a shard, in the manifest: what was finished stays, and the next run goes on."""
        quiet(model, folder, tmp_path / "uninterrupted")
        computed.clear()
        real, count = getattr(os, call), 0

        def failing(*arguments):
            nonlocal count
            count += 1
            if count == number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            with pytest.raises(OSError, match="No space left"):
                quiet(model, folder, out)
        before = photos_of(computed)
        computed.clear()
        quiet(model, folder, out)
        assert 60 - before <= photos_of(computed) <= 60 - before + 16
        assert contents(out) == contents(tmp_path / "uninterrupted")

    def test_a_folder_that_cannot_be_made(self, model, folder, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"):
            quiet(model, folder, tmp_path / "file" / "index")

    def test_something_else_is_refused(self, model, folder):
        before = files(folder / "more")
        for resume in (True, False):
            with pytest.raises(ValueError, match="not an index; choose another name"):
                quiet(model, folder, folder / "more", resume=resume)
        assert files(folder / "more") == before


class TestSources:
    @pytest.mark.slow
    def test_all_kinds_give_the_same_descriptors(self, model, folder, tmp_path, computed):
        import tensorflow as tf

        items = photo_items(folder)
        with tarfile.open(tmp_path / "photos.tar", "w") as archive:
            for item in items:
                archive.add(item.place, item.name)
                note = tarfile.TarInfo(f"{item.name}.json")
                note.size = 2
                archive.addfile(note, io.BytesIO(b"{}"))
        (tmp_path / "list.txt").write_text("".join(f"photos/{item.name}\n" for item in items))
        pixels = [reader.read_image(item.place, None, None) for item in items]

        def dataset(with_names):
            spec = tf.TensorSpec((None, None, 3), tf.uint8)
            signature = (spec, tf.TensorSpec((), tf.string)) if with_names else spec
            elements = [(one, item.name) for one, item in zip(pixels, items)] if with_names else pixels
            return tf.data.Dataset.from_generator(lambda: iter(elements), output_signature=signature)

        sources = {
            "folder": folder,
            "tar": tmp_path / "photos.tar",
            "list file": tmp_path / "list.txt",
            "glob": f"{folder}/**/*.png",
            "paths": [item.place for item in items],
            "arrays": pixels,
            "dataset": dataset(False),
            "named dataset": dataset(True),
        }
        numbers = [f"{number:08d}" for number in range(60)]
        names = {"list file": [f"photos/{item.name}" for item in items], "arrays": numbers, "dataset": numbers}
        names |= {"paths": [item.place for item in items], "glob": sorted(item.place for item in items)}
        expected = None
        for kind, source in sources.items():
            computed.clear()
            out = tmp_path / f"index of {kind}"
            assert counts(quiet(model, source, out)) == (60, 0, 0, 0, 0)
            index = held(out)
            assert list(index) == names.get(kind, [item.name for item in items])
            vectors = (
                [index[name] for name in sorted(index, key=lambda name: name.removeprefix("photos/"))] if kind == "glob" else None
            )
            vectors = [index[item.place] for item in items] if kind == "glob" else list(index.values())
            expected = vectors if expected is None else expected
            np.testing.assert_allclose(vectors, expected, atol=1e-6)
            computed.clear()
            assert counts(quiet(model, source, out)) == (0, 0, 60, 0, 0)
            assert computed == []

    def test_a_dataset_is_taken_up_where_it_was_left(self, model, draw, out, tmp_path, computed):
        import tensorflow as tf

        pixels = np.stack([draw(seed) for seed in range(40)])
        names = [f"photo {seed}" for seed in range(40)]
        for source in (tf.data.Dataset.from_tensor_slices(pixels), tf.data.Dataset.from_tensor_slices((pixels, names))):
            for place in (out, tmp_path / "whole"):
                shutil.rmtree(place, ignore_errors=True)
            quiet(model, source, tmp_path / "whole")
            computed.clear()

            def interrupt():
                raise KeyboardInterrupt

            computed.before[3] = interrupt
            with pytest.raises(KeyboardInterrupt):
                quiet(model, source, out)
            computed.before.clear()
            computed.clear()
            assert counts(quiet(model, source, out)) == (8, 0, 32, 0, 0)
            assert photos_of(computed) == 8
            assert contents(out) == contents(tmp_path / "whole")

    def test_an_archive_that_grows(self, model, draw, out, tmp_path, computed):
        def add(mode, seeds):
            with tarfile.open(tmp_path / "photos.tar", mode) as archive:
                for seed in seeds:
                    file = io.BytesIO()
                    Image.fromarray(draw(seed)).save(file, "png")
                    member = tarfile.TarInfo(f"{seed}.png")
                    member.size = len(file.getvalue())
                    archive.addfile(member, io.BytesIO(file.getvalue()))

        add("w", range(5))
        quiet(model, tmp_path / "photos.tar", out)
        add("a", range(5, 9))
        computed.clear()
        assert counts(quiet(model, tmp_path / "photos.tar", out)) == (4, 0, 5, 0, 0)
        assert photos_of(computed) == 4

    def test_bad_photos_of_a_list_and_a_dataset(self, model, draw, out, tmp_path, computed):
        photos = [draw(1), np.zeros((3, 3)), tmp_path / "none.jpg", np.full((40, 40, 3), 300.0), draw(2)]
        for described in (2, 0):
            done = quiet(model, photos, out)
            assert counts(done) == (described, 0, 2 - described, 0, 3)
            assert [name for name, _ in done.failures] == sorted(["00000001", str(tmp_path / "none.jpg"), "00000003"])
        save(tmp_path / "none.jpg", draw(3))
        assert counts(quiet(model, photos, out)) == (1, 0, 2, 0, 2)


class TestProgress:
    def test_lines_where_there_is_no_terminal(self, model, folder, out, capsys, monkeypatch):
        monkeypatch.setattr(progress, "_LINE_SECONDS", 0)
        (folder / "bad.jpg").write_text("no photo")
        extract(model, folder, out, runtime="tensorflow")
        captured = capsys.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        assert len(lines) == 61
        assert "\r" not in captured.err
        for number, line in enumerate(lines, 1):
            assert re.fullmatch(rf"rw_keras: {number} of 61 photos, \d+\.\d a second, \d+ min left, [01] left out", line), line
        assert lines[-1].endswith("0 min left, 1 left out")

    def test_a_line_of_what_was_there_already(self, model, folder, out, capsys, monkeypatch):
        quiet(model, folder, out)
        monkeypatch.setattr(progress, "_LINE_SECONDS", 0)
        extract(model, folder, out, runtime="tensorflow")
        assert capsys.readouterr().err.splitlines()[-1] == "rw_keras: 60 of 60 photos, 0.0 a second, 0 left out"

    def test_of_a_dataset_whose_length_is_not_known(self, model, draw, out, capsys, monkeypatch):
        import tensorflow as tf

        monkeypatch.setattr(progress, "_LINE_SECONDS", 0)
        extract(model, tf.data.Dataset.from_tensor_slices(np.stack([draw(1), draw(2)])), out, runtime="tensorflow")
        assert re.fullmatch(r"(rw_keras: [12] photos, \d+\.\d a second, 0 left out\n){2}", capsys.readouterr().err)

    def test_few_lines(self, model, folder, out, capsys):
        extract(model, folder, out, runtime="tensorflow")
        assert capsys.readouterr().err == ""  # it took no thirty seconds

    def test_a_bar_on_a_terminal(self, model, folder, out, tmp_path, monkeypatch):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        (folder / "bad.jpg").write_text("no photo")
        quiet(model, folder, tmp_path / "other")
        assert terminal.getvalue() == ""
        extract(model, folder, out, runtime="tensorflow")
        assert "describing photos" in terminal.getvalue()
        assert "61/61" in terminal.getvalue()
        assert "1 left out" in terminal.getvalue()

    def test_quiet(self, model, folder, out, capfd, monkeypatch):
        monkeypatch.setattr(progress, "_LINE_SECONDS", 0)
        quiet(model, folder, out)
        assert capfd.readouterr() == ("", "")


# A run with its own constants, which logs the digests of the photos it describes, and of those whose window is on the disk. It
# kills itself in the n-th call of a function, or is killed from outside.
CHILD = """
import hashlib, os, signal, sys
from rw_keras.description import batcher, describe, update
from rw_keras.retrieval import Index, store
import rw_keras
batcher.WINDOW, store.SEGMENT_ROWS = 16, 64
model, photos, out, log, call, number = sys.argv[1:]
log = open(log, "a", buffering=1)
batch_function, commit, window = describe.batch_function, update.Update.commit, []

def logged(model):
    run = batch_function(model)
    def described(pixels):
        for one in pixels:
            window.append(hashlib.sha256(one.tobytes()).hexdigest())
            print("described", window[-1], file=log)
        return run(pixels)
    return described

def kept(self):
    commit(self)
    for digest in window:
        print("kept", digest, file=log)
    window.clear()

describe.batch_function, update.Update.commit = logged, kept
if call:
    function, count = getattr(os, call), 0
    def deadly(*arguments):
        global count
        count += 1
        if count == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    setattr(os, call, deadly)
rw_keras.extract(rw_keras.load_model(model), photos, out, batch_size=5, workers=2, runtime="tensorflow", progress=False)
"""


class TestKilled:
    @pytest.mark.slow
    def test_the_result_is_that_of_an_uninterrupted_run(self, tiny_model, tmp_path, draw):
        """From outside after some photos, and by itself in a shard and in a manifest; see test_collection.py for every step."""
        photos, out, log = tmp_path / "photos", tmp_path / "index", tmp_path / "log"
        digests = {}
        for number in range(600):
            pixels = draw(number, *SIZES[number * 7 // 3 % 4])
            save(photos / f"{number % 7}" / f"{number:04d}.png", pixels)
            digests[number] = pixels.tobytes()
        (photos / "3" / "0003.jpg").write_text("no photo")
        model = tiny_model()
        model.save(tmp_path / "model.keras")
        quiet(model, photos, tmp_path / "uninterrupted", batch_size=5, workers=2)
        log.touch()
        arguments = [sys.executable, "-c", CHILD, *map(str, (tmp_path / "model.keras", photos, out, log))]
        for call, number, lines in (("", 0, 90), ("fsync", 9, 0), ("fsync", 12, 0), ("", 0, 150)):
            before = log.read_text().count("\n")
            with subprocess.Popen([*arguments, call, str(number)], stderr=subprocess.PIPE, text=True) as child:
                while not call and child.poll() is None and log.read_text().count("\n") < before + lines:
                    time.sleep(0.001)
                if not call:
                    child.kill()
                assert child.wait() == -9, child.stderr.read()
            kept = log.read_text().count("kept")
            print(f"killed {f'in {call} {number}' if call else f'after {lines} lines of the log'}; {kept} of 600 photos are kept")
        done = subprocess.run([*arguments, "", "0"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert contents(out) == contents(tmp_path / "uninterrupted")
        assert len(held(out)) == 600
        words = [line.split() for line in log.read_text().splitlines()]
        assert {word for word, _ in words} == {"described", "kept"}
        kept = set()
        for word, digest in words:
            assert word == "kept" or digest not in kept
            kept |= {digest} if word == "kept" else set()
        # A kill between a window's way to the disk and its line in the log hides that line, and nothing more.
        assert 600 - 4 * 16 <= len(kept) <= 600
        assert 600 <= sum(word == "described" for word, _ in words) <= 600 + 4 * 16
        assert len({digest for word, digest in words if word == "described"}) == 600
