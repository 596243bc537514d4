"""Region vectors as an index holds them, in memory and on the disk."""

import contextlib
import re
import sqlite3
import zlib

import numpy as np
import pytest
from small_stores import (
    AWAY,
    DIMENSIONS,
    RECIPE,
    REGIONS,
    as_format,
    bring_up_to_date,
    check_holds,
    check_regions,
    check_whole,
    regions_of,
    rows_of,
    some_changes,
    some_photos,
    some_rows,
    visible,
    write_old,
)

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.retrieval import Index, store
from rw_keras.retrieval.exchange import export_vectors, merge
from rw_keras.retrieval.regions import Kept, Regions, encode
from rw_keras.retrieval.schema import KINDS
from rw_keras.retrieval.summary import summary
from rw_keras.retrieval.writer import Writer

SOME = [PhotoRegions(np.eye(3)[:count] * 5, np.full((count, 4), 0.25)) for count in (2, 0, 3)]


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(store, "SEGMENT_ROWS", 16)


def described(folder, count=120, seed=0, **arguments):
    photos = some_photos(count, seed)
    bring_up_to_date(folder, photos, **{"regions": REGIONS, **arguments})
    return photos


class TestKept:
    @pytest.mark.parametrize("dtype", ["int8", "float16"])
    def test_what_is_kept(self, dtype):
        regions = Regions.of(SOME, dtype)
        assert (len(regions), regions.spec) == (3, {"dtype": dtype, "dimensions": 3})
        for position in 0, 1, -1:
            own = regions[position]
            assert own.vectors.dtype == own.boxes.dtype == np.float32
            np.testing.assert_allclose(own.vectors, np.eye(3)[: len(SOME[position].vectors)], atol=1e-6)
            np.testing.assert_allclose(own.boxes, SOME[position].boxes, atol=1e-5)
        with pytest.raises(IndexError):
            regions[3]
        assert "5 region vectors of 3 photos, 3 dimensions" in repr(regions)

    def test_what_is_kept_so_stays_the_same_values(self):
        rows = np.random.default_rng(0).standard_normal((9, 6))
        for dtype in "int8", "float16":
            kept = encode([rows], {"dtype": dtype, "dimensions": 6})
            regions = Regions.of([rows], dtype)
            assert encode(regions, regions.spec).vectors.tobytes() == kept.vectors.tobytes()
            if dtype == "int8":  # also by way of float32
                assert encode([regions[0]], regions.spec).vectors.tobytes() == kept.vectors.tobytes()
        one = encode(Regions.of([rows], "float16"), {"dtype": "int8", "dimensions": 2})
        np.testing.assert_allclose(one.vectors, encode([rows], {"dtype": "int8", "dimensions": 2}).vectors, atol=1)
        with pytest.raises(ValueError, match="have 6 dimensions, and the index keeps 7"):
            encode(kept, {"dtype": "int8", "dimensions": 7})

    def test_bytes_a_photo(self, tmp_path):
        """About 10 KB for 21 regions of 512 dimensions."""
        regions = [np.random.default_rng(number).standard_normal((21, 512)).astype("float32") for number in range(20)]
        Index(map(str, range(20)), np.eye(20, 512), regions=regions).save(tmp_path / "index")
        assert summary(tmp_path / "index").bytes["regions"] == 20 * 21 * (512 + 4 * 2)


