"""Photos in object storage and on web servers: listed in pages, read whole, and told by their stamps.

A photo is read whole, in one request, before it is decoded: all of its bytes are needed in any case, and a connection that breaks
is then seen as one, and not as a photo that is cut short.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import io
import itertools
import os
import posixpath
import tarfile
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from rw_keras import storage
from rw_keras.photos import archives, formats, pages
from rw_keras.photos.items import EmptySourceError, Item, Part, Place
from rw_keras.photos.listing import Listing
from rw_keras.photos.reading import ImageError

# Photos of up to so many bytes are read into memory, by one request: all but the largest raw files. Larger ones go through a
# temporary file, so that sixteen threads hold half a gigabyte at most.
_WHOLE = 32 << 20
# What is read at once of an archive that is listed: a header, and the small members behind it. Of a photo no more is read.
_HEADERS = 64 << 10
# Requests for stamps of single photos that are under way together, and photos whose stamps are asked for ahead of who takes them.
_AT_ONCE, _AHEAD = 32, 1024
# List files are looked at for a zero byte so far, which no line is as long as.
_LOOKED_AT = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Remote(Place):
    """A photo in storage.

    Attributes:
        url: of the photo, of the archive that it is in, or of the folder that it lies below, by its name.
        below: whether it is that of a folder.
        offset, size: where in an archive the photo stands; `None` for one that is a file.
    """

    url: str
    below: bool = False
    offset: int | None = None
    size: int | None = None

    def open(self, item: Item) -> BinaryIO:
        """The photo as a file, all of which is at hand.

        Raises:
            StorageError: (an OSError) when it cannot be read now, or is not as large as when it was listed.
        """
        files, path = storage.filesystem(self.url)
        url = shown = storage.shown(self.url)
        if self.below:
            path, url = storage.joined(path, item.name), storage.joined(url, item.name)
            shown = url
        if self.offset is not None:
            shown = f"{item.name} in {url}"
            return _named(io.BytesIO(self._member(files, path, item, shown)), shown)
        size = item.stamp[0] if item.stamp else None
        if size is not None and size > _WHOLE:
            return _large(files, path, size, url)
        # One byte more is asked for than there should be, so that a photo is seen which has grown. Without a limit some libraries
        # ask for the size first; of nothing no part can be asked for.
        limits = {} if not size or storage.is_web(url) else {"start": 0, "end": size + 1}
        content = storage.patiently(lambda: files.cat_file(path, **limits), url)
        _check_size(len(content), size, shown)
        return _named(io.BytesIO(content), shown)

    def _member(self, files, path, item, shown):
        """A member of an archive, and before it its header, which tells whether it is still there."""
        start = self.offset - tarfile.BLOCKSIZE
        content = storage.patiently(lambda: files.cat_file(path, start=start, end=self.offset + self.size), self.url)
        item.check_header(content[: tarfile.BLOCKSIZE], self.size, shown)
        _check_size(len(content), tarfile.BLOCKSIZE + self.size, shown)
        return content[tarfile.BLOCKSIZE :]


def _named(file, name):
    file.name = name  # for messages, and for what a format is told by
    return file


def _check_size(found, size, shown):
    if size is not None and found != size:
        raise storage.StorageError(f"{shown} has changed while it was read: it had {size} bytes, and {found} came; run again.")


@contextlib.contextmanager
def _unchanged(files, path, url):
    """Raises a StorageError where a file has changed while its parts were read within; gives what storage says of it."""

    def asked():
        return storage.patiently(lambda: files.info(path), url)

    before = asked()
    try:
        yield before
        after = asked()
    except storage.MissingError as error:  # it was there, so nobody may take it for missing
        raise _changed(url) from error
    if pages.state_of(after) != pages.state_of(before):
        raise _changed(url)


def _changed(url):
    return storage.StorageError(f"{storage.shown(url)} has changed while it was read; run again.")


def _large(files, path, size, shown):
    """A photo of many bytes, by way of a temporary file."""
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115
    with _unchanged(files, path, shown):
        for start in range(0, size, _WHOLE):
            stop = min(start + _WHOLE, size)
            content = storage.patiently(lambda start=start, stop=stop: files.cat_file(path, start=start, end=stop), shown)
            if len(content) != stop - start:  # a server without ranges has sent all of it
                _check_size(len(content), size, shown)
                file.seek(0)
                file.write(content)
                break
            file.write(content)
        _check_size(file.tell(), size, shown)
    file.seek(0)
    return _named(file, shown)


def opened(photo: Any) -> Any:
    """A photo that is given by a URL as a file, all of which is at hand; anything else as it is.

    Only what a user of this program has typed comes here: the service takes names and bytes, and asks no address for photos.

    Raises:
        StorageError, ImportError, ValueError: see `Remote.open` and `rw_keras.storage.filesystem`.
    """
    return Remote(photo).open(Item(photo, None)) if storage.is_url(photo) else photo


def photos_at(url: str) -> Listing | Iterator[Item]:
    """The photos of a source that is given by a URL.

    Args:
        url: what ends in `.tar` is an archive; what storage has as a folder, or as keys below a prefix, is listed; any other file
            is a list, whose lines are URLs, or paths relative to where it lies.

    Returns:
        A listing; of an archive whose server sends no parts of files, an iterator, which reads it from its beginning to its end.

    Raises:
        StorageError: when it cannot be listed, or a part of it cannot.
        ImageError: when there is no photo in it.
        ImportError, ValueError: see `rw_keras.storage.filesystem`.
    """
    files, path = storage.filesystem(url)
    shown = storage.shown(url)
    named = shown.lower()
    if named.endswith(archives.COMPRESSED):
        raise ImageError(archives.compressed(shown))
    if named.endswith(archives.ENDINGS):
        found = _in_archive(files, path, url)
        if not isinstance(found, Listing):
            return found
    elif not storage.is_web(url) and (url.endswith("/") or _is_folder(files, path, url)):
        found = Listing.spooled(_below(files, path, url), shown, in_order=True)
        found.folder = url if url == shown else None  # a password is not noted
    elif posixpath.splitext(named)[1] in formats.LISTED:
        raise ImageError(f"{shown} is one photo; pass a folder, a list file or a .tar archive.")
    else:
        found = Listing.spooled(with_stamps(_listed(files, path, url)), shown)
    if not found:
        raise EmptySourceError(
            f"There is no photo in {shown} ({', '.join(sorted(formats.EXTENSIONS))}); pass a source that holds some."
        )
    return found


def _is_folder(files, path, url):
    try:
        return storage.patiently(lambda: files.info(path), url)["type"] == "directory"
    except storage.MissingError:
        glob = " A URL is no pattern; give the folder." if any(mark in path for mark in "*?[") else ""
        raise storage.MissingError(
            f"There is no folder, list file or archive {storage.shown(url)}; pass one that holds the photos.{glob}"
        ) from None


def _below(files, path, url):
    place = Remote(url, below=True)
    start = len(path.rstrip("/")) + 1
    for key, about in pages.below(files, path.rstrip("/"), url):
        if os.path.splitext(key)[1].lower() in formats.LISTED:
            yield Item(key[start:], place, pages.stamp_of(key, about))


def _in_archive(files, path, url):
    is_web = storage.is_web(url)
    has_size = not is_web or storage.patiently(lambda: files.info(path), url).get("size") is not None
    if not has_size or (is_web and not _gives_parts(files, path, url)):
        return archives.streamed_items(io.BufferedReader(_Stream(files, path, url), 1 << 20), storage.shown(url))

    def place(member):
        return Remote(url, False, member.offset_data, member.size)

    with _unchanged(files, path, url) as about, io.BufferedReader(_Parts(files, path, url, about["size"]), _HEADERS) as file:
        return Listing.spooled(archives.items_in(file, about["size"], storage.shown(url), place), storage.shown(url))


def _gives_parts(files, path, url):
    """Whether a web server sends a part of a file where it is asked for one. It need not say so, and may send all of it."""

    def ask():
        try:
            with files.open(path, "rb", block_size=tarfile.BLOCKSIZE, cache_type="none") as file:
                if not file.seekable():
                    return False
                file.seek(tarfile.BLOCKSIZE)  # any server sends the beginning
                return len(file.read(1)) <= 1
        except ValueError:  # fsspec's, of a server that sends all of the file
            return False

    return storage.patiently(ask, url)


class _Parts(Part):
    """A file in storage, of which each read is a request."""

    def __init__(self, files, path, url, size):
        super().__init__(size)
        self._files, self._path, self._url = files, path, url

    def tell(self):
        return self._at

    def readinto(self, buffer):
        start, stop = self._at, min(self._at + len(buffer), self._size)
        if start >= stop:
            return 0
        content = storage.patiently(lambda: self._files.cat_file(self._path, start=start, end=stop), self._url)
        _check_size(len(content), stop - start, storage.shown(self._url))
        buffer[: len(content)] = content
        self._at = stop
        return len(content)


class _Stream(io.RawIOBase):
    """A file on a web server from end to end; a connection that breaks is made again, and what has come passed over.

    A file that has changed by then raises a StorageError.
    """

    def __init__(self, files, path, url):
        super().__init__()
        self._files, self._path, self._url = files, path, url
        self._file, self._at, self._state = None, 0, None

    def readable(self):
        return True

    def readinto(self, buffer):
        try:
            content = storage.patiently(lambda: self._read(len(buffer)), self._url)
        except storage.MissingError as error:
            raise (_changed(self._url) if self._state else error) from None
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def _read(self, count):
        try:
            if self._file is None:
                self._file = self._files.open(self._path, "rb", block_size=0)
                headers = self._file.r.headers  # of the very answer that is read
                told = {field: headers.get(field) for field in ("Last-Modified", "ETag")}
                state = pages.state_of({**told, "size": headers.get("Content-Length")})
                self._state = self._state or state
                if state != self._state:
                    raise _changed(self._url)
                left = self._at
                while left and (passed := self._file.read(min(left, 1 << 20))):
                    left -= len(passed)
                if left:
                    raise ConnectionError("the file ends before what has come of it")
            return self._file.read(count)
        except BaseException:
            self.leave()
            raise

    def leave(self):
        if self._file is not None:
            self._file.close()
        self._file = None

    def close(self):
        self.leave()
        super().close()


def _listed(files, path, url):
    """The photos that the lines of a list file name, which lies in storage itself."""
    with tempfile.TemporaryFile() as file:
        with contextlib.ExitStack() as stack:
            if storage.is_web(url):
                raw = _Stream(files, path, url)
            else:
                raw = _Parts(files, path, url, stack.enter_context(_unchanged(files, path, url))["size"])
            stack.enter_context(raw)
            while part := raw.read(1 << 20):
                file.write(part)
        file.seek(0)
        if file.read(64).lstrip().lower().startswith((b"<!doctype", b"<html")):
            raise ImageError(f"{storage.shown(url)} is a web page; give the URL of a list file or of a .tar archive.")
        for line in lines_of(file):
            yield Item(line, Remote(_resolved(url, line)))


def lines_of(file: BinaryIO) -> Iterator[str]:
    """The lines of a list file that are not empty: ended by line ends, or where there is a zero byte by those."""
    end = b"\0" if b"\0" in file.read(_LOOKED_AT) else b"\n"
    file.seek(0)
    rest = b""
    for part in itertools.chain(iter(lambda: file.read(1 << 20), b""), [end]):
        *whole, rest = (rest + part).split(end)
        for line in whole:
            name = os.fsdecode(line.removesuffix(b"\r") if end == b"\n" else line)
            if name.strip():
                yield name


def _resolved(url, line):
    """The URL of a line: itself, or relative to the list's."""
    if storage.is_url(line):
        return line
    if not storage.is_web(url):
        return f"{url.rpartition('/')[0]}/{line}"
    return f"{storage.without_query(url).rpartition('/')[0]}/{urllib.parse.quote(line.encode('utf8', 'surrogateescape'))}"


def with_stamps(items: Iterable[Item]) -> Iterator[Item]:
    """The items, those of single photos in storage with their stamps, which are asked for a few at a time.

    A photo whose stamp cannot be had goes without one: who reads it says what is wrong.

    Raises:
        ImportError, ValueError: see `rw_keras.storage.filesystem`.
    """
    away: set[str] = set()  # servers that could not be reached, each of whose photos is then asked for once
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as threads:
        items = iter(items)
        while part := list(itertools.islice(items, _AHEAD)):
            yield from threads.map(lambda item: _stamped(item, away), part)


def _stamped(item, away):
    if not isinstance(item.place, Remote) or item.stamp is not None or item.fault is not None:
        return item
    files, path = storage.filesystem(item.place.url)
    server = item.place.url.partition("://")[2].partition("/")[0]
    try:
        about = storage.patiently(lambda: files.info(path), item.place.url, 1 if server in away else None)
    except (storage.MissingError, storage.ForbiddenError):
        return item
    except storage.StorageError:
        away.add(server)
        return item
    away.discard(server)
    return dataclasses.replace(item, stamp=pages.stamp_of(storage.shown(item.place.url), about))
