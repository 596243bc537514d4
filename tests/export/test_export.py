import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

import rw_keras
from rw_keras.photos import in_graph as graph_images
from rw_keras.photos.reading import read_image

# (height, width): the smallest, long ones, odd ones.
SIZES = [(8, 8), (8, 97), (97, 8), (15, 15), (31, 17), (48, 64), (64, 48), (101, 99), (113, 257), (200, 33), (240, 320), (255, 255)]

# A process that has TensorFlow and not this package, nor Keras' own loading of saved models.
_SERVING = """
import sys

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "rw_keras":
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Forbidden())
import numpy as np
import tensorflow as tf

loaded = tf.saved_model.load(sys.argv[1])
signature = loaded.signatures["pixels"]
asked = {"serving_default", "query", "regions", "query_regions", "pixels", "pixels_uint8"}
assert set(loaded.signatures) == asked, loaded.signatures
photos = np.load(sys.argv[2])
assert list(signature.structured_outputs) == ["descriptor"], signature.structured_outputs
np.savez(sys.argv[3], **{name: signature(pixels=tf.constant(photos[name]))["descriptor"] for name in photos})
assert "rw_keras" not in sys.modules
"""


@pytest.fixture(scope="module")
def photos():
    random = np.random.default_rng(4)
    made = {f"{height} x {width}": random.integers(0, 256, (1, height, width, 3)).astype("float32") for height, width in SIZES}
    made["black"] = np.zeros((1, 40, 50, 3), "float32")
    made["three at once"] = random.integers(0, 256, (3, 48, 64, 3)).astype("float32")
    return made


@pytest.fixture(scope="module")
def exported(tiny_model, tmp_path_factory):
    """A whitened model, and the folder it is exported to."""
    model = tiny_model(shrinkage=0.2)
    random = np.random.default_rng(5)
    rw_keras.fit_whitening(model, [random.integers(0, 256, (80, 60, 3), "uint8") for _ in range(9)], progress=False)
    folder = tmp_path_factory.mktemp("serving") / "rw_tiny" / "1"
    rw_keras.export_saved_model(model, str(folder))
    return model, folder


@pytest.mark.slow
def test_pixels_without_the_package(exported, photos, tmp_path):
    model, folder = exported
    np.savez(tmp_path / "photos.npz", **photos)
    command = [sys.executable, "-I", "-c", _SERVING, folder, tmp_path / "photos.npz", tmp_path / "served.npz"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with np.load(tmp_path / "served.npz") as served:
        assert set(served) == set(photos)
        for name, pixels in photos.items():
            expected = rw_keras.runtimes.keras_model.batch_function(model)(pixels.astype("uint8"))
            assert served[name].dtype == np.float32
            assert served[name].shape == (len(pixels), 12)
            np.testing.assert_allclose(served[name], expected, atol=1e-6, err_msg=name)
            np.testing.assert_allclose(np.linalg.norm(served[name], axis=1), name != "black", atol=1e-6)


@pytest.mark.environment
def test_in_an_environment_with_tensorflow_alone(exported, photos, draw, tmp_path):
    """A new virtual environment, TensorFlow, and nothing else of ours: pixels and image bytes give the Keras model's digits."""
    model, folder = exported
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"tensorflow=={tf.__version__}"], check=True)
    np.savez(tmp_path / "photos.npz", **photos)
    Image.fromarray(draw(1, 1300, 800)).save(tmp_path / "photo.jpg")
    served = f"""{_SERVING}
import pathlib
content = pathlib.Path(sys.argv[4]).read_bytes()
np.save(sys.argv[5], loaded.signatures["serving_default"](image_bytes=tf.constant([content]))["descriptor"])
"""
    files = [tmp_path / name for name in ("photos.npz", "served.npz", "photo.jpg", "bytes.npy")]
    subprocess.run([python, "-I", "-c", served, folder, *files], check=True)
    with np.load(files[1]) as found:
        for name, pixels in photos.items():
            np.testing.assert_allclose(found[name], model(pixels), atol=1e-6, err_msg=name)
    np.testing.assert_allclose(np.load(files[3])[0], rw_keras.describe(model, files[2]), atol=1e-6)


