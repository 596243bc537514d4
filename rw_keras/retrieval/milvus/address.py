"""Where an index in Milvus is: a URL, taken apart, and shown without what is secret in it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

SCHEME = "milvus://"
COLLECTION = "rw_keras"
# The variable that names who asks, where the URL does not: "user:password", or the token of an account.
TOKEN_VARIABLE = "RW_KERAS_MILVUS_TOKEN"
_PORT = 19530
# Milvus takes 255 characters, and our collections have endings.
_COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
# What the further collections of an index end in.
_TAKEN = ("_ledger", "_regions")
_QUERY = ("collection", "tls")


def is_milvus(place: Any) -> bool:
    """Whether a place of an index is one in Milvus: a URL that begins with `milvus://`."""
    return isinstance(place, str) and place.startswith(SCHEME)


@dataclasses.dataclass(frozen=True)
class Address:
    """Where an index in Milvus is.

    Attributes:
        uri: what the client connects to: `http://host:port`, `https://` with TLS, or the path of milvus-lite's file.
        collection: its name.
        database: of the server; empty: the default one.
        token: who asks; empty: nobody in particular. It is in no message.
    """

    uri: str
    collection: str = COLLECTION
    database: str = ""
    token: str = dataclasses.field(default="", repr=False)

    @classmethod
    def of(cls, url: str) -> Address:
        """An address of `milvus://[user:password@]host[:port]/[database/]collection[?tls=true]`, or of
        `milvus:///path/file.db[?collection=name]`, the file of the embedded milvus-lite.

        The collection is `rw_keras` where none is named. Without a user in the URL the variable `RW_KERAS_MILVUS_TOKEN`
        names who asks.

        Raises:
            ValueError: for what is no such URL.
        """
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname
            asked = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except ValueError:  # which quotes a part of it, perhaps of a password
            raise _unreadable() from None
        if host and "@" in f"{parts.path}{parts.query}{parts.fragment}":
            raise _unreadable()
        for name in asked.keys() - set(_QUERY):
            raise ValueError(f"The address of an index in Milvus takes {' and '.join(_QUERY)} behind its ?, but got {name!r}.")
        if not is_milvus(url) or parts.fragment:
            raise ValueError(f"This is no address of an index in Milvus; {_FORM}.")
        if not host:
            return cls._of_file(unquote(parts.path), asked)
        named = [unquote(part) for part in parts.path.split("/") if part]
        if len(named) > 2 or (named and "collection" in asked):
            raise ValueError(f"The address of an index in Milvus names more than a database and a collection; {_FORM}.")
        if asked.get("tls", "false") not in ("true", "false"):
            raise ValueError(f"`tls` in the address of an index in Milvus is true or false, but got {asked['tls']!r}.")
        scheme = "https" if asked.get("tls") == "true" else "http"
        host = f"[{host}]" if ":" in host else host
        token = ":".join(unquote(part) for part in (parts.username, parts.password) if part)
        return cls(
            f"{scheme}://{host}:{_PORT if port is None else port}",
            _checked(named[-1] if named else asked.get("collection", COLLECTION)),
            named[0] if len(named) == 2 else "",
            token or os.environ.get(TOKEN_VARIABLE, ""),
        )

    @classmethod
    def _of_file(cls, path, asked):
        if "tls" in asked:
            raise ValueError("`tls` is of a server, and this is the address of a file of milvus-lite; leave it out.")
        if not path.startswith("/") or not path.endswith(".db") or "\0" in path:
            raise ValueError(f"The file of milvus-lite is an absolute path that ends in .db, but got {path!r}; {_FORM}.")
        return cls(path, _checked(asked.get("collection", COLLECTION)))

    @property
    def is_lite(self) -> bool:
        """Whether it is a file of milvus-lite."""
        return self.uri.startswith("/")

    def is_there(self) -> bool:
        """Whether there may be something: not where the file of milvus-lite is missing. Opening one makes it."""
        return not self.is_lite or pathlib.Path(self.uri).exists()

    def __str__(self) -> str:
        if self.is_lite:
            return f"{SCHEME}{self.uri}" + ("" if self.collection == COLLECTION else f"?collection={self.collection}")
        database = f"{self.database}/" if self.database else ""
        scheme, _, host = self.uri.partition("://")
        return f"{SCHEME}{host}/{database}{self.collection}" + ("?tls=true" if scheme == "https" else "")


_FORM = "give milvus://host:19530/collection, or milvus:///path/file.db"


def _unreadable():
    return ValueError(
        "The address of an index in Milvus cannot be read; in a user and a password, percent-encode / as %2F, ? as %3F, # as %23 "
        f"and @ as %40, and {_FORM}."
    )


def _checked(collection):
    if not _COLLECTION.fullmatch(collection):
        raise ValueError(
            "A collection of Milvus is named by up to 200 letters, digits and underscores, the first of them no digit, but got "
            f"{collection!r}."
        )
    if collection.endswith(_TAKEN):
        raise ValueError(f"A collection whose name ends in {' or '.join(_TAKEN)} is a part of an index, but got {collection!r}.")
    return collection
