"""Models for other processes: a SavedModel that serves image bytes, and ONNX, OpenVINO and LiteRT files that take pixels."""

import contextlib
import io
import json
import logging
import os
import pathlib
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from PIL import Image

import rw_keras
from rw_keras.backbones import LICENCES
from rw_keras.descriptor import recipe
from rw_keras.engines.openvino import imported
from rw_keras.extraction import smallest_side
from rw_keras.files import checked_path

DTYPES = ("float32", "float16", "bfloat16")

# No JPEG has a longer side.
_LONGEST_SIDE = 65500
# The warm-up's photo has no longer side: one that fills the memory would end the server as it starts.
_WARM_UP_SIDE = 2048

# Photos of one request are described one after the other, so a large batch gains nothing over a small one but waits longer; the
# threads bound how many networks, and how much memory, are at work at a time. Nothing may be padded: a padded photo is another one.
_BATCHING = """max_batch_size { value: 8 }
batch_timeout_micros { value: 2000 }
num_batch_threads { value: 2 }
max_enqueued_batches { value: 64 }
pad_variable_length_inputs: false
"""


def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    max_side: int = 1024,
    dtype: str = "float32",
    batching: bool = False,
) -> None:
    """Writes a descriptor model as a TensorFlow SavedModel that needs nothing of this package.

    Signatures, each returning `descriptor` `(B, D)` float32:

    - `serving_default`: `image_bytes` `(B,)` strings, encoded photos of any sizes: JPEG, PNG, WebP, BMP (of 8 bits and more),
      GIF (the first frame). Each is decoded, turned upright by its EXIF orientation and reduced to `max_side`, as
      `rw_keras.describe` does it: the same pixels, the same digits.
    - `query`: `image_bytes` `(B,)` and `box` `(B, 4)` float32, x1, y1, x2, y2 in pixels of the upright full-size photo; the box
      is cut out before the network.
    - `pixels`: `pixels` `(B, H, W, 3)` float32, and `pixels_uint8`: the same in uint8; RGB 0..255, of any size, already reduced.

    A photo that cannot be decoded fails its whole request; ask again for each photo alone. Bytes of an unknown format, a box
    outside its photo and a photo that is too small fail with the photo's index in the message, and so does, before it is decoded,
    one of more than 178 956 970 pixels, as many as Pillow takes. A photo at that limit takes 0.8 to 1.6 GB while it is read.

    `assets.extra` holds requests that warm the model up when TF Serving loads it, and `model_card.json`.

    Args:
        model: a model of `build_descriptor`.
        path: the version folder to make, such as "serving/rw_vgg16/1": TF Serving takes the highest number. It appears whole or
            not at all.
        max_side: the longer side of a photo is reduced to this many pixels. Default 1024.
        dtype: what the network's weights are kept as: "float32", or "float16" or "bfloat16" for half the file. They are turned
            into float32 before they are used; the whitening stays float32.
        batching: whether to write TF Serving's batching parameters beside the warm-up requests, for
            `--enable_per_model_batching_parameters`.

    Raises:
        FileExistsError: when `path` is there already: a server may be using it.
        ValueError: for another `dtype`, a `max_side` below the network's smallest photo or above 65,500, or a model of one fixed
            photo size.
        RuntimeError: when Keras does not run on TensorFlow.
    """
    if dtype not in DTYPES:
        raise ValueError(f"Weights are kept as one of {', '.join(DTYPES)}, but got dtype={dtype!r}.")
    smallest = smallest_side(model)
    if isinstance(max_side, bool) or not isinstance(max_side, int) or not smallest <= max_side <= _LONGEST_SIDE:
        raise ValueError(
            f"max_side is a whole number of pixels, for this network from {smallest} to {_LONGEST_SIDE}, but got {max_side!r}."
        )
    path = _new(checked_path(path).resolve(), "choose the next version's folder")
    if not path.name.isdecimal():
        warnings.warn(
            f"TF Serving takes version folders named by a whole number, so not {path}; call it {path / '1'}.", stacklevel=2
        )
    from rw_keras import graph_images

    module, signatures = _served(model, dtype, max_side)
    with _whole_or_not_at_all(path) as folder:
        _save(module, folder, signatures)
        extra = folder / "assets.extra"
        extra.mkdir()
        _write_warm_up(extra / "tf_serving_warmup_requests", path.parent.name, max_side)
        if batching:
            (extra / "batching_params.pbtxt").write_text(_BATCHING)
        card = model_card(model, max_side=max_side, most_pixels=graph_images.MOST_PIXELS, dtype=dtype)
        (extra / "model_card.json").write_text(json.dumps(card, indent=1) + "\n")


