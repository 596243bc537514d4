"""An index of a few photos, and applications that serve it."""

import asyncio
import io
import json
import threading

import numpy as np
import pytest
from numpy_describer import numpy_describer
from PIL import Image
from small_service import SHAPES, WRITE, client_of

import rw_keras
from rw_keras.retrieval import Index, columns
from rw_keras.service import Settings
from rw_keras.service.served import ServedIndex


@pytest.fixture(scope="session")
def shown(tmp_path_factory, draw):
    """A folder of sixteen photos, four of them below it, one of which is another's copy; and a table of metadata."""
    folder = tmp_path_factory.mktemp("served")
    photos = folder / "photos"
    (photos / "more").mkdir(parents=True)
    lines = ["name,city,year"]
    for seed in range(15):
        name = f"more/{seed:02d}.jpg" if seed % 4 == 3 else f"{seed:02d}.png"
        Image.fromarray(draw(seed, *SHAPES[seed % len(SHAPES)])).save(photos / name)
        lines.append(f"{name},{'Oxford' if seed % 2 else 'Paris'},{2000 + seed}")
    (photos / "twin.png").write_bytes((photos / "00.png").read_bytes())
    (folder / "table.csv").write_text("\n".join(lines))
    return folder


def _extracted(model, shown, folder):
    """An index of the photos with region vectors and metadata."""
    options = {"max_side": 80, "regions": "int8", "progress": False, "runtime": "tensorflow"}
    rw_keras.extract(model, shown / "photos", folder, **options)
    columns.add_columns(folder, columns.read_columns(shown / "table.csv"))
    return folder


@pytest.fixture(scope="session")
def made(shown):
    """(the folder of an index of these photos with region vectors, what described them): NumPy alone."""
    describer = numpy_describer(3)
    return _extracted(describer, shown, shown / "index"), describer


@pytest.fixture(scope="session")
def describer(made):
    return made[1]


@pytest.fixture(scope="session")
def keras_made(shown, tiny_model, tmp_path_factory):
    """As `made`, by a Keras model that can be saved, for tests of whole processes."""
    model = tiny_model(seed=3)
    rw_keras.fit_whitening(model, sorted((shown / "photos").glob("*.png")), progress=False)
    return _extracted(model, shown, tmp_path_factory.mktemp("keras") / "index"), model


@pytest.fixture(scope="session")
def keras_index(keras_made):
    """The index of the Keras model, opened."""
    return Index.load(keras_made[0])


@pytest.fixture(scope="session")
def index(made):
    """The index, opened apart from any service."""
    return Index.load(made[0])


@pytest.fixture
def serve(made, describer, tmp_path):
    """A function (settings) -> an asynchronous context of a client of an application that serves the index."""

    def serving(folder=None, name="index", describer=describer, raises=False, photos=None, **settings):
        served = ServedIndex(name, folder or made[0], describer, photos=photos, cache=tmp_path / "thumbnails")
        return client_of([served], Settings(**{"rate": None, "write_tokens": (WRITE,), **settings}), raises)

    return serving


@pytest.fixture(scope="session")
def shared(made, describer, tmp_path_factory):
    """A function (method, path, of httpx) -> the answer of one application for all tests that leave it as it is."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def finished(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    served = ServedIndex("index", made[0], describer, cache=tmp_path_factory.mktemp("thumbnails"))
    context = client_of([served], Settings(rate=None, write_tokens=(WRITE,)))
    client = finished(context.__aenter__())
    yield lambda method, path, **content: finished(client.request(method, path, **content))
    finished(context.__aexit__(None, None, None))
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def ask(serve, shared):
    """A function (method, path, settings, of httpx) -> the answer of an application, with settings of one that is made for it."""

    def asked(method, path, settings=None, **content):
        async def run():
            async with serve(**settings) as client:
                return await client.request(method, path, **content)

        return shared(method, path, **content) if settings is None else asyncio.run(run())

    return asked


@pytest.fixture
def search(ask):
    """A function (photo, fields) -> the answer to a search, as JSON or, with a photo's bytes, as a form."""

    def searched(photo=None, settings=None, **fields):
        if photo is None:
            return ask("POST", "/v1/search", settings, json=fields)
        words = {field: value if isinstance(value, str) else json.dumps(value) for field, value in fields.items()}
        return ask("POST", "/v1/search", settings, data=words, files={"file": ("query.png", photo)})

    return searched


@pytest.fixture(scope="session")
def encoded():
    """A function (pixels, format) -> the bytes of a file."""

    def encode(pixels, kind="PNG"):
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(pixels)).save(buffer, kind)
        return buffer.getvalue()

    return encode