@pytest.mark.slow
def test_is_readable_by_a_server(exported):
    _, folder = exported
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "saved_model.pb").is_file()
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_an_existing_folder_is_refused(exported, model, tmp_path):
    for path in (exported[1], tmp_path):
        before = sorted(path.rglob("*"))
        with pytest.raises(FileExistsError, match=r"exists already.*choose the next version's folder"):
            rw_keras.export_saved_model(model, path)
        assert sorted(path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=repr)
def test_a_failure_leaves_nothing(model, tmp_path, monkeypatch, error):
    real = tf.saved_model.save

    def failing(*arguments, **keywords):
        real(*arguments, **keywords)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(tf.saved_model, "save", failing)
        with pytest.raises(type(error)):
            rw_keras.export_saved_model(model, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []
    rw_keras.export_saved_model(model, tmp_path / "1")
    assert (tmp_path / "1" / "saved_model.pb").is_file()


def test_needs_tensorflow(model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match=r"runs on jax.*KERAS_BACKEND=tensorflow"):
        rw_keras.export_saved_model(model, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def signatures(exported):
    loaded = tf.saved_model.load(str(exported[1]))
    yield loaded.signatures
    del loaded  # the signatures do not keep it alive


@pytest.fixture(scope="module")
def files(draw, tmp_path_factory):
    """Photos of several sizes and formats, one of them turned by its EXIF orientation, one larger than `max_side`."""
    folder = tmp_path_factory.mktemp("files")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(draw(1, 90, 60)).save(folder / "a.jpg", exif=turned)
    Image.fromarray(draw(2, 64, 64)).save(folder / "b.png")
    Image.fromarray(draw(3, 1300, 40)).save(folder / "c.jpg", quality=60)
    Image.fromarray(draw(4, 33, 71)).save(folder / ("d.webp" if graph_images.READS_WEBP else "d.bmp"))
    return sorted(folder.iterdir())


class TestImageBytes:
    @pytest.mark.slow
    def test_of_photos_of_all_sizes_in_one_request(self, exported, signatures, files):
        found = signatures["serving_default"](image_bytes=tf.constant([file.read_bytes() for file in files]))["descriptor"]
        np.testing.assert_allclose(found, rw_keras.describe(exported[0], files), atol=1e-6)

    @pytest.mark.slow
    def test_of_boxes(self, exported, signatures, files):
        boxes = [(5, 6, 50, 70.4), (0, 0, 64, 64), (20, 3, 900, 39), (1, 1, 30, 60)]
        content = tf.constant([file.read_bytes() for file in files])
        found = signatures["query"](image_bytes=content, box=tf.constant(boxes, tf.float32))["descriptor"]
        np.testing.assert_allclose(found, rw_keras.describe(exported[0], files, box=boxes), atol=1e-6)

    def test_of_no_photo(self, signatures):
        assert signatures["serving_default"](image_bytes=tf.constant([], tf.string))["descriptor"].shape == (0, 12)

    @pytest.mark.parametrize("name", ["pixels", "pixels_uint8"])
    def test_too_few_pixels_are_refused_before_the_network(self, signatures, name):
        small = tf.zeros((1, 7, 64, 3), "float32" if name == "pixels" else "uint8")
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"high and wide, too small: each side needs 8 or more"):
            signatures[name](pixels=small)

    def test_pixels_of_whole_numbers(self, exported, signatures, draw):
        photo = draw(5)[None]
        found = signatures["pixels_uint8"](pixels=tf.constant(photo))["descriptor"]
        np.testing.assert_allclose(found, rw_keras.describe(exported[0], photo), atol=1e-6)

    def test_unknown_bytes_are_named_by_their_place(self, signatures, files):
        content = tf.constant([files[0].read_bytes(), b"no photo at all"])
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"image_bytes\[1\].*is not a JPEG"):
            signatures["serving_default"](image_bytes=content)

    def test_a_damaged_photo_fails_the_request(self, signatures, files):
        content = tf.constant([files[1].read_bytes(), files[0].read_bytes()[:-400]])
        with pytest.raises(tf.errors.InvalidArgumentError):
            signatures["serving_default"](image_bytes=content)

    def test_a_box_outside_is_named_by_its_place(self, signatures, files):
        content = tf.constant([files[0].read_bytes()] * 2)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"image_bytes\[1\].*its box"):
            signatures["query"](image_bytes=content, box=tf.constant([[0, 0, 20, 20], [0, 0, 200, 20]], tf.float32))

    def test_too_small_is_named_by_its_place(self, signatures, draw):
        content = tf.constant([tf.io.encode_png(draw(6, 40, 7)).numpy()])
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"image_bytes\[0\].*too small: each side needs 8"):
            signatures["serving_default"](image_bytes=content)

    @pytest.mark.slow
    def test_size_is_the_one_of_the_export(self, model, draw, tmp_path):
        rw_keras.export_saved_model(model, tmp_path / "1", max_side=40)
        photo = tf.io.encode_png(draw(7, 100, 80)).numpy()
        (tmp_path / "photo.png").write_bytes(photo)
        loaded = tf.saved_model.load(str(tmp_path / "1"))
        found = loaded.signatures["serving_default"](image_bytes=tf.constant([photo]))["descriptor"][0]
        np.testing.assert_allclose(found, rw_keras.describe(model, tmp_path / "photo.png", max_side=40), atol=1e-6)


