"""What a query costs over HTTP, beside the same query in process.

    python benchmarks/service.py                                     # 100 000 made-up rows, VGG16 on each runtime that is installed
    python benchmarks/service.py --runtimes openvino --clients 1,8   # one runtime, fewer clients
    python benchmarks/service.py --tf_serving                        # and with the stand-in for TF Serving of the tests

Photos are the embedded ones (`pip install "rw_keras[demo]"`), as JPEGs, at the size of the index. In process is
`Index.search_photo` of a file, one after the other, by turns with those of one client. The service is a process of `rw-keras serve`
that was started for it, with its default limits but those of the rate and the time; each client is a thread with a connection of
its own that asks as soon as it is answered. "beyond" is the median of one client over that in process, less 1: what the service
adds to a query. Clients and service share this machine's processors.
"""

import concurrent.futures
import contextlib
import importlib.util
import logging
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import httpx
import numpy as np
from absl import app, flags
from PIL import Image

from rw_keras import build_descriptor, export_saved_model, runtimes
from rw_keras.model.recipe import Recipe
from rw_keras.photos import embedded
from rw_keras.retrieval import Index

_ROWS = flags.DEFINE_integer("rows", 100_000, "Descriptors in the index.", lower_bound=1)
_RUNTIMES = flags.DEFINE_list("runtimes", None, "What computes the network. Default: all that are installed.")
_PRECISION = flags.DEFINE_enum("precision", "exact", ["exact", "fast", "int8"], "What the runtimes keep to.")
_CLIENTS = flags.DEFINE_list("clients", ["1", "8", "32"], "How many clients at once.")
_SECONDS = flags.DEFINE_float("seconds", 20, "How long each is measured.", lower_bound=1)
_MAX_SIDE = flags.DEFINE_integer("max_side", 512, "Longer side of the photos in pixels.", lower_bound=16)
_WORKERS = flags.DEFINE_integer("workers", 1, "Processes of the service.", lower_bound=1)
_TF_SERVING = flags.DEFINE_bool("tf_serving", False, "Measure the stand-in for TF Serving as well.")
_K = 20
# Queries of a turn.
_TURN = 4


def _index(model, folder):
    """An index of made-up rows that the model could have made."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((_ROWS.value, model.output_shape[-1]), dtype="float32")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    recipe = Recipe.of(model).at(_MAX_SIDE.value).to_dict()
    Index([f"{number:07d}.jpg" for number in range(len(rows))], rows, recipe=recipe).save(folder)


def _photos(folder):
    """The files of JPEGs."""
    paths = []
    for name, pixels in embedded.load(_MAX_SIDE.value)[0].items():
        paths.append(folder / f"{name}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=92)
    return paths


def _told(name, seconds, whole, beyond=None):
    """A line of the table."""
    quantiles = statistics.quantiles(seconds, n=100, method="inclusive")
    p50, p95, p99 = (1000 * quantiles[place - 1] for place in (50, 95, 99))
    words = f"{name:34s}{len(seconds) / whole:9.2f}{p50:10.1f}{p95:10.1f}{p99:10.1f}"
    print(words + ("" if beyond is None else f"{100 * (p50 / beyond - 1):9.1f} %"), flush=True)
    return p50


def _by_turns(describer, index, photos, address):
    """Seconds of queries in process, and of those of one client: by turns, so that what else goes on falls on both alike."""
    with httpx.Client(base_url=address, timeout=120) as client:

        def own(photo):
            index.search_photo(describer, photo, k=_K)

        def asked(photo):
            client.post("/v1/search", files={"file": photo.read_bytes()}, data={"k": str(_K)}).raise_for_status()

        for photo in photos:  # warms up
            own(photo)
            asked(photo)
        taken, began = {own: [], asked: []}, time.perf_counter()
        while time.perf_counter() - began < 2 * _SECONDS.value:
            for ask, seconds in taken.items():
                ask(
                    photos[0]
                )  # the threads of the runtime of the turn before wait for work a while, and take the processor from it
                for photo in photos[:_TURN]:
                    start = time.perf_counter()
                    ask(photo)
                    seconds.append(time.perf_counter() - start)
    return taken.values()


@contextlib.contextmanager
def _served(folder, runtime):
    """The address of a service."""
    command = [sys.executable, "-m", "rw_keras", "serve", folder, "--port", "0", "--runtime", runtime, "--rate", "none"]
    command += ["--precision", _PRECISION.value, "--workers", str(_WORKERS.value), "--seconds", "120"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        yield re.search(r"http://\S+", line)[0]
    finally:
        process.terminate()
        process.wait()


def _over_http(address, photos, clients):
    """Seconds of the requests of so many clients, and of all of them."""
    until = time.perf_counter() + _SECONDS.value
    photos = [photo.read_bytes() for photo in photos]

    def ask(number):
        seconds = []
        with httpx.Client(base_url=address, timeout=120) as client:
            while time.perf_counter() < until:
                photo = photos[(number + len(seconds)) % len(photos)]
                start = time.perf_counter()
                answer = client.post("/v1/search", files={"file": photo}, data={"k": str(_K)})
                answer.raise_for_status()
                seconds.append(time.perf_counter() - start)
        return seconds

    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        found = [seconds for part in pool.map(ask, range(clients)) for seconds in part]
    return found, time.perf_counter() - began


def _installed():
    return [name for name in runtimes.usable() if importlib.util.find_spec(runtimes.RUNTIMES[name].PACKAGE)]


@contextlib.contextmanager
def _tf_serving(model, folder):
    """`--runtime` for the stand-in for TF Serving of the tests."""
    sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests" / "export"))
    from serving import served

    export_saved_model(model, folder / "rw_vgg16" / "1", max_side=_MAX_SIDE.value)
    with served(folder / "rw_vgg16" / "1", "rw_vgg16") as (_, address):
        yield f"tf-serving={address}"


def _measure(name, runtime, describer, folder, photos):
    with _served(folder, runtime) as address:
        _over_http(address, photos, 1)
        for clients in map(int, _CLIENTS.value):
            if clients == 1 and describer is not None:
                own, asked = _by_turns(describer, Index.load(folder), photos, address)
                base = _told(f"{name}, in process", own, sum(own))
                _told(f"{name}, 1 client", asked, sum(asked), base)
            else:
                _told(f"{name}, {clients} client{'s' * (clients > 1)}", *_over_http(address, photos, clients))


def main(_):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("httpx").setLevel("WARNING")
    model = build_descriptor()
    print(f"{_ROWS.value} x {model.output_shape[-1]}, photos of {_MAX_SIDE.value} pixels, k = {_K}, {os.cpu_count()} cores")
    print(f"{'':34s}{'a second':>9s}{'p50 ms':>10s}{'p95 ms':>10s}{'p99 ms':>10s}{'beyond':>11s}")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        _index(model, folder / "index")
        photos = _photos(folder)
        for name in _RUNTIMES.value or _installed():
            describer = runtimes.load(model, name, _PRECISION.value, size=runtimes.usual_size(_MAX_SIDE.value))
            _measure(name, name, describer, folder / "index", photos)
        if _TF_SERVING.value:
            with _tf_serving(model, folder) as runtime:
                _measure("TF Serving's stand-in", runtime, None, folder / "index", photos)


if __name__ == "__main__":
    app.run(main)
