"""Photos that are put into an index that is served, and deleted from it."""

import io
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from description.small_indices import held, quiet, save
from PIL import Image
from retrieval.small_stores import as_format, visible
from service.made_up_describer import made_up, photo_bytes

from rw_keras.description.describe import describe
from rw_keras.photos.reading import ImageError
from rw_keras.retrieval import Index, exclusions, store, writer
from rw_keras.retrieval.columns import add_columns
from rw_keras.retrieval.writer import Writer
from rw_keras.service import changes


@pytest.fixture
def out(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def photos(tmp_path, draw):
    """A folder of six photos."""
    for number in range(6):
        save(tmp_path / "photos" / ("below" if number % 3 == 2 else "") / f"{number}.png", draw(number, 48, 40))
    return tmp_path / "photos"


@pytest.fixture
def made(out, photos):
    """An index of them, by a describer that is made up, with region vectors."""
    quiet(made_up(), photos, out, regions="int8", max_side=40)
    return out


def put(out, photos, name, data):
    return changes.put(out, photos, name, data, made_up())


def nothing_to_do(model, photos, out, **arguments):
    """Checks that an update describes nothing, and writes nothing at all."""
    before = store.about(out)["generation"], visible(out)
    done = quiet(model, photos, out, **arguments)
    assert (done.described, done.removed, done.failures, done.unread) == (0, 0, [], [])
    assert (store.about(out)["generation"], visible(out)) == before


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def writer_of(out):
    about = store.about(out)
    return Writer(out, about["recipe"], about["dimensions"])


class TestPut:
    @pytest.mark.parametrize("name", ["new.png", "below/new.jpg", "a/b/c.png", "ö ' \n.png", os.fsdecode(b"\xff.jpeg")])
    def test_a_new_one(self, made, photos, name):
        data = photo_bytes(7, "PNG" if name.endswith("png") else "JPEG")
        assert put(made, photos, name, data) is False
        assert (photos / name).read_bytes() == data
        index = Index.load(made)
        expected = describe(made_up(), photos / name, max_side=40, regions=True)
        assert index.search(expected, 1)[0] == (name, pytest.approx(1, abs=1e-5))
        assert index.search(expected, 1, rerank=3)[0][0] == name
        assert len(index) == 7 and store.check(made) == []
        nothing_to_do(made_up(), photos, made)

    @pytest.mark.parametrize("before", [False, True])
    @pytest.mark.parametrize("after", [False, True])
    def test_an_update_finds_nothing_to_do(self, model, photos, out, draw, before, after):
        """By TensorFlow, with checksums and without: the row and the stamp are those that the update would make."""
        quiet(model, photos, out, checksum=before)
        for name, seed in (("0.png", 71), ("new/a.png", 72)):
            save(photos / ".." / "other.png", draw(seed, 56, 40))
            changes.put(out, photos, name, (photos / ".." / "other.png").read_bytes(), model)
        if after > before:  # the others get their checksums now
            done = quiet(model, photos, out, checksum=after)
            assert (done.described, done.kept) == (0, 7)
        nothing_to_do(model, photos, out, checksum=after)
        found = held(out)
        for name in ("0.png", "new/a.png"):
            np.testing.assert_allclose(found[name], describe(model, photos / name), atol=1e-6)
        fresh = out.with_name("fresh")
        quiet(model, photos, fresh, checksum=True)
        with writer_of(out) as one, writer_of(fresh) as other:
            for name in ("0.png", "new/a.png"):
                assert one.find([name])[name].stamp == other.find([name])[name].stamp
                assert one.find([name])[name].listed is True

    def test_in_place_of_another(self, made, photos):
        add_columns(made, {"city": {"1.png": "Oxford"}})
        names, described = list(store.read(made).names), held(made)
        data = photo_bytes(8)
        assert put(made, photos, "1.png", data) is True
        assert (photos / "1.png").read_bytes() == data
        found = store.read(made)
        assert list(found.names) == names
        assert found.metadata["city"][names.index("1.png")] == "Oxford"
        changed = [name for name, vector in held(made).items() if not np.array_equal(vector, described[name])]
        assert changed == ["1.png"]
        nothing_to_do(made_up(), photos, made)

    def test_one_that_was_deleted(self, made, photos):
        changes.delete(made, "1.png")
        assert put(made, photos, "1.png", photo_bytes(8)) is False
        assert (store.excluded(made), "1.png" in store.read(made).names) == (set(), True)
        nothing_to_do(made_up(), photos, made)

    def test_one_that_could_not_be_read(self, made, photos):
        (photos / "1.png").write_bytes(b"no photo")
        (photos / "bad.png").write_bytes(b"no photo")
        assert [name for name, _ in quiet(made_up(), photos, made, prune=True).failures] == ["1.png", "bad.png"]
        assert put(made, photos, "bad.png", photo_bytes(9)) is False
        assert [name for name, _ in store.read(made).failures] == ["1.png"]

    def test_what_describes_it_is_noted(self, made, photos):
        with writer_of(made) as changed:
            changed.set("described_with", [{"runtime": "ncnn", "precision": "exact", "computes_in": "float32"}])
            changed.commit()
        put(made, photos, "new.png", photo_bytes(1))
        assert [one["runtime"] for one in store.about(made)["described_with"]] == ["ncnn", "tensorflow"]

    def test_an_index_of_an_earlier_format(self, made, photos):
        as_format(4, made)
        put(made, photos, "new.png", photo_bytes(1))
        assert store.about(made)["format"] == 5 and len(Index.load(made)) == 7
        nothing_to_do(made_up(), photos, made)

    @pytest.mark.skipif(sys.platform != "linux", reason="what a descriptor is of is asked of Linux")
    @pytest.mark.parametrize("name", ["a/b/c.png", "below/new.png", "0.png"])
    def test_its_file_and_new_folders_are_on_the_disk_before_its_row(self, made, photos, monkeypatch, name):
        steps, real = [], os.fsync

        def synced(file):
            steps.append(os.path.realpath(f"/proc/self/fd/{file}"))
            real(file)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(Writer, "commit", lambda self, own=Writer.commit: steps.append("commit") or own(self))
        put(made, photos, name, photo_bytes(1))
        above = {"a/b/c.png": ["a/b", "a", "."], "below/new.png": ["below"], "0.png": ["."]}[name]
        before = steps[: steps.index("commit")]
        assert before[0].startswith(str((photos / above[0]).resolve() / ".part-"))
        assert before[1:] == [str((photos / folder).resolve()) for folder in above]

    @pytest.mark.parametrize("searcher", ["faiss-flat", "faiss-hnsw"])
    def test_an_index_with_a_structure_of_faiss(self, made, photos, searcher):
        pytest.importorskip("faiss", reason='FAISS is not installed: pip install "rw_keras[faiss]"')
        index = Index.load(made, searcher)
        index.search(np.eye(4)[0], 1)
        index.save(made)
        put(made, photos, "new.png", photo_bytes(1))
        put(made, photos, "0.png", photo_bytes(2))
        changes.delete(made, "1.png")
        index = Index.load(made)
        assert index.searcher_config["name"] == searcher
        for name in index.names:
            assert index.search(describe(made_up(), photos / name, max_side=40), 1)[0][0] == name
        assert "1.png" not in dict(index.search(np.eye(4)[0], 9))
        nothing_to_do(made_up(), photos, made)

    def test_again_and_again_leaves_few_rows(self, made, photos, monkeypatch):
        monkeypatch.setattr(changes, "_COMPACTED", 8)
        for seed in range(30):
            put(made, photos, "new.png", photo_bytes(seed % 3))
        assert len(store.read(made).rows) < 20
        nothing_to_do(made_up(), photos, made)

    def test_damage_of_other_rows_is_not_its_own(self, made, photos, monkeypatch):
        monkeypatch.setattr(changes, "_COMPACTED", 1)
        for name in ("0.png", "1.png", "3.png"):
            changes.delete(made, name)
        (file,) = made.glob("rows-*")
        file.write_bytes(bytes(8) + file.read_bytes()[8:])
        for seed in range(9):
            put(made, photos, "new.png", photo_bytes(seed))
        assert "new.png" in store.read(made).names
        assert [damage.file for damage in store.check(made)] == [file.name]

    def test_a_link_within_the_folder_is_replaced_and_what_it_leads_to_stays(self, made, photos):
        content = (photos / "0.png").read_bytes()
        (photos / "link.png").symlink_to("0.png")
        put(made, photos, "link.png", photo_bytes(1))
        assert (photos / "0.png").read_bytes() == content
        assert not (photos / "link.png").is_symlink() and (photos / "link.png").read_bytes() == photo_bytes(1)
        nothing_to_do(made_up(), photos, made)


class TestRefused:
    @pytest.fixture
    def unchanged(self, made, photos):
        before = store.about(made)["generation"], visible(made), files(photos.parent)
        yield
        after = files(photos.parent)
        before[2].pop("index/.lock", None), after.pop("index/.lock", None)
        assert (store.about(made)["generation"], visible(made), after) == before

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "a.png is empty"),
            (b"no photo", "a.png is not an image"),
            (photo_bytes(1)[:-200], "a.png cannot be decoded"),
            (b"%PDF-1.7", "a.png holds PDF"),
        ],
    )
    def test_what_cannot_be_decoded(self, made, photos, unchanged, data, words):
        for name in ("a.png", "0.png"):
            with pytest.raises(ImageError, match=words.replace("a.png", name)):
                put(made, photos, name, data)

    def test_one_that_is_too_small(self, model, out, photos):
        quiet(model, photos, out)
        with pytest.raises(ImageError, match=r"small\.png is 7 x 9 pixels, too small"):
            changes.put(out, photos, "small.png", photo_bytes(1, size=(7, 9)), model)
        assert not (photos / "small.png").exists()

    @pytest.mark.parametrize(
        "name",
        [
            *("", ".", "..", "../a.png", "below/../a.png", "./a.png", "/a.png", "below//a.png", "below/", "a\0.png", "below/.png"),
            *(".a.png", ".part-0123456789abcdef", "below/.hidden/a.png", ".git/a.png"),
            *("a", "a.txt", "a.png.exe", "a.svg", "png", "a.sqlite", "a.png ", "a.png\n"),
            *("\ud800.png", f"{'a' * 300}.png", f"{'a' * 300}/a.png", "0.png/a.png", "folder.png", "loop/a.png"),
        ],
    )
    def test_a_name(self, made, photos, name, request):
        (photos / "folder.png").mkdir()
        (photos / "loop").symlink_to("loop")
        request.getfixturevalue("unchanged")
        with pytest.raises(ValueError, match="name") as caught:
            put(made, photos, name, photo_bytes(1))
        assert not isinstance(caught.value, ImageError)

    def test_a_link_that_leads_out(self, made, photos, tmp_path):
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "a.png").write_bytes(b"mine")
        (photos / "away").symlink_to(tmp_path / "outside")
        (photos / "away.png").symlink_to(tmp_path / "outside" / "a.png")
        (photos / "new.png").symlink_to("../outside/new.png")
        (tmp_path / "outside" / "back.png").symlink_to(photos / "0.png")
        for name in ("away/a.png", "away/b.png", "away/c/d.png", "away.png", "new.png", "away/back.png"):
            with pytest.raises(ValueError, match="leads out of the folder"):
                put(made, photos, name, photo_bytes(1))
        assert files(tmp_path / "outside") == {"a.png": b"mine", "back.png": (photos / "0.png").read_bytes()}
        assert (tmp_path / "outside" / "back.png").is_symlink()

    def test_an_index_that_lies_among_its_photos(self, photos):
        out = photos / "more" / "index"
        quiet(made_up(), photos, out, max_side=40)
        (photos / "link").symlink_to("more")
        for name in ("more/index/rows-1.png", "more/index/below/a.png", "link/index/a.png"):
            with pytest.raises(ValueError, match="among those of the index itself"):
                put(out, photos, name, photo_bytes(1))
        put(out, photos, "more/index-2/rows-1.png", photo_bytes(1))
        assert store.check(out) == []

    def test_no_folder_of_photos(self, made, photos, unchanged):
        for source, words in (
            (None, "did not come from a folder"),
            (photos / "0.png", "not a folder"),
            (photos / "no", "not a folder"),
        ):
            with pytest.raises(ValueError, match=f"No photo can be put into .*{words}"):
                put(made, source, "a.png", photo_bytes(1))

    def test_another_model(self, made, photos, unchanged):
        with pytest.raises(ValueError, match="backbone is 'none', the one asked for 'other'"):
            changes.put(made, photos, "a.png", photo_bytes(1), made_up("other"))

    def test_no_index(self, photos, tmp_path):
        with pytest.raises(FileNotFoundError, match="no index"):
            put(tmp_path / "none", photos, "a.png", photo_bytes(1))
        with pytest.raises(FileNotFoundError, match="no index"):
            changes.delete(tmp_path / "none", "a.png")
        assert not (tmp_path / "none").exists()

    def test_an_index_that_was_made_again_without_region_vectors(self, made, photos, monkeypatch):
        """Between the describing and the writing."""
        real = changes._described

        def described(*arguments):
            found = real(*arguments)
            quiet(made_up(), photos, made, resume=False, regions=None, max_side=40)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(changes, "_described", described)
            with pytest.raises(changes.Busy, match="put the photo once more"):
                put(made, photos, "a.png", photo_bytes(1))
        assert not (photos / "a.png").exists()
        put(made, photos, "a.png", photo_bytes(1))
        nothing_to_do(made_up(), photos, made)