def export_onnx(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Writes a descriptor model as ONNX: `pixels` `(B, H, W, 3)` float32 of any size -> `descriptor` `(B, D)`.

    Needs the extra `onnx`. The file's metadata holds the model card.

    Raises:
        FileExistsError, ImportError, RuntimeError, ValueError: see `export_saved_model`; ImportError names what to install.
    """
    path = _new_file(path, ".onnx")
    with _needs("onnx"):
        import onnx
        import tf2onnx
    pixels = _pixels_function(model)
    converted, _ = tf2onnx.convert.from_function(pixels, pixels.input_signature, opset=17)
    try:
        onnx.checker.check_model(converted)  # what it cannot convert the converter only logs
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RuntimeError(f"The model {model.name!r} cannot be written as ONNX: {reason}.") from error
    onnx.helper.set_model_props(converted, {"rw_keras": json.dumps(model_card(model))})
    with _whole_or_not_at_all(path) as folder:
        onnx.save(converted, folder / path.name)


def export_openvino(model: keras.Model, path: str | os.PathLike[str], *, int8: bool = False) -> None:
    """Writes a descriptor model as OpenVINO IR, an `.xml` with a `.bin` beside it: `pixels` `(B, H, W, 3)` float32 -> `descriptor`.

    Needs the extra `openvino`.

    Args:
        int8: whether to keep the weights in 8 bits, a quarter of the file; they are turned into floats before they are used.

    Raises:
        FileExistsError, ImportError, RuntimeError, ValueError: see `export_saved_model`; ImportError names what to install.
    """
    path = _new_file(path, ".xml")
    _new(path.with_suffix(".bin"), "choose another name or remove it")
    with _needs("openvino"):
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
    with _whole_or_not_at_all(path) as folder:
        openvino.save_model(converted, folder / path.name, compress_to_fp16=False)


def converted_to_openvino(model: keras.Model, dtype: str = "float32") -> Any:
    """An `openvino.Model` of any Keras model of pixels.

    Args:
        model: photos `(B, H, W, 3)` in, one tensor out.
        dtype: what the pixels are.

    Raises:
        ValueError: when OpenVINO does not know an operation of it, with OpenVINO's own words.
    """
    openvino = imported("openvino")
    with saved_for_converters(model, dtype) as saved:
        try:
            # Not `convert_model`, which reports its use even so where the process imported openvino before; see `imported`.
            return openvino.Core().read_model(saved)
        except Exception as error:  # its own classes of errors differ between its versions
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"OpenVINO cannot compute {model.name!r}: {reason}.") from error


def export_litert(model: keras.Model, path: str | os.PathLike[str], *, int8: bool = False) -> None:
    """Writes a descriptor model as LiteRT (`.tflite`): `pixels` `(B, H, W, 3)` float32 -> `descriptor` `(B, D)`.

    The interpreter takes one size at a time: resize its input, then allocate. The signature is called `serving_default`.

    Args:
        int8: whether to keep the weights in 8 bits, a quarter of the file; activations are quantised as they come
            (dynamic-range quantisation, no photos needed).

    Raises:
        FileExistsError, RuntimeError, ValueError: see `export_saved_model`.
    """
    path = _new_file(path, ".tflite")
    tf = _tensorflow()
    with saved_for_converters(model) as saved:
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        if int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        content = converter.convert()
    with _whole_or_not_at_all(path) as folder:
        (folder / path.name).write_bytes(content)


def model_card(model: keras.Model, **more: Any) -> dict[str, Any]:
    """What a served model is, as plain values: its recipe with all digests, versions, and the licence of its weights."""
    made = recipe(model)
    return {
        "model": model.name,
        "dimensions": model.output_shape[-1],
        "recipe": made,
        **more,
        "versions": {"rw_keras": rw_keras.__version__, "keras": keras.__version__, "tensorflow": _tensorflow().__version__},
        "licence_of_the_weights": LICENCES.get(made["backbone"], "not known: it is the user's own network"),
        "licence_of_the_code": "Apache-2.0",
    }


def _tensorflow() -> Any:
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"Models are exported by Keras on TensorFlow, but it runs on {keras.backend.backend()}; save the model, and export "
            "it with KERAS_BACKEND=tensorflow."
        )
    import tensorflow as tf

    return tf


def _module(model: keras.Model) -> Any:
    """A `tf.Module` that holds the model's variables, and no other part of Keras, for the SavedModel."""
    module = _tensorflow().Module()
    module.weights = [variable.value for variable in model.variables]
    return module


def _check_dynamic(model: keras.Model) -> None:
    if tuple(model.input_shape[1:]) != (None, None, 3):
        raise ValueError(
            f"The model {model.name!r} takes photos of the shape {tuple(model.input_shape[1:])} alone; build it with an input of "
            "(None, None, 3), so that photos of every size can be served."
        )


def _pixels_function(model: keras.Model, dtype: str = "float32", call: Callable | None = None) -> Any:
    """The signature function `pixels` of a model."""
    tf = _tensorflow()
    _check_dynamic(model)
    call = call or (lambda pixels: model(pixels, training=False))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), dtype, name="pixels")])
    def pixels(pixels):
        return {"descriptor": call(pixels)}

    return pixels


