"""rw-keras serve NAME...: serve indices over HTTP, with an API and a page, at http://127.0.0.1:8000.

The first index is the default. `--demo` makes a small one and serves it. The tokens that may search,
and those that may change an index as well, come from the variables RW_KERAS_READ_TOKEN and
RW_KERAS_WRITE_TOKEN, or from --tokens FILE with lines such as `read TOKEN` and `write TOKEN`.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import pathlib
import sys
import webbrowser
from argparse import Namespace
from typing import Any

from rw_keras.commands import model_flags, runtime_flags
from rw_keras.commands.models import check_model_flags, describer_of, load_keras_quietly, recipe_of_index, take_files
from rw_keras.commands.parser import Kind, Parser, UsageError, number, or_none, text, whole_number
from rw_keras.commands.programs import DONE, FAILED
from rw_keras.files import extra, printable
from rw_keras.service.settings import LOOPBACK_HOSTS, Settings, is_loopback, read_tokens

_TF_SERVING = "tf-serving="
# A flag a limit: what the help says of it.
LIMITS = {
    "body_mib": "MiB of one request's body; else 413.",
    "bodies_mib": "MiB of the bodies of all requests at once; else 503.",
    "megapixels": "Megapixels of one photo; else 422.",
    "active": "Requests that are worked on at once.",
    "queue": "Requests that wait for that; else 429.",
    "seconds": "Seconds of one request, waiting included; else 504.",
    "body_seconds": "Seconds for a client to send a body; else 408.",
    "header_seconds": "Seconds for a client to send headers, and to take a part of an answer.",
    "stop_seconds": "Seconds for requests in flight to end when the service stops.",
    "rate": "Requests a second of one client, on average; else 429.",
    "connections": "Connections at once; else 503.",
    "header_kib": "KiB of a request's headers; else 431.",
    "field_kib": "KiB of a field of a form; else 413.",
    "images": "Photos, names and vectors of one query.",
    "max_k": "Hits of one page.",
    "ranking": "Hits that can be paged to.",
    "cursor_seconds": "Seconds that a ranking can be paged after its last use.",
    "cursor_mib": "MiB of all rankings that are kept.",
    "explained": "Hits that are described again to explain them, where the index keeps no regions.",
    "decoders": "Threads that decode photos.",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a server process is to serve; it can be pickled.

    Attributes:
        folders: name -> folder of the index, the default first.
        values: the flags.
        settings: the limits.
    """

    folders: dict[str, str]
    values: Namespace
    settings: Settings


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.flag("host", "The address to listen on; for others than this machine a token is needed.", text("HOST"), "127.0.0.1")
    parser.flag("port", "The port to listen on; 0: any that is free.", whole_number(0, 65535), 8000)
    parser.flag("photos", "Where the photos of the one index lie. Default: their location at index time.", text("FOLDER"))
    parser.flag("workers", "Processes that serve; each holds the model.", whole_number(1), 1)
    parser.switch("demo", "Make an index of photos that need no download, and serve it.")
    parser.switch("open", "Open the page in a browser.")
    parser.section("Who may ask")
    parser.flag("tokens", "A file of lines such as `read TOKEN` and `write TOKEN`.", text("FILE"))
    words = "A name that clients may call this service by, in the header Host; *: any. May be repeated."
    parser.flag("allowed_hosts", words, text("HOST"), [], repeat=True)
    words = "An origin, such as https://photos.example, whose pages may ask in a browser (CORS). May be repeated."
    parser.flag("allowed_origins", words, text("ORIGIN"), [], repeat=True)
    parser.section("The limits, of each worker")
    usual = Settings()
    for field in dataclasses.fields(Settings):
        if field.name in LIMITS:
            kind = whole_number(1) if field.type == "int" else number(0)
            kind = or_none(kind) if field.name == "rate" else kind
            parser.flag(field.name, LIMITS[field.name], kind, getattr(usual, field.name))
    parser.section("The model, where the index does not say it")
    model_flags.add_model(parser)
    model_flags.add_weights(parser)
    parser.section("The computation")
    words = (
        "What computes the network: keras, on its backend, openvino, ncnn, auto, the fastest that is installed; or "
        "tf-serving=http://HOST:PORT/v1/models/NAME."
    )
    parser.flag("runtime", words, Kind(_runtime, "NAME"), "auto")
    runtime_flags.add_precision(parser)


