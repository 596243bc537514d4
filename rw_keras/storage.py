"""Object storage and web servers by URLs, through fsspec: what reads a scheme, what may pass, and how often it is tried again.

Credentials are those that each library finds by itself: environment variables, profiles, and fsspec's own configuration
(`FSSPEC_S3_ENDPOINT_URL`, `~/.config/fsspec`). `docs/storage.md` has the schemes.
"""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

_Result = TypeVar("_Result")

# One letter before the colon is a drive.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::.*://)", re.DOTALL)
# Between the links of a chain of URLs, such as "zip://a.jpg::s3://bucket/photos.zip".
_LINK = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]+://)")
_WEB = ("http", "https")
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(_WEB, "aiohttp"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    "hf": "huggingface_hub",
}
# Those that the extra installs; the others have many packages of their own.
_IN_EXTRA = ("s3fs", "aiohttp")

# How often a request is made in all, and the seconds before the second one; before each further one they are doubled. With what
# the libraries repeat themselves, storage that is away for a quarter of a minute is waited for.
ATTEMPTS, FIRST_WAIT = 5, 0.5
# Seconds without an answer, or without a byte, after which a web server counts as away; aiohttp itself waits 300.
_CONNECT, _SILENCE = 10, 30
# What a server says that may pass, beside 500 to 599: it is slow, too early, or throttles.
_PASSING = (408, 425, 429)
# Of libraries that raise no OSError, the classes for connections that fail.
_CONNECTIONS = {
    ("aiohttp", "ClientError"),
    ("http", "IncompleteRead"),
    ("botocore", "HTTPClientError"),
    ("botocore", "ConnectionError"),
    ("botocore", "IncompleteReadError"),
    ("httpx", "TransportError"),
    ("httpx2", "TransportError"),
    ("requests", "ConnectionError"),
    ("requests", "Timeout"),
    ("requests", "ChunkedEncodingError"),
    ("urllib3", "HTTPError"),
}
_NEVER = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


class StorageError(OSError):
    """Something in storage cannot be read or written now. The message names it and says why."""


class MissingError(StorageError, FileNotFoundError):
    """There is no such thing in storage."""


class ForbiddenError(StorageError, PermissionError):
    """Storage lets nobody with these credentials at it."""


def is_url(place: object) -> bool:
    """Whether a place is given by a URL, such as `s3://bucket/photos/`, and not by a path."""
    return isinstance(place, str) and _URL.match(place) is not None


def is_web(url: object) -> bool:
    """Whether a web server has it, which gives single files and lists none."""
    return isinstance(url, str) and url.partition("://")[0].lower() in _WEB


def without_query(url: str) -> str:
    """A URL of the web without its query and fragment; any other as it is, since a key may hold "?" and "#"."""
    return re.split(r"[?#]", url, maxsplit=1)[0] if is_web(url) else url


def shown(url: str) -> str:
    """A URL for messages and indices: without a password, and for the web without its query, which may hold a signature."""
    return "::".join(map(_shown, _LINK.split(url)))


def _shown(url):
    scheme, mark, rest = without_query(url).partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def joined(folder: str, name: str) -> str:
    """The URL of a name below a folder."""
    return f"{folder.rstrip('/')}/{name}"


def inside(folder: str, name: str) -> str | None:
    """The same, or `None` for a name with a part "..", which leads out of the folder where storage has paths.

    A name in an index is whatever somebody wrote there.
    """
    return None if ".." in name.split("/") else joined(folder, name)


