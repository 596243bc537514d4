"""What an index is on disk: what was written is read, and what was damaged is found."""

import contextlib
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import sqlite3
import tempfile
import zlib

import numpy as np
import pytest
from broken_runs import DIMENSIONS, RECIPE, bring_up_to_date, check_whole, some_changes, some_photos, visible, write_old
from hypothesis import given, settings
from hypothesis import strategies as st

from rw_keras.retrieval import Index, store
from rw_keras.retrieval.int8 import encoded
from rw_keras.retrieval.names import Names
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.segments import BLOCK_ROWS, DamageError, Segment
from rw_keras.retrieval.writer import Writer

DTYPES = ("float32", "float16", "int8")


def some_rows(count, dimensions=5, dtype="float32", seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dimensions)).astype("float32")
    return encoded(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), dtype)


def write(folder, count, dtype="float32", dimensions=5):
    """Writes an index; its rows and names."""
    rows, names = some_rows(count, dimensions, dtype), [f"{number}.jpg" for number in range(count)]
    with Writer(folder, RECIPE, dimensions, dtype) as writer:
        writer.put(names, rows, [[number, 2] for number in range(count)])
        writer.fail("bad.jpg", "is no photo", None)
        writer.finish()
    return rows, names


def rows_of(found):
    return np.asarray(found.rows if found.places is None else found.rows[found.places])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "index"


# Parts, empty ones among them, and something that picks rows of them.
PARTS = st.lists(st.integers(0, 7), max_size=6)
BOUND = st.none() | st.integers(-45, 45)


