"""A few photos -> descriptors: decoding ahead on other threads while the network works."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rw_keras import runtimes
from rw_keras._moved import renamed
from rw_keras.description.reader import read_ahead
from rw_keras.model.descriptor import Descriptor
from rw_keras.model.photo_regions import PhotoRegions, without_regions
from rw_keras.model.presets import default_max_side
from rw_keras.model.recipe import Recipe, smallest_side
from rw_keras.photos.reading import Box, ImageError, Photo, read_image
from rw_keras.photos.remote import opened
from rw_keras.runtimes.keras_backend import backend, settled_runtime_name
from rw_keras.runtimes.keras_model import batch_function, computes_in, regions_function

if TYPE_CHECKING:
    import keras

# Two decoding threads keep up with a network that takes 50 ms a photo.
_DECODERS = 2


@renamed(engine="runtime")
def describe(
    model: keras.Model | runtimes.Describer,
    images: Photo | Sequence[Photo],
    box: Box | Sequence[Box | None] | None = None,
    max_side: int | str | None = "auto",
    *,
    regions: bool = False,
    runtime: str = "keras",
    precision: str = "exact",
) -> Descriptor:
    """Turns photos into descriptors.

    Whether the descriptors are whitened, and by what, is the model's: `model.recipe["whitening"]["name"]` says it. With
    `build_descriptor`'s default it is the whitening that ships with the package, where it fits.

    A photo is decoded to 8-bit RGB and turned upright; its longer side is reduced to `max_side` (bicubic, antialiased,
    both sides rounded to the nearest pixel; never enlarged). A box is cut out of the full-size photo before the
    network sees it, and reduced by the factor of the whole photo.

    Args:
        model: a model of `build_descriptor`, or what `rw_keras.runtimes.load` made of one.
        images: the path of a photo, its URL such as `s3://bucket/photo.jpg`, an array of RGB pixels 0..255 `(H, W, 3)`, or a list
            of these (an array `(N, H, W, 3)` counts as one).
        box: (x1, y1, x2, y2) in pixels of the upright full-size photo; for a list of images, a list of boxes, one each
            (`None`: the whole photo).
        max_side: pixels; `None`: no limit. "auto", the default: that of the model's recipe, where it has one, as a model does that
            was built from an index's (`rw_keras.model.build.from_recipe`); else its preset's; else 1024.
        regions: whether the descriptor gets the region vectors that it is the sum of, as its attribute `regions`: what
            `Index.search(..., rerank=400)` compares. They take no further time.
        runtime: what computes the network: "keras", the model itself; "openvino", "ncnn", or "auto" for the fastest of those
            installed; see `rw_keras.runtimes.load`. Whoever describes photo after photo calls that once, and passes what it gives
            as `model`.
        precision: "exact": a cosine to Keras' descriptor in float32 of at least 0.999999; "fast": of at least 0.9999;
            "int8": 0.995 in the mean.

    Returns:
        `(D,)` float32 of unit length for one photo, `(N, D)` for a list: an array whose `recipe` says how it was made, so that
        `Index.search` can warn where its own photos were described in another way. With `regions=True` its `regions` is a
        `rw_keras.model.photo_regions.PhotoRegions` for one photo, a list of them for several.

    Raises:
        FileNotFoundError: when there is no such file.
        ImageError: (a ValueError) when a photo cannot be read or is under 16 pixels a side (for VGG16), or the box does
            not lie in it.
        ValueError: with `regions`, for a model whose descriptor is no sum of whitened region vectors (`whiten_on="global"`).
        ValueError, ImportError, OSError: when the runtime cannot be used; see `rw_keras.runtimes.load`.
    """
    known = getattr(model, "recipe", None)  # of any other model it is not worth looking for
    if isinstance(max_side, str) and max_side == "auto":
        max_side = default_max_side(model)
    model = on_runtime(model, runtime, precision, max_side)
    single = isinstance(images, (str, os.PathLike)) or (hasattr(images, "ndim") and images.ndim != 4)
    images = [images] if single else list(images)
    boxes = [box] if single else _boxes(box, len(images))
    vectors, kept = [], []
    for _, described, error in describe_batches(
        model, images, boxes, regions=regions, max_side=max_side, min_side=smallest_side(model)
    ):
        if error is not None:
            raise error
        vectors.append(described.descriptors[0])
        kept += described.regions or []
    found = np.zeros((0, model.output_shape[-1]), "float32") if not vectors else vectors[0] if single else np.stack(vectors)
    made = known.at(max_side) if isinstance(known, Recipe) else None
    return Descriptor.of(found, made, None if not regions else kept[0] if single else kept)


def describe_each(
    model: keras.Model | runtimes.Describer,
    images: Iterable[Photo],
    boxes: Iterable[Box | None] | None = None,
    *,
    max_side: int | None = 1024,
    min_side: int = 1,
    progress: str | None = None,
) -> Iterator[tuple[Photo, np.ndarray | None, Exception | None]]:
    """Runs a model over photos one by one, reading ahead.

    Args:
        model: any model of pixels, or what `rw_keras.runtimes.load` made of one.
        images: an iterable of paths or arrays.
        boxes: an iterable of boxes, one each, or `None`.
        max_side, min_side: see `rw_keras.photos.reading.read_image`.
        progress: the words beside a progress bar on standard error; `None`: no bar.

    Yields:
        (image, output, error) in the order of `images`: the model's output for a batch of one, or `None` and the
        FileNotFoundError or ImageError that says why not.
    """
    return _each(function_of(model), images, boxes, max_side, min_side, progress)


def describe_batches(
    model: keras.Model | runtimes.Describer,
    images: Iterable[Photo],
    boxes: Iterable[Box | None] | None = None,
    *,
    regions: bool,
    max_side: int | None,
    min_side: int = 1,
    progress: str | None = None,
) -> Iterator[tuple[Photo, Batch | None, Exception | None]]:
    """As `describe_each`, with a `Batch` of one photo in place of the model's output.

    Args:
        regions: whether region vectors are wanted as well.
        model, images, boxes, max_side, min_side, progress: see `describe_each`.

    Raises:
        ValueError: with `regions`, see `regions_function_of`.
    """
    return _each(describing(model, regions), images, boxes, max_side, min_side, progress)


def _each(run, images, boxes, max_side, min_side, progress):
    pairs = zip(images, itertools.repeat(None) if boxes is None else boxes)
    if progress:
        import tqdm

        total = len(images) if hasattr(images, "__len__") else None
        interval = 0.1 if sys.stderr.isatty() else 10  # seconds; a log file wants few lines
        pairs = iter(tqdm.tqdm(pairs, desc=progress, total=total, unit="photo", smoothing=0.05, mininterval=interval))

    def read(pair):
        try:
            photo, box = pair
            return read_image(opened(photo), box, max_side, min_side), None
        except (OSError, ImageError) as error:
            return None, error

    for (image, _), (pixels, error) in read_ahead(pairs, read, lambda found: found[0], _DECODERS):
        yield image, None if error else run(pixels[None]), error


def on_runtime(
    model: keras.Model | runtimes.Describer, runtime: str, precision: str, max_side: int | None
) -> keras.Model | runtimes.Describer:
    """The model on a runtime; as it is, where that is Keras. Arguments and errors as for `describe`."""
    runtimes.check_arguments(runtime, precision)
    if isinstance(model, runtimes.Describer) or (settled_runtime_name(runtime), precision) == (backend(), "exact"):
        return model
    found = runtimes.load(model, runtime, precision, size=runtimes.usual_size(max_side, smallest_side(model)))
    return model if found.runtime == backend() and found.variant == computes_in(model) else found


def function_of(model: keras.Model | runtimes.Describer) -> Callable[[np.ndarray], np.ndarray]:
    """A function from pixels `(B, H, W, 3)` to the model's output."""
    return model if isinstance(model, runtimes.Describer) else batch_function(model)


