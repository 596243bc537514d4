"""The code in docs/networks.md runs, and its table of what works is what is found."""

import importlib.util
import pathlib
import re

import keras
import numpy as np
import pytest
from PIL import Image

import rw_keras
from rw_keras import backbones
from rw_keras.backbones import registry

_ROOT = pathlib.Path(__file__).parents[1]
_PAGE = (_ROOT / "docs" / "networks.md").read_text("utf8")
_BLOCKS = re.findall(r"^```python\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)


def block(word):
    """The block that holds a word."""
    (found,) = [text for text in _BLOCKS if word in text]
    return found


@pytest.fixture
def photos(tmp_path, draw, monkeypatch):
    """Photos where the page has some, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "other_photos"):
        (tmp_path / folder).mkdir()
        for seed in range(3):
            Image.fromarray(draw(seed, 40, 32)).save(tmp_path / folder / f"{seed}.png")
    Image.fromarray(draw(1, 40, 32)).save(tmp_path / "query.jpg")


@pytest.fixture
def presets(tmp_path):
    """A function (code) -> the code with folders of tiny presets in place of KerasHub's own."""
    pytest.importorskip("keras_hub", reason='KerasHub is not installed: pip install "rw_keras[hub]"')
    found = importlib.util.spec_from_file_location("hub_networks", _ROOT / "tests" / "backbones" / "hub_networks.py")
    networks = importlib.util.module_from_spec(found)
    found.loader.exec_module(networks)

    def replaced(code):
        made = {
            "dinov2_base": (networks.dinov2, networks.converter),
            "clip_vit_base_patch16": (networks.clip, networks.clip_preprocessor),
        }
        for name, (network, preprocessing) in made.items():
            if name in code:
                folder = networks.save_preset(str(tmp_path / name), network(), preprocessing())
                code = code.replace(f"hub:{name}", f"hub:{folder}").replace(f'"{name}"', repr(folder))
        return code.replace("a red telephone box", "red box")

    return replaced


def run(code):
    names = {}
    exec(compile(code, "docs/networks.md", "exec"), names)
    return names


def test_every_block_is_run_here():
    words = ["backbones.list(", "search_photo", "keras_hub", "search_text", 'name="mine"', "tinynet"]
    assert sorted(map(block, words)) == sorted(_BLOCKS)


def test_list(capsys):
    run(block("backbones.list("))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [row.name for row in backbones.list("resnet*")]


def test_a_network_of_ones_own(draw):
    model = run(block('name="mine"'))["model"]
    assert np.linalg.norm(rw_keras.describe(model, draw(0, 40, 32))) == pytest.approx(1, abs=1e-5)


def test_adding_a_network_is_a_file_of_under_forty_lines(monkeypatch, draw):
    code = block("tinynet")
    assert len(code.splitlines()) < 40
    for known in (registry.BACKBONES, registry.LICENCES, registry.FACTS):
        monkeypatch.setitem(known, "tinynet", None)
    run(code)
    (row,) = backbones.list("tinynet")
    network, name = backbones.network("tinynet", None, None)
    assert (row.channels, row.smallest_side, name) == (network.output_shape[-1], backbones.smallest_side(network), "tinynet")
    assert network.compute_output_shape((1, 1024, 1024, 3))[1] in range(1024 // row.stride - 1, 1024 // row.stride + 1)
    model = rw_keras.build_descriptor("TinyNet", weights=None, whitening=None)
    assert rw_keras.describe(model, draw(0, 40, 32)).shape == (row.channels,)
    for path in (_ROOT / "rw_keras" / "backbones").glob("*.py"):
        assert "tinynet" not in path.read_text("utf8")  # nothing else had to know of it


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:PCAWhiten")  # few vectors
@pytest.mark.parametrize("word", ["search_photo", "keras_hub", "search_text"])
def test_kerashub(word, photos, presets):
    names = run(presets(block(word)))
    if word == "keras_hub":
        assert isinstance(names["model"], keras.Model)
    else:
        assert {name for name, _ in names["hits"]} == {"0.png", "1.png", "2.png"}


def rows_of_the_table():
    """Network -> its line."""
    head = "| network | builds |"
    lines = _PAGE[_PAGE.index(head) :].partition("\n\n")[0].splitlines()[2:]
    return {line.split("`")[1]: line for line in lines}


@pytest.mark.slow
def test_the_table_is_what_is_found():
    """For a tiny network; the program fills the rows of all."""
    for package in ("tf2onnx", "onnxruntime", "jax", "torch", "keras_hub"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    name = "DINOV2Backbone"
    found = importlib.util.spec_from_file_location("networks", _ROOT / "benchmarks" / "networks.py")
    program = importlib.util.module_from_spec(found)
    found.loader.exec_module(program)
    assert program.rows(program.table([name]))[2] == rows_of_the_table()[name]


def test_the_table_has_rows_of_networks_that_there_are():
    names = set(rows_of_the_table())
    assert {"vgg16", "alexnet", "resnet50", "DINOV2Backbone"} <= names
    assert all(name in backbones.BACKBONES or name.endswith("Backbone") for name in names)
