"""Many photos -> descriptors: decoding ahead on other threads while the network works."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import hashlib
import importlib.metadata
import itertools
import os
import pathlib
import sys
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rw_keras import engines
from rw_keras.collection import Collection
from rw_keras.engines.tensorflow import BATCH_PIXELS, batch_function
from rw_keras.images import Box, ImageError, Photo, check_max_side, list_photos, read_image
from rw_keras.retrieval import storage
from rw_keras.sources import photo_items

if TYPE_CHECKING:
    import keras

# Two decoding threads keep up with a network that takes 50 ms a photo; two photos in hand for each bridge an uneven one.
_DECODERS = 2
_AHEAD = 2

# Photos that are described between two writes to the disk. A photo waits for others of its size no longer than that.
_WINDOW = 128
# Decoded photos that wait for others of their size.
_WAITING_BYTES = 256 << 20
# On a GPU so many times the pixels go through the network together.
_GPU_BATCHES = 16
_LINE_SECONDS = 30


def describe(
    model: keras.Model | engines.Describer,
    images: Photo | Sequence[Photo],
    box: Box | Sequence[Box | None] | None = None,
    max_side: int | None = 1024,
    *,
    engine: str = "tensorflow",
    precision: str = "exact",
) -> np.ndarray:
    """Turns photos into descriptors.

    Whether the descriptors are whitened, and by what, is the model's: `model.recipe["whitening"]["name"]` says it. With
    `build_descriptor`'s default it is the whitening that ships with the package, where it fits.

    A photo is decoded to 8-bit RGB and turned upright; its longer side is reduced to `max_side` (bicubic, antialiased,
    both sides rounded to the nearest pixel; never enlarged). A box is cut out of the full-size photo before the
    network sees it, and reduced by the factor of the whole photo.

    Args:
        model: a model of `build_descriptor`, or what `rw_keras.engines.load` made of one.
        images: the path of a photo, an array of RGB pixels 0..255 `(H, W, 3)`, or a list of either (an array
            `(N, H, W, 3)` counts as one).
        box: (x1, y1, x2, y2) in pixels of the upright full-size photo; for a list of images, a list of boxes, one each
            (`None`: the whole photo).
        max_side: pixels. Default 1024. `None`: no limit.
        engine: what computes the network: "tensorflow", "openvino", "ncnn", or "auto" for the fastest of those installed; see
            `rw_keras.engines.load`. Whoever describes photo after photo calls that once, and passes what it gives as `model`.
        precision: "exact": a cosine to TensorFlow's descriptor in float32 of at least 0.999999; "fast": of at least 0.9999.

    Returns:
        `(D,)` float32 of unit length for one photo, `(N, D)` for a list.

    Raises:
        FileNotFoundError: when there is no such file.
        ImageError: (a ValueError) when a photo cannot be read or is under 16 pixels a side (for VGG16), or the box does
            not lie in it.
        ValueError, ImportError, OSError: when the engine cannot be used; see `rw_keras.engines.load`.
    """
    model = _on(model, engine, precision, max_side)
    single = isinstance(images, (str, os.PathLike)) or (hasattr(images, "ndim") and images.ndim != 4)
    images = [images] if single else list(images)
    boxes = [box] if single else _boxes(box, len(images))
    vectors = []
    for _, described, error in describe_each(model, images, boxes, max_side=max_side, min_side=smallest_side(model)):
        if error is not None:
            raise error
        vectors.append(described[0])
    if not vectors:
        return np.zeros((0, model.output_shape[-1]), "float32")
    return vectors[0] if single else np.stack(vectors)


def describe_each(model, images, boxes=None, *, max_side=1024, min_side=1, progress=None):
    """Runs a model over photos one by one, reading ahead.

    Args:
        model: any model of pixels, or what `rw_keras.engines.load` made of one.
        images: an iterable of paths or arrays.
        boxes: an iterable of boxes, one each, or `None`.
        max_side, min_side: see `rw_keras.images.read_image`.
        progress: the words beside a progress bar on standard error; `None`: no bar.

    Yields:
        (image, output, error) in the order of `images`: the model's output for a batch of one, or `None` and the
        FileNotFoundError or ImageError that says why not.
    """
    run = _function(model)
    pairs = zip(images, itertools.repeat(None) if boxes is None else boxes)
    if progress:
        import tqdm

        total = len(images) if hasattr(images, "__len__") else None
        interval = 0.1 if sys.stderr.isatty() else 10  # seconds; a log file wants few lines
        pairs = iter(tqdm.tqdm(pairs, desc=progress, total=total, unit="photo", smoothing=0.05, mininterval=interval))

    def read(pair):
        try:
            return read_image(*pair, max_side, min_side), None
        except (OSError, ImageError) as error:
            return None, error

    for (image, _), (pixels, error) in _read_ahead(pairs, read, _DECODERS):
        yield image, None if error else run(pixels[None]), error


def _read_ahead(items, read, workers):
    """(item, `read(item)`) in the order of `items`, read on other threads a few photos ahead."""
    workers = min(os.cpu_count() or 1, 16) if workers == "auto" else workers
    items = iter(items)
    with concurrent.futures.ThreadPoolExecutor(workers) as threads:
        waiting = collections.deque()
        try:
            for item in items:
                waiting.append((item, threads.submit(read, item)))
                if len(waiting) > _AHEAD * workers:
                    item, future = waiting.popleft()
                    yield item, future.result()
            while waiting:
                item, future = waiting.popleft()
                yield item, future.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def smallest_side(model: keras.Model | engines.Describer) -> int:
    """The fewest pixels a side that leave the model a feature map."""
    return getattr(model, "recipe", {}).get("min_side", 1)


def recipe_of(model: keras.Model | engines.Describer) -> dict[str, Any]:
    """`rw_keras.descriptor.recipe` of a model, or of the one that an engine computes."""
    if isinstance(model, engines.Describer):
        return model.recipe
    from rw_keras.descriptor import recipe

    return recipe(model)


def described_with(model: keras.Model | engines.Describer) -> dict[str, str]:
    """What computes a model's descriptors, as an index's manifest notes it: engine, precision, and what it computes in."""
    if isinstance(model, engines.Describer):
        return {"engine": model.engine, "precision": model.precision, "computes_in": model.variant}
    import keras

    return {"engine": keras.backend.backend(), "precision": "exact", "computes_in": "float32"}


def _on(model, engine, precision, max_side):
    """The model on an engine; as it is, where that is TensorFlow in float32."""
    engines.check_arguments(engine, precision)
    if (engine, precision) == ("tensorflow", "exact"):
        return model
    found = engines.load(model, engine, precision, size=engines.usual_size(max_side, smallest_side(model)))
    plain = (found.engine, found.variant) == ("tensorflow", "float32") and not isinstance(model, engines.Describer)
    return model if plain else found


def _function(model):
    """A function from pixels `(B, H, W, 3)` to the model's output."""
    return model if isinstance(model, engines.Describer) else batch_function(model)