def filesystem(url: str) -> tuple[Any, str]:
    """What reads a URL: fsspec's file system, and the path as it takes it.

    Raises:
        ImportError: when a package is not installed; the message has the line.
        ValueError: for a scheme that fsspec does not know.
    """
    scheme = re.split(r"://|::", url, maxsplit=1)[0].lower()
    try:
        import fsspec
    except ImportError as error:
        raise ImportError(f'{shown(url)} needs fsspec; install it with: pip install "rw_keras[cloud]"') from error
    package = _PACKAGES.get(scheme)
    try:
        return fsspec.core.url_to_fs(url, **_options(scheme, fsspec))
    except ImportError as error:
        if package is None:
            raise ImportError(f"{shown(url)} needs a package for {scheme}://: {error}") from error
        line = '"rw_keras[cloud]"' if package in _IN_EXTRA else f'"rw_keras[cloud]" {package}'
        raise ImportError(f"{shown(url)} needs {package}; install it with: pip install {line}") from error
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise
        words = "which fsspec does not know; give one such as s3://, gs://, hf:// or https://"
        raise ValueError(f"{shown(url)} has the scheme {scheme}://, {words}.") from None


def _options(scheme, fsspec):
    """How a file system is made. What others have listed is not kept: it may have changed."""
    if scheme in _WEB and "client_kwargs" not in fsspec.config.conf.get(scheme, {}):
        import aiohttp

        return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE)}}
    return {"use_listings_cache": False} if scheme in _PACKAGES else {}


def patiently(action: Callable[[], _Result], url: str, attempts: int | None = None) -> _Result:
    """Does something with storage, and where that fails for a reason that may pass does it again, a few times and ever later.

    Args:
        action: what is done; it may be done again.
        url: of what; for messages.
        attempts: how often it is done in all. Default: `ATTEMPTS`.

    Raises:
        MissingError, ForbiddenError: at once, when there is no such thing, or it is not allowed.
        StorageError: when it does not pass, or is of another kind.
    """
    for attempt in itertools.count(1):
        try:
            return action()
        except (StorageError, MemoryError):
            raise
        except Exception as error:  # each library has errors of its own
            if attempt >= (attempts or ATTEMPTS) or not may_pass(error):
                raise _in_words(error, url, attempt) from error
        # All who were refused together would come back together.
        time.sleep(FIRST_WAIT * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
    raise AssertionError  # for those who check types


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later: after a timeout, a broken connection, throttling, or a fault of the server."""
    decisive, status = _decisive(error)
    if status is not None:
        return status in _PASSING or 500 <= status < 600
    return decisive is not None or (isinstance(error, OSError) and not isinstance(error, _NEVER))


def _decisive(error):
    """Of an error and its causes the first one that tells a status of HTTP, and the status, or that is of a connection."""
    for one in _chain(error):
        status = _status(one)
        if status is not None:
            return one, status
        if isinstance(one, (TimeoutError, ConnectionError)) or _is_connection(one):
            return one, None
    return None, None


def _chain(error):
    while error is not None:
        yield error
        error = error.__cause__


def _status(error):
    """The status of HTTP that an error tells of, or `None`."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for holder, name in ((error, "status"), (response, "status_code"), (error, "code")):  # the last one is gcsfs's
        status = getattr(holder, name, None)
        if str(status).isdigit() and 100 <= int(status) < 600:
            return int(status)
    return None


def _is_connection(error):
    classes = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    return bool(classes & _CONNECTIONS) and not isinstance(error, ValueError)


def _in_words(error, url, attempts):
    """An error as one of this package's, which names the URL and the reason, and no signature."""
    decisive, status = _decisive(error)
    said = " ".join(str(decisive or error).split())
    tells = said and not (is_web(url) and "://" in said)
    reason = f"HTTP {status}" if status is not None else said if tells else type(error).__name__
    if status in (404, 410) or (decisive is None and isinstance(error, (FileNotFoundError, NotADirectoryError))):
        return MissingError(f"There is no {shown(url)}; give the URL of something that is there.")
    if status in (401, 403) or isinstance(error, PermissionError) or "redential" in type(error).__name__:
        words = "may not be used with these credentials"
        return ForbiddenError(f"{shown(url)} {words} ({reason}); docs/storage.md tells where they come from.")
    tries = f" after {attempts} attempts" if attempts > 1 else ""
    return StorageError(f"{shown(url)} cannot be reached now{tries}: {reason}")
