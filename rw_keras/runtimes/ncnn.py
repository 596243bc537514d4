"""ncnn: convolutions by Winograd's algorithm on any processor. `pip install "rw_keras[ncnn]"`.

The network is written in ncnn's own two files, a text of layers and their weights one after the other, from the Keras layers
themselves. Preprocessing is NumPy's, photos go through one by one: ncnn has no batches.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rw_keras.runtimes import cache

if TYPE_CHECKING:
    import keras

PACKAGE, EXTRA = "ncnn", "ncnn"
# Precision -> the ways to compute that may keep it.
VARIANTS = {"exact": ("float32",), "fast": ("float32", "bfloat16"), "int8": ("float32", "bfloat16", "int8")}
# What makes the files of "int8": nothing but this module.
QUANTISER = None
SUFFIXES = (".param", ".bin")
# Photos that go through the network together, in pixels; `None`: one by one, since a batch gains nothing.
BATCH_PIXELS = None
# Before weights that are of 8 bits.
_INT8_MARK = (0x000D4B38).to_bytes(4, "little")


def make(network: keras.Model) -> tuple[bytes, bytes]:
    """The two files of a network: text, and weights.

    Raises:
        ValueError: for a layer that is not known here, naming it.
    """
    return _Writer(network, {}).files()


def make_int8(network: keras.Model, photos: Sequence[np.ndarray]) -> tuple[bytes, bytes]:
    """The two files of a network whose convolutions multiply numbers of 8 bits, weights and activations.

    Not so the first one, for whose pixels 8 bits are too few, nor those in groups, for which ncnn has one scale a group. Maps are
    float32 between layers.

    Args:
        network: pixels in, feature map out.
        photos: `(H, W, 3)` uint8; the largest value that they give a convolution to read is the largest that 8 bits stand for.

    Raises:
        ValueError: for a layer that is not known here, naming it.
    """
    return _Writer(network, _largest_inputs(network, photos)).files()


def load(files: list[pathlib.Path], variant: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from pixels `(B, H, W, 3)`, uint8 or float32, to feature maps `(B, h, w, C)` float32."""
    import ncnn

    text, weights = (str(path) for path in files)
    about = json.loads(pathlib.Path(text).read_text("ascii").rpartition("#")[2])
    net = ncnn.Net()
    net.opt.num_threads = cache.cores()
    net.opt.use_vulkan_compute = False
    net.opt.use_winograd_convolution = net.opt.use_sgemm_convolution = net.opt.use_packing_layout = True
    # Half precision is left to no default: on ARM it would be on.
    halves = dict.fromkeys(("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"), False)
    halves |= dict.fromkeys(("use_bf16_packed", "use_bf16_storage"), variant == "bfloat16")
    for option, value in halves.items():
        if hasattr(net.opt, option):  # which there are depends on ncnn's version
            setattr(net.opt, option, value)
    if net.load_param(text) or net.load_model(weights):
        raise ValueError(f"ncnn cannot read {text} and {weights}; remove them, and they are written again.")
    order = np.array(about["order"])
    scale, offset = (np.array(about[field], "float32")[:, None, None] for field in ("scale", "offset"))

    def feature_map(pixels):
        planes = pixels.transpose(2, 0, 1)[order].astype("float32")
        if about["scaled"]:
            planes *= scale
        planes += offset
        extractor = net.create_extractor()
        # A copy in ncnn's own memory, whose planes begin at multiples of 16 bytes.
        extractor.input("photo", ncnn.Mat(planes).clone())
        failed, features = extractor.extract("features")
        if failed:
            raise RuntimeError(f"ncnn could not compute a photo of {pixels.shape[1]} x {pixels.shape[0]} pixels; it gave {failed}.")
        return np.array(features).transpose(1, 2, 0)

    def feature_maps(pixels):
        return np.stack([feature_map(photo) for photo in pixels])

    return feature_maps


@dataclasses.dataclass
class _Preprocessing:
    """pixels[..., order] * scale + offset"""

    order: list[int]
    scale: list[float]
    offset: list[float]

    @property
    def scaled(self):
        return self.scale != [1.0] * 3