def _boxes(box, count):
    if box is None:
        return [None] * count
    boxes = list(box)
    if len(boxes) != count or any(one is not None and np.ndim(one) != 1 for one in boxes):
        raise ImageError(f"For {count} images, `box` is a list of {count} boxes (x1, y1, x2, y2) or None, but got {box!r}.")
    return boxes


def describe_folder(model, folder, *, max_side=1024, progress=True):
    """Describes every photo in a folder, and those below it; what `Index.from_folder` holds.

    Returns:
        The names (paths below `folder`, with "/"), `(N, D)` float32, the recipe of the model with `max_side`, and a list of
        (name, reason) for the photos that could not be read, of which a warning tells as well.

    Raises:
        FileNotFoundError: when there is no such folder.
        ImageError: when no photo in it can be read.
    """
    photos = list_photos(folder)
    names, vectors, failures = [], [], []
    words = "describing photos" if progress else None
    for photo, described, error in describe_each(model, photos, max_side=max_side, min_side=smallest_side(model), progress=words):
        name = photo.relative_to(folder).as_posix()
        if error is None:
            names.append(name)
            vectors.append(described[0])
        else:
            failures.append((name, str(error)))
    if failures:
        listed = "".join(f"\n  {reason}" for _, reason in failures)
        if not names:
            raise ImageError(f"None of the {len(photos)} photos in {folder} can be read:{listed}")
        warnings.warn(f"{len(failures)} of {len(photos)} photos were left out:{listed}", stacklevel=3)
    return names, np.stack(vectors), {**recipe_of(model), "max_side": max_side}, failures


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What `extract` did.

    Attributes:
        folder: the index.
        described: photos described now, among them
        changed: those that an earlier run had described, and that have changed since.
        kept: photos that an earlier run had described.
        removed: photos that are gone from the source, and now from the index.
        failures: (name, reason) of all photos that cannot be read, now or earlier.
        seconds: how long it took, of which
        network_seconds: the network worked.
    """

    folder: pathlib.Path
    described: int
    changed: int
    kept: int
    removed: int
    failures: list[tuple[str, str]]
    seconds: float
    network_seconds: float

    def __str__(self):
        words = [f"{self.described} described" + (f" ({self.changed} of them had changed)" if self.changed else "")]
        words += [f"{number} {what}" for number, what in ((self.kept, "kept"), (self.removed, "removed")) if number]
        words.append(f"{len(self.failures)} left out")
        return f"{', '.join(words)}; {self.described + self.kept} photos in the index"


def extract(
    model: keras.Model | engines.Describer,
    photos: Any,
    out: str | os.PathLike[str],
    *,
    max_side: int | None = 1024,
    batch_size: int | str = "auto",
    workers: int | str = "auto",
    resume: bool = True,
    dtype: str = "float32",
    checksum: bool = False,
    strict: bool = False,
    progress: bool = True,
    devices: Sequence[str] | None = None,
    source: str | None = None,
    engine: str = "tensorflow",
    precision: str = "exact",
) -> Extraction:
    """Describes a collection of any size into an index on disk, and brings one that is there up to date.

    Photos are decoded on other threads while the network works, and grouped by their exact size into batches: nothing is
    padded. What is described is on the disk after every 128 photos, so a run that is killed goes on where it was, and its
    result is that of a run which was not, byte for byte (on one machine, with the same settings). A photo that has changed is
    described again, one that is gone leaves the index. A photo that cannot be read is left out and listed, and tried again once it
    has changed.

    Args:
        model: a model of `build_descriptor`, or what `rw_keras.engines.load` made of one.
        photos: a folder, a glob, a list file, a `.tar` archive, a `tf.data.Dataset`, or a list; see `rw_keras.sources.photo_items`.
            A dataset is taken up where it was left: it has to give the same photos in the same order.
        out: the index: a folder, made where it does not exist. `rw_keras.retrieval.Index.load` opens it.
        max_side: the longer side of a photo is reduced to this many pixels. Default 1024. `None`: no limit.
        batch_size: photos of one size that go through the network together. "auto": as many as make up one photo of 512 x 384
            (64 of 64 x 48), on a GPU sixteen times as many; with "ncnn" each photo goes alone.
        workers: threads that read and decode. "auto": one a processor, at most 16.
        resume: whether to go on with an index that is there. `False` makes it anew.
        dtype: "float32", "float16" for half the space, or "int8" for a quarter. An index that is there keeps its own.
        checksum: whether a change is seen by the SHA-256 of a photo's bytes, and not by its size and time.
        strict: whether a photo that cannot be read ends the run.
        progress: whether to show a progress bar on standard error; where that is no terminal, a line every 30 seconds.
        devices: names of the devices that take batches in turn, such as "GPU:0". Default: all GPUs, else the processor.
        source: the folder that names are relative to, noted for who shows the photos. Default: `photos`, where it is one.
        engine, precision: see `describe`; the index notes them. An index may be brought up to date by another engine.

    Returns:
        An `Extraction`, which says what was done.

    Raises:
        ValueError: for an argument out of range, an engine that cannot be used (see `rw_keras.engines.load`), or an index that
            another model made, or that another process is writing.
        ImageError: with `strict`, for a photo that cannot be read; when there is no photo.
        OSError: when the index cannot be written, as on a full disk. What was finished stays.
    """
    began = time.monotonic()
    check_max_side(max_side)
    if dtype not in storage.DTYPES:
        raise ValueError(f"dtype is one of {', '.join(storage.DTYPES)}, but got {dtype!r}.")
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f'{name} is "auto" or a whole number of at least 1, but got {value!r}.')
    items = photo_items(photos)
    model = _on(model, engine, precision, max_side)
    if devices is not None and isinstance(model, engines.Describer):
        raise ValueError(f'devices={devices!r} goes with engine="tensorflow" and precision="exact", but got {model!r}.')
    made = {**recipe_of(model), "max_side": max_side}
    out = pathlib.Path(out)
    source = os.path.abspath(photos) if isinstance(photos, (str, os.PathLike)) and os.path.isdir(photos) else source
    with Collection(out, made, model.output_shape[-1], dtype, _about(source, model, out, resume), anew=not resume) as collection:
        network = _Network(model, batch_size, devices)
        earlier = {name for name in collection.known if name not in collection.failed}
        names: list[str] = []
        described = changed = 0
        total = len(items) if hasattr(items, "__len__") else None
        with _Progress(total, progress) as bar:

            def todo():
                for item in items:
                    names.append(item.name)
                    if _is_known(item, collection, checksum):
                        if strict and item.name in collection.failed:
                            raise ImageError(collection.failed[item.name])
                        bar.advance(item.name in collection.failed, new=False)
                    else:
                        yield item

            def read(item):
                return _read_item(item, max_side, smallest_side(model), checksum)

            window = _Window(network)
            for item, (pixels, stamp, error) in _read_ahead(todo(), read, workers):
                if error is not None and strict:
                    raise error
                window.take(item.name, stamp, pixels, error)
                bar.advance(error is not None)
                if error is None:
                    described, changed = described + 1, changed + (item.name in earlier)
                if window.count == _WINDOW:
                    collection.add(*window.close())
            if window.count:
                collection.add(*window.close())
        removed = collection.finish(names)
        failures = sorted(collection.failed.items())
        if len(failures) == len(collection.known):
            collection.discard()
            listed = "".join(f"\n  {reason}" for _, reason in failures[:20])
            raise ImageError(f"None of the {len(failures)} photos can be read, so there is no index:{listed}")
        kept = len(collection.known) - len(failures) - described
    return Extraction(out, described, changed, kept, removed, failures, time.monotonic() - began, network.seconds)


def _is_known(item, collection, checksum):
    """Whether a photo, as it is now, was described before, or found unreadable."""
    if item.name not in collection.known:
        return False
    stamp = collection.known[item.name]
    if item.stamp is None or stamp is None:
        return item.stamp is None and stamp is None  # an array; or a path where still nothing is that could be read
    if not checksum:
        return stamp[:2] == item.stamp
    try:
        return len(stamp) > 2 and stamp[2] == _content_digest(item)
    except OSError:
        return False


def _content_digest(item):
    source = item.open()
    if hasattr(source, "read"):
        return hashlib.sha256(source.read()).hexdigest()
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_item(item, max_side, min_side, checksum):
    """A photo's pixels, its stamp, and the error that says why there are none."""
    stamp = item.stamp
    try:
        if checksum and stamp is not None:
            stamp = [*stamp, _content_digest(item)]
        return read_image(item.open(), None, max_side, min_side), stamp, None
    except ImageError as error:
        return None, stamp, error
    except (OSError, MemoryError) as error:  # it may pass: without a stamp the photo is tried again
        return None, None, error if str(error) else ImageError(f"{item.name} cannot be read: {type(error).__name__}.")


