"""A model for other processes: a SavedModel that serves image bytes."""

from __future__ import annotations

import io
import json
import os
import pathlib
import warnings
from typing import Any

import keras
import numpy as np
from PIL import Image

from rw_keras.export.card import model_card
from rw_keras.export.paths import new_path, whole_or_not_at_all
from rw_keras.files import checked_path
from rw_keras.model.recipe import smallest_side
from rw_keras.model.region_outputs import with_regions
from rw_keras.runtimes.graphs import module_of, pixels_function, save_module, tensorflow_backend

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

    Signatures, each returning `descriptor` `(B, D)` float32, and two of them more:

    - `serving_default`: `image_bytes` `(B,)` strings, encoded photos of any sizes: JPEG, PNG, WebP, BMP (of 8 bits and more),
      GIF (the first frame). Each is decoded, turned upright by its EXIF orientation and reduced to `max_side`, as
      `rw_keras.describe` does it: the same pixels, the same values.
    - `query`: `image_bytes` `(B,)` and `box` `(B, 4)` float32, x1, y1, x2, y2 in pixels of the upright full-size photo; the box
      is cut out before the network.
    - `regions`: `image_bytes` `(B,)`, and `query_regions`: `image_bytes` and `box` as `query` takes them. Beside `descriptor` they
      give what re-ranking compares, see `DescriptorModel.with_regions`: `regions` `(B, R, D)` and `boxes` `(B, R, 4)`, float32, R
      the most regions that a photo of the request has, the others filled up with zeros, and `counts` `(B,)` int32, how many each
      has. A model that whitens the sum of its regions (`whiten_on="global"`) lacks these two signatures.
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
    tensorflow_backend()
    from rw_keras.photos import in_graph  # loads TensorFlow

    if dtype not in DTYPES:
        raise ValueError(f"Weights are kept as one of {', '.join(DTYPES)}, but got dtype={dtype!r}.")
    smallest = smallest_side(model)
    if isinstance(max_side, bool) or not isinstance(max_side, int) or not smallest <= max_side <= _LONGEST_SIDE:
        raise ValueError(
            f"max_side is a whole number of pixels, for this network from {smallest} to {_LONGEST_SIDE}, but got {max_side!r}."
        )
    path = new_path(checked_path(path).resolve(), "choose the next version's folder")
    if not path.name.isdecimal():
        warnings.warn(
            f"TF Serving takes version folders named by a whole number, so not {path}; call it {path / '1'}.", stacklevel=2
        )

    try:
        beside, regions = with_regions(model), "as the signatures regions and query_regions give them"
    except ValueError as error:
        beside, regions = None, f"none: {error}"
    module, signatures = _served(model, beside, dtype, max_side)
    with whole_or_not_at_all(path) as folder:
        save_module(module, folder, signatures)
        extra = folder / "assets.extra"
        extra.mkdir()
        _write_warm_up(extra / "tf_serving_warmup_requests", path.parent.name, max_side, signatures)
        if batching:
            (extra / "batching_params.pbtxt").write_text(_BATCHING)
        card = model_card(model, max_side=max_side, most_pixels=in_graph.MOST_PIXELS, dtype=dtype, regions=regions)
        (extra / "model_card.json").write_text(json.dumps(card, indent=1) + "\n")


