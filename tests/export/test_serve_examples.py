"""The clients of examples/serve, as a user starts them, against a server that speaks TF Serving's protocols."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from serving import served

import rw_keras

_EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "serve"
CLIENTS = ("client_grpc.py", "client_rest.py")
# TensorFlow's protocol takes a process of this one seconds to load.
QUICK = (pytest.param("client_grpc.py", marks=pytest.mark.slow), "client_rest.py")


@pytest.fixture(scope="module")
def model(tiny_model, draw):
    model = tiny_model(seed=1)
    rw_keras.fit_whitening(model, [draw(seed, 90, 70) for seed in range(9)], progress=False)
    return model


@pytest.fixture(scope="module")
def addresses(model, tmp_path_factory):
    """Client -> the address it asks."""
    folder = tmp_path_factory.mktemp("serving") / "rw_vgg16" / "1"
    rw_keras.export_saved_model(model, folder)
    with served(folder, "rw_vgg16") as found:
        yield dict(zip(CLIENTS, found))


@pytest.fixture(scope="module")
def files(draw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed, size in enumerate([(64, 48), (48, 64), (100, 33)]):
        Image.fromarray(draw(seed, *size)).save(folder / f"{seed}.jpg")
    return sorted(folder.iterdir())


def run(client, address, *arguments):
    command = [sys.executable, _EXAMPLES / client, "--server", address, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
class TestClient:
    @pytest.mark.slow
    @pytest.mark.parametrize("client", CLIENTS)
    def test_gives_the_digits_of_describe(self, client, addresses, model, files, tmp_path):
        asked = run(client, addresses[client], *files, "--output", tmp_path / "out.json")
        assert asked.returncode == 0, asked.stderr
        found = json.loads((tmp_path / "out.json").read_text())
        assert list(found) == [str(file) for file in files]
        np.testing.assert_allclose(list(found.values()), rw_keras.describe(model, files), atol=1e-6)
        assert [line.partition(":")[0] for line in asked.stdout.splitlines()] == [str(file) for file in files]

    @pytest.mark.parametrize("client", QUICK)
    def test_box(self, client, addresses, model, files, tmp_path):
        asked = run(client, addresses[client], files[0], "--box", "5,4,50,40", "--output", tmp_path / "out.json")
        assert asked.returncode == 0, asked.stderr
        (found,) = json.loads((tmp_path / "out.json").read_text()).values()
        np.testing.assert_allclose(found, rw_keras.describe(model, files[0], box=(5, 4, 50, 40)), atol=1e-6)

    @pytest.mark.parametrize("client", QUICK)
    def test_a_broken_photo_costs_no_other_photo(self, client, addresses, model, files, tmp_path):
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(files[0].read_bytes()[:-300])
        asked = run(client, addresses[client], files[0], broken, files[1], "--output", tmp_path / "out.json")
        assert asked.returncode == 3
        assert str(broken) in asked.stderr
        found = json.loads((tmp_path / "out.json").read_text())
        np.testing.assert_allclose(list(found.values()), rw_keras.describe(model, files[:2]), atol=1e-6)

    @pytest.mark.parametrize("client", QUICK)
    def test_no_server(self, client, addresses, files):
        address = {"client_grpc.py": "127.0.0.1:9", "client_rest.py": "http://127.0.0.1:9/v1/models/x"}[client]
        self.said_in_a_line(run(client, address, files[0]), 1)

    @pytest.mark.parametrize("client", QUICK)
    def test_no_photo(self, client, addresses, tmp_path):
        self.said_in_a_line(run(client, addresses[client], tmp_path / "missing.jpg"), 1, "missing.jpg")

    @pytest.mark.parametrize("client", QUICK)
    @pytest.mark.parametrize("box", ["1,a,3,4", "1,2,3"])
    def test_no_box(self, client, addresses, files, box):
        self.said_in_a_line(run(client, addresses[client], files[0], "--box", box), 2, box)

    def said_in_a_line(self, asked, code, word=""):
        assert asked.returncode == code
        assert "Traceback" not in asked.stderr
        assert word in asked.stderr.splitlines()[-1]


@pytest.mark.slow
def test_another_model_is_no_photos_fault(addresses, files):
    asked = run("client_rest.py", addresses["client_rest.py"].replace("rw_vgg16", "other"), *files)
    assert asked.returncode == 1
    assert len(asked.stderr.splitlines()) == 1
    assert "answered 404" in asked.stderr


@pytest.mark.slow
def test_the_client_for_rest_needs_python_alone(addresses, files):
    """`-I -S`: no installed package can be imported."""
    command = [sys.executable, "-I", "-S", _EXAMPLES / "client_rest.py", "--server", addresses["client_rest.py"], str(files[0])]
    assert subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
def test_curl_line_of_the_docs(addresses, files):
    """The JSON that the README's curl line sends, to the letter."""
    curl = next(line for line in (_EXAMPLES / "README.md").read_text().splitlines() if line.startswith("(echo -n"))
    command = curl.replace("photo.jpg", str(files[0])).replace(
        "http://localhost:8501/v1/models/rw_vgg16", addresses["client_rest.py"]
    )
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
    (found,) = json.loads(answer)["predictions"]
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)


