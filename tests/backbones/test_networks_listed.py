"""The table of networks, and what it says of each."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import rw_keras
from rw_keras import backbones
from rw_keras.backbones.listing import Network, Networks


@pytest.fixture
def registered(monkeypatch):
    """A function (name, arguments of `register`): registers a network of one convolution until the test ends."""
    from rw_keras.backbones import registry

    for known in (registry.BACKBONES, registry.LICENCES, registry.FACTS):
        for name in ("mine", "yours"):
            monkeypatch.setitem(known, name, None)
            monkeypatch.delitem(known, name)

    def add(name, *arguments, **facts):
        @backbones.register(name, *arguments, **facts)
        def network(layer="features", weights="imagenet"):
            photos = keras.Input((None, None, 3))
            return keras.Model(photos, keras.layers.Conv2D(4, 5, 3, activation="relu", name="features")(photos), name=name)

    return add


class TestList:
    def test_has_every_network_by_name(self):
        found = backbones.list()
        assert sorted(network.name for network in found) == sorted(backbones.BACKBONES)
        assert [network.name for network in backbones.list("resnet*")] == [
            f"resnet{layers}{version}" for layers in (50, 101, 152) for version in ("", "v2")
        ]
        assert all(isinstance(network, Network) for network in found)
        assert {network.name: network.licence for network in found} == backbones.LICENCES

    def test_every_network_of_the_package_says_all_of_itself(self):
        for network in backbones.list():
            module = getattr(backbones.BACKBONES[network.name], "func", backbones.BACKBONES[network.name]).__module__
            if module.startswith("rw_keras"):
                assert None not in (network.channels, network.stride, network.smallest_side), network.name
                assert "not known" not in network.licence, network.name

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["vgg16", "alexnet", "mobilenetv2", "efficientnetb0", "densenet121", "convnexttiny"])
    def test_says_what_the_built_network_is(self, name):
        (row,) = backbones.list(name)
        network, _ = backbones.network(name, None, None)
        assert row.channels == network.output_shape[-1]
        assert row.smallest_side == backbones.smallest_side(network)
        cells = network.compute_output_shape((1, 1024, 1024, 3))[1]
        assert row.stride == 2 ** round(np.log2(1024 / cells))

    def test_pattern_in_any_case(self):
        assert {network.name for network in backbones.list("VGG*")} == {"vgg16", "vgg19"}
        with pytest.raises(ValueError, match=r"no network like 'vgg20'; choose among .*vgg16"):
            backbones.list("vgg20")

    def test_a_network_that_says_nothing_of_itself(self, registered):
        registered("mine")
        (row,) = backbones.list("mine")
        assert row == Network("mine", None, None, None, "not known", None)
        assert str(backbones.list("mine")).splitlines()[1].split() == ["mine", "-", "-", "-", "not", "measured", "not", "known"]

    def test_a_network_that_does(self, registered):
        registered("mine", "MIT", channels=4, stride=3, smallest_side=5, measured="my paper")
        (row,) = backbones.list("mine")
        assert row.to_dict() == {
            "name": "mine",
            "channels": 4,
            "stride": 3,
            "smallest_side": 5,
            "licence": "MIT",
            "measured": "my paper",
        }
        model = rw_keras.build_descriptor("mine", whitening=None)
        assert model.output_shape[-1] == row.channels and model.recipe["min_side"] == row.smallest_side

    def test_prints_aligned(self):
        lines = str(backbones.list("*net*")).splitlines()
        assert lines[0].startswith("name ") and len({line.index("not measured") for line in lines if "not measured" in line}) == 1
        assert repr(backbones.list("vgg16")) == str(backbones.list("vgg16"))
        assert isinstance(backbones.list()[:2], tuple) and not isinstance(backbones.list()[0], Networks)


@pytest.mark.slow
def test_no_network_is_built_for_it():
    program = (
        "import keras, rw_keras\n"
        "def fail(*_, **__): raise AssertionError('a layer was built')\n"
        "keras.layers.Layer.__init__ = fail\n"
        "print(len(rw_keras.backbones.list()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(backbones.list())
