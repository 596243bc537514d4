"""The page for people, and the one that draws the API: files of packages, nothing from another host."""

from __future__ import annotations

import pathlib

from fastapi import FastAPI
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

from rw_keras.service import answers
from rw_keras.service.problems import ProblemError

_PAGE, _DOCS = (pathlib.Path(__file__).parent / folder for folder in ("page", "docs_files"))
_DRAWS = {"start.js": _DOCS, "swagger-ui.css": swagger_ui_path, "swagger-ui-bundle.js": swagger_ui_path}


def add(app: FastAPI) -> None:
    """Adds the pages and the description of the API; none of them is part of that."""

    async def page() -> Response:
        if (_PAGE / "index.html").is_file():
            return FileResponse(_PAGE / "index.html", headers={"Cache-Control": "no-cache"})
        return RedirectResponse("/docs")

    async def docs() -> Response:
        return FileResponse(_DOCS / "index.html")

    async def file_of_docs(name: str) -> Response:
        if name not in _DRAWS:
            raise ProblemError(404, "There is nothing here.")
        return FileResponse(pathlib.Path(str(_DRAWS[name])) / name)

    async def description() -> Response:
        return answers.Json(app.openapi())

    for path, function in (("/", page), ("/docs", docs), ("/docs/{name}", file_of_docs), ("/openapi.json", description)):
        app.add_api_route(path, function, methods=["GET"], include_in_schema=False, response_model=None)
    if _PAGE.is_dir():
        app.mount("/page", StaticFiles(directory=_PAGE))
