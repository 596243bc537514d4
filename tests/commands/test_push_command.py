"""`rw-keras push` and `pull` to object storage, and what they refuse; to Milvus: tests/retrieval/test_milvus.py."""

import json

import numpy as np
import pytest

from rw_keras.commands.main import run
from rw_keras.commands.parser import UsageError
from rw_keras.retrieval import Index


@pytest.fixture
def saved(tmp_path):
    Index(["a", "b"], np.eye(2)).save(tmp_path / "index")
    return str(tmp_path / "index")


def test_there_and_back(saved, tmp_path, capsys):
    pytest.importorskip("fsspec", reason='object storage: pip install "rw_keras[cloud]"')
    url = f"file://{tmp_path / 'elsewhere'}"
    assert run(["push", saved, url]) == 0 and capsys.readouterr().out.startswith(f"{url}: ")
    assert run(["pull", url, str(tmp_path / "back"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["url"] == url
    assert list(Index.load(tmp_path / "back").names) == ["a", "b"]


def test_no_output_has_a_password(saved, tmp_path, capsys):
    pytest.importorskip("fsspec", reason='object storage: pip install "rw_keras[cloud]"')
    url = "memory://user:secret@bucket/index"
    assert run(["push", saved, url]) == 0 and run(["push", saved, url, "--json"]) == 0
    assert run(["pull", url, str(tmp_path / "back"), "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("memory://bucket/index") == 3 and "secret" not in printed
    with pytest.raises(UsageError, match=r"--prune is of a collection of Milvus, and memory://bucket/index is none"):
        run(["push", saved, url, "--prune"])


def test_another_index_takes_the_place_of_a_copy_only_where_that_is_said(saved, tmp_path, capsys):
    pytest.importorskip("fsspec", reason='object storage: pip install "rw_keras[cloud]"')
    url = f"file://{tmp_path / 'elsewhere'}"
    Index(["c"], np.eye(1, 2)).save(tmp_path / "other")
    assert run(["push", saved, url]) == 0
    with pytest.raises(ValueError, match=r"a copy of another index \(\w+, 2 photos\) than .*other \(\w+, 1 photos\).*--replace"):
        run(["push", str(tmp_path / "other"), url])
    assert run(["push", str(tmp_path / "other"), url, "--replace"]) == 0
    assert run(["pull", url, str(tmp_path / "back")]) == 0
    assert list(Index.load(tmp_path / "back").names) == ["c"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["push", "index"], "NAME URL, but got 1 arguments"),
        (["push", "index", "elsewhere"], "push takes a URL such as milvus://"),
        (["push", "index", "file:///x", "--m", "3"], "--m is of a collection of Milvus"),
        (["push", "index", "milvus://host/a", "--replace"], "--replace is of a copy in object storage"),
        (["pull", "milvus://host/a"], "URL NAME, but got 1 arguments"),
        (["pull", "elsewhere", "index"], "pull takes a URL such as milvus://"),
    ],
)
def test_command_lines_that_are_wrong(arguments, words):
    with pytest.raises(UsageError, match=words):
        run(arguments)
