"""`model.export` and `model.quantize`: Keras' own names, and what the package has for them."""

import importlib.util
import inspect
import json

import keras
import numpy as np
import pytest

import rw_keras
from rw_keras.export import formats


def test_takes_what_keras_takes():
    keras_own = inspect.signature(keras.Model.export).parameters
    assert list(inspect.signature(rw_keras.DescriptorModel.export).parameters) == list(keras_own)
    assert inspect.signature(rw_keras.DescriptorModel.export).parameters["format"].default == keras_own["format"].default


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"format": "torch"}, r"one of tf_saved_model, onnx, openvino, litert, but got format='torch'"),
        (
            {"input_signature": [keras.InputSpec(shape=(None, 8, 8, 3))]},
            r"see rw_keras\.export_saved_model; leave input_signature out",
        ),
        ({"max_pixels": 8}, r"'tf_saved_model' takes max_side, dtype, batching, but got max_pixels=8"),
        ({"format": "onnx", "max_side": 8}, r"'onnx' takes no options, but got max_side=8"),
        ({"format": "litert", "opset_version": 8}, r"'litert' takes int8, but got opset_version=8"),
        ({"max_side": 4}, r"max_side is a whole number of pixels, for this network from 8"),
    ],
    ids=str,
)
def test_refused(model, tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        model.export(tmp_path / "1", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["tf_saved_model", "onnx", "openvino", "litert"])
def test_another_backend_is_refused_before_any_work(model, tmp_path, monkeypatch, format):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(RuntimeError, match=r"it runs on torch; save the model, load it .*KERAS_BACKEND=tensorflow, and export"):
        model.export(tmp_path / "model.of_any_ending", format=format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", formats.FORMATS)
def test_each_format_is_its_function(model, tmp_path, monkeypatch, capsys, format):
    asked = []

    def record(*arguments, max_side=1024):
        asked.append((*arguments, max_side))

    monkeypatch.setitem(formats.FORMATS, format, record)
    model.export(tmp_path / "1", format=format, max_side=64)
    assert asked == [(model, tmp_path / "1", 64)] and capsys.readouterr().out == ""
    model.export(tmp_path / "1", format, verbose=True)
    assert asked[1] == (model, tmp_path / "1", 1024)
    assert capsys.readouterr().out == f"{model.name} was written to {tmp_path / '1'} as {format}.\n"


@pytest.mark.slow
def test_saved_model(model, tmp_path, draw):
    """The same signatures, values and card as `export_saved_model` gives, of a model in mixed precision too."""
    import tensorflow as tf

    model.export(tmp_path / "1", max_side=64)
    rw_keras.export_saved_model(model, tmp_path / "2", max_side=64)
    cards = [json.loads((tmp_path / version / "assets.extra" / "model_card.json").read_text()) for version in "12"]
    assert cards[0] == cards[1] and cards[0]["max_side"] == 64 and "tensorflow" in cards[0]["versions"]
    pixels = draw(1, 60, 48)[None].astype("float32")
    loaded = [tf.saved_model.load(str(tmp_path / version)).signatures for version in "12"]
    assert set(loaded[0]) == set(loaded[1])
    found = [signatures["pixels"](pixels=tf.constant(pixels))["descriptor"].numpy() for signatures in loaded]
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0][0], rw_keras.describe(model, draw(1, 60, 48)), atol=1e-6)


@pytest.mark.slow
def test_mixed_precision(tiny_model, tmp_path, draw):
    """A model in mixed precision is exported as it is: its SavedModel computes what it computes."""
    import tensorflow as tf

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = tiny_model()
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.export(tmp_path / "1", max_side=64)
    signature = tf.saved_model.load(str(tmp_path / "1")).signatures["pixels"]
    found = signature(pixels=tf.constant(draw(1, 60, 48)[None], tf.float32))["descriptor"].numpy()[0]
    np.testing.assert_allclose(found, rw_keras.describe(mixed, draw(1, 60, 48)), atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason='reads ONNX: pip install "rw_keras[onnx]"')
def test_onnx(model, tmp_path, draw):
    import onnxruntime

    model.export(str(tmp_path / "model.onnx"), format="onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(["descriptor"], {"pixels": draw(1, 60, 48)[None].astype("float32")})
    np.testing.assert_allclose(found[0], rw_keras.describe(model, draw(1, 60, 48)), atol=1e-5)


class TestQuantize:
    @pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
    def test_is_refused(self, model, mode):
        before = model.recipe
        with pytest.raises(ValueError, match=r'stays as its recipe says; .*precision="int8".*int8=True'):
            model.quantize(mode)
        assert model.recipe == before

    @pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
    def test_would_leave_convolutions_as_they_are(self, tiny_model):
        """Why it is refused: Keras has nothing in 8 bits for them."""
        model = tiny_model()
        before = model.get_weights()
        keras.Model.quantize(model, "int8")
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
