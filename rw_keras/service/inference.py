"""KServe's open inference protocol, version 2: bytes of photos in, descriptors out; JSON and its binary extension."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request

from rw_keras.runtimes import cache
from rw_keras.service import answers, bodies, schemas
from rw_keras.service.asking import Asking
from rw_keras.service.engine import Engine, Upload
from rw_keras.service.problems import ProblemError, later, responses
from rw_keras.service.served import ServedIndex
from rw_keras.service.settings import Settings

# The length of the JSON before binary data.
_LENGTH = "Inference-Header-Content-Length"
_EXTENSION = "binary_tensor_data"
_VERSION = "1"
IMAGES, BOX, DESCRIPTOR = "image_bytes", "box", "descriptor"


class Inference:
    """The routes under /v2. Each index is a model, which describes as its photos were described.

    Args:
        indexes, engine, settings: see `rw_keras.service.asking.Asking`.
        asking: what describes.
        why_not: gives why the service is not ready; `None` when it is.
    """

    def __init__(
        self,
        indexes: Mapping[str, ServedIndex],
        engine: Engine,
        asking: Asking,
        settings: Settings,
        why_not: Callable[[], str | None],
    ) -> None:
        self._indexes, self._engine, self._asking, self._settings, self._why_not = indexes, engine, asking, settings, why_not

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["inference (KServe)"])
        good = {200: {"description": "It is so.", "content": {"application/json": {"schema": {"type": "object"}}}}}
        of = "/v2/models/{name}"
        for path, function, found in (
            ("/v2", self.server, {200: {"model": schemas.ServerAbout}}),
            ("/v2/health/live", self.live, good),
            ("/v2/health/ready", self.ready, good),
            (of, self.model, {200: {"model": schemas.ModelAbout}}),
            (f"{of}/ready", self.model_ready, good),
        ):
            errors = responses(404) if path.startswith(of) else responses()
            router.add_api_route(
                path, function, methods=["GET"], operation_id=function.__name__, response_model=None, responses={**found, **errors}
            )
        schema = {"$ref": "#/components/schemas/InferRequest"}
        content = {"application/json": {"schema": schema}, "application/octet-stream": {"schema": {"type": "string"}}}
        router.add_api_route(
            f"{of}/infer",
            self.infer,
            methods=["POST"],
            operation_id="infer",
            response_model=None,
            openapi_extra={"requestBody": {"content": content, "required": True}},
            responses={200: {"model": schemas.InferAnswer}, **responses(401, 404, 415, 422, 504)},
        )
        return router

    async def server(self) -> Response:
        """What serves."""
        return answers.Json({"name": "rw_keras", "version": cache.version("rw_keras") or "", "extensions": [_EXTENSION]})

    async def live(self) -> Response:
        """Whether the service runs."""
        return answers.Json({"live": True})

    async def ready(self) -> Response:
        """Whether the service takes requests. One that serves an index as it was before its last change, since that cannot be
        loaded, is ready, and says so; one in Milvus is asked there, and the service is not ready while Milvus is away."""
        reason = self._why_not()
        if reason is not None:
            raise later(503, reason, 5)
        away = sorted(name for name, served in self._indexes.items() if served.is_away)
        if away:
            raise later(503, f"The index {away[0]!r} is in Milvus, which cannot be asked now.", 5)
        stale = sorted(name for name, served in self._indexes.items() if served.stale is not None)
        return answers.Json({"ready": True, "stale": stale})

    async def model(self, name: str) -> Response:
        """What the model of an index takes and gives."""
        served = answers.chosen(self._indexes, name)
        dimensions = served.index.dimensions
        about = {
            "name": name,
            "versions": [_VERSION],
            "platform": "rw_keras",
            "inputs": [
                {"name": IMAGES, "datatype": "BYTES", "shape": [-1]},
                {"name": BOX, "datatype": "FP32", "shape": [-1, 4], "optional": True},
            ],
            "outputs": [{"name": DESCRIPTOR, "datatype": "FP32", "shape": [-1, dimensions]}],
        }
        return answers.Json(about)

    async def model_ready(self, name: str) -> Response:
        """Whether the model of an index takes requests."""
        answers.chosen(self._indexes, name)
        return await self.ready()

    async def infer(self, request: Request, name: str) -> Response:
        """Describes photos."""
        served = answers.chosen(self._indexes, name)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise ProblemError(415, "A body is taken as it is, without `Content-Encoding`.")
        asked, binary = _split(await request.body(), request.headers.get(_LENGTH))
        inputs = {tensor.name: tensor for tensor in asked.inputs}
        if set(inputs) - {IMAGES, BOX} or IMAGES not in inputs or len(inputs) < len(asked.inputs):
            raise ProblemError(422, f"The inputs are `{IMAGES}` and, where it is wanted, `{BOX}`, but got {list(inputs)}.")
        for output in asked.outputs or []:
            if output.name != DESCRIPTOR:
                raise ProblemError(422, f"The output is `{DESCRIPTOR}`, but got {output.name[:80]!r}.")
        parts = _parts(asked.inputs, binary)
        photos = await self._engine.in_pool(_photos, inputs[IMAGES], parts)
        boxes = _boxes(inputs[BOX], parts, len(photos)) if BOX in inputs else [None] * len(photos)
        if not 1 <= len(photos) <= self._settings.images:
            raise ProblemError(422, f"An inference is of 1 to {self._settings.images} photos, but got {len(photos)}.")
        vectors = []
        async with self._engine.admitted() as took:
            for photo, box in zip(photos, boxes):
                vectors.append((await self._asking.described(took, served, photo, box)).descriptor)
        return _answer(name, asked, np.stack(vectors).astype("<f4"))


def _split(body, length):
    """The JSON of a request, and the binary data behind it."""
    try:
        place = len(body) if length is None else int(length)
        if not 0 < place <= len(body):
            raise ValueError(f"{_LENGTH} is {length!r}, and the body has {len(body)} bytes")
        fields = json.loads(body[:place])
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, f"This is no request of the inference protocol: {str(error)[:200]}.") from None
    return bodies.checked(fields, schemas.InferRequest), body[place:]


def _parts(inputs, binary):
    """Input -> its binary data, of those that have some."""
    found, place = {}, 0
    for tensor in inputs:
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is not None:
            if not isinstance(size, int) or isinstance(size, bool) or size < 0 or tensor.data is not None:
                raise ProblemError(422, f"The input {tensor.name[:80]!r} has `data`, or a `binary_data_size` in bytes.")
            found[tensor.name] = binary[place : place + size]
            place += size
    if place != len(binary):
        raise ProblemError(422, f"The inputs take {place} bytes of binary data, but got {len(binary)}.")
    return found


def _photos(tensor, parts):
    if tensor.datatype != "BYTES":
        raise ProblemError(422, f"`{IMAGES}` is of the datatype BYTES, but got {str(tensor.datatype)[:80]}.")
    if tensor.name not in parts:
        given = tensor.data or []
        if not all(isinstance(one, str) for one in given):
            raise ProblemError(422, f"`{IMAGES}` in JSON is a list of photos in base64.")
        photos = [bodies.from_base64(one, f"{IMAGES}[{number}]") for number, one in enumerate(given)]
    else:
        content, place, photos = parts[tensor.name], 0, []
        while place < len(content):
            (size,) = struct.unpack_from("<I", content, place) if place + 4 <= len(content) else (len(content),)
            if place + 4 + size > len(content):
                raise ProblemError(422, f"`{IMAGES}` is cut short: each photo has its length in four bytes before it.")
            photos.append(Upload(content[place + 4 : place + 4 + size], f"{IMAGES}[{len(photos)}]"))
            place += 4 + size
    if tensor.shape is not None and (not tensor.shape or np.prod(tensor.shape, dtype="object") != len(photos)):
        raise ProblemError(422, f"`{IMAGES}` has the shape {tensor.shape[:8]}, and {len(photos)} photos.")
    return photos


def _boxes(tensor, parts, count):
    content = parts.get(tensor.name)
    try:
        if tensor.datatype != "FP32":
            raise ValueError
        corners = np.asarray(tensor.data, "float32") if content is None else np.frombuffer(content, "<f4")
        corners = corners.reshape(count, 4)
        if not np.isfinite(corners).all():
            raise ValueError
    except (ValueError, TypeError):
        raise ProblemError(422, f"`{BOX}` is FP32 of the shape [{count}, 4]: x1, y1, x2, y2 for each photo.") from None
    return [tuple(map(float, box)) for box in corners]


def _answer(name, asked, vectors):
    output = {"name": DESCRIPTOR, "datatype": "FP32", "shape": list(vectors.shape)}
    about: dict[str, Any] = {"model_name": name, "model_version": _VERSION, "outputs": [output]}
    if asked.id is not None:
        about["id"] = asked.id
    wanted = [(given.parameters or {}).get("binary_data") for given in asked.outputs or []]
    is_binary = wanted[0] if wanted and wanted[0] is not None else (asked.parameters or {}).get("binary_data_output", False)
    if is_binary is not True:
        output["data"] = vectors.ravel().tolist()
        return answers.Json(about)
    content = vectors.tobytes()
    output["parameters"] = {"binary_data_size": len(content)}
    head = answers.Json(about).body
    return Response(head + content, headers={_LENGTH: str(len(head))}, media_type="application/octet-stream")