class _Window:
    """A bounded number of photos, whose batches depend on their order alone."""

    def __init__(self, network):
        self._network = network
        self._start()

    def _start(self):
        self.count = self._waiting = 0
        self._names, self._stamps, self._failures = [], [], []
        self._groups, self._running = {}, []

    def take(self, name, stamp, pixels, error):
        self.count += 1
        if error is not None:
            self._failures.append((name, str(error), stamp))
            return
        group = self._groups.setdefault(pixels.shape, [])
        group.append((len(self._names), pixels))
        self._names.append(name)
        self._stamps.append(stamp)
        self._waiting += pixels.nbytes
        if len(group) == self._network.batch_of(pixels.shape):
            self._run(pixels.shape)
        while self._waiting > _WAITING_BYTES:
            self._run(next(iter(self._groups)))

    def _run(self, shape):
        group = self._groups.pop(shape)
        self._waiting -= sum(pixels.nbytes for _, pixels in group)
        rows = [row for row, _ in group]
        self._running.append((rows, self._network.run(np.stack([pixels for _, pixels in group]))))

    def close(self):
        """Describes what still waits; names, stamps, descriptors and failures, in the order in which they were taken."""
        while self._groups:
            self._run(next(iter(self._groups)))
        vectors = np.empty((len(self._names), self._network.dimensions), "float32")
        for rows, result in self._running:
            vectors[rows] = result.result()
        window = self._names, self._stamps, vectors, self._failures
        self._start()
        return window


