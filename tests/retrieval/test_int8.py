import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rw_keras.retrieval import Index, store
from rw_keras.retrieval.int8 import encoded, stored_dtype
from rw_keras.retrieval.rows import Rows


def unit(count, dimensions=64, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dimensions)).astype("float32")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_hand(rows):
    """What 8 bits make of rows, in float64."""
    rows = rows.astype("float64")
    largest = np.abs(rows).max(axis=1, keepdims=True)
    whole = np.rint(127 * rows / np.where(largest > 0, largest, 1))
    lengths = np.linalg.norm(whole, axis=1, keepdims=True)
    return whole / np.where(lengths > 0, lengths, 1)


@given(hnp.arrays("float32", (3, 5), elements=st.floats(-1, 1, width=32)))
def test_rows_come_back_with_an_error_of_half_a_step(rows):
    kept = encoded(rows, "int8")
    assert kept.dtype == np.int8 and kept.min() >= -127
    rows = rows.astype("float64")
    largest = np.abs(rows).max(axis=1, keepdims=True)
    assert (np.abs(kept * (largest / 127) - rows) <= largest / 253).all()
    read = Rows.of(kept)[:]
    assert read.dtype == np.float32
    lengths = np.linalg.norm(read, axis=1)
    np.testing.assert_allclose(lengths, kept.any(axis=1), atol=1e-6)
    np.testing.assert_array_equal(encoded(read, "int8"), kept)  # nothing is lost the second time


def test_reads_like_an_array():
    rows = unit(10)
    read, plain = Rows.of(encoded(rows, "int8")), by_hand(rows)
    assert (read.shape, len(read), read.dtype, stored_dtype(read)) == ((10, 64), 10, np.float32, "int8")
    for key in (slice(None), slice(2, 5), slice(None, None, -2), [3, 3, 0], np.arange(10) % 2 == 0, 4, -1):
        np.testing.assert_allclose(read[key], plain[key], atol=1e-7)
        assert read[key].shape == plain[key].shape
    np.testing.assert_allclose(np.asarray(read), plain, atol=1e-7)
    np.testing.assert_allclose(read.astype("float64"), plain, atol=1e-7)


@pytest.mark.parametrize("shard_rows", [7, 1000])
def test_an_index_is_kept_and_searched(tmp_path, monkeypatch, shard_rows):
    monkeypatch.setattr(store, "SEGMENT_ROWS", shard_rows)
    rows, names = unit(20), [f"photo {number}" for number in range(20)]
    rows[3] = 0
    Index(names, rows).save(tmp_path / "index", dtype="int8")
    assert store.about(tmp_path / "index")["dtype"] == "int8"
    raw = store.read(tmp_path / "index").rows
    assert raw.dtype == np.int8 and raw.shape == (20, 64)
    assert sum(path.stat().st_size for path in (tmp_path / "index").glob("rows-*")) == 20 * 64
    index = Index.load(tmp_path / "index")
    queries = unit(5, seed=1)
    expected = Index(names, by_hand(rows).astype("float32"))
    for found, known in zip(index.search_batch(queries, 20, 3), expected.search_batch(queries, 20, 3)):
        assert [name for name, _ in found] == [name for name, _ in known]
        np.testing.assert_allclose([score for _, score in found], [score for _, score in known], atol=1e-6)
    assert index.search(rows[0])[0][1] > 0.9995
    assert not index.descriptors[3].any()


def test_changes_are_rounded_alike_and_stay_in_8_bits(tmp_path):
    names = [f"photo {number}" for number in range(12)]
    Index(names[:9], unit(9)).save(tmp_path / "index", dtype="int8")
    index = Index.load(tmp_path / "index")
    index.add(names[9:], unit(3, seed=2))
    index.update(names[:1], unit(1, seed=3))
    index.remove([names[4]])
    assert isinstance(index.descriptors, Rows)
    rows = np.concatenate([unit(1, seed=3), unit(9)[1:4], unit(9)[5:], unit(3, seed=2)])
    np.testing.assert_allclose(np.asarray(index.descriptors), by_hand(rows), atol=1e-7)
    before = index.search_batch(unit(4, seed=5), 12)
    index.save(tmp_path / "index")
    again = Index.load(tmp_path / "index")
    assert stored_dtype(again.descriptors) == "int8"
    np.testing.assert_array_equal(np.asarray(again.descriptors), np.asarray(index.descriptors))
    assert again.search_batch(unit(4, seed=5), 12) == before


@pytest.mark.parametrize(("first", "second"), [("int8", "float32"), ("float32", "float16"), ("float16", "int8")])
def test_saved_as_something_else(tmp_path, first, second):
    Index("abc", unit(3)).save(tmp_path / "one", dtype=first)
    Index.load(tmp_path / "one").save(tmp_path / "two", dtype=second)
    found = Index.load(tmp_path / "two").descriptors
    assert stored_dtype(found) == second
    assert (np.asarray(found, "float64") * unit(3)).sum(axis=1).min() > 0.9995


def test_another_dtype_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dtype is one of float32, float16, int8, but got 'int4'"):
        Index("abc", unit(3)).save(tmp_path / "index", dtype="int4")
    assert not (tmp_path / "index").exists()


def test_what_faiss_has_built_is_not_kept_for_other_rows(tmp_path):
    pytest.importorskip("faiss", reason='FAISS is not installed: pip install "rw_keras[faiss]"')
    index = Index([str(number) for number in range(50)], unit(50), searcher="faiss-flat")
    index.search(unit(1)[0])
    index.save(tmp_path / "int8", dtype="int8")
    index.save(tmp_path / "same")
    assert not list((tmp_path / "int8").glob("searcher-*"))
    assert list((tmp_path / "same").glob("searcher-*"))
    loaded = Index.load(tmp_path / "int8")
    expected = Index.load(tmp_path / "int8", searcher="numpy").search(unit(1)[0])
    assert [name for name, _ in loaded.search(unit(1)[0])] == [name for name, _ in expected]
