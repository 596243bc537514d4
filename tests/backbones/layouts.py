"""The files that weights come in, written as their own programs write them, with what else stands in such files.

Caffe's protobuf is put together here byte by byte, from the numbers in its caffe.proto.
"""

import functools

import h5py
import keras
import numpy as np

SHAPES = {"conv1": (3, 3, 3, 4), "conv2": (1, 1, 4, 2)}


def layers_of(seed, shapes=SHAPES):
    random = np.random.default_rng(seed)
    return {
        name: (random.standard_normal(shape).astype("float32"), random.standard_normal(shape[-1:]).astype("float32"))
        for name, shape in shapes.items()
    }


RIGHT, WRONG = layers_of(1), layers_of(2)


def check(found, layers=RIGHT):
    """The layers, these alone and in this order, to the last digit."""
    assert list(found) == list(layers)
    for name, (kernel, bias) in layers.items():
        np.testing.assert_array_equal(found[name][0], kernel)
        np.testing.assert_array_equal(found[name][1], bias)


def network(layers=RIGHT):
    """A Keras network of these layers."""
    model = keras.Sequential([keras.Input((None, None, 3))], name="tinynet")
    for name, (kernel, bias) in layers.items():
        model.add(keras.layers.Conv2D(kernel.shape[-1], kernel.shape[:2], name=name))
        model.get_layer(name).set_weights([kernel, bias])
    return model


def _turned(kernel):
    """`(h, w, in, out)` -> `(out, in, h, w)`."""
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1), "<f4")


def write_npz(path, layers=RIGHT):
    np.savez(path, **{f"{name}/{part}": array for name, pair in layers.items() for part, array in zip(("kernel", "bias"), pair)})


def write_legacy_h5(path, layers=RIGHT):
    """The layout of the files that Keras publishes: weights only, a group a layer."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ["input_1", *layers, "pool"]]
        file.create_group("input_1")
        file.create_group("pool")
        for name, (kernel, bias) in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}_W_1:0".encode(), f"{name}_b_1:0".encode()]
            group[f"{name}_W_1:0"], group[f"{name}_b_1:0"] = kernel, bias


def write_whole_model(path, layers=RIGHT):
    network(layers).save(path)


@functools.cache
def _trained(shapes):
    """A network of layers `(name, shape)` that was trained for a step."""
    model = network({name: (np.ones(shape), np.ones(shape[-1:])) for name, shape in shapes})
    model.compile("adam", "mse")
    model.fit(np.zeros((1, 3, 3, 3)), model.predict(np.zeros((1, 3, 3, 3)), verbose=0), verbose=0)
    return model


def write_trained_model(path, layers=RIGHT):
    """With the optimizer's state, which has arrays of the same shapes."""
    model = _trained(tuple((name, kernel.shape) for name, (kernel, _) in layers.items()))
    for name, pair in layers.items():
        model.get_layer(name).set_weights(pair)
    model.save(path)


def write_nested_model(path, layers=RIGHT):
    """A network that is one layer of another model."""
    photos = keras.Input((None, None, 3))
    keras.Model(photos, keras.layers.GlobalAveragePooling2D()(network(layers)(photos))).save(path)


def write_weights_h5(path, layers=RIGHT):
    network(layers).save_weights(path)


def onnx(layers=RIGHT):
    """The layers as tf2onnx writes them, among other initialisers."""
    from onnx import helper, numpy_helper

    tensors = [
        numpy_helper.from_array(np.ones((2, 5), "<f4"), "model/dense/MatMul/ReadVariableOp:0"),
        numpy_helper.from_array(np.array([-1, 2], "<i8"), "new_shape__72"),
    ]
    for name, (kernel, bias) in layers.items():
        tensors.append(numpy_helper.from_array(_turned(kernel), f"model/{name}_1/convolution/ReadVariableOp:0"))
        tensors.append(numpy_helper.from_array(bias.astype("<f4"), f"model/{name}_1/Squeeze:0"))
    return helper.make_model(helper.make_graph([], "tf2onnx", [], [], tensors)).SerializeToString()


def write_onnx(path, layers=RIGHT):
    path.write_bytes(onnx(layers))


def _varint(value):
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def _number(field, value):
    return _varint(field << 3) + _varint(value)


def _content(field, value):
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _reals(field, array, dtype, packed):
    """`repeated float` or `repeated double`: one content, or one by one."""
    array = np.ascontiguousarray(array, dtype)
    if packed:
        return _content(field, array.tobytes())
    tag = _varint(field << 3 | {"<f4": 5, "<f8": 1}[dtype])
    return b"".join(tag + value.tobytes() for value in array.ravel())


def _blob(array, newer, packed=True, double=False):
    """BlobProto: num, channels, height, width = 1 to 4, data = 5, diff = 6, shape = 7 (dim = 1), double_data = 8."""
    if newer:
        shape = _content(7, _content(1, b"".join(map(_varint, array.shape))))
    else:
        sides = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(_number(field, side) for field, side in enumerate(sides, 1))
    values = _reals(8, array, "<f8", packed) if double else _reals(5, array, "<f4", packed)
    diff = _reals(9 if double else 6, np.full(array.shape, 7), "<f8" if double else "<f4", packed)  # double_diff = 9
    return diff + values + shape if newer else shape + values + diff


