"""Networks that multiply in 8 bits: what they promise, what they leave as it is, and what making them needs."""

import importlib.util

import keras
import numpy as np
import pytest

from rw_keras import runtimes
from rw_keras.runtimes import describer, promises, sample_photos
from rw_keras.runtimes import ncnn as ncnn_runtime
from rw_keras.runtimes import openvino as openvino_runtime
from rw_keras.runtimes.keras_model import batch_function


@pytest.fixture
def quantising(engine):
    """The name of each engine, where what quantises for it is installed."""
    quantiser = describer.RUNTIMES[engine].QUANTISER
    if quantiser and importlib.util.find_spec(quantiser) is None:
        pytest.skip(f"{quantiser} is not installed")
    return engine


def cosines(one, other):
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return (one.astype("float64") * other).sum(axis=-1) / lengths


class TestDescriptors:
    @pytest.mark.slow
    def test_close_to_tensorflow_but_not_the_same(self, quantising, known):
        """On photos of neither its check nor its calibration."""
        describe = describer.ModelRuntimes.of(known).function(quantising, "int8")
        found = []
        for pixels in (*sample_photos.made_photos(80, 7), *sample_photos.made_photos(45, 8)):
            found += cosines(describe(pixels[None]), batch_function(known)(pixels[None])).tolist()
        assert np.mean(found) > 0.995
        assert min(found) < 1 - 1e-6  # it does compute in 8 bits

    def test_a_zero_map_gives_a_zero_descriptor(self, quantising, tiny_model):
        model = tiny_model()
        pixels = np.concatenate([np.zeros((1, 16, 24, 3), "uint8"), sample_photos.made_photos(24, 3)[0][None, :16, :24]])
        described = describer.ModelRuntimes.of(model).function(quantising, "int8")(pixels)
        assert not described[0].any()
        assert described[1].any()

    def test_maps_are_not_negative(self, quantising, known):
        own = describer.ModelRuntimes.of(known)
        maps = own._feature_maps(quantising, "int8")(sample_photos.made_photos(64, 3)[0][None])
        assert maps.min() == 0 and maps.max() > 0

    def test_regions_add_up_to_the_descriptor(self, quantising, known):
        function = describer.ModelRuntimes.of(known).function(quantising, "int8")
        pixels = sample_photos.made_photos(64, 3)[0][None]
        descriptors, vectors, boxes = function(pixels, regions=True)
        np.testing.assert_array_equal(descriptors, function(pixels))
        total = vectors.sum(axis=1)
        np.testing.assert_allclose(total / np.linalg.norm(total), descriptors, atol=1e-6)
        assert len(boxes) == vectors.shape[1]


class TestPromise:
    @pytest.mark.parametrize(("lowest", "mean", "kept"), [(0.9, 0.999, True), (0.9949, 0.9951, False), (0.9, float("nan"), False)])
    def test_is_one_on_the_mean(self, lowest, mean, kept):
        check = {"cosine": lowest, "mean": mean}
        assert promises.keeps(check, "int8") == kept
        assert not promises.keeps(check, "fast")

    def test_the_fastest_of_all_that_keep_it(self, known, monkeypatch):
        """Those of "fast" and "exact" keep it too."""
        monkeypatch.setattr(describer.ModelRuntimes, "check", lambda *_: {"cosine": 0.998, "mean": 0.9995, "seconds": 1.0})
        seconds = iter([3.0, 2.0, 2.5, 1.5, 1.0, 0.7, 0.6, 0.5])

        def measure(own, rows, size):
            for row in rows:
                row["seconds"] = next(seconds)

        monkeypatch.setattr("rw_keras.runtimes.choice._measure", measure)
        chosen = runtimes.choose(known, "int8")
        assert (chosen.runtime, chosen.variant) == ("ncnn", "int8")
        assert "int8: mean cosine to Keras in float32 at least 0.995" in str(chosen)
        kinds = [(row["runtime"], row["variant"]) for row in chosen.rows]
        assert ("openvino", "float32") in kinds and ("openvino", "int8") in kinds

    @pytest.mark.slow
    def test_is_loaded_and_found_again_without_keras(self, quantising, vgg_like, monkeypatch):
        def measure(own, rows, size):
            for row in rows:
                row["seconds"] = 0.1 if row["variant"] == "int8" else 1.0

        monkeypatch.setattr("rw_keras.runtimes.choice._measure", measure)
        monkeypatch.setattr("rw_keras.runtimes.choice._HOPELESS", 1e9)
        described = runtimes.load(vgg_like, quantising, "int8")
        assert (described.variant, described.precision) == ("int8", "int8")
        monkeypatch.setattr(describer.RUNTIMES[quantising], "make_int8", None)
        again = runtimes.load_cached(described.recipe, quantising, "int8")
        pixels = sample_photos.made_photos(64, 3)[0][None]
        np.testing.assert_array_equal(again(pixels), described(pixels))