def regions_function_of(
    model: keras.Model | runtimes.Describer,
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A function from pixels `(B, H, W, 3)` to descriptors `(B, D)`, region vectors `(B, R, D)` and their boxes `(R, 4)`.

    Raises:
        ValueError: for a model whose descriptor is no sum of whitened region vectors.
    """
    if isinstance(model, runtimes.Describer):
        if model.made.whiten_on == "global":  # it would say so itself, photos later
            raise without_regions(f"The model of {model!r}")
        return model.with_regions
    return regions_function(model)


class Batch(NamedTuple):
    """What is made of photos of one size.

    Attributes:
        descriptors: `(B, D)` float32.
        regions: the region vectors of each; `None` where they are not asked for.
    """

    descriptors: np.ndarray
    regions: list[PhotoRegions] | None


def describing(model: keras.Model | runtimes.Describer, regions: bool) -> Callable[[np.ndarray], Batch]:
    """A function from pixels `(B, H, W, 3)` to a `Batch`, with region vectors or without; errors as for `regions_function_of`."""
    if not regions:
        run = function_of(model)
        return lambda pixels: Batch(run(pixels), None)
    run_with = regions_function_of(model)

    def with_regions(pixels):
        descriptors, vectors, boxes = run_with(pixels)
        return Batch(descriptors, [PhotoRegions(own, boxes) for own in vectors])

    return with_regions


def _boxes(box, count):
    if box is None:
        return [None] * count
    boxes = list(box)
    if len(boxes) != count or any(one is not None and np.ndim(one) != 1 for one in boxes):
        raise ImageError(f"For {count} images, `box` is a list of {count} boxes (x1, y1, x2, y2) or None, but got {box!r}.")
    return boxes
