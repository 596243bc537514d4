"""What goes to Milvus in words: addresses, names, literals. No server is asked."""

import os
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.retrieval import Index, duplicates, places
from rw_keras.retrieval.milvus import Address, is_milvus
from rw_keras.retrieval.milvus.filters import expression, fields_of
from rw_keras.retrieval.milvus.layout import NO_VECTOR, PARTS, Structure, more_parts, regions_of, regions_rows
from rw_keras.retrieval.milvus.words import above, literal, name_of, text_of
from rw_keras.retrieval.regions import encode

NAMES = st.binary(max_size=30).map(os.fsdecode) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(NAMES)
def test_a_name_comes_back(name):
    text = text_of(name)
    text.encode("utf8")
    assert name_of(text) == os.fsdecode(os.fsencode(name))
    assert not {*text} & {*"\"'\\", *map(chr, range(32)), chr(127)}


@given(NAMES, NAMES, NAMES)
def test_a_beginning_stays_one(one, other, more):
    for name in (one, one + more, other):
        if name.startswith(one):
            assert text_of(name).startswith(text_of(one)) or os.fsdecode(os.fsencode(name)) != name
    stop = above(text_of(one))
    inside = text_of(other) >= text_of(one) and (stop is None or text_of(other) < stop)
    assert inside == text_of(other).startswith(text_of(one))


@pytest.mark.parametrize(
    "url, uri, collection, database, token, shown",
    [
        ("milvus://host/photos", "http://host:19530", "photos", "", "", "milvus://host:19530/photos"),
        ("milvus://host:1/d/photos?tls=true", "https://host:1", "photos", "d", "", "milvus://host:1/d/photos?tls=true"),
        ("milvus://u:p%40:@host", "http://host:19530", "rw_keras", "", "u:p@:", "milvus://host:19530/rw_keras"),
        ("milvus://[::1]:5/a?tls=false", "http://[::1]:5", "a", "", "", "milvus://[::1]:5/a"),
        ("milvus:///a/b%20c.db", "/a/b c.db", "rw_keras", "", "", "milvus:///a/b c.db"),
        ("milvus:///a.db?collection=x", "/a.db", "x", "", "", "milvus:///a.db?collection=x"),
    ],
)
def test_addresses(url, uri, collection, database, token, shown):
    found = Address.of(url)
    assert (found.uri, found.collection, found.database, found.token) == (uri, collection, database, token)
    assert str(found) == shown == places.shown(url) and "p@" not in repr(found)


@pytest.mark.parametrize(
    "url, words",
    [
        ("milvus:///a/b", "ends in .db"),
        ("milvus://host/9x", "the first of them no digit, but got '9x'"),
        ("milvus://host/a/b/c", "more than a database and a collection"),
        ("milvus://host:port/a", "cannot be read"),
        ("milvus://host/a?tls=maybe", "true or false, but got 'maybe'"),
        ("milvus://host/a?index=x", "but got 'index'"),
        ("milvus:///a.db?tls=true", "`tls` is of a server"),
        ("http://host", "no address of an index in Milvus"),
    ],
)
def test_what_is_no_address(url, words):
    with pytest.raises(ValueError, match=words):
        Address.of(url)


@pytest.mark.parametrize(
    "url",
    [
        "milvus://user:pa/secret@host:19530/c",
        "milvus://user:12/34secret@host/c",
        "milvus://user:12?34secret@host/c",
        "milvus://user:12?secret=x@host",
        "milvus://user:12#secret@host/c",
        "milvus://user:secret\u2100@host/c",
        "milvus://user:secret@host:secret/c",
    ],
)
def test_no_refusal_shows_a_password(url):
    with pytest.raises(ValueError, match=r"percent-encode / as %2F") as found:
        Address.of(url)
    assert "secret" not in str(found.value) and "'pa'" not in str(found.value)


def test_an_address_is_shown_as_it_can_be_given_again():
    url = str(Address.of("milvus://user:secret@host/photos?tls=true"))
    assert Address.of(url).uri == "https://host:19530" and str(Address.of(url)) == url


