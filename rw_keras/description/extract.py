"""Many photos -> an index on disk: a reader, a batcher, a runner and an update, joined by `extract`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rw_keras import runtimes
from rw_keras._moved import names, renamed
from rw_keras.description.batcher import Batcher, windows
from rw_keras.description.describe import on_runtime
from rw_keras.description.job import Extraction, Job, check_arguments, made_by, note
from rw_keras.description.progress import Progress
from rw_keras.description.reader import read_ahead, read_item
from rw_keras.description.runner import Runner
from rw_keras.model.recipe import smallest_side

if TYPE_CHECKING:
    import keras


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
    padded. What is described is on the disk after every 128 photos, so a run that is killed resumes where it stopped, and its
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
        devices: names of the devices that take batches in turn, as `keras.device` takes them, such as "GPU:0". Default: all GPUs,
            else the processor.
        source: the folder that names are relative to, noted for who shows the photos. Default: `photos`, where it is one.
        runtime, precision: what computes the network, and how exactly; see `rw_keras.runtimes.load`. The index notes them. Default:
            those that described the index last; for a new one "auto", the fastest runtime that is installed, and "exact". The first
            run of a model on a machine takes seconds to measure them. With `devices` the default is "keras". An index may be
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
    check_arguments(batch_size, workers)
    job = Job.settled(
        model,
        photos,
        out,
        max_side=max_side,
        resume=resume,
        dtype=dtype,
        regions=regions,
        region_components=region_components,
        checksum=checksum,
        strict=strict,
        devices=devices,
        source=source,
        runtime=runtime,
        precision=precision,
        prune=prune,
        settings=settings,
    )
    with job.opened() as (writer, update):
        describer = on_runtime(model, job.runtime, job.precision, job.max_side)
        runner = Runner(describer, batch_size, devices, job.regions is not None)
        with Progress(job.count, progress) as bar:
            for window in _described(job, update, describer, Batcher(runner), workers, bar):
                if window.places:
                    note(writer, made_by(writer.about, describer))
                update.take(window)
        return job.finished(writer, update, began, runner.seconds)


def _described(job, update, describer, batcher, workers, bar):
    """What the photos that have to be read become, a window at a time."""
    min_side = smallest_side(describer)

    def seen(reading):
        update.check(reading)
        bar.advance(reading.error is not None, new=reading.pixels is not None)

    readings = read_ahead(
        update.todo(bar),
        lambda photo: read_item(*photo, job.max_side, min_side, job.checksum),
        lambda one: one.pixels,
        workers,
    )
    return windows(readings, batcher, seen)


# Where they were in earlier versions.
__getattr__ = names(
    __name__,
    **dict.fromkeys(("describe", "describe_each"), "description.describe"),
    describe_folder="description.folder",
)
