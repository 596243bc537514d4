"""Describes photos with a served model over REST. Needs nothing but Python.

    python examples/serve/client_rest.py photo1.jpg photo2.jpg
    python examples/serve/client_rest.py --box 136,34,648,955 query.jpg

Prints one line a photo: its name and the first numbers of its descriptor; `--output descriptors.json` keeps them whole. A broken
photo fails the request it is in, so after a failed request each of its photos is asked for alone, and the broken ones are listed.
"""

import argparse
import base64
import json
import pathlib
import sys
import urllib.error
import urllib.request


class RequestError(Exception):
    """The server refused what a request holds; the message is its own."""


class ServerError(Exception):
    """The server cannot be asked, or does not know the model: no photo's fault."""


def describe(url, photos, boxes=None, timeout=60):
    """Descriptors of encoded photos.

    Args:
        url: the model's address, such as "http://localhost:8501/v1/models/rw_vgg16".
        photos: the bytes of each file.
        boxes: (x1, y1, x2, y2) of each, or `None` for whole photos.
        timeout: seconds without an answer.

    Returns:
        One list of numbers a photo.
    """
    encoded = [{"b64": base64.b64encode(photo).decode("ascii")} for photo in photos]
    body = {"signature_name": "serving_default", "instances": [{"image_bytes": photo} for photo in encoded]}
    if boxes is not None:
        instances = [{"image_bytes": photo, "box": list(box)} for photo, box in zip(encoded, boxes)]
        body = {"signature_name": "query", "instances": instances}
    request = urllib.request.Request(f"{url}:predict", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        message = error.read().decode("utf8", "replace")
        if error.code == 400:
            raise RequestError(message) from error
        raise ServerError(f"{url} answered {error.code}: {message}") from error
    except OSError as error:
        raise ServerError(f"{url} could not be asked: {error}; is the server running?") from error


def describe_each(ask, photos, boxes=None):
    """Asks for all at once; where that fails, for each alone. Yields a descriptor or a `RequestError` for each photo."""
    try:
        yield from ask(photos, boxes)
    except RequestError as error:
        if len(photos) == 1:
            yield error
            return
        for position, photo in enumerate(photos):
            yield from describe_each(ask, [photo], None if boxes is None else [boxes[position]])


def run(make_ask, default_server, description):
    """The command line that both clients share; `make_ask(server)` gives the function that sends one request."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("photos", nargs="+", type=pathlib.Path)
    parser.add_argument("--server", default=default_server)
    parser.add_argument("--box", type=_box, help="x1,y1,x2,y2 in pixels of the photo; for all photos")
    parser.add_argument(
        "--batch", type=int, default=8, help="photos a request; a batching server takes no more than its largest batch"
    )
    parser.add_argument("--output", type=pathlib.Path, help="a JSON file: photo -> descriptor")
    given = parser.parse_args()
    try:
        return _run(given, make_ask(given.server))
    except (ServerError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1


def _box(text):
    corners = tuple(float(number) for number in text.split(","))
    if len(corners) != 4:
        raise ValueError(text)
    return corners


def _run(given, ask):
    found, broken, box = {}, 0, given.box
    for start in range(0, len(given.photos), given.batch):
        paths = given.photos[start : start + given.batch]
        boxes = None if box is None else [box] * len(paths)
        for path, result in zip(paths, describe_each(ask, [path.read_bytes() for path in paths], boxes)):
            if isinstance(result, RequestError):
                broken += 1
                print(f"{path}: {result}", file=sys.stderr)
                continue
            found[str(path)] = [float(number) for number in result]
            print(f"{path}: {len(found[str(path)])} numbers, {', '.join(f'{number:.5f}' for number in found[str(path)][:4])}, ...")
    if given.output:
        given.output.write_text(json.dumps(found))
    return 3 if broken else 0


if __name__ == "__main__":
    sys.exit(
        run(
            lambda server: lambda photos, boxes: describe(server, photos, boxes),
            "http://localhost:8501/v1/models/rw_vgg16",
            "Describes photos with a served model over REST.",
        )
    )
