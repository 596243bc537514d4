import re

import numpy as np
import pytest

from rw_keras.retrieval import Index, store
from rw_keras.retrieval.columns import add_columns, condition, read_columns


@pytest.fixture
def table(tmp_path):
    """A function that writes a CSV file."""

    def write(text, encoding="utf8"):
        (tmp_path / "photos.csv").write_bytes(text.encode(encoding))
        return tmp_path / "photos.csv"

    return write


class TestReadColumns:
    def test_kinds_of_values(self, table):
        columns = read_columns(table("name,city,year,score,note\na.jpg,Oxford,1900,0.5,\nb.jpg,Paris,,2,1x\n"))
        assert columns == {
            "city": {"a.jpg": "Oxford", "b.jpg": "Paris"},
            "year": {"a.jpg": 1900, "b.jpg": None},
            "score": {"a.jpg": 0.5, "b.jpg": 2.0},
            "note": {"a.jpg": None, "b.jpg": "1x"},
        }

    def test_the_column_of_names(self, table):
        assert read_columns(table("city,photo\nOxford,a.jpg\n")) == {"city": {"a.jpg": "Oxford"}}
        assert read_columns(table("id,city\na.jpg,Oxford\n")) == {"city": {"a.jpg": "Oxford"}}

    def test_quoted_text_and_a_byte_order_mark(self, table):
        assert read_columns(table('\ufeffname,what\n"a, b.jpg","two\nlines ""x"""\n')) == {"what": {"a, b.jpg": 'two\nlines "x"'}}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "is no table"),
            ("name,city\n", "is no table"),
            ("name\na.jpg\n", "is no table"),
            ("name,city,city\na.jpg,1,2\n", "different titles"),
            ("name,city\na.jpg,Oxford,more\n", "Row 2 of .* has 3 values for 2 titles"),
            ("name,city\na.jpg,1\na.jpg,2\n", "names 'a.jpg' twice"),
            ("name,city\nz.jpg,1\n", "names none of the photos; its 'name' is 'z.jpg'"),
        ],
    )
    def test_what_is_refused(self, table, text, words):
        with pytest.raises(ValueError, match=words):
            read_columns(table(text), ["a.jpg"])

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="none"):
            read_columns(tmp_path / "none.csv")


class TestAddColumns:
    def test_values_that_are_not_given_stay(self, tmp_path):
        Index("abc", np.eye(3), metadata={"city": ["x", "y", "z"]}).save(tmp_path / "index")
        add_columns(tmp_path / "index", {"city": {"b": "Oxford", "not there": "q"}, "year": {"c": 1900}})
        assert Index.load(tmp_path / "index").metadata == {"city": ["x", "Oxford", "z"], "year": [None, None, 1900]}
        assert store.check(tmp_path / "index") == []


class TestCondition:
    COLUMNS = {"city": ["Oxford", "Paris", None], "year": [1900, 2005, None], "score": [0.5, 1.0, 2.5]}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("texts", "found"),
        [
            ([], "abc"),
            (["b"], "b"),
            (["city=Oxford"], "a"),
            (["city = Paris"], "b"),
            (["city!=Oxford"], "bc"),
            (["city="], "c"),
            (["city!="], "ab"),
            (["year=1900"], "a"),
            (["year>1900"], "b"),
            (["year>=1900"], "ab"),
            (["year<2005.5"], "ab"),
            (["score<=1"], "ab"),
            (["score>=1", "score<2"], "b"),
            (["city=Paris", "year=1900"], ""),
            (["country=France"], ""),  # no column: what names begin with
        ],
        ids=str,
    )
    def test_rows(self, texts, found):
        index = Index("abc", np.eye(3), metadata=self.COLUMNS)
        hits = index.search(np.ones(3), within=condition(texts, index.metadata))
        assert sorted(name for name, _ in hits) == list(found)

    def test_several_of_which_one_is_none(self):
        with pytest.raises(ValueError, match=re.escape("'oxford/' is no condition on a column")):
            condition(["oxford/", "year>1900"], self.COLUMNS)
