"""Damage of an index on disk is found, and never written again as sound."""

import contextlib
import json
import random
import re
import shutil
import sqlite3

import numpy as np
import pytest
from small_stores import (
    DIMENSIONS,
    KINDS,
    RECIPE,
    REGIONS,
    bring_up_to_date,
    check_regions,
    check_whole,
    damaged,
    importable,
    observed,
    regions_of,
    rows_of,
    some_photos,
    some_rows,
    write,
)

from rw_keras.retrieval import Index, store, sums
from rw_keras.retrieval.segments import BLOCK_ROWS, DamageError
from rw_keras.retrieval.writer import Writer

ROWS = ("rows", "regions", "boxes")
DTYPES = ("float32", "float16", "int8")


class TestDamage:
    @pytest.fixture(scope="class", name="whole")
    @staticmethod
    def an_index(tmp_path_factory):
        """An index of three files of rows and two of region vectors, with everything in it; and what a reader gets from it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "SEGMENT_ROWS", 64)
            folder = tmp_path_factory.mktemp("damage") / "index"
            photos = some_photos(190)
            bring_up_to_date(folder, photos, regions=REGIONS)
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

    @pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.slow)])
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
        searched = [one for one in results if one[0] in ROWS and not one[4] and not one[5]]
        assert searched == []
        undetected = [one for one in results if one[0] in ROWS and not one[2] and one[1] != "longer" and not (one[3] and one[4])]
        assert undetected == []

    @pytest.mark.parametrize("place", [0, 100, 700, -1])
    def test_a_flipped_byte_of_a_row_is_never_searched(self, whole, tmp_path, place):
        source, _ = whole
        folder = tmp_path / "index"
        shutil.copytree(source, folder)
        for path in sorted(path for kind in ROWS for path in folder.glob(f"{kind}-*")):
            content = bytearray(path.read_bytes())
            content[place % len(content)] ^= 1
            path.write_bytes(content)
            index = Index.load(folder, searcher="numpy")
            with pytest.raises(DamageError, match=re.escape(str(path)) + ".*rw-keras check"):
                index.search([1, 0, 0, 0], 5)
                index.search([1, 0, 0, 0], 5, rerank=len(index), regions=np.eye(DIMENSIONS))
                index.regions.kept(slice(None))
            (damage,) = store.check(folder)
            assert damage.file == path.name
            assert len(damage.photos) > 0 and set(damage.photos) <= set(index.names)
            content[place % len(content)] ^= 1
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
            ("regions", "UPDATE regions SET count = count - 1 WHERE row = (SELECT max(row) FROM regions WHERE count > 2)"),
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
                row = some_rows(1, DIMENSIONS)
                writer.put([name], row, [None], regions=list(map(regions_of, row)))
                writer.finish()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ("DELETE FROM regions WHERE row = (SELECT max(row) FROM regions)", "without an entry of their region vectors"),
            ("INSERT INTO regions VALUES (9999, 0, 2)", "region vectors of [0-9]+ photos, and [0-9]+ are described"),
            ("UPDATE regions SET first = 99999 WHERE count > 0", "names region vectors that there are not"),
            ("UPDATE regions SET count = -1 WHERE row = (SELECT max(row) FROM regions)", "names region vectors that there are not"),
            ("DELETE FROM blocks WHERE segment = (SELECT max(id) FROM segments WHERE kind = 'region')", "is not whole"),
        ],
    )
    def test_entries_of_region_vectors_that_do_not_fit(self, whole, tmp_path, change, words):
        """Also where the sums of the tables would not tell."""
        source, _ = whole
        folder = tmp_path / "index"
        shutil.copytree(source, folder)
        with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as database:
            assert database.execute(change).rowcount
            database.execute("UPDATE about SET value = ? WHERE field = 'sums'", (json.dumps(sums.of(database)),))
            database.commit()
        (damage,) = store.check(folder)
        assert damage.file == "index.sqlite" and re.search(words, damage.what)
        if "9999" not in change or "UPDATE" in change:
            with pytest.raises(DamageError, match=words):
                Index.load(folder)

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
        for number in range(len(list(source.glob("rows-*")) + list(source.glob("regions-*")) + list(source.glob("boxes-*")))):
            folder, copy = tmp_path / f"index {number}", tmp_path / f"copy {number}"
            shutil.copytree(source, folder)
            path = sorted(path for kind in ROWS for path in folder.glob(f"{kind}-*"))[number]
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
                    with Writer(folder, RECIPE, DIMENSIONS, beside=True, regions=REGIONS) as writer:
                        writer.put(["new"], some_rows(1, DIMENSIONS), [None], regions=[np.eye(DIMENSIONS)])
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
            if "new" not in found.names:
                check_regions(found, rows_of(found))

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