class TestStore:
    def test_files(self, folder):
        described(folder)
        found = store.read(folder)
        check_regions(found, rows_of(found))
        with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as database:
            segments = database.execute("SELECT id, kind, file, first, count FROM segments ORDER BY first, id").fetchall()
            blocks = {number: [] for number, *_ in segments}
            for number, crc in database.execute("SELECT segment, crc32 FROM blocks ORDER BY segment, block"):
                blocks[number].append(crc)
        both = [[(first, count) for _, kind, _, first, count in segments if kind == wanted] for wanted in ("region", "box")]
        assert both[0] == both[1] and len(both[0]) > 2  # so that one place is that of both
        for number, kind, file, _, count in segments:
            assert file.startswith(KINDS[kind].prefix)
            content = (folder / file).read_bytes()
            size = KINDS[kind].block_rows * len(content) // count
            assert blocks[number] == [zlib.crc32(content[start : start + size]) for start in range(0, len(content), size)]
        assert summary(folder).bytes["regions"] == sum(count for _, count in both[0]) * (3 + 8)

    def test_a_photo_that_is_described_again_has_no_stale_regions(self, folder):
        with Writer(folder, RECIPE, DIMENSIONS, regions=REGIONS) as writer:
            for seed in range(5):
                rows = some_rows(3, DIMENSIONS, seed=seed)
                writer.put(["a", "b", "a"], rows, [None] * 3, regions=list(map(regions_of, rows)))
                writer.commit()
                check_regions(store.read(folder), rows[[2, 1]])
            writer.fail("a", "is no photo", None)
            writer.finish()
            rows = some_rows(1, DIMENSIONS, seed=9)
            writer.put(["a"], rows, [None], regions=list(map(regions_of, rows)))
            writer.finish()
        found = store.read(folder)
        check_regions(found, rows_of(found))
        check_whole(folder)

    def test_space_is_given_back(self, folder):
        photos = described(folder, 300)
        few = {name: photos[name] for name in list(photos)[::20]}
        bring_up_to_date(folder, few)
        check_holds(folder, few, before=photos)
        left = sum(len(regions_of(vector).vectors) for _, vector in few.values() if not isinstance(vector, str))
        assert summary(folder).bytes["regions"] <= 3 * left * (3 + 8)

    def test_a_lost_file_does_not_shift_the_others(self, folder):
        """New region vectors go to new files of both kinds, when the last file of one is lost."""
        described(folder, 20)
        for kind in "regions", "boxes":
            (last,) = folder.glob(f"{kind}-*")
            content = last.read_bytes()
            last.write_bytes(content[:-1])
            row = some_rows(1, DIMENSIONS, seed=5)
            with Writer(folder, RECIPE, DIMENSIONS) as writer:
                writer.put([kind], row, [None], regions=[np.eye(DIMENSIONS)])
                writer.commit()
            last.write_bytes(content)
            found = store.read(folder)
            np.testing.assert_array_equal(found.regions[-1].vectors, np.eye(DIMENSIONS)[:, :3])
            assert store.check(folder) == []
            bring_up_to_date(folder, {})  # so that there is one of each again
            with Writer(folder, RECIPE, DIMENSIONS) as writer:
                writer.drop(photo.id for photo in list(writer.photos()))
                writer.finish()
            bring_up_to_date(folder, some_photos(20))

    def test_damage_names_the_photos_of_the_block(self, folder, monkeypatch):
        monkeypatch.setitem(KINDS, "region", KINDS["region"]._replace(block_rows=4))
        with Writer(folder, RECIPE, DIMENSIONS, regions=REGIONS) as writer:
            names = ["a", "b", "c", "d", "e"]
            own = [np.ones((count, DIMENSIONS)) for count in (3, 3, 0, 2, 5)]  # blocks: a a a b, b b d d, e e e e, e
            writer.put(names, some_rows(5, DIMENSIONS), [None] * 5, regions=own)
            writer.finish()
        (path,) = folder.glob("regions-*")
        for row, wanted in (0, "ab"), (3, "ab"), (4, "bd"), (8, "e"), (12, "e"):
            content = bytearray(path.read_bytes())
            content[3 * row] ^= 1
            path.write_bytes(content)
            (damage,) = store.check(folder)
            assert (damage.file, "".join(damage.photos)) == (path.name, wanted)
            content[3 * row] ^= 1
            path.write_bytes(content)

    @pytest.mark.parametrize(
        ("regions", "words"),
        [
            (None, "holds region vectors, but got none for 2 photos"),
            ([np.eye(4)], "but got those of 1 for 2 photos"),
            ([np.eye(4), np.eye(2)], "of photo 1 have 2 dimensions, and the index keeps 3"),
        ],
    )
    def test_what_does_not_fit_is_refused_before_anything_is_written(self, folder, regions, words):
        described(folder, 30)
        before = visible(folder)
        with Writer(folder, RECIPE, DIMENSIONS) as writer:
            with pytest.raises(ValueError, match=words):
                writer.put(["x", "y"], some_rows(2, DIMENSIONS), [None] * 2, regions=regions)
            writer.finish()
        assert visible(folder) == before
        bring_up_to_date(folder.with_name("plain"), some_photos(5))
        with Writer(folder.with_name("plain"), RECIPE, DIMENSIONS) as writer, pytest.raises(ValueError, match="holds no region"):
            writer.put(["x"], some_rows(1, DIMENSIONS), [None], regions=[np.eye(4)])

    @pytest.mark.parametrize("asked", [{"dtype": "float16", "dimensions": 3}, {"dtype": "int8", "dimensions": 4}])
    def test_other_region_vectors_are_refused(self, folder, asked):
        described(folder, 9)
        words = f"its region vectors are int8 of 3 dimensions, those asked for {asked['dtype']} of {asked['dimensions']}"
        with pytest.raises(ValueError, match=words):
            Writer(folder, RECIPE, DIMENSIONS, regions=asked).__enter__()
        with pytest.raises(ValueError, match="kept as int8 or float16, but got 'int4'"):
            Writer(folder, RECIPE, DIMENSIONS, regions={"dtype": "int4", "dimensions": 3})
        bring_up_to_date(folder.with_name("plain"), some_photos(9))
        with pytest.raises(ValueError, match="region vectors are none, those asked for int8 of 3"):
            Writer(folder.with_name("plain"), RECIPE, DIMENSIONS, regions=REGIONS).__enter__()


