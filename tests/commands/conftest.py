import logging
import sys

import pytest

from rw_keras.commands import main
from rw_keras.retrieval import Index


@pytest.fixture(autouse=True, scope="module")
def cache_folder(tmp_path_factory):
    """What is measured of engines here stays here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def model_file(tiny_model, tmp_path_factory):
    """A saved model, for `--model`."""
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    tiny_model().save(path)
    return str(path)


@pytest.fixture
def other_model_file(tiny_model, tmp_path):
    tiny_model(seed=1).save(tmp_path / "other.keras")
    return str(tmp_path / "other.keras")


@pytest.fixture
def index(model, photo_folder, tmp_path):
    """The folder of an index of the six photos, and the index."""
    made = Index.from_folder(model, photo_folder, runtime="tensorflow", progress=False)
    made.save(tmp_path / "index")
    return str(tmp_path / "index"), made


@pytest.fixture
def command(monkeypatch):
    """A function (arguments) -> the exit code of `rw-keras` with them."""
    monkeypatch.setattr(logging.getLogger(), "handlers", list(logging.getLogger().handlers))
    for log in map(logging.getLogger, ("rw_keras", "uvicorn")):  # what `serve` logs goes to standard error alone
        for name in ("handlers", "propagate", "level"):
            monkeypatch.setattr(log, name, getattr(log, name))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rw-keras", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main.main()
        return caught.value.code

    return run
