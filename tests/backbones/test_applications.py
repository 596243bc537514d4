import dataclasses
import functools
import inspect
import sys
import urllib.error

import h5py
import keras
import numpy as np
import pytest

import rw_keras
from rw_keras import backbones
from rw_keras.model.recipe import UNSET
from rw_keras.photos.reading import ImageError
from rw_keras.runtimes.keras_model import batch_function

# One of each preprocessing, and one more whose last map has values below 0. Channels, the fewest pixels a side, and whether the
# last map is signed.
NETWORKS = {
    "ResNet50": (2048, 1, False),
    "MobileNetV2": (1280, 31, False),
    "DenseNet121": (1024, 29, False),
    "EfficientNetV2B0": (1280, 1, True),
    "ConvNeXtTiny": (768, 32, True),
}
SIZES = [(64, 80), (97, 70), (33, 121)]

# By its own name each.
CLASSES = {name: found for name, found in vars(keras.applications).items() if inspect.isfunction(found)}
# Where the size of a photo is not known, Keras builds another NASNet: it fails on most sizes.
LEFT_OUT = {"NASNetMobile", "NASNetLarge"}
OF_APPLICATIONS = [
    name for name, function in backbones.BACKBONES.items() if getattr(function, "func", None) is backbones.application
]

file_utils = sys.modules[keras.utils.get_file.__module__]


def run(model, photos):
    return keras.ops.convert_to_numpy(model(np.asarray(photos, "float32"), training=False))


def preprocess_input(class_name):
    """That of the module which the class stands in."""
    return sys.modules[CLASSES[class_name].__module__].preprocess_input


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max(), rtol=0)


@pytest.fixture(scope="module")
def describing():
    """A function (name) -> a descriptor model of the network, with random weights and not whitened."""

    @functools.cache
    def build(class_name):
        keras.utils.set_random_seed(0)
        return rw_keras.build_descriptor(class_name, weights=None, whitening=None)

    return build


@pytest.fixture(scope="module")
def photo(draw):
    """A function (height, width) -> a photo."""
    return lambda height, width: draw(1, width, height)


