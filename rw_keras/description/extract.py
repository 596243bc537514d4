"""Many photos -> an index on disk: a reader, a batcher, a runner and an update, joined by `extract`."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rw_keras import runtimes
from rw_keras._moved import names, renamed
from rw_keras.description import defaults
from rw_keras.description.batcher import Batcher
from rw_keras.description.describe import on_runtime
from rw_keras.description.progress import Progress
from rw_keras.description.reader import read_ahead, read_item
from rw_keras.description.runner import Runner
from rw_keras.description.update import Update, check_loss
from rw_keras.model.presets import preset_of
from rw_keras.model.recipe import Recipe, smallest_side
from rw_keras.photos.listing import names_of
from rw_keras.photos.reading import ImageError
from rw_keras.photos.sources import photo_items
from rw_keras.retrieval import places
from rw_keras.runtimes.describer import described_with

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What `extract` did.

    Attributes:
        folder: the index, or its address in Milvus.
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
        excluded: photos of the source that were left out because they were deleted from the index, see
            `rw_keras.retrieval.exclusions`.
    """

    folder: pathlib.Path | str
    described: int
    changed: int
    kept: int
    removed: int
    failures: list[tuple[str, str]]
    seconds: float
    network_seconds: float
    unread: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    undecodable: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    excluded: int = 0

    def __str__(self):
        words = [f"{self.described} described" + (f" ({self.changed} of them had changed)" if self.changed else "")]
        counts = (self.kept, "kept"), (self.removed, "removed"), (self.excluded, "excluded")
        words += [f"{number} {what}" for number, what in counts if number]
        words.append(f"{len(self.failures)} left out")
        sentence = f"{', '.join(words)}; {self.described + self.kept} photos in the index"
        if self.unread:
            sentence += f"; {len(self.unread)} could not be read now, what the index holds of them was kept"
        if self.undecodable:
            sentence += f"; {len(self.undecodable)} have changed and cannot be decoded, they left the index"
        return sentence


