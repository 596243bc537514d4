"""The page for people, and the one that draws the API: files of packages, nothing from another host."""

from __future__ import annotations

import pathlib

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from starlette.requests import Request
from swagger_ui_bundle import swagger_ui_path

from rw_keras.service import answers
from rw_keras.service.page_files import page_files
from rw_keras.service.problems import ProblemError

_DOCS = pathlib.Path(__file__).parent / "docs_files"
_DRAWS = {"start.js": _DOCS, "swagger-ui.css": swagger_ui_path, "swagger-ui-bundle.js": swagger_ui_path}


def add(app: FastAPI) -> None:
    """Adds the pages and the description of the API; none of them is part of that."""
    files = page_files()

    def answered(request: Request, name: str) -> Response:
        if name not in files:
            raise ProblemError(404, "There is nothing here.")
        file = files[name]
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media_type)

    async def page(request: Request) -> Response:
        return answered(request, "index.html")

    async def file_of_page(request: Request, name: str) -> Response:
        return answered(request, name)

    async def docs() -> Response:
        return FileResponse(_DOCS / "index.html")

    async def file_of_docs(name: str) -> Response:
        if name not in _DRAWS:
            raise ProblemError(404, "There is nothing here.")
        return FileResponse(pathlib.Path(str(_DRAWS[name])) / name)

    async def description() -> Response:
        return answers.Json(app.openapi())

    routes = {
        "/": page,
        "/page/{name}": file_of_page,
        "/docs": docs,
        "/docs/{name}": file_of_docs,
        "/openapi.json": description,
    }
    for path, function in routes.items():
        app.add_api_route(path, function, methods=["GET"], include_in_schema=False, response_model=None)
