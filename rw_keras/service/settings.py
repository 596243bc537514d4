"""Every limit of the service, with its default and what it may be."""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import os
import pathlib
from collections.abc import Mapping

# What a browser, or a client on the same machine, calls this machine.
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
# Where the tokens are, when no file of them is named.
READ_VARIABLE, WRITE_VARIABLE = "RW_KERAS_READ_TOKEN", "RW_KERAS_WRITE_TOKEN"
# Fewer characters can be guessed at the default rate of one client within the life of a service.
_TOKEN_LENGTH = 16

_MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """The limits of a service. Of several worker processes each keeps to them by itself.

    Attributes:
        body_mib: MiB of one request's body; more is answered 413, also while it is still being sent.
        bodies_mib: MiB of the bodies of all requests that are being read or answered; more is answered 503.
        megapixels: of one photo, by its width and height; more is answered 422.
        active: requests that are worked on at once.
        queue: requests that wait for that; more are answered 429.
        seconds: the time limit of one request, waiting included; then 504.
        body_seconds: the time that a client has to send a body; then 408.
        header_seconds: the time that a client has to send a request's headers, and to take an answer; then it is cut off.
        stop_seconds: the time that requests in flight have to end when the service stops.
        rate: requests a second of one client, on average; more are answered 429. Ten seconds' worth may come at once. `None`: any.
        connections: connections at once; more are refused with 503.
        header_kib: KiB of one request's line and headers; more is answered 431.
        field_kib: KiB of one field of a form that is no photo.
        images: photos, names and vectors of one query, and photos of one inference.
        max_k: hits of one page of an answer.
        ranking: hits that can be paged to.
        cursor_seconds: how long a ranking can be paged after its last page was asked for.
        cursor_mib: MiB of all rankings that are kept; the oldest go.
        explained: hits of one answer whose regions are compared by describing the photo again, where the index keeps no regions.
        decoders: threads that decode photos.
        allowed_hosts: what the header `Host` may name; "*": anything.
        allowed_origins: the origins whose pages may ask the service in a browser (CORS). Default: none but its own.
        read_tokens, write_tokens: those that may search, and those that may change an index as well.
        open_reading: whether searching takes no token.

    Raises:
        ValueError: for a limit that is no number above 0, or a token that is too short or cannot be sent.
    """

    body_mib: float = 32
    bodies_mib: float = 256
    megapixels: float = 100
    active: int = 8
    queue: int = 64
    seconds: float = 30
    body_seconds: float = 20
    header_seconds: float = 10
    stop_seconds: float = 30
    rate: float | None = 50
    connections: int = 1000
    header_kib: float = 16
    field_kib: float = 256
    images: int = 8
    max_k: int = 200
    ranking: int = 1000
    cursor_seconds: float = 600
    cursor_mib: float = 256
    explained: int = 10
    decoders: int = 2
    allowed_hosts: tuple[str, ...] = LOOPBACK_HOSTS
    allowed_origins: tuple[str, ...] = ()
    read_tokens: tuple[str, ...] = ()
    write_tokens: tuple[str, ...] = ()
    open_reading: bool = True

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type not in ("int", "float", "float | None") or (value is None and field.name == "rate"):
                continue
            whole = field.type == "int"
            is_one = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
            if not is_one or not math.isfinite(value) or value <= 0:
                raise ValueError(f"`{field.name}` is {'a whole' if whole else 'a'} number above 0, but got {value!r}.")
        for token in (*self.read_tokens, *self.write_tokens):
            if len(token) < _TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
                raise ValueError(
                    f"A token is {_TOKEN_LENGTH} or more visible ASCII characters without spaces, but got one of {len(token)}; "
                    "make one with `python -c 'import secrets; print(secrets.token_urlsafe())'`."
                )

    @property
    def body_bytes(self) -> int:
        return int(self.body_mib * _MIB)

    @property
    def bodies_bytes(self) -> int:
        return int(self.bodies_mib * _MIB)

    @property
    def cursor_bytes(self) -> int:
        return int(self.cursor_mib * _MIB)


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine reach what is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_tokens(
    path: str | os.PathLike[str] | None, environment: Mapping[str, str] = os.environ
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tokens that may read, and those that may write, of a file and of the environment.

    Args:
        path: a file of lines such as `read TOKEN` and `write TOKEN`; empty lines and those that begin with "#" count for nothing.
            Optional.
        environment: its `RW_KERAS_READ_TOKEN` and `RW_KERAS_WRITE_TOKEN` count as well.

    Raises:
        ValueError: for another line, with its number and without its words, which may hold a token.
        OSError: when the file cannot be read.
    """
    found: dict[str, list[str]] = {"read": [], "write": []}
    for kind, variable in (("read", READ_VARIABLE), ("write", WRITE_VARIABLE)):
        if environment.get(variable):
            found[kind].append(environment[variable])
    for number, line in enumerate([] if path is None else pathlib.Path(path).read_text("utf8").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or words[0] not in found:
            raise ValueError(f"Line {number} of {path} is no token; write `read TOKEN` or `write TOKEN`.")
        found[words[0]].append(words[1])
    return tuple(found["read"]), tuple(found["write"])