def caffemodel(layers=RIGHT, newer=True, packed=True, double=False):
    """NetParameter: name = 1, layer = 100 (LayerParameter), before 2015 layers = 2 (V1LayerParameter).

    LayerParameter: name = 1, type = 2, bottom = 3, top = 4, blobs = 7. V1LayerParameter: bottom = 2, top = 3,
    name = 4, type = 5, blobs = 6, blobs_lr = 7.
    """

    def layer(name, kind, blobs=()):
        blobs = [_blob(array, newer, packed, double) for array in blobs]
        if newer:
            fields = _content(1, name.encode()) + _content(2, kind.encode()) + _content(3, b"below") + _content(4, name.encode())
            return _content(100, fields + b"".join(_content(7, blob) for blob in blobs))
        kinds = {"Convolution": 4, "InnerProduct": 14, "Pooling": 17, "ReLU": 18, "PReLU": 39}
        fields = _content(2, b"below") + _content(3, name.encode()) + _content(4, name.encode()) + _number(5, kinds[kind])
        rates = _reals(7, np.ones(len(blobs)), "<f4", packed=False)
        return _content(2, fields + b"".join(_content(6, blob) for blob in blobs) + rates)

    found = _content(1, b"Tiny")
    for name, (kernel, bias) in layers.items():
        found += layer(name, "Convolution", [_turned(kernel), bias]) + layer(f"relu_{name}", "ReLU")
        found += layer(f"pool_{name}", "Pooling") + layer(f"slope_{name}", "PReLU", [np.ones(4)])
    return found + layer("fc6", "InnerProduct", [np.ones((5, 8)), np.ones(5)])


def _cell(values):
    found = np.empty((1, len(values)), object)
    found[0] = values
    return found


def write_mat(path, layers=RIGHT, newer=True, net=True, last_axis=True):
    """MatConvNet's simple network. `newer`: one cell `weights`, not `filters` and `biases` as in 2014."""
    import scipy.io

    found = []
    for name, (kernel, bias) in layers.items():
        kernel = kernel[:, :, ::-1] if kernel.shape[2] == 3 else kernel  # R, G, B
        if not last_axis and kernel.shape[-1] == 1:
            kernel = kernel[..., 0]
        if newer:
            parts = {"weights": _cell([kernel, bias[:, None]]), "opts": _cell([]), "precious": 0}
        else:
            parts = {"filters": kernel, "biases": bias[None], "filtersLearningRate": 1.0}
        found.append({"type": "conv", "name": name, **parts, "pad": [0, 0, 0, 0], "stride": [1, 1]})
        found += [{"type": "relu", "name": f"relu_{name}"}, {"type": "pool", "name": f"pool_{name}", "pool": [3, 3]}]
    found += [{"type": "softmax", "name": "prob"}]
    content = {"layers": _cell(found), "meta": {"classes": {"name": _cell(["tench", "goldfish"])}}}
    scipy.io.savemat(path, {"net": content} if net else content, do_compression=True)


def write_torch(path, layers=RIGHT, prefix="", whole=False, numbers=False, zipped=True):
    """A state_dict with a classifier beside; `numbers`: of a Sequential, in no order of its names; `whole`: a training's file."""
    import torch

    state = {"classifier.1.weight": torch.ones(5, 8), "classifier.1.bias": torch.ones(5)}
    for place, (name, (kernel, bias)) in enumerate(layers.items()):
        layer = prefix + (str(9 + 3 * place) if numbers else name)  # 9, 12: the other way round as text
        state = {f"{layer}.bias": torch.tensor(bias), f"{layer}.weight": torch.tensor(_turned(kernel)), **state}
    state = {"epoch": 3, "state_dict": state} if whole else state
    torch.save(state, path, _use_new_zipfile_serialization=zipped)


def _caffe(**form):
    return lambda path, layers=RIGHT: path.write_bytes(caffemodel(layers, **form))


# Every layout that is read: the file's ending, and who writes it.
LAYOUTS = {
    "npz": (".npz", write_npz),
    "weights only, legacy h5": (".h5", write_legacy_h5),
    "legacy hdf5": (".hdf5", write_legacy_h5),
    "whole model, legacy h5": (".h5", write_whole_model),
    "trained model, legacy h5": (".h5", write_trained_model),
    "keras": (".keras", write_whole_model),
    "keras, nested": (".keras", write_nested_model),
    "weights.h5": (".weights.h5", write_weights_h5),
    "onnx": (".onnx", write_onnx),
    "caffe": (".caffemodel", _caffe()),
    "caffe, unpacked": (".caffemodel", _caffe(packed=False)),
    "caffe, double": (".caffemodel", _caffe(double=True)),
    "caffe, double, unpacked": (".caffemodel", _caffe(double=True, packed=False)),
    "caffe, V1": (".caffemodel", _caffe(newer=False)),
    "caffe, V1, unpacked": (".caffemodel", _caffe(newer=False, packed=False)),
    "caffe, V1, double": (".caffemodel", _caffe(newer=False, double=True)),
    "mat": (".mat", functools.partial(write_mat, net=False)),
    "mat, in net": (".mat", write_mat),
    "mat, of 2014": (".mat", functools.partial(write_mat, newer=False, net=False)),
    "mat, of 2014, in net": (".mat", functools.partial(write_mat, newer=False)),
    "torch": (".pth", write_torch),
    "torch, features": (".pt", functools.partial(write_torch, prefix="features.")),
    "torch, numbers": (".pth", functools.partial(write_torch, prefix="features.", numbers=True)),
    "torch, numbers, module": (".pth", functools.partial(write_torch, prefix="module.features.", numbers=True)),
    "torch, not zipped": (".pth", functools.partial(write_torch, prefix="features.", numbers=True, zipped=False)),
    "torch, a training's": (".pth.tar", functools.partial(write_torch, prefix="module.", whole=True)),
}
