"""The names of the runtime that is the Keras model itself, and models that are built in mixed precision."""

import json
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest

import rw_keras
from rw_keras import runtimes as engines
from rw_keras.retrieval import Index
from rw_keras.runtimes import keras_backend
from rw_keras.runtimes.describer import described_with
from rw_keras.runtimes.keras_backend import BACKENDS, settled_runtime_name


@pytest.fixture
def running_on(monkeypatch):
    """A function: from then on Keras says that it runs on another backend."""
    return lambda backend: monkeypatch.setattr(keras.backend, "backend", lambda: backend)


class TestNames:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_keras_is_its_backend(self, running_on, backend):
        running_on(backend)
        assert settled_runtime_name("keras") == settled_runtime_name(backend) == backend
        assert settled_runtime_name("ncnn") == "ncnn"
        assert engines.usable() == (backend, "openvino", "ncnn")

    def test_of_another_backend(self, model, running_on, tmp_path):
        with pytest.raises(ValueError, match=r'"jax" is Keras on jax, but it runs on tensorflow; set KERAS_BACKEND=jax.*"keras"'):
            rw_keras.describe(model, np.zeros((32, 32, 3), "uint8"), runtime="jax")
        for ask in (
            lambda: rw_keras.extract(model, [], tmp_path / "index", runtime="torch"),
            lambda: engines.load(model, "torch"),
            lambda: engines.load_cached(model.recipe, "torch"),
            lambda: engines.choose(model, runtimes=["torch"]),
        ):
            with pytest.raises(ValueError, match="set KERAS_BACKEND=torch"):
                ask()
        assert not (tmp_path / "index").exists()

    def test_of_a_backend_that_describes_nothing(self, running_on):
        running_on("numpy")
        with pytest.raises(ValueError, match=r"Keras runs on 'numpy', .* on tensorflow, jax, torch only; set KERAS_BACKEND"):
            keras_backend.backend()

    @pytest.mark.parametrize(
        ("variable", "configured", "expected"),
        [(None, None, "tensorflow"), ("torch", "jax", "torch"), ("", "jax", "jax"), (None, "{", "tensorflow")],
        ids=str,
    )
    def test_found_without_keras(self, tmp_path, monkeypatch, variable, configured, expected):
        monkeypatch.delitem(sys.modules, "keras")
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
        if variable is not None:
            monkeypatch.setenv("KERAS_BACKEND", variable)
        if configured is not None:
            content = configured if configured == "{" else json.dumps({"backend": configured})
            (tmp_path / "keras.json").write_text(content)
        assert keras_backend.backend() == expected


class TestMixedPrecision:
    @pytest.fixture(params=["mixed_bfloat16", "mixed_float16"])
    def mixed(self, request, tiny_model, known_model):
        """A model built under a policy, and the same one in float32."""
        keras.config.set_dtype_policy(request.param)
        try:
            built = tiny_model()
        finally:
            keras.config.set_dtype_policy("float32")
        built.set_weights(known_model().get_weights())
        return request.param, built, known_model()

    @pytest.mark.slow
    def test_its_values_and_its_recipe(self, mixed, draw):
        _, model, plain = mixed
        found, exact = (rw_keras.describe(one, draw(1, 80, 65)) for one in (model, plain))
        assert found.dtype == "float32" and abs(np.linalg.norm(found) - 1) < 1e-6
        assert 0.999 < found @ exact < 1 + 1e-6 and not np.array_equal(found, exact)
        assert model.recipe == plain.recipe
        assert not rw_keras.describe(model, np.zeros((32, 32, 3), "uint8")).any()

    def test_who_computes(self, mixed):
        policy, model, _ = mixed
        made = {"runtime": "tensorflow", "precision": policy, "computes_in": policy}
        for describer in (engines.load(model), engines.load(model, "keras")):
            assert described_with(describer) == described_with(model) == made
            assert describer.recipe == model.recipe
        with pytest.raises(ValueError, match=rf'computes in {policy}, as it was built.*use runtime="keras"'):
            engines.load(model, "ncnn")

    def test_its_index(self, mixed, photo_folder, tmp_path):
        policy, model, plain = mixed
        rw_keras.extract(model, photo_folder, tmp_path / "index", progress=False)
        assert rw_keras.extract(model, photo_folder, tmp_path / "index", progress=False).kept == 6  # nobody asks for a precision
        index = Index.load(tmp_path / "index")
        assert [made["computes_in"] for made in index.described_with] == [policy]
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            assert index.search_photo(model, photo_folder / "a.png", k=1)[0][0] == "a.png"
        with pytest.warns(UserWarning, match=f"at the precision '{policy}'"):
            index.search_photo(plain, photo_folder / "a.png")

    @pytest.mark.slow
    def test_saved_and_loaded(self, mixed, draw, tmp_path):
        policy, model, _ = mixed
        model.save(tmp_path / "model.keras")
        loaded = rw_keras.load_model(tmp_path / "model.keras")
        assert described_with(loaded)["computes_in"] == policy
        np.testing.assert_array_equal(rw_keras.describe(loaded, draw(1)), rw_keras.describe(model, draw(1)))

    def test_a_model_in_float32_is_that_under_every_policy(self, tiny_model, tmp_path):
        tiny_model().save(tmp_path / "plain.keras")
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            assert described_with(rw_keras.load_model(tmp_path / "plain.keras"))["computes_in"] == "float32"
        finally:
            keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_loaded_to_know_the_backend(backend):
    program = "import sys; from rw_keras import runtimes; print(runtimes.usable()[0], 'keras' in sys.modules, 'jax' in sys.modules)"
    environment = {"KERAS_BACKEND": backend, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == f"{backend} False False\n", done.stderr
