"""Models as files of other programs, which take pixels: ONNX, OpenVINO and LiteRT."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os

import keras
import numpy as np

from rw_keras.export.card import model_card
from rw_keras.export.paths import new_file, new_path, whole_or_not_at_all
from rw_keras.files import extra
from rw_keras.runtimes.graphs import pixels_function, saved_for_converters, tensorflow_backend
from rw_keras.runtimes.openvino import converted_to_openvino, imported

# Keras' own `model.export(format=...)` gives the same values and is not taken, because it writes no metadata, calls the output
# "Identity:0" or "output_0", gives OpenVINO's file two outputs too many by a converter that reports its use over the network, and
# writes no LiteRT in Keras 3.12.


def export_onnx(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Writes a descriptor model as ONNX: `pixels` `(B, H, W, 3)` float32 of any size -> `descriptor` `(B, D)`.

    Needs the extra `onnx`. The file's metadata holds the model card.

    Raises:
        FileExistsError, ImportError, RuntimeError, ValueError: see `export_saved_model`; ImportError names what to install.
    """
    tensorflow_backend()
    path = new_file(path, ".onnx")
    with extra("onnx"):
        import onnx
        import tf2onnx
    pixels = pixels_function(model)
    handlers = {"Erfc": (_as_erf, [])}
    converted, _ = tf2onnx.convert.from_function(pixels, pixels.input_signature, opset=17, custom_op_handlers=handlers)
    _give_values(converted.graph, pixels.get_concrete_function())
    try:
        onnx.checker.check_model(converted)  # what it cannot convert the converter only logs
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RuntimeError(f"The model {model.name!r} cannot be written as ONNX: {reason}.") from error
    onnx.helper.set_model_props(converted, {"rw_keras": json.dumps(model_card(model))})
    with whole_or_not_at_all(path) as folder:
        onnx.save(converted, folder / path.name)


def _give_values(graph, function):
    """Gives what a TensorFlow function holds beside its weights, such as the mean of a `Normalization`, its values: tf2onnx makes
    inputs of it."""
    import onnx

    values = dict(zip([tensor.name for tensor in function.inputs[1:]], function.captured_inputs))
    for given in [given for given in graph.input if given.name in values]:
        graph.initializer.append(onnx.numpy_helper.from_array(values[given.name].numpy(), given.name))
        graph.input.remove(given)


def _as_erf(context, node, name, args):
    """TensorFlow's `Erfc`, of a GELU, which tf2onnx does not know and ONNX has not: 1 - Erf."""
    import tf2onnx

    dtype, shape = context.get_dtype(node.output[0]), context.get_shape(node.output[0])
    one = context.make_const(tf2onnx.utils.make_name("one"), np.ones((), tf2onnx.utils.map_onnx_to_numpy_type(dtype)))
    given, made = list(node.input), list(node.output)
    context.remove_node(node.name)
    erf = context.make_node("Erf", given, shapes=[shape], dtypes=[dtype])
    return context.make_node("Sub", [one.output[0], erf.output[0]], name=name, outputs=made, shapes=[shape], dtypes=[dtype])


def export_openvino(model: keras.Model, path: str | os.PathLike[str], *, int8: bool = False) -> None:
    """Writes a descriptor model as OpenVINO IR, an `.xml` with a `.bin` beside it: `pixels` `(B, H, W, 3)` float32 -> `descriptor`.

    Needs the extra `openvino`.

    Args:
        int8: whether to keep the weights in 8 bits, a quarter of the file; they are turned into floats before they are used.

    Raises:
        FileExistsError, ImportError, RuntimeError, ValueError: see `export_saved_model`; ImportError names what to install.
    """
    tensorflow_backend()
    path = new_file(path, ".xml")
    new_path(path.with_suffix(".bin"), "choose another name or remove it")
    with extra("openvino"):
        openvino = imported("openvino")
        nncf = imported("nncf") if int8 else None
    converted = converted_to_openvino(model)
    if int8:
        nncf.set_log_level(logging.ERROR)  # it tells its statistics on standard output
        # The whitening divides by small numbers, and rounding its axes would cost more than all of the network's.
        whitening = nncf.IgnoredScope(patterns=[".*whitening.*"], validate=False)
        with contextlib.redirect_stdout(io.StringIO()):  # a progress bar
            converted = nncf.compress_weights(converted, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=whitening)
    converted.set_rt_info(json.dumps(model_card(model)), ["rw_keras"])
    with whole_or_not_at_all(path) as folder:
        openvino.save_model(converted, folder / path.name, compress_to_fp16=False)


def export_litert(model: keras.Model, path: str | os.PathLike[str], *, int8: bool = False) -> None:
    """Writes a descriptor model as LiteRT (`.tflite`): `pixels` `(B, H, W, 3)` float32 -> `descriptor` `(B, D)`.

    The interpreter takes one size at a time: resize its input, then allocate. The signature is called `serving_default`.

    Args:
        int8: whether to keep the weights in 8 bits, a quarter of the file; activations are quantised as they come
            (dynamic-range quantisation, no photos needed).

    Raises:
        FileExistsError, RuntimeError, ValueError: see `export_saved_model`.
    """
    tf = tensorflow_backend()
    path = new_file(path, ".tflite")
    with saved_for_converters(model) as saved:
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        if int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        content = converter.convert()
    with whole_or_not_at_all(path) as folder:
        (folder / path.name).write_bytes(content)
