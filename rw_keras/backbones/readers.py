"""The file formats that weights are published in: one reader each.

A reader gives a dictionary: the layer's name in the file -> (kernel `(h, w, in, out)`, bias `(out,)`). The first layer's
kernel takes B, G, R, as Caffe's networks do. A grouped convolution's kernel has `in` of one group.
"""

import pathlib
from collections.abc import Callable

import keras
import numpy as np

from rw_keras.backbones import keras_files
from rw_keras.files import extra

Layers = dict[str, tuple[np.ndarray, np.ndarray]]
"""Layer name -> (kernel `(h, w, in, out)`, bias `(out,)`)."""


def read(path: pathlib.Path, untrained: Callable[[], keras.Model]) -> Layers:
    """The layers of a file, by the reader of its ending.

    Args:
        path: of the file.
        untrained: a function that makes the network; a `.weights.h5` file can only be read into one.

    Raises:
        ValueError: for an ending that no reader has.
        ImportError: for a format whose package is not installed.
        Whatever the format's library raises for a broken file.
    """
    for ending, reader in READERS.items():
        if path.name.endswith(ending):
            return reader(path, untrained)
    raise ValueError(f"the ending {path.suffix!r} is none of {', '.join(READERS)}")


def read_npz(path, _):
    """NumPy: `layer/kernel` and `layer/bias`."""
    with np.load(path) as arrays:
        names = {name.rpartition("/")[0] for name in arrays}
        return {name: (arrays[f"{name}/kernel"], arrays[f"{name}/bias"]) for name in names}


def read_weights_h5(path, untrained):
    """Keras' `model.save_weights`: read by Keras, into the network."""
    keras_files.check_hdf5(path)
    network = untrained()
    network.load_weights(path)
    return _layers(network)


def read_keras(path, _):
    """A whole Keras model."""
    return _layers(keras_files.load(path, compile=False))


def _layers(model):
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= _layers(layer)
        elif len(layer.weights) == 2:
            found[layer.name] = tuple(layer.get_weights())
    return found


def read_h5(path, _):
    """Keras' older weight files and whole models: a group a layer, with its kernel and its bias within."""
    import h5py

    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            layer = name.removeprefix("model_weights/").partition("/")[0]
            found.setdefault(layer, []).append(item[()])

    keras_files.check_hdf5(path)
    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return {name: tuple(sorted(pair, key=np.ndim, reverse=True)) for name, pair in found.items() if len(pair) == 2}


def read_onnx(path, _):
    """The convolutions of an ONNX file that tf2onnx wrote of a Keras network."""
    return parse_onnx(path.read_bytes())


def parse_onnx(content: bytes) -> Layers:
    """The layers of an ONNX file's bytes.

    Kernels are the initialisers `model/LAYER_1/convolution/ReadVariableOp:0`, `(out, in, h, w)`, biases
    `model/LAYER_1/Squeeze:0`; float32.

    Raises:
        ValueError: when a layer lies in another file, which the bytes only name.
        Whatever onnx raises for bytes that are no such file.
    """
    import onnx
    import onnx.external_data_helper
    import onnx.numpy_helper

    initialisers = {
        tensor.name: tensor
        for tensor in onnx.load_model_from_string(content).graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }

    def values(name):
        if onnx.external_data_helper.uses_external_data(initialisers[name]):
            raise ValueError(f"the values of {name} lie in another file; save the network as one file")
        return onnx.numpy_helper.to_array(initialisers[name])

    found = {}
    for name in initialisers:
        prefix, mark, _ = name.partition("/convolution/ReadVariableOp")
        if mark and f"{prefix}/Squeeze:0" in initialisers:
            layer = prefix.rpartition("/")[2].rpartition("_")[0]
            found[layer] = (_turned(values(name)), values(f"{prefix}/Squeeze:0"))
    return found


def read_caffemodel(path, _):
    """Caffe's `NetParameter`, of either form: layers as they are since 2015, or the earlier ones (`V1LayerParameter`)."""
    network = _caffe_network().FromString(path.read_bytes())
    found = {}
    for layer in [*network.layer, *network.layers]:
        if len(layer.blobs) != 2:
            continue
        kernel, bias = layer.blobs
        shape = tuple(kernel.shape.dim) or (kernel.num, kernel.channels, kernel.height, kernel.width)
        values = kernel.double_data or kernel.data
        outputs = len(bias.double_data or bias.data)
        if len(shape) == 4 and shape[0] == outputs:  # not so the fully connected layers, which nobody wants here
            found[layer.name] = (
                _turned(np.array(values, "float32").reshape(shape)),
                np.array(bias.double_data or bias.data, "float32"),
            )
    return found