class TestRebuilding:
    def by_hand(self, folder, regions):
        photos = described(folder, 30, regions=regions)
        index = Index.load(folder)
        own = None if regions is None else [regions_of(np.eye(DIMENSIONS)[0])]
        index.add(["by hand"], np.eye(DIMENSIONS)[:1], regions=own)
        index.save(folder)
        return photos

    @pytest.mark.parametrize("new", [{"dtype": "float16", "dimensions": 2}, {"dtype": "int8", "dimensions": 3}, None])
    def test_rows_by_hand_keep_their_regions(self, folder, new):
        photos = self.by_hand(folder, REGIONS)
        bring_up_to_date(folder, photos, beside=True, go_on=True, regions=new)
        found = store.read(folder)
        assert "by hand" in found.names and found.about["regions"] == new
        if new == REGIONS:
            check_regions(found, rows_of(found))
        elif new is not None:
            own = found.regions[list(found.names).index("by hand")]
            np.testing.assert_allclose(own.vectors, encode([regions_of(np.eye(4)[0])], new).vectors, atol=0.01)
        check_whole(folder)

    @pytest.mark.parametrize("old", [None, {"dtype": "int8", "dimensions": 2}])
    def test_rows_by_hand_that_lack_them_stop_it_at_once(self, folder, old):
        photos = self.by_hand(folder, old)
        before, log = visible(folder), []
        with pytest.raises(ValueError, match=r"1 descriptors that were added by hand, whose region vectors are.*Remove them first"):
            bring_up_to_date(folder, photos, log.append, beside=True, regions=REGIONS)
        assert (visible(folder), log) == (before, [])


class TestFormat3:
    def test_is_read_as_it_was_and_upgraded_when_it_is_written(self, folder):
        photos = {name: photo for name, photo in some_photos(60).items() if photo[1] is not AWAY}
        bring_up_to_date(folder, photos)
        before, generation = visible(folder), store.about(folder)["generation"]
        as_format(3, folder)
        size = (folder / "index.sqlite").stat().st_size
        assert store.about(folder)["format"] == 3
        assert (visible(folder), store.check(folder), Index.load(folder).regions) == (before, [], None)
        assert (folder / "index.sqlite").stat().st_size == size
        loaded, log = Index.load(folder), []
        bring_up_to_date(folder, photos, log.append)
        assert log == []
        about = store.about(folder)
        assert (about["format"], about["next_region"], about["generation"]) == (5, 0, generation)
        assert (visible(folder), store.check(folder)) == (before, [])
        loaded.update(loaded.names[:3], np.eye(DIMENSIONS)[:3])
        loaded.save(folder)  # it is the state that was loaded
        check_whole(folder)
        bring_up_to_date(folder, some_changes(photos))
        check_whole(folder)

    def test_a_damage_of_before_stays_found(self, folder):
        described(folder, 60, regions=None)
        as_format(3, folder)
        with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as database:
            database.execute("UPDATE photos SET time = time + 64 WHERE id = 7")
            database.commit()
        for _ in range(2):
            (damage,) = store.check(folder)
            assert "table 'photos'" in damage.what
            with Writer(folder, RECIPE, DIMENSIONS) as writer:
                writer.finish()

    @pytest.mark.parametrize("version", [1, 2])
    def test_an_older_one_becomes_one_with_regions_by_force(self, folder, version):
        photos = some_photos(40)
        write_old(folder, photos, version)
        bring_up_to_date(folder, photos, beside=True, go_on=True, regions=REGIONS)
        check_holds(folder, photos)
        assert Index.load(folder).regions is not None


class TestExchange:
    def test_merged(self, folder, tmp_path):
        first, second = described(tmp_path / "a", 40), described(tmp_path / "b", 50, 1)
        index = Index.load(tmp_path / "b")
        index.remove([name for name in index.names if name in first])
        index.save(tmp_path / "b")
        assert second and merge([tmp_path / "a", tmp_path / "b"], folder) == len(store.read(folder).names)
        found = store.read(folder)
        check_regions(found, rows_of(found))
        check_whole(folder)

    def test_different_ones_are_refused(self, folder, tmp_path):
        described(tmp_path / "a", 20)
        described(tmp_path / "b", 20, 1, regions=None)
        with pytest.raises(ValueError, match=re.escape("its regions is {'dtype': 'int8', 'dimensions': 3}")):
            merge([tmp_path / "a", tmp_path / "b"], folder)

    def test_descriptors_are_handed_out(self, folder, tmp_path):
        described(folder, 30)
        export_vectors(folder, tmp_path / "vectors.npy")
        np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), rows_of(store.read(folder)))


def test_kept_regions_of_photos_are_a_part_of_all():
    regions = Regions.of([np.eye(5)[:count] for count in (1, 3, 0, 2)])
    kept = regions.kept([3, 1, 2])
    assert isinstance(kept, Kept) and kept.counts.tolist() == [2, 3, 0]
    np.testing.assert_array_equal(kept.vectors, 127 * np.eye(5)[[0, 1, 0, 1, 2]])
