import json
import os
import re

import numpy as np
import pytest

from rw_keras.retrieval import Index, store
from rw_keras.retrieval.exchange import export_vectors, merge
from rw_keras.retrieval.segments import DamageError
from rw_keras.retrieval.writer import Writer

RECIPE = {"backbone": "tiny", "levels": 3, "max_side": 64}


def unit(count, dimensions=8, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dimensions)).astype("float32")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def made(folder, names, seed=0, dtype="float32", recipe=RECIPE, source="/photos", failures=(), metadata=None, dimensions=8):
    """An index as `extract` makes it, with metadata."""
    with Writer(folder, recipe, dimensions, dtype) as writer:
        writer.set("source", source)
        writer.set("described_with", [{"engine": f"engine {seed}", "precision": "exact"}])
        writer.put(names, unit(len(names), dimensions, seed), [[100, number] for number in range(len(names))])
        for name in failures:
            writer.fail(name, "no photo", [7, 7])
        writer.finish()
        writer.set_metadata(metadata or {})
        writer.finish()
    return folder


class TestMerge:
    @pytest.mark.parametrize("dtype", store.DTYPES)
    def test_all_of_both(self, tmp_path, dtype):
        one = made(tmp_path / "one", ["a", "b"], 1, dtype, failures=["c", "bad"], metadata={"city": ["x", "y"]})
        two = made(tmp_path / "two", ["c", "d", "e"], 2, dtype, metadata={"year": [1, 2, 3]})
        assert merge([one, two], tmp_path / "all") == 5
        found, parts = Index.load(tmp_path / "all"), [Index.load(folder) for folder in (one, two)]
        assert found.names == ["a", "b", "c", "d", "e"]
        np.testing.assert_array_equal(found.descriptors[:], np.concatenate([part.descriptors[:] for part in parts]))
        assert found.metadata == {"city": ["x", "y", None, None, None], "year": [None, None, 1, 2, 3]}
        assert found.failures == [("bad", "no photo")]
        assert [with_["runtime"] for with_ in found.described_with] == ["engine 1", "engine 2"]
        assert store.check(tmp_path / "all") == []
        with Writer(tmp_path / "all", RECIPE, 8) as writer:
            known = writer.find(["b", "d", "bad"])
        assert [known[name].stamp for name in ("b", "d", "bad")] == [[100, 1], [100, 1], [7, 7]]
        assert known["b"].listed is True

    def test_of_two_sources_no_photo_is_let_go(self, tmp_path):
        merge([made(tmp_path / "one", "ab", 1), made(tmp_path / "two", "cd", 2, source="/others")], tmp_path / "all")
        assert "source" not in store.about(tmp_path / "all")
        assert [photo.listed for photo in store.photos(tmp_path / "all")] == [False] * 4

    def test_what_is_refused(self, tmp_path):
        one = made(tmp_path / "one", ["a", "b"])
        for other, words in (
            (made(tmp_path / "size", ["c"], recipe={**RECIPE, "max_side": 32}), "its max_side is 64, that of .*size 32"),
            (made(tmp_path / "half", ["c"], dtype="float16"), "its dtype is 'float32', that of .*half 'float16'"),
            (made(tmp_path / "wide", ["c"], dimensions=4), "its dimensions is 8, that of .*wide 4"),
            (made(tmp_path / "twice", ["c", "b"]), "hold 'b'"),
        ):
            with pytest.raises(ValueError, match=words):
                merge([one, other], tmp_path / "all")
            assert not (tmp_path / "all").exists()
        two = made(tmp_path / "two", ["c"])
        with pytest.raises(ValueError, match=r"There is an index at .*one already"):
            merge([one, two], one)
        with pytest.raises(FileNotFoundError, match=r"no index at .*none"):
            merge([one, tmp_path / "none"], tmp_path / "all")

    def test_damage_is_not_copied(self, tmp_path):
        one, two = made(tmp_path / "one", ["a", "b"]), made(tmp_path / "two", ["c"])
        file = next(one.glob("rows-*"))
        file.write_bytes(file.read_bytes()[:-1] + b"\xff")
        with pytest.raises(DamageError, match=re.escape(str(file))):
            merge([one, two], tmp_path / "all")
        assert not (tmp_path / "all").exists()


class TestExportVectors:
    @pytest.mark.parametrize("dtype", store.DTYPES)
    def test_npy(self, tmp_path, dtype):
        folder = made(tmp_path / "index", ["a", "ü", os.fsdecode(b"\xff")], dtype=dtype)
        assert export_vectors(folder, tmp_path / "vectors.npy") == 3
        found = np.load(tmp_path / "vectors.npy")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, Index.load(folder).descriptors[:])
        assert json.loads((tmp_path / "vectors.names.json").read_text()) == ["a", "ü", "\udcff"]

    def test_parquet(self, tmp_path):
        parquet = pytest.importorskip("pyarrow.parquet", reason='pyarrow is not installed: pip install "rw_keras[parquet]"')
        metadata = {"city": ["Oxford", None], "mixed": [1, "x"]}
        folder = made(tmp_path / "index", ["a", "b"], metadata=metadata)
        assert export_vectors(folder, tmp_path / "vectors.parquet") == 2
        found = parquet.read_table(tmp_path / "vectors.parquet").to_pydict()
        assert (found["name"], found["city"], found["mixed"]) == (["a", "b"], ["Oxford", None], ["1", '"x"'])
        np.testing.assert_array_equal(np.array(found["descriptor"], "float32"), Index.load(folder).descriptors)

    def test_names_that_are_no_text_are_bytes_in_parquet(self, tmp_path):
        parquet = pytest.importorskip("pyarrow.parquet", reason='pyarrow is not installed: pip install "rw_keras[parquet]"')
        export_vectors(made(tmp_path / "index", ["a", "\udcff"]), tmp_path / "vectors.parquet")
        assert parquet.read_table(tmp_path / "vectors.parquet").to_pydict()["name"] == [b"a", b"\xff"]

    @pytest.mark.parametrize("ending", [".npy", ".parquet"])
    def test_an_empty_index(self, tmp_path, ending):
        if ending == ".parquet":
            pytest.importorskip("pyarrow", reason='pyarrow is not installed: pip install "rw_keras[parquet]"')
        assert export_vectors(made(tmp_path / "index", []), tmp_path / f"vectors{ending}") == 0

    def test_what_is_refused(self, tmp_path):
        folder = made(tmp_path / "index", ["a"])
        with pytest.raises(ValueError, match=r"ends in \.npy or \.parquet, but got '.*csv'"):
            export_vectors(folder, tmp_path / "vectors.csv")
        (tmp_path / "vectors.names.json").touch()
        with pytest.raises(FileExistsError, match=r"vectors\.names\.json exists already"):
            export_vectors(folder, tmp_path / "vectors.npy")