@contextlib.contextmanager
def saved_for_converters(model: keras.Model, dtype: str = "float32") -> Iterator[str]:
    """A temporary SavedModel of the `pixels` signature alone, which converters can read: they know no string operations."""
    pixels = _pixels_function(model, dtype)
    module = _module(model)
    module.pixels = pixels
    with tempfile.TemporaryDirectory() as folder:
        disabled = logging.root.manager.disable
        logging.disable(logging.INFO)  # it tells every step of what nobody will see
        try:
            _save(module, folder, {"serving_default": pixels})
        finally:
            logging.disable(disabled)
        yield folder


def _served(model: keras.Model, dtype: str, max_side: int) -> tuple[Any, dict[str, Any]]:
    """A `tf.Module` with the weights in `dtype`, and the signature functions by name."""
    tf = _tensorflow()
    from rw_keras import graph_images

    if dtype == "float32":
        module = _module(model)

        def call(pixels):
            return model(pixels, training=False)

    else:
        module = tf.Module()
        kept = {}
        for variable in model.variables:
            whitening = variable.path.startswith("whitening/")
            half = variable.dtype == "float32" and not whitening
            kept[id(variable)] = tf.Variable(tf.cast(variable.value, dtype)) if half else variable.value
        module.weights = list(kept.values())

        def values(variables):
            return [tf.cast(kept[id(variable)], variable.dtype) for variable in variables]

        def call(pixels):
            return model.stateless_call(
                values(model.trainable_variables), values(model.non_trainable_variables), pixels, training=False
            )[0]

    smallest = smallest_side(model)
    dimensions = model.output_shape[-1]

    def describe(count, one):
        # One after the other: sizes differ, and a network at work fills the machine.
        return tf.map_fn(one, tf.range(count), fn_output_signature=tf.TensorSpec((dimensions,), tf.float32), parallel_iterations=1)

    def one_photo(image_bytes, box=None):
        def describe_one(position):
            name = tf.strings.format("image_bytes[{}]", position)
            where = None if box is None else box[position]
            photo = graph_images.read_image(image_bytes[position], max_side, name, where, smallest)
            return call(tf.cast(photo, tf.float32)[None])[0]

        return describe_one

    def large_enough(pixels):
        # A kernel of TensorFlow that is given an empty map may take the whole server down.
        sides = tf.shape(pixels)[1:3]
        fits = tf.debugging.Assert(
            tf.reduce_min(sides) >= smallest,
            ["pixels are", sides, f"high and wide, too small: each side needs {smallest} or more."],
        )
        with tf.control_dependencies([fits]):
            return call(tf.cast(tf.identity(pixels), tf.float32))

    image_bytes = tf.TensorSpec((None,), tf.string, name="image_bytes")

    @tf.function(input_signature=[image_bytes])
    def serving_default(image_bytes):
        return {"descriptor": describe(tf.shape(image_bytes)[0], one_photo(image_bytes))}

    @tf.function(input_signature=[image_bytes, tf.TensorSpec((None, 4), tf.float32, name="box")])
    def query(image_bytes, box):
        return {"descriptor": describe(tf.shape(image_bytes)[0], one_photo(image_bytes, box))}

    return module, {
        "serving_default": serving_default,
        "query": query,
        "pixels": _pixels_function(model, "float32", large_enough),
        "pixels_uint8": _pixels_function(model, "uint8", large_enough),
    }


