"""Vectors as one array, wherever they lie: against NumPy's."""

import mmap
import pathlib
import re
import tempfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_stores import some_rows

from rw_keras.retrieval.int8 import encoded
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.segments import DamageError, Segment

DTYPES = ("float32", "float16", "int8")
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


class TestExpected:
    """What is going to be read is asked of the system all at once, whatever the rows lie in."""

    def mapped(self, path, part):
        part.tofile(path)
        return np.memmap(path, part.dtype, "r", shape=part.shape)

    @settings(max_examples=20)
    @given(data=st.data())
    def test_rows_of_files_are_as_they_were(self, data):
        with tempfile.TemporaryDirectory() as folder:
            parts = [some_rows(count, 512, "int8", count) for count in (300, 41, 128)]
            segments = []
            for number, part in enumerate(parts):
                array = self.mapped(pathlib.Path(folder, f"regions-{number}"), part)
                segments.append(Segment(pathlib.Path(folder, f"regions-{number}"), array, 1000 * number, 128, None))
            ids = np.array(data.draw(st.permutations(range(469))))[: data.draw(st.integers(0, 460))]
            rows = Rows(segments, 512, "int8", ids)
            if data.draw(st.booleans()):
                rows.append(some_rows(3, 512, "int8"))
            positions = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1)) if len(rows) else st.just([])), int)
            rows.expect(positions)
            whole = np.concatenate([*parts, some_rows(3, 512, "int8")])
            np.testing.assert_array_equal(rows[positions], whole[rows.ids()[positions]])

    @pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="the system takes no advice about memory")
    def test_blocks_of_those_rows_and_no_others(self, tmp_path):
        array = self.mapped(tmp_path / "rows", some_rows(300, 512, "int8"))
        asked = []

        class Memory:
            def __len__(self):
                return 300 * 512

            def madvise(self, advice, start, length):
                asked.append((advice, start, start + length))

        segment = Segment(tmp_path / "rows", array, 0, 100, None)
        segment.advised = Memory()
        segment.expect(np.array([299, 0, 5, 200, 99]))
        pages = [0, 51200, 2 * 51200 // mmap.PAGESIZE * mmap.PAGESIZE, 153600]
        assert asked == [(mmap.MADV_WILLNEED, *pages[:2]), (mmap.MADV_WILLNEED, *pages[2:])]

    def test_an_array_is_there_already(self):
        Rows.of(some_rows(5, 3)).expect(np.array([1, 4]))


class Sliced:
    """What gives rows by slices and integers, and is no array."""

    def __init__(self, rows):
        self.rows, self.shape, self.dtype = rows, rows.shape, rows.dtype

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, key):
        return self.rows[key]


def several(part, dtype):
    """The rows in two segments, as a file's with checksums each."""
    segments = []
    for rows in (part[:4], part[4:]):
        segments.append(Segment(pathlib.Path("rows"), rows, 0, 3, [zlib.crc32(rows[at : at + 3]) for at in range(0, len(rows), 3)]))
    return Rows(segments, part.shape[1], dtype).as_descriptors()


SOURCES = {"an array": lambda rows, _: Rows.of(rows), "slices": lambda rows, _: Rows.of(Sliced(rows)), "segments": several}
STEPS = st.lists(st.tuples(st.sampled_from(["append", "replace", "remove"]), st.integers(0, 4), st.integers(0, 99)), max_size=6)


class TestWhateverLiesBehind:
    def plain(self, rows):
        """What is read of rows as they are kept."""
        if rows.dtype != np.int8:
            return rows
        wide = rows.astype("float32")
        lengths = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        return np.divide(wide, lengths, out=wide, where=lengths > 0)

    @pytest.mark.parametrize("source", SOURCES)
    @pytest.mark.parametrize("dtype", DTYPES)
    @settings(max_examples=40)
    @given(count=st.integers(0, 9), steps=STEPS, block=st.integers(1, 5), data=st.data())
    def test_reads_like_an_array(self, source, dtype, count, steps, block, data):
        kept = some_rows(count, 3, dtype)
        before = kept.copy()
        rows, plain = SOURCES[source](kept, dtype), self.plain(kept).copy()
        for what, many, seed in steps:
            new, chosen = some_rows(many, 3, seed=seed), np.random.default_rng(seed).permutation(len(plain))[:many]
            rounded = self.plain(encoded(new, dtype))
            if what == "append":
                rows.append(new)
                plain = np.concatenate([plain, rounded])
            elif what == "replace":
                rows.replace(chosen, new[: len(chosen)])
                plain[chosen] = rounded[: len(chosen)]
            else:
                rows.remove(chosen)
                plain = np.delete(plain, chosen, axis=0)
        assert (rows.shape, rows.dtype, rows.stored_dtype, len(rows)) == (plain.shape, plain.dtype, dtype, len(plain))
        np.testing.assert_array_equal(np.asarray(rows), plain, strict=True)
        slice_ = slice(*data.draw(st.tuples(BOUND, BOUND, st.sampled_from([None, 1, 2, -1]))))
        np.testing.assert_array_equal(rows[slice_], plain[slice_], strict=True)
        places = data.draw(st.lists(st.integers(-len(plain), len(plain) - 1), max_size=5)) if len(plain) else []
        np.testing.assert_array_equal(rows[places], plain[np.array(places, int)], strict=True)
        for place in places:
            np.testing.assert_array_equal(rows[place], plain[place], strict=True)
        passing = np.array(data.draw(st.lists(st.booleans(), min_size=len(plain), max_size=len(plain))), bool)
        np.testing.assert_array_equal(rows[passing], plain[passing], strict=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rw_keras.retrieval.rows.BLOCK_ROWS", block)
            found = {}
            for ids, vectors, skipped in rows.blocks(rows.kept(passing)):
                assert vectors.dtype == np.float32 and len(ids) == len(vectors)
                left = np.ones(len(ids), bool) if skipped is None else ~skipped
                found |= dict(zip(rows.positions(ids[left]).tolist(), vectors[left].tolist()))
        wanted = plain.astype("float32").tolist()
        assert found == {place: wanted[place] for place in np.flatnonzero(passing).tolist()}
        np.testing.assert_array_equal(rows.take(rows.ids()), plain.astype("float32"), strict=True)
        np.testing.assert_array_equal(kept, before)  # the given rows are left alone

    def test_blocks_of_float32_are_views(self):
        whole = some_rows(9)
        for rows in (Rows.of(whole), several(whole, "float32")):
            blocks = list(rows.blocks())
            assert all(np.shares_memory(vectors, whole) for _, vectors, _ in blocks if len(vectors) < 9)
            assert sum(len(ids) for ids, *_ in blocks) == 9
        assert np.shares_memory(next(iter(Rows.of(whole).blocks()))[1], whole)

    def test_of_rows_are_the_rows(self):
        rows = Rows.of(some_rows(3))
        assert Rows.of(rows) is rows
