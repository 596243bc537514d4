"""Searches of an index in Milvus while it changes, and of values that are no usual numbers."""

import numpy as np
import pytest
from small_milvus import NAMES, saved, some_regions, vectors_of

from rw_keras.retrieval import Diffusion, Index, QueryRegions, Rerank, augment, places
from rw_keras.retrieval.columns import condition
from rw_keras.retrieval.milvus import MilvusError, MilvusIndex, MilvusWriter, searcher
from rw_keras.retrieval.milvus.connection import Connection
from rw_keras.retrieval.milvus.transfer import push
from rw_keras.retrieval.milvus.views import MilvusRegions

pytestmark = pytest.mark.milvus

QUERIES = np.concatenate([np.zeros((1, 8), "float32"), vectors_of(NAMES[:2])])


def test_photos_that_are_not_committed_yet(milvus_place):
    with MilvusWriter(milvus_place, None, 8) as writer:
        writer.put(NAMES, vectors_of(NAMES), [None] * 10)
        with Index.open(milvus_place) as index:
            assert index.nearest(QUERIES[0], 1)[0].shape == (0,)
        writer.commit()
        writer.put(["more"], vectors_of(["more"]), [None])
        with Index.open(milvus_place) as index:
            positions, scores = index.nearest_batch(QUERIES, 20)
            assert positions.shape == scores.shape == (3, 10) and len({*positions[1].tolist()}) == 10
            assert [len(hits) for hits in index.search_batch(QUERIES, 20)] == [10, 10, 10]


def test_photos_that_leave_while_they_are_counted(milvus_place, tmp_path, monkeypatch):
    push(saved(tmp_path / "folder"), milvus_place)
    count = Connection.count

    def more(self, collection, where=""):
        return count(self, collection, where) + 2

    with Index.open(milvus_place) as index:
        monkeypatch.setattr(Connection, "count", more)
        positions, _ = index.nearest_batch(QUERIES, 20)
        assert positions.shape == (3, 10)


def test_a_photo_that_leaves_in_a_search(milvus_place, tmp_path, monkeypatch):
    push(saved(tmp_path / "folder"), milvus_place)
    nearest = MilvusIndex.nearest_batch

    def then_gone(self, *arguments, **options):
        found = nearest(self, *arguments, **options)
        with Index.open(milvus_place) as other:
            other.remove([NAMES[0]])
        return found

    with Index.open(milvus_place) as index:
        with monkeypatch.context() as patch:
            patch.setattr(MilvusIndex, "nearest_batch", then_gone)
            with pytest.raises(MilvusError, match=r"no photo with the id 1 in .*, or no longer; ask again"):
                index.search(QUERIES[1], 10, expand=11)
        assert len(index.search(QUERIES[1], 10, expand=5)) == 9
        index._view.names.clear()
        with pytest.raises(MilvusError, match="or no longer; ask again"):
            index.named([1])
        with pytest.raises(IndexError):
            index.names[1]


def test_candidates_are_held_by_requests(milvus_place, tmp_path, monkeypatch):
    push(saved(tmp_path / "folder"), milvus_place)
    calls, search, best = [], Connection.search, searcher._best
    monkeypatch.setattr(searcher, "_HITS", 8)
    monkeypatch.setattr(Connection, "search", lambda self, *rest: calls.append("asked") or search(self, *rest))
    monkeypatch.setattr(searcher, "_best", lambda *rest: calls.append("done") or best(*rest))
    with Index.open(milvus_place) as index:
        index.search_batch(vectors_of(NAMES[:3]), 2)
    assert calls == ["asked", "done"] * 3


