"""Photos: their files, thumbnails, putting and deleting them, and those that are almost the same."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import FileResponse, Response
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request

from rw_keras.files import printable
from rw_keras.photos.reading import ImageError
from rw_keras.retrieval.segments import DamageError
from rw_keras.service import answers, changes, rankings, schemas
from rw_keras.service.engine import Engine, Upload
from rw_keras.service.problems import ProblemError, later, responses
from rw_keras.service.rankings import Rankings
from rw_keras.service.served import ServedIndex
from rw_keras.service.settings import Settings

log = logging.getLogger(__name__)
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}

# What a browser shows, by the first bytes of a file; anything else is handed on as bytes.
_KINDS = (
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"GIF8", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"BM", 0, "image/bmp"),
    (b"II*\0", 0, "image/tiff"),
    (b"MM\0*", 0, "image/tiff"),
    (b"ftypavif", 4, "image/avif"),
    (b"ftyphei", 4, "image/heic"),
)
# How long a browser shows a photo without asking whether it is still the same, in seconds.
_FRESH = {"photo": "private, no-cache", "thumbnail": "private, max-age=60"}
# Seconds that a change waits to be taken up by this process, so that its client finds it.
_TAKEN_UP = 2.0
# Sets of groups that are computed, or wait for it, at once.
_GROUPS_AT_ONCE = 4

_Name = Annotated[str, Path(description="The name of a photo, percent-encoded; it may hold slashes.", min_length=1)]
_Index = Annotated[str | None, Query(description="The name of the index; by default the first one.")]


class _NameConvertor(Convertor[str]):
    """Any name of a photo, also one that holds the end of a line."""

    regex = r"(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _FileConvertor(_NameConvertor):
    """A name that is not followed by "/thumbnail": what comes before that has routes of its own."""

    regex = r"(?s:(?!.*/thumbnail\Z).+)"


register_url_convertor("photo_name", _NameConvertor())
register_url_convertor("photo_file", _FileConvertor())


class Photos:
    """The routes of photos. See `rw_keras.service.asking.Asking` for the arguments."""

    def __init__(self, indexes: Mapping[str, ServedIndex], engine: Engine, kept: Rankings, settings: Settings) -> None:
        self._indexes, self._engine, self._kept, self._settings = indexes, engine, kept, settings
        self._writer = ThreadPoolExecutor(1, "write")  # an index has one writer, and a service is one
        self._grouping = ThreadPoolExecutor(1, "groups")
        self._groups: dict[str, Future[bytes]] = {}

    def close(self) -> None:
        """Ends the threads: a change that has begun is finished."""
        self._writer.shutdown()
        self._grouping.shutdown(wait=False, cancel_futures=True)

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["photos"])
        of, of_thumbnail = "/v1/photos/{name:photo_file}", "/v1/photos/{name:photo_name}/thumbnail"
        small = {"description": "A JPEG.", "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
        whole = {
            "description": "The bytes of the file.",
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        }
        same = {304: {"description": "It is still the one of `If-None-Match`."}}
        read, write = (401, 404, 422, 504), (401, 403, 404, 415, 422, 504)
        router.add_api_route(
            of_thumbnail,
            self.thumbnail,
            methods=["GET"],
            operation_id="thumbnail",
            response_class=Response,
            responses={200: small, **same, **responses(*read)},
        )
        router.add_api_route(
            of,
            self.photo,
            methods=["GET"],
            operation_id="photo",
            response_class=Response,
            responses={200: whole, **same, **responses(*read)},
        )
        body = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}, "required": True}
        router.add_api_route(
            of,
            self.put,
            methods=["PUT"],
            operation_id="put_photo",
            response_model=None,
            openapi_extra={"requestBody": body},
            responses={
                200: {"model": schemas.PutAnswer, "description": "It has taken the place of another."},
                201: {"model": schemas.PutAnswer, "description": "It is new."},
                **responses(*write),
            },
        )
        router.add_api_route(
            of,
            self.delete,
            methods=["DELETE"],
            operation_id="delete_photo",
            status_code=204,
            response_class=Response,
            responses={204: {"description": "It is gone."}, **responses(401, 403, 404, 422, 504)},
        )
        router.add_api_route(
            "/v1/duplicates",
            self.duplicates,
            methods=["GET"],
            operation_id="duplicates",
            response_model=None,
            responses={200: {"model": schemas.DuplicatesAnswer}, **responses(401, 404, 410, 422)},
        )
        return router

    async def photo(self, request: Request, name: _Name, index: _Index = None) -> Response:
        """The photo's own file, unchanged."""
        served, own = await self._named(request, index)

        def opened():
            path, etag = served.photos.path(own), served.photos.etag(own)
            with open(path, "rb") as file:
                return path, etag, _kind(file.read(16))

        path, etag, kind = await self._of_file(served, own, opened)
        headers = {"ETag": etag, "Cache-Control": _FRESH["photo"], "Content-Disposition": "inline"}
        if _is_known(request, etag):
            return Response(status_code=304, headers=headers)
        return FileResponse(path, headers=headers, media_type=kind)

    async def thumbnail(
        self,
        request: Request,
        name: _Name,
        side: Annotated[int, Query(ge=64, le=1024, description="Pixels of its longer side.")] = 320,
        index: _Index = None,
    ) -> Response:
        """A small JPEG of the photo: upright, and without what the file tells beside it, such as where it was taken."""
        served, own = await self._named(request, index, "/thumbnail")
        etag = await self._of_file(served, own, lambda: served.photos.etag(own, side))
        headers = {"ETag": etag, "Cache-Control": _FRESH["thumbnail"]}
        if _is_known(request, etag):
            return Response(status_code=304, headers=headers)
        content = await self._of_file(served, own, lambda: served.photos.thumbnail(own, side))
        return Response(content, headers=headers, media_type="image/jpeg")

    async def put(self, request: Request, name: _Name, index: _Index = None) -> Response:
        """Puts a photo: its file into the photos' folder, and what describes it into the index. Answered once both are durable."""
        served, own = await self._named(request, index, is_there=False)
        kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
        if kind != "application/octet-stream" and not kind.startswith("image/"):
            raise ProblemError(415, "The body is the photo's own bytes, of the type application/octet-stream or image/*.")
        body = await request.body()
        if not body:
            raise ProblemError(422, "The body is empty; send the photo's bytes.")
        await self._engine.with_files(self._check_pixels, body, own)
        describer = self._engine.through(served.describer)
        replaced = await self._change(served, changes.put, served.folder, served.source, own, body, describer)
        return answers.Json({"name": own, "replaced": replaced}, 200 if replaced else 201)

    def _check_pixels(self, body, name):
        try:
            self._engine.check_pixels(Upload(body, printable(name)))
        except ImageError as error:
            raise ProblemError(422, f"{error}") from None

    async def delete(self, request: Request, name: _Name, index: _Index = None) -> Response:
        """Takes a photo out of the index, for later updates as well. Its file stays. Answered once that is durable."""
        served, own = await self._named(request, index, is_there=False)
        await self._change(served, changes.delete, served.folder, own)
        return Response(status_code=204)

    async def duplicates(
        self,
        index: _Index = None,
        threshold: Annotated[float, Query(gt=0, le=1, allow_inf_nan=False, description="The lowest cosine of a pair.")] = 0.95,
        cursor: Annotated[str | None, Query(max_length=128, description="That of an earlier answer.")] = None,
        k: Annotated[int, Query(ge=1, description="How many groups a page has.")] = 20,
    ) -> Response:
        """Groups of photos that are almost the same, the largest first. Of a large index they take a while: 503 until then."""
        if k > self._settings.max_k:
            raise ProblemError(422, f"`k` is at most {self._settings.max_k} here, but got {k}.")
        if cursor is not None:
            token, start, content = await self._engine.with_files(self._kept.at, cursor, rankings.DUPLICATES)
        else:
            token, start = None, 0
            content = await self._grouped(answers.chosen(self._indexes, index), threshold)
        found = json.loads(content)
        served = self._indexes.get(found["index"])
        if served is None or index not in (None, found["index"]):
            raise ProblemError(422, f"This cursor is of the index {found['index']!r}.")
        token = token or found["token"]
        state = served.state

        def page():
            groups, place = [], start
            while place < len(found["groups"]) and len(groups) < k:
                names = found["groups"][place]
                there = [name for name, position in zip(names, state.index.positions(names)) if position is not None]
                place += 1
                if len(there) > 1:
                    groups.append([answers.photo(served, name) for name in there])
            return groups, place

        groups, place = await self._engine.with_files(page)
        total = len(found["groups"])
        return answers.Json({"groups": groups, "cursor": rankings.cursor(token, place, total), "total": total})

    async def _grouped(self, served, threshold):
        """The groups of an index, found again, or computed meanwhile."""
        state = served.state
        key = hashlib.sha256(repr((served.name, str(served.folder), state.mark, threshold)).encode()).hexdigest()[:32]
        known = await self._engine.with_files(self._kept.find, rankings.DUPLICATES + key)
        if known is not None:
            return known
        if key not in self._groups:
            if len(self._groups) >= _GROUPS_AT_ONCE:
                raise later(429, "Other groups are being computed; ask again later.", 30)
            self._groups[key] = self._grouping.submit(self._group, served.name, state, threshold, key)
        future = self._groups[key]
        try:
            async with asyncio.timeout(self._settings.seconds):
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError:
            raise later(503, "The groups are still being computed; ask again in a while.", 10) from None
        except DamageError:
            raise later(503, "The index is damaged on the disk; `rw-keras check` says where.", 60) from None
        finally:
            if future.done():
                self._groups.pop(key, None)

    def _group(self, name, state, threshold, key):
        groups = state.index.near_duplicates(threshold, groups=True)
        content = json.dumps({"index": name, "token": rankings.DUPLICATES + key, "groups": groups}).encode()
        self._kept.keep(content, rankings.DUPLICATES, key)
        return content

    async def _named(self, request, index, suffix="", is_there=True):
        """The index that is asked for, and the name in the address; 404 where the index has no such photo, though it has to."""
        served = answers.chosen(self._indexes, index)
        raw = request.scope.get("raw_path") or request.scope["path"].encode()
        name = answers.name_of(raw.partition(b"?")[0].partition(b"/v1/photos/")[2].removesuffix(suffix.encode()))
        if is_there and (await self._engine.with_files(served.index.positions, [name]))[0] is None:
            raise ProblemError(404, f"There is no photo {name[:200]!r} in the index.")
        return served, name

    async def _of_file(self, served, name, function):
        try:
            return await self._engine.with_files(function)
        except FileNotFoundError:
            raise ProblemError(404, f"The file of the photo {name[:200]!r} is not there now.") from None
        except ImageError:
            raise ProblemError(422, f"The file of the photo {name[:200]!r} cannot be decoded now.") from None
        except OSError:
            raise later(503, f"The file of the photo {name[:200]!r} cannot be read now; ask again in a moment.", 5) from None

    async def _change(self, served: ServedIndex, function: Any, *arguments: Any) -> Any:
        """What a change gives, once it is durable and, if that takes no longer than a moment, taken up here."""
        if not served.has_photos and function is changes.put:
            raise ProblemError(422, "The folder of the photos of this index is not known, or not there; see --photos.")
        loop = asyncio.get_running_loop()
        try:
            async with self._engine.admitted():
                done = await loop.run_in_executor(self._writer, function, *arguments)
        except changes.Busy:
            raise later(503, "Another process writes the index now; ask again in a moment.", 5) from None
        except KeyError:
            raise ProblemError(404, "There is no such photo in the index.") from None
        except (OSError, DamageError) as error:
            log.error("%s could not be changed: %s", served.name, error)
            if getattr(error, "errno", None) in _READ_ONLY:  # to ask again is of no use
                raise ProblemError(403, "The index, or the folder of its photos, may only be read here.") from None
            raise later(503, "The index cannot be written now; the service's log says why.", 60) from None
        except (ImageError, ValueError) as error:
            raise ProblemError(422, _without_paths(str(error), served)) from None
        taken_up = asyncio.ensure_future(loop.run_in_executor(None, served.refresh, True))
        await asyncio.wait({taken_up}, timeout=_TAKEN_UP)
        return done


def _kind(head):
    return next((kind for words, place, kind in _KINDS if head[place : place + len(words)] == words), "application/octet-stream")


def _is_known(request, etag):
    given = [word.strip().removeprefix("W/") for word in request.headers.get("if-none-match", "").split(",")]
    return etag.removeprefix("W/") in given or "*" in given


def _without_paths(message, served):
    """A message, which may name a file of this machine, for a client, who is not to know where it lies."""
    for folder in (served.source, served.folder):
        if folder is not None:
            for spelled in {str(folder), os.path.abspath(folder), os.path.realpath(folder)}:
                message = message.replace(spelled + os.sep, "").replace(spelled, "the index")
    return message