class _Writer:
    """Goes through a Keras network from its photos to its map, and writes each layer down."""

    def __init__(self, network, largest):
        """`largest`: of a convolution in 8 bits, by the `id` of the tensor that it reads, the largest value of that."""
        self.network, self.weights, self._lines, self._largest = network, [], [], largest
        self._steps = _in_order(network)
        self._uses: dict[Any, int] = {}
        for _, inputs, _ in self._steps:
            for tensor in inputs:
                self._uses[id(tensor)] = self._uses.get(id(tensor), 0) + 1
        self._parts: dict[int, list[str]] = {}
        self.preprocessing = _Preprocessing([0, 1, 2], [1.0] * 3, [0.0] * 3)
        self._photo = network.inputs[0]
        self._emit("Input", [], ["photo"], {})
        self._give(self._photo, "photo")
        for layer, inputs, output in self._steps:
            self._layer(layer, inputs, output)
        self._emit("Noop", [self._take(network.outputs[0])], ["features"], {})

    def files(self):
        return self._text(), b"".join(self.weights)

    def _text(self):
        blobs = sum(len(outputs) for _, _, outputs, _ in self._lines)
        lines = ["7767517", f"{len(self._lines)} {blobs}"]
        for number, (kind, inputs, outputs, settings) in enumerate(self._lines):
            values = [f"{field}={value}" for field, value in settings.items()]
            lines.append(" ".join([kind, f"l{number}", str(len(inputs)), str(len(outputs)), *inputs, *outputs, *values]))
        about = {**dataclasses.asdict(self.preprocessing), "scaled": self.preprocessing.scaled}
        return ("\n".join(lines) + "\n#" + json.dumps(about)).encode("ascii")

    def _emit(self, kind, inputs, outputs, settings, weights=()):
        self._lines.append((kind, inputs, outputs, settings))
        for array in weights:
            self.weights.append(array if isinstance(array, bytes) else np.ascontiguousarray(array, "<f4").tobytes())

    def _give(self, tensor, blob):
        """A tensor has this blob; where several layers read it, each needs a copy of its own."""
        uses = self._uses.get(id(tensor), 0) + (tensor is self.network.outputs[0])
        parts = [blob]
        if uses > 1:
            parts = [f"{blob}_{number}" for number in range(uses)]
            self._emit("Split", [blob], list(parts), {})
        self._parts[id(tensor)] = parts

    def _take(self, tensor):
        return self._parts[id(tensor)].pop()

    def _layer(self, layer, inputs, output):
        kind = type(layer).__name__
        ours = type(layer).__module__.startswith(("rw_keras.layers.", "keras."))
        write = _LAYERS.get(kind) if ours else None
        if write is None:
            raise _refused(layer, "is of a kind that is not known to it")
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            raise _refused(layer, "has its channels first")
        if write is _preprocess:
            if inputs[0] is not self._photo or self._uses[id(self._photo)] > 1:
                raise _refused(layer, "does not stand alone at the network's beginning")
            _preprocess(layer, self.preprocessing)
            self._photo = output
            self._give(output, self._take(inputs[0]))
            return
        blob = f"b{len(self._lines)}"
        written = list(write(layer))
        if written and written[0][0] == "Convolution" and self._largest.get(id(inputs[0])):
            written[0] = _in_int8(*written[0], self._largest[id(inputs[0])])
        taken = [self._take(tensor) for tensor in inputs]
        for number, (name, settings, weights) in enumerate(written):
            given = f"{blob}_{number}" if number < len(written) - 1 else blob
            self._emit(name, taken, [given], settings, weights)
            taken = [given]
        if not written:  # it changes nothing
            self._emit("Noop", taken, [blob], {})
        self._give(output, blob)


