import numpy as np
import pytest

from rw_keras.evaluation.labels import read_labels
from rw_keras.retrieval import Index, holidays_ground_truth

NAMES = ["cup/a.png", "cup/b.png", "cup/deep/c.png", "cup/deep/d.png", "key/e.png", "f.png", "g.png"]


@pytest.fixture
def index():
    return Index(NAMES, np.eye(len(NAMES)))


def table(folder, text, name="labels.csv"):
    (folder / name).write_text(text)
    return folder / name


def in_names(labels):
    """query -> (positives that count, junk), by names."""
    found = {}
    for name, query in labels.queries.items():
        junk = {NAMES[position] for position in query.junk}
        found[name] = {NAMES[position] for position in query.positives} - junk, junk
    return found


def test_folders(index):
    labels = read_labels("folders", index)
    assert in_names(labels) == {
        "cup/a.png": ({"cup/b.png"}, {"cup/a.png"}),
        "cup/b.png": ({"cup/a.png"}, {"cup/b.png"}),
        "cup/deep/c.png": ({"cup/deep/d.png"}, {"cup/deep/c.png"}),
        "cup/deep/d.png": ({"cup/deep/c.png"}, {"cup/deep/d.png"}),
    }
    assert labels.landmarks == {name: name.rpartition("/")[0] for name in NAMES[:4]}
    assert (labels.to_describe, labels.skipped, labels.absent) == ({}, (), 0)
    assert all(query.left_out for query in labels.queries.values())


def test_folders_hold_their_positives_once(index):
    queries = read_labels("folders", index).queries
    assert queries["cup/a.png"].positives is queries["cup/b.png"].positives


def test_no_two_in_a_folder():
    with pytest.raises(ValueError, match="No two of the index's 2 photos share a folder"):
        read_labels("folders", Index(["a/b.png", "c.png"], np.eye(2)))


def test_some_are_evenly_spread(index):
    labels = read_labels("folders", index)
    assert list(labels.some(2).queries) == ["cup/a.png", "cup/deep/d.png"]
    assert labels.some(4) is labels.some(9) is labels


