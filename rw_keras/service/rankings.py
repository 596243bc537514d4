"""Rankings that can be paged through: files that the worker processes of a service share, and which expire."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pathlib
import re
import secrets
import time

import numpy as np

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.service.problems import ProblemError

_CURSOR = re.compile(r"([A-Za-z0-9_-]{16,64})\.([0-9]{1,9})")
# What the first letter of a token says that there is.
SEARCH, DUPLICATES = "s", "d"
# Every so many writes the folder is looked through.
_EVERY = 16


@dataclasses.dataclass
class Ranking:
    """What a search has found, all that can be paged through.

    Attributes:
        index, generation: the index that was searched, and its state.
        names: of the n photos, best first.
        cosines: `(n,)` float32.
        scores: `(n,)` float32, those of regions; NaN where there is none.
        measure: "cosine" or "score", what the first hits stand by.
        regions: the query's, where they are to be compared with those of hits.
    """

    index: str
    generation: int | None
    names: list[str]
    cosines: np.ndarray
    scores: np.ndarray
    measure: str = "cosine"
    regions: PhotoRegions | None = None

    def to_bytes(self) -> bytes:
        about = {"index": self.index, "generation": self.generation, "measure": self.measure}
        names = list(map(os.fsencode, self.names))
        arrays = {
            "about": np.frombuffer(json.dumps(about).encode(), "uint8"),
            "names": np.frombuffer(b"".join(names), "uint8"),
            "lengths": np.fromiter(map(len, names), "int32", len(names)),
            "cosines": self.cosines,
            "scores": self.scores,
        }
        if self.regions is not None:
            arrays |= {"vectors": self.regions.vectors, "boxes": self.regions.boxes}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Ranking:
        with np.load(io.BytesIO(content), allow_pickle=False) as kept:
            about = json.loads(kept["about"].tobytes())
            joined, ends = kept["names"].tobytes(), np.cumsum(kept["lengths"]).tolist()
            names = [os.fsdecode(joined[start:end]) for start, end in zip([0, *ends], ends)]
            regions = PhotoRegions(kept["vectors"], kept["boxes"]) if "vectors" in kept else None
            return cls(names=names, cosines=kept["cosines"], scores=kept["scores"], regions=regions, **about)


class Rankings:
    """The folder of rankings.

    Args:
        folder: where they lie; worker processes of one service name the same.
        seconds: how long after its last use a ranking is kept.
        most_bytes: of all of them; those that were used longest ago go.
    """

    def __init__(self, folder: str | os.PathLike[str], seconds: float, most_bytes: int) -> None:
        self._folder, self._seconds, self._most_bytes = pathlib.Path(folder), seconds, most_bytes
        self._writes = 0

    def keep(self, content: bytes, kind: str, key: str | None = None) -> str:
        """Keeps bytes, and gives the token by which they are found.

        Args:
            content: the bytes.
            kind: what they are, a letter.
            key: 16 characters or more that stand for what they were made of, so that they are found again by it. Default: a secret.
        """
        token = kind + (key or secrets.token_urlsafe(24))
        part = self._folder / f".{token}.{os.getpid()}"
        part.write_bytes(content)  # nothing that has to outlive the service, so nothing is synced
        os.replace(part, self._folder / token)
        self._writes += 1
        if self._writes % _EVERY == 1:
            self._tidy()
        return token

    def find(self, token: str) -> bytes | None:
        """The bytes of a token; `None` where they are gone."""
        path = self._folder / token
        try:
            if time.time() - path.stat().st_mtime > self._seconds:
                return None
            content = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        return content

    def at(self, cursor: str, kind: str) -> tuple[str, int, bytes]:
        """What a cursor stands for: the token, where the next page begins, and the bytes.

        Raises:
            ProblemError: 410 for a cursor that has expired, or never was one.
        """
        parsed = _CURSOR.fullmatch(cursor)
        content = self.find(parsed[1]) if parsed and parsed[1].startswith(kind) else None
        if content is None:
            raise ProblemError(410, "This cursor has expired, or never was; ask the query again.")
        return parsed[1], int(parsed[2]), content

    def _tidy(self):
        kept = []
        for path in self._folder.iterdir():
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            kept.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in kept)
        for used, size, path in sorted(kept):
            if time.time() - used > self._seconds or total > self._most_bytes:
                path.unlink(missing_ok=True)
                total -= size


def cursor(token: str, start: int, total: int) -> str | None:
    """The cursor of the page that begins at `start`; `None` behind the last."""
    return f"{token}.{start}" if start < total else None
