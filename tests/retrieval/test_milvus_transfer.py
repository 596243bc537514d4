"""What an index in Milvus is refused, repaired and told of where its collections hold something that no writer left there."""

import contextlib

import pytest
from small_milvus import NAMES, saved, vectors_of

from rw_keras.retrieval import Index, places, store
from rw_keras.retrieval.milvus import Address, transfer
from rw_keras.retrieval.milvus.connection import Connection
from rw_keras.retrieval.milvus.layout import Structure
from rw_keras.retrieval.milvus.ledger import Ledger, photo_row
from rw_keras.retrieval.milvus.transfer import pull, push
from rw_keras.retrieval.queries import Known
from rw_keras.retrieval.segments import DamageError

pytestmark = pytest.mark.milvus


def without(folder, names):
    """Takes photos out of it."""
    index = Index.load(folder)
    index.remove(names)
    index.save(folder)


@contextlib.contextmanager
def ledger_of(place):
    with contextlib.closing(Connection(Address.of(place))) as connection:
        yield Ledger(connection)


def foreign(number, name):
    """A row that another client writes."""
    return {"id": number, "name": name, "metadata": {}, "vector": vectors_of([name])[0]}


def test_a_push_leaves_no_vector_of_an_earlier_one(milvus_place, tmp_path):
    folder = saved(tmp_path / "folder")
    without(folder, NAMES[:5])
    push(folder, milvus_place)
    again = saved(tmp_path / "again", NAMES[5:])  # the same photos, with lower ids
    push(again, milvus_place)
    with Index.open(milvus_place) as index:
        assert len(index) == 5 and index.search(vectors_of(NAMES)[7], 10) == Index.load(again).search(vectors_of(NAMES)[7], 10)
    assert places.check(milvus_place) == []


def test_a_push_spans_ids_that_the_folder_lacks(milvus_place, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PAGE", 3)
    read = []
    page = transfer.MilvusPages.page
    monkeypatch.setattr(transfer.MilvusPages, "page", lambda self, *ends: read.append(ends) or page(self, *ends))
    push(saved(tmp_path / "all"), milvus_place)
    without(tmp_path / "all", NAMES[2:5])
    read.clear()
    push(tmp_path / "all", milvus_place)
    assert max(stop - start for start, stop in read[:-1]) == 3
    with Index.open(milvus_place) as index:
        assert list(index.names) == NAMES[:2] + NAMES[5:]
    assert places.check(milvus_place) == []


def test_a_push_that_takes_most_photos_away_is_refused(milvus_place, tmp_path):
    from rw_keras.commands.main import run

    push(saved(tmp_path / "all"), milvus_place)
    few = saved(tmp_path / "few", ["other.jpg", *NAMES[:4]])
    with pytest.raises(ValueError, match=r"6 of the 10 photos in milvus.* are not among the 5 of .*few.*--prune"):
        push(few, milvus_place)
    with Index.open(milvus_place) as index:
        assert list(index.names) == NAMES
    assert run(["push", str(few), milvus_place, "--prune"]) == 0
    with Index.open(milvus_place) as index:
        assert list(index.names) == ["other.jpg", *NAMES[:4]]
    push(saved(tmp_path / "half", NAMES[:3]), milvus_place)  # less than half leave


def test_a_searcher_of_a_collection_that_is_there_is_refused(milvus_place, tmp_path):
    folder = saved(tmp_path / "folder")
    push(folder, milvus_place, searcher=Structure.of("milvus-hnsw", m=8))
    push(folder, milvus_place)
    push(folder, milvus_place, searcher=Structure.of("milvus-hnsw", m=8))
    with pytest.raises(ValueError, match=r"is searched by milvus-hnsw m=8 .*, but got milvus-flat; .*use_searcher"):
        push(folder, milvus_place, searcher=Structure.of("milvus-flat"))


def test_what_another_client_wrote_is_seen(milvus_place, tmp_path):
    folder = saved(tmp_path / "folder")
    push(folder, milvus_place)
    with ledger_of(milvus_place) as ledger:
        ledger.connection.upsert(ledger.collections.vectors, [foreign(1, "other"), foreign(10**6, "alien"), foreign(-3, "low")])
        ledger.write([photo_row("twin", Known(5, False, None, None, "none"))])
        found = {damage.what: damage.photos for damage in places.check(milvus_place)}
        assert found.pop("it names 1 photos whose vectors are of others") == ["0.jpg"]
        assert found.pop("it names 2 photos that share an id") == ["4.jpg", "twin"]
        assert [what.partition(" that are no part")[0] for what in found] == ["it holds 2 vectors"]
    with pytest.raises(
        DamageError, match=r"cannot be pulled, because 3 of its photos are not whole: '0.jpg' .*, '4.jpg' .*, 'twin'"
    ):
        pull(milvus_place, tmp_path / "back")
    assert store.about(tmp_path / "back") is None


def test_a_pull_that_differs_says_what_to_delete(milvus_place, tmp_path, monkeypatch):
    folder, back = saved(tmp_path / "folder"), tmp_path / "back"
    push(folder, milvus_place)
    with monkeypatch.context() as patch:
        patch.setattr(transfer.FolderPages, "pages", lambda self: iter([]))
        with pytest.raises(ValueError, match=rf"Delete {back}, and pull it once more"):
            pull(milvus_place, back)