def _served(model: keras.Model, beside: keras.Model | None, dtype: str, max_side: int) -> tuple[Any, dict[str, Any]]:
    """A `tf.Module` with the weights in `dtype`, and the signature functions by name; `beside` gives regions as well, or is not
    there."""
    from rw_keras.photos import in_graph

    tf = tensorflow_backend()
    module, call = _computing(model, dtype)
    smallest, dimensions = smallest_side(model), model.output_shape[-1]

    def each_photo(function, specs, image_bytes, boxes=None):
        def describe_one(position):
            name = tf.strings.format("image_bytes[{}]", position)
            box = None if boxes is None else boxes[position]
            photo = in_graph.read_image(image_bytes[position], max_side, name, box, smallest)
            return function(tf.cast(photo, tf.float32)[None])

        # One after the other: sizes differ, and a network at work fills the machine.
        return tf.map_fn(describe_one, tf.range(tf.shape(image_bytes)[0]), fn_output_signature=specs, parallel_iterations=1)

    vector = tf.TensorSpec((dimensions,), tf.float32)

    def described(image_bytes, boxes=None):
        return {"descriptor": each_photo(lambda photo: call(model, photo)[0], vector, image_bytes, boxes)}

    def described_with_regions(image_bytes, boxes=None):
        # Each photo has as many regions as its shape makes.
        ragged = [tf.RaggedTensorSpec((None, width), tf.float32, ragged_rank=0) for width in (dimensions, 4)]
        found = each_photo(lambda photo: [output[0] for output in call(beside, photo)], [vector, *ragged], image_bytes, boxes)
        descriptor, regions, places = found
        counts = tf.cast(regions.row_lengths(), tf.int32)
        return {"descriptor": descriptor, "regions": regions.to_tensor(), "boxes": places.to_tensor(), "counts": counts}

    def large_enough(pixels):
        # A kernel of TensorFlow that is given an empty map may take the whole server down.
        sides = tf.shape(pixels)[1:3]
        fits = tf.debugging.Assert(
            tf.reduce_min(sides) >= smallest,
            ["pixels are", sides, f"high and wide, too small: each side needs {smallest} or more."],
        )
        with tf.control_dependencies([fits]):
            return call(model, tf.cast(tf.identity(pixels), tf.float32))

    encoded = tf.TensorSpec((None,), tf.string, name="image_bytes")
    corners = tf.TensorSpec((None, 4), tf.float32, name="box")

    def signatures_of(described):
        @tf.function(input_signature=[encoded])
        def whole(image_bytes):
            return described(image_bytes)

        @tf.function(input_signature=[encoded, corners])
        def cut_out(image_bytes, box):
            return described(image_bytes, box)

        return whole, cut_out

    signatures = dict(zip(("serving_default", "query"), signatures_of(described)))
    if beside is not None:
        signatures |= zip(("regions", "query_regions"), signatures_of(described_with_regions))
    signatures["pixels"] = pixels_function(model, "float32", large_enough)
    signatures["pixels_uint8"] = pixels_function(model, "uint8", large_enough)
    return module, signatures


def _computing(model, dtype):
    """A `tf.Module` with the weights in `dtype`, and a function of the model, or another one of its variables, and pixels: what
    that model makes of them, with these weights in float32."""
    tf = tensorflow_backend()
    if dtype == "float32":
        return module_of(model), lambda of, pixels: of(pixels, training=False)
    module, kept = tf.Module(), {}
    for variable in model.variables:
        is_whitening = variable.path.startswith("whitening/")
        is_half = variable.dtype == "float32" and not is_whitening
        kept[id(variable)] = tf.Variable(tf.cast(variable.value, dtype)) if is_half else variable.value
    module.weights = list(kept.values())

    def values(variables):
        return [tf.cast(kept[id(variable)], variable.dtype) for variable in variables]

    def call(of, pixels):
        trainable, others = values(of.trainable_variables), values(of.non_trainable_variables)
        return of.stateless_call(trainable, others, pixels, training=False)[0]

    return module, call


def _write_warm_up(path: pathlib.Path, name: str, max_side: int, signatures: dict[str, Any]) -> None:
    """Requests that TF Serving runs when it loads the model, one a signature, on a made-up photo of the usual shape."""
    tf = tensorflow_backend()
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    side = min(max_side, _WARM_UP_SIDE)
    random = np.random.default_rng(0)
    photo = Image.fromarray(random.integers(0, 256, (12, 16, 3), "uint8"))
    buffer = io.BytesIO()
    photo.resize((side, max(1, side * 3 // 4)), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    encoded = np.array([buffer.getvalue()], object)
    with tf.io.TFRecordWriter(str(path)) as writer:
        inputs = {
            "image_bytes": encoded,
            "box": np.array([[0, 0, side // 2 + 1, side * 3 // 4]], "float32"),
            # Pixels travel as they are, so a small photo keeps the file small.
            "pixels": np.asarray(photo.resize((256, 192)))[None],
        }
        for name_of_signature, function in signatures.items():
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=name, signature_name=name_of_signature),
                inputs={spec.name: tf.make_tensor_proto(inputs[spec.name], spec.dtype) for spec in function.input_signature},
            )
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