class TestBusy:
    @pytest.fixture
    def patient(self, monkeypatch):
        """A loaded machine is slow, not wrong."""
        monkeypatch.setattr(writer, "PATIENCE", 300)

    @pytest.fixture
    def impatient(self, monkeypatch):
        monkeypatch.setattr(writer, "PATIENCE", 0.1)

    def test_another_thread(self, impatient, made, photos):
        before = visible(made)
        words = f"{re.escape(str(made))} is being written by another process .process {os.getpid()}"
        with writer_of(made), pytest.raises(changes.Busy, match=words):
            put(made, photos, "a.png", photo_bytes(1))
        assert issubclass(changes.Busy, OSError)
        assert (visible(made), (photos / "a.png").exists()) == (before, False)

    def test_another_process(self, impatient, made):
        words = f"""
import sys
from rw_keras.retrieval import store
from rw_keras.retrieval.writer import Writer
about = store.about({str(made)!r})
with Writer({str(made)!r}, about["recipe"], about["dimensions"]):
    print("held", flush=True)
    sys.stdin.read()
"""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(
            [sys.executable, "-c", words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(changes.Busy, match=f"process {process.pid}"):
                changes.delete(made, "0.png")
            process.stdin.close()
        changes.delete(made, "0.png")

    def test_a_moment_is_waited_for(self, patient, made, photos):
        held = threading.Event()

        def hold():
            with writer_of(made):
                held.set()
                time.sleep(0.3)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        put(made, photos, "a.png", photo_bytes(1))
        thread.join()
        assert "a.png" in store.read(made).names

    def test_an_update_waits_a_moment_too(self, patient, made, photos):
        ready, failed = threading.Event(), []

        def change():
            try:
                for seed in range(20):
                    put(made, photos, f"{seed % 3}/new.png", photo_bytes(seed))
                    ready.set()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=change)
        thread.start()
        ready.wait()
        for _ in range(3):
            quiet(made_up(), photos, made)
        thread.join()
        assert failed == []
        assert len(quiet(made_up(), photos, made).failures) == 0 and len(held(made)) == 9
        nothing_to_do(made_up(), photos, made)

    def test_several_threads(self, patient, made, photos):
        failed = []

        def change(number):
            try:
                for turn in range(3):
                    put(made, photos, f"{number}/{turn}.png", photo_bytes(10 * number + turn))
                changes.delete(made, f"{number}/0.png")
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=change, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert {*held(made)} >= {f"{number}/{turn}.png" for number in range(4) for turn in (1, 2)}
        assert store.excluded(made) == {f"{number}/0.png" for number in range(4)}
        nothing_to_do(made_up(), photos, made)


class TestBetweenFileAndRow:
    """The process ended when the file was there, and its row was not."""

    @pytest.fixture(params=["new.png", "1.png", "2.png"])
    def name(self, request, made, photos, monkeypatch):
        """A new one, one that takes the place of another, and one that was deleted."""
        if request.param == "2.png":
            save(photos / "2.png", np.zeros((9, 9, 3), "uint8"))
            quiet(made_up(), photos, made)
            changes.delete(made, "2.png")
        before = visible(made)
        with monkeypatch.context() as patch:
            patch.setattr(Writer, "put", lambda *arguments, **keywords: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                put(made, photos, request.param, photo_bytes(5))
        assert (photos / request.param).read_bytes() == photo_bytes(5)
        assert (visible(made), store.check(made)) == (before, [])
        return request.param

    def test_the_next_update_mends_it(self, made, photos, name):
        done = quiet(made_up(), photos, made)
        assert (done.described, done.changed, done.excluded) == {"new.png": (1, 0, 0), "1.png": (1, 1, 0), "2.png": (0, 0, 1)}[name]
        nothing_to_do(made_up(), photos, made)

    def test_the_same_once_more_mends_it(self, made, photos, name):
        assert put(made, photos, name, photo_bytes(5)) is (name == "1.png")
        np.testing.assert_allclose(held(made)[name], made_up()(np.asarray(Image.open(photos / name))[None])[0], atol=1e-6)
        nothing_to_do(made_up(), photos, made)


class TestDelete:
    def test_the_row_goes_and_the_file_stays(self, made, photos):
        content = (photos / "below/2.png").read_bytes()
        changes.delete(made, "below/2.png")
        assert (photos / "below/2.png").read_bytes() == content
        assert "below/2.png" not in store.read(made).names
        assert store.excluded(made) == {"below/2.png"}
        assert store.check(made) == []
        for resume in (True, False):
            assert quiet(made_up(), photos, made, resume=resume).excluded == 1
        assert "below/2.png" not in store.read(made).names
        exclusions.take_back(made)
        assert quiet(made_up(), photos, made).described == 1

    @pytest.mark.parametrize("name", ["none.png", "", "../0.png", "a\0b"])
    def test_no_such_photo(self, made, name):
        before = store.about(made)["generation"], visible(made)
        with pytest.raises(KeyError):
            changes.delete(made, name)
        assert (store.about(made)["generation"], visible(made)) == before

    def test_twice(self, made):
        changes.delete(made, "0.png")
        with pytest.raises(KeyError):
            changes.delete(made, "0.png")

    def test_one_that_cannot_be_read(self, made, photos):
        (photos / "bad.png").write_bytes(b"no photo")
        assert len(quiet(made_up(), photos, made).failures) == 1
        changes.delete(made, "bad.png")
        done = quiet(made_up(), photos, made)
        assert (done.failures, done.excluded) == ([], 1)

    def test_an_index_whose_photos_are_away(self, made, photos):
        shutil.rmtree(photos)
        changes.delete(made, "0.png")
        assert store.excluded(made) == {"0.png"}


# A process that changes an index until it is killed, and says what it begins and what it has done.
_LOOP = """
import itertools, os, random, sys
from service.made_up_describer import made_up, photo_bytes
from rw_keras.service import changes
out, photos, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
chance, describer = random.Random(seed), made_up()
def say(*words):
    os.write(1, f"{' '.join(map(str, words))}\\n".encode())  # a line is there whole, or not at all

say("ready")
for number in itertools.count(1000 * seed):
    name = f"{chance.choice('abc')}/{chance.randrange(12)}.png"
    if chance.random() < 0.25:
        say("begin", name, "gone")
        try:
            changes.delete(out, name)
        except KeyError:
            continue
        say("done", name, "gone")
    else:
        say("begin", name, number)
        changes.put(out, photos, name, photo_bytes(number), describer)
        say("done", name, number)
"""


@pytest.mark.slow
def test_killed_again_and_again(made, photos):
    """After each kill all that was acknowledged is there: the row, the file, and it is found; and a deleted one is not."""
    chance, environment = random.Random(0), {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    known, left, done, kills = {}, {}, 0, 0
    for seed in range(1, 41):
        command = [sys.executable, "-c", _LOOP, str(made), str(photos), str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout.readline() == "ready\n"
            lines = [process.stdout.readline() for _ in range(chance.randrange(2, 40))]
            time.sleep(chance.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        kills += process.returncode == -signal.SIGKILL
        begun = None
        for line in lines:
            word, name, state = line.split()
            begun = (name, state) if word == "begin" else None
            if word == "done":
                known[name], done = state, done + 1
                left.pop(name, None)
        check_known(made, photos, known, left, begun)
    assert kills == 40 and done > 200
    print(f"\n{kills} kills, {done} changes acknowledged, {len(known)} names, {len(left)} files without their rows")
    update = quiet(made_up(), photos, made)  # which mends those
    assert update.described <= len(left) and store.check(made) == []
    nothing_to_do(made_up(), photos, made)


def check_known(made, photos, known, left, begun):
    """Checks what was acknowledged, and notes what became of the change that was begun: of it either may be.

    Args:
        made, photos: the index, and the folder of its photos.
        known: name -> the number of the photo that was acknowledged, or "gone".
        left: name -> the number of a photo whose file was written, and whose row was not.
        begun: name and state of the last change, where it was not acknowledged.
    """
    assert store.check(made) == []
    index, excluded = Index.load(made), store.excluded(made)
    if begun is not None:
        name, state = begun
        if is_so(index, excluded, name, state):
            known[name] = state
            left.pop(name, None)
        elif state != "gone" and (photos / name).is_file() and (photos / name).read_bytes() == photo_bytes(int(state)):
            left[name] = state
    for name, state in known.items():
        assert is_so(index, excluded, name, state), f"{name} is not {state}"
        if state != "gone":
            assert (photos / name).read_bytes() == photo_bytes(int(left.get(name, state)))


def is_so(index, excluded, name, state):
    """Whether a photo is in an index, and found by itself; or is excluded from it."""
    if state == "gone" or name not in index.names:
        return state == "gone" and name not in index.names and name in excluded
    query = made_up()(np.asarray(Image.open(io.BytesIO(photo_bytes(int(state)))))[None])[0]
    (found, cosine), *_ = index.search(query, 1)
    return found == name and cosine > 0.9999 and name not in excluded


def test_it_loads_no_tensorflow():
    words = "import sys, rw_keras.service.changes, rw_keras.service.photo_files; print({'keras', 'tensorflow'} & {*sys.modules})"
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(changes.__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, env=environment).stdout == "set()\n"
