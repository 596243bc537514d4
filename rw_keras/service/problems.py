"""Errors as their clients see them: problem+json (RFC 9457), a sentence each, and never a trace or a path of this machine."""

from __future__ import annotations

import http
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

MEDIA_TYPE = "application/problem+json"

# How the description of the service has the content of an error.
PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}

# Status -> when a request is answered so, for the description of the service.
MEANINGS = {
    400: "The request is not one that can be read.",
    401: "No token, or one that is not known.",
    403: "The token may not do this.",
    404: "There is no such index, photo or page.",
    405: "Nothing here is asked in this way.",
    408: "The body came too slowly.",
    410: "The cursor has expired, or never was.",
    413: "The body is too large.",
    415: "The body is of a type that is not read here.",
    421: "The header `Host` names another machine.",
    422: "What is asked cannot be done: a photo that cannot be decoded, a box outside it, a value out of range.",
    429: "Too many requests, of this client or of all; the header `Retry-After` says when to ask again.",
    431: "The headers are too large.",
    503: "Not now: the service is stopping, or another process writes the index. `Retry-After` says when to ask again.",
    504: "The time limit has passed.",
}


class Fault(BaseModel):
    """What is wrong with a field of a request."""

    field: str = Field(description="Which field, its parts joined with dots.")
    message: str = Field(description="What it should be.")


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field("about:blank", description="Always about:blank: the status says which kind of problem it is.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, and how to mend it, in one sentence.")
    faults: list[Fault] | None = Field(None, description="The fields that are wrong, where it is fields.")
    error: str | None = Field(None, description="The same as `detail`, under /v2, where clients of KServe's protocol look for it.")


class ProblemError(Exception):
    """An error that is answered as a problem.

    Attributes:
        status: the HTTP status.
        detail: one sentence.
        headers: of the answer.
        faults: (field, message) of fields that are wrong.
    """

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, faults: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.faults = status, detail, dict(headers or {}), list(faults)

    def body(self, path: str = "") -> dict[str, Any]:
        """What is answered at a path."""
        found = {"type": "about:blank", "title": title(self.status), "status": self.status, "detail": self.detail}
        if self.faults:
            found["faults"] = [{"field": field, "message": message} for field, message in self.faults]
        return {**found, "error": self.detail} if path.startswith("/v2") else found

    def response(self, path: str = "") -> JSONResponse:
        """The answer at a path."""
        return JSONResponse(self.body(path), self.status, self.headers, MEDIA_TYPE)


def later(status: int, detail: str, seconds: float = 1) -> ProblemError:
    """A problem that passes: the client may ask again after so many seconds."""
    return ProblemError(status, detail, headers={"Retry-After": str(max(1, round(seconds)))})


def title(status: int) -> str:
    """A status in words."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def encoded(problem: ProblemError) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of a problem, for what answers before there is an application."""
    body = json.dumps(problem.body()).encode()
    headers = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), **problem.headers}
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()], body


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for the description of the service; those that any route may answer are among them."""
    everywhere = (400, 408, 413, 421, 429, 431, 503)
    return {status: {"description": MEANINGS[status], "content": PROBLEM} for status in sorted({*statuses, *everywhere})}
