import itertools
import os
import re
import shutil
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rw_keras.retrieval import Index, expand_query, store
from rw_keras.retrieval.writer import Writer

# A function that a save calls, and which of the calls fails. Every system call fails in test_writer.py.
FAILURES = [*((os, "fsync", call) for call in (1, 2, 3)), (os, "replace", 1)]


def collection(count, dimensions, seed=0):
    """Names and rows of unit length, float32."""
    rows = np.random.default_rng(seed).standard_normal((count, dimensions))
    return [f"photo {number}" for number in range(count)], (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")


def contents(folder):
    """The files of a folder and their bytes, without the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


class TestMaking:
    def test_keeps_names_and_rows(self):
        names, rows = collection(9, 5)
        index = Index(iter(names), rows, recipe={"backbone": "tiny"})
        assert index.names == names
        np.testing.assert_array_equal(index.descriptors, rows)
        assert (len(index), index.recipe, index.failures) == (9, {"backbone": "tiny"}, [])
        assert repr(index) == "<Index of 9 descriptors, 5 dimensions>"
        assert [index.position(name) for name in names] == list(range(9))

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8"])
    def test_rows_of_other_lengths_are_scaled(self, dtype):
        rows = np.array([[3, 4], [0, 7], [200, 0], [1, 1]], dtype)
        index = Index("abcd", rows)
        assert index.descriptors.dtype == np.float32
        np.testing.assert_allclose(index.descriptors, [[0.6, 0.8], [0, 1], [1, 0], [0.5**0.5, 0.5**0.5]], atol=1e-7)
        assert rows[0, 0] == 3

    @pytest.mark.parametrize(("size", "dtype"), [(1e-300, "float64"), (1e300, "float64"), (1e-42, "float32"), (1e38, "float32")])
    def test_rows_of_extreme_lengths_are_scaled_in_silence(self, size, dtype):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            index = Index("ab", np.array([[size, -size], [0, size]], dtype))
        np.testing.assert_allclose(index.descriptors, [[0.5**0.5, -(0.5**0.5)], [0, 1]], atol=1e-6)

    def test_rows_of_unit_length_are_left_as_they_are(self):
        names, rows = collection(100, 512)
        rows *= np.float32(1 + 5e-5)  # what float32 arithmetic makes of a unit length
        assert Index(names, rows).descriptors is rows

    def test_zero_rows_stay_zero(self):
        index = Index("abc", [[0, 0], [0, 2], [0, 0]])
        np.testing.assert_array_equal(index.descriptors, [[0, 0], [0, 1], [0, 0]])
        assert index.search([0.0, 1.0]) == [("b", 1.0), ("a", 0.0), ("c", 0.0)]
        assert index.search([0.0, -1.0])[0] == ("a", 0.0)

    def test_refuses_a_name_that_is_there_twice(self):
        with pytest.raises(ValueError, match="'b' stands at positions 1 and 3"):
            Index("abcb", np.eye(4))

    @pytest.mark.parametrize("name", [7, b"photo", None, ("a",)], ids=repr)
    def test_refuses_names_that_are_no_strings(self, name):
        with pytest.raises(ValueError, match=re.escape(repr(name)) + " at position 1"):
            Index(["a", name, "c"], np.eye(3))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_refuses_vectors_that_are_not_finite(self, value, dtype):
        rows = np.eye(4, dtype=dtype)
        rows[2, 1] = value
        with pytest.raises(ValueError, match=r"'c' \(position 2\)"):
            Index("abcd", rows)

    def test_refuses_numbers_that_do_not_agree(self):
        with pytest.raises(ValueError, match="2 names for 3 descriptors"):
            Index("ab", np.eye(3))

    @pytest.mark.parametrize("rows", [np.zeros(3), np.zeros((3, 2, 2)), np.zeros((3, 2), "complex64"), np.zeros((3, 2), "U1")])
    def test_refuses_what_are_no_vectors(self, rows):
        with pytest.raises(ValueError, match=re.escape(f"{rows.shape} of {rows.dtype}")):
            Index("abc", rows)

    def test_unknown_name(self):
        with pytest.raises(ValueError, match="no 'z' in the index of 2 names"):
            Index("ab", np.eye(2)).position("z")


class TestSearch:
    @pytest.mark.parametrize(("count", "dimensions"), [(1, 1), (500, 64), (20000, 8), (16384, 8), (16385, 8)])
    def test_is_exact(self, count, dimensions):
        names, rows = collection(count, dimensions)
        index = Index(names, rows)
        query = np.random.default_rng(1).standard_normal(dimensions)
        cosines = rows.astype("float64") @ (query / np.linalg.norm(query))
        np.testing.assert_allclose(index.scores(query), cosines, atol=1e-6)
        assert sorted(index.rank(query)) == sorted(names)
        for k in {1, min(10, count), count}:
            hits = index.search(query, k)
            assert len(hits) == k
            found = cosines[[index.position(name) for name, _ in hits]]
            np.testing.assert_allclose([score for _, score in hits], found, atol=1e-6)
            np.testing.assert_allclose(found, np.sort(cosines)[::-1][:k], atol=1e-6)

    @given(
        rows=st.lists(st.tuples(*[st.integers(-1, 1)] * 3), min_size=1, max_size=40),
        query=st.tuples(*[st.integers(-1, 1)] * 3),
        k=st.integers(1, 50),
    )
    def test_equal_cosines_keep_the_order_of_the_index(self, rows, query, k):
        index = Index([str(number) for number in range(len(rows))], np.array(rows))
        scores = index.scores(np.array(query))
        stable = sorted(range(len(rows)), key=lambda number: -scores[number])
        assert index.rank(np.array(query)) == [str(number) for number in stable]
        assert [name for name, _ in index.search(np.array(query), k)] == [str(number) for number in stable[:k]]

    @pytest.mark.parametrize("dimensions", [8, 64, 100, 512])
    @pytest.mark.parametrize("count", [5, 37, 1000, 16390])
    def test_equal_vectors_keep_the_order_of_the_index(self, count, dimensions):
        _, rows = collection(1, dimensions)
        index = Index([str(number) for number in range(count)], np.repeat(rows, count, axis=0))
        query = np.random.default_rng(2).standard_normal(dimensions)
        assert index.rank(query) == index.names
        assert [name for name, _ in index.search(query, 3)] == ["0", "1", "2"]

    def test_a_vector_of_the_index_finds_itself(self):
        names, rows = collection(200, 32)
        index = Index(names, rows)
        for number in (0, 99, 199):
            (name, cosine), *_ = index.search(rows[number], 1)
            assert name == names[number]
            assert cosine == pytest.approx(1, abs=1e-6)

    def test_plain_values(self):
        ((name, score),) = Index("a", [[1.0]]).search(np.array([1]))
        assert (type(name), type(score)) == (str, float)

    def test_k_defaults_to_10_and_may_be_more_than_there_are(self):
        names, rows = collection(12, 4)
        index = Index(names, rows)
        assert len(index.search(rows[0])) == 10
        assert len(index.search(rows[0], 13)) == len(index.search(rows[0], np.int64(1000))) == 12

    @pytest.mark.parametrize("k", [0, -3, 2.5, True, "4", None])
    def test_refuses_k(self, k):
        with pytest.raises(ValueError, match=f"`k` is a whole number of at least 1, but got {k!r}"):
            Index("ab", np.eye(2)).search(np.ones(2), k)

    @pytest.mark.parametrize("expand", [0, -3, 2.5, True, "4"])
    def test_refuses_expand(self, expand):
        with pytest.raises(ValueError, match=f"at least 1, but got {expand!r}"):
            Index("ab", np.eye(2)).search(np.ones(2), 1, expand)

    def test_the_length_of_the_query_does_not_count(self):
        names, rows = collection(50, 8)
        index = Index(names, rows)
        for scale in (1e-200, 1e-3, 1e3, 1e200):
            np.testing.assert_allclose(index.scores(rows[3].astype("float64") * scale), index.scores(rows[3]), atol=1e-6)

    def test_a_zero_query_is_like_nothing(self):
        names, rows = collection(20, 8)
        index = Index(names, rows)
        assert index.search(np.zeros(8), 3) == [(name, 0.0) for name in names[:3]]
        assert index.search(np.zeros(8), 3, expand=5) == [(name, 0.0) for name in names[:3]]

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_refuses_a_query_that_is_not_finite(self, value):
        with pytest.raises(ValueError, match="NaN, infinite"):
            Index("ab", np.eye(2)).search(np.array([1, value]))

    @pytest.mark.parametrize("shape", [(2,), (4,), (1, 3), (3, 1), ()])
    def test_refuses_a_query_of_another_shape(self, shape):
        with pytest.raises(ValueError, match=r"3 elements.*" + re.escape(str(shape))):
            Index("abc", np.eye(3)).search(np.ones(shape))

    def test_refuses_a_query_that_is_no_numbers(self):
        with pytest.raises(ValueError, match="other than real values"):
            Index("ab", np.eye(2)).search(np.array(["1", "2"]))

    def test_expand_is_a_search_with_the_expanded_query(self):
        names, rows = collection(50, 8)
        index = Index(names, rows)
        query = np.random.default_rng(1).standard_normal(8)
        assert index.search(query, 7, expand=5) == index.search(expand_query(query, index, 5), 7)
        assert index.rank(query, expand=5) == index.rank(expand_query(query, index, 5))
        assert index.rank(query, expand=5) != index.rank(query)
        assert index.search(query, 7, expand=1) == index.search(query, 7)

    def test_an_empty_index(self):
        index = Index([], np.zeros((0, 3)))
        assert index.search(np.ones(3)) == index.rank(np.ones(3)) == index.search(np.ones(3), expand=4) == []


class TestSaving:
    @pytest.fixture
    def index(self):
        names, rows = collection(40, 6)
        return Index(names, rows, recipe={"backbone": "tiny", "levels": 3, "whitening": {"name": "Straßen"}, "max_side": None})

    @pytest.fixture
    def newer(self):
        names, rows = collection(10, 4, seed=5)
        return Index(names, rows, recipe={"backbone": "newer"})

    def check_same(self, one, other):
        assert one.names == other.names
        assert one.recipe == other.recipe
        assert one.descriptors.dtype == other.descriptors.dtype
        assert one.descriptors.tobytes() == other.descriptors.tobytes()

    def test_round_trip(self, index, tmp_path):
        index.save(tmp_path / "index")
        loaded = Index.load(str(tmp_path / "index"))
        self.check_same(loaded, index)
        assert isinstance(loaded.descriptors, np.memmap)
        assert not loaded.descriptors.flags.writeable
        assert loaded.search(index.descriptors[3], 5, expand=3) == index.search(index.descriptors[3], 5, expand=3)
        assert loaded.position("photo 7") == 7
        assert loaded.failures == []

    @pytest.mark.parametrize("name", ["a/b c.jpg", "Ä.png", "写真", "a\nb\t\"'\\", "\udcff.jpg", "", "\0"], ids=ascii)
    def test_any_name(self, name, tmp_path):
        Index(["first", name], np.eye(2)).save(tmp_path / "index")
        assert Index.load(tmp_path / "index").names == ["first", name]

    def test_an_empty_index(self, tmp_path):
        Index([], np.zeros((0, 3))).save(tmp_path / "index")
        loaded = Index.load(tmp_path / "index")
        assert loaded.names == []
        assert loaded.descriptors.shape == (0, 3)

    def test_without_a_recipe(self, tmp_path):
        Index("ab", np.eye(2)).save(tmp_path / "index")
        assert Index.load(tmp_path / "index").recipe is None

    def test_readable_by_others(self, index, tmp_path):
        index.save(tmp_path / "index")
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "index").iterdir()} == {0o644}

    def test_makes_folders(self, index, tmp_path):
        index.save(tmp_path / "deep" / "er" / "index")
        self.check_same(Index.load(tmp_path / "deep" / "er" / "index"), index)

    def test_an_empty_folder_is_taken(self, index, tmp_path):
        index.save(tmp_path)
        self.check_same(Index.load(tmp_path), index)

    def test_replaces_an_index(self, index, newer, tmp_path):
        index.save(tmp_path / "index")
        opened = Index.load(tmp_path / "index")
        newer.save(tmp_path / "index")
        self.check_same(Index.load(tmp_path / "index"), newer)
        assert len(contents(tmp_path / "index")) == 2
        self.check_same(opened, index)  # a process that searches the old one goes on

    def test_saved_onto_itself(self, index, tmp_path):
        index.save(tmp_path / "index")
        Index.load(tmp_path / "index").save(tmp_path / "index")
        self.check_same(Index.load(tmp_path / "index"), index)

    def test_files_of_others_are_left_alone(self, index, newer, tmp_path):
        index.save(tmp_path / "index")
        (tmp_path / "index" / "README.txt").write_text("mine")
        newer.save(tmp_path / "index")
        assert (tmp_path / "index" / "README.txt").read_text() == "mine"

    def test_is_replaced_in_one_step(self, index, newer, tmp_path, monkeypatch):
        """Whatever instant another process opens it at, it gets the old index or the new one."""
        index.save(tmp_path / "index")
        seen, swap = [], Writer._swap

        def looking(writer):
            seen.append(Index.load(tmp_path / "index").names)
            swap(writer)
            seen.append(Index.load(tmp_path / "index").names)

        monkeypatch.setattr(Writer, "_swap", looking)
        newer.save(tmp_path / "index")
        changes = sum(before != after for before, after in itertools.pairwise(seen))
        assert (seen[0], seen[-1], changes) == (index.names, newer.names, 1)

    @pytest.fixture(params=FAILURES, ids=lambda failure: f"{failure[1]} {failure[2]}")
    def broken(self, request, monkeypatch):
        """A function (error) that lets a write fail, and undoes that when it is called with `None`."""
        module, name, call = request.param
        real, calls = getattr(module, name), []

        def breaking(error):
            def failing(*arguments, **keywords):
                calls.append(arguments)
                if len(calls) == call and error is not None:
                    raise error
                return real(*arguments, **keywords)

            monkeypatch.setattr(module, name, real if error is None else failing)

        yield breaking
        assert len(calls) >= call, "the save never came to the call that was to fail"

    @pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=repr)
    def test_an_interrupted_save_leaves_no_index(self, index, tmp_path, broken, error):
        broken(error)
        with pytest.raises(type(error)):
            index.save(tmp_path / "index")
        broken(None)
        assert not (tmp_path / "index").exists()
        index.save(tmp_path / "index")
        self.check_same(Index.load(tmp_path / "index"), index)

    @pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=repr)
    def test_an_interrupted_save_leaves_the_old_index(self, index, newer, tmp_path, broken, error):
        index.save(tmp_path / "index")
        broken(error)
        with pytest.raises(type(error)):
            newer.save(tmp_path / "index")
        broken(None)
        self.check_same(Index.load(tmp_path / "index"), index)
        newer.save(tmp_path / "index")
        self.check_same(Index.load(tmp_path / "index"), newer)
        assert len(contents(tmp_path / "index")) == 2

    @pytest.mark.parametrize("call", [1])
    @pytest.mark.parametrize("existed", [False, True])
    def test_an_interrupt_right_after_a_step_leaves_a_whole_index(self, index, newer, tmp_path, monkeypatch, call, existed):
        """Ctrl-C during a rename is raised when the rename is done."""
        if existed:
            index.save(tmp_path / "index")
        real, calls = os.replace, []

        def interrupted(source, target):
            real(source, target)
            calls.append(target)
            if len(calls) == call:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", interrupted)
            with pytest.raises(KeyboardInterrupt):
                newer.save(tmp_path / "index")
        if existed or (tmp_path / "index").exists():
            loaded = Index.load(tmp_path / "index")
            self.check_same(loaded, newer if loaded.names == newer.names else index)
        newer.save(tmp_path / "index")
        self.check_same(Index.load(tmp_path / "index"), newer)

    def test_an_interrupted_save_leaves_an_empty_folder_empty(self, index, tmp_path, broken):
        broken(OSError("no space left"))
        with pytest.raises(OSError, match="no space left"):
            index.save(tmp_path)
        assert contents(tmp_path) == {}

    def test_refuses_a_folder_that_is_no_index(self, index, tmp_path):
        (tmp_path / "photo.jpg").write_bytes(b"precious")
        with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + " exists and is not an index"):
            index.save(tmp_path)
        assert contents(tmp_path) == {"photo.jpg": b"precious"}

    def test_refuses_a_file(self, index, tmp_path):
        (tmp_path / "index").write_bytes(b"precious")
        with pytest.raises(ValueError, match="is not an index"):
            index.save(tmp_path / "index")
        assert (tmp_path / "index").read_bytes() == b"precious"


class TestOpening:
    """Damage of all kinds is in test_store.py."""

    def test_nothing_there(self, tmp_path):
        for path in (tmp_path / "none", tmp_path):
            with pytest.raises(FileNotFoundError, match="no index at " + re.escape(str(path))):
                Index.load(path)

    def test_a_copy_elsewhere_is_whole(self, tmp_path):
        Index(*collection(40, 6)).save(tmp_path / "index")
        shutil.copytree(tmp_path / "index", tmp_path / "copy")
        assert Index.load(tmp_path / "copy").names == Index.load(tmp_path / "index").names

    def test_many_segments(self, tmp_path, monkeypatch):
        monkeypatch.setattr(store, "SEGMENT_ROWS", 7)
        names, rows = collection(40, 6)
        Index(names, rows).save(tmp_path / "index")
        assert len(list((tmp_path / "index").glob("rows-*"))) == 6
        loaded = Index.load(tmp_path / "index")
        np.testing.assert_array_equal(loaded.descriptors, rows)
        assert loaded.search_batch(rows[:5], 3) == Index(names, rows).search_batch(rows[:5], 3)