class TestRegions:
    """What re-ranking compares, beside the descriptor."""

    def assert_like_the_model(self, found, model, pixels):
        counts = found["counts"].numpy()
        assert found["regions"].shape == (len(pixels), counts.max(), 12)
        assert found["boxes"].shape == (len(pixels), counts.max(), 4)
        for place, photo in enumerate(pixels):
            descriptor, vectors, boxes = (np.asarray(output)[0] for output in model.with_regions()(photo[None]))
            assert counts[place] == len(vectors)
            np.testing.assert_allclose(found["descriptor"][place], descriptor, atol=1e-6)
            np.testing.assert_allclose(found["regions"][place, : len(vectors)], vectors, atol=2e-5)
            np.testing.assert_allclose(found["boxes"][place, : len(vectors)], boxes, atol=1e-6)
            assert not found["regions"][place, len(vectors) :].numpy().any()
            assert not found["boxes"][place, len(vectors) :].numpy().any()

    @pytest.mark.slow
    def test_of_photos_of_all_sizes_in_one_request(self, exported, signatures, files):
        found = signatures["regions"](image_bytes=tf.constant([file.read_bytes() for file in files]))
        assert len(set(found["counts"].numpy().tolist())) > 1  # some are filled up
        self.assert_like_the_model(found, exported[0], [read_image(file) for file in files])

    @pytest.mark.slow
    def test_of_boxes(self, exported, signatures, files):
        boxes = [(5, 6, 50, 70.4), (0, 0, 64, 64), (20, 3, 900, 39), (1, 1, 30, 60)]
        content = tf.constant([file.read_bytes() for file in files])
        found = signatures["query_regions"](image_bytes=content, box=tf.constant(boxes, tf.float32))
        self.assert_like_the_model(found, exported[0], [read_image(*pair) for pair in zip(files, boxes)])

    def test_of_no_photo(self, signatures):
        found = signatures["regions"](image_bytes=tf.constant([], tf.string))
        assert (found["descriptor"].shape, found["counts"].shape, found["regions"].shape[0]) == ((0, 12), (0,), 0)

    @pytest.mark.slow
    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_of_a_multi_scale_model(self, exported, files, tmp_path, dtype):
        several = rw_keras.multi_scale(exported[0])
        rw_keras.export_saved_model(several, tmp_path / "1", dtype=dtype)
        signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
        content = tf.constant([file.read_bytes() for file in files])
        found = signatures["regions"](image_bytes=content)
        described = signatures["serving_default"](image_bytes=content)["descriptor"]
        np.testing.assert_allclose(found["descriptor"], described, atol=1e-6)
        if dtype == "float32":
            self.assert_like_the_model(found, several, [read_image(file) for file in files])

    @pytest.mark.slow
    def test_a_global_whitening_has_none(self, tiny_model, tmp_path):
        rw_keras.export_saved_model(tiny_model(whiten_on="global"), tmp_path / "1")
        assert {"regions", "query_regions"}.isdisjoint(tf.saved_model.load(str(tmp_path / "1")).signatures)
        card = json.loads((tmp_path / "1" / "assets.extra" / "model_card.json").read_text())
        assert card["regions"].startswith("none: ") and 'whiten_on="global"' in card["regions"]


