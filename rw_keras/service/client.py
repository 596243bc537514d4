"""A client of the service, for Python.

from rw_keras.service import Client

with Client("http://127.0.0.1:8000") as client:
    for hit in client.search("query.jpg", box=(136, 34, 648, 955))["hits"]:
        print(hit["rank"], hit["cosine"], hit["name"])
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import httpx


class ServiceError(Exception):
    """The service refused a request, or could not be asked; the message is its own sentence.

    Attributes:
        status: the HTTP status; `None` where there was no answer.
        retry_after: seconds after which to ask again, where the service says so.
        problem: the whole problem, as plain values.
    """

    def __init__(self, message: str, status: int | None = None, retry_after: float | None = None, problem: Any = None) -> None:
        super().__init__(message)
        self.status, self.retry_after, self.problem = status, retry_after, problem


class Client:
    """Asks a service of `rw-keras serve`. Used as a context manager, or closed with `close`.

    Args:
        address: of the service.
        token: one that may read, or write. Optional.
        timeout: seconds without an answer.
        transport: see `httpx.Client`. Optional.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        token: str | None = None,
        *,
        timeout: float = 60,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(base_url=address, headers=headers, timeout=timeout, transport=transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def search(
        self,
        photo: str | os.PathLike[str] | bytes | None = None,
        *,
        name: str | None = None,
        vector: Sequence[float] | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Searches.

        Args:
            photo: a photo to search with: its path, or its bytes.
            name: that of a photo in the index.
            vector: a descriptor.
            **fields: further ones of `POST /v1/search`, such as `index`, `box`, `k`, `within`, `rerank`, `negatives`, `cursor`.

        Returns:
            The answer, as plain values: `hits`, `cursor`, `total`, `took`.

        Raises:
            ServiceError: when the service refuses, or cannot be asked.
            OSError: when the photo's file cannot be read.
        """
        fields |= {} if name is None else {"name": name}
        fields |= {} if vector is None else {"vector": [float(number) for number in vector]}
        return self._post("/v1/search", photo, fields)

    def pages(self, photo: str | os.PathLike[str] | bytes | None = None, **fields: Any) -> Iterator[dict[str, Any]]:
        """The hits of a search one after the other, page by page, of one ranking; arguments and errors as for `search`."""
        answer = self.search(photo, **fields)
        kept = {field: fields[field] for field in ("k", "explain") if field in fields}
        yield from answer["hits"]
        while answer["cursor"] is not None:
            answer = self.search(cursor=answer["cursor"], **kept)
            yield from answer["hits"]

    def embed(self, photo: str | os.PathLike[str] | bytes, **fields: Any) -> dict[str, Any]:
        """The `descriptor` of a photo, and its `recipe`; `box` and `index` as for a search."""
        return self._post("/v1/embed", photo, fields)

    def indexes(self) -> list[dict[str, Any]]:
        """The indices that are served, the default first."""
        return self._asked("GET", "/v1/indexes").json()["indexes"]

    def put(self, name: str, photo: str | os.PathLike[str] | bytes, index: str | None = None) -> bool:
        """Puts a photo into the index, under a name; whether it replaced one. It is durable when this returns.

        Raises:
            ServiceError: when the service refuses: 503 while another process writes the index.
        """
        content = {"Content-Type": "application/octet-stream"}
        return self._asked("PUT", _path(name), content=_bytes_of(photo), headers=content, params=_of(index)).json()["replaced"]

    def delete(self, name: str, index: str | None = None) -> None:
        """Takes a photo out of the index, for later updates as well; errors as for `put`."""
        self._asked("DELETE", _path(name), params=_of(index))

    def photo(self, name: str, index: str | None = None) -> bytes:
        """The bytes of a photo's file."""
        return self._asked("GET", _path(name), params=_of(index)).content

    def thumbnail(self, name: str, side: int = 320, index: str | None = None) -> bytes:
        """A small JPEG of a photo."""
        return self._asked("GET", f"{_path(name)}/thumbnail", params={**_of(index), "side": side}).content

    def _post(self, path, photo, fields):
        if photo is None:
            body = json.dumps(fields).encode("ascii")
            return self._asked("POST", path, content=body, headers={"Content-Type": "application/json"}).json()
        words = {field: value if isinstance(value, str) else json.dumps(value) for field, value in fields.items()}
        return self._asked("POST", path, data=words, files={"file": ("photo", _bytes_of(photo))}).json()

    def _asked(self, method, path, **content):
        try:
            answer = self._client.request(method, path, **content)
        except httpx.HTTPError as error:
            raise ServiceError(f"{self._client.base_url} could not be asked: {error or type(error).__name__}.") from error
        if answer.is_success:
            return answer
        try:
            problem = answer.json()
            message = problem["detail"]
        except (ValueError, KeyError, TypeError):
            problem, message = None, f"{self._client.base_url} answered {answer.status_code}."
        after = answer.headers.get("Retry-After", "")
        raise ServiceError(message, answer.status_code, float(after) if after.isdigit() else None, problem)


def _bytes_of(photo):
    return photo if isinstance(photo, bytes) else pathlib.Path(photo).read_bytes()


def _path(name):
    return f"/v1/photos/{quote(os.fsencode(name), safe='/')}"


def _of(index):
    return {} if index is None else {"index": index}
