"""What the tests share: where real photos lie, which tests can run here, a tiny model, and photos made up for the purpose."""

import functools
import gc
import importlib.util
import os
import pathlib
import secrets
import shutil
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from PIL import Image

_VARIABLE = "RW_KERAS_TEST_DATA"
_MILVUS = "RW_KERAS_TEST_MILVUS"
_ALEXNET = "RW_KERAS_ALEXNET_WEIGHTS"
_PARTS = ("oxford5k_part/jpg", "oxford5k_part/gt", "paris6k_part/jpg")

# A loaded machine is slow, not wrong.
hypothesis.settings.register_profile("rw_keras", deadline=None)
hypothesis.settings.load_profile("rw_keras")


def pytest_configure(config):
    """Before pytest-xdist starts its workers: they share the cores, so each of them, and what its tests start, takes one."""
    if getattr(config.option, "numprocesses", None):
        for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")


def pytest_addoption(parser):
    parser.addoption(
        "--data", help=f"folder that holds {', '.join(_PARTS)}, for the tests marked `photos`; default: the variable {_VARIABLE}"
    )
    parser.addoption("--alexnet_weights", help=f"a file of AlexNet's weights; default: the variable {_ALEXNET}")


@pytest.hookimpl(trylast=True)  # after -m has taken out what is not to run
def pytest_collection_modifyitems(config, items):
    reasons = {"photos": _no_photos, "imagenet": _no_weights}
    reasons |= dict.fromkeys(
        ("slow", "environment", "backends", "full_counts", "browser", "cloud", "cluster", "milvus"), _not_asked_for
    )
    for marker, missing in reasons.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = missing(config, marker) if marked else None
        for item in marked if reason else ():
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish():
    """What the modules hold stays: the garbage collector need not go through it again and again."""
    gc.freeze()


def _not_asked_for(config, marker):
    if marker not in config.option.markexpr:
        return f"takes long; run with -m {marker}"
    return None


def _no_photos(config, _):
    if not _data(config):
        return f"no real photos at hand: pass --data=FOLDER, or set {_VARIABLE}, to a folder that holds {', '.join(_PARTS)}"
    return None


def _no_weights(config, _):
    from rw_keras.backbones.vgg16 import PUBLISHED  # loads TensorFlow, so only where a test asks for it

    if not PUBLISHED.cached():
        return f"VGG16's weights are not in {PUBLISHED.cached_by_us.parent}; `rw-keras demo` puts them there"
    return None


def _data(config):
    return config.getoption("--data") or os.environ.get(_VARIABLE)


@pytest.fixture(scope="session")
def data_folder(pytestconfig):
    """The folder of real photos, which holds all its parts."""
    folder = pathlib.Path(_data(pytestconfig))
    for part in _PARTS:
        if not (folder / part).is_dir():
            pytest.fail(
                f"{folder} does not hold {part}; pass --data=FOLDER, or set {_VARIABLE}, to a folder that does", pytrace=False
            )
    return folder


@pytest.fixture(scope="session")
def alexnet_weights(pytestconfig):
    """The path of a file of AlexNet's weights; without one the test is skipped."""
    path = pytestconfig.getoption("--alexnet_weights") or os.environ.get(_ALEXNET)
    if not path:
        pytest.skip(f"no weights of AlexNet at hand: pass --alexnet_weights=FILE, or set {_ALEXNET}, to a file that holds them")
    if not pathlib.Path(path).is_file():
        pytest.fail(f"there is no file {path}; pass --alexnet_weights=FILE, or set {_ALEXNET}, to one that exists", pytrace=False)
    return path


@pytest.fixture(scope="session")
def tiny_model():
    """A function (seed, arguments of `build_descriptor`) -> a new descriptor model of 12 dimensions, not whitened.

    Its network is one convolution without a bias, so a black photo gives a zero map; it needs photos of 8 x 8.
    """

    def build(seed=0, **arguments):
        import keras

        import rw_keras

        photos = keras.Input((None, None, 3), name="photos")
        kernel = keras.initializers.RandomNormal(stddev=0.01, seed=seed)
        convolution = keras.layers.Conv2D(
            12, 8, strides=8, activation="relu", use_bias=False, kernel_initializer=kernel, name="convolution"
        )
        network = keras.Model(photos, convolution(photos), name="tiny")
        return rw_keras.build_descriptor(network, **{"whitening": None, **arguments})

    return build


@pytest.fixture(scope="session")
def known_model(tiny_model):
    """As `tiny_model`, but the same model again for the same arguments, for tests that leave it as it is."""
    return functools.cache(tiny_model)


@pytest.fixture(scope="session")
def model(tiny_model):
    """One tiny model for all the tests that leave it as it is."""
    return tiny_model()


