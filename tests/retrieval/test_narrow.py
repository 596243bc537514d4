"""Products of rows of 16 and 8 bits without widening: as exact as those with it."""

import numpy as np
import pytest
import simsimd
from hypothesis import given, settings
from hypothesis import strategies as st

from rw_keras.retrieval import Index, exact, narrow
from rw_keras.retrieval.int8 import encoded, scaled
from rw_keras.retrieval.rows import Rows

KINDS = ("float16", "int8")


def unit(vectors):
    lengths = np.linalg.norm(vectors.astype("float64"), axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros(vectors.shape), where=lengths > 0).astype("float32")


def some(count, dimensions, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((count, dimensions)))


def exact_products(kept, queries):
    """In float64, of the rows as they are read."""
    rows = scaled(kept) if kept.dtype == np.int8 else kept
    return rows.astype("float64") @ queries.astype("float64").T


def widened(rows, queries, k, passing=None):
    """The same search with all rows widened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(narrow, "suits", lambda *_: False)
        return exact.nearest(rows, queries, k, passing)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dimensions", [1, 2, 7, 31, 64, 129, 512, 2048])
@pytest.mark.parametrize("count", [1, 3, narrow._FEW])
def test_products_stay_within_the_bound(kind, dimensions, count):
    kept = encoded(some(203, dimensions), kind)
    queries = some(count, dimensions, 1)
    tiles, off = narrow.products(Rows.of(kept), queries)
    found = np.concatenate([tile for _, _, tile in tiles])
    assert found.shape == (203, count)
    assert np.abs(found - exact_products(kept, queries)).max() <= off + exact.rounding(dimensions)
    assert off < (1e-3 if kind == "float16" else 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_tiny_elements_and_zero_rows(kind):
    rows = some(64, 33)
    rows[3] = 0
    rows[:, 1:20] *= np.float32(1e-7)  # below what 16 bits hold without loss
    rows = unit(rows)
    queries = rows[[0, 5]].copy()
    kept = encoded(rows, kind)
    tiles, off = narrow.products(Rows.of(kept), queries)
    found = np.concatenate([tile for _, _, tile in tiles])
    assert np.abs(found - exact_products(kept, queries)).max() <= off + exact.rounding(33)
    assert not found[3].any()


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_search_finds_what_it_finds_in_widened_rows(kind, data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    count, dimensions = data.draw(st.integers(2, 400)), data.draw(st.integers(1, 70))
    # Rows in tight groups, so that many cosines differ by less than the rounding of a query, and equal ones.
    centres = random.standard_normal((data.draw(st.integers(1, 4)), dimensions))
    rows = centres[random.integers(len(centres), size=count)] + data.draw(st.sampled_from([0, 1e-5, 1e-3, 1])) * (
        random.standard_normal((count, dimensions))
    )
    rows = Rows.of(encoded(unit(rows), kind))
    queries = unit(rows.take(np.arange(min(len(rows), data.draw(st.integers(1, narrow._FEW))))))
    passing = random.random(count) < data.draw(st.sampled_from([0.1, 0.6, 1]))
    passing[0] = True
    k = data.draw(st.integers(1, count))
    found, expected = exact.nearest(rows, queries, k, passing), widened(rows, queries, k, passing)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("kind", KINDS)
def test_changed_indices_and_files_of_several_segments(kind, folder):
    vectors = some(5000, 48)
    names = [f"{number}.jpg" for number in range(5000)]
    Index(names, vectors).save(folder, dtype=kind)
    index = Index.load(folder)
    index.add(["new.jpg", "another.jpg"], some(2, 48, 7))
    index.remove(names[10:3000:7])
    index.update(["new.jpg", "4000.jpg"], some(2, 48, 8))
    queries = np.concatenate([some(3, 48, 8), vectors[[4999]]])
    for state in (index, None):
        if state is None:
            index.save(folder)
            state = Index.load(folder)
        rows = Rows.of(state.descriptors)
        assert narrow.suits(rows, queries)
        found, expected = exact.nearest(rows, queries, 20), widened(rows, queries, 20)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_which_searches_it_suits():
    few, many = some(narrow._FEW, 8), some(narrow._FEW + 1, 8)
    for kind in KINDS:
        rows = Rows.of(encoded(some(9, 8), kind))
        assert narrow.suits(rows, few) and not narrow.suits(rows, many)
    assert not narrow.suits(Rows.of(some(9, 8)), few)


def test_no_kernel_adds_up_in_16_bits():
    on = simsimd.get_capabilities()
    assert not (on["sapphire"] or on["neon_f16"] or on["sve_f16"])
    ones = np.full((1, 4096), 1 / 64, "float16")
    ones[0, ::2] += np.float16(2**-15)
    exactly = np.einsum("d,d->", ones[0].astype("float64"), ones[0].astype("float64"))
    assert abs(float(np.asarray(simsimd.cdist(ones, ones, "dot"))[0, 0]) - exactly) < 1e-5