class TestExtras:
    @pytest.mark.slow
    def test_warm_up_requests_are_the_signatures_own(self, exported):
        """Each record is a request that the model answers, as TF Serving asks it when it loads the model."""
        loaded = tf.saved_model.load(str(exported[1]))
        records = list(
            tf.data.TFRecordDataset(str(exported[1] / "assets.extra" / "tf_serving_warmup_requests")).as_numpy_iterator()
        )
        asked = set()
        for record in records:
            log = prediction_log_pb2.PredictionLog.FromString(record)
            assert log.WhichOneof("log_type") == "predict_log"
            request = log.predict_log.request
            assert request.model_spec.name == "rw_tiny"
            inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
            descriptor = loaded.signatures[request.model_spec.signature_name](**inputs)["descriptor"]
            np.testing.assert_allclose(np.linalg.norm(descriptor, axis=1), 1, atol=1e-6)
            asked.add(request.model_spec.signature_name)
        assert asked == set(loaded.signatures)

    def test_model_card(self, exported):
        model, folder = exported
        card = json.loads((folder / "assets.extra" / "model_card.json").read_text())
        assert card["recipe"] == json.loads(json.dumps(rw_keras.model.build.recipe(model)))
        assert card["regions"] == "as the signatures regions and query_regions give them"
        assert (card["max_side"], card["dtype"], card["dimensions"]) == (1024, "float32", 12)
        assert card["versions"]["tensorflow"] == tf.__version__
        assert "own network" in card["licence_of_the_weights"]

    @pytest.mark.slow
    def test_batching_parameters_on_request(self, exported, model, tmp_path):
        assert not (exported[1] / "assets.extra" / "batching_params.pbtxt").exists()
        rw_keras.export_saved_model(model, tmp_path / "1", batching=True)
        parameters = (tmp_path / "1" / "assets.extra" / "batching_params.pbtxt").read_text().splitlines()
        assert "max_batch_size { value: 8 }" in parameters
        assert "pad_variable_length_inputs: false" in parameters  # a padded photo is another photo


@pytest.mark.slow
def test_a_folder_that_tf_serving_does_not_see_is_said_so(model, tmp_path):
    with pytest.warns(UserWarning, match=r"named by a whole number, so not .*latest; call it .*latest/1"):
        rw_keras.export_saved_model(model, tmp_path / "latest")


class TestMultiScale:
    """A model around another one, that resizes photos itself."""

    SIZES = ((1, 16, 16), (2, 17, 33), (1, 64, 48), (1, 101, 37))

    def pixels(self):
        random = np.random.default_rng(12)
        return [random.integers(0, 256, (*size, 3)).astype("float32") for size in self.SIZES]

    @pytest.fixture
    def several(self, exported):
        return rw_keras.multi_scale(exported[0])

    @pytest.mark.slow
    def test_saved_model(self, several, files, tmp_path):
        rw_keras.export_saved_model(several, tmp_path / "1")
        loaded = tf.saved_model.load(str(tmp_path / "1"))
        for pixels in self.pixels():
            found = loaded.signatures["pixels"](pixels=tf.constant(pixels))["descriptor"]
            np.testing.assert_allclose(found, several(pixels), atol=1e-6)
            found = loaded.signatures["pixels_uint8"](pixels=tf.constant(pixels.astype("uint8")))["descriptor"]
            np.testing.assert_allclose(found, several(pixels), atol=1e-6)
        found = loaded.signatures["serving_default"](image_bytes=tf.constant([file.read_bytes() for file in files]))["descriptor"]
        np.testing.assert_allclose(found, rw_keras.describe(several, files), atol=1e-6)
        card = json.loads((tmp_path / "1" / "assets.extra" / "model_card.json").read_text())
        assert card["recipe"]["scales"] == [1.0, 2**-0.5, 0.5]

    @pytest.mark.slow
    def test_half_weights_keep_the_whitenings_digits(self, several, tmp_path):
        rw_keras.export_saved_model(several, tmp_path / "1", dtype="float16")
        loaded = tf.saved_model.load(str(tmp_path / "1"))
        assert {variable.dtype.name for variable in loaded.weights if len(variable.shape) == 4} == {"float16"}
        (axes,) = (variable for variable in loaded.weights if variable.shape == (12, 12))
        np.testing.assert_array_equal(axes, rw_keras.model.build.whitening_layer(several).eigenvectors)
        for pixels in self.pixels():
            found = loaded.signatures["pixels"](pixels=tf.constant(pixels))["descriptor"].numpy()
            assert (1 - (found * several(pixels).numpy()).sum(axis=1)).max() < 1e-4


