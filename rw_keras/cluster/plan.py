"""What a run on a cluster is to describe, on the disk: so what is finished does not depend on who is still running."""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from rw_keras.cluster import fragments
from rw_keras.cluster.describing import Settings
from rw_keras.cluster.fragments import Fragment, from_bytes, is_text, pyarrow, to_bytes
from rw_keras.cluster.places import Place
from rw_keras.description.reader import failed_earlier
from rw_keras.photos.items import Item
from rw_keras.photos.remote import Remote
from rw_keras.retrieval.store import Known

_FORMAT = 1
# The folder of a plan, and in it what it says of itself and the model.
_FOLDER, _ABOUT, _MODEL = "plan", "plan.json", "model.keras"
# Files that one request removes.
_AT_ONCE = 1000


@dataclasses.dataclass(frozen=True)
class Plan:
    """Photos to be described, cut into fragments; it travels to other machines as it is.

    In its place lie `plan/plan.json`, which is written last; `plan/model.keras`; `plan/00000000.parquet` and so on, the photos of
    each fragment; and each finished fragment as `KEY-00000000.parquet`.

    Attributes:
        place: where it lies.
        key: part of the names of its fragments, so that they are never taken for those of another plan.
        counts: how many photos each fragment has.
        settings: how photos are described.
        index: the identity of the index that they are for.
        is_gathered: whether all of it is part of the index.
    """

    place: Place
    key: str
    counts: list[int]
    settings: Settings
    index: str
    is_gathered: bool = False

    @property
    def count(self) -> int:
        """How many fragments it has."""
        return len(self.counts)

    @property
    def photos(self) -> int:
        """How many photos it has."""
        return sum(self.counts)

    @property
    def about_name(self) -> str:
        """The file, in its place, of what it says of itself."""
        return f"{_FOLDER}/{_ABOUT}"

    @classmethod
    def found(cls, place: Place) -> Plan | None:
        """The plan that lies in a place, whole; `None` where there is none.

        Raises:
            ValueError: when it is of a later version, or damaged.
        """
        name = f"{_FOLDER}/{_ABOUT}"
        try:
            content = place.read(name)
        except FileNotFoundError:
            return None
        try:
            about = json.loads(content)
            if about.pop("format") != _FORMAT:
                raise ValueError("it is of another version of rw_keras")
            return cls(place, **{**about, "settings": Settings(**about["settings"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            words = f"{place.shown}/{name} cannot be read: {error}; remove the folder to describe all photos again."
            raise ValueError(words) from error

    @classmethod
    def make(
        cls, place: Place, todo: Iterable[tuple[Item, Known | None]], settings: Settings, model: bytes, index: str
    ) -> Plan | None:
        """Writes a plan; `None` where nothing is to be described.

        Args:
            place: where to.
            todo: the photos, each with what the index knows of it; not held in memory.
            settings: how they are described; whether names are kept as bytes is found out here.
            model: the content of the model's file.
            index: see the attribute.
        """
        _remove_listed(place)
        counts: list[int] = []
        for part in _parts(todo):
            if not all(is_text(item.name, json.dumps(_in_json(item.place), ensure_ascii=False)) for item, _ in part):
                settings = dataclasses.replace(settings, binary=True)
            place.write(_listed(len(counts)), to_bytes(_table(part)))
            counts.append(len(part))
        if not counts:
            place.remove_folder(_FOLDER)
            return None
        place.write(f"{_FOLDER}/{_MODEL}", model)
        plan = cls(place, uuid.uuid4().hex[:8], counts, settings, index)
        plan.save()
        return plan

    def save(self) -> None:
        """Writes what the plan says of itself."""
        about = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "place"}
        about = {"format": _FORMAT, **about, "settings": dataclasses.asdict(self.settings)}
        self.place.write(self.about_name, json.dumps(about).encode())

    def model(self) -> bytes:
        """The content of the model's file."""
        return self.place.read(f"{_FOLDER}/{_MODEL}")

    def todo(self, number: int) -> list[tuple[Item, Known | None]]:
        """The photos of a fragment."""
        name = _listed(number)
        table = from_bytes(self.place.read(name), f"{self.place.shown}/{name}")
        columns = (table[field].to_pylist() for field in ("name", "item", "known"))
        return [(_item_of(name, item), None if known is None else Known(*json.loads(known))) for name, item, known in zip(*columns)]

    def unfinished(self, numbers: Iterable[int] | None = None) -> list[int]:
        """The numbers of the fragments that are not there yet, of all or of some."""
        there = self.place.names()
        return [number for number in (range(self.count) if numbers is None else numbers) if self._name(number) not in there]

    def write(self, number: int, table: Any) -> None:
        """Writes a fragment that is finished."""
        self.place.write(self._name(number), to_bytes(table))

    def fragment(self, number: int) -> Fragment:
        """A fragment that is finished."""
        return fragments.fragment_of(self.table(number))

    def table(self, number: int) -> Any:
        """The table of a fragment that is finished."""
        name = self._name(number)
        return from_bytes(self.place.read(name), f"{self.place.shown}/{name}")

    def remove(self, keep_fragments: bool) -> None:
        """Removes what lies in its place of it, once it is gathered; with `keep_fragments` only the plan."""
        dataclasses.replace(self, is_gathered=True).save()
        if not keep_fragments:
            for start in range(0, self.count, _AT_ONCE):
                self.place.remove(map(self._name, range(start, min(start + _AT_ONCE, self.count))))
        _remove_listed(self.place)
        self.place.remove_folder()

    def _name(self, number):
        return f"{self.key}-{number:08d}.parquet"


def _remove_listed(place):
    """Removes the files of a plan; what it says of itself last, unless it was never whole."""
    names = sorted(place.names(_FOLDER) - {_ABOUT})
    for start in range(0, len(names), _AT_ONCE):
        place.remove(f"{_FOLDER}/{name}" for name in names[start : start + _AT_ONCE])
    place.remove([f"{_FOLDER}/{_ABOUT}"])
    place.remove_folder(_FOLDER)


def _listed(number):
    return f"{_FOLDER}/{number:08d}.parquet"


def _parts(todo: Iterable[tuple[Item, Known | None]]) -> Iterator[list[tuple[Item, Known | None]]]:
    """Photos, so many at a time. Those that an earlier run could not read share no part with others, as they share no window."""
    part: list[tuple[Item, Known | None]] = []
    for one in todo:
        if len(part) == fragments.PHOTOS or (part and failed_earlier(part[-1][1]) != failed_earlier(one[1])):
            yield part
            part = []
        part.append(one)
    if part:
        yield part


def _table(part):
    arrow, _ = pyarrow()
    return arrow.table(
        {
            "name": arrow.array([os.fsencode(item.name) for item, _ in part], arrow.binary()),
            "item": [json.dumps([_in_json(item.place), item.stamp, item.fault]) for item, _ in part],
            "known": arrow.array([None if known is None else json.dumps(known) for _, known in part], arrow.string()),
        }
    )


def _in_json(place):
    """A photo's place in JSON: a path, a part of a file, or in remote storage."""
    if isinstance(place, Remote):
        return dataclasses.asdict(place)
    if isinstance(place, tuple):
        archive, offset, size = place
        return [os.path.abspath(archive), offset, size]
    return os.path.abspath(place)


def _item_of(name, kept):
    place, stamp, fault = json.loads(kept)
    place = Remote(**place) if isinstance(place, dict) else tuple(place) if isinstance(place, list) else place
    return Item(os.fsdecode(name), place, stamp, fault)