def _in_order(network):
    """The layers of a network, each after those it takes from: (layer, its input tensors, its output tensor)."""
    steps, seen, todo = [], {id(network.inputs[0])}, [network.outputs[0]]
    while todo:
        tensor = todo[-1]
        history = tensor._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        if len(node.output_tensors) != 1:
            raise _refused(history.operation, f"has {len(node.output_tensors)} outputs")
        missing = [taken for taken in node.input_tensors if id(taken) not in seen]
        if missing and id(tensor) not in seen:
            todo += missing
            continue
        todo.pop()
        if id(tensor) not in seen:
            if not node.input_tensors:
                raise _refused(history.operation, "is an input beside the photos")
            seen.add(id(tensor))
            steps.append((history.operation, node.input_tensors, tensor))
    return steps


def _largest_inputs(network, photos):
    """The largest magnitude that each convolution but the first reads in some photos, by the `id` of its input tensor."""
    import keras

    read = {}
    for layer, inputs, _ in _in_order(network):
        if isinstance(layer, keras.layers.Conv2D):
            read.setdefault(id(inputs[0]), inputs[0])
    tensors = list(read.values())[1:]
    if not tensors:
        return {}
    maps = keras.Model(network.inputs[0], tensors)
    largest = np.zeros(len(tensors))
    for photo in photos:
        found = maps.predict_on_batch(photo[None])
        largest = np.maximum(largest, [np.abs(values).max() for values in found])
    return {id(tensor): value for tensor, value in zip(tensors, largest.tolist())}


def _in_int8(kind, settings, weights, largest):
    """A convolution with its weights in 8 bits, a scale an output channel, and one scale for what it reads."""
    _, kernel, *bias = weights
    peaks = np.abs(kernel).max(axis=(1, 2, 3))
    scale = 127 / np.where(peaks > 0, peaks, np.float32(1))
    rows = np.rint(kernel * scale[:, None, None, None]).astype("int8").tobytes()
    # The mark of 8 bits; rows are filled up to four bytes.
    packed = _INT8_MARK + rows + bytes(-len(rows) % 4)
    return kind, {**settings, 8: 2}, [packed, *bias, scale, np.array([127 / largest])]


def _refused(layer, reason):
    return ValueError(
        f'ncnn cannot compute this network: its layer {layer.name!r} ({type(layer).__name__}) {reason}; use runtime="openvino" '
        'or runtime="keras".'
    )


def _preprocess(layer, done):
    """Folds ImageNetPreprocessing or Rescaling into what NumPy does to the pixels."""
    if type(layer).__name__ == "ImageNetPreprocessing":
        done.order.reverse(), done.scale.reverse(), done.offset.reverse()
        scale, offset = [1.0] * 3, [-mean for mean in layer.means]
    else:
        scale, offset = (np.broadcast_to(np.asarray(value, "float64"), 3).tolist() for value in (layer.scale, layer.offset))
    done.offset = [old * factor + new for old, factor, new in zip(done.offset, scale, offset)]
    done.scale = [old * factor for old, factor in zip(done.scale, scale)]


def _convolution(layer):
    (high, wide), (down, across), (dilated_down, dilated_across) = layer.kernel_size, layer.strides, layer.dilation_rate
    kernel = np.asarray(layer.kernel, "float32")
    depthwise = type(layer).__name__ == "DepthwiseConv2D"
    if depthwise:  # (h, w, in, multiplier): each channel is a group of its own
        groups, kernel = kernel.shape[2], kernel.reshape(*kernel.shape[:2], 1, -1)
    else:
        groups = layer.groups
    filters = kernel.shape[-1]
    same = layer.padding == "same"
    if layer.padding not in ("same", "valid"):
        raise _refused(layer, f"has padding={layer.padding!r}")
    fused = layer.activation is not None and _name(layer.activation) == "relu"
    settings = {0: filters, 1: wide, 11: high, 2: dilated_across, 12: dilated_down, 3: across, 13: down}
    # -233: as many as TensorFlow's "same" wants, the odd one at the bottom and the right.
    settings |= dict.fromkeys((4, 14, 15, 16), -233 if same else 0)
    settings |= {5: int(layer.use_bias), 6: kernel.size, 9: int(fused)}
    if groups > 1:
        settings[7] = groups
    # Four bytes of zeros: what follows is float32. (out, in / groups, h, w), group after group.
    weights = [bytes(4), kernel.transpose(3, 2, 0, 1)]
    if layer.use_bias:
        weights.append(np.asarray(layer.bias))
    yield "ConvolutionDepthWise" if groups > 1 else "Convolution", settings, weights
    if not fused:
        yield from _activation(layer)