class TestHalfWeights:
    @pytest.mark.slow
    @pytest.mark.parametrize(("dtype", "error"), [("float16", 1e-5), ("bfloat16", 1e-3)])
    def test_are_close_and_smaller(self, tiny_model, draw, tmp_path, dtype, error):
        model = tiny_model(seed=3)
        rw_keras.fit_whitening(model, [draw(seed) for seed in range(9)], progress=False)
        rw_keras.export_saved_model(model, tmp_path / "1", dtype=dtype)
        loaded = tf.saved_model.load(str(tmp_path / "1"))
        photo = draw(20)[None]
        expected = rw_keras.describe(model, photo)[0]
        found = loaded.signatures["pixels_uint8"](pixels=tf.constant(photo))["descriptor"].numpy()[0]
        assert 0 < 1 - found @ expected < error
        kept = {variable.dtype.name for variable in loaded.weights if len(variable.shape) == 4}
        assert kept == {dtype}
        # The whitening keeps its digits.
        whitening = [variable for variable in loaded.weights if variable.shape == (12, 12)]
        np.testing.assert_array_equal(whitening[0], model.get_layer("whitening").eigenvectors)

    def test_of_another_kind_are_refused(self, model, tmp_path):
        with pytest.raises(ValueError, match=r"float32, float16, bfloat16.*dtype='int8'"):
            rw_keras.export_saved_model(model, tmp_path / "1", dtype="int8")


class TestArguments:
    @pytest.mark.parametrize("max_side", [7, 0, 64.0, True, None, 65501, 99999999999])
    def test_max_side(self, model, tmp_path, max_side):
        with pytest.raises(ValueError, match=rf"from 8 to 65500, but got {max_side!r}"):
            rw_keras.export_saved_model(model, tmp_path / "1", max_side=max_side)

    def test_a_model_of_one_size_is_refused(self, tmp_path):
        photos = keras.Input((32, 32, 3))
        model = keras.Model(photos, keras.layers.GlobalAveragePooling2D()(photos))
        with pytest.raises(ValueError, match=r"\(32, 32, 3\) alone"):
            rw_keras.export_saved_model(model, tmp_path / "1")
        assert list(tmp_path.iterdir()) == []


