"""Photos that were deleted from an index: their names stay out of it, whatever is done to it, until they are taken back."""

import contextlib
import os
import re
import sqlite3

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
    check_whole,
    regions_of,
    some_changes,
    some_photos,
    visible,
    write_old,
)

from rw_keras.retrieval import Index, exclusions, store
from rw_keras.retrieval.exchange import merge
from rw_keras.retrieval.segments import DamageError
from rw_keras.retrieval.writer import Writer

PHOTOS = {name: photo for name, photo in some_photos(60).items() if photo[1] is not AWAY}
NAMES = ["0003.jpg", "0010.jpg", "none.jpg"]  # one with a descriptor, one that cannot be decoded, one that there is not
REST = {name: photo for name, photo in PHOTOS.items() if name not in NAMES}


def exclude(folder, names=NAMES):
    with Writer(folder, RECIPE, DIMENSIONS) as writer:
        writer.exclude(names)
        writer.commit()


@pytest.fixture
def excluding(folder):
    """An index that excludes `NAMES`."""
    bring_up_to_date(folder, PHOTOS, regions=REGIONS)
    exclude(folder)
    return folder


def saved(folder, names, overwrite=False):
    """A new index of vectors, saved."""
    Index(names, np.random.default_rng(1).standard_normal((len(names), DIMENSIONS)), recipe=RECIPE).save(
        folder, overwrite=overwrite
    )
    return folder


class TestWriter:
    def test_rows_go_and_names_stay_out(self, excluding):
        check_holds(excluding, REST)
        assert store.excluded(excluding) == {*NAMES}

    def test_nothing_counts_before_it_is_committed(self, folder):
        bring_up_to_date(folder, PHOTOS)
        before = visible(folder)
        with Writer(folder, RECIPE, DIMENSIONS) as writer:
            writer.exclude(NAMES)
            assert (writer.excluded(), visible(folder)) == ({*NAMES}, before)
        assert visible(folder) == before

    @pytest.mark.parametrize("way", ["put", "fail", "include"])
    def test_taken_back(self, excluding, way):
        with Writer(excluding, RECIPE, DIMENSIONS) as writer:
            if way == "put":
                writer.put(NAMES[:1], np.eye(DIMENSIONS)[:1], [None], regions=[regions_of(np.eye(DIMENSIONS)[0])])
            elif way == "fail":
                writer.fail(NAMES[0], "it is no photo", None)
            else:
                writer.include([NAMES[0], "0000.jpg"])
            writer.commit()
        assert store.excluded(excluding) == {*NAMES[1:]}
        check_whole(excluding)

    def test_names_that_are_no_text(self, folder):
        names = [os.fsdecode(b"\xff\xfe.jpg"), "\n.jpg", "ö.jpg", "'"]
        bring_up_to_date(folder, PHOTOS)
        exclude(folder, names)
        assert store.excluded(folder) == {*names}
        with Writer(folder, RECIPE, DIMENSIONS) as writer, pytest.raises(ValueError, match="lone surrogate"):
            writer.exclude(["\ud800"])

    def test_no_index(self, folder):
        assert store.excluded(folder) == set()

    def test_an_index_that_only_excludes_is_not_given_up(self, folder):
        with Writer(folder, RECIPE, DIMENSIONS) as writer:
            writer.exclude(["a.jpg"])
            writer.commit()
            assert not writer.abandon()
        assert store.excluded(folder) == {"a.jpg"}


class TestFormats:
    @pytest.mark.parametrize("version", [3, 4])
    def test_earlier_ones_are_read_as_they_are_and_upgraded_when_written(self, folder, version):
        bring_up_to_date(folder, PHOTOS, regions=REGIONS if version == 4 else None)
        before, generation, rows = visible(folder), store.about(folder)["generation"], store.about(folder).get("next_region")
        as_format(version, folder)
        content = (folder / "index.sqlite").read_bytes()
        assert (store.excluded(folder), store.check(folder), visible(folder)) == (set(), [], before)
        assert (folder / "index.sqlite").read_bytes() == content
        loaded = Index.load(folder)
        with Writer(folder, RECIPE, DIMENSIONS) as writer:
            assert writer.excluded() == set()
        about = store.about(folder)
        assert (about["format"], about["generation"], about["next_region"]) == (5, generation, rows)
        assert (visible(folder), store.check(folder)) == (before, [])
        loaded.save(folder)  # it is the state that was loaded
        exclude(folder)
        check_holds(folder, REST)

    def test_a_rebuild_of_an_earlier_one(self, folder):
        bring_up_to_date(folder, PHOTOS)
        as_format(4, folder)
        bring_up_to_date(folder, PHOTOS, beside=True)
        check_holds(folder, PHOTOS)

    @pytest.mark.parametrize("version", [1, 2])
    def test_before_the_database(self, folder, version):
        write_old(folder, PHOTOS, version)
        assert store.excluded(folder) == set()
        exclude(folder)
        assert NAMES[0] not in store.read(folder).names
        assert store.excluded(folder) == {*NAMES}

    def test_a_damaged_name_is_found(self, excluding):
        with contextlib.closing(sqlite3.connect(excluding / "index.sqlite")) as database:
            database.execute("UPDATE excluded SET name = ? WHERE name = ?", (b"0004.jpg", b"0003.jpg"))
            database.commit()
        words = [damage.what for damage in store.check(excluding)]
        assert words == ["a value of its table 'excluded' is not as it was written"]

    def test_a_photo_whose_name_is_excluded_is_found(self, excluding):
        with contextlib.closing(sqlite3.connect(excluding / "index.sqlite")) as database:
            database.execute("INSERT INTO excluded VALUES (?)", (b"0004.jpg",))
            database.execute(
                "UPDATE about SET value = json_set(value, '$.excluded', ?) WHERE field = 'sums'", (self.total(database),)
            )
            database.commit()
        (damage,) = store.check(excluding)
        assert (damage.what, damage.photos) == ("it holds 1 photos whose names are excluded", ["0004.jpg"])

    def total(self, database):
        from rw_keras.retrieval import sums

        return sums.of(database)["excluded"]


