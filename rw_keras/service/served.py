"""The indices that are served: each as it stands on the disk, loaded again when it has changed there."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import pathlib
import threading
import time
from typing import Any

import numpy as np

from rw_keras.retrieval import Index, places, store
from rw_keras.retrieval.milvus import MilvusError, is_milvus
from rw_keras.retrieval.photo_searching import PhotoSearchable
from rw_keras.runtimes import Describer
from rw_keras.service.photo_files import PhotoFiles
from rw_keras.storage import is_url

log = logging.getLogger(__name__)

# Seconds that one look at an index on the disk counts for.
_LOOK = 1.0
# Values of a column that say what it holds.
_VALUES = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """A committed state of an index, which a request keeps to from its first step to its last.

    Attributes:
        index: the index, opened.
        about: its fields as a whole; see `rw_keras.retrieval.store.Snapshot`.
        columns: column of the metadata -> "integer", "number" or "text".
        photos: how many are described.
    """

    index: PhotoSearchable
    about: dict[str, Any]
    columns: dict[str, str]
    photos: int

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
        folder: where it lies: a folder, or its address in Milvus.
        describer: the model that made it, on a runtime.
        photos: where its photos lie; `None`: their location at index time.
        cache: a folder for thumbnails.

    Attributes:
        name, folder, describer: the same.
        photos: the files of its photos.
        state: as it was loaded last.
        stale: why the state on the disk could not be loaded; `None` where it is the one that is served.
        is_away: whether that is because Milvus, where the index is, cannot be asked now.

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
        self.name, self.folder, self.describer = name, folder if is_milvus(folder) else pathlib.Path(folder), describer
        self.stale: str | None = None
        self.is_away = False
        self._loading, self._looked = threading.Lock(), time.monotonic()
        self.state = self._load()
        source = photos or self.state.about.get("source")
        # The service asks no address for photos: those in object storage count as not at hand.
        self.source = None if source is None or is_url(source) else pathlib.Path(source)
        self.photos = PhotoFiles(self.source, pathlib.Path(cache))

    @property
    def index(self) -> PhotoSearchable:
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
                about = self._about()
                if about is not None and _mark(about) == self.state.mark:
                    self.stale, self.is_away = None, False
                    return False
                self.state, self.stale, self.is_away = self._load(), None, False
                return True
            except Exception as error:  # whatever is wrong with what lies there, the state before is sound
                self.is_away = isinstance(error, MilvusError)
                if str(error) != self.stale:
                    log.warning("%s cannot be loaded as it is now, and is served as it was: %s", self.name, error)
                self.stale = str(error)
                return False

    def _about(self):
        """The fields of the index as they are now; one in Milvus is asked through the connection that there is."""
        return self.state.index.fields() if is_milvus(self.folder) else store.about(self.folder)

    def _load(self):
        about = places.about(self.folder)  # before the rest: of a state that comes in between, the next look sees that it is new
        index = Index.open(self.folder)
        index.check_model(self.describer)
        photos = len(index)
        if photos:  # compares the rows with their checksums, and builds a searcher, before a request waits for it
            index.nearest(np.zeros(index.dimensions, "float32"), 1)
        # Of an index in Milvus no more are asked for than tell what they are.
        most = _VALUES if is_milvus(self.folder) else None
        columns = {column: _kind(itertools.islice(values, most)) for column, values in index.metadata.items()}
        return State(index, about or {}, columns, photos)


def _mark(about):
    return about.get("identity"), about.get("generation")


def _kind(values):
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int}:
        return "integer"
    return "number" if kinds <= {int, float} else "text"