class TestOtherFormats:
    """Each format, run by its own runtime at several sizes, gives the digits of the Keras model."""

    SHAPES = ((1, 48, 64), (1, 101, 37), (2, 64, 64))

    def check(self, model, run, error=1e-6):
        random = np.random.default_rng(11)
        for shape in self.SHAPES:
            pixels = random.integers(0, 256, (*shape, 3)).astype("float32")
            expected = model(pixels).numpy()
            found = run(pixels)
            assert found.shape == expected.shape
            assert (1 - (found * expected).sum(axis=1)).max() < error

    @pytest.mark.slow
    def test_onnx(self, exported, tmp_path):
        pytest.importorskip("tf2onnx", reason="ONNX needs the extra onnx")
        onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra onnx")
        rw_keras.export_onnx(exported[0], tmp_path / "model.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        self.check(exported[0], lambda pixels: session.run(["descriptor"], {"pixels": pixels})[0])
        card = json.loads(session.get_modelmeta().custom_metadata_map["rw_keras"])
        assert card["model"] == "rw_tiny"

    @pytest.mark.slow
    def test_onnx_of_a_layer_that_holds_values_beside_its_weights(self, tmp_path):
        pytest.importorskip("tf2onnx", reason="ONNX needs the extra onnx")
        onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra onnx")
        photos = keras.Input((None, None, 3))
        normal = keras.layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[9.0, 16.0, 25.0])(photos)
        network = keras.Model(photos, keras.layers.Conv2D(4, 3, activation="relu")(normal), name="normal")
        model = rw_keras.build_descriptor(network, whitening=None)
        rw_keras.export_onnx(model, tmp_path / "model.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        assert [given.name for given in session.get_inputs()] == ["pixels"]
        self.check(model, lambda pixels: session.run(["descriptor"], {"pixels": pixels})[0])

    @pytest.mark.slow
    @pytest.mark.parametrize(("int8", "error"), [(False, 1e-6), (True, 1e-2)])
    def test_openvino(self, exported, tmp_path, monkeypatch, int8, error):
        openvino = pytest.importorskip("openvino", reason="OpenVINO needs the extra openvino")
        if int8:
            pytest.importorskip("nncf", reason="8 bits in OpenVINO need the extra openvino")
        # It reports its use over the network from a process that it forks, which may wait forever.
        monkeypatch.setattr(openvino, "convert_model", lambda *arguments: pytest.fail("convert_model was called"))
        rw_keras.export_openvino(exported[0], tmp_path / "model.xml", int8=int8)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml"]
        compiled = openvino.Core().compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self.check(exported[0], lambda pixels: compiled({"pixels": pixels})["descriptor"], error)

    @pytest.mark.slow
    @pytest.mark.parametrize(("int8", "error"), [(False, 1e-6), (True, 1e-2)])
    def test_litert(self, exported, tmp_path, int8, error):
        litert = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT needs the extra litert")
        rw_keras.export_litert(exported[0], tmp_path / "model.tflite", int8=int8)
        interpreter = litert.Interpreter(str(tmp_path / "model.tflite"))

        def run(pixels):
            interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], pixels.shape)
            return interpreter.get_signature_runner("serving_default")(pixels=pixels)["descriptor"]

        self.check(exported[0], run, error)

    @pytest.mark.slow
    def test_multi_scale_model(self, exported, tmp_path):
        several = rw_keras.multi_scale(exported[0])
        pytest.importorskip("tf2onnx", reason="ONNX needs the extra onnx")
        onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra onnx")
        rw_keras.export_onnx(several, tmp_path / "model.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        self.check(several, lambda pixels: session.run(["descriptor"], {"pixels": pixels})[0])

        openvino = pytest.importorskip("openvino", reason="OpenVINO needs the extra openvino")
        rw_keras.export_openvino(several, tmp_path / "model.xml")
        compiled = openvino.Core().compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self.check(several, lambda pixels: compiled({"pixels": pixels})["descriptor"])

    @pytest.mark.slow
    @pytest.mark.parametrize("int8", [False, True])
    def test_multi_scale_model_as_litert(self, exported, tmp_path, int8):
        litert = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT needs the extra litert")
        several = rw_keras.multi_scale(exported[0])
        rw_keras.export_litert(several, tmp_path / "model.tflite", int8=int8)
        interpreter = litert.Interpreter(str(tmp_path / "model.tflite"))

        def run(pixels):
            interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], pixels.shape)
            return interpreter.get_signature_runner("serving_default")(pixels=pixels)["descriptor"]

        self.check(several, run, 1e-2 if int8 else 1e-6)

    @pytest.mark.slow
    def test_what_onnx_has_no_operation_for_is_refused(self, tmp_path):
        pytest.importorskip("tf2onnx", reason="ONNX needs the extra onnx")
        photos = keras.Input((None, None, 3))
        features = keras.layers.Conv2D(4, 3, activation="relu")(photos)
        network = keras.Model(photos, keras.layers.Conv2D(4, 3, groups=2, activation="relu")(features), name="grouped")
        with pytest.raises(RuntimeError, match="'rw_grouped' cannot be written as ONNX: "):
            rw_keras.export_onnx(rw_keras.build_descriptor(network, whitening=None), tmp_path / "model.onnx")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("export", ["export_onnx", "export_openvino", "export_litert"])
    def test_names_are_checked(self, model, tmp_path, export):
        with pytest.raises(ValueError, match=r"has to end in"):
            getattr(rw_keras, export)(model, tmp_path / "model.bin")
        for ending in (".onnx", ".xml", ".tflite"):
            (tmp_path / f"there{ending}").write_text("")
            with pytest.raises(FileExistsError, match="there"):
                getattr(rw_keras, export)(model, tmp_path / f"there{ending}")

    def test_openvinos_second_file_is_not_overwritten(self, model, tmp_path):
        (tmp_path / "model.bin").write_text("somebody's")
        with pytest.raises(FileExistsError, match=r"model\.bin"):
            rw_keras.export_openvino(model, tmp_path / "model.xml")
        assert (tmp_path / "model.bin").read_text() == "somebody's"

    @pytest.mark.parametrize(("export", "package", "ending"), [("onnx", "tf2onnx", "onnx"), ("openvino", "openvino", "xml")])
    def test_a_missing_package_is_named(self, model, tmp_path, monkeypatch, export, package, ending):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf'pip install "rw_keras\[{export}\]"'):
            getattr(rw_keras, f"export_{export}")(model, tmp_path / f"model.{ending}")
        assert list(tmp_path.iterdir()) == []
