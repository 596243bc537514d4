"""Bodies of requests: JSON, or a form with a photo as a file, to the same models."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from typing import Any, TypeVar

import pydantic
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import FormParser, parse_options_header
from starlette.requests import Request

from rw_keras.files import printable
from rw_keras.service.engine import Upload
from rw_keras.service.problems import ProblemError
from rw_keras.service.settings import Settings

M = TypeVar("M", bound=pydantic.BaseModel)
JSON, FORM = "application/json", "multipart/form-data"
# Bodies of fewer bytes are parsed where they are; others by a thread.
_AT_ONCE = 16 << 10
# Fields of a form whose words are taken as they are.
_WORDS = ("index", "name", "cursor")


async def parsed(request: Request, model: type[M], settings: Settings) -> tuple[M, list[Upload]]:
    """What a request asks, and the photos that a form has as files.

    Raises:
        ProblemError: 415 for another type, 413 for a field that is too large, 400 for a body that cannot be read, 422 for what the
            model does not take.
    """
    given = request.headers.get("content-type", "")
    kind, options = parse_options_header(given)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ProblemError(415, "A body is taken as it is, without `Content-Encoding`.")
    if kind not in (JSON.encode(), FORM.encode()):
        raise ProblemError(415, f"A body here is {JSON} or {FORM}, but got {printable(given[:80])!r}; say which in `Content-Type`.")
    body = await request.body()
    if kind == JSON.encode():
        return await _aside(body, _from_json, body, model), []
    return await _aside(body, _from_form, body, options.get(b"boundary"), model, settings)


async def _aside(body, function, *arguments):
    return function(*arguments) if len(body) < _AT_ONCE else await asyncio.to_thread(function, *arguments)


def _from_json(body, model):
    try:
        # Not pydantic's own parser: a name that is no UTF-8 has lone surrogates, which that refuses.
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, f"The body is no JSON: {printable(str(error))[:200]}.") from None
    return checked(fields, model)


def checked(fields: Any, model: type[M]) -> M:
    """Plain values as a model; a `ProblemError` of 422 for what it does not take."""
    try:
        return model.model_validate(fields)
    except pydantic.ValidationError as error:
        raise refused(error) from None


def _from_form(body, boundary, model, settings):
    if boundary is None:
        raise ProblemError(400, "The form has no boundary in its `Content-Type`.")
    fields: dict[str, Any] = {}
    files: list[Upload] = []
    most_fields = len(model.model_fields) + settings.images

    def count():
        if len(fields) + len(files) >= most_fields:
            raise ProblemError(413, f"A form has at most {most_fields} parts.")

    def on_field(field):
        count()
        name = (field.field_name or b"").decode("utf8", "replace")
        value = field.value or b""
        if len(value) > settings.field_kib * 1024:
            raise ProblemError(
                413, f"The field {name[:80]!r} holds more than {settings.field_kib:g} KiB; send it as JSON, or less."
            )
        if name in fields:
            raise ProblemError(422, f"The field {name[:80]!r} is given twice; give it once.")
        fields[name] = _value(name, value)

    def on_file(file):
        count()
        file.file_object.seek(0)
        content = file.file_object.read()
        if file.field_name != b"file":
            raise ProblemError(422, 'A photo is the part "file" of a form.')
        named = (file.file_name or b"").decode("utf8", "replace").replace("\\", "/").rpartition("/")[2]
        files.append(Upload(content, printable(named[-80:]) or "the photo"))

    config = {"MAX_MEMORY_FILE_SIZE": settings.body_bytes + 1, "MAX_FIELDS": most_fields}
    try:
        parser = FormParser(FORM, on_field, on_file, boundary=boundary, config=config)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise ProblemError(400, f"The form cannot be read: {printable(str(error))[:200]}.") from None
    return checked(fields, model), files


def _value(name, value):
    """The value of a field: JSON, or words as they are."""
    try:
        text = value.decode("utf8", "surrogateescape")
        if name in _WORDS or (name == "within" and not text.lstrip().startswith("[")):
            return text
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ProblemError(422, f"The field {name[:80]!r} of the form is no JSON.", faults=[(name[:80], "give JSON")]) from None


def refused(error: pydantic.ValidationError) -> ProblemError:
    """The problem of what a model does not take."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    faults = [(printable(".".join(map(str, fault["loc"])))[:200], fault["msg"]) for fault in found[:20]]
    first = faults[0]
    return ProblemError(422, f"{first[0] or 'The body'}: {first[1]}.", faults=faults)


def from_base64(text: str, name: str) -> Upload:
    """The photo that a field holds.

    Raises:
        ProblemError: 422 when it is no base64.
    """
    try:
        return Upload(base64.b64decode(text, validate=True), name)
    except (binascii.Error, ValueError):
        raise ProblemError(422, f"{name} is no base64; encode the photo's bytes so.", faults=[(name, "give base64")]) from None
