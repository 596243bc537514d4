"""Many photos -> descriptors: decoding ahead on other threads while the network works."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import importlib.metadata
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rw_keras import runtimes
from rw_keras.description.describe import function_of, on_runtime, read_ahead
from rw_keras.description.update import Update, check_loss, read_item
from rw_keras.model.recipe import Recipe, smallest_side, with_runtime
from rw_keras.photos.reading import ImageError, check_max_side
from rw_keras.photos.sources import photo_items
from rw_keras.retrieval import store
from rw_keras.retrieval.writer import Writer
from rw_keras.runtimes.describer import described_with
from rw_keras.runtimes.tensorflow import BATCH_PIXELS, batch_function

if TYPE_CHECKING:
    import keras

# Photos that are described between two writes to the disk. A photo waits for others of its size no longer than that.
_WINDOW = 128
# Decoded photos that wait for others of their size.
_WAITING_BYTES = 256 << 20
# On a GPU so many times the pixels go through the network together.
_GPU_BATCHES = 16
_LINE_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What `extract` did.

    Attributes:
        folder: the index.
        described: photos described now, among them
        changed: those that an earlier run had described, and that have changed since.
        kept: photos whose descriptors an earlier run had made.
        removed: photos that are gone from the source, and now from the index.
        failures: (name, reason) of all photos that cannot be read, now or earlier, and are not in the index.
        seconds: how long it took, of which
        network_seconds: the network worked.
        unread: (name, reason) of photos among the kept ones that could not be read now.
        undecodable: (name, reason) of photos among the failures that left the index now, because their bytes have changed and
            cannot be decoded.
    """

    folder: pathlib.Path
    described: int
    changed: int
    kept: int
    removed: int
    failures: list[tuple[str, str]]
    seconds: float
    network_seconds: float
    unread: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    undecodable: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def __str__(self):
        words = [f"{self.described} described" + (f" ({self.changed} of them had changed)" if self.changed else "")]
        words += [f"{number} {what}" for number, what in ((self.kept, "kept"), (self.removed, "removed")) if number]
        words.append(f"{len(self.failures)} left out")
        sentence = f"{', '.join(words)}; {self.described + self.kept} photos in the index"
        if self.unread:
            sentence += f"; {len(self.unread)} could not be read now, what the index holds of them was kept"
        if self.undecodable:
            sentence += f"; {len(self.undecodable)} have changed and cannot be decoded, they left the index"
        return sentence


