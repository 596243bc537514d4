import builtins
import os
import pickle

import fakes
import numpy as np
import pytest

from rw_keras.datasets.revisited import RevisitedQuery, read_revisited


@pytest.fixture
def content():
    return fakes.revisited(fakes.oxford(10).names, 3)


@pytest.mark.parametrize("write", [fakes.write_pickle, fakes.write_mat], ids=["pkl", "mat"])
def test_both_forms_are_read(tmp_path, content, write):
    content["gnd"][1]["junk"] = [3]
    path = tmp_path / f"gnd.{write.__name__.removeprefix('write_').replace('pickle', 'pkl')}"
    write(path, content)
    index, queries = read_revisited(str(path))
    assert index == content["imlist"]
    assert list(queries) == content["qimlist"]
    assert queries[content["qimlist"][1]] == RevisitedQuery(
        photo=content["qimlist"][1],
        box=(1.5, 0, 7.25, 6),
        easy=frozenset({index[1]}),
        hard=frozenset({index[2], index[3]}),
        junk=frozenset({index[3]}),
    )
    assert queries[content["qimlist"][1]].positives == {index[1], index[2], index[3]}
    assert queries[content["qimlist"][1]].without(frozenset({index[3]})).positives == {index[1], index[2]}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol(tmp_path, content, protocol):
    content["gnd"][0]["bbx"] = [np.float64(1.5), np.float32(0), np.int64(7), 6]
    path = tmp_path / "gnd.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    assert read_revisited(path)[1][content["qimlist"][0]].box == (1.5, 0, 7, 6)


def test_a_pickle_of_python_2(tmp_path):
    """Strings were bytes there: {'imlist': ['a'], 'qimlist': ['q'], 'gnd': [{'bbx': [0, 1, 2, 3], 'easy': [0], ...}]}"""
    lists = b"U\x04easy]K\x00asU\x04hard]sU\x04junk]s"
    entry = b"}U\x03bbx]K\x00aK\x01aK\x02aK\x03as" + lists
    path = tmp_path / "gnd.pkl"
    path.write_bytes(b"\x80\x02}U\x06imlist]U\x01aasU\x07qimlist]U\x01qasU\x03gnd]" + entry + b"as.")
    index, queries = read_revisited(path)
    assert (index, list(queries), queries["q"].easy) == (["a"], ["q"], {"a"})


class _Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, builtins.eval, builtins.getattr, np.load])
def test_a_pickle_calls_nothing(tmp_path, content, function):
    content["more"] = _Call(function, "print(1)")
    fakes.write_pickle(tmp_path / "gnd.pkl", content)
    with pytest.raises(ValueError, match=r"gnd\.pkl is not the ground truth .*: it asks for .*, which no ground truth needs"):
        read_revisited(tmp_path / "gnd.pkl")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no ground truth .*gnd\.pkl; get it from http"):
        read_revisited(tmp_path / "gnd.pkl")


@pytest.mark.parametrize("ending", [".pkl", ".mat"])
@pytest.mark.parametrize("bytes_", [b"", b"<html>not found</html>", b"\x80\x02}.", b"\0" * 200])
def test_another_file(tmp_path, ending, bytes_):
    path = tmp_path / f"gnd{ending}"
    path.write_bytes(bytes_)
    with pytest.raises(ValueError, match=r"is not the ground truth of a revisited set: .*; download it again"):
        read_revisited(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbx": [1, 2, 3]}, "has a box of 3 numbers"),
        ({"easy": [7]}, "has a easy photo that is not one of the 7"),
        ({"hard": [-1]}, "hard photo that is not one"),
    ],
)
def test_what_does_not_fit(tmp_path, content, change, message):
    content["gnd"][2].update(change)
    fakes.write_pickle(tmp_path / "gnd.pkl", content)
    with pytest.raises(ValueError, match=message):
        read_revisited(tmp_path / "gnd.pkl")


def test_queries_without_lists(tmp_path, content):
    content["gnd"].pop()
    fakes.write_pickle(tmp_path / "gnd.pkl", content)
    with pytest.raises(ValueError, match="3 queries, and lists of 2"):
        read_revisited(tmp_path / "gnd.pkl")


@pytest.mark.photos
@pytest.mark.parametrize(("name", "photos"), [("roxford5k", 4993), ("rparis6k", 6322)])
def test_the_published_files(data_folder, name, photos):
    path = data_folder / "groundtruth" / f"gnd_{name}.mat"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    index, queries = read_revisited(path)
    assert (len(set(index)), len(queries)) == (photos, 70)
    assert not set(index) & set(queries)
    for query in queries.values():
        assert query.positives | query.junk <= set(index)
        assert not query.positives & query.junk
        x1, y1, x2, y2 = query.box
        assert 0 <= x1 < x2
        assert 0 <= y1 < y2
