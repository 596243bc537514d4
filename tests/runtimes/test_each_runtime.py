"""Each engine against the Keras model on TensorFlow."""

import importlib.util
import json
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from runtimes.rounding import assert_same, tolerance

import rw_keras
from rw_keras import runtimes as engines
from rw_keras.runtimes import cache, describer, keras_model, promises
from rw_keras.runtimes import openvino as openvino_engine
from rw_keras.runtimes.keras_model import batch_function

SIZES = [(17, 33), (64, 48), (16, 16)]


def photos(height, width, count=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), "uint8")


class TestDescriptors:
    @pytest.mark.slow
    def test_like_tensorflow(self, engine, described):
        describe = engines.load(described, engine)
        for size in SIZES:
            pixels = photos(*size, count=3)
            found = describe(pixels)
            assert found.shape == (3, described.output_shape[-1]) and found.dtype == np.float32
            assert_same(found, batch_function(described)(pixels), described, *size)

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["rmac", "root_rw", "gem"])
    def test_other_methods(self, engine, known, method):
        network = keras.Model(known.inputs[0], known.get_layer("conv2").output)
        model = rw_keras.build_descriptor(network, method=method, whitening=None)
        pixels = photos(32, 40)
        assert_same(engines.load(model, engine)(pixels), batch_function(model)(pixels), model, 32, 40)

    def test_sizes_in_any_order(self, engine, known):
        describe = engines.load(known, engine)
        for size in [*SIZES, *SIZES[::-1]]:
            pixels = photos(*size, count=2)
            assert_same(describe(pixels), batch_function(known)(pixels), known, *size)

    @pytest.mark.slow
    def test_a_zero_map_gives_a_zero_descriptor(self, engine, tiny_model):
        pixels = np.concatenate([np.zeros((1, 16, 24, 3), "uint8"), photos(16, 24)])
        described = engines.load(tiny_model(), engine)(pixels)
        assert not described[0].any()
        assert described[1].any()

    def test_fast(self, engine, known):
        describe = engines.load(known, engine, "fast", size=(32, 32))
        pixels = photos(64, 48)
        assert describe.precision == "fast" and describe.runtime == engine
        assert (describe(pixels) * batch_function(known)(pixels)).sum() > 0.999  # noise, not photos

    def test_tensorflow_in_bfloat16_keeps_its_head(self, known):
        describe = describer.ModelRuntimes.of(known).function("tensorflow", "bfloat16")
        pixels = photos(64, 48)
        described = describe(pixels)
        assert described.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(described), 1, atol=1e-6)
        assert 0.999 < (described * batch_function(known)(pixels)).sum() < 1 - 1e-7

    def test_bfloat16_begins_after_the_first_convolution(self, known):
        """Pixels less their mean take more than bfloat16's 8 bits."""
        copy = keras_model.in_precision(known, "mixed_bfloat16")
        computes_in = {layer.name: layer.compute_dtype for layer in copy.layers}
        assert (computes_in["preprocessing"], computes_in["conv0"], computes_in["conv1"]) == ("float32", "float32", "bfloat16")
        assert computes_in["whitening"] == "float32"

    def test_tensorflow_is_the_model_itself(self, known):
        pixels = photos(64, 48)
        np.testing.assert_array_equal(engines.load(known, "tensorflow")(pixels), batch_function(known)(pixels))

    def test_auto_takes_tensorflow_for_what_the_others_do_not_know(self, known):
        def method(features):
            pooled = keras.layers.GlobalAveragePooling2D()(features)
            return keras.layers.Reshape((2, 24))(keras.layers.Concatenate(name="pair")([pooled, pooled]))

        network = keras.Model(known.inputs[0], known.get_layer("conv2").output)
        model = rw_keras.build_descriptor(network, method=method, whitening=None)
        describe = engines.load(model, "auto", "fast")
        assert (describe.runtime, describe.variant) == ("tensorflow", "float32")
        pixels = photos(64, 48)
        np.testing.assert_array_equal(describe(pixels), batch_function(model)(pixels))
        with pytest.raises(ValueError, match="Only Keras computes"):
            engines.load(model, "tensorflow", "fast")

    def test_auto_measures_nothing_where_there_is_no_choice(self, vgg_like, monkeypatch):
        monkeypatch.setattr(engines, "choose", None)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        assert engines.load(vgg_like).runtime == "tensorflow"


