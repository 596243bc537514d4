"""The photos of a fragment -> a table: the one function that every machine runs, whoever calls it: Ray, Spark, or a loop."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Any

from rw_keras.cluster.fragments import table_of
from rw_keras.description.batcher import Batcher, windows
from rw_keras.description.describe import on_runtime
from rw_keras.description.job import versions_of
from rw_keras.description.reader import read_ahead, read_item
from rw_keras.description.runner import Runner
from rw_keras.model.recipe import Recipe, smallest_side
from rw_keras.photos.items import Item
from rw_keras.photos.reading import MissingReaderError
from rw_keras.retrieval.store import Known
from rw_keras.runtimes.describer import described_with
from rw_keras.storage import MissingError


@dataclasses.dataclass(frozen=True)
class Settings:
    """How photos are described: plain values.

    Attributes:
        recipe: of the model, with `max_side`.
        runtime, precision: what computes the network; see `rw_keras.runtimes.load`.
        described_with: what that has to be on every machine, so that all compute the same values; `None`: as it comes.
        regions: how region vectors are kept, {"dtype": "int8" or "float16", "dimensions": how many}; `None`: not at all.
        batch_size, checksum: see `rw_keras.extract`.
        binary: whether names are kept as bytes, because one is no text.
    """

    recipe: dict[str, Any]
    runtime: str = "keras"
    precision: str = "exact"
    described_with: dict[str, str] | None = None
    regions: dict[str, Any] | None = None
    batch_size: int | str = "auto"
    checksum: bool = False
    binary: bool = False


class Describing:
    """A model on a runtime, with all that turns photos into a table.

    Args:
        model: the path of its `.keras` file.
        settings: how photos are described.
        workers: threads that read and decode; "auto": one a processor, at most 16.

    Attributes:
        described_with, versions: of what computes here.

    Raises:
        ValueError: when the file's model is of another recipe, or the runtime computes in another way than `settings` say.
        ValueError, ImportError, OSError: see `rw_keras.runtimes.load`.

    Example:

    >>> describing = Describing("model.keras", Settings({**model.recipe, "max_side": 1024}))
    >>> table = describing([(item, None) for item in rw_keras.photos.sources.photo_items("photos/")])
    """

    def __init__(self, model: str | os.PathLike[str], settings: Settings, workers: int | str = "auto") -> None:
        from rw_keras.model.build import load_model

        self.settings, self._workers = settings, workers
        loaded = load_model(model)
        max_side = settings.recipe["max_side"]
        differing = Recipe.from_dict(settings.recipe).differences({**Recipe.of(loaded), "max_side": max_side}, "the file's")
        if differing:
            raise ValueError(f"{model} holds another model than the one asked for: {'; '.join(differing)}.")
        self._model = on_runtime(loaded, settings.runtime, settings.precision, max_side)
        self._kept = loaded  # what computes may hold it weakly
        self.described_with, self.versions = described_with(self._model), versions_of(self._model)
        if settings.described_with not in (None, self.described_with):
            raise ValueError(
                f"This machine computes by {_in_words(self.described_with)}, and the others by "
                f"{_in_words(settings.described_with)}; name a runtime that all of them have, or set KERAS_BACKEND alike."
            )
        self._runner = Runner(self._model, settings.batch_size, None, settings.regions is not None)

    def __call__(self, todo: Sequence[tuple[Item, Known | None]] | Iterable[tuple[Item, Known | None]]) -> Any:
        """Describes photos.

        Args:
            todo: the photos, each with what an index knows of it; `None`: nothing.

        Returns:
            A `pyarrow.Table`, see `rw_keras.cluster.fragments.table_of`.
        """
        settings, began = self.settings, self._runner.seconds
        max_side, min_side = settings.recipe["max_side"], smallest_side(self._model)
        readings = read_ahead(
            todo, lambda photo: read_item(*photo, max_side, min_side, settings.checksum), lambda one: one.pixels, self._workers
        )
        found = list(windows(readings, Batcher(self._runner), lambda reading: None))
        about = {
            "recipe": settings.recipe,
            "described_with": self.described_with,
            "versions": self.versions,
            "network_seconds": self._runner.seconds - began,
            "doubtful": sum(_is_doubtful(reading) for window in found for reading in window.readings),
        }
        return table_of(found, settings.regions, self._runner.dimensions, settings.binary, about)


def _is_doubtful(reading):
    """Whether a fault is likely to pass; a photo that storage does not have, or that nothing here reads, seldom comes back."""
    return reading.passing and not isinstance(reading.error, (MissingError, MissingReaderError))


def _in_words(described_with):
    return " ".join(described_with.values())