def test_batching_config_is_the_one_that_is_exported():
    from rw_keras.export import saved_model as export

    assert (_EXAMPLES / "batching.config").read_text() == export._BATCHING


class TestTriton:
    """The files config.pbtxt are Triton's messages, and tell of the models that are exported."""

    KINDS = {"TYPE_STRING": "string", "TYPE_FP32": "float32"}  # noqa: RUF012

    def config(self, name):
        messages = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed")
        from google.protobuf import text_format

        found = text_format.Parse((_EXAMPLES / "triton" / name / "config.pbtxt").read_text("utf8"), messages.ModelConfig())
        assert found.name == name  # as its folder has to be called
        assert found.max_batch_size == 0  # the shapes below are whole
        return found, messages

    def specs(self, tensors, messages):
        return {one.name: (self.KINDS[messages.DataType.Name(one.data_type)], list(one.dims)) for one in tensors}

    def test_dimensions_are_vgg16s(self):
        for name in ("rw_vgg16", "rw_vgg16_onnx"):
            found, messages = self.config(name)
            assert self.specs(found.output, messages) == {"descriptor": ("float32", [-1, 512])}

    @pytest.mark.slow
    def test_saved_model(self, model, tmp_path):
        import tensorflow as tf

        found, messages = self.config("rw_vgg16")
        assert found.platform == "tensorflow_savedmodel"
        rw_keras.export_saved_model(model, tmp_path / "1")
        signature = tf.saved_model.load(tmp_path / "1").signatures[found.parameters["TF_SIGNATURE_DEF"].string_value]
        given = {name: (spec.dtype.name, self.sizes(spec.shape)) for name, spec in signature.structured_input_signature[1].items()}
        assert self.specs(found.input, messages) == given
        made = {name: (spec.dtype.name, self.sizes(spec.shape)) for name, spec in signature.structured_outputs.items()}
        (expected,) = self.specs(found.output, messages).items()
        assert made == {expected[0]: (expected[1][0], [-1, model.output_shape[-1]])}

    @pytest.mark.slow
    def test_onnx(self, model, tmp_path):
        pytest.importorskip("tf2onnx", reason="ONNX needs the extra onnx")
        onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra onnx")
        found, messages = self.config("rw_vgg16_onnx")
        assert found.backend == "onnxruntime"
        rw_keras.export_onnx(model, tmp_path / found.default_model_filename)
        session = onnxruntime.InferenceSession(tmp_path / found.default_model_filename)
        (given,), (made,) = session.get_inputs(), session.get_outputs()
        assert (given.type, made.type) == ("tensor(float)", "tensor(float)")
        assert self.specs(found.input, messages) == {given.name: ("float32", self.sizes(given.shape))}
        assert [one.name for one in found.output] == [made.name]
        assert self.sizes(made.shape) == [-1, model.output_shape[-1]]
        warm_up = found.model_warmup[0].inputs
        assert warm_up.keys() == {given.name}
        shape = list(warm_up[given.name].dims)
        pixels = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
        assert session.run([made.name], {given.name: pixels})[0].shape == (1, model.output_shape[-1])

    def sizes(self, shape):
        return [size if isinstance(size, int) else -1 for size in shape]
