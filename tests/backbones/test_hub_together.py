"""A network of KerasHub with all that stands on a network: whitening, scales, index, explanation, exports, runtimes."""

import importlib.util

import keras
import numpy as np
import pytest
from backbones import hub_networks
from layers.habits import run
from PIL import Image

import rw_keras
from rw_keras import backbones, runtimes
from rw_keras.retrieval import Index
from rw_keras.runtimes.graphs import saved_for_converters
from rw_keras.views import explain

pytest.importorskip("keras_hub", reason='KerasHub is not installed: pip install "rw_keras[hub]"')
pytestmark = pytest.mark.slow

PIXELS = [np.random.default_rng(0).integers(0, 256, (1, *size, 3)).astype("float32") for size in ((24, 32), (31, 17))]


@pytest.fixture(scope="module")
def network():
    return backbones.hub(hub_networks.dinov2(num_register_tokens=2), hub_networks.converter())


def test_whitening_scales_and_an_index(network, draw, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(6):
        Image.fromarray(draw(seed, 40, 32)).save(photos / f"{seed}.png")
    model = rw_keras.build_descriptor(network, method="class_rw", levels=2, components=8, shrinkage=0.2, whitening=None)
    rw_keras.fit_whitening(model, [draw(seed, 40, 32) for seed in range(10)], progress=False)
    model = rw_keras.multi_scale(model, (1, 0.5))
    rw_keras.extract(model, photos, tmp_path / "index", regions="int8", runtime="tensorflow", progress=False)
    index = Index.load(tmp_path / "index")
    hits = index.search_photo(model, photos / "3.png", k=2, rerank=4)
    assert hits[0][0] == "3.png"
    shares = explain.region_shares(model, photos / "3.png")
    assert shares.shares.sum() == pytest.approx(1, abs=1e-6)
    assert shares.windows[0].tolist() == [0, 0, 40, 32]
    model.save(tmp_path / "model.keras")
    again = rw_keras.load_model(tmp_path / "model.keras")
    assert [name for name, _ in index.search_photo(again, photos / "3.png", k=2, rerank=4)] == [name for name, _ in hits]


@pytest.fixture(scope="module")
def model(network):
    return rw_keras.build_descriptor(network, method="class_token", whitening=None)


def test_saved_model_takes_any_size(model):
    """Of the signature `pixels` alone: the others decode photos before they do the same."""
    import tensorflow as tf

    with saved_for_converters(model) as folder:
        served = tf.saved_model.load(folder).signatures["serving_default"]
        for pixels in PIXELS:
            np.testing.assert_allclose(served(pixels=tf.constant(pixels))["descriptor"].numpy(), run(model, pixels), atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="ONNX Runtime is not installed")
def test_onnx_takes_any_size(model, tmp_path):
    import onnxruntime

    rw_keras.export_onnx(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for pixels in PIXELS:
        np.testing.assert_allclose(session.run(None, {"pixels": pixels})[0], run(model, pixels), atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_openvino_computes_it_and_what_the_numpy_head_cannot_is_refused(model, network):
    described = runtimes.load(model, "openvino")
    for pixels in PIXELS:
        np.testing.assert_allclose(described.function(pixels), run(model, pixels), atol=1e-4)
    both = rw_keras.build_descriptor(network, method="class_rw", whitening=None)
    with pytest.raises(ValueError, match=r"its layer 'regions_and_class' \(OneMoreRegion\)"):
        runtimes.load(both, "openvino")
    assert keras.ops.shape(both(PIXELS[0]))[1] == 16