class TestNetwork:
    @pytest.mark.slow
    @pytest.mark.parametrize("class_name", ["MobileNetV2", "EfficientNetV2B0", "ConvNeXtTiny"])
    def test_describes_photos_of_any_size(self, describing, photo, class_name):
        channels, _, signed = NETWORKS[class_name]
        model = describing(class_name)
        assert model.input_shape == (None, None, None, 3)
        assert model.output_shape == (None, channels)
        with_map = keras.Model(model.input, [model.get_layer("features").input, model.get_layer("features").output, model.output])
        for height, width in SIZES:
            last, features, found = (
                keras.ops.convert_to_numpy(one) for one in with_map(photo(height, width)[None].astype("float32"))
            )
            assert features.shape[-1] == channels
            for side, cells in zip((height, width), features.shape[1:3]):
                assert cells in (side // 32, -(-side // 32))
            assert (last.min() < 0) == signed
            np.testing.assert_array_equal(features, np.maximum(last, 0))
            np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-5)

    @pytest.mark.slow
    @pytest.mark.parametrize("class_name", ["MobileNetV2", "ConvNeXtTiny"])
    def test_one_graph_serves_every_size(self, describing, photo, class_name):
        model = describing(class_name)
        graph = batch_function(model)
        for size in SIZES:
            pixels = photo(*size)[None]
            np.testing.assert_allclose(graph(pixels), run(model, pixels), atol=1e-4)

    @pytest.mark.parametrize(
        "class_name", [name if name == "MobileNetV2" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
    )
    def test_fewest_pixels(self, describing, photo, class_name):
        least = NETWORKS[class_name][1]
        model = describing(class_name)
        assert model.recipe["min_side"] == least
        found = rw_keras.describe(model, photo(least, least))
        np.testing.assert_allclose(np.linalg.norm(found), 1, rtol=1e-5)
        if least > 1:
            with pytest.raises(ImageError, match=f"{least} or more"):
                rw_keras.describe(model, photo(least - 1, least))

    @pytest.mark.slow
    @pytest.mark.parametrize("class_name", ["MobileNetV2", "ResNet50"])
    def test_saved_model_loads_in_safe_mode_and_gives_the_same_digits(self, describing, photo, class_name, tmp_path):
        model = describing(class_name)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        assert loaded.recipe == model.recipe
        pixels = photo(64, 80)[None]
        np.testing.assert_array_equal(run(loaded, pixels), run(model, pixels))

    @pytest.mark.slow
    @pytest.mark.parametrize("class_name", NETWORKS)
    def test_is_keras_own_network_on_pixels_preprocessed_by_keras(self, photo, class_name, tmp_path):
        """The weights go by a file, and the pixels straight in."""
        keras.utils.set_random_seed(1)
        options = {"include_preprocessing": True} if class_name.startswith(("EfficientNetV2", "ConvNeXt")) else {}
        own = CLASSES[class_name](include_top=False, weights=None, input_shape=(None, None, 3), **options)
        own.save_weights(tmp_path / "own.weights.h5")
        network = backbones.BACKBONES[class_name.lower()](weights=tmp_path / "own.weights.h5")
        pixels = photo(64, 96)[None].astype("float32")
        close(run(network, pixels), np.maximum(run(own, preprocess_input(class_name)(pixels.copy())), 0))


@pytest.mark.slow
def test_name_in_any_case_is_the_same_network(describing):
    made = dataclasses.replace(describing("MobileNetV2").recipe, weights=UNSET)  # those are random
    assert made["backbone"] == "mobilenetv2"
    assert made["layer"] == "features"
    for name in ("mobilenetv2", "MOBILENETV2"):
        again = rw_keras.build_descriptor(name, weights=None, whitening=None).recipe
        assert dataclasses.replace(again, weights=UNSET) == made


class TestRegistration:
    def test_every_network_of_keras_has_its_name_in_lower_case(self):
        names = {name.lower() for name in CLASSES}
        assert set(OF_APPLICATIONS) <= names
        # VGG16 has a reader of its own.
        assert names - set(OF_APPLICATIONS) == {name.lower() for name in LEFT_OUT} | {"vgg16"}
        assert "vgg16" in backbones.BACKBONES

    def test_each_builds_its_own_class(self):
        for name in OF_APPLICATIONS:
            class_name, _ = backbones.BACKBONES[name].args
            assert class_name in CLASSES
            assert class_name.lower() == name
            assert class_name in backbones.LICENCES[name]

    @pytest.mark.slow
    def test_what_is_left_out_does_not_take_photos_of_any_size(self):
        network = CLASSES["NASNetMobile"](include_top=False, weights=None, input_shape=(None, None, 3))
        with pytest.raises(Exception, match=r"(?i)shape|size|dimension|broadcast"):
            run(network, np.zeros((1, 64, 80, 3)))

    @pytest.mark.parametrize("name", OF_APPLICATIONS)
    def test_what_the_class_is_given_is_what_its_module_makes_of_pixels(self, name, draw, monkeypatch):
        class_name = backbones.BACKBONES[name].args[0]
        takes = "include_preprocessing" in inspect.signature(CLASSES[class_name]).parameters
        given = {}

        def stand_in(include_top, input_tensor, weights, **options):
            given.update(options, include_top=include_top, weights=weights)
            both = keras.layers.Concatenate()([input_tensor, keras.ops.negative(input_tensor)])
            return keras.Model(keras.utils.get_source_inputs(input_tensor), both)

        monkeypatch.setattr(keras.applications, class_name, stand_in)
        pixels = np.concatenate([draw(3)[None], np.stack([np.full((48, 64, 3), value) for value in (0, 255)])]).astype("float32")
        found = run(backbones.BACKBONES[name](weights=None, layer="features"), pixels)
        close(found[..., :3] - found[..., 3:], preprocess_input(class_name)(pixels.copy()))
        expected = {"include_top": False, "weights": None}
        assert given == (expected | {"include_preprocessing": True} if takes else expected)


@pytest.mark.slow
class TestLayer:
    def test_cuts_the_network(self, photo):
        model = rw_keras.build_descriptor("MobileNetV2", weights=None, whitening=None, layer="block_6_expand_relu")
        assert model.output_shape == (None, 192)
        assert model.recipe["layer"] == "block_6_expand_relu"
        assert "rectified" not in [layer.name for layer in model.layers]
        assert rw_keras.describe(model, photo(64, 80)).shape == (192,)

    def test_that_leaves_a_signed_map_is_rectified(self, photo):
        model = rw_keras.build_descriptor("MobileNetV2", weights=None, whitening=None, layer="block_6_project_BN")
        rectified = model.get_layer("rectified")
        features = keras.Model(model.input, [rectified.input, rectified.output])
        before, after = (keras.ops.convert_to_numpy(one) for one in features(photo(64, 80)[None].astype("float32")))
        assert before.min() < 0
        np.testing.assert_array_equal(after, np.maximum(before, 0))

    def test_default_may_be_named(self, describing):
        model = rw_keras.build_descriptor("MobileNetV2", weights=None, whitening=None, layer="features")
        assert dataclasses.replace(model.recipe, weights=UNSET) == dataclasses.replace(
            describing("MobileNetV2").recipe, weights=UNSET
        )

    def test_of_vgg19_is_its_last_convolution(self):
        network = backbones.BACKBONES["vgg19"](weights=None)
        assert network.output_names == ["block5_conv4"]
        assert network.compute_output_shape((1, 64, 96, 3)) == (1, 4, 6, 512)

    def test_unknown_is_refused_with_the_last_ones(self):
        with pytest.raises(ValueError, match=r"MobileNetV2 has no layer 'conv5' to cut at; its last ones are .*out_relu"):
            rw_keras.build_descriptor("MobileNetV2", weights=None, whitening=None, layer="conv5")


def as_published(whole, path):
    """Keras' older file of weights alone, as its own downloads are, out of one of a whole model."""
    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        for name in source["model_weights"]:
            source.copy(source["model_weights"][name], target, name)
        for name, value in source["model_weights"].attrs.items():
            target.attrs[name] = value
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Keras' own MobileNetV2, and its weights in files of each kind."""
    folder = tmp_path_factory.mktemp("weights")
    keras.utils.set_random_seed(2)
    own = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(None, None, 3))
    own.save_weights(folder / "own.weights.h5")
    own.save(folder / "own.keras")
    own.save(folder / "whole.h5")
    as_published(folder / "whole.h5", folder / "own.h5")
    return own, {path.name: path for path in folder.iterdir()}


