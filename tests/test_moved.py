"""Names of earlier versions go on working, and tell the present ones at the line that used them."""

import importlib
import subprocess
import sys
import warnings

import pytest

import rw_keras
from rw_keras import _moved


@pytest.fixture
def forgotten():
    """What was imported under earlier names counts as not imported yet."""
    for name in _moved.MOVED:
        sys.modules.pop(f"rw_keras.{name}", None)
        vars(rw_keras).pop(name, None)


@pytest.mark.parametrize(("earlier", "present"), _moved.MOVED.items())
def test_a_module_by_an_import_statement(forgotten, earlier, present):
    with pytest.warns(FutureWarning, match=rf"rw_keras\.{earlier} is called rw_keras\.{present} now") as told:
        found = importlib.import_module(f"rw_keras.{earlier}")
    assert found is importlib.import_module(f"rw_keras.{present}")
    assert len([one for one in told if one.category is FutureWarning]) == 1


@pytest.mark.parametrize("earlier", [name for name in _moved.MOVED if "." not in name])
def test_a_module_as_an_attribute(forgotten, earlier):
    with pytest.warns(FutureWarning, match=f"{earlier} is called") as told:
        found = getattr(rw_keras, earlier)
    assert found is importlib.import_module(f"rw_keras.{_moved.MOVED[earlier]}")
    assert told[0].filename == __file__


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("images", "list_photos"),
        ("images", "read_image"),
        ("engines", "load"),
        ("explain", "region_shares"),
        ("plot", "weights"),
        ("extraction", "describe"),
        ("extraction", "extract"),
        ("whitening", "fit_whitening"),
        ("descriptor", "recipe"),
        ("sources", "photo_items"),
    ],
)
def test_a_name_in_a_module(forgotten, module, name):
    with pytest.warns(FutureWarning, match=rf"rw_keras\.{module} is called"):
        assert callable(getattr(importlib.import_module(f"rw_keras.{module}"), name))


def test_a_program_is_told_its_line():
    program = "import rw_keras\n\nfrom rw_keras.images import read_image"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (0, "")
    assert run.stderr == (
        "<string>:3: FutureWarning: rw_keras.images is called rw_keras.photos.reading now; the earlier name goes with the next "
        "release.\n"
    )


def test_what_never_was_is_an_error():
    for name in ("nothing", "reproduction"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(rw_keras, name)
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"rw_keras.{name}")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        importlib.import_module("rw_keras.model.whitening").nothing  # noqa: B018


class TestRenamed:
    @staticmethod
    @_moved.renamed(engine="runtime")
    def function(model, *, runtime="auto"):
        return model, runtime

    def test_the_earlier_name_of_an_argument(self):
        with pytest.warns(FutureWarning, match="engine= is called runtime= now") as told:
            assert self.function(1, engine="ncnn") == (1, "ncnn")
        assert told[0].filename == __file__

    def test_the_present_one_says_nothing(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert self.function(1, runtime="ncnn") == (1, "ncnn")
            assert self.function(1) == (1, "auto")

    def test_both_are_refused(self):
        with pytest.raises(TypeError, match="engine= is the earlier name of runtime="):
            self.function(1, engine="ncnn", runtime="ncnn")