class TestWithoutNNCF:
    @pytest.fixture(autouse=True)
    def away(self, monkeypatch):
        pytest.importorskip("openvino")
        real = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "nncf" else real(name, *rest))

    def test_a_named_runtime_says_what_to_install(self, vgg_like):
        with pytest.raises(ImportError, match=r'quantises networks with nncf, which is not installed; .*"rw_keras\[openvino\]"'):
            runtimes.load(vgg_like, "openvino", "int8")

    def test_auto_names_it_and_takes_another(self, vgg_like, monkeypatch):
        real = describer.ModelRuntimes.check
        good = {"cosine": 1.0, "mean": 1.0, "seconds": 1.0}
        monkeypatch.setattr(
            describer.ModelRuntimes, "check", lambda own, *of: real(own, *of) if of == ("openvino", "int8") else good
        )
        monkeypatch.setattr("rw_keras.runtimes.choice._measure", lambda own, rows, size: [row.update(seconds=1.0) for row in rows])
        chosen = runtimes.choose(vgg_like, "int8", (48, 64), runtimes=("tensorflow", "openvino"))
        (row,) = (row for row in chosen.rows if row["variant"] == "int8")
        assert "nncf, which is not installed" in row["note"] and row["seconds"] is None
        assert chosen.variant != "int8"


def test_ncnn_leaves_the_first_convolution_and_those_in_groups():
    photos = keras.Input((None, None, 3), name="photos")
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="one")(photos)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="two")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu", name="each")(x)
    text, _ = ncnn_runtime.make_int8(keras.Model(photos, x), sample_photos.made_photos(32, 0))
    lines = [line for line in text.decode().splitlines() if line.startswith("Convolution")]
    assert [" 8=2" in line for line in lines] == [False, True, False]


def test_openvino_leaves_the_first_convolution(known):
    pytest.importorskip("nncf")
    network = describer.ModelRuntimes.of(known).network
    text, _ = openvino_runtime.make_int8(network, sample_photos.made_photos(32, 0))
    float_text, _ = openvino_runtime.make(network)
    quantised = text.count(b'type="FakeQuantize"')
    convolutions = float_text.count(b'type="Convolution"')
    assert float_text.count(b'type="FakeQuantize"') == 0
    assert convolutions - 1 <= quantised < 2 * convolutions


@pytest.mark.parametrize("side", [96, 320])
def test_photos_are_calibrated_on_that_every_installation_has(side, monkeypatch):
    with_real = sample_photos.for_calibration(side)
    monkeypatch.setattr(sample_photos, "_real", lambda *_: [])
    alone = sample_photos.for_calibration(side)
    assert len(alone) == 2 and all(max(photo.shape) == side and photo.dtype == np.uint8 for photo in with_real + alone)
    kind, checked = sample_photos.for_check(side)
    assert kind == "generated" and not np.array_equal(checked[0], alone[0])
