"""What an update keeps and what it takes away, and what one feature writes read, changed and written by every other one."""

import errno
import os
import re
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image
from small_indices import held, quiet, save

from rw_keras.description import batcher, reader, update
from rw_keras.description.describe import describe
from rw_keras.description.extract import extract
from rw_keras.photos.reading import ImageError, MissingReaderError
from rw_keras.retrieval import Index, augment, exclusions, store
from rw_keras.retrieval.columns import add_columns
from rw_keras.retrieval.writer import Writer

PHOTOS = 40


@pytest.fixture
def out(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def folder(tmp_path, draw):
    folder = tmp_path / "photos"
    for number in range(PHOTOS):
        save(folder / ("below" if number % 4 == 3 else "") / f"{number:02d}.png", draw(number, 48, 40))
    return folder


@pytest.fixture
def listed(folder, tmp_path):
    """A list file of the photos."""
    file = tmp_path / "list.txt"
    file.write_text("".join(f"photos/{path.relative_to(folder)}\n" for path in sorted(folder.rglob("*.png"))))
    return file


def same(one, other):
    assert one.keys() == other.keys()
    np.testing.assert_array_equal([one[name] for name in other], list(other.values()))


def counts(done):
    return done.described, done.changed, done.kept, done.removed, len(done.failures), len(done.unread), len(done.undecodable)


def unreadable(monkeypatch, names, error=None):
    """Lets reading fail for files of these names."""
    real = reader.read_image

    def failing(source, *arguments):
        if os.path.basename(str(source)) in names:
            raise error or OSError(errno.EIO, "Input/output error", str(source))
        return real(source, *arguments)

    monkeypatch.setattr(reader, "read_image", failing)


class TestPassingFaults:
    def test_a_list_whose_disk_is_away_leaves_all_rows(self, model, folder, listed, out):
        quiet(model, listed, out)
        before = held(out)
        folder.rename(folder.with_name("away"))
        for _ in range(2):
            done = quiet(model, listed, out)
            assert counts(done) == (0, 0, PHOTOS, 0, 0, PHOTOS, 0)
            assert f"{PHOTOS} could not be read now, what the index holds of them was kept" in str(done)
            same(held(out), before)
        folder.with_name("away").rename(folder)
        assert counts(quiet(model, listed, out)) == (0, 0, PHOTOS, 0, 0, 0, 0)
        same(held(out), before)

    @pytest.mark.parametrize(
        "error",
        [None, PermissionError(13, "Permission denied", "x"), MemoryError(), MissingReaderError("00.png holds HEIC; install it")],
        ids=lambda error: type(error).__name__,
    )
    def test_a_changed_photo_that_cannot_be_read_now_keeps_its_row(self, model, folder, out, draw, monkeypatch, error):
        quiet(model, folder, out)
        before = held(out)
        save(folder / "00.png", draw(99))
        with monkeypatch.context() as patch:
            unreadable(patch, ["00.png"], error)
            done = quiet(model, folder, out)
        assert counts(done) == (0, 0, PHOTOS, 0, 0, 1, 0)
        assert done.unread[0][0] == "00.png"
        same(held(out), before)
        assert counts(quiet(model, folder, out)) == (1, 1, PHOTOS - 1, 0, 0, 0, 0)
        np.testing.assert_allclose(held(out)["00.png"], describe(model, folder / "00.png"), atol=1e-6)

    def test_a_tar_whose_photo_cannot_be_read_now(self, model, folder, out, tmp_path, monkeypatch):
        with tarfile.open(tmp_path / "photos.tar", "w") as archive:
            for path in sorted(folder.rglob("*.png")):
                archive.add(path, path.name)
        quiet(model, tmp_path / "photos.tar", out)
        before = held(out)
        os.utime(folder / "00.png", ns=(1, 1))
        with tarfile.open(tmp_path / "photos.tar", "w") as archive:
            for path in sorted(folder.rglob("*.png")):
                archive.add(path, path.name)
        with monkeypatch.context() as patch:

            def failing(source, *arguments):
                raise OSError(errno.EIO, "Input/output error")

            patch.setattr(reader, "read_image", failing)
            assert counts(quiet(model, tmp_path / "photos.tar", out)) == (0, 0, PHOTOS, 0, 0, 1, 0)
        same(held(out), before)

    def test_many_changed_photos_that_cannot_be_read_now(self, model, folder, out, monkeypatch):
        quiet(model, folder, out)
        before = held(out)
        for path in folder.rglob("*.png"):
            os.utime(path, ns=(1, 1))
        with monkeypatch.context() as patch:
            unreadable(patch, [path.name for path in folder.rglob("*.png")])
            assert counts(quiet(model, folder, out)) == (0, 0, PHOTOS, 0, 0, PHOTOS, 0)
        same(held(out), before)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may list any folder")
    def test_a_folder_that_may_not_be_listed(self, model, folder, out):
        quiet(model, folder, out)
        before = held(out)
        (folder / "below").chmod(0)
        done = quiet(model, folder, out)
        (folder / "below").chmod(0o755)
        assert done.removed == 0
        same(held(out), before)

    def test_a_folder_that_cannot_be_listed_now(self, model, folder, out, monkeypatch):
        quiet(model, folder, out)
        before = held(out)
        real = os.scandir

        def failing(path):
            if str(path).endswith("below"):
                raise OSError(errno.EIO, "Input/output error", str(path))
            return real(path)

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", failing)
            done = quiet(model, folder, out)
        assert counts(done)[:4] == (0, 0, PHOTOS, 0)
        assert [name for name, _ in done.failures] == ["below/"]
        assert "Input/output error" in done.failures[0][1]
        same(held(out), before)
        assert counts(quiet(model, folder, out)) == (0, 0, PHOTOS, 0, 0, 0, 0)

    def test_an_album_behind_a_link_whose_disk_is_away(self, model, folder, out, tmp_path):
        (folder / "below").rename(tmp_path / "disk")
        (folder / "album").symlink_to(tmp_path / "disk")
        quiet(model, folder, out)
        before = held(out)
        assert any(name.startswith("album/") for name in before)
        (tmp_path / "disk").rename(tmp_path / "away")
        done = quiet(model, folder, out)
        assert counts(done)[:4] == (0, 0, PHOTOS, 0)
        assert [name for name, _ in done.failures] == ["album/"]
        assert "album is a link to" in done.failures[0][1]
        same(held(out), before)
        (tmp_path / "away").rename(tmp_path / "disk")
        assert counts(quiet(model, folder, out)) == (0, 0, PHOTOS, 0, 0, 0, 0)

    def test_what_stays_unreadable_is_noted_once(self, model, folder, out):
        """A run that finds all as it was writes nothing, so that an index that has been loaded can be saved."""
        (folder / "00.png").unlink()
        (folder / "00.png").symlink_to("none.png")
        quiet(model, folder, out)
        (folder / "01.png").unlink()
        (folder / "01.png").symlink_to("none.png")
        quiet(model, folder, out)
        generation = store.about(out)["generation"]
        assert counts(quiet(model, folder, out)) == (0, 0, PHOTOS - 1, 0, 1, 1, 0)
        assert store.about(out)["generation"] == generation

    def test_strict_ends_at_one(self, model, folder, out, monkeypatch):
        quiet(model, folder, out)
        os.utime(folder / "00.png", ns=(1, 1))
        unreadable(monkeypatch, ["00.png"])
        with pytest.raises(OSError, match="Input/output error"):
            quiet(model, folder, out, strict=True)
        assert len(held(out)) == PHOTOS


class TestWhatLeaves:
    def test_changed_bytes_that_do_not_decode(self, model, folder, out):
        quiet(model, folder, out)
        for name in ("00.png", "01.png", "02.png", "04.png"):
            (folder / name).write_bytes(b"no photo")
        done = quiet(model, folder, out)
        assert counts(done) == (0, 0, PHOTOS - 4, 0, 4, 0, 4)
        assert "4 have changed and cannot be decoded, they left the index" in str(done)
        assert [name for name, _ in done.undecodable] == ["00.png", "01.png", "02.png", "04.png"]
        assert "00.png" not in held(out)
        assert counts(quiet(model, folder, out)) == (0, 0, PHOTOS - 4, 0, 4, 0, 0)

    def test_more_than_a_tenth_of_them_stay(self, model, folder, out):
        quiet(model, folder, out)
        before = held(out)
        for name in ("00.png", "01.png", "02.png", "04.png", "05.png"):
            (folder / name).write_bytes(b"no photo")
        for _ in range(2):
            assert counts(quiet(model, folder, out)) == (0, 0, PHOTOS, 0, 0, 5, 0)
            same(held(out), before)
        assert counts(quiet(model, folder, out, prune=True)) == (0, 0, PHOTOS - 5, 0, 5, 0, 5)

    def test_half_of_an_index_may_leave_and_more_may_not(self, model, folder, out, monkeypatch):
        quiet(model, folder, out)
        before = held(out)
        paths = sorted(folder.rglob("*.png"))
        for path in paths[: PHOTOS // 2]:
            path.unlink()
        paths[-1].rename(folder / "renamed.png")
        monkeypatch.setattr(reader, "read_image", None)  # the refusal comes first
        with pytest.raises(ValueError, match=f"^21 of the {PHOTOS} photos in {re.escape(str(out))} are not among the 20 .*--prune"):
            quiet(model, folder, out)
        same(held(out), before)
        monkeypatch.undo()
        (folder / "renamed.png").rename(paths[-1])
        assert counts(quiet(model, folder, out)) == (0, 0, 20, 20, 0, 0, 0)

    def test_prune(self, model, folder, out):
        quiet(model, folder, out)
        for path in sorted(folder.rglob("*.png"))[1:]:
            path.unlink()
        assert counts(quiet(model, folder, out, prune=True)) == (0, 0, 1, PHOTOS - 1, 0, 0, 0)

    @pytest.mark.parametrize("kind", ["missing", "empty"])
    def test_a_source_without_photos(self, model, folder, out, kind):
        quiet(model, folder, out)
        before = held(out)
        shutil.rmtree(folder)
        if kind == "empty":
            folder.mkdir()
        with pytest.raises((FileNotFoundError, ImageError), match="There is no"):
            quiet(model, folder, out)
        same(held(out), before)
        assert counts(quiet(model, folder, out, prune=True)) == (0, 0, 0, PHOTOS, 0, 0, 0)
        assert len(Index.load(out)) == 0 and (out / store.DATABASE).exists()

    @pytest.mark.parametrize("kind", ["damaged", "compressed", "web page", "away", "missing in part", "one photo"])
    def test_a_source_that_cannot_be_listed_is_not_an_empty_one(self, model, folder, out, tmp_path, monkeypatch, kind):
        fsspec = pytest.importorskip("fsspec", reason='object storage: pip install "rw_keras[cloud]"')
        quiet(model, folder, out)
        before = held(out)
        source = tmp_path / {"damaged": "a.tar", "compressed": "a.tar.gz", "one photo": "a.jpg"}.get(kind, "a.txt")
        source.write_bytes(b"<html>Log in</html>" if kind == "web page" else b"\1" * 2048)
        source = f"file://{source}" if kind == "web page" else source
        if kind == "away":
            pytest.importorskip("aiohttp")
            monkeypatch.setattr("rw_keras.storage.FIRST_WAIT", 0.01)
            source = "http://127.0.0.1:9/photos.tar"  # where nothing listens
        if kind == "missing in part":
            source, files = f"memory://{tmp_path.name}", fsspec.filesystem("memory")
            for name in ("a/1.jpg", "b/2.jpg"):
                files.pipe_file(f"/{tmp_path.name}/{name}", b"x")
            listed = type(files).ls

            def ls(self, path, **options):
                return listed(self, f"{path}/none" if path.endswith("/a") else path, **options)

            monkeypatch.setattr(type(files), "ls", ls)
        with pytest.raises((ImageError, OSError)) as raised:
            quiet(model, source, out, prune=True)
        assert not isinstance(raised.value, FileNotFoundError)
        same(held(out), before)

    def test_a_dataset_that_lost_most_of_its_photos(self, model, draw, out):
        import tensorflow as tf

        pixels = np.stack([draw(seed) for seed in range(10)])
        names = [f"photo {seed}" for seed in range(10)]
        quiet(model, tf.data.Dataset.from_tensor_slices((pixels, names)), out)
        few = tf.data.Dataset.from_tensor_slices((pixels[:3], [*names[:2], "new"]))
        with pytest.raises(ValueError, match="8 of the 11 photos"):
            quiet(model, few, out)
        assert len(held(out)) == 11  # what was described stays
        assert quiet(model, few, out, prune=True).removed == 8

    def test_no_update_empties_an_index_of_unreadable_photos(self, model, folder, out):
        """Each photo is replaced by what is none: more than a tenth, so all rows stay."""
        quiet(model, folder, out)
        before = held(out)
        for path in folder.rglob("*.png"):
            path.write_bytes(b"")
        assert counts(quiet(model, folder, out)) == (0, 0, PHOTOS, 0, 0, PHOTOS, 0)
        same(held(out), before)


class TestForce:
    def test_takes_the_place_at_the_end(self, model, folder, out, monkeypatch):
        quiet(model, folder, out)
        before, seen = held(out), []
        real = update.Update.commit

        def looking(self):
            real(self)
            seen.append(len(Index.load(out)))
            same(held(out), before)

        monkeypatch.setattr(update.Update, "commit", looking)
        (folder / "00.png").unlink()
        done = quiet(model, folder, out, resume=False, max_side=30)
        assert counts(done) == (PHOTOS - 1, 0, 0, 0, 0, 0, 0)
        assert set(seen) == {PHOTOS}
        assert Index.load(out).recipe["max_side"] == 30

    def test_a_killed_one_leaves_the_index_and_goes_on(self, model, folder, out, monkeypatch):
        monkeypatch.setattr(batcher, "WINDOW", 16)
        quiet(model, folder, out)
        before = held(out)
        with monkeypatch.context() as patch:
            commits = []

            def stopped(self, real=update.Update.commit):
                real(self)
                commits.append(1)
                if len(commits) == 2:
                    raise KeyboardInterrupt

            patch.setattr(update.Update, "commit", stopped)
            with pytest.raises(KeyboardInterrupt):
                quiet(model, folder, out, resume=False)
        same(held(out), before)
        done = quiet(model, folder, out, resume=False)
        assert (done.described, done.kept) == (PHOTOS - 32, 32)
        np.testing.assert_allclose(list(held(out).values()), list(before.values()), atol=1e-6)

    def test_with_a_photo_that_cannot_be_read_now_nothing_is_replaced(self, model, folder, out, monkeypatch):
        quiet(model, folder, out)
        before = held(out)
        with monkeypatch.context() as patch:
            unreadable(patch, ["00.png"])
            with pytest.raises(ValueError, match=r"left as it is: .*1 photos that cannot be read now, such as '00\.png'"):
                quiet(model, folder, out, resume=False)
            same(held(out), before)
            assert counts(quiet(model, folder, out, resume=False, prune=True))[4] == 1
        assert len(held(out)) == PHOTOS - 1

    def test_keeps_what_was_added_by_hand_and_the_metadata(self, model, folder, out):
        quiet(model, folder, out)
        index = Index.load(out)
        index.metadata = {"city": [f"city {number}" for number in range(PHOTOS)]}
        index.add(["mine"], np.ones((1, 12)), {"city": ["home"]})
        index.save(out)
        quiet(model, folder, out, resume=False)
        loaded = Index.load(out)
        assert loaded.names[0] == "mine" and loaded.metadata["city"][0] == "home"
        assert sorted(loaded.metadata["city"][1:]) == sorted(f"city {number}" for number in range(PHOTOS))
        np.testing.assert_allclose(loaded.descriptors[0], np.ones(12) / 12**0.5, atol=1e-6)
        with pytest.raises(ValueError, match=r"1 descriptors that were added by hand, .*max_side"):
            quiet(model, folder, out, resume=False, max_side=20)
        assert len(held(out)) == PHOTOS + 1

    @pytest.mark.parametrize("damage", ["rows", "database"])
    def test_makes_a_damaged_index_again(self, model, folder, out, damage):
        quiet(model, folder, out)
        before = held(out)
        file = next(out.glob("rows-*")) if damage == "rows" else out / store.DATABASE
        content = bytearray(file.read_bytes())
        content[:200] = bytes(200)
        file.write_bytes(content)
        assert store.check(out) != []
        if damage == "database":
            with pytest.raises(ValueError, match=r"cannot be taken over.*--prune"):
                quiet(model, folder, out, resume=False)
        quiet(model, folder, out, resume=False, prune=damage == "database")
        same(held(out), before)


class TestExclusions:
    def delete(self, out, names):
        about = store.about(out)
        with Writer(out, about["recipe"], about["dimensions"]) as writer:
            writer.exclude(names)
            writer.commit()

    @pytest.mark.parametrize("arguments", [{}, {"resume": False}, {"checksum": True}, {"prune": True}], ids=str)
    def test_are_left_out_and_counted(self, model, folder, out, computed, arguments):
        quiet(model, folder, out)
        before = held(out)
        gone = sorted(before)[: PHOTOS * 3 // 4]  # which is no reason to stop
        self.delete(out, gone)
        save(folder / "00.png", np.zeros((40, 48, 3), "uint8"))
        computed.clear()
        done = quiet(model, folder, out, **arguments)
        rest = PHOTOS - len(gone)
        assert counts(done) == (0, 0, rest, 0, 0, 0, 0) if "resume" not in arguments else (rest, 0, 0, 0, 0, 0, 0)
        assert (done.excluded, sum(shape[0] for shape in computed)) == (len(gone), done.described)
        assert f"{len(gone)} excluded, 0 left out; {rest} photos in the index" in str(done)
        left = held(out)
        assert left.keys() == before.keys() - {*gone}
        np.testing.assert_allclose([left[name] for name in left], [before[name] for name in left], atol=1e-6)
        assert store.excluded(out) == {*gone}

    def test_all_of_them(self, model, folder, out):
        quiet(model, folder, out)
        self.delete(out, sorted(held(out)))
        for resume in (True, False):
            done = quiet(model, folder, out, resume=resume)
            assert (counts(done), done.excluded) == ((0, 0, 0, 0, 0, 0, 0), PHOTOS)
        assert store.excluded(out) != set()

    def test_one_that_the_source_lost_and_has_again(self, model, folder, out):
        quiet(model, folder, out)
        self.delete(out, ["00.png"])
        (folder / "00.png").rename(folder / "00.away")
        assert quiet(model, folder, out).excluded == 0
        (folder / "00.away").rename(folder / "00.png")
        assert quiet(model, folder, out).excluded == 1
        exclusions.take_back(out, ["00.png"])
        done = quiet(model, folder, out)
        assert (done.described, done.excluded) == (1, 0)

    def test_a_damaged_index_whose_exclusions_cannot_be_read(self, model, folder, out):
        quiet(model, folder, out)
        self.delete(out, ["00.png"])
        (out / "index.sqlite").write_bytes(bytes(9999))
        with pytest.raises(ValueError, match=r"added by hand to .*, or excluded, cannot be taken over.*--prune"):
            quiet(model, folder, out, resume=False)
        assert quiet(model, folder, out, resume=False, prune=True).described == PHOTOS


class TestChecksums:
    def test_the_first_run_with_them_after_an_ordinary_one(self, model, folder, out, monkeypatch):
        quiet(model, folder, out)
        with monkeypatch.context() as patch:
            patch.setattr(reader, "read_image", None)
            for _ in range(2):
                assert counts(quiet(model, folder, out, checksum=True)) == (0, 0, PHOTOS, 0, 0, 0, 0)
        about = (folder / "00.png").stat()
        content = bytearray((folder / "00.png").read_bytes())
        Image.new("RGB", (48, 40), "red").save(folder / "00.png")
        size = (folder / "00.png").stat().st_size
        (folder / "00.png").write_bytes((folder / "00.png").read_bytes() + bytes(len(content) - size))
        os.utime(folder / "00.png", ns=(about.st_atime_ns, about.st_mtime_ns))
        assert counts(quiet(model, folder, out)) == (0, 0, PHOTOS, 0, 0, 0, 0)
        assert counts(quiet(model, folder, out, checksum=True)) == (1, 1, PHOTOS - 1, 0, 0, 0, 0)

    def test_are_made_on_the_reading_threads(self, model, folder, out, monkeypatch):
        import threading

        threads, real = set(), reader._content_digest
        monkeypatch.setattr(reader, "_content_digest", lambda item: (threads.add(threading.current_thread()), real(item))[1])
        for _ in range(2):
            quiet(model, folder, out, checksum=True, workers=2)
        assert threads and threading.main_thread() not in threads


class TestSettings:
    def test_an_update_takes_the_indexs_own(self, model, folder, out, draw):
        quiet(model, folder, out, max_side=30, dtype="float16")
        save(folder / "new.png", draw(77))
        assert counts(quiet(model, folder, out))[:3] == (1, 0, PHOTOS)
        np.testing.assert_allclose(held(out)["new.png"], describe(model, folder / "new.png", max_side=30), atol=1e-3)
        for arguments, words in (
            ({"max_side": 40}, "its max_side is 30, the one asked for 40"),
            ({"dtype": "int8"}, "its dtype is 'float16', the one asked for 'int8'"),
        ):
            with pytest.raises(ValueError, match=words):
                quiet(model, folder, out, **arguments)

    @pytest.mark.parametrize("key", ["runtime", "engine"])  # the earlier one, which indices on disk have
    def test_the_runtime_that_it_began_with(self, model, folder, out, draw, monkeypatch, key):
        from rw_keras.description import extract as extraction

        quiet(model, folder, out)
        with Writer(out, Index.load(out).recipe, 12) as writer:
            writer.set("described_with", [{key: "ncnn", "precision": "fast", "computes_in": "bfloat16"}])
            writer.commit()
        asked = []
        monkeypatch.setattr(extraction, "on_runtime", lambda model, *arguments: asked.append(arguments[:2]) or model)
        extract(model, folder, out, progress=False)
        quiet(model, folder, out, runtime="openvino")
        with pytest.warns(FutureWarning, match="engine= is called runtime= now"):
            extract(model, folder, out, progress=False, engine="openvino")
        assert asked == [("ncnn", "fast"), ("openvino", "fast"), ("openvino", "fast")]
        assert [own["runtime"] for own in Index.load(out).described_with] == ["ncnn"]

    def test_an_index_without_a_recipe_is_refused(self, model, folder, out):
        Index(["a"], np.ones((1, 12))).save(out)
        with pytest.raises(ValueError, match="does not say how its descriptors were made"):
            quiet(model, folder, out)


def with_searcher(index, name):
    if name != "numpy":
        pytest.importorskip("faiss", reason='FAISS is not installed: pip install "rw_keras[faiss]"')
    index.use_searcher(name)


class TestComposition:
    """extract, load, change, save and extract again: nothing is lost, and nothing is described twice."""

    def check(self, model, folder, out, monkeypatch, kept=PHOTOS):
        with monkeypatch.context() as patch:
            patch.setattr(reader, "read_image", None)
            done = quiet(model, folder, out)
        assert (done.described, done.kept, done.removed) == (0, kept, 0)

    @pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
    @pytest.mark.parametrize("searcher", ["numpy", "faiss-flat", "faiss-hnsw"])
    def test_a_searcher(self, model, folder, out, draw, monkeypatch, searcher, dtype):
        (folder / "bad.jpg").write_text("no photo")
        quiet(model, folder, out, dtype=dtype)
        index = Index.load(out)
        with_searcher(index, searcher)
        index.save(out)
        assert store.about(out)["source"] == str(folder)
        self.check(model, folder, out, monkeypatch)
        loaded = Index.load(out)
        assert loaded.searcher_config == index.searcher_config
        assert loaded.searcher.built == (searcher != "numpy")
        assert [name for name, _ in loaded.failures] == ["bad.jpg"]
        save(folder / "new.png", draw(70))
        (folder / "00.png").unlink()
        assert counts(quiet(model, folder, out)) == (1, 0, PHOTOS - 1, 1, 1, 0, 0)
        again = Index.load(out)
        assert again.searcher.built == (searcher != "numpy")
        query = describe(model, folder / "new.png")
        assert again.search(query, 5) == Index.load(out, searcher="numpy").search(query, 5)
        assert again.search(query, 1)[0][0] == "new.png"

    @pytest.mark.parametrize("searcher", ["faiss-flat", "faiss-hnsw", "faiss-ivfpq"])
    def test_removals_again_and_again(self, tmp_path, searcher):
        rows = np.random.default_rng(0).standard_normal((600, 16)).astype("float32")
        index = Index([str(number) for number in range(600)], rows)
        with_searcher(index, searcher)
        index.save(tmp_path / "index")
        for round_ in range(4):
            index = Index.load(tmp_path / "index")
            assert index.searcher.built
            index.remove(index.names[round_ : 40 + round_])
            index.save(tmp_path / "index")
            loaded = Index.load(tmp_path / "index")
            assert loaded.names == index.names
            assert loaded.search_batch(rows[300:305], 5) == index.search_batch(rows[300:305], 5)
            assert {name for hits in loaded.search_batch(rows[:60], 3) for name, _ in hits} <= set(index.names)

    def test_metadata(self, model, folder, out, draw, monkeypatch):
        quiet(model, folder, out)
        add_columns(out, {"year": {name: 1900 + number for number, name in enumerate(Index.load(out).names)}})
        self.check(model, folder, out, monkeypatch)
        save(folder / "new.png", draw(70))
        (folder / "00.png").unlink()
        quiet(model, folder, out)
        index = Index.load(out)
        assert dict(zip(index.names, index.metadata["year"]))["new.png"] is None
        assert dict(zip(index.names, index.metadata["year"]))["02.png"] == 1902
        index.metadata["year"][index.position("new.png")] = 2026
        index.save(out)
        assert Index.load(out).metadata == index.metadata
        self.check(model, folder, out, monkeypatch)

    @pytest.mark.parametrize("change", ["add", "update", "remove", "int8", "nothing"])
    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_changes_by_hand(self, model, folder, out, tmp_path, monkeypatch, change, elsewhere):
        (folder / "bad.jpg").write_text("no photo")
        quiet(model, folder, out)
        index, place, kept = Index.load(out), tmp_path / "other" if elsewhere else out, PHOTOS
        by_hand = np.ones((1, 12), "float32") / np.float32(12**0.5)
        if change == "add":
            index.add(["mine"], by_hand)
            kept += 1
        elif change == "update":
            index.update(["05.png"], by_hand)
        elif change == "remove":
            index.remove(["05.png"])
        index.save(place, dtype="int8" if change == "int8" else None)
        for _ in range(2):
            if change == "remove":
                done = quiet(model, folder, place)
                assert done.described + done.kept == PHOTOS and done.described < 2
            else:
                self.check(model, folder, place, monkeypatch, kept)
            loaded = Index.load(place)
            assert [name for name, _ in loaded.failures] == ["bad.jpg"]
            if change in ("add", "update"):
                np.testing.assert_array_equal(
                    loaded.descriptors[loaded.position("mine" if change == "add" else "05.png")], by_hand[0]
                )
            loaded.save(place)
        assert loaded.described_with == index.described_with != []
        assert store.about(place)["source"] == str(folder) and store.about(place)["versions"]["numpy"] == np.__version__

    def test_augmented(self, model, folder, out, tmp_path, monkeypatch):
        quiet(model, folder, out)
        augmented = augment(Index.load(out), 3)
        with pytest.raises(ValueError, match=f"holds an index of {PHOTOS} described photos.*overwrite=True"):
            augmented.save(out)
        augmented.save(tmp_path / "augmented")
        loaded = Index.load(tmp_path / "augmented")
        np.testing.assert_array_equal(loaded.descriptors, augmented.descriptors)
        assert loaded.described_with == Index.load(out).described_with != []
        self.check(model, folder, tmp_path / "augmented", monkeypatch)
        augmented.save(out, overwrite=True)
        np.testing.assert_array_equal(Index.load(out).descriptors, augmented.descriptors)

    def test_from_folder(self, model, folder, out, monkeypatch):
        index = Index.from_folder(model, folder, runtime="tensorflow", progress=False)
        index.save(out)
        self.check(model, folder, out, monkeypatch)
        (folder / "00.png").unlink()
        assert counts(quiet(model, folder, out)) == (0, 0, PHOTOS - 1, 1, 0, 0, 0)

    def test_rows_added_by_hand_stay_when_the_source_names_them(self, model, folder, out):
        made = {**Index.from_folder(model, folder, runtime="tensorflow", progress=False).recipe}
        Index(["00.png", "mine"], np.eye(2, 12), recipe=made).save(out)
        assert counts(quiet(model, folder, out))[:4] == (PHOTOS - 1, 0, 2, 0)
        np.testing.assert_array_equal(held(out)["00.png"], np.eye(2, 12)[0])

    def test_saving_over_an_index_that_has_changed_is_refused(self, model, folder, out, draw):
        quiet(model, folder, out)
        first, second = Index.load(out), Index.load(out)
        save(folder / "new.png", draw(70))
        quiet(model, folder, out)
        first.remove(["00.png"])
        with pytest.raises(ValueError, match=f"{re.escape(str(out))} has changed since this index was loaded"):
            first.save(out)
        assert len(held(out)) == PHOTOS + 1
        quiet(model, folder, out, resume=False)
        with pytest.raises(ValueError, match="has changed"):
            second.save(out)
