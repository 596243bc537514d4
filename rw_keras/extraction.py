"""Many photos -> descriptors: decoding ahead on other threads while the network works."""

import collections
import concurrent.futures
import hashlib
import itertools
import json
import os
import pathlib
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Sequence

import keras
import numpy as np

from rw_keras.descriptor import recipe
from rw_keras.files import written_whole
from rw_keras.images import Box, ImageError, Photo, list_photos, read_image

# Photos decoded ahead of the network, each on a thread of its own while it lasts. Two threads keep up with a network
# that takes 50 ms a photo; four photos in hand bridge an uneven one.
_DECODERS = 2
_AHEAD = 4

_compiled = weakref.WeakKeyDictionary()


def describe(
    model: keras.Model,
    images: Photo | Sequence[Photo],
    box: Box | Sequence[Box | None] | None = None,
    max_side: int | None = 1024,
) -> np.ndarray:
    """Turns photos into descriptors.

    Whether the descriptors are whitened, and by what, is the model's: `model.recipe["whitening"]["name"]` says it. With
    `build_descriptor`'s default it is the whitening that ships with the package, where it fits.

    A photo is decoded to 8-bit RGB and turned upright; its longer side is reduced to `max_side` (bicubic, antialiased,
    both sides rounded to the nearest pixel; never enlarged). A box is cut out of the full-size photo before the
    network sees it, and reduced by the factor of the whole photo.

    Args:
        model: a model of `build_descriptor`.
        images: the path of a photo, an array of RGB pixels 0..255 `(H, W, 3)`, or a list of either (an array
            `(N, H, W, 3)` counts as one).
        box: (x1, y1, x2, y2) in pixels of the upright full-size photo; for a list of images, a list of boxes, one each
            (`None`: the whole photo).
        max_side: pixels. Default 1024. `None`: no limit.

    Returns:
        `(D,)` float32 of unit length for one photo, `(N, D)` for a list.

    Raises:
        FileNotFoundError: when there is no such file.
        ImageError: (a ValueError) when a photo cannot be read or is under 16 pixels a side (for VGG16), or the box does
            not lie in it.
    """
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
        model: any model of pixels.
        images: an iterable of paths or arrays.
        boxes: an iterable of boxes, one each, or `None`.
        max_side, min_side: see `rw_keras.images.read_image`.
        progress: the words beside a progress bar on standard error; `None`: no bar.

    Yields:
        (image, output, error) in the order of `images`: the model's output for a batch of one, or `None` and the
        FileNotFoundError or ImageError that says why not.
    """
    run = batch_function(model)
    pairs = zip(images, itertools.repeat(None) if boxes is None else boxes)
    if progress:
        import tqdm

        total = len(images) if hasattr(images, "__len__") else None
        interval = 0.1 if sys.stderr.isatty() else 10  # seconds; a log file wants few lines
        pairs = iter(tqdm.tqdm(pairs, desc=progress, total=total, unit="photo", smoothing=0.05, mininterval=interval))

    def read(image, box):
        try:
            return read_image(image, box, max_side, min_side), None
        except (OSError, ImageError) as error:
            return None, error

    with concurrent.futures.ThreadPoolExecutor(_DECODERS) as decoders:
        waiting = collections.deque()
        try:
            more = True
            while more or waiting:
                pair = next(pairs, None)
                more = pair is not None
                if more:
                    waiting.append((pair[0], decoders.submit(read, *pair)))
                    if len(waiting) <= _AHEAD:
                        continue
                if waiting:
                    image, future = waiting.popleft()
                    pixels, error = future.result()
                    yield image, None if error else run(pixels[None]), error
        finally:
            decoders.shutdown(wait=False, cancel_futures=True)


def batch_function(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """A function from pixels `(B, H, W, 3)`, uint8, to the model's output as an array, compiled once for all sizes."""
    if model not in _compiled:
        if keras.backend.backend() != "tensorflow":
            return model.predict_on_batch
        import tensorflow as tf

        weak = weakref.ref(model)  # the function must not keep alive the model that it is kept for

        @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.uint8)])
        def graph(pixels):
            return weak()(pixels, training=False)

        _compiled[model] = graph
    graph = _compiled[model]
    return lambda pixels: graph(pixels).numpy()


def smallest_side(model: keras.Model) -> int:
    """The fewest pixels a side that leave the model a feature map."""
    return getattr(model, "recipe", {}).get("min_side", 1)


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
    return names, np.stack(vectors), {**recipe(model), "max_side": max_side}, failures


def describe_cached(model, paths, boxes=None, *, max_side=1024, cache=None, progress=True):
    """Describes photos, using again what an earlier run has kept.

    A descriptor is used again only for the same recipe, weights and whitening digests among it, the same size, the same
    bytes of the photo and the same box. What is new is kept every minute, and when the run ends or is interrupted.

    Args:
        cache: a folder, made where it does not exist; `None`: nothing is kept.

    Returns:
        A list of `(D,)` vectors, `None` where a photo could not be read, and a list of (path, reason) for those.
    """
    boxes = [None] * len(paths) if boxes is None else list(boxes)
    store = _Store(cache, {**recipe(model), "max_side": max_side}) if cache is not None else None
    keys = [None] * len(paths) if store is None else [_key(path, box) for path, box in zip(paths, boxes)]
    vectors = [None if key is None or store is None else store.vectors.get(key) for key in keys]
    todo = [position for position, vector in enumerate(vectors) if vector is None]
    failures = []
    described = describe_each(
        model,
        [paths[position] for position in todo],
        [boxes[position] for position in todo],
        max_side=max_side,
        min_side=smallest_side(model),
        progress="describing photos" if progress and todo else None,
    )
    try:
        for position, (path, vector, error) in zip(todo, described):
            if error is not None:
                failures.append((path, str(error)))
                continue
            vectors[position] = vector[0]
            if store is not None and keys[position] is not None:
                store.add(keys[position], vector[0])
    finally:
        if store is not None:
            store.save()
    return vectors, failures


class _Store:
    """Descriptors of one recipe, in one file of a cache folder."""

    def __init__(self, folder, made):
        tag = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
        self.path = pathlib.Path(folder) / f"{made['backbone'].partition(' ')[0]}-{tag}.npz"
        self.vectors, self._saved, self._changed = {}, time.monotonic(), False
        if self.path.exists():
            try:
                with np.load(self.path, allow_pickle=False) as kept:
                    self.vectors = dict(zip(kept["keys"].tolist(), kept["vectors"]))
            except Exception as error:  # no zip file, cut short, other arrays
                raise ValueError(f"{self.path} does not hold the descriptors it was written with: {error}; remove it.") from error

    def add(self, key, vector):
        self.vectors[key], self._changed = vector, True
        if time.monotonic() - self._saved > 60:
            self.save()

    def save(self):
        if not self._changed:
            return
        with written_whole(self.path) as file:
            np.savez(file, keys=np.array(list(self.vectors)), vectors=np.stack(list(self.vectors.values())))
        self._saved, self._changed = time.monotonic(), False


def _key(path, box):
    """What a photo and its box are known by: the photo's bytes, not its name. `None` where there are none to read."""
    try:
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    return f"{content} {tuple(float(corner) for corner in box) if box is not None else 'whole'}"