KINDS = ("own.weights.h5", "own.keras", "whole.h5", "own.h5")
EACH_KIND = (KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:]))  # see also test_readers.py


@pytest.mark.filterwarnings("ignore::UserWarning")  # of an older format
@pytest.mark.slow
class TestWeights:
    @pytest.mark.parametrize("kind", EACH_KIND)
    def test_of_a_file(self, kind, files, photo):
        own, paths = files
        assert set(paths) == set(KINDS)
        pixels = photo(64, 96)[None].astype("float32")
        expected = run(own, pixels / 127.5 - 1)
        for path in (paths[kind], str(paths[kind])):
            close(run(backbones.BACKBONES["mobilenetv2"](weights=path), pixels), expected)

    @pytest.mark.parametrize("kind", EACH_KIND)
    @pytest.mark.parametrize("class_name", ["MobileNet", pytest.param("DenseNet121", marks=pytest.mark.slow)])
    def test_of_another_network_are_refused(self, class_name, kind, files):
        with pytest.raises(ValueError, match=f"{kind} does not hold weights of {class_name} without its top: .+"):
            rw_keras.build_descriptor(class_name, weights=files[1][kind], whitening=None)

    @pytest.mark.parametrize("ending", [".weights.h5", ".keras", ".h5", ".npz"])
    def test_of_a_broken_file_are_refused(self, ending, tmp_path):
        path = tmp_path / f"broken{ending}"
        path.write_bytes(b"\x89HDF\r\n\x1a\n and no more")
        with pytest.raises(ValueError, match=r"broken[.\w]* does not hold weights of MobileNetV2 without its top"):
            rw_keras.build_descriptor("MobileNetV2", weights=path, whitening=None)

    def test_of_a_file_that_is_cut_short_are_refused(self, files, tmp_path):
        for kind in KINDS:
            content = files[1][kind].read_bytes()
            (tmp_path / kind).write_bytes(content[: len(content) * 2 // 3])
            with pytest.raises(ValueError, match=f"{kind} does not hold weights of MobileNetV2"):
                backbones.BACKBONES["mobilenetv2"](weights=tmp_path / kind)

    def test_of_a_missing_file_are_refused(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"There is no file .*nowhere\.h5; pass the path of MobileNetV2's weights"):
            rw_keras.build_descriptor("MobileNetV2", weights=tmp_path / "nowhere.h5", whitening=None)

    def test_file_of_efficientnet_is_refused_with_what_to_do(self, tmp_path):
        (tmp_path / "own.weights.h5").write_bytes(b"")
        with pytest.raises(ValueError, match=r"EfficientNetB0 reads no weights from .*own\.weights\.h5.*a scaling.*keras\.Model"):
            rw_keras.build_descriptor("EfficientNetB0", weights=tmp_path / "own.weights.h5", whitening=None)

    def test_of_imagenet_are_those_that_keras_fetches(self, files, photo, monkeypatch, capsys):
        own, paths = files

        def fetched(*arguments, **options):
            print("Downloading data")
            return str(paths["own.h5"])

        monkeypatch.setattr(file_utils, "get_file", fetched)
        network = backbones.BACKBONES["mobilenetv2"]()
        said = capsys.readouterr()
        assert (said.out, said.err.count("Downloading data")) == ("", 1)
        pixels = photo(64, 96)[None].astype("float32")
        close(run(network, pixels), run(own, pixels / 127.5 - 1))

    @pytest.mark.parametrize(
        "error",
        [
            urllib.error.URLError("no route to host"),
            urllib.error.HTTPError("https://example.org", 503, "no route to host", None, None),
            TimeoutError("no route to host"),
        ],
        ids=["no answer", "refused", "standing still"],
    )
    def test_of_imagenet_from_a_dead_host_are_an_error_and_never_random(self, error, monkeypatch, tmp_path, capsys):
        def dead(*arguments, **options):
            raise error

        monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))  # an empty cache
        monkeypatch.setattr(file_utils, "urlretrieve", dead)
        with pytest.raises(FileNotFoundError) as refused:
            rw_keras.build_descriptor("MobileNetV2", whitening=None)
        for words in ("MobileNetV2's ImageNet weights could not be fetched", "no route to host", "include_top=False"):
            assert words in str(refused.value)
        assert capsys.readouterr().out == ""

    def test_of_imagenet_in_another_file_are_an_error(self, files, monkeypatch, tmp_path, capsys):
        def other(url, filename, *arguments, **options):
            with open(filename, "wb") as file:
                file.write(files[1]["own.h5"].read_bytes())

        monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
        monkeypatch.setattr(file_utils, "urlretrieve", other)
        with pytest.raises(FileNotFoundError, match=r"DenseNet121's ImageNet weights could not be fetched \(.*corrupted"):
            backbones.BACKBONES["densenet121"]()
        assert capsys.readouterr().out == ""