class TestRegions:
    """What every runtime gives beside the descriptor."""

    def assert_like_tensorflow(self, described, model, pixels):
        descriptors, vectors, boxes = described.with_regions(pixels)
        expected = keras_model.regions_function(model)(pixels)
        np.testing.assert_array_equal(descriptors, described(pixels))
        assert descriptors.dtype == vectors.dtype == boxes.dtype == np.float32
        for found, wanted in zip((descriptors, vectors, boxes), expected):
            assert found.shape == wanted.shape
        assert_same(descriptors, expected[0], model, *pixels.shape[1:3])
        np.testing.assert_allclose(vectors, expected[1], rtol=0, atol=2 * tolerance(model, *pixels.shape[1:3]))
        np.testing.assert_array_equal(boxes, expected[2])

    @pytest.mark.parametrize("size", [(17, 33), (64, 48)], ids=str)
    def test_of_one_scale(self, engine, known, size):
        self.assert_like_tensorflow(engines.load(known, engine), known, photos(*size, count=2))

    @pytest.mark.slow
    @pytest.mark.parametrize("scales", [(1, 2**-0.5, 0.5), (0.61, 2)], ids=str)
    def test_of_several_scales(self, engine, known, scales):
        several = rw_keras.multi_scale(known, scales)
        describe = engines.load(several, engine)
        for size in [(17, 33), (64, 48)]:
            self.assert_like_tensorflow(describe, several, photos(*size, count=2))

    def test_scales_share_the_networks_files(self, engine, vgg_like):
        stems = [describer.ModelRuntimes.of(model).known.stem(engine) for model in (vgg_like, rw_keras.multi_scale(vgg_like))]
        assert stems[0] == stems[1]

    @pytest.mark.slow
    def test_of_black_photos(self, engine, tiny_model):
        model = rw_keras.multi_scale(tiny_model())
        descriptors, vectors, boxes = engines.load(model, engine).with_regions(np.zeros((1, 40, 48, 3), "uint8"))
        assert not descriptors.any() and not vectors.any()
        assert boxes.any(axis=1).all()

    @pytest.mark.parametrize("method", ["mac", pytest.param("crow", marks=pytest.mark.slow)])
    def test_of_one_region(self, engine, known, method):
        network = keras.Model(known.inputs[0], known.get_layer("conv2").output)
        model = rw_keras.build_descriptor(network, method=method, whitening=None)
        described = engines.load(model, engine)
        self.assert_like_tensorflow(described, model, photos(40, 32))
        assert described.with_regions(photos(40, 32))[2].tolist() == [[0, 0, 1, 1]]

    @pytest.mark.slow
    def test_a_global_whitening_leaves_none(self, engine, known):
        network = keras.Model(known.inputs[0], known.get_layer("conv2").output)
        several = rw_keras.multi_scale(rw_keras.build_descriptor(network, whiten_on="global", whitening=None))
        described = engines.load(several, engine)
        pixels = photos(40, 32)
        assert_same(described(pixels), batch_function(several)(pixels), several, 40, 32)
        for runtime in (described, engines.load(several, "tensorflow")):
            with pytest.raises(ValueError, match=r'no whitened region vectors.*whiten_on="global".*build it with'):
                runtime.with_regions(pixels)

    @pytest.mark.parametrize("variant", ["bfloat16", "float32 xla"])
    @pytest.mark.slow
    def test_of_tensorflows_other_ways(self, known, variant):
        several = rw_keras.multi_scale(known, (1, 0.5))
        function = describer.ModelRuntimes.of(several).function("tensorflow", variant)
        pixels = photos(64, 48)
        descriptors, vectors, boxes = function(pixels, regions=True)
        expected = keras_model.regions_function(several)(pixels)
        np.testing.assert_allclose(descriptors, function(pixels), atol=1e-6)
        assert (vectors * expected[1]).sum(axis=-1).min() > 0.999
        np.testing.assert_array_equal(boxes, expected[2])
        if variant == "bfloat16":
            assert np.abs(vectors - expected[1]).max() > 1e-4

    @pytest.mark.slow
    def test_auto_has_a_choice_for_several_scales(self, engine, known):
        several = rw_keras.multi_scale(known)
        rows = engines.choose(several, "exact", (32, 32), runtimes=(engine,), anew=True).rows
        assert rows[0]["seconds"] > 0

    def test_regions_that_break_the_promise(self, engine, vgg_like, monkeypatch):
        check = {"cosine": 1.0, "mean": 1.0, "regions": 0.99, "seconds": 1.0}
        monkeypatch.setattr(describer.ModelRuntimes, "check", lambda *_: check)
        with pytest.raises(ValueError, match=r"region vectors of 0.9900000, .*of region vectors 0.99999"):
            engines.load(vgg_like, engine)

    @pytest.mark.slow
    def test_check_compares_regions(self, engine, vgg_like, monkeypatch):
        """One vector of the first photo turned round: the descriptor is TensorFlow's own."""
        own = describer.ModelRuntimes.of(vgg_like)
        real = own.function("tensorflow", "float32")

        def wrong(pixels, regions=False):
            if not regions:
                return real(pixels)
            descriptors, vectors, boxes = real(pixels, regions=True)
            vectors = vectors.copy()
            vectors[0, 3] *= -1
            return descriptors, vectors, boxes

        own._functions[engine, "float32"] = wrong
        check = own.check(engine, "float32")
        assert check["cosine"] > 1 - 1e-12
        assert check["regions"] == pytest.approx(-1)
        assert not promises.keeps(check, "fast")