class TestUpdates:
    def test_they_leave_them_out(self, excluding):
        log = []
        update = bring_up_to_date(excluding, PHOTOS, log.append)
        assert (log, update.excluded, update.removed, update.described) == ([], 2, 0, 0)
        later = some_changes(PHOTOS)
        bring_up_to_date(excluding, later)
        check_holds(excluding, {name: photo for name, photo in later.items() if name not in NAMES}, before=PHOTOS)
        assert store.excluded(excluding) == {*NAMES}

    def test_a_rebuild_keeps_them(self, excluding):
        update = bring_up_to_date(excluding, PHOTOS, beside=True, go_on=True)
        assert (update.excluded, store.excluded(excluding)) == (2, {*NAMES})
        check_holds(excluding, REST)

    def test_a_rebuild_of_nothing_else_keeps_the_index(self, folder):
        bring_up_to_date(folder, {NAMES[0]: PHOTOS[NAMES[0]]})
        exclude(folder)
        bring_up_to_date(folder, {NAMES[0]: PHOTOS[NAMES[0]]}, beside=True)
        assert (len(Index.load(folder)), store.excluded(folder)) == (0, {*NAMES})

    def test_a_rebuild_of_a_damaged_index_takes_them_over_where_it_can(self, excluding):
        index = Index.load(excluding)
        index.add(["by hand"], np.eye(DIMENSIONS)[:1], regions=[regions_of(np.eye(DIMENSIONS)[0])])
        index.save(excluding)
        for path in excluding.glob("rows-*"):
            path.write_bytes(b"")
        bring_up_to_date(excluding, PHOTOS, beside=True, regions=REGIONS)
        check_holds(excluding, REST)
        assert store.excluded(excluding) == {*NAMES}

    def test_taken_back_they_are_described_again(self, excluding):
        assert exclusions.take_back(excluding, NAMES[:1]) == 1
        update = bring_up_to_date(excluding, PHOTOS)
        assert (update.described, update.excluded) == (1, 1)
        assert exclusions.take_back(excluding) == 2
        bring_up_to_date(excluding, PHOTOS)
        check_holds(excluding, PHOTOS)
        assert (store.excluded(excluding), exclusions.take_back(excluding)) == (set(), 0)

    def test_a_name_that_is_not_excluded(self, excluding, tmp_path):
        before = visible(excluding)
        words = f"{re.escape(str(excluding))} does not exclude '0004.jpg'; it excludes 3 names, such as '0003.jpg'"
        with pytest.raises(ValueError, match=words):
            exclusions.take_back(excluding, [NAMES[0], "0004.jpg"])
        assert visible(excluding) == before
        with pytest.raises(FileNotFoundError, match="no index"):
            exclusions.take_back(tmp_path / "none")


class TestARebuildThatWasKilled:
    """Photos are put and deleted before it goes on, as a service does it; what it had described is not described again."""

    def test_goes_on(self, excluding):
        index = Index.load(excluding)
        vectors = np.eye(DIMENSIONS)
        index.add(["by hand 1", "by hand 2", "by hand 3"], vectors[:3], regions=list(map(regions_of, vectors[:3])))
        index.save(excluding)

        def stop(line, kept=[]):  # noqa: B006
            kept.append(line)
            if sum(one.startswith("kept") for one in kept) == 40:
                raise KeyboardInterrupt

        later = some_changes(PHOTOS)
        arguments = {"beside": True, "go_on": True, "regions": REGIONS}
        with pytest.raises(KeyboardInterrupt):
            bring_up_to_date(excluding, later, stop, **arguments)
        assert (excluding / "rebuilt.sqlite").exists()
        new = {"put.jpg": ([1, 1], vectors[0]), "by hand 1": ([1, 2], vectors[1]), NAMES[0]: ([1, 3], vectors[2])}
        with Writer(excluding, RECIPE, DIMENSIONS, keeps_begun=True) as writer:
            for name, (stamp, vector) in new.items():
                writer.put([name], vector[None], [stamp], regions=[regions_of(vector)])
            writer.exclude(["by hand 2", "0004.jpg"])
            writer.finish()
        exclusions.take_back(excluding, NAMES[1:2])
        later, log = {**later, **new}, []
        bring_up_to_date(excluding, later, log.append, **arguments)
        described = [line for line in log if line.startswith("described")]
        held = {name: photo for name, photo in later.items() if name not in ("0004.jpg", "none.jpg")}
        check_holds(excluding, {**held, "by hand 3": (None, vectors[2])})
        assert store.excluded(excluding) == {"by hand 2", "0004.jpg", "none.jpg"}
        good = sum(not isinstance(vector, str) for _, vector in later.values())
        assert len(described) <= good - 32

    def test_whose_database_is_damaged_holds_nobody_up(self, excluding):
        (excluding / "rebuilt.sqlite").write_bytes(b"half")
        with Writer(excluding, RECIPE, DIMENSIONS, keeps_begun=True) as writer:
            writer.exclude(["0004.jpg"])
            writer.finish()
        bring_up_to_date(excluding, PHOTOS, beside=True, go_on=True)
        check_holds(excluding, {name: photo for name, photo in REST.items() if name != "0004.jpg"})