class TestTable:
    def test_lists(self, index, tmp_path):
        labels = read_labels(table(tmp_path, "query,positives,junk\ncup/a.png,cup/b.png|f.png,g.png\nf.png,cup/a.png,\n"), index)
        assert in_names(labels) == {
            "cup/a.png": ({"cup/b.png", "f.png"}, {"g.png", "cup/a.png"}),
            "f.png": ({"cup/a.png"}, {"f.png"}),
        }

    def test_one_a_row_is_the_same(self, index, tmp_path):
        whole = read_labels(table(tmp_path, "query,positives,junk\ncup/a.png,cup/b.png|f.png,g.png\n"), index)
        rows = "junk,query,positives\n,cup/a.png,cup/b.png\n,cup/a.png,f.png\ng.png,cup/a.png,\n"
        assert in_names(read_labels(table(tmp_path, rows), index)) == in_names(whole)

    def test_the_own_photo_may_be_a_positive(self, index, tmp_path):
        labels = read_labels(table(tmp_path, "query,positives\nf.png,f.png|g.png\n"), index)
        assert in_names(labels) == {"f.png": ({"f.png", "g.png"}, set())}
        assert not labels.queries["f.png"].left_out

    def test_landmarks_are_those_that_share_photos(self, index, tmp_path):
        text = "query,positives\ncup/a.png,cup/b.png\ncup/b.png,cup/a.png\nf.png,g.png\n"
        assert read_labels(table(tmp_path, text), index).landmarks == {
            "cup/a.png": "cup/a.png",
            "cup/b.png": "cup/a.png",
            "f.png": "f.png",
        }

    def test_a_photo_beside_the_table(self, index, photo_folder):
        labels = read_labels(table(photo_folder, "query,positives,box\na.png,f.png,\nb.png,f.png,1 2 40 60\n"), index)
        assert labels.to_describe == labels.queries
        assert {name: (query.path, query.box) for name, query in labels.queries.items()} == {
            "a.png": (str(photo_folder / "a.png"), None),
            "b.png [1 2 40 60]": (str(photo_folder / "b.png"), (1, 2, 40, 60)),
        }
        assert all(query.position is None and not query.left_out for query in labels.queries.values())

    def test_boxes_of_one_photo_are_queries_of_their_own(self, photo_folder, tmp_path):
        index = Index(["a.png", "b.png", "c.jpg"], np.eye(3))
        path = table(tmp_path, 'query,positives,box\na.png,b.png,"1,2,40,40"\na.png,c.jpg,0 0 20 20\na.png,c.jpg,\n')
        labels = read_labels(path, index, photos=photo_folder)
        boxes = {name: (query.path, query.box) for name, query in labels.queries.items()}
        assert boxes == {
            "a.png [1 2 40 40]": (str(photo_folder / "a.png"), (1, 2, 40, 40)),
            "a.png [0 0 20 20]": (str(photo_folder / "a.png"), (0, 0, 20, 20)),
            "a.png": (None, None),
        }
        with pytest.raises(ValueError, match=r"'a\.png' has a box, and the index does not say where"):
            read_labels(path, index)
        with pytest.raises(FileNotFoundError, match=r"no photo 'a\.png' of a query in"):
            read_labels(path, index, photos=tmp_path)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "has the titles of no column"),
            ("query,right\na,b\n", "has the titles query, right; its first line holds query and positives"),
            ("query,positives,query\na,b,c\n", "has the titles query, positives, query"),
            ("query,positives\n", "holds no query"),
            ("query,positives\nf.png\n", "Row 2 .* has 1 values for 2 titles"),
            ("query,positives\n,f.png\n", "Row 2 .* names no query"),
            ("query,positives,box\nf.png,g.png,1 2 3\n", "Row 2 .* has the box '1 2 3'"),
            ("query,positives\nf.png,\n", "'f.png' .* has no positive"),
            ("query,positives,junk\nf.png,g.png,g.png\n", "'g.png' is both positive and junk of the query 'f.png'"),
        ],
    )
    def test_what_is_none(self, index, tmp_path, text, words):
        with pytest.raises(ValueError, match=words):
            read_labels(table(tmp_path, text), index)

    def test_no_file(self, index, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no labels .*none\.csv; give 'folders', a CSV file"):
            read_labels(tmp_path / "none.csv", index)

    def test_a_photo_that_cannot_be_described(self, index, photo_folder):
        path = table(photo_folder, "query,positives,box\na.png,f.png,0 0 999 9\n")
        with pytest.raises(ValueError, match=r"query 'a.png \[0 0 999 9\]' cannot be described: The box"):
            read_labels(path, index)


class TestMissing:
    TEXT = "query,positives,junk\nf.png,g.png|x.png,y.png\ncup/a.png,cup/b.png,\nz.png,g.png,\nkey/e.png,x.png,\n"

    def test_are_counted_and_named(self, index, tmp_path):
        with pytest.raises(ValueError, match=r"labels.csv names 3 photos that are not in the index of 7, 'x.png' first, .*'cup/a"):
            read_labels(table(tmp_path, self.TEXT), index)

    def test_allowed(self, index, tmp_path):
        labels = read_labels(table(tmp_path, self.TEXT), index, missing="allow")
        assert in_names(labels) == {"f.png": ({"g.png"}, {"f.png"}), "cup/a.png": ({"cup/b.png"}, {"cup/a.png"})}
        assert (labels.skipped, labels.absent) == (("z.png", "key/e.png"), 3)

    def test_queries_dropped(self, index, tmp_path):
        labels = read_labels(table(tmp_path, self.TEXT), index, missing="drop_queries")
        assert list(labels.queries) == ["cup/a.png"]
        assert labels.skipped == ("f.png", "z.png", "key/e.png")

    def test_another_word(self, index):
        with pytest.raises(ValueError, match=r"missing is one of 'refuse', .*got 'skip'"):
            read_labels("folders", index, missing="skip")

    def test_no_query_is_left(self, index, tmp_path):
        with pytest.raises(ValueError, match=r"No query of .* has its photo and a positive"):
            read_labels(table(tmp_path, "query,positives\nz.png,g.png\n"), index, missing="allow")


class TestGroundTruth:
    @pytest.fixture
    def truth(self, tmp_path):
        for kind, text in (("query", "oxc1_a 2 3 60 40"), ("good", "a\nb\n"), ("ok", "d\n"), ("junk", "c\n")):
            (tmp_path / f"hall_1_{kind}.txt").write_text(text)
        return tmp_path

    def test_names_without_folder_and_ending(self, truth, photo_folder):
        names = ["c.jpg", "x/b.png", "a.png", "d.png"]
        (query,) = read_labels(truth, Index(names, np.eye(4)), photos=photo_folder).queries.values()
        assert [names[position] for position in query.positives] == ["x/b.png", "a.png", "d.png"]
        assert (query.junk.tolist(), query.left_out, query.position) == ([0], False, 2)
        assert (query.path, query.box) == (str(photo_folder / "a.png"), (2, 3, 60, 40))

    def test_a_name_that_two_have(self, truth):
        with pytest.raises(ValueError, match=r"names b, which may be 'b\.png' or 'x/b\.png' of the index"):
            read_labels(truth, Index(["b.png", "x/b.png"], np.eye(2)))


def test_a_dictionary():
    names = ["100000.jpg", "100001.jpg", "100100.jpg", "100101.jpg"]
    labels = read_labels(holidays_ground_truth(names), Index(names, np.eye(4)))
    assert {name: (query.positives.tolist(), query.junk.tolist()) for name, query in labels.queries.items()} == {
        "100000.jpg": ([1], [0]),
        "100100.jpg": ([3], [2]),
    }