def _activation(layer):
    function = getattr(layer, "activation", None)
    name = "linear" if function is None else _name(function)
    if name == "linear":
        return
    if name not in _ACTIVATIONS:
        raise _refused(layer, f"has the activation {name!r}, which is not known to it")
    yield (*_ACTIVATIONS[name], ())


def _name(function):
    import keras

    known = (keras.activations.relu, keras.activations.relu6, keras.activations.sigmoid, keras.activations.silu)
    if function in (*known, keras.activations.linear):
        return function.__name__
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', type(function).__name__)}"


def _relu(layer):
    slope, limit, threshold = float(layer.negative_slope), layer.max_value, layer.threshold
    if threshold or (slope and limit is not None):
        raise _refused(layer, "has a threshold, or a slope and a limit")
    yield ("ReLU", {0: slope}, ()) if limit is None else ("Clip", {0: 0.0, 1: float(limit)}, ())


def _pooling(layer):
    (high, wide), (down, across) = layer.pool_size, layer.strides
    average = int(type(layer).__name__ == "AveragePooling2D")
    if average and layer.padding == "same":  # it would count the padding in
        raise _refused(layer, 'has padding="same"')
    yield "Pooling", {0: average, 1: wide, 11: high, 2: across, 12: down, 5: 2 if layer.padding == "same" else 1}, ()


def _zero_padding(layer):
    (top, bottom), (left, right) = layer.padding
    yield "Padding", {0: top, 1: bottom, 2: left, 3: right, 4: 0, 5: 0.0}, ()


def _local_response_normalization(layer):
    size = 2 * layer.depth_radius + 1
    # Its alpha is that of all neighbours together.
    yield "LRN", {0: 0, 1: size, 2: repr(layer.alpha * size), 3: repr(layer.beta), 4: repr(layer.bias)}, ()


def _batch_normalization(layer):
    if layer.axis not in (-1, 3):
        raise _refused(layer, f"normalises the axis {layer.axis}")
    mean, variance = (np.asarray(value, "float64") for value in (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance + layer.epsilon)
    scale = scale * np.asarray(layer.gamma, "float64") if layer.scale else scale
    shift = -mean * scale + (np.asarray(layer.beta, "float64") if layer.center else 0)
    yield "Scale", {0: len(scale), 1: 1}, (scale, shift)


def _concatenation(layer):
    if layer.axis not in (-1, 3):
        raise _refused(layer, f"joins along the axis {layer.axis}")
    yield "Concat", {0: 0}, ()


def _nothing(layer):
    return ()


_ACTIVATIONS = {
    "relu": ("ReLU", {0: 0.0}),
    "relu6": ("Clip", {0: 0.0, 1: 6.0}),
    "sigmoid": ("Sigmoid", {}),
    "silu": ("Swish", {}),
}

# The layer's class -> what it is in ncnn: a generator of (ncnn's layer, its settings, its weights).
_LAYERS = {
    "ImageNetPreprocessing": _preprocess,
    "Rescaling": _preprocess,
    "Conv2D": _convolution,
    "GroupedConv2D": _convolution,
    "DepthwiseConv2D": _convolution,
    "Activation": _activation,
    "ReLU": _relu,
    "MaxPooling2D": _pooling,
    "AveragePooling2D": _pooling,
    "ZeroPadding2D": _zero_padding,
    "LocalResponseNormalization": _local_response_normalization,
    "BatchNormalization": _batch_normalization,
    "Add": lambda layer: iter([("Eltwise", {0: 1}, ())]),
    "Concatenate": _concatenation,
    "Dropout": _nothing,
    "SpatialDropout2D": _nothing,
}