def test_the_token_of_the_environment(monkeypatch):
    monkeypatch.setenv("RW_KERAS_MILVUS_TOKEN", "root:secret")
    assert Address.of("milvus://host/a").token == "root:secret" and Address.of("milvus://u:p@host/a").token == "u:p"


def test_a_folder_is_no_address(tmp_path):
    assert not is_milvus(tmp_path) and not is_milvus("photos") and is_milvus("milvus://host/a")
    with pytest.raises(ValueError, match="consistency are of an index in Milvus"):
        Index.open(tmp_path, consistency="Strong")
    with pytest.raises(ValueError, match="but got the searcher 'numpy'"):
        Index.open("milvus://host/a", "numpy")


def test_a_missing_package_is_said_in_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ImportError, match=r'needs pymilvus; install it with: pip install "rw_keras\[milvus\]"'):
        Index.open("milvus://127.0.0.1:1/a")


def test_expressions():
    assert expression(None, ()) == "" and expression("", ()) == ""
    assert expression('a"', ()) == f'name >= "a{chr(0x10FE22)}" and name < "a{chr(0x10FE23)}"'
    assert expression({"a": "b\n\\"}, ["a"]) == '(metadata["a"] == "b\\n\\\\")'
    assert expression({"a": 1}, ["a"]) == '(metadata["a"] == 1 or metadata["a"] == true)'
    assert expression(expression("x", ()), ()) == expression("x", ())
    for value in (float("nan"), float("inf"), [1], "\udcff"):
        with pytest.raises(ValueError, match="Milvus compares"):
            literal(value)
    for value in (float("nan"), "\udcff", {1}, 2**63, [{"b": -(2**63) - 1}]):
        with pytest.raises(ValueError, match="as JSON in UTF-8"):
            fields_of({"a": value})
    assert fields_of({"a": None, "b": 0, "c": 2**63 - 1}) == {"b": 0, "c": 2**63 - 1}


@pytest.mark.parametrize("dtype", ["int8", "float16"])
@pytest.mark.parametrize("counts", [[0], [3, 0, 1], [200, 1]])
def test_region_vectors_come_back_from_texts(dtype, counts):
    random = np.random.default_rng(0)
    photos = [PhotoRegions(random.standard_normal((count, 256)), random.random((count, 4))) for count in counts]
    kept = encode(photos, {"dtype": dtype, "dimensions": 256})
    ids = [5 * number + 1 for number in range(len(counts))]
    rows = list(regions_rows(ids, kept))
    assert all(len(row["value"]) < 65535 and row["vector"] is NO_VECTOR for row in rows)
    first = [row for row in rows if row["id"] % PARTS == 0]
    assert [row["id"] for row in first] == [number * PARTS for number in ids]
    assert sorted(more_parts(first)) == sorted(row["id"] for row in rows if row["id"] % PARTS)
    for one, other in zip(kept, regions_of(rows[::-1], ids, {"dtype": dtype, "dimensions": 256})):
        np.testing.assert_array_equal(one, other, strict=True)


def test_structures():
    own = Structure.of("milvus-hnsw", m=8)
    assert own.index("float32") == {"index_type": "HNSW", "metric_type": "IP", "params": {"M": 8, "efConstruction": 200}}
    assert own.asking(100) == {"ef": 100} and own.asking(3) == {"ef": 64} and Structure.of(vars(own)) == own
    for arguments, words in ((["faiss-flat"], "but got 'faiss-flat'"), (["milvus-flat", 3], "has no parameters, but got 'm'")):
        with pytest.raises(ValueError, match=words):
            Structure.of(arguments[0], **({"m": 3} if len(arguments) > 1 else {}))


def test_groups_of_pairs():
    groups = duplicates.joined(np.array([9, 4, 30]), np.array([4, 2, 31]))
    assert [group.tolist() for group in groups] == [[2, 4, 9], [30, 31]]
