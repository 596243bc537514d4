"""What `rw-keras serve` refuses, before it loads a model."""

import pytest
from command_lines import only_line

from rw_keras.commands import serve
from rw_keras.retrieval import Index


@pytest.fixture(autouse=True)
def no_tokens(monkeypatch):
    for name in ("RW_KERAS_READ_TOKEN", "RW_KERAS_WRITE_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "takes one index or more"),
        (["a", "--host", "0.0.0.0"], "there is no token"),
        (["a", "--host", "192.168.1.5"], "there is no token"),
        (["a", "--host", "::"], "there is no token"),
        (["a", "b", "--photos", "photos"], "--photos is of one index"),
        (["a", "--demo", "--photos", "photos"], "--photos is of one index"),
        (["a", "a"], "given twice"),
        (["a", "--queue", "0"], "--queue"),
        (["a", "--seconds", "none"], "--seconds"),
        (["a", "--runtime", "other"], "tf-serving=URL"),
        (["a", "--model", "m.keras", "--weights", "w"], "--weights does not go with --model"),
    ],
    ids=str,
)
def test_wrong_command_lines(command, capsys, arguments, words):
    assert command("serve", *arguments) == 2
    only_line(capsys, words)


def test_other_machines_take_a_token_and_a_name(command, capsys, monkeypatch):
    monkeypatch.setenv("RW_KERAS_READ_TOKEN", "a-token-that-may-read")
    assert command("serve", "a", "--host", "0.0.0.0") == 2
    only_line(capsys, "--allowed_hosts")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{}/absent"], "There is no index"),
        (["{}/absent", "--tokens", "{}/none"], "none"),
        (["{}/absent", "--seconds", "0"], "above 0, but got 0"),
    ],
)
def test_what_cannot_be_served(command, capsys, tmp_path, arguments, words):
    assert command("serve", *(argument.format(tmp_path) for argument in arguments)) == 1
    only_line(capsys, words)


def test_a_short_token(command, capsys, monkeypatch):
    monkeypatch.setenv("RW_KERAS_WRITE_TOKEN", "short")
    assert command("serve", "a") == 1
    only_line(capsys, "16 or more")


def test_an_index_that_does_not_say_its_model(command, capsys, tmp_path):
    Index(["a"], [[1.0, 0.0]]).save(tmp_path / "index")
    assert command("serve", tmp_path / "index") == 1
    only_line(capsys, "does not say what model made it")


def test_names_of_indices():
    assert serve._folders(["/a/first", "second/"]) == {"first": "/a/first", "second": "second/"}
    assert serve._folders(["/a/same", "/b/same"]) == {"/a/same": "/a/same", "/b/same": "/b/same"}


def test_every_limit_has_a_flag():
    import dataclasses

    from rw_keras.service.settings import Settings

    limits = {field.name for field in dataclasses.fields(Settings) if field.type in ("int", "float", "float | None")}
    assert set(serve.LIMITS) == limits