class TestRows:
    def both(self, counts, dtype="float32", block=3):
        parts = [some_rows(count, 3, dtype, seed) for seed, count in enumerate(counts)]
        segments, first = [], 5
        for number, part in enumerate(parts):
            checksums = [zlib.crc32(part[start : start + block].tobytes()) for start in range(0, len(part), block)]
            segments.append(Segment(pathlib.Path(f"rows-{number}"), part, first, block, checksums))
            first += len(part) + 2
        return Rows(segments, 3, dtype), np.concatenate([np.empty((0, 3), dtype), *parts])

    @given(counts=PARTS)
    def test_looks_like_the_whole(self, counts):
        rows, whole = self.both(counts)
        assert (rows.shape, rows.dtype, rows.ndim, len(rows)) == (whole.shape, whole.dtype, whole.ndim, len(whole))
        np.testing.assert_array_equal(np.asarray(rows), whole)
        np.testing.assert_array_equal(list(rows), list(whole))

    @given(counts=PARTS, start=BOUND, stop=BOUND, step=BOUND.filter(lambda step: step != 0))
    def test_slices(self, counts, start, stop, step):
        rows, whole = self.both(counts)
        np.testing.assert_array_equal(rows[start:stop:step], whole[start:stop:step], strict=True)
        np.testing.assert_array_equal(rows[start:stop, 1:], whole[start:stop, 1:], strict=True)

    @given(counts=PARTS, row=st.integers(-46, 46), kind=st.sampled_from([int, np.int64, np.int32]))
    def test_one_row(self, counts, row, kind):
        rows, whole = self.both(counts)
        if -len(whole) <= row < len(whole):
            np.testing.assert_array_equal(rows[kind(row)], whole[row], strict=True)
            assert rows[kind(row), 2] == whole[row, 2]
        else:
            with pytest.raises(IndexError):
                rows[kind(row)]

    @given(data=st.data(), counts=PARTS.filter(any), as_list=st.booleans())
    def test_rows_by_their_numbers(self, data, counts, as_list):
        rows, whole = self.both(counts)
        chosen = data.draw(st.lists(st.integers(-len(whole), len(whole) - 1), max_size=12))
        chosen = chosen if as_list else np.array(chosen, "int64")
        np.testing.assert_array_equal(rows[chosen], whole[np.asarray(chosen, "int64")], strict=True)

    @given(data=st.data(), counts=PARTS)
    def test_rows_by_a_mask(self, data, counts):
        rows, whole = self.both(counts)
        mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(whole), max_size=len(whole))), bool)
        np.testing.assert_array_equal(rows[mask], whole[mask], strict=True)

    @pytest.mark.parametrize("chosen", [[0, 9], [9], [-10], [-11, 0], [-14]], ids=str)
    def test_numbers_that_are_none(self, chosen):
        rows, _ = self.both([4, 0, 5])
        with pytest.raises(IndexError):
            rows[chosen]

    @pytest.mark.parametrize("count", [0, 8, 10])
    def test_masks_of_another_length(self, count):
        rows, _ = self.both([4, 0, 5])
        with pytest.raises(IndexError):
            rows[np.ones(count, bool)]

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_dtypes(self, dtype):
        rows, whole = self.both([2, 3], dtype)
        np.testing.assert_array_equal(rows[1:4], whole[1:4], strict=True)
        np.testing.assert_array_equal(rows[[4, 0]], whole[[4, 0]], strict=True)
        np.testing.assert_array_equal(rows.astype("float32"), whole.astype("float32"), strict=True)
        np.testing.assert_array_equal(np.asarray(rows, "float64"), whole.astype("float64"), strict=True)

    @pytest.mark.parametrize("counts", [[5], [0, 5, 0], [3, 2]], ids=str)
    def test_a_copy_is_a_copy(self, counts):
        rows, before = self.both(counts)
        for copy in (np.array(rows), rows.astype("float32")):
            copy[:] = 0
            np.testing.assert_array_equal(np.asarray(rows), before)

    def test_a_slice_of_one_segment_is_a_view(self):
        rows, _ = self.both([4, 6])
        one, two = (segment.array for segment in rows.segments)
        assert np.shares_memory(rows[5:9], two)
        assert np.shares_memory(rows[1:4], one)
        assert not any(np.shares_memory(rows[3:5], part) for part in (one, two))

    def test_numbers(self):
        rows, _ = self.both([2, 0, 3])
        assert rows.numbers().tolist() == [5, 6, 11, 12, 13]

    @given(data=st.data(), counts=PARTS.filter(any))
    def test_a_block_is_checked_before_a_row_of_it_is_used(self, data, counts):
        rows, whole = self.both(counts)
        bad = data.draw(st.integers(0, len(whole) - 1))
        place = int(np.searchsorted(np.cumsum([len(segment.array) for segment in rows.segments]), bad, side="right"))
        segment = rows.segments[place]
        inside = bad - sum(len(earlier.array) for earlier in rows.segments[:place])
        segment.array.view("uint8")[inside, data.draw(st.integers(0, 11))] ^= 1 << data.draw(st.integers(0, 7))
        block = range(bad - inside % 3, bad - inside % 3 + min(3, len(segment.array) - inside // 3 * 3))
        assert segment.damaged() == [(inside // 3 * 3, inside // 3 * 3 + len(block))]
        for row in range(len(whole)):
            for key in (row, slice(row, row + 1), [row], np.arange(len(whole)) == row):
                if row in block:
                    with pytest.raises(DamageError, match=re.escape(segment.path.name)):
                        rows[key]
                else:
                    np.testing.assert_array_equal(np.ravel(rows[key]), whole[row])
        with pytest.raises(DamageError):
            np.asarray(rows)

    def test_what_has_no_checksums_is_read(self):
        part = some_rows(7)
        rows = Rows([Segment(pathlib.Path("old"), part, 0, 7, None)], 5, "float32")
        np.testing.assert_array_equal(rows[2:5], part[2:5])
        np.testing.assert_array_equal(rows[[6, 0]], part[[6, 0]])
        assert rows.segments[0].damaged() == []


class TestNames:
    BYTES = st.lists(st.binary(min_size=0, max_size=9), unique=True, max_size=12)

    @given(content=BYTES, start=BOUND, stop=BOUND, step=BOUND.filter(lambda step: step != 0))
    def test_a_sequence(self, content, start, stop, step):
        names, plain = Names.of(content), list(map(os.fsdecode, content))
        assert (len(names), list(names), list(reversed(names))) == (len(plain), plain, plain[::-1])
        assert names[start:stop:step] == plain[start:stop:step]
        assert [names[place] for place in range(-len(plain), len(plain))] == plain + plain
        for place in (len(plain), -len(plain) - 1):
            with pytest.raises(IndexError):
                names[place]

    @given(content=BYTES, other=st.binary(max_size=9))
    def test_equality_and_membership(self, content, other):
        names, plain = Names.of(content), list(map(os.fsdecode, content))
        other = os.fsdecode(other)
        assert names == plain and plain == names and names == Names.of(content)
        assert names != [*plain, "more"] and names != Names.of([*content, b"more than nine"]) and names != tuple(plain)
        assert (other in names) == (other in plain)
        assert [names.find(name) for name in plain] == list(range(len(plain)))
        assert [names.count(name) for name in plain] == [1] * len(plain)
        for odd in ("\ud800", "x\udfff", None, b"", 3):
            assert odd not in names

    @given(content=BYTES.filter(len), data=st.data())
    def test_index(self, content, data):
        names, plain = Names.of(content), list(map(os.fsdecode, content))
        name = data.draw(st.sampled_from(plain))
        bounds = data.draw(st.lists(st.integers(-14, 14), max_size=2))
        try:
            expected = plain.index(name, *bounds)
        except ValueError:
            with pytest.raises(ValueError, match="is not among the"):
                names.index(name, *bounds)
        else:
            assert names.index(name, *bounds) == expected
        with pytest.raises(ValueError, match="is not among the"):
            names.index("more than nine")

    def test_borders_between_names_count(self):
        assert Names.of([b"ab", b"c"]) != Names.of([b"a", b"bc"])

    def test_names_of_one_hash(self, monkeypatch):
        monkeypatch.setattr("rw_keras.retrieval.names.hash", lambda name: 7, raising=False)
        names = Names.of([b"a", b"b", b"c"])
        assert [names.find(name) for name in "abcd"] == [0, 1, 2, None]


class TestReading:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("dimensions", [1, 5, 512])
    @pytest.mark.parametrize("count", [0, 1, 6, 20])
    def test_what_was_written(self, folder, monkeypatch, count, dimensions, dtype):
        monkeypatch.setattr(store, "SEGMENT_ROWS", 8)
        expected, names = write(folder, count, dtype, dimensions)
        found = store.read(folder)
        assert list(found.names) == names and found.failures == [("bad.jpg", "is no photo")]
        np.testing.assert_array_equal(rows_of(found), expected, strict=True)
        fields = (found.about["format"], found.about["recipe"], found.about["dimensions"], found.about["dtype"])
        assert fields == (3, RECIPE, dimensions, dtype)
        check_whole(folder)

    def test_more_rows_than_a_block(self, folder):
        expected, _ = write(folder, 2 * BLOCK_ROWS + 5, dimensions=2)
        found = store.read(folder)
        np.testing.assert_array_equal(rows_of(found), expected, strict=True)
        with sqlite3.connect(folder / "index.sqlite") as database:
            kept = [crc for (crc,) in database.execute("SELECT crc32 FROM blocks ORDER BY block")]
        assert kept == [zlib.crc32(expected[start : start + BLOCK_ROWS].tobytes()) for start in range(0, len(expected), BLOCK_ROWS)]

    def test_rows_stay_on_the_disk(self, folder):
        write(folder, 6)
        descriptors = store.read(folder).rows
        assert isinstance(descriptors[4:6], np.memmap) and not descriptors[4:6].flags.writeable

    def test_files(self, folder):
        expected, _ = write(folder, 6)
        identity = store.about(folder)["identity"]
        assert {path.name for path in folder.iterdir()} == {"index.sqlite", ".lock", f"rows-{identity[:8]}-00001.bin"}
        assert (folder / f"rows-{identity[:8]}-00001.bin").read_bytes() == expected.tobytes()

    def test_no_index(self, tmp_path):
        for path in (tmp_path, tmp_path / "none"):
            for reader in (store.read, store.check, Index.load):
                with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
                    reader(path)
        assert list(tmp_path.iterdir()) == []

    def test_a_later_format_is_refused(self, folder):
        rows, names = write(folder, 6)
        with sqlite3.connect(folder / "index.sqlite") as database:
            database.execute("UPDATE about SET value = '4' WHERE field = 'format'")
            database.execute("DROP TABLE photos")  # whatever it may be
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        for use in (
            store.read,
            store.check,
            store.about,
            Index.load,
            Index(names, rows).save,
            lambda path: bring_up_to_date(path, some_photos(9)),
            lambda path: bring_up_to_date(path, some_photos(9), beside=True),
        ):
            with pytest.raises(ValueError, match=f"{re.escape(str(folder))} has format 4.*up to 3; install a later version"):
                use(folder)
        after = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert before.pop(".lock") and after.pop(".lock") and before == after

    def test_a_reader_sees_nothing_of_what_is_not_committed(self, folder):
        rows, names = write(folder, 6)
        with Writer(folder, RECIPE, 5) as writer:
            writer.put(["new.jpg", names[0]], some_rows(2, seed=9), [None, None])
            writer.drop([known.id for known in writer.find(names[2:4]).values()])
            found = store.read(folder)
            assert list(found.names) == names
            np.testing.assert_array_equal(rows_of(found), rows)
            assert list(Index.load(folder).names) == names
        assert list(store.read(folder).names) == names  # the writer left without a commit


FOLDERS = [
    "a b",
    "what?",
    "a#b",
    "100%25",
    "a%20b",
    "new\nline",
    "ümlaut 東京",
    "not utf-8 \udcff",
    "a&b=c;mode=memory",
    "-o",
    "'\"",
]


class TestOddNames:
    @pytest.mark.parametrize("name", FOLDERS, ids=ascii)
    def test_folders(self, tmp_path, name, monkeypatch):
        folder = tmp_path / name / "in it"
        photos = some_photos(40)
        bring_up_to_date(folder, photos)
        bring_up_to_date(folder, some_changes(photos))
        bring_up_to_date(folder, some_changes(photos), beside=True)
        check_whole(folder)
        index = Index.load(folder)
        index.remove(index.names[:2])
        index.save(folder)
        monkeypatch.chdir(tmp_path)
        index.save(pathlib.Path(name) / "copy")
        assert list(Index.load(f"{name}/copy").names) == list(Index.load(folder).names)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    NAMES = (
        "a b.jpg", "new\nline.jpg", "\udcff.jpg", "Zürich/Ørsted 東京.jpg", '"quoted".jpg', "n" * 1000, "東" * 333,
        "'; DROP TABLE photos",
        "\U0001f3db.jpg", "a\0b", "", " ", "%", "?", "e\u0301", "\u00e9", "\ufeff", "\udce9\udc80", ",", "null", "0", "1e3",
    )  # fmt: skip

    def test_photos(self, folder):
        names = list(self.NAMES)
        rows = some_rows(len(names))
        with Writer(folder, RECIPE, 5) as writer:
            writer.put(names, rows, [None] * len(names))
            writer.set_metadata({"name": [*names[:-1], None], "odd \n'column": list(range(len(names)))})
            writer.mark(names[2], "a reason\nwith \udcff, and \ud800")
            writer.fail("bad \udc80\n.jpg", "why \udcff\0", [1, 2])
            writer.finish()
        for _ in range(2):
            index = Index.load(folder)
            assert list(index.names) == names and index.names == names
            assert [index.position(name) for name in names] == list(range(len(names)))
            assert index.failures == [("bad \udc80\n.jpg", "why \udcff\0")]
            assert index.metadata == {"name": [*names[:-1], None], "odd \n'column": list(range(len(names)))}
            assert [index.search(row, 1)[0][0] for row in rows] == names
            assert store.check(folder) == []
            index.save(folder.with_name("copy"))
            folder = folder.with_name("copy")
        with Writer(folder, RECIPE, 5) as writer:
            assert set(writer.find(names)) == set(names)
            writer.drop(known.id for known in writer.find(names[:3]).values())
            writer.finish()
        assert list(store.read(folder).names) == names[3:]

    @pytest.mark.parametrize("name", ["\ud800", "a\udfffb"], ids=ascii)
    def test_half_a_character_is_refused(self, folder, name):
        with pytest.raises(ValueError, match="lone surrogate"):
            Index([name], some_rows(1)).save(folder)
        assert not folder.exists()


# Against a plain dictionary.


LETTERS = st.sampled_from("abcdefgh")
SOME = st.lists(LETTERS, min_size=1, max_size=4, unique=True)
STAMPS = st.sampled_from([None, [1, 2], [3, 4, "ab"]])
VALUES = st.sampled_from([None, 0, 0.0, False, 1, 1.0, True, "x", "\n", [1], {"a": None}])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), SOME, STAMPS, st.sampled_from([True, False, None])),
        st.tuples(st.just("fail"), LETTERS, STAMPS),
        st.tuples(st.just("mark"), LETTERS),
        st.tuples(st.just("renew"), SOME, STAMPS),
        st.tuples(st.just("drop"), SOME),
        st.tuples(st.just("replace"), SOME),
        st.tuples(st.just("set_metadata"), st.sets(st.sampled_from("xyz")), VALUES),
        st.tuples(st.just("update_metadata"), st.sampled_from("xyz"), SOME, VALUES),
        st.tuples(st.sampled_from(["commit", "abort", "compact", "finish"])),
    ),
    max_size=25,
)


