import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import rw_keras
from rw_keras.runtimes.keras_backend import BACKENDS

LAYERS = pathlib.Path(__file__).parent / "layers"
# What JAX compiles runs for a moment here, so it need not be fast; and it takes the processor for two devices.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=2"
PROGRAM = pathlib.Path(__file__).with_name("backend_program.py")


def on(backend, *arguments, **variables):
    """The output of a Python process in which Keras runs on a backend; a test of one that is not installed is skipped."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": backend, **variables},
        cwd=LAYERS.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.backends
@pytest.mark.parametrize("backend", BACKENDS[1:])  # on TensorFlow the tests of the layers run anyway
def test_layers_on(backend):
    on(backend, "-m", "pytest", LAYERS, "-q", "-n", "0", "-p", "no:cacheprovider")


@pytest.fixture(scope="module")
def made_by_tensorflow(tmp_path_factory, tiny_model, draw, pytestconfig):
    """A folder with models, photos, and an index that TensorFlow described; and the arrays that it makes of them."""
    folder = tmp_path_factory.mktemp("backends")
    (folder / "photos").mkdir()
    for seed, (width, height) in enumerate([(80, 64), (49, 80)] * 6):
        Image.fromarray(draw(seed, width, height)).save(folder / "photos" / f"{seed}.png")
    weights = pytestconfig.getoption("--alexnet_weights") or os.environ.get("RW_KERAS_ALEXNET_WEIGHTS")
    rw_keras.build_descriptor("alexnet", weights=weights).save(folder / "alexnet.keras")
    tiny = tiny_model()
    tiny.save(folder / "tiny.keras")
    rw_keras.extract(tiny, folder / "photos", folder / "index", runtime="keras", regions="int8", progress=False)
    return folder, numbers(folder, "tensorflow")


def numbers(folder, backend):
    """What `backend_program.py` makes of the folder on a backend."""
    variables = {"XDG_CACHE_HOME": str(folder / f"cache_{backend}"), "XLA_FLAGS": XLA_FLAGS}
    on(backend, PROGRAM, folder, folder / f"{backend}.npz", **variables)
    return dict(np.load(folder / f"{backend}.npz"))


@pytest.mark.backends
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_all_that_is_done_with_a_model_on(backend, made_by_tensorflow):
    folder, expected = made_by_tensorflow
    found = numbers(folder, backend)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        if name == "recipe":
            assert values == expected[name]
        else:
            np.testing.assert_allclose(values, expected[name], atol=1e-5, rtol=0, err_msg=name)
