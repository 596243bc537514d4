import http.client

import pytest

from rw_keras import storage
from rw_keras.storage import ForbiddenError, MissingError, StorageError, filesystem, is_url, may_pass, patiently, shown


def test_names_below_a_folder():
    assert storage.inside("s3://b/p/", "a/..b/c.jpg") == "s3://b/p/a/..b/c.jpg"
    assert storage.inside("file:///p", "../x.jpg") is storage.inside("file:///p", "a/../../x.jpg") is None


class StatusError(Exception):
    def __init__(self, status):
        super().__init__("no")
        self.status = status


class ReplyError(Exception):
    def __init__(self):
        super().__init__("no")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": 503}}


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("place", ["s3://b/a.jpg", "https://x", "HF://datasets/a", "zip://a::s3://b", "memory://", "a+b-c.d://x"])
def test_urls(place):
    assert is_url(place)


@pytest.mark.parametrize(
    "place",
    [
        "a.jpg",
        "/a//b.jpg",
        "C:\\a.jpg",
        "c://a",
        "IMG::001.jpg",
        "a::b::c",
        "://x",
        "1s://x",
        "a b://x",
        "",
        None,
        b"s3://x",
        "x/s3://y",
    ],
)
def test_what_is_no_url(place):
    assert not is_url(place)


def test_shown_without_secrets():
    assert shown("https://user:pass@host:80/a b.jpg?X-Amz-Signature=1#x") == "https://host:80/a b.jpg"
    assert shown("s3://key:secret@bucket/a@b?c#d") == "s3://bucket/a@b?c#d"
    assert shown("s3://bucket") == "s3://bucket"
    assert shown("filecache::https://u:p@h/x::y.txt?X-Amz-Signature=SECRET") == "filecache::https://h/x::y.txt"
    assert shown("zip://a?b::c.jpg::s3://key:se::cret@bucket/a.zip") == "zip://a?b::c.jpg::s3://bucket/a.zip"


@pytest.mark.parametrize(
    "error",
    [
        StatusError(500), StatusError(503), StatusError(429), StatusError(408), TimeoutError(),
        ConnectionResetError(), BrokenPipeError(),
        http.client.IncompleteRead(b""), OSError(5, "I/O"), ReplyError(), caused(FileNotFoundError("x"), StatusError(500)),
        caused(FileNotFoundError("x"), TimeoutError()),
    ],
)  # fmt: skip
def test_what_may_pass(error):
    assert may_pass(error)


@pytest.mark.parametrize(
    "error",
    [StatusError(404), StatusError(403), StatusError(400), StatusError(416), FileNotFoundError("x"), PermissionError("x"),
     ValueError("x"), KeyError("x"), caused(OSError("x"), StatusError(403))],
)  # fmt: skip
def test_what_does_not(error):
    assert not may_pass(error)


def failing(*errors):
    left = list(errors)

    def action():
        if left:
            raise left.pop(0)
        return "done"

    return action, left


def test_waits_longer_and_longer(monkeypatch):
    waits = []
    monkeypatch.setattr(storage.time, "sleep", waits.append)
    action, _ = failing(*[StatusError(503)] * 4)
    assert patiently(action, "s3://b/a") == "done"
    assert len(waits) == 4
    for number, wait in enumerate(waits):
        assert 0.5 * 0.5 * 2**number <= wait <= 1.5 * 0.5 * 2**number


def test_gives_up(monkeypatch):
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    action, left = failing(*[StatusError(503)] * 9)
    with pytest.raises(StorageError, match=r"s3://b/a cannot be reached now after 5 attempts: HTTP 503"):
        patiently(action, "s3://b/a")
    assert len(left) == 4


@pytest.mark.parametrize("cause", [TimeoutError(), ConnectionRefusedError("x"), StatusError(503)])
def test_a_server_that_does_not_answer_has_not_lost_its_files(monkeypatch, cause):
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    with pytest.raises(StorageError, match="cannot be reached now after 5 attempts") as raised:
        patiently(failing(*[caused(FileNotFoundError("https://h/a"), cause)] * 5)[0], "https://h/a")
    assert not isinstance(raised.value, FileNotFoundError)


@pytest.mark.parametrize(
    "error, kind, words",
    [
        (StatusError(404), MissingError, "There is no https://h/a;"),
        (FileNotFoundError("x"), MissingError, "There is no https://h/a;"),
        (StatusError(403), ForbiddenError, "may not be used with these credentials"),
        (PermissionError("Access Denied"), ForbiddenError, "Access Denied"),
        (caused(FileNotFoundError("x"), StatusError(410)), MissingError, "There is no https://h/a;"),
        (StatusError(400), StorageError, "cannot be reached now: HTTP 400"),
        (RuntimeError("odd"), StorageError, "cannot be reached now: odd"),
        (RuntimeError("no https://h/a?signature=1"), StorageError, "cannot be reached now: RuntimeError$"),
    ],
)
def test_at_once(monkeypatch, error, kind, words):
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: pytest.fail("it waited"))
    with pytest.raises(kind, match=words) as raised:
        patiently(failing(error)[0], "https://h/a?signature=1")
    assert "signature" not in str(raised.value) and isinstance(raised.value, OSError)


def test_memory_that_is_full_is_said_to_be():
    with pytest.raises(MemoryError) as raised:
        patiently(failing(MemoryError("full"))[0], "s3://b/a")
    assert raised.value.__cause__ is None


def test_fewer_attempts(monkeypatch):
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: pytest.fail("it waited"))
    with pytest.raises(StorageError, match="cannot be reached now: HTTP 503"):
        patiently(failing(StatusError(503))[0], "s3://b/a", 1)


def test_interrupts_are_not_held_up():
    with pytest.raises(KeyboardInterrupt):
        patiently(failing(KeyboardInterrupt())[0], "s3://b/a")


@pytest.mark.parametrize(
    "url, line", [("s3://b/a", r'needs s3fs; install it with: pip install "rw_keras\[cloud\]"'),
                  ("gs://b/a", r'needs gcsfs; install it with: pip install "rw_keras\[cloud\]" gcsfs'),
                  ("hf://datasets/a/b", r'needs huggingface_hub; install it with: pip install "rw_keras\[cloud\]" huggingface_hub')]
)  # fmt: skip
def test_a_missing_package_is_named(monkeypatch, url, line):
    fsspec = pytest.importorskip("fsspec")

    def missing(url, **options):
        raise ImportError("no")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ImportError, match=line):
        filesystem(url)


def test_without_fsspec(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(ImportError, match=r's3://b/a needs fsspec; install it with: pip install "rw_keras\[cloud\]"'):
        filesystem("s3://b/a")


def test_a_scheme_that_nobody_knows():
    pytest.importorskip("fsspec")
    with pytest.raises(ValueError, match="fsspec does not know"):
        filesystem("nonsense://a")