class Plain:
    """What an index should hold: name -> [vector or None, stamp, listed, fault], in order; and metadata."""

    def __init__(self):
        self.photos, self.columns = {}, {}

    def copy(self):
        other = Plain()
        other.photos = {name: list(photo) for name, photo in self.photos.items()}
        other.columns = {column: dict(values) for column, values in self.columns.items()}
        return other

    def described(self):
        return [name for name, photo in self.photos.items() if photo[0] is not None]


class TestChanges:
    @settings(max_examples=60)
    @given(changes=CHANGES, dtype=st.sampled_from(DTYPES))
    def test_any_row_of_changes(self, changes, dtype):
        self.check(changes, dtype)

    @pytest.mark.slow
    @settings(max_examples=2000)
    @given(changes=CHANGES, dtype=st.sampled_from(DTYPES))
    def test_many_rows_of_changes(self, changes, dtype):
        self.check(changes, dtype)

    def check(self, changes, dtype):
        """A reader sees what was committed last, whatever the writer holds; and so does the next writer."""
        with tempfile.TemporaryDirectory(dir=memory()) as scratch, pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "SEGMENT_ROWS", 5)
            folder = pathlib.Path(scratch, "index")
            self.numbers, self.dtype = itertools.count(), dtype
            held, committed = Plain(), Plain()
            writer = Writer(folder, RECIPE, 3, dtype).__enter__()
            try:
                for what, *arguments in changes:
                    if what == "abort":
                        writer.__exit__()
                        writer, held = Writer(folder, RECIPE, 3).__enter__(), committed.copy()
                    elif what in ("commit", "compact", "finish"):
                        getattr(writer, what)()
                        committed = held.copy()
                        self.compare(folder, committed)
                    else:
                        getattr(self, what)(writer, held, *arguments)
                        self.compare_writer(writer, held)
                self.compare(folder, committed)
            finally:
                writer.__exit__()
            if (folder / "index.sqlite").exists():
                self.compare(folder, committed)
                with Writer(folder, RECIPE, 3) as writer:
                    self.compare_writer(writer, committed)
                    writer.finish()
                self.compare(folder, committed)
                check_whole(folder)

    def vectors(self, count):
        return np.array([some_rows(1, 3, self.dtype, next(self.numbers))[0] for _ in range(count)], self.dtype)

    def put(self, writer, held, names, stamp, listed):
        vectors = self.vectors(len(names))
        writer.put(names, vectors, [stamp] * len(names), listed)
        for name, vector in zip(names, vectors):
            held.photos[name] = [vector, stamp, listed, None]

    def fail(self, writer, held, name, stamp):
        writer.fail(name, f"why {name}", stamp)
        held.photos[name] = [None, stamp, True, f"why {name}"]

    def mark(self, writer, held, name):
        writer.mark(name, "away")
        if name in held.photos:
            held.photos[name][3] = "away"

    def known(self, writer, held, names, described=False):
        names = [name for name in names if name in held.photos and (held.photos[name][0] is not None or not described)]
        found = writer.find(names)
        return names, [found[name].id for name in names]

    def renew(self, writer, held, names, stamp):
        names, ids = self.known(writer, held, names, described=True)
        writer.renew([(photo, stamp) for photo in ids])
        for name in names:
            held.photos[name][1:] = [stamp, True, None]

    def drop(self, writer, held, names):
        names, ids = self.known(writer, held, names)
        writer.drop(ids)
        for name in names:
            del held.photos[name]
            for values in held.columns.values():
                values.pop(name, None)

    def replace(self, writer, held, names):
        names, ids = self.known(writer, held, names, described=True)
        vectors = self.vectors(len(names)).reshape(-1, 3)
        writer.replace(ids, vectors)
        for name, vector in zip(names, vectors):
            held.photos[name][0], held.photos[name][3] = vector, None

    def set_metadata(self, writer, held, columns, value):
        described = held.described()
        metadata = {
            column: [value if number % 2 else f"{column}{number}" for number in range(len(described))] for column in columns
        }
        writer.set_metadata(metadata)
        held.columns = {column: {**held.columns.get(column, {}), **dict(zip(described, metadata[column]))} for column in metadata}

    def update_metadata(self, writer, held, column, names, value):
        writer.update_metadata({column: dict.fromkeys(names, value)})
        held.columns.setdefault(column, {}).update({name: value for name in names if name in held.photos})

    def compare(self, folder, plain):
        found = store.read(folder)
        described = plain.described()
        assert list(found.names) == described
        np.testing.assert_array_equal(
            rows_of(found), np.array([plain.photos[name][0] for name in described], self.dtype).reshape(-1, 3), strict=True
        )
        assert found.failures == sorted((name, photo[3]) for name, photo in plain.photos.items() if photo[0] is None)
        expected = {column: [values.get(name) for name in described] for column, values in plain.columns.items()}
        assert json.dumps(found.metadata, sort_keys=True) == json.dumps(expected, sort_keys=True)
        known, _, failed = store.records(folder, found.about["identity"])
        assert [known[number][1:] for number in found.ids.tolist()] == [tuple(plain.photos[name][1:3]) for name in described]
        assert failed == {name: photo[1] for name, photo in plain.photos.items() if photo[0] is None}
        assert store.check(folder) == []

    def compare_writer(self, writer, plain):
        found = writer.find(list("abcdefgh"))
        assert {name: [one.described, one.stamp, one.listed, one.fault] for name, one in found.items()} == {
            name: [photo[0] is not None, *photo[1:]] for name, photo in plain.photos.items()
        }
        assert [photo.name for photo in writer.photos()] == list(plain.photos)
        assert writer.count() == len(plain.described())


