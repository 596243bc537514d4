"""Indices in Milvus, asked for real: they find, hold and hand back what an index in memory, or a folder, does."""

import contextlib
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
import small_stores
from small_stores import DIMENSIONS, RECIPE, REGIONS, bring_up_to_date, some_changes, some_photos, visible

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.retrieval import Index, QueryRegions, Rerank, exclusions, places, store
from rw_keras.retrieval.columns import condition
from rw_keras.retrieval.milvus import Address, MilvusError, MilvusIndex, MilvusWriter
from rw_keras.retrieval.milvus.connection import Connection
from rw_keras.retrieval.milvus.layout import LEASE
from rw_keras.retrieval.milvus.ledger import Ledger, row
from rw_keras.retrieval.milvus.repair import reconcile
from rw_keras.retrieval.milvus.transfer import pull, push
from rw_keras.retrieval.writer import LockedError, Writer

pytestmark = pytest.mark.milvus

COUNT = 300


def unit(seed, count, dimensions=8):
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions)).astype("float32")
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def strange_names(count):
    """Names with all that may stand in one."""
    parts = ["a/", "a_%", "b'\"", "\\c", "\n\t\x01", "\udcff\udc80", "\U0010fe80ü", "日本/"]
    return [f"{parts[number % len(parts)]}{number}.jpg" for number in range(count)]


