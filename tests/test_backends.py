import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

LAYERS = pathlib.Path(__file__).parent / "layers"


@pytest.mark.backends
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_layers_on(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(LAYERS), "-q", "-n", "0", "-p", "no:cacheprovider"],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=LAYERS.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