def test_region_vectors_are_held_by_queries(milvus_place, tmp_path, monkeypatch):
    names = [f"{number}.jpg" for number in range(40)]
    memory = Index.load(saved(tmp_path / "folder", names, regions=some_regions(names)))
    push(tmp_path / "folder", milvus_place)
    queries, regions = (
        vectors_of("abcde"),
        [QueryRegions(vectors_of([f"{number} {part}" for part in "abc"])) for number in range(5)],
    )
    monkeypatch.setattr("rw_keras.retrieval.milvus.index._COMPARED", 20)
    held, of = [], MilvusRegions.of
    monkeypatch.setattr(MilvusRegions, "of", lambda self, ids: held.append(len(ids)) or of(self, ids))
    with Index.open(milvus_place) as index:
        for rerank in (10, Rerank(10, smooth=5), 30):
            asked = {"k": 12, "rerank": rerank, "regions": regions}
            assert index.search_batch(queries, **asked) == memory.search_batch(queries, **asked)
    assert len(held) == 3 + 3 + 5 and max(held[:6]) <= 20


def test_numbers_that_no_database_has(milvus_place, tmp_path):
    values = {"city": ["Nan", "inf", "Oxford", None, "infinity"], "year": [1, -5, 2000, None, 2**63 - 1]}
    push(saved(tmp_path / "folder", NAMES[:5], metadata=values), milvus_place)
    memory = Index.load(tmp_path / "folder")
    with Index.open(milvus_place) as index:
        for column in values:
            for symbol in ("=", "!=", "<", "<=", ">", ">="):
                for wanted in ("Nan", "inf", "-inf", "infinity", str(10**30), str(-(10**30)), "1" + "0" * 400, "1e400"):
                    words = [f"{column}{symbol}{wanted}"]
                    found = [one.search(QUERIES[1], 5, within=condition(words, one.metadata)) for one in (index, memory)]
                    assert found[0] == found[1], words
        assert index.search(QUERIES[1], within={"year": 10**30}) == [] == memory.search(QUERIES[1], within={"year": 10**30})


def test_names_that_are_not_there(milvus_place, tmp_path):
    push(saved(tmp_path / "folder"), milvus_place)
    with Index.open(milvus_place) as index:
        assert len(index.search(QUERIES[1], within=iter(NAMES[:3]))) == 3 and index.search(QUERIES[1], within=[]) == []
        with pytest.raises(ValueError, match=r"There is no 'nowhere' in the index milvus"):
            index.search(QUERIES[1], within=[NAMES[0], "nowhere"])


def test_what_goes_over_all_rows_is_refused(milvus_place, tmp_path):
    from rw_keras.commands.main import run
    from rw_keras.evaluation import evaluate_index

    push(saved(tmp_path / "folder"), milvus_place)
    with Index.open(milvus_place) as index:
        for function in (lambda: evaluate_index(index, "folders"), lambda: augment(index, 3), lambda: Diffusion(index)):
            with pytest.raises(ValueError, match=r"index in memory, and milvus.* is in Milvus; `rw-keras pull` it first"):
                function()
    with pytest.raises(ValueError, match=r"evaluate goes over .* and milvus://host:19530/photos is in Milvus"):
        run(["evaluate", "milvus://user:secret@host/photos", "--labels", "folders"])


@pytest.mark.parametrize("value", [str(10**30), "nan", "-1e999"])
def test_values_that_milvus_does_not_keep(milvus_place, tmp_path, photo_folder, value):
    from rw_keras.commands.main import run

    (tmp_path / "values.csv").write_text(f"name,size\na.png,{value}\n")
    with pytest.raises(ValueError, match=r"as JSON in UTF-8, and a value of \{'size': .*\} is none"):
        run(["index", str(photo_folder), "-o", milvus_place, "--metadata", str(tmp_path / "values.csv")])
    assert places.about(milvus_place) is None
    with MilvusWriter(milvus_place, None, 8) as writer:
        writer.put(NAMES, vectors_of(NAMES), [None] * 10)
        with pytest.raises(ValueError, match="as JSON in UTF-8"):
            writer.update_metadata({"size": {NAMES[0]: int(value) if value.isdecimal() else float(value)}})
        writer.commit()
        assert writer.about["columns"] == []