def memory():
    """A folder in memory for what is written a thousand times, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


# Damage.


def damaged(content, kind, chance):
    """The bytes of a file after some damage; `None`: it is gone."""
    content = bytearray(content)
    place = chance.randrange(max(len(content), 1))
    if kind == "gone":
        return None
    if kind == "cut":
        return content[:place]
    if kind == "longer":
        return content + chance.randbytes(chance.choice([1, 100, 5000]))
    if not content:
        return b"x"
    if kind == "flip":
        content[place] ^= 1 << chance.randrange(8)
    elif kind == "other bytes":
        length = chance.choice([1, 4, 16, 64])
        content[place : place + length] = chance.randbytes(len(content[place : place + length]))
    elif kind == "a page of zeros":
        place -= place % 4096
        content[place : place + 4096] = bytes(len(content[place : place + 4096]))
    return bytes(content)


KINDS = ["flip", "flip", "flip", "other bytes", "other bytes", "cut", "gone", "longer", "a page of zeros"]


def observed(folder):
    """All that a reader gets from an index: what it says, and how it answers; or the words with which it refuses."""
    try:
        index = Index.load(folder)
        answers = index.search_batch(np.eye(DIMENSIONS), 200) + index.search_batch(-np.eye(DIMENSIONS), 3)
        near = index.near_duplicates(0.99, groups=True)
        return visible(folder), answers, near, index.searcher_config
    except (ValueError, FileNotFoundError) as error:
        assert str(folder) in str(error), f"it does not name the index: {error!r}"
        assert len(str(error)) < 600
        return f"{type(error).__name__}: {error}"


class TestDamage:
    @pytest.fixture(scope="class", name="whole")
    @staticmethod
    def an_index(tmp_path_factory):
        """An index of three files of rows, with everything in it; and what a reader gets from it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "SEGMENT_ROWS", 64)
            folder = tmp_path_factory.mktemp("damage") / "index"
            photos = some_photos(190)
            bring_up_to_date(folder, photos)
            bring_up_to_date(folder, {**photos, **some_photos(20, seed=3)})
            index = Index.load(folder)
            index.metadata = {"place": [f"row {row}" for row in range(len(index))], "year": list(range(len(index)))}
            if importable("faiss"):
                index.use_searcher("faiss-flat")
            index.save(folder)
        assert store.check(folder) == []
        return folder, observed(folder)

    def check_damage(self, whole, tmp_path, number, chance):
        source, expected = whole
        folder = tmp_path / f"{number}"
        shutil.copytree(source, folder)
        files = sorted(path for path in folder.iterdir() if path.name != ".lock")
        path, kind = chance.choice([*files, folder / "index.sqlite"]), chance.choice(KINDS)
        content = path.read_bytes()
        new = damaged(content, kind, chance)
        path.unlink()
        if new is not None:
            path.write_bytes(new)
        try:
            found = store.check(folder)
        except (ValueError, FileNotFoundError) as error:
            assert str(folder) in str(error), error
            found = [str(error)]
        seen = observed(folder)
        refused = isinstance(seen, str)
        shutil.rmtree(folder)
        same = (seen == expected) if not refused else None
        return path.name.partition("-")[0], kind, new == content, bool(found), refused, same

    @pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
    def test_is_found_or_refused(self, whole, tmp_path, count):
        """Damaged rows are never searched. Damage of the database is found by `check`, refused, or seen by nobody."""
        chance, results = random.Random(1), []
        for number in range(count):
            state = chance.getstate()
            try:
                results.append(self.check_damage(whole, tmp_path, number, chance))
            except Exception as error:
                raise AssertionError(f"damage {number} of the generator's state {hash(state)}") from error
        found = sum(result[3] for result in results)
        refused = sum(result[4] for result in results)
        print(f"\n{count} damages: {found} found by check, {refused} refused; {sum(bool(one[5]) for one in results)} of no effect")
        silent = [one for one in results if not one[3] and not one[4] and not one[5]]
        assert silent == []
        searched = [one for one in results if one[0] == "rows" and not one[4] and not one[5]]
        assert searched == []
        undetected = [one for one in results if one[0] == "rows" and not one[2] and one[1] != "longer" and not (one[3] and one[4])]
        assert undetected == []

    @pytest.mark.parametrize("place", [0, 100, 700, -1])
    def test_a_flipped_byte_of_a_row_is_never_searched(self, whole, tmp_path, place):
        source, _ = whole
        folder = tmp_path / "index"
        shutil.copytree(source, folder)
        for path in sorted(folder.glob("rows-*")):
            content = bytearray(path.read_bytes())
            content[place] ^= 1
            path.write_bytes(content)
            index = Index.load(folder, searcher="numpy")
            with pytest.raises(DamageError, match=re.escape(str(path)) + ".*rw-keras check"):
                index.search([1, 0, 0, 0], 5)
            (damage,) = store.check(folder)
            assert damage.file == path.name
            assert len(damage.photos) > 0 and set(damage.photos) <= set(index.names)
            content[place] ^= 1
            path.write_bytes(content)
        assert store.check(folder) == []

    @pytest.mark.parametrize(
        ("table", "change"),
        [
            ("photos", "UPDATE photos SET time = time + 64 WHERE id = 7"),
            ("photos", "UPDATE photos SET fault = 'Xs' WHERE fault IS NOT NULL"),
            ("metadata", "UPDATE metadata SET value = '\"row 9\"' WHERE photo = 5 AND column_id = 1"),
            ("metadata_columns", "UPDATE metadata_columns SET name = 'plase' WHERE id = 1"),
            ("about", "UPDATE about SET value = value + 4 WHERE field = 'next_row'"),
        ],
    )
    def test_a_changed_value_of_the_database_is_found_and_stays_found(self, whole, tmp_path, table, change):
        source, _ = whole
        folder = tmp_path / "index"
        shutil.copytree(source, folder)
        with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as database:
            assert database.execute(change).rowcount
            database.commit()
        for name in "one more", "and another":
            (damage,) = store.check(folder)
            assert (damage.file, damage.photos) == ("index.sqlite", [])
            assert f"table '{table}'" in damage.what
            with Writer(folder, RECIPE, DIMENSIONS) as writer:
                writer.put([name], some_rows(1, DIMENSIONS), [None])
                writer.finish()

    def test_a_value_of_another_type_is_refused(self, folder):
        write(folder, 3)
        with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as database:
            database.execute("UPDATE photos SET fault = 'text' WHERE fault IS NOT NULL")
            database.commit()
        with pytest.raises(DamageError, match=re.escape(str(folder))):
            Index.load(folder)

    def test_check_names_just_the_photos_of_a_block(self, folder):
        rows, names = write(folder, BLOCK_ROWS + 10, dimensions=2)
        (path,) = folder.glob("rows-*")
        content = bytearray(path.read_bytes())
        content[-1] ^= 128
        path.write_bytes(content)
        (damage,) = store.check(folder)
        assert (damage.file, damage.photos) == (path.name, names[BLOCK_ROWS:])
        assert f"rows {BLOCK_ROWS} to {BLOCK_ROWS + 9}" in damage.what
        np.testing.assert_array_equal(store.read(folder).rows[:BLOCK_ROWS], rows[:BLOCK_ROWS])  # what is sound can be read

    @pytest.mark.parametrize("kind", ["flip", "cut"])
    @pytest.mark.parametrize("what", ["an update", "a compaction", "a rebuild", "a save in place", "a save elsewhere"])
    def test_is_never_laundered(self, whole, tmp_path, what, kind, monkeypatch):
        """What is written after a damage is refused, or the damage is found as before."""
        monkeypatch.setattr(store, "SEGMENT_ROWS", 64)
        source, _ = whole
        photos = {**some_photos(190), **some_photos(20, seed=3)}
        sound = dict(zip(Index.load(source).names, Index.load(source).descriptors[:]))
        for number in range(3):
            folder, copy = tmp_path / f"index {number}", tmp_path / f"copy {number}"
            shutil.copytree(source, folder)
            path = sorted(folder.glob("rows-*"))[number]
            content = bytearray(path.read_bytes())
            content[33] ^= 4
            path.write_bytes(content if kind == "flip" else content[:-3])
            changed = {}
            try:
                if what == "an update":
                    changed = some_photos(190, seed=2)
                    bring_up_to_date(folder, {**photos, **{name: changed[name] for name in list(photos)[::7]}})
                elif what == "a compaction":
                    bring_up_to_date(folder, {name: photos[name] for name in list(photos)[::5]})
                elif what == "a rebuild":
                    with Writer(folder, RECIPE, DIMENSIONS, beside=True) as writer:
                        writer.put(["new"], some_rows(1, DIMENSIONS), [None])
                        writer.take_over_rest()
                        writer.finish()
                else:
                    index = Index.load(folder, searcher="numpy")
                    index.remove(index.names[1:150:2])
                    index.save(folder if what == "a save in place" else copy)
            except DamageError as error:
                assert str(path) in str(error) or str(folder) in str(error)
            place = copy if what == "a save elsewhere" else folder
            if not (place / "index.sqlite").exists() or store.check(place):
                continue
            found = store.read(place)
            for name, row in zip(found.names, rows_of(found)):
                if not (name in changed and np.array_equal(row, changed[name][1])) and name != "new":
                    np.testing.assert_array_equal(row, sound[name])

    @pytest.mark.parametrize("content", [b"", b"x", b"garbage" * 1000], ids=["empty", "short", "garbage"])
    def test_an_index_whose_database_is_lost_can_be_made_again(self, folder, content):
        photos = some_photos(40)
        bring_up_to_date(folder, photos)
        (folder / "index.sqlite").write_bytes(content)
        with pytest.raises(DamageError, match=re.escape(str(folder)) + ".*--force"):
            bring_up_to_date(folder, photos)
        bring_up_to_date(folder, photos, beside=True, go_on=True)
        check_whole(folder)
        assert len(store.read(folder).names) == sum(not isinstance(vector, str) for _, vector in photos.values())