@pytest.fixture(scope="session")
def vgg16():
    """The descriptor model of the publication, for tests marked `imagenet` that leave it as it is."""
    import rw_keras

    return rw_keras.build_descriptor()


@pytest.fixture(scope="session")
def draw():
    """A function (seed, width, height) -> a photo `(H, W, 3)` uint8 of soft coloured spots; each seed gives another."""

    def photo(seed, width=64, height=48):
        spots = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype="uint8")
        return np.asarray(Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC))

    return photo


@pytest.fixture
def photo_folder(tmp_path, draw):
    """A folder of six photos that differ in content and shape, two of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    shapes = {
        "a.png": (64, 48),
        "b.png": (48, 64),
        "c.jpg": (80, 40),
        "d.png": (50, 50),
        "more/a.png": (96, 64),
        "more/e.png": (64, 96),
    }
    for seed, (name, shape) in enumerate(shapes.items()):
        Image.fromarray(draw(seed, *shape)).save(folder / name)
    return folder


class MilvusServer:
    """A Milvus server that only this machine reaches: what `milvus_server.py` runs.

    Attributes:
        port: on the loopback.
    """

    def __init__(self, folder, programs):
        program = pathlib.Path(__file__).with_name("milvus_server.py")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, program, folder, programs], **pipes)
        line = self._process.stdout.readline()
        if not line:
            pytest.skip(f"Milvus does not start here: {self._process.communicate()[1][-300:].strip()}")
        self.port = int(line)

    def tell(self, command):
        """Has it `kill`, `stop`, `start`, `freeze` or `thaw` the server."""
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer == "done\n", self._process.communicate()[1]

    def close(self):
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")  # it takes half a processor as long as it is there
def milvus_server(tmp_path_factory):
    """A `MilvusServer`; skips where pymilvus, or the wheel with the server, is not installed."""
    pytest.importorskip("pymilvus", reason='asks Milvus: pip install "rw_keras[milvus]"')
    if importlib.util.find_spec("milvus") is None:
        pytest.skip("starts a Milvus server: pip install --no-deps milvus==2.3.5")
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared
    server = MilvusServer(tmp_path_factory.mktemp("milvus"), shared / "milvus_programs")
    yield server
    server.close()


@pytest.fixture(params=["lite", "server"])
def milvus_place(request, tmp_path):
    """The address of an index that is not there yet: in a file of milvus-lite, and on a server."""
    pytest.importorskip("pymilvus", reason='asks Milvus: pip install "rw_keras[milvus]"')
    if request.param == "lite":
        pytest.importorskip("milvus_lite", reason='opens a file of milvus-lite: pip install "rw_keras[milvus]"')
        return f"milvus://{tmp_path / 'index.db'}"
    if not request.node.get_closest_marker("on_server") and os.environ.get(_MILVUS) != "all":
        pytest.skip(f"a server takes long for this, and milvus-lite is asked the same: set {_MILVUS}=all")
    port = request.getfixturevalue("milvus_server").port
    return f"milvus://127.0.0.1:{port}/{request.node.originalname}_{secrets.token_hex(4)}"


@pytest.fixture
def impatient(monkeypatch):
    """Writers of an index wait a moment for one another, in place of two seconds."""
    from rw_keras.retrieval import writer

    monkeypatch.setattr(writer, "PATIENCE", 0.05)


@pytest.fixture
def break_savez(monkeypatch):
    """A function (error): from then on `np.savez` writes a few bytes and raises it, as a full disk or Ctrl-C does."""

    def break_it(error):
        def failing(file, **arrays):
            file.write(b"half")
            raise error

        monkeypatch.setattr(np, "savez", failing)

    return break_it


class Runs(list):
    """The shapes that networks were run on, in order; `before[n]()` is called before run n."""

    def __init__(self):
        super().__init__()
        self.before = {}

    def interrupt(self, number, error):
        """Lets run `number` fail."""

        def fail():
            raise error

        self.before[number] = fail


@pytest.fixture
def computed(monkeypatch):
    """What the networks compute from here on."""
    from rw_keras.description import describe

    runs = Runs()

    def counting(real):
        def function(model):
            run = real(model)

            def counted(pixels):
                runs.append(pixels.shape)
                runs.before.get(len(runs), lambda: None)()
                return run(pixels)

            return counted

        return function

    for name in ("batch_function", "regions_function"):
        monkeypatch.setattr(describe, name, counting(getattr(describe, name)))
    return runs


@pytest.fixture(scope="module")  # while it runs, its process has an event loop, in which asyncio.run does not work
def chromium():
    """A browser, of Playwright; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="drives a browser: pip install playwright")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("drives a browser, and there is no Chromium on the path")
    with playwright.sync_playwright() as started:
        # A container's root has no sandbox; the pages are this test's own.
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-background-networking"])
        yield browser
        browser.close()