class _Network:
    """The model on one device, or a copy of it on each of several that take batches in turn."""

    def __init__(self, model, batch_size, devices):
        self.dimensions, self.seconds, self._turn = model.output_shape[-1], 0.0, 0
        self._batch_size = batch_size
        if isinstance(model, engines.Describer):
            found = _gpus() if model.engine == "tensorflow" else []
            self._pixels = (model.batch_pixels or 0) * (_GPU_BATCHES if found else 1)
            self._threads, self._functions = [], [_function(model)]
            return
        found = _gpus()
        wanted, devices = devices, list(found if devices is None else devices)
        self._pixels = BATCH_PIXELS * (_GPU_BATCHES if found else 1)
        several = devices if len(devices) > 1 or wanted is not None else []
        self._threads = [concurrent.futures.ThreadPoolExecutor(1) for _ in several]
        self._functions = [_replica(model, device) for device in devices] if self._threads else [batch_function(model)]

    def batch_of(self, shape):
        """How many photos of a shape `(H, W, 3)` make a batch."""
        return max(1, self._pixels // (shape[0] * shape[1])) if self._batch_size == "auto" else self._batch_size

    def run(self, pixels):
        """A future of the descriptors of a batch."""
        self._turn += 1
        if self._threads:
            place = self._turn % len(self._threads)
            return self._threads[place].submit(self._timed, self._functions[place], pixels)
        result = concurrent.futures.Future()
        result.set_result(self._timed(self._functions[0], pixels))
        return result

    def _timed(self, function, pixels):
        began = time.monotonic()
        vectors = function(pixels)
        self.seconds += time.monotonic() - began
        return vectors


def _gpus():
    import keras

    if keras.backend.backend() != "tensorflow":
        return []
    import tensorflow as tf

    return [device.name for device in tf.config.list_logical_devices("GPU")]


def _replica(model, device):
    """A copy of the model on a device, as a function of pixels."""
    import tensorflow as tf

    with tf.device(device):
        copy = type(model).from_config(model.get_config())
        copy.set_weights(model.get_weights())
    function = batch_function(copy)

    def run(pixels):
        with tf.device(device):
            return function(pixels)

    run.model = copy  # the function itself holds it weakly
    return run


class _Progress:
    """One bar on a terminal, a line now and then elsewhere, or nothing."""

    def __init__(self, total, shown):
        self._total, self._shown = total, shown
        self._done = self._failed = self._new = 0
        self._bar = None

    def __enter__(self):
        self._began = self._last = time.monotonic()
        if self._shown and sys.stderr.isatty():
            import tqdm

            self._bar = tqdm.tqdm(desc="describing photos", total=self._total, unit="photo", smoothing=0.05)
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()

    def advance(self, failed, new=True):
        self._done, self._failed, self._new = self._done + 1, self._failed + failed, self._new + new
        if self._bar is not None:
            self._bar.update()
            if failed:
                self._bar.set_postfix_str(f"{self._failed} left out")
        elif self._shown and time.monotonic() - self._last > _LINE_SECONDS:
            self._last = time.monotonic()
            rate = self._new / (self._last - self._began)
            words = f"rw_keras: {self._done}" + (f" of {self._total}" if self._total else "") + f" photos, {rate:.1f} a second"
            if self._total and rate:
                words += f", {_duration((self._total - self._done) / rate)} left"
            print(f"{words}, {self._failed} left out", file=sys.stderr, flush=True)


def _duration(seconds):
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _about(source, model, out, resume):
    """What a manifest says beside the recipe: the versions of what described, which engines did, and where the photos lay."""
    packages = ("rw_keras", "keras", "tensorflow", "torch", "jax", "openvino", "ncnn", "numpy", "pillow")
    now = described_with(model)
    wanted = {"rw_keras", now["engine"], "numpy", "pillow"}
    if not isinstance(model, engines.Describer) or model.model is not None:
        wanted.add("keras")
    versions = {package: importlib.metadata.version(package) for package in packages if package in wanted}
    earlier = []
    if resume and (out / storage.MANIFEST).is_file():
        earlier = storage.read_manifest(out).get("described_with", [])
    return {"versions": versions, "source": source, "described_with": [*(own for own in earlier if own != now), now]}