def in_memory(seed=0, count=COUNT, regions=True, repeated=True):
    """An index with equal rows, a zero row, metadata and region vectors."""
    vectors = unit(seed, count)
    if repeated:
        vectors[count // 2 : count // 2 + 40] = vectors[3]
        vectors[7] = 0
    own = [PhotoRegions(unit(number, number % 4, 6), np.tile([0, 0, 0.5, 1.0], (number % 4, 1))) for number in range(count)]
    metadata = {
        "city": [["Oxford", "Paris", 'Quo"te\\d\n', None, "日本"][number % 5] for number in range(count)],
        "year": [None if number % 7 == 0 else 1990 + number % 30 for number in range(count)],
        'a "ti\\tle"': [number % 2 == 0 for number in range(count)],
    }
    return Index(strange_names(count), vectors, recipe=RECIPE, metadata=metadata, regions=own if regions else None)


@pytest.fixture(scope="module")
def memory():
    return in_memory()


@pytest.fixture
def saved(memory, tmp_path):
    memory.save(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.on_server
def test_it_finds_what_an_index_in_memory_finds(memory, saved, milvus_place):
    push(saved, milvus_place)
    queries = np.concatenate([unit(1, 5), memory.descriptors[3:4], np.zeros((1, 8), "float32")])
    regions = [QueryRegions(unit(number + 50, 3, 6)) for number in range(len(queries))]
    with Index.open(milvus_place) as index:
        assert len(index) == COUNT and list(index.names) == memory.names and "not there" not in index.names
        for options in (
            {"k": 1},
            {"k": 10},
            {"k": 47, "min_score": 0.3},
            {"k": COUNT + 5},
            {"k": 12, "expand": 4},
            {"k": 12, "expand": 4, "alpha": 3.0},
            {"k": 20, "within": "a"},
            {"k": 20, "within": "a_%"},
            {"k": 20, "within": "\udcff"},
            {"k": 20, "within": ""},
            {"k": 9, "within": memory.names[40:44], "expand": 3},
            {"k": 99, "within": {"city": "Oxford"}},
            {"k": 99, "within": {"city": 'Quo"te\\d\n', 'a "ti\\tle"': True}},
            {"k": 99, "within": {"city": None}},
            {"k": 99, "within": {"year": 2003}},
        ):
            assert index.search_batch(queries, **options) == memory.search_batch(queries, **options), options
        for rerank in (10, Rerank(30, smooth=9)):
            asked = {"k": 20, "rerank": rerank, "regions": regions}
            assert index.search_batch(queries, **asked) == memory.search_batch(queries, **asked)
        one = index.search(queries[0], 5, rerank=10, regions=regions[0])
        assert one == memory.search(queries[0], 5, rerank=10, regions=regions[0])
        assert index.rank(queries[0]) == memory.rank(queries[0])
        assert index.recall(queries) == 1.0
        np.testing.assert_array_equal(index.scores(queries[0]), memory.scores(queries[0]))
        np.testing.assert_array_equal(index.regions[index.position(memory.names[5])].vectors, memory.regions[5].vectors)
        for words in (
            ["city=Oxford"],
            ["city!=Oxford"],
            ["city="],
            ["city!="],
            ["city>P"],
            ["year>=2005"],
            ["year!=2005"],
            ["year<2000", "year>1992", "city=Paris"],
            ['a "ti\\tle"=True'],
        ):
            found = [one.search(queries[0], COUNT, within=condition(words, one.metadata)) for one in (index, memory)]
            assert found[0] == found[1] and len(found[0]), words
        for options in ({"threshold": 0.9}, {"threshold": 0.9, "limit": 100}):
            assert list(index.near_duplicates(**options)) == list(memory.near_duplicates(**options))
        assert index.near_duplicates(0.9, groups=True) == memory.near_duplicates(0.9, groups=True)


def test_what_milvus_cannot_evaluate_is_refused(saved, milvus_place):
    push(saved, milvus_place)
    with Index.open(milvus_place) as index:
        query = unit(1, 1)[0]
        for within, words in (
            (lambda name: True, "knows no Python, but got a function;"),
            (np.ones(COUNT, bool), "has no mask of its rows"),
            ({"year": lambda year: True}, "a function for the column 'year'"),
            ({"nothing": 1}, "There is no 'nothing' in the index's metadata, which has 'city', 'year'"),
            ({"year": [1]}, "Milvus compares texts, finite numbers and booleans"),
            (7, "but got 7"),
        ):
            with pytest.raises(ValueError, match=words):
                index.search(query, within=within)
        with pytest.raises(ValueError, match="16384 hits of a query, but got k = 20000"):
            index.search(query, 20000)
        with pytest.raises(ValueError, match="vector of 8 elements"):
            index.search(unit(1, 1, 9)[0])


def test_rows_come_and_go(memory, saved, milvus_place):
    push(saved, milvus_place)
    other = in_memory(count=COUNT)
    with Index.open(milvus_place) as index:
        new = {"metadata": {"city": ["x", None], "year": [1, 2], 'a "ti\\tle"': [None, True]}}
        new["regions"] = [PhotoRegions(unit(9, 2, 6), np.zeros((2, 4))), PhotoRegions(unit(9, 0, 6), np.zeros((0, 4)))]
        for one in (index, other):
            one.add(["new", "newer"], unit(5, 2) * 3, **new)
            one.update([memory.names[3], "newer"], unit(6, 2), regions=new["regions"])
            one.remove([memory.names[0], "new"])
        query = unit(6, 2)[1]
        assert index.search(query, 9) == other.search(query, 9) and list(index.names) == other.names
        assert index.search(query, 9, within={"year": 2}) == other.search(query, 9, within={"year": 2}) != []
        for change, words in (
            (
                lambda: index.add(["newer"], unit(1, 1), {name: [None] for name in other.metadata}, new["regions"][:1]),
                "in the index already",
            ),
            (lambda: index.remove(["not there"]), "There is no 'not there' in the index"),
            (lambda: index.remove(["newer", "newer"]), "'newer' is given 2 times"),
            (lambda: index.update(["newer"], unit(1, 1, 9), new["regions"][:1]), "have 8 dimensions, but got 9"),
            (lambda: index.add(["x"], unit(1, 1)), "has the columns"),
        ):
            with pytest.raises(ValueError, match=words):
                change()
        assert index.search(query, 9) == other.search(query, 9)
    assert places.check(milvus_place) == []


@pytest.mark.parametrize("regions", [None, REGIONS])
def test_an_update_leaves_what_it_leaves_in_a_folder(milvus_place, tmp_path, regions):
    photos = some_photos(120)
    for step, state in enumerate((photos, photos, some_changes(photos), photos)):
        done = [bring_up_to_date(place, state, regions=regions) for place in (tmp_path / "folder", milvus_place)]
        counts = [(one.described, one.changed, one.removed, sorted(one.unread), sorted(one.undecodable)) for one in done]
        assert counts[0] == counts[1]
        pull(milvus_place, tmp_path / f"pulled{step}")
        assert visible(tmp_path / f"pulled{step}") == visible(tmp_path / "folder")
    assert places.check(milvus_place) == []


def test_a_name_that_is_excluded_stays_out(milvus_place, tmp_path):
    photos = {f"{number}.jpg": ([1, number], unit(number, 1, DIMENSIONS)[0]) for number in range(4)}
    bring_up_to_date(milvus_place, photos)
    with MilvusWriter(milvus_place, RECIPE, DIMENSIONS) as writer:
        writer.exclude(["2.jpg"])
        writer.commit()
    assert bring_up_to_date(milvus_place, photos).excluded == 1 and places.excluded(milvus_place) == {"2.jpg"}
    assert exclusions.take_back(milvus_place, ["2.jpg"]) == 1
    assert bring_up_to_date(milvus_place, photos).described == 1
    with Index.open(milvus_place) as index:
        assert sorted(index.names) == sorted(photos) and index.excluded() == set()


def filled(folder, photos, dtype="float32"):
    """An index with something of everything that one may hold."""
    bring_up_to_date(folder, photos, regions=REGIONS, dtype=dtype)
    with Writer(folder, RECIPE, DIMENSIONS) as writer:
        writer.exclude(["0003.jpg", "another \udcff"])
        writer.update_metadata({"year": {"0001.jpg": 5, "0002.jpg": "q"}, "é": {"0004.jpg": [1, {"a": None}]}})
        for field in ("source", "versions", "described_with"):
            writer.set(field, [{"runtime": "none", "precision": "exact"}] if field == "described_with" else {"of": field})
        writer.finish()


@pytest.mark.on_server
def test_there_and_back_again(milvus_place, tmp_path, capsys):
    photos, folder = some_photos(3000), tmp_path / "folder"
    filled(folder, photos)
    done = push(folder, milvus_place)
    assert done.written == done.photos > 2900
    assert pull(milvus_place, tmp_path / "back").digest == done.digest
    assert visible(tmp_path / "back") == visible(folder)
    assert push(folder, milvus_place).written == 0
    bring_up_to_date(folder, some_changes(photos), regions=REGIONS)
    changed = push(folder, milvus_place)  # brought up to date, and neither dropped nor written whole
    assert 0 < changed.written < changed.photos / 2
    pull(milvus_place, tmp_path / "later")
    assert visible(tmp_path / "later") == visible(folder)
    assert places.check(milvus_place) == []
    found = places.summary(milvus_place)
    assert (found.photos, found.left_out, found.excluded) == (len(store.read(folder).names), len(store.read(folder).failures), 2)
    with pytest.raises(ValueError, match=r"There is an index at .* already"):
        pull(milvus_place, folder)


def test_what_was_broken_off_goes_on(milvus_place, tmp_path):
    folder = tmp_path / "folder"
    filled(folder, some_photos(3000))

    def interrupted(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(folder, milvus_place, progress=interrupted)
    with Index.open(milvus_place) as index:
        assert 0 < len(index) < 1100
    assert push(folder, milvus_place).written < 2000
    calls = []

    def later(count):
        calls.append(count)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(milvus_place, tmp_path / "back", progress=later)
    assert store.about(tmp_path / "back") is None  # it is no index before it is whole
    assert pull(milvus_place, tmp_path / "back").written < 1000
    assert visible(tmp_path / "back") == visible(folder)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_vectors_that_the_server_has_not_are_refused_with_both_values(milvus_place, tmp_path, dtype):
    filled(tmp_path / "folder", some_photos(60), dtype)
    with pytest.raises(ValueError, match=f"to be kept as {dtype}, and .* is (milvus-lite|Milvus 2.3.5.*), which has no .*_VECTOR"):
        push(tmp_path / "folder", milvus_place)
    assert places.about(milvus_place) is None
    push(tmp_path / "folder", milvus_place, dtype="float32")
    pull(milvus_place, tmp_path / "back")
    rows = [np.asarray(Index.load(folder).descriptors[:], "float32") for folder in (tmp_path / "folder", tmp_path / "back")]
    np.testing.assert_array_equal(*rows)


def test_another_recipe_is_refused_with_both_values(saved, milvus_place, tmp_path):
    push(saved, milvus_place)
    about = places.about(milvus_place)
    in_memory(count=20).save(tmp_path / "other")
    with Writer(tmp_path / "other", RECIPE, 8) as writer:
        writer.set("recipe", {**RECIPE, "max_side": 128})
        writer.finish()
    with pytest.raises(ValueError, match=r"max_side.*64.*128"):
        push(tmp_path / "other", milvus_place)
    for arguments, words in (
        ((RECIPE, 9), "it has 8 dimensions, the one asked for 9"),
        ((RECIPE, 8, "int8"), "its dtype is 'float32', the one asked for 'int8'"),
    ):
        with pytest.raises(ValueError, match=words), MilvusWriter(milvus_place, *arguments):
            pass
    with pytest.raises(ValueError, match="no new index can take the place of another"):
        places.writer(milvus_place, RECIPE, 8, beside=True)
    assert places.about(milvus_place) == about


@pytest.mark.on_server
def test_a_collection_of_something_else_is_left_alone(saved, milvus_place):
    import pymilvus

    address = Address.of(milvus_place)
    client = pymilvus.MilvusClient(uri=address.uri)
    client.create_collection(address.collection, dimension=8)
    client.insert(address.collection, [{"id": 1, "vector": [0.0] * 8}])
    for attempt in (lambda: push(saved, milvus_place), lambda: Index.open(milvus_place), lambda: places.about(milvus_place)):
        with pytest.raises(ValueError, match="is a collection of something else"):
            attempt()
    assert client.list_collections().count(address.collection) == 1
    assert len(client.query(address.collection, filter="id >= 0", consistency_level="Strong")) == 1
    client.close()


@pytest.mark.on_server
def test_one_process_writes(milvus_place, impatient):
    with MilvusWriter(milvus_place, RECIPE, 8) as writer:
        with pytest.raises(LockedError, match="is being written by another process"), MilvusWriter(milvus_place, RECIPE, 8):
            pass
        writer.put(["a"], unit(0, 1), [None])
        writer.commit()
        # A process of this machine that is no more; meanwhile it took over.
        ((token, own),) = writer._lease._rows().items()
        left = {**own, "token": "another", "process": 2**22 + 1}
        writer.ledger.write([row("lease:another", LEASE, left)])
        writer.ledger.connection.delete(writer.ledger.collections.ledger, "key", [f"lease:{token}"])
        writer.put(["b"], unit(1, 1), [None])
        with pytest.raises(LockedError, match="took over"):
            writer.commit()
    with MilvusWriter(milvus_place, RECIPE, 8) as writer:  # what was not committed is gone
        assert [photo.name for photo in writer.photos()] == ["a"] and writer.count() == 1
    assert places.check(milvus_place) == []


def test_what_a_killed_writer_left_is_put_right(saved, milvus_place):
    push(saved, milvus_place)
    connection = Connection(Address.of(milvus_place))
    with contextlib.closing(connection):
        ledger = Ledger(connection)
        about = ledger.about()
        connection.delete(ledger.collections.vectors, "id", [5, 6])
        ledger.forget([strange_names(COUNT)[8]])
        words = {damage.what for damage in places.check(milvus_place)}
        assert any("2 described photos that have no vector" in what for what in words) and len(words) >= 2
        assert reconcile(ledger, about) == (1, 2)
    assert places.check(milvus_place) == []
    assert push(saved, milvus_place).written == 3


@pytest.mark.parametrize("name", ["milvus-hnsw", "milvus-ivf-flat", "milvus-ivf-sq8", "milvus-diskann"])
def test_other_structures_give_exact_cosines(milvus_place, tmp_path, name):
    if name == "milvus-diskann":
        pytest.skip("DiskANN is neither in milvus-lite nor in the server of the wheel, which is built without it")
    memory = in_memory(count=2000, regions=False, repeated=False)
    memory.save(tmp_path / "saved")
    push(tmp_path / "saved", milvus_place)
    queries = unit(3, 8)
    with MilvusIndex(milvus_place, consistency="Bounded") as index:
        index.use_searcher(name, **({"nlist": 16, "nprobe": 4} if "ivf" in name else {"ef_search": 20}))
        exact = dict(memory.search(queries[0], 2000))
        assert all(exact[found] == score for found, score in index.search(queries[0], 20))
        assert 0.3 < index.recall(queries) <= 1
        assert len(index.search(queries[0], 2000)) == 2000  # more than the lists that are looked at have
        assert len(index.search(queries[0], 50, within={"year": 2003})) == 50
        with pytest.raises(ValueError, match=r"has no parameters|has .*, but got 'mm'"):
            index.use_searcher(name, mm=3)
    with Index.open(milvus_place) as index:
        assert index.searcher_config["name"] == name


def test_no_message_has_the_password(tmp_path):
    place = "milvus://root:s3cr%23t@127.0.0.1:1/photos"
    assert "s3cr" not in repr(Address.of(place)) + str(Address.of(place)) + places.shown(place)
    began = time.monotonic()
    with pytest.raises(MilvusError) as found:
        MilvusIndex(place, timeout=2)
    assert "s3cr" not in str(found.value) and time.monotonic() - began < 15
    assert "milvus://127.0.0.1:1/photos could not be reached" in str(found.value)


def test_there_is_no_such_index(milvus_place):
    with pytest.raises(FileNotFoundError, match="There is no index at milvus://"):
        Index.open(milvus_place)
    assert places.about(milvus_place) is None and list(places.photos(milvus_place)) == [] and places.excluded(milvus_place) == set()


@pytest.mark.on_server
def test_photos_are_described_right_into_it(milvus_place, photo_folder, tmp_path, model):
    import rw_keras
    from rw_keras.photos.reading import ImageError

    (photo_folder / "bad.jpg").write_bytes(b"none")
    options = {"max_side": 64, "progress": False, "runtime": "tensorflow", "regions": "int8"}
    done = [rw_keras.extract(model, photo_folder, out, **options) for out in (tmp_path / "folder", milvus_place)]
    assert [(one.described, len(one.failures)) for one in done] == [(6, 1)] * 2
    (photo_folder / "a.png").unlink()
    done = [rw_keras.extract(model, photo_folder, out, progress=False) for out in (tmp_path / "folder", milvus_place)]
    assert [(one.described, one.kept, one.removed) for one in done] == [(0, 5, 1)] * 2
    pull(milvus_place, tmp_path / "back")
    assert visible(tmp_path / "back") == visible(tmp_path / "folder")
    with Index.open(milvus_place) as index:
        found = index.search_photo(model, photo_folder / "b.png", k=3, rerank=3)
        assert found == Index.load(tmp_path / "folder").search_photo(model, photo_folder / "b.png", k=3, rerank=3)
    with pytest.raises(ValueError, match=r"max_side.*64.*32"):
        rw_keras.extract(model, photo_folder, milvus_place, max_side=32, progress=False)
    with pytest.raises(ImageError, match="None of the 1 photos can be read"):
        only = tmp_path / "only"
        only.mkdir()
        (only / "bad.jpg").write_bytes(b"none")
        rw_keras.extract(
            model, only, f"{milvus_place}_2" if ".db" not in milvus_place else f"{milvus_place}?collection=two", **options
        )


def test_another_process_wrote_it(saved, memory, milvus_place):
    pushing = "import sys; from rw_keras.retrieval.milvus.transfer import push; push(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", pushing, saved, milvus_place], check=True)
    assert len(list(places.photos(milvus_place))) == COUNT and places.check(milvus_place) == []
    with Index.open(milvus_place) as index:
        assert index.search(unit(1, 1)[0], 5) == memory.search(unit(1, 1)[0], 5)


def test_the_commands(saved, milvus_place, tmp_path, capsys):
    from rw_keras.commands.main import run

    back = tmp_path / "back"
    assert run(["push", str(saved), milvus_place]) == 0 and "300 of them written; the same as" in capsys.readouterr().out
    assert run(["pull", milvus_place, str(back), "--json"]) == 0 and json.loads(capsys.readouterr().out)["photos"] == COUNT
    assert run(["info", milvus_place, "--json"]) == 0 and json.loads(capsys.readouterr().out)["photos"] == COUNT
    assert run(["check", milvus_place]) == 0 and "no damage found" in capsys.readouterr().out
    outputs = []
    for place in (str(saved), milvus_place):
        assert run(["duplicates", place, "--groups", "--json", "--threshold", "0.9"]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    assert outputs[0] == outputs[1] != []
    assert pathlib.Path(back).is_dir() and small_stores.check_whole(back) is None
