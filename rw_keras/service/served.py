"""The indices that are served: each as it stands on the disk, taken up anew when it has changed there."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import threading
import time
from typing import Any

import numpy as np

from rw_keras.retrieval import Index, store
from rw_keras.runtimes import Describer
from rw_keras.service.photo_files import PhotoFiles
from rw_keras.storage import is_url

log = logging.getLogger(__name__)

# Seconds that one look at an index on the disk counts for.
_LOOK = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """A committed state of an index, which a request keeps to from its first step to its last.

    Attributes:
        index: the index, opened.
        about: its fields as a whole; see `rw_keras.retrieval.store.Snapshot`.
        columns: column of the metadata -> "integer", "number" or "text".
    """

    index: Index
    about: dict[str, Any]
    columns: dict[str, str]

    @property
    def mark(self) -> tuple[Any, Any]:
        """What tells this state from all others."""
        return _mark(self.about)


class ServedIndex:
    """An index that is served.

    A request that is under way keeps the state that it began with. A state that cannot be loaded, because it is damaged or half
    copied, changes nothing: the one before is served on, and `stale` says why.

    Args:
        name: what clients call it.
        folder: where it lies.
        describer: the model that made it, on a runtime.
        photos: where its photos lie; `None`: where they lay when it was made.
        cache: a folder for thumbnails.

    Attributes:
        name, folder, describer: the same.
        photos: the files of its photos.
        state: as it was loaded last.
        stale: why the state on the disk could not be loaded; `None` where it is the one that is served.

    Raises:
        FileNotFoundError: when there is no index.
        ValueError: when it is damaged, or was made by another model.
    """

    def __init__(
        self,
        name: str,
        folder: str | os.PathLike[str],
        describer: Describer,
        *,
        photos: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str],
    ) -> None:
        self.name, self.folder, self.describer = name, pathlib.Path(folder), describer
        self.stale: str | None = None
        self._loading, self._looked = threading.Lock(), time.monotonic()
        self.state = self._load()
        source = photos or self.state.about.get("source")
        # The service asks no address for photos: those in object storage count as not at hand.
        self.source = None if source is None or is_url(source) else pathlib.Path(source)
        self.photos = PhotoFiles(self.source, pathlib.Path(cache))

    @property
    def index(self) -> Index:
        """The index as it is now."""
        return self.state.index

    @property
    def has_photos(self) -> bool:
        """Whether the folder of the photos is there."""
        return self.source is not None and self.source.is_dir()

    def refresh(self, at_once: bool = False) -> bool:
        """Takes up what has changed on the disk; whether it did. Takes as long as it takes to open the index.

        Args:
            at_once: whether to look even where that was done less than a second ago.
        """
        if not at_once and time.monotonic() - self._looked < _LOOK:
            return False
        with self._loading:
            self._looked = time.monotonic()
            try:
                about = store.about(self.folder)
                if about is not None and _mark(about) == self.state.mark:
                    self.stale = None
                    return False
                self.state, self.stale = self._load(), None
                return True
            except Exception as error:  # whatever is wrong with what lies there, the state before is sound
                if str(error) != self.stale:
                    log.warning("%s cannot be loaded as it is now, and is served as it was: %s", self.name, error)
                self.stale = str(error)
                return False

    def _load(self):
        about = store.about(self.folder)  # before the rest: of a state that comes in between, the next look sees that it is new
        index = Index.load(self.folder)
        index.check_model(self.describer)
        if len(index):  # compares the rows with their checksums, and builds a searcher, before a request waits for it
            index.nearest(np.zeros(index.descriptors.shape[1], "float32"), 1)
        return State(index, about or {}, {column: _kind(values) for column, values in index.metadata.items()})


def _mark(about):
    return about.get("identity"), about.get("generation")


def _kind(values):
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int}:
        return "integer"
    return "number" if kinds <= {int, float} else "text"