@renamed(engine="runtime")
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
    regions: str | None = "auto",
    region_components: int | None = None,
    checksum: bool = False,
    strict: bool = False,
    progress: bool = True,
    devices: Sequence[str] | None = None,
    source: str | None = None,
    runtime: str | None = None,
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
    that `Index.add` brought stay, and names that are excluded (`rw_keras.retrieval.exclusions`) are left out, also by a new index
    that takes the place of this one. `docs/collections.md` has the rules.

    Args:
        model: a model of `build_descriptor`, or what `rw_keras.runtimes.load` made of one.
        photos: a folder, a glob, a list file, a `.tar` archive, a `tf.data.Dataset`, a list, or a URL such as `s3://bucket/photos/`;
            see `rw_keras.photos.sources.photo_items`. A dataset is taken up where it was left: it has to give the same photos in
            the same order.
        out: the index: a folder, made where it does not exist, or `milvus://...`; `rw_keras.retrieval.Index.open` opens it.
        max_side: the longer side of a photo is reduced to this many pixels; `None`: no limit. "auto", the default: as the index was
            made; for a new one the size that the model carries, see `rw_keras.describe`.
        batch_size: photos of one size that go through the network together. "auto": as many as make up one photo of 512 x 384
            (64 of 64 x 48), on a GPU sixteen times as many; with "ncnn" each photo goes alone.
        workers: threads that read and decode. "auto": one a processor, at most 16.
        resume: whether to go on with an index that is there. `False` makes a new one beside it, which takes its place at the end.
        dtype: "float32", "float16" for half the space, or "int8" for a quarter. Default: the index's own; for a new one that of the
            model's preset, or "float32".
        regions: whether the index keeps the region vectors as well, by which a search may re-rank: "int8", about 10 KB a photo at
            21 regions of 512 dimensions; "float16", twice that; `None`: no. "auto", the default: as the index was made; for a new
            one as the model's preset says, without one no. An index keeps them of all its photos or of none: to have it otherwise,
            make it again with `resume=False`. They take no further time of the network.
        region_components: to how many dimensions region vectors are cut, the strongest ones. Default: as the index was made; for a
            new one as the model's preset says, else all.
        checksum: whether a change is seen by the SHA-256 of a photo's bytes, and not by its size and time.
        strict: whether a photo that cannot be read ends the run.
        progress: whether to show a progress bar on standard error; where that is no terminal, a line every 30 seconds.
        devices: names of the devices that take batches in turn, such as "GPU:0". Default: all GPUs, else the processor.
        source: the folder that names are relative to, noted for who shows the photos. Default: `photos`, where it is one.
        runtime, precision: what computes the network, and how exactly; see `rw_keras.runtimes.load`. The index notes them. Default:
            those that described the index last; for a new one "auto", the fastest runtime that is installed, and "exact". The first
            run of a model on a machine takes seconds to measure them. With `devices` the default is "tensorflow". An index may be
            brought up to date by another runtime.
        prune: whether any number of rows may leave the index: more than half of them at once, all of them when the source is
            missing or empty, and those of changed photos that cannot be decoded when they are more than a tenth.
        settings: what else the index notes for later runs, such as the file of the weights.

    Returns:
        An `Extraction`, which says what was done.

    Raises:
        ValueError: for an argument out of range, a runtime that cannot be used (see `rw_keras.runtimes.load`), an index that was
            made in another way, or that another process is writing; with `regions`, for a model that has no region vectors
            (`whiten_on="global"`); and without `prune`, when more than half of the index would leave it.
        ImageError: with `strict`, for a photo that cannot be read; when there is no photo.
        OSError: when the index cannot be written, as on a full disk. What was finished stays.
    """
    began = time.monotonic()
    out = places.check_target(out, beside=not resume)
    about = places.about(out) if resume else None
    max_side = defaults.settled_max_side(max_side, model, about)
    dtype = defaults.settled_dtype(dtype, model, about)
    _check_arguments(batch_size, workers)
    kept_regions = defaults.settled_regions(regions, region_components, model, about)
    runtime, precision = defaults.settled_runtime(runtime, precision, about, devices)
    items = listed_photos(photos, prune and about is not None)
    count = len(items) if hasattr(items, "__len__") else None
    check_loss(out, names_of(items), prune, beside=not resume)
    made = {**Recipe.of(model), "max_side": max_side}
    source = os.path.abspath(photos) if isinstance(photos, (str, os.PathLike)) and os.path.isdir(photos) else source
    with places.writer(out, made, model.output_shape[-1], dtype, beside=not resume, go_on=True, regions=kept_regions) as writer:
        update = Update(writer, items, checksum, strict, prune)
        if writer.about["next_row"] == 0:
            _note(writer, _defaults_of(model, kept_regions))
        model = on_runtime(model, runtime, precision, max_side)
        runner = Runner(model, batch_size, devices, kept_regions is not None)
        _note(writer, {"source": source, "settings": dict(settings) if settings else None})
        min_side = smallest_side(model)
        with Progress(count, progress) as bar:
            todo = update.todo(bar)
            readings = read_ahead(
                todo, lambda photo: read_item(*photo, max_side, min_side, checksum), lambda one: one.pixels, workers
            )
            _describe(readings, Batcher(runner), update, bar, lambda: _note(writer, made_by(writer.about, model)))
        update.finish()
        failures = writer.failures()
        if writer.abandon():
            listed = "".join(f"\n  {reason}" for _, reason in failures[:20])
            raise ImageError(f"None of the {len(failures)} photos can be read, so there is no index:{listed}")
        kept = writer.count() - update.described
    seconds = time.monotonic() - began
    done = update.described, update.changed, kept, update.removed, failures
    lists = sorted(update.unread), sorted(update.undecodable)
    return Extraction(out, *done, seconds, runner.seconds, *lists, update.excluded)


def _check_arguments(batch_size, workers):
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f'{name} is "auto" or a whole number of at least 1, but got {value!r}.')


def listed_photos(photos: Any, may_be_none: bool) -> Any:
    """What `photo_items` gives; an empty list for a source that is missing or empty, where that is allowed."""
    try:
        return photo_items(photos)
    except (FileNotFoundError, ImageError):
        if not may_be_none:
            raise
        return []


def _describe(readings, batcher, update, bar, note):
    """Describes what the reader gives and keeps it, a window at a time. `note` is called before the first descriptors are kept."""

    def keep():
        readings, described = batcher.close()
        if readings:
            note()
            update.put(readings, *described)
        update.commit()

    for _, reading in readings:
        if reading.pixels is not None:
            batcher.take(reading)
        elif reading.error is not None:
            update.failed(reading)
        else:
            update.found_same(reading)
        bar.advance(reading.error is not None, new=reading.pixels is not None)
        if batcher.is_full:
            keep()
    keep()


def _note(writer, fields):
    for field, value in fields.items():
        if value is not None:
            writer.set(field, value)


def _defaults_of(model, regions):
    """What a new index notes of its model's preset: the name, and how a search is done by default."""
    preset = preset_of(model)
    return {} if preset is None else {"preset": preset.name, "search": defaults.search_defaults(model, regions)}


def made_by(about: Mapping[str, Any], model: keras.Model | runtimes.Describer) -> dict[str, Any]:
    """What an index says beside the recipe: the versions of what described it, and which runtimes did, the last one last.

    Args:
        about: the fields of the index.
        model: what describes photos for it now.
    """
    packages = ("rw_keras", "keras", "tensorflow", "torch", "jax", "openvino", "ncnn", "numpy", "pillow")
    now = described_with(model)
    wanted = {"rw_keras", now["runtime"], "numpy", "pillow"}
    if not isinstance(model, runtimes.Describer) or model.model is not None:
        wanted.add("keras")
    versions = {package: _version(package) for package in packages if package in wanted}
    earlier = about.get("described_with") or []
    return {"versions": versions, "described_with": [*(own for own in earlier if own != now), now]}


@functools.cache
def _version(package):
    return importlib.metadata.version(package)


# Where they were in earlier versions.
__getattr__ = names(
    __name__,
    **dict.fromkeys(("describe", "describe_each"), "description.describe"),
    describe_folder="description.folder",
)