@pytest.mark.imagenet
@pytest.mark.parametrize("name", ["coffee", "temple", "flower"])
@pytest.mark.slow
def test_bfloat16_of_vgg16_keeps_its_promise(vgg16, name):
    pixels = rw_keras.photos.embedded.photo(name, 384)[None]
    exact = batch_function(vgg16)(pixels)[0].astype("float64")
    found = describer.ModelRuntimes.of(vgg16).function("tensorflow", "bfloat16")(pixels)[0].astype("float64")
    assert 1 - exact @ found / np.linalg.norm(exact) / np.linalg.norm(found) < 5e-5


class TestWeights:
    @pytest.mark.slow
    def test_new_weights_are_another_network(self, engine, vgg_like):
        pixels = photos(32, 32)
        before = engines.load(vgg_like, engine)(pixels)
        vgg_like.get_layer("conv1").bias.assign_add(np.ones(16))
        after = engines.load(vgg_like, engine)(pixels)
        assert np.abs(after - before).max() > 1e-3
        assert_same(after, batch_function(vgg_like)(pixels), vgg_like, 32, 32)

    @pytest.mark.slow
    def test_a_new_whitening_keeps_the_network(self, engine, vgg_like, cache_folder):
        engines.load(vgg_like, engine)
        files = {path: path.stat().st_mtime_ns for path in cache_folder.glob(f"{engine}-*")}
        vgg_like.get_layer("whitening").mean.assign_add(np.full(24, 0.1))
        pixels = photos(32, 32)
        assert_same(engines.load(vgg_like, engine)(pixels), batch_function(vgg_like)(pixels), vgg_like, 32, 32)
        assert {path: path.stat().st_mtime_ns for path in cache_folder.glob(f"{engine}-*")} == files