def read_mat(path, _):
    """MatConvNet's simple networks, `.mat` files of version 5 to 7, with or without an outer `net`.

    MatConvNet's kernels are `(h, w, in, out)` already; they take R, G, B, so one of three channels is turned to B, G, R.
    """
    import scipy.io

    with path.open("rb") as file:
        if b"MATLAB 7.3" in file.read(128):
            raise ValueError("it is a .mat file of version 7.3; save it as version 7: save('-v7', ...)")
    content = scipy.io.loadmat(path)
    network = content["net"].flat[0] if "net" in content else content
    found = {}
    for cell in network["layers"].flat:
        layer = cell.flat[0]
        if str(_only(layer["type"])) != "conv":
            continue
        # `filters` and `biases` in the files of 2014, one cell `weights` later on.
        newer = "weights" in layer.dtype.names
        kernel, bias = layer["weights"].flat if newer else (layer["filters"], layer["biases"])
        kernel = np.asarray(kernel, "float32")
        kernel = kernel.reshape(kernel.shape + (1,) * (4 - kernel.ndim))  # MATLAB drops a last axis of length 1
        if kernel.shape[2] == 3:
            kernel = kernel[:, :, ::-1]
        found[str(_only(layer["name"]))] = (kernel, np.asarray(bias, "float32").ravel())
    return found


def _only(array):
    """The one value of a MATLAB array."""
    return array.flat[0]


def read_torch(path, _):
    """A PyTorch `state_dict`, read without unpickling anything but tensors; a network whose first layer takes B, G, R, 0..255.

    Layers are named after their parameters, less `module.` and `features.`, which hold all of them; those of a
    `Sequential` are numbers.
    """
    with extra("torch"):
        import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(state).__name__}, and no state_dict of layers")
    state = state.get("state_dict", state)
    found = {}
    for name, kernel in state.items():
        prefix, _, parameter = name.rpartition(".")
        if parameter == "weight" and kernel.ndim == 4 and f"{prefix}.bias" in state:
            layer = prefix.removeprefix("module.").removeprefix("features.")
            found[layer] = (_turned(kernel.detach().float().numpy()), state[f"{prefix}.bias"].detach().float().numpy())
    return found


READERS = {
    ".npz": read_npz,
    ".weights.h5": read_weights_h5,
    ".h5": read_h5,
    ".hdf5": read_h5,
    ".keras": read_keras,
    ".onnx": read_onnx,
    ".caffemodel": read_caffemodel,
    ".mat": read_mat,
    ".pth": read_torch,
    ".pt": read_torch,
    ".tar": read_torch,
}


def _turned(kernel):
    """`(out, in, h, w)` as Caffe, PyTorch and ONNX have it -> `(h, w, in, out)`."""
    return kernel.transpose(2, 3, 1, 0)


# The parts of Caffe's protobuf definition that hold weights: message -> (field, number, type, `*` where it is repeated). The last
# message is the file's. No package has the definition: Caffe itself is not on the Python package index.
_CAFFE = {
    "Shape": [("dim", 1, "int64*")],
    "Blob": [
        *((side, number, "int32") for number, side in enumerate(("num", "channels", "height", "width"), 1)),
        ("data", 5, "float*"),
        ("shape", 7, "Shape"),
        ("double_data", 8, "double*"),
    ],
    "Layer": [("name", 1, "string"), ("blobs", 7, "Blob*")],
    "V1Layer": [("name", 4, "string"), ("blobs", 6, "Blob*")],
    "Net": [("layers", 2, "V1Layer*"), ("layer", 100, "Layer*")],
}


def _caffe_network():
    """The protobuf message class of a `.caffemodel`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="rw_keras/caffe_weights.proto", package="rw_keras.caffe", syntax="proto2")
    for message, fields in _CAFFE.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            scalar = kind.rstrip("*")
            added = described.field.add(
                name=name, number=number, label=field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            )
            if scalar in _CAFFE:
                added.type, added.type_name = field.TYPE_MESSAGE, f".rw_keras.caffe.{scalar}"
            else:
                added.type = getattr(field, f"TYPE_{scalar.upper()}")
                added.options.packed = kind in ("float*", "double*")  # only for writing; both forms are read
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("rw_keras.caffe.Net"))