def _save(module: Any, folder: str | os.PathLike[str], signatures: dict[str, Any]) -> None:
    _tensorflow().saved_model.save(module, str(folder), signatures=signatures)


def _write_warm_up(path: pathlib.Path, name: str, max_side: int) -> None:
    """Requests that TF Serving runs when it loads the model, one a signature, on a made-up photo of the usual shape."""
    tf = _tensorflow()
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    side = min(max_side, _WARM_UP_SIDE)
    random = np.random.default_rng(0)
    photo = Image.fromarray(random.integers(0, 256, (12, 16, 3), "uint8"))
    buffer = io.BytesIO()
    photo.resize((side, max(1, side * 3 // 4)), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    encoded = np.array([buffer.getvalue()], object)
    box = np.array([[0, 0, side // 2 + 1, side * 3 // 4]], "float32")
    # Pixels travel as they are, so a small photo keeps the file small.
    pixels = np.asarray(photo.resize((256, 192)))[None]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in {
            "serving_default": {"image_bytes": encoded},
            "query": {"image_bytes": encoded, "box": box},
            "pixels": {"pixels": pixels.astype("float32")},
            "pixels_uint8": {"pixels": pixels},
        }.items():
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=name, signature_name=signature),
                inputs={key: tf.make_tensor_proto(value) for key, value in inputs.items()},
            )
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())


def _new(path: str | os.PathLike[str], mend: str) -> pathlib.Path:
    """The path as a `pathlib.Path`, or an error when it is there already or cannot be."""
    path = checked_path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already and may be in use; {mend}.")
    return path


def _new_file(path: str | os.PathLike[str], ending: str) -> pathlib.Path:
    path = _new(path, "choose another name or remove it")
    if path.suffix != ending:
        raise ValueError(f"The file's name has to end in {ending}, but got {path}; call it {path.with_suffix(ending)}.")
    return path


@contextlib.contextmanager
def _whole_or_not_at_all(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to write to. It becomes `path`, or, where files named as `path` are written into it, they move beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent / f".export-{secrets.token_hex(8)}"
    folder.mkdir()  # with the mode that the user's umask leaves, which `tempfile` does not look at
    try:
        yield folder
        written = sorted(folder.iterdir(), key=lambda file: file.name == path.name)  # the one that is asked for comes last
        if any(file.name == path.name for file in written):
            for file in written:
                os.replace(file, path.parent / file.name)
        else:
            os.rename(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _needs(extra: str) -> Iterator[None]:
    """Turns a missing package into the line that installs it."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f'{error}. Install what this needs with: pip install "rw_keras[{extra}]"') from error
