"""What a run is to do, and what it has done: what runs on one machine and on many have in common."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rw_keras import runtimes
from rw_keras.description import defaults
from rw_keras.description.update import Update, check_loss
from rw_keras.model.presets import preset_of
from rw_keras.model.recipe import Recipe
from rw_keras.photos.listing import names_of
from rw_keras.photos.reading import ImageError
from rw_keras.photos.sources import EmptySourceError, photo_items
from rw_keras.retrieval import places
from rw_keras.runtimes.describer import described_with

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What a run did.

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


@dataclasses.dataclass(frozen=True)
class Job:
    """What a run is to do, settled and checked before time is spent on it.

    Attributes:
        model, out, max_side, dtype, runtime, precision, resume, checksum, strict, prune, settings: see `rw_keras.extract`.
        items: the photos of the source.
        made: the recipe, with `max_side`.
        regions: how region vectors are kept; `None`: not at all.
        source: the folder that names are relative to, where there is one.
    """

    model: Any
    items: Any
    out: pathlib.Path | str
    made: dict[str, Any]
    max_side: int | None
    dtype: str | None
    regions: dict[str, Any] | None
    runtime: str
    precision: str
    resume: bool
    checksum: bool
    strict: bool
    prune: bool
    source: str | None
    settings: dict[str, Any] | None

    @classmethod
    def settled(
        cls,
        model: keras.Model | runtimes.Describer,
        photos: Any,
        out: str | os.PathLike[str],
        *,
        max_side: int | str | None,
        resume: bool,
        dtype: str | None,
        regions: str | None,
        region_components: int | None,
        checksum: bool,
        strict: bool,
        devices: Sequence[str] | None,
        source: str | None,
        runtime: str | None,
        precision: str | None,
        prune: bool,
        settings: Mapping[str, Any] | None,
    ) -> Job:
        """Arguments and errors as for `rw_keras.extract`."""
        out = places.check_target(out, beside=not resume)
        about = places.about(out) if resume else None
        max_side = defaults.settled_max_side(max_side, model, about)
        dtype = defaults.settled_dtype(dtype, model, about)
        kept_regions = defaults.settled_regions(regions, region_components, model, about)
        runtime, precision = defaults.settled_runtime(runtime, precision, about, devices)
        items = listed_photos(photos, prune and about is not None)
        check_loss(out, names_of(items), prune, beside=not resume)
        is_folder = isinstance(photos, (str, os.PathLike)) and os.path.isdir(photos)
        return cls(
            model=model,
            items=items,
            out=out,
            made={**Recipe.of(model), "max_side": max_side},
            max_side=max_side,
            dtype=dtype,
            regions=kept_regions,
            runtime=runtime,
            precision=precision,
            resume=resume,
            checksum=checksum,
            strict=strict,
            prune=prune,
            source=os.path.abspath(photos) if is_folder else getattr(items, "folder", None) or source,
            settings=dict(settings) if settings else None,
        )

    @property
    def count(self) -> int | None:
        """How many photos there are; `None` where that is not known."""
        return len(self.items) if hasattr(self.items, "__len__") else None

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[places.IndexWriter, Update]]:
        """The writer of the index, which holds its lock, and the update of this run."""
        dimensions = self.model.output_shape[-1]
        with places.writer(
            self.out, self.made, dimensions, self.dtype, beside=not self.resume, go_on=True, regions=self.regions
        ) as writer:
            update = Update(writer, self.items, self.checksum, self.strict, self.prune)
            if writer.about["next_row"] == 0:
                note(writer, _defaults_of(self.model, self.regions))
            note(writer, {"source": self.source, "settings": self.settings})
            yield writer, update

    def finished(self, writer: places.IndexWriter, update: Update, began: float, network_seconds: float) -> Extraction:
        """Ends the run: what has to leave the index leaves.

        Args:
            writer, update: of `opened`.
            began: when the run began, by `time.monotonic`.
            network_seconds: how long the network worked.

        Raises:
            ImageError: when no photo can be read; there is no index then.
            ValueError: see `Update.finish`.
        """
        update.finish()
        failures = writer.failures()
        if writer.abandon():
            listed = "".join(f"\n  {reason}" for _, reason in failures[:20])
            raise ImageError(f"None of the {len(failures)} photos can be read, so there is no index:{listed}")
        kept = writer.count() - update.described
        done = update.described, update.changed, kept, update.removed, failures
        lists = sorted(update.unread), sorted(update.undecodable)
        return Extraction(self.out, *done, time.monotonic() - began, network_seconds, *lists, update.excluded)


def check_arguments(batch_size: int | str, workers: int | str) -> None:
    """Raises a ValueError for what cannot be `batch_size` or `workers` of `rw_keras.extract`."""
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f'{name} is "auto" or a whole number of at least 1, but got {value!r}.')


def listed_photos(photos: Any, may_be_none: bool) -> Any:
    """What `photo_items` gives; an empty list for a source that is missing or empty, and not for one that cannot be read now, where
    that is allowed."""
    try:
        return photo_items(photos)
    except (FileNotFoundError, EmptySourceError):
        if not may_be_none:
            raise
        return []


def note(writer: places.IndexWriter, fields: Mapping[str, Any]) -> None:
    """Sets fields of an index, those that are not `None`."""
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
    return made_elsewhere(about, described_with(model), versions_of(model))


def made_elsewhere(about: Mapping[str, Any], now: Mapping[str, str], versions: Mapping[str, str]) -> dict[str, Any]:
    """`made_by` for a model of another process, of which `described_with` and `versions_of` are known."""
    earlier = about.get("described_with") or []
    return {"versions": dict(versions), "described_with": [*(own for own in earlier if own != now), dict(now)]}


def versions_of(model: keras.Model | runtimes.Describer) -> dict[str, str]:
    """The versions of the packages that a model's descriptors depend on: package -> version."""
    packages = ("rw_keras", "keras", "tensorflow", "torch", "jax", "openvino", "ncnn", "numpy", "pillow")
    wanted = {"rw_keras", described_with(model)["runtime"], "numpy", "pillow"}
    if not isinstance(model, runtimes.Describer) or model.model is not None:
        wanted.add("keras")
    return {package: _version(package) for package in packages if package in wanted}


@functools.cache
def _version(package):
    return importlib.metadata.version(package)
