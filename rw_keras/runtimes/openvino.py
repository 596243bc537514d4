"""OpenVINO: Intel's own convolutions, which use AVX-512 and AMX where they are. `pip install "rw_keras[openvino]"`.

The network is converted from TensorFlow's graph of it, so any backbone goes through whose operations OpenVINO knows.
"""

from __future__ import annotations

import importlib
import pathlib
import sys
import tempfile
import threading
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

PACKAGE, EXTRA = "openvino", "openvino"
# Precision -> the ways to compute that may keep it.
VARIANTS = {"exact": ("float32",), "fast": ("float32", "bfloat16")}
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
    openvino = imported("openvino")

    try:
        converted = converted_to_openvino(network, "uint8")
    except ValueError as error:
        raise ValueError(f'{str(error).removesuffix(".")}; use runtime="tensorflow".') from error
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "network.xml")
        openvino.save_model(converted, path, compress_to_fp16=False)
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
    hint = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}[variant]
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
