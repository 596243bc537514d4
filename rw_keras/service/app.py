"""The application: routes, what stands before them, and what lives as long as it does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.routing import Match

from rw_keras.files import printable
from rw_keras.retrieval.milvus import MilvusError
from rw_keras.runtimes import cache
from rw_keras.service import answers, bodies, metrics, pages, schemas
from rw_keras.service.asking import Asking
from rw_keras.service.engine import Engine
from rw_keras.service.gate import STOPPING
from rw_keras.service.guard import Guard
from rw_keras.service.inference import Inference
from rw_keras.service.metrics import Counting, Metrics
from rw_keras.service.photo_routes import Photos
from rw_keras.service.problems import PROBLEM, ProblemDetails, ProblemError, later, responses
from rw_keras.service.rankings import Rankings
from rw_keras.service.served import ServedIndex
from rw_keras.service.settings import Settings

log = logging.getLogger(__name__)

# Seconds between two looks at the indices on the disk.
_LOOK = 1.0
_ABOUT = """Searches photos of the same thing. A photo, the name of one in the index, or a descriptor is asked with; hits come best
first. Every error is `application/problem+json`, with a sentence that says how to mend it."""


def create_app(
    indexes: Sequence[ServedIndex], settings: Settings | None = None, *, folder: str | None = None, network_threads: int = 1
) -> FastAPI:
    """Makes the application, for any ASGI server.

    Args:
        indexes: those that are served, of different names; the first is the default.
        settings: the limits. Default: `Settings()`.
        folder: where rankings are kept, which several worker processes have to share. Default: a temporary one.
        network_threads: threads that call describers. Default 1, which is right where the network is computed here.

    Returns:
        The application. `app.state.stop()` has it answer what waits with 503, as a server calls it when it is told to stop.

    Raises:
        ValueError: without an index, or for two of one name.
    """
    settings = settings or Settings()
    named = {served.name: served for served in indexes}
    if not indexes or len(named) < len(indexes):
        names = answers.listed(served.name for served in indexes)
        raise ValueError(f"A service has one or more indices of different names, but got {names or 'none'}.")
    measures = Metrics()
    engine = Engine(settings, measures, network_threads)
    own_folder = folder or tempfile.mkdtemp(prefix="rw_keras_rankings_")
    kept = Rankings(own_folder, settings.cursor_seconds, settings.cursor_bytes)
    asking = Asking(named, engine, kept, settings)
    photos = Photos(named, engine, kept, settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        looking = asyncio.ensure_future(_look(named, measures))
        try:
            yield
        finally:
            engine.stop()
            looking.cancel()
            photos.close()
            engine.close()
            if folder is None:
                shutil.rmtree(own_folder, ignore_errors=True)

    version = cache.version("rw_keras") or "0"
    plain = {"docs_url": None, "redoc_url": None, "openapi_url": None}  # pages of its own take their place
    app = FastAPI(title="rw_keras", version=version, description=_ABOUT, lifespan=lifespan, **plain)
    app.state.stop, app.state.engine = engine.stop, engine
    inference = Inference(named, engine, asking, settings, lambda: STOPPING if engine.gate.is_closed else None)
    _add_search(app, named, asking, settings)
    routers = [photos.router(), inference.router()]
    for router in routers:
        app.include_router(router)
    _add_metrics(app, named, measures)
    pages.add(app)
    _add_errors(app, routers)
    _describe(app)
    # The last one that is added is the first that sees a request.
    if settings.allowed_origins:
        exposed = ["Retry-After", "ETag", "WWW-Authenticate"]
        methods, headers = ["GET", "POST", "PUT", "DELETE"], ["Authorization", "Content-Type"]
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.allowed_origins),
            allow_methods=methods,
            allow_headers=headers,
            expose_headers=exposed,
        )
    app.add_middleware(Guard, settings=settings, is_closed=lambda: engine.gate.is_closed)
    app.add_middleware(Counting, measures=measures)
    return app


async def _look(indexes: Mapping[str, ServedIndex], measures: Metrics) -> None:
    """Takes up what changes on the disk, for as long as the application runs."""
    loop = asyncio.get_running_loop()
    while True:
        for name, served in indexes.items():
            await loop.run_in_executor(None, served.refresh)
            measures.photos.labels(name).set(served.state.photos)
            measures.failing.labels(name).set(served.stale is not None)
        await asyncio.sleep(_LOOK)


def _add_search(app: FastAPI, indexes: Mapping[str, ServedIndex], asking: Asking, settings: Settings) -> None:
    async def indexes_(request: Request) -> Response:
        """The indices that are served, and what each can do."""
        can_write = bool(settings.write_tokens)
        limits = {"body_bytes": settings.body_bytes, "megapixels": settings.megapixels, "images": settings.images}
        about = [answers.about(served, settings.max_k, can_write) for served in indexes.values()]
        return answers.Json({"indexes": about, "limits": limits})

    async def search(request: Request) -> Response:
        """Finds the photos that show what a photo shows."""
        return answers.Json(await asking.search(*await bodies.parsed(request, schemas.SearchRequest, settings)))

    async def embed(request: Request) -> Response:
        """Describes a photo as those of an index were described."""
        return answers.Json(await asking.embed(*await bodies.parsed(request, schemas.EmbedRequest, settings)))

    app.add_api_route(
        "/v1/indexes",
        indexes_,
        operation_id="indexes",
        tags=["search"],
        response_model=None,
        responses={200: {"model": schemas.IndexesAnswer}, **responses(401)},
    )
    for path, function, asked, answer in (
        ("/v1/search", search, schemas.SearchRequest, schemas.SearchAnswer),
        ("/v1/embed", embed, schemas.EmbedRequest, schemas.EmbedAnswer),
    ):
        statuses = (401, 404, 410, 415, 422, 504) if function is search else (401, 404, 415, 422, 504)
        app.add_api_route(
            path,
            function,
            methods=["POST"],
            operation_id=function.__name__,
            tags=["search"],
            response_model=None,
            openapi_extra={"requestBody": _body_of(asked)},
            responses={200: {"model": answer}, **responses(*statuses)},
        )


def _body_of(model: type[Any]) -> dict[str, Any]:
    """How a body is described that is JSON, or a form of the same fields with the photo as a file."""
    fields = {name: {"$ref": f"#/components/schemas/{model.__name__}/properties/{name}"} for name in model.model_fields}
    file = {"type": "string", "format": "binary", "description": "The photo; several of them are several positives."}
    form = {"type": "object", "additionalProperties": False, "required": ["file"], "properties": {"file": file, **fields}}
    plain = {"index", "name", "cursor", "image", "within"}
    encoding = {name: {"contentType": bodies.JSON} for name in model.model_fields if name not in plain}
    return {
        "required": True,
        "content": {
            bodies.JSON: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}},
            bodies.FORM: {"schema": form, "encoding": encoding},
        },
    }


def _add_metrics(app: FastAPI, indexes: Mapping[str, ServedIndex], measures: Metrics) -> None:
    async def prometheus() -> Response:
        """What Prometheus reads."""
        text = await asyncio.get_running_loop().run_in_executor(None, measures.text)
        return Response(text, media_type=metrics.CONTENT_TYPE)

    text = {200: {"description": "Measures in Prometheus' format.", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    app.add_api_route(
        "/metrics",
        prometheus,
        operation_id="metrics",
        tags=["operation"],
        response_class=Response,
        responses={**text, **responses()},
    )


def _add_errors(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    async def of_problem(request: Request, problem: Any) -> Response:
        return problem.response(request.url.path)

    async def of_http(request: Request, error: Any) -> Response:
        words = {
            404: "There is nothing here; /docs lists what there is.",
            405: "This is not asked in this way; /docs says how.",
        }
        headers = dict(error.headers or {})
        if error.status_code == 405:  # one route of a path knows its own method alone
            routes = [route for router in (app, *routers) for route in router.routes if hasattr(route, "methods")]
            alike = [route.methods for route in routes if route.matches(request.scope)[0] is not Match.NONE]
            headers["Allow"] = ", ".join(sorted(set().union(*alike)))
        problem = ProblemError(error.status_code, words.get(error.status_code, str(error.detail)), headers=headers)
        return problem.response(request.url.path)

    async def of_milvus(request: Request, error: Any) -> Response:
        log.error("An index in Milvus could not be asked: %s", error)
        return later(503, "The index cannot be asked now; ask again in a moment.", 5).response(request.url.path)

    async def of_values(request: Request, error: Any) -> Response:
        faults = [(printable(".".join(map(str, fault["loc"][1:]))), fault["msg"]) for fault in error.errors()[:20]]
        return ProblemError(422, f"`{faults[0][0]}`: {faults[0][1]}.", faults=faults).response(request.url.path)

    app.add_exception_handler(ProblemError, of_problem)
    app.add_exception_handler(MilvusError, of_milvus)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_values)


def _describe(app: FastAPI) -> None:
    """Gives the description of the API the models that no route names by itself, and the tokens."""
    plain = app.openapi
    own = (ProblemDetails, schemas.SearchRequest, schemas.EmbedRequest, schemas.InferRequest)

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = plain()
            _, more = models_json_schema([(model, "validation") for model in own], ref_template="#/components/schemas/{model}")
            found["components"]["schemas"] |= more["$defs"]
            for unused in ("HTTPValidationError", "ValidationError"):
                found["components"]["schemas"].pop(unused, None)
            found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for methods in found["paths"].values():
                for method, operation in methods.items():
                    for status, answer in operation["responses"].items():
                        if status >= "4":  # FastAPI adds one of its own to 422
                            answer["content"] = PROBLEM
                    if "401" in operation["responses"]:
                        operation["security"] = [{"token": []}] if method in ("put", "delete") else [{}, {"token": []}]
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
