"""Ten million photos that have not been read, in a file rather than in memory."""

from __future__ import annotations

import contextlib
import errno
import itertools
import pickle
import sqlite3
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from rw_keras.photos.items import Item, Place
from rw_keras.photos.reading import ImageError

# Items that are written, or read, by one statement.
_TOGETHER = 4096
# Names that are looked up by one statement.
_LOOKED_UP = 500
# Places that are remembered while items are written, because items that follow one another tend to share one.
_SHARED = 1024
# KB of pages that SQLite keeps in memory.
_CACHE = 32768
_SWAP = str.maketrans("/\0", "\0/")
# The ids are positions, counted from 1 on.
_TABLE = "CREATE TABLE items(id INTEGER PRIMARY KEY, name BLOB, place, size INTEGER, time INTEGER, fault BLOB)"
_COLUMNS = "name, place, size, time, fault"


class Listing(Sequence):
    """An ordered, immutable sequence of items, spooled to a temporary file that goes with it.

    A photo takes some hundred bytes on the disk, in the folder that `TMPDIR` names, and none in memory. Names are unique.
    `name in listing` looks a name up; slices are lists of items. It may be read by several threads, and is not pickled: its items
    are.

    Attributes:
        folder: the URL of the folder whose photos these are, to which their names are relative; `None` for others.
    """

    folder: str | None = None

    def __init__(self) -> None:
        # SQLite makes a database without a name in a temporary file, which the system removes with the process.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._database.close)
        self._lock = threading.Lock()
        self._count = 0
        self._places: list[Place] = []
        for statement in (f"PRAGMA cache_size = -{_CACHE}", "PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF"):
            self._database.execute(statement)
        self._database.execute(_TABLE)

    @classmethod
    def spooled(cls, items: Iterable[Item], source: str = "the list", *, in_order: bool = False) -> Listing:
        """A listing of items, which are taken one after the other.

        Args:
            items: in their order.
            source: what errors call it.
            in_order: whether they are put into the order of a folder's photos, which is that of their names' parts.

        Raises:
            ImageError: when a name is given twice.
            OSError: when the temporary file cannot be written, and whatever `items` raises.
        """
        listing = cls()
        with _said():
            is_sorted = listing._fill(iter(items))
            if in_order and not is_sorted:
                listing._sort()
            listing._index(source)
        return listing

    def _fill(self, items):
        """Writes the items; whether the order of their keys is theirs."""
        known: dict[Place, int] = {}
        is_sorted, last = True, b""
        self._database.execute("BEGIN")
        while part := list(itertools.islice(items, _TOGETHER)):
            rows = [self._row(number, item, known) for number, item in enumerate(part, self._count + 1)]
            self._database.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)", rows)
            keys = [last, *(row[1] for row in rows)]
            is_sorted, last = is_sorted and keys == sorted(keys), keys[-1]
            self._count += len(part)
        self._database.execute("COMMIT")
        return is_sorted

    def _row(self, number, item, known):
        size, time = item.stamp or (None, None)
        fault = None if item.fault is None else item.fault.encode("utf8", "surrogatepass")
        return number, _key(item.name), self._kept(item.place, known), size, time, fault

    def _kept(self, place, known):
        """A place as it is written: the number of one that items share, or the bytes of one of its own."""
        if not isinstance(place, Place):
            return pickle.dumps(place, pickle.HIGHEST_PROTOCOL)
        number = known.get(place)
        if number is None:
            if len(known) >= _SHARED:
                return pickle.dumps(place, pickle.HIGHEST_PROTOCOL)
            number = known[place] = len(self._places)
            self._places.append(place)
        return number

    def _sort(self):
        self._database.execute("ALTER TABLE items RENAME TO found")
        self._database.execute(_TABLE)
        self._database.execute(f"INSERT INTO items({_COLUMNS}) SELECT {_COLUMNS} FROM found ORDER BY name")
        self._database.execute("DROP TABLE found")

    def _index(self, source):
        try:
            self._database.execute("CREATE UNIQUE INDEX names ON items(name)")
        except sqlite3.IntegrityError:
            query = "SELECT name FROM items GROUP BY name HAVING count(*) > 1 ORDER BY min(id) LIMIT 1"
            (key,) = self._database.execute(query).fetchone()
            raise ImageError(f"{source} names {_name(key)!r} twice; name each photo once.") from None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, slice):
            number = range(self._count)[key]
            return self._items(number, number + 1)[0]
        numbers = range(self._count)[key]
        if numbers.step == 1:
            return self._items(numbers.start, numbers.stop)
        return [self[number] for number in numbers]

    def __iter__(self) -> Iterator[Item]:
        for start in range(0, self._count, _TOGETHER):
            yield from self._items(start, start + _TOGETHER)

    def _items(self, start, stop):
        return self._selected("WHERE id > ? AND id <= ? ORDER BY id", (start, stop))

    def _selected(self, condition, values):
        rows = self._run(f"SELECT {_COLUMNS} FROM items {condition}", values)
        return [
            Item(
                _name(name),
                self._places[place] if isinstance(place, int) else pickle.loads(place),  # written by this object, and nobody else
                None if size is None else [size, time],
                None if fault is None else fault.decode("utf8", "surrogatepass"),
            )
            for name, place, size, time, fault in rows
        ]

    def __contains__(self, name: object) -> bool:
        if isinstance(name, Item):
            name = name.name
        if not isinstance(name, str):
            return False
        key = (_key(name),)
        with self._lock:  # an index of ten million photos looks each of them up
            return self._database.execute("SELECT 1 FROM items WHERE name = ?", key).fetchone() is not None

    def find(self, names: Sequence[str]) -> dict[str, Item]:
        """Those of names that are in it -> their items."""
        found = {}
        for start in range(0, len(names), _LOOKED_UP):
            keys = [_key(name) for name in names[start : start + _LOOKED_UP]]
            marks = ", ".join("?" * len(keys))
            found |= {item.name: item for item in self._selected(f"WHERE name IN ({marks})", keys)}
        return found

    @property
    def names(self) -> Collection[str]:
        """The names, in order; they are looked up, and not held."""
        return _Names(self)

    def size_on_disk(self) -> int:
        """The bytes of the temporary file."""
        pages, page_size = (self._run(f"PRAGMA {field}", ())[0][0] for field in ("page_count", "page_size"))
        return pages * page_size

    def each_name(self) -> Iterator[str]:
        """The names, in order."""
        for start in range(0, self._count, _TOGETHER):
            for (key,) in self._run("SELECT name FROM items WHERE id > ? AND id <= ? ORDER BY id", (start, start + _TOGETHER)):
                yield _name(key)

    def _run(self, query, values):
        with self._lock, _said():
            return self._database.execute(query, values).fetchall()

    def __reduce__(self) -> Any:
        raise TypeError("A Listing is not pickled, because it is a file of this process; send its items.")

    def __repr__(self) -> str:
        return f"<{self._count} photos>"