def extract(
    model: keras.Model | runtimes.Describer,
    photos: Any,
    out: str | os.PathLike[str],
    *,
    max_side: int | str | None = "auto",
    batch_size: int | str = "auto",
    workers: int | str = "auto",
    resume: bool = True,
    dtype: str | None = None,
    checksum: bool = False,
    strict: bool = False,
    progress: bool = True,
    devices: Sequence[str] | None = None,
    source: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    prune: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Extraction:
    """Describes a collection of any size into an index on disk, and brings one that is there up to date.

    Photos are decoded on other threads while the network works, and grouped by their exact size into batches: nothing is
    padded. What is described is on the disk after every 128 photos, so a run that is killed goes on where it was, and its
    result is that of a run which was not (on one machine, with the same settings). A photo that has changed is described again;
    one that its source no longer lists leaves the index. A photo that cannot be read is left out and listed, and tried again once
    it has changed; a descriptor that the index holds of it stays, unless the photo's bytes have changed and cannot be decoded. Rows
    that `Index.add` brought stay. `docs/collections.md` has the rules.

    Args:
        model: a model of `build_descriptor`, or what `rw_keras.runtimes.load` made of one.
        photos: a folder, a glob, a list file, a `.tar` archive, a `tf.data.Dataset`, or a list; see
            `rw_keras.photos.sources.photo_items`. A dataset is taken up where it was left: it has to give the same photos in the
            same order.
        out: the index: a folder, made where it does not exist. `rw_keras.retrieval.Index.load` opens it.
        max_side: the longer side of a photo is reduced to this many pixels; `None`: no limit. "auto", the default: as the index was
            made; 1024 for a new one.
        batch_size: photos of one size that go through the network together. "auto": as many as make up one photo of 512 x 384
            (64 of 64 x 48), on a GPU sixteen times as many; with "ncnn" each photo goes alone.
        workers: threads that read and decode. "auto": one a processor, at most 16.
        resume: whether to go on with an index that is there. `False` makes a new one beside it, which takes its place at the end.
        dtype: "float32", "float16" for half the space, or "int8" for a quarter. Default: the index's own; "float32" for a new one.
        checksum: whether a change is seen by the SHA-256 of a photo's bytes, and not by its size and time.
        strict: whether a photo that cannot be read ends the run.
        progress: whether to show a progress bar on standard error; where that is no terminal, a line every 30 seconds.
        devices: names of the devices that take batches in turn, such as "GPU:0". Default: all GPUs, else the processor.
        source: the folder that names are relative to, noted for who shows the photos. Default: `photos`, where it is one.
        engine, precision: see `describe`; the index notes them. Default: those that described the index last, for a new one
            "tensorflow" and "exact". An index may be brought up to date by another engine.
        prune: whether any number of rows may leave the index: more than half of them at once, all of them when the source is
            missing or empty, and those of changed photos that cannot be decoded when they are more than a tenth.
        settings: what else the index notes for later runs, such as the file of the weights.

    Returns:
        An `Extraction`, which says what was done.

    Raises:
        ValueError: for an argument out of range, an engine that cannot be used (see `rw_keras.runtimes.load`), an index that was
            made in another way, or that another process is writing; and without `prune`, when more than half of it would leave it.
        ImageError: with `strict`, for a photo that cannot be read; when there is no photo.
        OSError: when the index cannot be written, as on a full disk. What was finished stays.
    """
    began = time.monotonic()
    out = store.check_target(out)
    about = store.about(out) if resume else None
    max_side = settled_max_side(max_side, about)
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f'{name} is "auto" or a whole number of at least 1, but got {value!r}.')
    if dtype not in (None, *store.DTYPES):
        raise ValueError(f"dtype is one of {', '.join(store.DTYPES)}, but got {dtype!r}.")
    items = listed_photos(photos, prune and about is not None)
    if hasattr(items, "__len__"):
        check_loss(out, {item.name for item in items}, prune, beside=not resume)
    engine, precision = settled_engine(engine, precision, about)
    runtimes.check_arguments(engine, precision)
    made = {**Recipe.of(model), "max_side": max_side}
    source = os.path.abspath(photos) if isinstance(photos, (str, os.PathLike)) and os.path.isdir(photos) else source
    with Writer(out, made, model.output_shape[-1], dtype, beside=not resume, go_on=True) as writer:
        update = Update(writer, items, checksum, strict, prune)
        model = on_runtime(model, engine, precision, max_side)
        if devices is not None and isinstance(model, runtimes.Describer):
            raise ValueError(f'devices={devices!r} goes with runtime="tensorflow" and precision="exact", but got {model!r}.')
        network = _Network(model, batch_size, devices)
        _note(writer, {"source": source, "settings": dict(settings) if settings else None})
        with _Progress(len(items) if hasattr(items, "__len__") else None, progress) as bar:
            _describe_all(update, network, model, max_side, checksum, workers, bar, lambda: _note(writer, _made_by(writer, model)))
        update.finish()
        failures = writer.failures()
        if writer.abandon():
            listed = "".join(f"\n  {reason}" for _, reason in failures[:20])
            raise ImageError(f"None of the {len(failures)} photos can be read, so there is no index:{listed}")
        kept = writer.count() - update.described
    seconds = time.monotonic() - began
    done = update.described, update.changed, kept, update.removed, failures
    return Extraction(out, *done, seconds, network.seconds, sorted(update.unread), sorted(update.undecodable))