class TestRefusals:
    def test_a_layer_that_ncnn_does_not_know(self):
        pytest.importorskip("ncnn")
        photo = keras.Input((None, None, 3), name="photos")
        features = keras.layers.Conv2D(8, 3, activation="gelu", name="bent")(photo)
        model = rw_keras.build_descriptor(keras.Model(photo, features, name="other"), whitening=None)
        with pytest.raises(ValueError, match=r"its layer 'bent' \(Conv2D\) has the activation .*gelu.*runtime=\"openvino\""):
            engines.load(model, "ncnn")
        photo = keras.Input((None, None, 3), name="photos")
        features = keras.layers.UpSampling2D(name="larger")(keras.layers.Conv2D(8, 3, activation="relu")(photo))
        model = rw_keras.build_descriptor(keras.Model(photo, features, name="other"), whitening=None)
        with pytest.raises(ValueError, match=r"its layer 'larger' \(UpSampling2D\) is of a kind that is not known to it"):
            engines.load(model, "ncnn")
        photo = keras.Input((None, None, 3), name="photos")
        features = keras.layers.AveragePooling2D(3, 2, padding="same", name="mean")(keras.layers.ReLU()(photo))
        model = rw_keras.build_descriptor(keras.Model(photo, features, name="other"), whitening=None)
        with pytest.raises(ValueError, match=r"its layer 'mean' \(AveragePooling2D\) has padding=\"same\""):
            engines.load(model, "ncnn")

    def test_unknown_names(self, vgg_like):
        with pytest.raises(ValueError, match=r"runtime is one of auto, keras, tensorflow, .*, ncnn, but got 'caffe'"):
            engines.load(vgg_like, "caffe")
        with pytest.raises(ValueError, match="precision is one of exact, fast, int8, but got 'int4'"):
            rw_keras.describe(vgg_like, photos(32, 32)[0], precision="int4")

    @pytest.mark.parametrize("name", ["openvino", "ncnn"])
    def test_an_engine_that_is_not_installed(self, vgg_like, name, monkeypatch):
        real = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda module, *rest: None if module == name else real(module, *rest))
        with pytest.raises(ImportError, match=rf'The runtime {name} is not installed; .*pip install "rw_keras\[{name}\]"'):
            engines.load(vgg_like, name)
        with pytest.raises(ImportError, match="not installed"):
            engines.load(vgg_like, name, "fast")

    def test_descriptors_that_break_the_promise(self, engine, vgg_like, monkeypatch):
        monkeypatch.setattr(describer.ModelRuntimes, "check", lambda *_: {"cosine": 0.99, "mean": 0.99, "seconds": 1.0})
        with pytest.raises(ValueError, match=r'cosine to Keras\' is 0.9900000.*0.999999, .* that precision="exact" promises'):
            engines.load(vgg_like, engine)

    def test_a_cache_that_cannot_be_written(self, engine, vgg_like, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        with pytest.raises(OSError, match="set XDG_CACHE_HOME to a folder that can be written"):
            engines.load(vgg_like, engine)


class TestCache:
    @pytest.mark.slow
    def test_the_second_process_builds_nothing(self, engine, vgg_like, monkeypatch):
        pixels = photos(32, 48)
        expected = engines.load(vgg_like, engine)(pixels)
        describer._of_models.clear()
        monkeypatch.setattr(describer.RUNTIMES[engine], "make", lambda network: pytest.fail("it was built again"))
        np.testing.assert_array_equal(engines.load(vgg_like, engine)(pixels), expected)

    @pytest.mark.slow
    def test_a_file_cut_short_is_built_again(self, engine, vgg_like, cache_folder):
        pixels = photos(32, 48)
        expected = engines.load(vgg_like, engine)(pixels)
        (weights,) = cache_folder.glob(f"{engine}-*.bin")
        content = weights.read_bytes()
        weights.write_bytes(content[: len(content) // 2])
        describer._of_models.clear()
        np.testing.assert_array_equal(engines.load(vgg_like, engine)(pixels), expected)
        assert weights.read_bytes() == content

    @pytest.mark.slow
    @pytest.mark.parametrize("content", [b"{", b"", b"[1]", b"\xff\xfe"])
    def test_broken_notes_count_as_none(self, engine, vgg_like, cache_folder, content):
        engines.load(vgg_like, engine)
        for path in [*cache_folder.glob("*.json"), *cache_folder.glob("*.npz")]:
            path.write_bytes(content)
        describer._of_models.clear()
        assert engines.load_cached(describer.ModelRuntimes.of(vgg_like).known.recipe, engine) is None
        pixels = photos(32, 48)
        assert_same(engines.load(vgg_like, engine)(pixels), batch_function(vgg_like)(pixels), vgg_like, 32, 48)

    @pytest.mark.slow
    def test_what_an_earlier_version_knew_of_a_model_counts_as_none(self, engine, vgg_like, cache_folder, monkeypatch):
        recipe = engines.load(vgg_like, engine).recipe
        assert engines.load_cached(recipe, engine) is not None
        monkeypatch.setattr(describer, "_FORMAT", describer._FORMAT + 1)
        assert engines.load_cached(recipe, engine) is None
        describer._of_models.clear()
        monkeypatch.setattr(describer.RUNTIMES[engine], "make", lambda network: pytest.fail("the network was built again"))
        engines.load(vgg_like, engine)
        assert engines.load_cached(recipe, engine) is not None

    def test_an_interrupted_build_leaves_nothing_that_counts(self, cache_folder, monkeypatch):
        def failing(name, values):
            raise KeyboardInterrupt

        monkeypatch.setattr(cache, "write_json", failing)
        with pytest.raises(KeyboardInterrupt):
            cache.build("some-network", (".a", ".b"), lambda: (b"one", b"two"))
        assert cache.built("some-network", (".a", ".b")) is None


_WITHOUT_KERAS = """
import json, sys
import numpy as np
import rw_keras
from rw_keras import runtimes as engines
recipe, engine, pixels, expected = json.loads(sys.argv[1]), sys.argv[2], np.load(sys.argv[3]), np.load(sys.argv[4])
describer = engines.load_cached(recipe, engine)
np.testing.assert_array_equal(describer(pixels), expected)
descriptors, vectors, boxes = describer.with_regions(pixels)
np.testing.assert_array_equal(descriptors, expected)
assert vectors.shape == (2, len(boxes), expected.shape[1]) and len(boxes) > 21, (vectors.shape, boxes.shape)
np.testing.assert_array_equal(rw_keras.describe(describer, pixels[0]), describer(pixels[:1])[0])
loaded = {"tensorflow", "keras", "jax", "torch"} & set(sys.modules)
assert not loaded, loaded
"""


class TestLoadCached:
    @pytest.mark.slow
    def test_loads_no_tensorflow(self, engine, vgg_like, tmp_path):
        pixels = photos(48, 64, count=2)
        described = engines.load(rw_keras.multi_scale(vgg_like), engine)
        np.save(tmp_path / "pixels.npy", pixels)
        np.save(tmp_path / "expected.npy", described(pixels))
        recipe = json.dumps({**described.recipe, "max_side": 512})
        command = [sys.executable, "-c", _WITHOUT_KERAS, recipe, engine, tmp_path / "pixels.npy", tmp_path / "expected.npy"]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr

    def test_nothing_before_the_first_use(self, engine, vgg_like):
        recipe = describer.ModelRuntimes.of(vgg_like).known.recipe
        assert engines.load_cached(recipe, engine) is None
        assert engines.load_cached(recipe) is None
        assert engines.load_cached(recipe, "tensorflow") is None

    @pytest.mark.slow
    def test_describes_as_the_index_of_the_recipe_was(self, engine, vgg_like):
        described = engines.load(vgg_like, engine)
        found = engines.load_cached({**described.recipe, "max_side": 40}, engine)
        assert found.recipe == described.recipe.at(40)
        photo = photos(64, 80)[0]
        np.testing.assert_array_equal(rw_keras.describe(found, photo), rw_keras.describe(described, photo, max_side=40))

    @pytest.mark.slow
    def test_what_auto_has_taken(self, engine, vgg_like, monkeypatch):
        chosen = engines.choose(vgg_like, "exact", (32, 32))
        found = engines.load_cached(describer.ModelRuntimes.of(vgg_like).known.recipe, "auto", size=(32, 32))
        assert (found is None) == (chosen.runtime == "tensorflow")
        if found is not None:
            assert (found.runtime, found.variant) == (chosen.runtime, chosen.variant)


@pytest.mark.parametrize("before", [False, True])
def test_openvino_is_imported_without_what_reports_its_use(tmp_path, monkeypatch, before):
    """It would report from a process that it forks, which may wait forever."""
    (tmp_path / "openvino_telemetry.py").write_text("")
    (tmp_path / "like_openvino.py").write_text(
        "try:\n    import openvino_telemetry\n    reports = True\nexcept ImportError:\n    reports = False\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    reporter = types.ModuleType("openvino_telemetry")
    monkeypatch.setitem(sys.modules, "openvino_telemetry", reporter)
    if not before:
        monkeypatch.delitem(sys.modules, "openvino_telemetry")
    monkeypatch.delitem(sys.modules, "like_openvino", raising=False)
    assert not openvino_engine.imported("like_openvino").reports
    assert sys.modules.get("openvino_telemetry") is (reporter if before else None)
    del sys.modules["like_openvino"]


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_a_look_whether_openvino_is_there_reports_nothing():
    program = (
        "import sys; from rw_keras.runtimes.describer import check_installed; check_installed('openvino'); "
        "print('openvino' in sys.modules, 'openvino_telemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "True False\n", done.stderr


class TestEarlierNames:
    """They go on for one release."""

    def test_of_arguments(self, vgg_like, cache_folder):
        with pytest.warns(FutureWarning, match="engine= is called name= now"):
            describer = engines.load(vgg_like, engine="tensorflow")
        with pytest.warns(FutureWarning, match="engine= is called name= now"):
            assert engines.load_cached(vgg_like.recipe, engine="tensorflow") is None
        with pytest.warns(FutureWarning, match="engine= is called runtime= now"):
            rw_keras.describe(describer, photos(32, 32)[0], engine="tensorflow")
        with pytest.raises(TypeError, match="engine= is the earlier name of name="):
            engines.load(vgg_like, engine="tensorflow", name="tensorflow")

    def test_of_attributes(self, vgg_like):
        describer = engines.load(vgg_like, "tensorflow")
        with pytest.warns(FutureWarning, match=r"Describer\.engine is called Describer\.runtime now") as caught:
            assert describer.engine == describer.runtime == "tensorflow"
        assert caught[0].filename == __file__
        with pytest.warns(FutureWarning, match=r"Choice\.engine is called Choice\.runtime now"):
            assert engines.Choice("ncnn", "float32", "exact", (48, 64), []).engine == "ncnn"

    def test_of_the_table(self):
        with pytest.warns(FutureWarning, match=r"runtimes\.ENGINES is called runtimes\.RUNTIMES now"):
            assert engines.ENGINES is engines.RUNTIMES
        with pytest.raises(AttributeError, match="no attribute 'NOTHING'"):
            engines.NOTHING  # noqa: B018


@pytest.mark.parametrize("settings", [False, True])
def test_weights_of_one_sum_and_the_same_beginning_are_others(vgg_like, settings):
    """What was built of a model is not taken for another's, however little changes."""
    before = describer.ModelRuntimes.of(vgg_like)
    assert describer.ModelRuntimes.of(vgg_like) is before
    if settings:
        vgg_like.get_layer("whitening").shrinkage = 0.5
    else:
        bias = np.array(vgg_like.get_layer("conv1").bias)
        bias[[10, 11]] += [0.5, -0.5]
        vgg_like.get_layer("conv1").bias.assign(bias)
    assert describer.ModelRuntimes.of(vgg_like) is not before