def _runtime(given):
    if not given.startswith(_TF_SERVING) and given not in runtime_flags.RUNTIMES:
        raise ValueError(f"value should be one of <{'|'.join(runtime_flags.RUNTIMES)}|{_TF_SERVING}URL>")
    return given


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    check_model_flags(values)
    if not values.arguments and not values.demo:
        raise UsageError("serve takes one index or more, NAME..., or --demo")
    if values.photos is not None and len(values.arguments) + values.demo != 1:
        raise UsageError("--photos is of one index; leave it out, and each index names its own")
    settings = _settings(values)
    log_to_stderr()
    with extra("serve"):
        from rw_keras.service import running
    folders = _folders(values.arguments)
    if values.demo:
        folder, values.photos = demo_index()
        folders = {"demo": str(folder), **folders}
    _check_workers(values.workers, folders.values())
    plan = Plan(folders, values, settings)
    _check(plan)

    def announce(address):
        print(f"rw-keras serves {', '.join(map(printable, folders))} at {address}", flush=True)
        if values.open:
            webbrowser.open(address)

    make = functools.partial(make_app, plan)
    return FAILED if running.run(make, settings, values.host, values.port, values.workers, announce) else DONE


def log_to_stderr() -> None:
    """Warnings of the service, and of what talks to clients, go to standard error in plain words. The root logger is absl's, once
    Keras is loaded."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("rw-keras: %(message)s"))
    for name in ("rw_keras", "uvicorn"):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(logging.WARNING)


def _settings(values):
    """The limits that the flags say, or a sentence about what would be open to everybody."""
    reading, writing = read_tokens(values.tokens)
    is_own = is_loopback(values.host)
    if not is_own and not reading and not writing:
        raise UsageError(
            f"--host {values.host} is open to other machines, and there is no token; set RW_KERAS_READ_TOKEN, give --tokens FILE, "
            "or listen on 127.0.0.1"
        )
    hosts = tuple(values.allowed_hosts)
    if not hosts:
        if values.host in ("0.0.0.0", "::", ""):
            raise UsageError(
                f"--host {values.host} has many names; give those by which clients call this service with --allowed_hosts, or *"
            )
        hosts = (*LOOPBACK_HOSTS, values.host)
    limits = {name: getattr(values, name) for name in LIMITS}
    return Settings(
        **limits,
        allowed_hosts=hosts,
        allowed_origins=tuple(values.allowed_origins),
        read_tokens=reading,
        write_tokens=writing,
        open_reading=is_own and not reading,
    )


def _folders(arguments):
    """Name -> place of indices: the own name of the folder or collection, or all of what was given where two have the same."""
    from rw_keras.retrieval.milvus import Address, is_milvus
    from rw_keras.retrieval.places import shown

    own = [Address.of(one).collection if is_milvus(one) else pathlib.Path(os.path.abspath(one)).name for one in arguments]
    names = own if len(set(own)) == len(own) else list(map(shown, arguments))
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise UsageError(f"the index {twice} is given twice; give each once")
    return dict(zip(names, arguments))


def _check_workers(count, places):
    """A file of milvus-lite is open in one process at a time."""
    from rw_keras.retrieval.milvus import Address, is_milvus

    for place in filter(is_milvus, places):
        if count > 1 and Address.of(place).is_lite:
            raise UsageError(
                f"--workers {count} are {count} processes, and {Address.of(place)} is a file of milvus-lite, which one at a time "
                "may open; leave --workers out, or serve a folder or an index on a Milvus server"
            )


def _check(plan):
    """What can be refused without a model is."""
    from rw_keras.retrieval import places

    for name, folder in plan.folders.items():
        about = places.about(folder)
        if about is None:
            places.summary(folder)  # says that there is none
        if about["recipe"] is None:
            raise ValueError(
                f"{places.shown(folder)} does not say what model made it, so no photo can be described as its own were"
            )
        recipe_of_index(name, about["recipe"])


def make_app(plan: Plan, folder: str | None = None) -> Any:
    """The application of a plan, its models loaded and warm.

    Args:
        plan: what to serve.
        folder: see `rw_keras.service.create_app`.

    Raises:
        ValueError, OSError, ImportError: when an index cannot be opened, or its model not be built.
    """
    from rw_keras.runtimes import cache
    from rw_keras.service.app import create_app
    from rw_keras.service.served import ServedIndex

    log_to_stderr()  # a worker is a process of its own
    values, served = plan.values, []
    of_each = _Describers(values)
    for name, folder_of_index in plan.folders.items():
        describer = of_each.of(folder_of_index)
        thumbnails = cache.folder().parent / "thumbnails"
        one = ServedIndex(name, folder_of_index, describer, photos=values.photos, cache=thumbnails)
        of_each.compare(one)
        served.append(one)
    return create_app(served, plan.settings, folder=folder, network_threads=of_each.threads)


class _Describers:
    """What describes as indices were described; of indices that one model made it is the same."""

    def __init__(self, values):
        from rw_keras.service.tf_serving import TFServing

        self._values, self._known = values, []
        is_elsewhere = values.runtime.startswith(_TF_SERVING)
        self._serving = TFServing(values.runtime.removeprefix(_TF_SERVING), values.seconds) if is_elsewhere else None
        self.threads = 4 if is_elsewhere else 1

    def of(self, folder):
        from rw_keras.retrieval import Index, places

        about = places.about(folder)
        recipe = recipe_of_index(places.shown(folder), about["recipe"]).of_any_size()
        for made, describer in self._known:
            if not made.differences(recipe, places.shown(folder)):
                return describer
        describer = self._serving.describer(Index.open(folder)) if self._serving else self._loaded(folder, about)
        _warm(describer, about["recipe"], with_regions=bool(about.get("regions")))
        self._known.append((recipe, describer))
        return describer

    def _loaded(self, folder, about):
        from rw_keras import runtimes

        own = Namespace(**vars(self._values))
        take_files(own, about)
        load_keras_quietly()
        model = describer_of(recipe_of_index(folder, about["recipe"]), own)
        return model if isinstance(model, runtimes.Describer) else runtimes.load(model, "keras")

    def compare(self, served):
        """Says what is not known of a model that TF Serving serves."""
        unknown = self._serving.compare(served.describer, served.index, served.photos) if self._serving else None
        if unknown is not None:
            print(f"rw-keras: {unknown}", file=sys.stderr)


def _warm(describer, recipe, with_regions):
    """The first photo takes a runtime seconds, so it is not a client's."""
    import numpy as np

    from rw_keras import runtimes
    from rw_keras.model.recipe import max_side_of

    height, width = runtimes.usual_size(max_side_of(recipe), recipe.get("min_side", 1))
    pixels = np.zeros((1, height, width, 3), "uint8")
    describer(pixels)
    if with_regions:
        describer.with_regions(pixels)


def demo_index() -> tuple[pathlib.Path, str]:
    """The index of the embedded photos, made where it is not there yet, and the folder of its photos.

    Raises:
        ImportError: when scikit-learn or scikit-image, which bring the photos, is not installed.
        OSError: when the cache cannot be written.
    """
    from PIL import Image

    from rw_keras.photos import embedded
    from rw_keras.retrieval import store
    from rw_keras.runtimes import cache

    home = cache.folder().parent / "demo"
    photos, index = home / "photos", home / "demo"
    if store.about(index) is None:
        found, queries = embedded.load()
        photos.mkdir(parents=True, exist_ok=True)
        views = {name: view.photo for name, view in queries.items() if not name.endswith(("half", "dimmed"))}
        for name, pixels in {**found, **views}.items():
            Image.fromarray(pixels).save(photos / f"{name}.jpg", quality=92)
        load_keras_quietly()
        from rw_keras.description.extract import extract
        from rw_keras.model.build import build_descriptor

        print("rw-keras: describes the photos of the demo, once, in a minute or so", file=sys.stderr)
        extract(build_descriptor(preset="recommended"), photos, index, max_side=384, source=str(photos))
    return index, str(photos)