class _Names(Collection):
    def __init__(self, listing):
        self._listing = listing

    def __len__(self):
        return len(self._listing)

    def __contains__(self, name):
        return isinstance(name, str) and name in self._listing

    def __iter__(self):
        return self._listing.each_name()


def names_of(items: Iterable[Item]) -> Collection[str] | None:
    """The names of items, to look names up in: those of a `Listing` stay where they are, those of a list are a set, and `None` is
    for an iterator, whose items are not known yet."""
    if isinstance(items, Listing):
        return items.names
    return {item.name for item in items} if isinstance(items, Sequence) else None


def _key(name):
    """A name as it is kept: its bytes have the order of its parts."""
    swapped = name.translate(_SWAP) if "\0" in name else name.replace("/", "\0")  # which takes a third of the time
    return swapped.encode("utf8", "surrogatepass")


def _name(key):
    name = key.decode("utf8", "surrogatepass")
    return name.translate(_SWAP) if "/" in name else name.replace("\0", "/")


@contextlib.contextmanager
def _said():
    """SQLite's errors as the system's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = errno.ENOSPC if "full" in str(error) else errno.EIO
        raise OSError(
            code,
            f"The list of photos cannot be kept in a temporary file: {error}; let TMPDIR name a folder with room for some hundred "
            "bytes a photo",
        ) from error
