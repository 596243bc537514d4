"""What storage holds below a prefix, a page after the other, and what it says of each file."""

from __future__ import annotations

import datetime
import email.utils
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from rw_keras import storage
from rw_keras.photos.items import stamp

_SECOND = 1_000_000_000
# Names a request: as many as S3 gives at most.
_PAGE = 1000
# What file systems of fsspec call the time of the last change, and what is another one when the content is.
_TIMES = ("LastModified", "mtime", "last_modified", "updated", "Last-Modified")
_TAGS = ("ETag", "etag", "md5Hash", "blob_id", "sha256", "checksum")


def below(files: Any, path: str, url: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, what is known of it) of all files below a folder, in the order of the storage.

    Args:
        files, path: see `rw_keras.storage.filesystem`; the path does not end in "/".
        url: of the folder; for messages.

    Raises:
        MissingError: when there is no such folder.
        StorageError: when a page cannot be had. What came before it is then no listing.
    """
    protocol = {files.protocol} if isinstance(files.protocol, str) else {*files.protocol}
    if protocol & {"s3", "gs"} and not path:
        raise ValueError(f"{url} names no bucket; give one, such as {url.rstrip('/')}//photos.".replace("///", "//"))
    pages = _of_s3 if "s3" in protocol else _of_gcs if "gs" in protocol else _of_folders
    yield from pages(files, path, url)


def _page(action, url, is_first):
    """A page of a listing. One behind the first that is missing is no sign that there is nothing."""
    try:
        return storage.patiently(action, url)
    except storage.MissingError as error:
        if is_first:
            raise
        raise storage.StorageError(f"{storage.shown(url)} was listed in part, because a part of it has gone; run again.") from error


def _of_s3(files, path, url):
    bucket, prefix, _ = files.split_path(path)
    more = {}
    while True:
        page = _page(
            lambda more=more: files.call_s3(
                "list_objects_v2", Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", MaxKeys=_PAGE, **more, **files.req_kw
            ),
            url,
            is_first=not more,
        )
        for about in page.get("Contents", ()):
            yield f"{bucket}/{about['Key']}", {**about, "size": about["Size"]}
        if not page.get("IsTruncated"):
            return
        if not page.get("NextContinuationToken"):
            raise storage.StorageError(f"{storage.shown(url)} was listed in part, without a word on how to go on; run again.")
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _of_gcs(files, path, url):
    bucket, _, prefix = path.partition("/")
    more = {}
    while True:
        page = _page(
            lambda more=more: files.call(
                "GET", "b/{}/o", bucket, prefix=f"{prefix}/" if prefix else "", maxResults=_PAGE, json_out=True, **more
            ),
            url,
            is_first=not more,
        )
        for about in page.get("items", ()):
            yield f"{bucket}/{about['name']}", {**about, "size": int(about["size"])}
        if not page.get("nextPageToken"):
            return
        more = {"pageToken": page["nextPageToken"]}


def _of_folders(files, path, url):
    """Of storage that is not listed in pages here: a folder at a time."""
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        for about in _page(lambda folder=folder: files.ls(folder, detail=True, refresh=True), url, is_first=folder == path):
            if about["type"] == "directory":
                if about["name"].rstrip("/") != folder.rstrip("/"):
                    waiting.append(about["name"])
            else:
                yield about["name"], about


def stamp_of(name: str, about: Mapping[str, Any]) -> list[int] | None:
    """The stamp of a photo, of what storage says of it; `None` where that is not enough to see a change by.

    Object stores keep whole seconds. Where they tell an ETag as well, a hash of it stands for the part of a second, so that a photo
    is seen that was replaced within the second by one of the same size. Where there is a tag alone, which is another one for other
    bytes, a hash of it stands for the time.

    Args:
        name: of the photo, with its ending.
        about: what fsspec's `info` gives, or what a page of a bucket says.
    """
    size, time, tag = state_of(about)
    if size is None or (time is None and tag is None):
        return None
    hashed = 0 if tag is None else int.from_bytes(hashlib.sha256(tag.strip('"').encode()).digest()[:8], "big")
    if time is None:
        return stamp(name, int(size), hashed >> 1)  # SQLite keeps 63 bits
    return stamp(name, int(size), time + hashed % _SECOND if time % _SECOND == 0 else time)


def state_of(about: Mapping[str, Any]) -> tuple[Any, int | None, str | None]:
    """Size, time in nanoseconds and tag of a file, by which it is seen that it has changed; each `None` where it is not told."""
    time = next((nanoseconds for field in _TIMES if (nanoseconds := _nanoseconds(about.get(field))) is not None), None)
    tag = next((str(about[field]) for field in _TAGS if about.get(field)), None)
    # A web server's ETag may be another one on each of its machines.
    return about.get("size"), time, tag if time is None or "LastModified" in about else None


def _nanoseconds(time):
    if isinstance(time, str):
        try:
            time = datetime.datetime.fromisoformat(time)
        except ValueError:
            try:
                time = email.utils.parsedate_to_datetime(time)
            except ValueError:
                return None
    if isinstance(time, datetime.datetime):
        if time.tzinfo is None:
            time = time.replace(tzinfo=datetime.UTC)
        since = time - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        return (since.days * 86400 + since.seconds) * _SECOND + since.microseconds * 1000
    return int(time * _SECOND) if isinstance(time, (int, float)) and not isinstance(time, bool) else None
