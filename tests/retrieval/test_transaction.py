"""Any row of changes, committed or not: against a plain list of photos."""

import itertools
import json
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_stores import RECIPE, check_regions, check_whole, memory, regions_of, rows_of, some_rows

from rw_keras.retrieval import store, transaction
from rw_keras.retrieval.writer import Writer

DTYPES = ("float32", "float16", "int8")
REGIONS = (None, {"dtype": "int8", "dimensions": 3}, {"dtype": "float16", "dimensions": 2})


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
        st.tuples(st.just("exclude"), SOME),
        st.tuples(st.just("exclude_rest"), SOME),
        st.tuples(st.just("include"), SOME),
        st.tuples(st.just("replace"), SOME),
        st.tuples(st.just("set_metadata"), st.sets(st.sampled_from("xyz")), VALUES),
        st.tuples(st.just("update_metadata"), st.sampled_from("xyz"), SOME, VALUES),
        st.tuples(st.sampled_from(["commit", "abort", "compact", "finish"])),
    ),
    max_size=25,
)


class Plain:
    """What an index should hold: name -> [vector or None, stamp, listed, fault], in order; metadata; and excluded names."""

    def __init__(self):
        self.photos, self.columns, self.excluded = {}, {}, set()

    def copy(self):
        other = Plain()
        other.photos = {name: list(photo) for name, photo in self.photos.items()}
        other.columns = {column: dict(values) for column, values in self.columns.items()}
        other.excluded = set(self.excluded)
        return other

    def described(self):
        return [name for name, photo in self.photos.items() if photo[0] is not None]


class TestChanges:
    @pytest.mark.slow
    @settings(max_examples=60)
    @given(changes=CHANGES, dtype=st.sampled_from(DTYPES), regions=st.sampled_from(REGIONS))
    def test_any_row_of_changes(self, changes, dtype, regions):
        self.check(changes, dtype, regions)

    @pytest.mark.slow
    @settings(max_examples=500)
    @given(changes=CHANGES, dtype=st.sampled_from(DTYPES), regions=st.sampled_from(REGIONS))
    def test_many_rows_of_changes(self, changes, dtype, regions):
        self.check(changes, dtype, regions)

    def check(self, changes, dtype, regions):
        """A reader sees what was committed last, whatever the writer holds; and so does the next writer."""
        with tempfile.TemporaryDirectory(dir=memory()) as scratch, pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "SEGMENT_ROWS", 5)
            patch.setattr(transaction, "_TOGETHER", 2)
            folder = pathlib.Path(scratch, "index")
            self.numbers, self.dtype, self.has_regions = itertools.count(), dtype, regions is not None
            held, committed = Plain(), Plain()
            writer = Writer(folder, RECIPE, 3, dtype, regions=regions).__enter__()
            try:
                for what, *arguments in changes:
                    if what == "abort":
                        writer.__exit__()
                        writer, held = Writer(folder, RECIPE, 3, regions=regions).__enter__(), committed.copy()
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

    def regions(self, vectors):
        """By the numbers that are kept, of which the index tells."""
        return list(map(regions_of, vectors)) if self.has_regions else None

    def put(self, writer, held, names, stamp, listed):
        vectors = self.vectors(len(names))
        writer.put(names, vectors, [stamp] * len(names), listed, self.regions(vectors))
        for name, vector in zip(names, vectors):
            held.photos[name] = [vector, stamp, listed, None]
        held.excluded -= {*names}

    def fail(self, writer, held, name, stamp):
        writer.fail(name, f"why {name}", stamp)
        held.photos[name] = [None, stamp, True, f"why {name}"]
        held.excluded -= {name}

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
        self.forget(held, names)

    def exclude(self, writer, held, names):
        writer.exclude(names)
        self.forget(held, [name for name in names if name in held.photos])
        held.excluded |= {*names}

    def exclude_rest(self, writer, held, names):
        writer.exclude_rest(names)
        names = [name for name in names if name not in held.described()]
        self.forget(held, [name for name in names if name in held.photos])
        held.excluded |= {*names}

    def include(self, writer, held, names):
        writer.include(names)
        held.excluded -= {*names}

    def forget(self, held, names):
        for name in names:
            del held.photos[name]
            for values in held.columns.values():
                values.pop(name, None)

    def replace(self, writer, held, names):
        names, ids = self.known(writer, held, names, described=True)
        vectors = self.vectors(len(names)).reshape(-1, 3)
        writer.replace(ids, vectors, self.regions(vectors))
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
        assert (found.regions is not None) == self.has_regions
        if self.has_regions:
            check_regions(found, rows_of(found))
        assert found.failures == sorted((name, photo[3]) for name, photo in plain.photos.items() if photo[0] is None)
        expected = {column: [values.get(name) for name in described] for column, values in plain.columns.items()}
        assert json.dumps(found.metadata, sort_keys=True) == json.dumps(expected, sort_keys=True)
        known, _, failed = store.records(folder, found.about["identity"])
        assert [known[number][1:] for number in found.ids.tolist()] == [tuple(plain.photos[name][1:3]) for name in described]
        assert failed == {name: photo[1] for name, photo in plain.photos.items() if photo[0] is None}
        assert store.excluded(folder) == plain.excluded
        assert store.check(folder) == []

    def compare_writer(self, writer, plain):
        found = writer.find(list("abcdefgh"))
        assert {name: [one.described, one.stamp, one.listed, one.fault] for name, one in found.items()} == {
            name: [photo[0] is not None, *photo[1:]] for name, photo in plain.photos.items()
        }
        assert [photo.name for photo in writer.photos()] == list(plain.photos)
        assert writer.count() == len(plain.described())
        assert writer.excluded() == plain.excluded


@pytest.mark.slow
@given(
    photos=st.lists(
        st.tuples(st.sampled_from(["a", "b", "ö", "\udcff", *map(str, range(9))]), STAMPS, st.sampled_from([True, False, None])),
        max_size=12,
    ),
    together=st.integers(1, 5),
)
def test_photos_put_together_are_those_put_one_by_one(photos, together):
    """Whatever columns are left out for all of them, and also where a photo is put twice."""
    vectors, found = some_rows(len(photos), 3), []
    with tempfile.TemporaryDirectory(dir=memory()) as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(transaction, "_TOGETHER", together)
        for name, size in (("one by one", 1), ("together", max(len(photos), 1))):
            folder = pathlib.Path(scratch, name)
            with Writer(folder, RECIPE, 3) as writer:
                writer.fail("9", "is no photo", [7, 7, "cd"])
                for start in range(0, len(photos), size):
                    names, stamps, listed = zip(*photos[start : start + size])
                    writer.put(names, vectors[start : start + size], stamps, listed)
                found.append([writer.find([name]) for name in sorted({*(name for name, *_ in photos), "9"})])
                writer.finish()
            assert store.check(folder) == []
            found.append((list(store.read(folder).names), rows_of(store.read(folder)).tobytes()))
    assert found[:2] == found[2:]


@pytest.mark.parametrize(("bad", "words"), [("\ud800", "lone surrogate"), (7, "is a string, but got 7"), (b"x", "got b'x'")])
def test_a_name_that_is_none_among_many(tmp_path, bad, words):
    with Writer(tmp_path / "index", RECIPE, 3) as writer, pytest.raises(ValueError, match=words):
        writer.put(["a", bad, "b"], some_rows(3, 3), [None] * 3)
