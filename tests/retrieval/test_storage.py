import hashlib
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rw_keras.retrieval import storage

RECIPE = {"backbone": "tiny", "max_side": 64}


def some_rows(count, dimensions=5, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal((count, dimensions)).astype(dtype)


def write(folder, counts, dtype="float32", dimensions=5):
    """Writes an index of shards of so many rows; its descriptors and names."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [some_rows(count, dimensions, dtype, seed) for seed, count in enumerate(counts)]
    names = [[f"{number}-{row}.jpg" for row in range(count)] for number, count in enumerate(counts)]
    shards = [
        storage.write_shard(folder, number, part, {"names": names[number], "failures": [[f"bad {number}", "is no photo", None]]})
        for number, part in enumerate(parts)
    ]
    storage.write_manifest(folder, {"recipe": RECIPE, "dimensions": dimensions, "dtype": dtype, "shards": shards})
    return np.concatenate(parts), [name for part in names for name in part]


def write_format_1(folder, count=4, dimensions=3):
    """An index as version 0.1 wrote it: one file of descriptors, one of names."""
    folder.mkdir()
    vectors = some_rows(count, dimensions)
    names = [f"{number}.jpg" for number in range(count)]
    np.save(folder / "descriptors-0a1b2c3d4e5f.npy", vectors)
    (folder / "names-0a1b2c3d4e5f.json").write_text(json.dumps(names))
    manifest = {
        "format": 1,
        "descriptors": "descriptors-0a1b2c3d4e5f.npy",
        "names": "names-0a1b2c3d4e5f.json",
        "count": count,
        "dimensions": dimensions,
        "recipe": RECIPE,
    }
    (folder / "index.json").write_text(json.dumps(manifest))
    return vectors, names


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "index"


# Parts, empty ones among them, and something that picks rows of them.
PARTS = st.lists(st.integers(0, 4), max_size=6)
BOUND = st.none() | st.integers(-25, 25)


class TestRows:
    def both(self, counts, dtype="float32"):
        parts = [some_rows(count, 3, dtype, seed) for seed, count in enumerate(counts)]
        return storage.Rows(parts, 3, dtype), np.concatenate([np.empty((0, 3), dtype), *parts])

    @given(counts=PARTS)
    def test_looks_like_the_whole(self, counts):
        rows, whole = self.both(counts)
        assert (rows.shape, rows.dtype, rows.ndim, len(rows)) == (whole.shape, whole.dtype, whole.ndim, len(whole))
        np.testing.assert_array_equal(np.asarray(rows), whole)
        np.testing.assert_array_equal(list(rows), list(whole))

    @given(counts=PARTS, start=BOUND, stop=BOUND, step=BOUND.filter(lambda step: step != 0))
    def test_slices(self, counts, start, stop, step):
        rows, whole = self.both(counts)
        found = rows[start:stop:step]
        assert found.dtype == whole.dtype
        np.testing.assert_array_equal(found, whole[start:stop:step], strict=True)

    @given(counts=PARTS, row=st.integers(-26, 26), kind=st.sampled_from([int, np.int64, np.int32]))
    def test_one_row(self, counts, row, kind):
        rows, whole = self.both(counts)
        if -len(whole) <= row < len(whole):
            np.testing.assert_array_equal(rows[kind(row)], whole[row], strict=True)
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
        rows, whole = self.both([4, 0, 5])
        with pytest.raises(IndexError):
            whole[chosen]
        with pytest.raises(IndexError):
            rows[chosen]

    @pytest.mark.parametrize("count", [0, 8, 10])
    def test_masks_of_another_length(self, count):
        rows, _ = self.both([4, 0, 5])
        with pytest.raises(IndexError):
            rows[np.ones(count, bool)]

    def test_float16(self):
        rows, whole = self.both([2, 3], "float16")
        assert rows.dtype == np.float16
        np.testing.assert_array_equal(rows[1:4], whole[1:4], strict=True)
        np.testing.assert_array_equal(rows[[4, 0]], whole[[4, 0]], strict=True)
        np.testing.assert_array_equal(rows.astype("float32"), whole.astype("float32"), strict=True)
        np.testing.assert_array_equal(np.asarray(rows, "float64"), whole.astype("float64"), strict=True)

    @pytest.mark.parametrize("counts", [[5], [0, 5, 0], [3, 2]], ids=str)
    def test_a_copy_is_a_copy(self, counts):
        parts = [some_rows(count, 3, seed=seed) for seed, count in enumerate(counts)]
        before = np.concatenate(parts)
        rows = storage.Rows(parts, 3)
        for copy in (np.array(rows), rows.astype("float32")):
            copy[:] = 0
            np.testing.assert_array_equal(np.concatenate(parts), before)

    def test_a_slice_of_one_part_is_a_view(self):
        parts = [some_rows(4, seed=1), some_rows(6, seed=2)]
        rows = storage.Rows(parts, 5)
        assert np.shares_memory(rows[5:9], parts[1])
        assert np.shares_memory(rows[1:4], parts[0])
        assert not any(np.shares_memory(rows[3:5], part) for part in parts)


class TestReading:
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    @pytest.mark.parametrize("counts", [[6], [3, 0, 4, 1], [0], []], ids=str)
    def test_what_was_written(self, folder, dtype, counts):
        expected, names = write(folder, counts, dtype) if counts else (np.empty((0, 5), dtype), [])
        if not counts:
            folder.mkdir()
            storage.write_manifest(folder, {"recipe": RECIPE, "dimensions": 5, "dtype": dtype, "shards": []})
        manifest, found, descriptors, failures = storage.read(folder)
        assert found == names
        np.testing.assert_array_equal(np.asarray(descriptors), expected, strict=True)
        assert failures == [(f"bad {number}", "is no photo") for number in range(len(counts))]
        assert (manifest["format"], manifest["recipe"], manifest["dimensions"], manifest["dtype"], manifest["count"]) == (
            2,
            RECIPE,
            5,
            dtype,
            len(names),
        )
        assert storage.verify(folder) == []

    def test_descriptors_stay_on_the_disk(self, folder):
        write(folder, [6])
        descriptors = storage.read(folder)[2]
        assert isinstance(descriptors, np.memmap)
        assert not descriptors.flags.writeable
        write(folder, [3, 4])
        descriptors = storage.read(folder)[2]
        assert isinstance(descriptors[4:6], np.memmap)
        assert isinstance(descriptors[0], np.memmap)

    def test_manifest(self, folder):
        vectors, names = write(folder, [3, 4])
        manifest = json.loads((folder / "index.json").read_text("ascii"))
        assert (manifest["format"], manifest["count"], [entry["count"] for entry in manifest["shards"]]) == (2, 7, [3, 4])
        assert [entry["sha256"] for entry in manifest["shards"]] == [
            hashlib.sha256(part.tobytes()).hexdigest() for part in (vectors[:3], vectors[3:])
        ]
        assert {entry[kind] for entry in manifest["shards"] for kind in ("descriptors", "photos")} == {
            path.name for path in folder.iterdir()
        } - {"index.json"}
        for number, entry in enumerate(manifest["shards"]):
            assert re.fullmatch(rf"descriptors-0000{number}-[0-9a-f]{{12}}\.npy", entry["descriptors"])
            np.testing.assert_array_equal(np.load(folder / entry["descriptors"]), vectors[3 * number : 3 + 4 * number])
            assert json.loads((folder / entry["photos"]).read_text("ascii"))["names"] == names[3 * number : 3 + 4 * number]

    @pytest.mark.parametrize("name", ["a b.jpg", "new\nline.jpg", "Zürich/Ørsted 東京.jpg", "\udcff.jpg", '"quoted".jpg'])
    def test_names(self, folder, name):
        folder.mkdir()
        entry = storage.write_shard(folder, 0, some_rows(1), {"names": [name]})
        storage.write_manifest(folder, {"recipe": None, "dimensions": 5, "dtype": "float32", "shards": [entry]})
        assert storage.read(folder)[1] == [name]

    def test_the_same_content_makes_the_same_files(self, tmp_path):
        for name in ("one", "two"):
            write(tmp_path / name, [3, 4])
        one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
        assert one == two

    def test_files_that_the_manifest_does_not_name_go(self, folder):
        write(folder, [3, 4])
        first = {path.name for path in folder.iterdir()}
        (folder / ".part-abc").write_bytes(b"half")
        (folder / "descriptors-00009-abc.npy").write_bytes(b"half")
        (folder / "notes.txt").write_text("mine")
        write(folder, [3])
        left = {path.name for path in folder.iterdir()}
        assert len(left & first) == 3
        assert left - first == {"notes.txt"}

    def test_format_1(self, folder):
        vectors, names = write_format_1(folder)
        manifest, found, descriptors, failures = storage.read(folder)
        assert (found, failures, manifest["recipe"], manifest["dtype"]) == (names, [], RECIPE, "float32")
        np.testing.assert_array_equal(descriptors, vectors, strict=True)
        assert storage.verify(folder) == []

    def test_a_later_format_is_refused(self, folder):
        write(folder, [3])
        manifest = json.loads((folder / "index.json").read_text())
        (folder / "index.json").write_text(json.dumps({**manifest, "format": 3}))
        with pytest.raises(ValueError, match=f"{re.escape(str(folder))}.*format 3.*up to 2"):
            storage.read(folder)

    def test_no_index(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
            storage.read(tmp_path)

    @pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"format": 2}', '{"format": "x"}', "\xff"], ids=repr)
    def test_a_damaged_manifest(self, folder, content):
        write(folder, [3])
        (folder / "index.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match=re.escape(str(folder))):
            storage.read(folder)

    @pytest.mark.parametrize("kind", ["descriptors", "photos"])
    @pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
    def test_files_that_are_missing_or_cut_are_named(self, folder, kind, damage):
        write(folder, [3, 400])
        name = storage.read_manifest(folder)["shards"][1][kind]
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        if damage != "missing":
            (folder / name).write_bytes(content[: len(content) // 2 if damage == "cut" else 0])
        with pytest.raises(ValueError, match=f"index at {re.escape(str(folder))}.*{re.escape(name)}"):
            storage.read(folder)

    def test_numbers_that_do_not_agree_are_named(self, folder):
        write(folder, [3, 4])
        shards = storage.read_manifest(folder)["shards"]
        (folder / shards[1]["photos"]).write_bytes((folder / shards[0]["photos"]).read_bytes())
        with pytest.raises(ValueError, match=re.escape(shards[1]["descriptors"])):
            storage.read(folder)


class TestVerify:
    @pytest.mark.parametrize("place", [-1, -20, -60])
    @pytest.mark.parametrize("shard", [0, 1])
    def test_finds_a_flipped_bit_of_the_descriptors(self, folder, shard, place):
        write(folder, [3, 4])
        name = storage.read_manifest(folder)["shards"][shard]["descriptors"]
        content = bytearray((folder / name).read_bytes())
        content[place] ^= 1
        (folder / name).write_bytes(content)
        assert storage.verify(folder) == [name]

    def test_finds_a_changed_name(self, folder):
        write(folder, [3, 4])
        name = storage.read_manifest(folder)["shards"][1]["photos"]
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content.replace(b"1-2.jpg", b"1-3.jpg"))
        assert storage.verify(folder) == [name]

    @pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
    def test_finds_files_that_are_missing_or_cut(self, folder, damage):
        write(folder, [3, 4])
        name = storage.read_manifest(folder)["shards"][0]["descriptors"]
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        if damage != "missing":
            (folder / name).write_bytes(content[:-3] if damage == "cut" else b"")
        assert storage.verify(folder) == [name]


class TestRemove:
    def test_leaves_nothing_of_the_index(self, folder):
        write(folder, [3, 4])
        (folder / "journal.bin").write_bytes(b"half")
        storage.remove(folder)
        assert list(folder.iterdir()) == []
        storage.remove(folder)
        storage.remove(folder / "none")

    @pytest.mark.parametrize("name", ["descriptors-00000-abc.npy", ".part-abc", "photos-00000-abc.json", "journal.bin", ".lock"])
    def test_what_an_interrupted_write_or_removal_leaves_is_no_obstacle(self, folder, name):
        folder.mkdir()
        (folder / name).write_bytes(b"half")
        storage.check_target(folder)

    def test_a_folder_of_something_else_is_refused_and_left(self, folder):
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
        for refuse in (storage.check_target, storage.remove):
            with pytest.raises(ValueError, match="not an index; choose another name"):
                refuse(folder)
        with pytest.raises(ValueError, match="not an index"):
            storage.check_target(folder / "notes.txt")
        assert [path.name for path in folder.iterdir()] == ["notes.txt"]
