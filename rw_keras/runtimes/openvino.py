"""OpenVINO: Intel's own convolutions, which use AVX-512 and AMX where they are. `pip install "rw_keras[openvino]"`.

The network is converted from TensorFlow's graph of it, so any backbone goes through whose operations OpenVINO knows.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import pathlib
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from rw_keras.runtimes.keras_backend import backend

if TYPE_CHECKING:
    import keras

PACKAGE, EXTRA = "openvino", "openvino"
# Precision -> the ways to compute that may keep it.
VARIANTS = {"exact": ("float32",), "fast": ("float32", "bfloat16"), "int8": ("float32", "bfloat16", "int8")}
# What makes the files of "int8". Reading them needs it no more.
QUANTISER = "nncf"
SUFFIXES = (".xml", ".bin")
# Photos that go through the network together, in pixels.
BATCH_PIXELS = 512 * 384


def imported(name: str) -> ModuleType:
    """The package `openvino`, or `nncf`, imported so that it does not report its use.

    It would do so over the network, from a process that it forks: a fork amid a product of matrices leaves NumPy's waiting forever
    for the threads that it ends. Both packages do without the one that reports where that is not installed, so it is hidden from
    them. What was imported before stays as it is.
    """
    if name in sys.modules:
        return importlib.import_module(name)
    reporter = "openvino_telemetry"
    before = sys.modules.get(reporter)
    sys.modules[reporter] = None
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules[reporter]
        if before is not None:
            sys.modules[reporter] = before


def make(network: keras.Model) -> tuple[bytes, bytes]:
    """The two files of a network: OpenVINO's XML, and weights.

    Raises:
        ValueError: when OpenVINO does not know an operation of it, with OpenVINO's own words.
    """
    return _files(_converted(network))


def make_int8(network: keras.Model, photos: Sequence[np.ndarray]) -> tuple[bytes, bytes]:
    """The two files of a network that multiplies numbers of 8 bits, weights and activations.

    Not so its first convolution: in 8 bits pixels less their mean would be rounded to steps of more than one, which costs as much
    as all the rest together on AlexNet, and in float32 it is a fiftieth of VGG16's work.

    Args:
        network: pixels in, feature map out.
        photos: `(H, W, 3)` uint8, whose activations say what range each layer's 8 bits are to cover.

    Raises:
        ValueError: when OpenVINO does not know an operation of it, or NNCF cannot quantise it, with their own words.
        ImportError: where NNCF is not installed.
    """
    nncf = imported(QUANTISER)
    converted = _converted(network)
    kinds = ("Convolution", "GroupConvolution")
    first = [stage.get_friendly_name() for stage in converted.get_ordered_ops() if stage.get_type_name() in kinds][:1]
    nncf.set_log_level(logging.ERROR)  # it tells its statistics on standard output
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # a progress bar
            quantised = nncf.quantize(
                converted,
                nncf.Dataset([photo[None] for photo in photos]),
                subset_size=len(photos),
                ignored_scope=nncf.IgnoredScope(names=first),
                # Biases stay as they are: where all is zero, it stays so.
                advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
            )
    except Exception as error:  # its own classes of errors differ between its versions
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f'NNCF cannot quantise {network.name!r}: {reason}; use precision="fast".') from error
    return _files(quantised)


def _converted(network):
    if backend() != "tensorflow":
        raise ValueError(
            f"OpenVINO's files are made from TensorFlow's graph of a network, and Keras runs on {backend()}; load this runtime "
            'once with KERAS_BACKEND=tensorflow, which keeps the files, or use runtime="keras".'
        )
    try:
        return converted_to_openvino(network, "uint8")
    except ValueError as error:
        raise ValueError(f'{str(error).removesuffix(".")}; use runtime="keras".') from error


def _files(converted):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "network.xml")
        imported("openvino").save_model(converted, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def converted_to_openvino(model: keras.Model, dtype: str = "float32") -> Any:
    """An `openvino.Model` of any Keras model of pixels.

    Args:
        model: photos `(B, H, W, 3)` in, one tensor out.
        dtype: what the pixels are.

    Raises:
        ValueError: when OpenVINO does not know an operation of it, with OpenVINO's own words.
    """
    from rw_keras.runtimes.graphs import saved_for_converters

    openvino = imported("openvino")
    with saved_for_converters(model, dtype) as saved:
        try:
            # Not `convert_model`, which reports its use even so where the process imported openvino before; see `imported`.
            return openvino.Core().read_model(saved)
        except Exception as error:  # its own classes of errors differ between its versions
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"OpenVINO cannot compute {model.name!r}: {reason}.") from error


def load(files: list[pathlib.Path], variant: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from pixels `(B, H, W, 3)`, uint8 or float32, to feature maps `(B, h, w, C)` float32."""
    openvino = imported("openvino")
    core = openvino.Core()
    # The hint has to be given: left to itself OpenVINO takes bfloat16 where the processor has it.
    # Of "int8" the file says what is computed in 8 bits, and the hint is for the rest.
    hint = openvino.Type.bf16 if variant == "bfloat16" else openvino.Type.f32
    try:
        network = core.read_model(files[0])
    except RuntimeError as error:
        raise ValueError(f"OpenVINO cannot read {files[0]}; remove it, and it is written again.") from error
    # Scaled photos are float32, and so are the others then: a second network would have the weights in memory twice.
    network.inputs[0].get_node().set_element_type(openvino.Type.f32)
    network.validate_nodes_and_infer_types()
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    # For any size at once: compiled for the size of a photo it is no faster.
    compiled = core.compile_model(network, "CPU", options)
    one_at_a_time = threading.Lock()

    def feature_maps(pixels):
        with one_at_a_time:
            return compiled(np.ascontiguousarray(pixels, "float32"))[0]

    return feature_maps