def importable(module):
    import importlib.util

    return importlib.util.find_spec(module) is not None


class TestOldFormats:
    PHOTOS = some_photos(60)

    def good(self):
        return {name: photo for name, photo in self.PHOTOS.items() if not isinstance(photo[1], str)}

    @pytest.mark.parametrize(
        ("version", "dtype", "shards", "journal"),
        [(1, "float32", 1, 0), *itertools.product([2], DTYPES, [1, 3], [0, 9]), (2, "float32", 0, 9)],
    )
    def test_is_read_and_converted(self, folder, tmp_path, version, dtype, shards, journal):
        write_old(folder, self.PHOTOS, version, dtype, shards=shards, journal=len(self.good()) if not shards else journal)
        good = self.good()
        expected = encoded(np.array([vector for _, vector in good.values()]), dtype)
        before = visible(folder)
        index = Index.load(folder)
        assert (list(index.names), before[1]) == (list(good), expected.tobytes())
        hits = index.search_batch(np.eye(DIMENSIONS), 12)
        assert [hit[0][0] for hit in hits] != []
        if version == 2:
            assert len(index.failures) == len(self.PHOTOS) - len(good)
            assert [stamp for stamp, _ in before[2]] == [stamp for stamp, _ in good.values()]
        assert store.check(folder) == []
        with Writer(folder, RECIPE, DIMENSIONS) as writer:
            assert writer.has_converted
        assert visible(folder) == before
        check_whole(folder)
        assert Index.load(folder).search_batch(np.eye(DIMENSIONS), 12) == hits

    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize("where", ["in place", "elsewhere"])
    def test_is_converted_by_a_save(self, folder, tmp_path, version, where):
        write_old(folder, self.PHOTOS, version, journal=9)
        before = visible(folder)
        index = Index.load(folder)
        index.remove(index.names[:5])
        index.update(index.names[3:4], np.eye(DIMENSIONS)[:1])
        index.add(["new"], np.eye(DIMENSIONS)[1:2], {column: [None] for column in index.metadata} or None)
        place = folder if where == "in place" else tmp_path / "copy"
        index.save(place)
        after = visible(place)
        check_whole(place)
        assert after[0] == [*before[0][5:], "new"]
        rows = np.frombuffer(before[1], "float32").reshape(-1, DIMENSIONS)[5:].copy()
        rows[3] = np.eye(DIMENSIONS)[0]
        np.testing.assert_array_equal(np.frombuffer(after[1], "float32").reshape(-1, DIMENSIONS)[:-1], rows)
        assert after[3:5] == before[3:5]
        assert [one for number, one in enumerate(after[2][:-1]) if number != 3] == [
            one for number, one in enumerate(before[2][5:]) if number != 3
        ]

    @pytest.mark.parametrize(
        "content", ["", "{", "[]", "3", "null", '{"format": 2}', '{"format": "x"}', "\xff", '{"format": 3}'], ids=repr
    )
    @pytest.mark.parametrize("version", [1, 2])
    def test_a_damaged_manifest(self, folder, version, content):
        write_old(folder, self.PHOTOS, version)
        (folder / "index.json").write_bytes(content.encode("latin-1"))
        for use in (store.read, store.check, store.about, Index.load, lambda path: bring_up_to_date(path, self.PHOTOS)):
            with pytest.raises(ValueError, match=re.escape(str(folder))):
                use(folder)
        assert (folder / "index.json").read_bytes() == content.encode("latin-1")

    @pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
    @pytest.mark.parametrize("version", [1, 2])
    def test_damage(self, tmp_path, version, count):
        """It is refused with words, found by `check`, or seen by nobody; descriptors and names of format 1 have no checksums."""
        source, chance = tmp_path / "source", random.Random(version)
        write_old(source, self.PHOTOS, version, journal=9)
        expected = observed(source)
        silent = []
        for number in range(count):
            folder = tmp_path / f"{number}"
            shutil.copytree(source, folder)
            path, kind = chance.choice(sorted(folder.iterdir())), chance.choice(KINDS)
            if version == 1 and path.suffix == ".npy":
                kind = "cut"  # nothing tells other values of this format from the right ones
            new = damaged(path.read_bytes(), kind, chance)
            path.unlink()
            if new is not None:
                path.write_bytes(new)
            seen = observed(folder)
            try:
                found = store.check(folder)
            except (ValueError, FileNotFoundError) as error:
                assert str(folder) in str(error)
                found = [error]
            has_checksums = version == 2 and path.name not in ("index.json", "journal.bin")
            if has_checksums and not found and seen != expected:
                silent.append((path.name, kind))
            if path.name.startswith("descriptors") and version == 2 and not isinstance(seen, str):
                assert seen == expected
            try:
                bring_up_to_date(folder, self.PHOTOS)
            except ValueError as error:
                assert str(folder) in str(error)
            shutil.rmtree(folder)
        assert silent == []
