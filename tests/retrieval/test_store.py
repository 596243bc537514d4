"""What an index is on disk: what was written is read, in every format."""

import itertools
import pathlib
import random
import re
import shutil
import sqlite3
import zlib

import numpy as np
import pytest
from small_stores import (
    DIMENSIONS,
    KINDS,
    RECIPE,
    bring_up_to_date,
    check_whole,
    damaged,
    observed,
    rows_of,
    some_changes,
    some_photos,
    some_rows,
    visible,
    write,
    write_old,
)

from rw_keras.retrieval import Index, store
from rw_keras.retrieval.int8 import encoded
from rw_keras.retrieval.segments import BLOCK_ROWS
from rw_keras.retrieval.writer import Writer

DTYPES = ("float32", "float16", "int8")


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
        assert fields == (5, RECIPE, dimensions, dtype)
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
            database.execute("UPDATE about SET value = '6' WHERE field = 'format'")
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
            with pytest.raises(ValueError, match=f"{re.escape(str(folder))} has format 6.*up to 5; install a later version"):
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

    @pytest.mark.parametrize("count", [100, pytest.param(300, marks=pytest.mark.slow)])
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