def settled_max_side(max_side: int | str | None, about: Mapping[str, Any] | None) -> int | None:
    """`max_side` of `extract`: "auto" is as the index was made, 1024 where there is none."""
    if max_side == "auto":
        return ((about or {}).get("recipe") or {"max_side": 1024}).get("max_side", 1024)
    check_max_side(max_side)
    return max_side


def settled_engine(engine: str | None, precision: str | None, about: Mapping[str, Any] | None) -> tuple[str, str]:
    """`engine` and `precision` of `extract`: `None` is what described the index last, or TensorFlow at "exact"."""
    last = with_runtime(((about or {}).get("described_with") or [{}])[-1])
    known = last.get("runtime") if last.get("runtime") in runtimes.RUNTIMES else "tensorflow"
    return engine or known, precision or (last.get("precision") if last.get("precision") in runtimes.PRECISIONS else "exact")


def listed_photos(photos: Any, may_be_none: bool) -> Any:
    """What `photo_items` gives; an empty list for a source that is missing or empty, where that is allowed."""
    try:
        return photo_items(photos)
    except (FileNotFoundError, ImageError):
        if not may_be_none:
            raise
        return []


def _describe_all(update, network, model, max_side, checksum, workers, bar, note):
    """Reads ahead, describes and keeps, a window at a time. `note` is called before the first descriptors are kept."""
    min_side = smallest_side(model)

    def read(task):
        return read_item(*task, max_side, min_side, checksum)

    def keep():
        readings, vectors = window.close()
        if readings:
            note()
            update.put(readings, vectors)
        update.commit()

    window = _Window(network)
    for _, reading in read_ahead(update.todo(bar), read, workers):
        if reading.pixels is not None:
            window.take(reading)
        elif reading.error is not None:
            update.failed(reading)
        else:
            update.found_same(reading)
        bar.advance(reading.error is not None, new=reading.pixels is not None)
        if window.count == _WINDOW:
            keep()
    keep()


def _note(writer, fields):
    for field, value in fields.items():
        if value is not None:
            writer.set(field, value)


def _made_by(writer, model):
    """What an index says beside the recipe: the versions of what described it, and which engines did, the last one last."""
    packages = ("rw_keras", "keras", "tensorflow", "torch", "jax", "openvino", "ncnn", "numpy", "pillow")
    now = described_with(model)
    wanted = {"rw_keras", now["runtime"], "numpy", "pillow"}
    if not isinstance(model, runtimes.Describer) or model.model is not None:
        wanted.add("keras")
    versions = {package: importlib.metadata.version(package) for package in packages if package in wanted}
    earlier = map(with_runtime, writer.about.get("described_with") or [])
    return {"versions": versions, "described_with": [*(own for own in earlier if own != now), now]}


class _Window:
    """A bounded number of photos, whose batches depend on their order alone."""

    def __init__(self, network):
        self._network = network
        self._start()

    def _start(self):
        self.count = self._waiting = 0
        self._readings, self._groups, self._running = [], {}, []

    def take(self, reading):
        pixels = reading.pixels
        self.count += 1
        group = self._groups.setdefault(pixels.shape, [])
        group.append((len(self._readings), pixels))
        self._readings.append(reading._replace(pixels=None))
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
        """Describes what still waits: the readings in the order in which they were taken, and their descriptors."""
        while self._groups:
            self._run(next(iter(self._groups)))
        vectors = np.empty((len(self._readings), self._network.dimensions), "float32")
        for rows, result in self._running:
            vectors[rows] = result.result()
        readings = self._readings
        self._start()
        return readings, vectors


class _Network:
    """The model on one device, or a copy of it on each of several that take batches in turn."""

    def __init__(self, model, batch_size, devices):
        self.dimensions, self.seconds, self._turn = model.output_shape[-1], 0.0, 0
        self._batch_size = batch_size
        if isinstance(model, runtimes.Describer):
            found = _gpus() if model.runtime == "tensorflow" else []
            self._pixels = (model.batch_pixels or 0) * (_GPU_BATCHES if found else 1)
            self._threads, self._functions = [], [function_of(model)]
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