class TestSaving:
    def test_in_place(self, excluding):
        index = Index.load(excluding)
        index.remove(index.names[:3])
        index.add(["added", NAMES[0]], np.eye(DIMENSIONS)[:2], regions=list(map(regions_of, np.eye(DIMENSIONS)[:2])))
        index.save(excluding)
        assert store.excluded(excluding) == {*NAMES[1:]}
        assert NAMES[0] in Index.load(excluding).names
        check_whole(excluding)

    @pytest.mark.parametrize("dtype", [None, "float16"])
    def test_elsewhere_and_in_another_dtype(self, excluding, tmp_path, dtype):
        index = Index.load(excluding)
        index.add([NAMES[0]], np.eye(DIMENSIONS)[:1], regions=[regions_of(np.eye(DIMENSIONS)[0])])
        index.save(tmp_path / "copy", dtype=dtype)
        assert store.excluded(tmp_path / "copy") == {*NAMES[1:]}
        check_whole(tmp_path / "copy")
        assert store.excluded(excluding) == {*NAMES}
        index = Index.load(excluding)
        index.save(excluding, dtype=dtype)
        assert store.excluded(excluding) == {*NAMES}
        check_whole(excluding)

    def test_what_was_deleted_after_it_was_loaded_is_in_a_copy(self, folder, tmp_path):
        bring_up_to_date(folder, PHOTOS)
        index = Index.load(folder)
        exclude(folder)
        index.save(tmp_path / "copy")
        found = store.read(tmp_path / "copy")
        assert NAMES[0] in found.names and store.excluded(tmp_path / "copy") == {*NAMES[1:]}
        check_whole(tmp_path / "copy")

    def test_another_index_over_it_is_all_that_is_left(self, excluding):
        saved(excluding, ["a", NAMES[0]], overwrite=True)
        assert store.excluded(excluding) == set()
        check_whole(excluding)


class TestMerging:
    def test_all_that_none_of_them_holds(self, folder, tmp_path):
        one, two = saved(tmp_path / "one", ["a", "b"]), saved(tmp_path / "two", ["c", "d", "e"])
        exclude(one, ["c", "x", "bad"])
        exclude(two, ["e", "y"])
        with Writer(two, RECIPE, DIMENSIONS) as writer:
            writer.fail("bad", "no photo", None)
            writer.commit()
        assert merge([one, two], folder) == 4
        assert list(store.read(folder).names) == ["a", "b", "c", "d"]
        assert store.excluded(folder) == {"x", "y", "e", "bad"}
        assert store.read(folder).failures == []
        check_whole(folder)


def test_on_and_on(folder, tmp_path):
    """Excluded, brought up to date, made again, merged, saved, loaded, brought up to date."""
    bring_up_to_date(folder, PHOTOS)
    exclude(folder)
    bring_up_to_date(folder, PHOTOS)
    bring_up_to_date(folder, PHOTOS, beside=True, go_on=True)
    other = saved(tmp_path / "other", ["other 1", "other 2"])
    exclude(other, ["other 2"])
    merge([folder, other], tmp_path / "all")
    index = Index.load(tmp_path / "all")
    index.remove(["other 1"])
    index.save(tmp_path / "saved", dtype="float16")
    assert store.excluded(tmp_path / "saved") == {*NAMES, "other 2"}
    assert bring_up_to_date(tmp_path / "saved", {**PHOTOS, "other 2": PHOTOS["0001.jpg"]}).excluded == 3
    assert {*store.read(tmp_path / "saved").names}.isdisjoint({*NAMES, "other 2"})
    check_whole(tmp_path / "saved")


def test_a_damaged_database_stops_a_rebuild(excluding):
    (excluding / "index.sqlite").write_bytes(b"SQLite format 3\0" + bytes(5000))
    with pytest.raises(ValueError, match=r"added by hand to .*, or excluded, cannot be taken over") as caught:
        from rw_keras.description.update import check_loss

        check_loss(excluding, {*PHOTOS}, prune=False, beside=True)
    assert isinstance(caught.value.__cause__, DamageError)
