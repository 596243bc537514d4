import functools
import hashlib
import itertools
import pathlib
import re
import subprocess
import sys
import warnings

import keras
import method_reference
import numpy as np
import pytest
from layers import reference

import rw_keras
from rw_keras import layers, methods
from rw_keras.backbones.vgg16 import PUBLISHED
from rw_keras.model import whitening
from rw_keras.model.descriptor_model import DescriptorModel
from rw_keras.model.recipe import recipe, whitening_layer
from rw_keras.model.whitening import Whitening
from rw_keras.photos.reading import ImageError, read_image
from rw_keras.photos.sources import list_photos


def run(model, photos):
    return keras.ops.convert_to_numpy(model(np.asarray(photos, "float32"), training=False))


def learned_arrays(model):
    layer = whitening_layer(model)
    return [keras.ops.convert_to_numpy(variable) for variable in (layer.mean, layer.eigenvectors, layer.eigenvalues)]


def learned_whitening(model, shrinkage=0.0):
    """What the model's whitening does, in float64."""
    return functools.partial(
        reference.whitened,
        **dict(zip(("mean", "axes", "variances"), learned_arrays(model))),
        shrinkage=shrinkage,
    )


def expected_descriptor(features, whiten=None, levels=3, **weights):
    return reference.descriptor(reference.region_sums(reference.weighted(features, **weights), levels), whiten)


def assert_same_descriptors(found, expected):
    """Of descriptors, which have unit length, the distance."""
    assert found.shape == expected.shape
    assert np.linalg.norm(found.astype("float64") - expected, axis=-1).max() < reference.RELATIVE_ERROR


def at_convolution(model):
    """The part of a tiny model that ends in its feature map."""
    return keras.Model(model.input, model.get_layer("convolution").output)


def tiny_stages(**arguments):
    """The layers of a network of 12 channels that halves a photo twice."""
    initializer = functools.partial(keras.initializers.HeNormal)
    return [
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(6, 3, strides=2, activation="relu", kernel_initializer=initializer(seed=1), name="first", **arguments),
        keras.layers.Conv2D(
            12, 3, strides=2, activation="relu", kernel_initializer=initializer(seed=2), name="second", **arguments
        ),
    ]


def functional(name="network", **arguments):
    photos = keras.Input((None, None, 3))
    features = photos
    for stage in tiny_stages(**arguments):
        features = stage(features)
    return keras.Model(photos, features, name=name)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="network")
        self.stages = tiny_stages()

    def call(self, photos):
        for stage in self.stages:
            photos = stage(photos)
        return photos


BACKBONES = {
    "functional": functional,
    "sequential": lambda: keras.Sequential([keras.Input((None, None, 3)), *tiny_stages()], name="network"),
    "sequential, not built": lambda: keras.Sequential(tiny_stages(), name="network"),
    "subclassed": Subclassed,
    "functional, nested": lambda: keras.Sequential([keras.Input((None, None, 3)), functional("inner")], name="network"),
}


@pytest.fixture(scope="module")
def photos(draw):
    """Six photos of one shape."""
    return np.stack([draw(seed) for seed in range(6)])


@pytest.fixture(scope="module")
def vgg16():
    """With random weights."""
    keras.utils.set_random_seed(0)
    return rw_keras.build_descriptor(weights=None, whitening=None)


@pytest.fixture(scope="module")
def build(tiny_model):
    """A function (arguments of `build_descriptor`) -> a new tiny model whose every channel fires somewhere in the photos."""
    return functools.partial(tiny_model, 4)


@pytest.fixture(scope="module")
def fitted(build, photos):
    """A tiny model with a whitening learned from six photos, for tests that leave it as it is."""
    model = build()
    rw_keras.fit_whitening(model, list(photos), progress=False)
    return model


@pytest.fixture(scope="module")
def learned(build, draw):
    """A function (name) -> a tiny model of that method and the whitening it learned, from photos enough for every axis."""
    examples = [draw(seed) for seed in range(100, 130)]

    @functools.cache
    def fit(name):
        model = build(method=name)
        return model, rw_keras.fit_whitening(model, examples, progress=False)

    return fit


class TestValue:
    def test_is_the_formulas_on_the_networks_own_map(self, model, draw):
        for width, height in ((64, 48), (48, 64), (80, 80), (8, 8), (8, 200), (300, 24)):
            photo = draw(width, width, height)[None]
            assert_same_descriptors(run(model, photo), expected_descriptor(run(at_convolution(model), photo)))

    def test_with_a_learned_whitening(self, fitted, draw, build):
        photo = draw(99, 80, 72)[None]
        features = run(at_convolution(fitted), photo)
        assert_same_descriptors(run(fitted, photo), expected_descriptor(features, learned_whitening(fitted)))

        shrunk = build(shrinkage=0.3, components=5)
        mean, axes, variances = learned_arrays(fitted)
        whitening_layer(shrunk).assign(mean, axes, variances, 126)
        whiten = functools.partial(reference.whitened, mean=mean, axes=axes[:, :5], variances=variances, shrinkage=0.3)
        assert_same_descriptors(run(shrunk, photo), expected_descriptor(features, whiten))

    @pytest.mark.parametrize("levels", [1, 2, 5])
    def test_at_other_scales(self, build, photos, levels):
        model = build(levels=levels)
        assert_same_descriptors(run(model, photos), expected_descriptor(run(at_convolution(model), photos), levels=levels))

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", BACKBONES)
    def test_on_a_network_of_ones_own(self, kind, photos):
        network = BACKBONES[kind]()
        model = rw_keras.build_descriptor(network, whitening=None)
        assert_same_descriptors(run(model, photos), expected_descriptor(run(network, photos)))
        assert model.recipe["backbone"].startswith("network ")
        assert model.recipe["min_side"] == 7
        assert rw_keras.describe(model, photos[0]).shape == (12,)

    def test_on_a_network_cut_at_a_layer(self, photos):
        network = functional()
        model = rw_keras.build_descriptor(network, layer="first", whitening=None)
        features = run(keras.Model(network.input, network.get_layer("first").output), photos)
        assert_same_descriptors(run(model, photos), expected_descriptor(features))
        assert model.recipe["layer"] == "first"
        assert model.recipe["min_side"] == 3

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_on_a_network_of_low_precision(self, policy, photos):
        network = functional(dtype=policy)
        model = rw_keras.build_descriptor(network, whitening=None)
        found = run(model, photos)
        assert found.dtype == "float32"
        features = network(photos.astype("float32"))
        assert keras.backend.standardize_dtype(features.dtype) == policy.removeprefix("mixed_")
        features = keras.ops.convert_to_numpy(keras.ops.cast(features, "float32"))
        assert_same_descriptors(found, expected_descriptor(features))

    @pytest.mark.filterwarnings("ignore:PCAWhiten")  # so few photos leave an axis flat
    @pytest.mark.parametrize("name", methods.OF_RECTIFIED_MAPS)
    def test_has_unit_length_and_zero_where_the_map_is_zero(self, build, photos, name):
        model = build(method=name)
        rw_keras.fit_whitening(model, list(photos) * 3, progress=False)
        black = np.zeros_like(photos[:1])
        found = run(model, np.concatenate([photos, black]))
        np.testing.assert_allclose(np.linalg.norm(found[:-1], axis=-1), 1, rtol=1e-6)
        assert not found[-1].any()

    def test_batch_of_photos_is_the_photos_one_by_one(self, fitted, photos):
        one_by_one = np.concatenate([run(fitted, photo[None]) for photo in photos])
        np.testing.assert_allclose(run(fitted, photos), one_by_one, atol=2e-6)

    def test_pixels_may_be_whole_numbers(self, model, photos):
        found = keras.ops.convert_to_numpy(model(photos, training=False))
        np.testing.assert_allclose(found, run(model, photos), atol=1e-6)


class TestMethod:
    def test_function(self, build, photos):
        def largest(features):
            return keras.layers.Reshape((1, features.shape[-1]))(keras.layers.GlobalMaxPooling2D()(features))

        model = build(method=largest)
        features = run(at_convolution(model), photos)
        assert_same_descriptors(run(model, photos), reference.unit(features.max(axis=(1, 2))))
        assert model.recipe["levels"] is None

    @pytest.mark.parametrize("arguments", [{"alpha": 1.0}, {"beta": 0.5}, {"epsilon": 0.001}, {"alpha": 3, "beta": 1}])
    def test_named_one_with_other_arguments(self, build, photos, arguments):
        model = build(method=functools.partial(methods.rw, **arguments), levels=2)
        features = run(at_convolution(model), photos)
        assert_same_descriptors(run(model, photos), expected_descriptor(features, levels=2, **arguments))
        assert model.recipe["levels"] == 2
        for name, value in arguments.items():
            assert f"{name}={value!r}" in model.recipe["method"]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "method",
        [
            functools.partial(methods.rw, alpha=1.0),
            functools.partial(methods.rw, alpha=0.5, beta=1.5),
            lambda features: layers.RegionalSumPooling(2)(features),
            methods.plain_sum,
        ],
    )
    def test_model_of_any_method_describes_saves_and_loads(self, build, photos, tmp_path, method):
        model = build(method=method)
        found = rw_keras.describe(model, photos)
        np.testing.assert_allclose(found, run(model, photos), atol=2e-6)
        model.save(tmp_path / "model.keras")
        np.testing.assert_array_equal(run(rw_keras.load_model(tmp_path / "model.keras"), photos), run(model, photos))

    def test_that_returns_no_region_vectors_is_refused(self, build):
        for method in (lambda features: features, keras.layers.GlobalMaxPooling2D(), lambda features: None):
            with pytest.raises(ValueError, match=r"has to return region vectors \(batch, regions, channels\)"):
                build(method=method)

    def test_unknown_name_is_refused(self, build):
        with pytest.raises(ValueError, match="no method 'r-mac'; choose one of rw"):
            build(method="r-mac")


def test_a_function_that_takes_signed_maps_is_another_method():
    """It has the same layers, on a map without a ReLU."""

    def middle(features):
        return methods.plain_sum(features)

    photos = keras.Input((None, None, 3))
    network = keras.Model(photos, keras.layers.Conv2D(8, 3)(photos), name="network")
    rectified = rw_keras.build_descriptor(network, method=middle, whitening=None)
    signed = rw_keras.build_descriptor(network, method=methods.takes_signed(middle), whitening=None)
    assert signed.recipe["method"] == f"{rectified.recipe['method']}-signed"
    assert [line for line in signed.recipe.differences(rectified.recipe, "the other's") if "method" in line]


class TestNamedMethods:
    @pytest.mark.parametrize("name", methods.OF_RECTIFIED_MAPS)
    def test_value(self, build, draw, name):
        model = build(method=name)
        for width, height in ((64, 48), (56, 56), (120, 200), (300, 72)):
            photo = draw(width, width, height)[None]
            features = run(at_convolution(model), photo)
            assert_same_descriptors(run(model, photo), reference.descriptor(method_reference.REGIONS[name](features)))

    @pytest.mark.parametrize("name", methods.OF_RECTIFIED_MAPS)
    def test_value_with_a_learned_whitening(self, learned, photos, name):
        model, _ = learned(name)
        whiten = learned_whitening(model, 0.2 if name == "root_rw" else 0.0)
        regions = method_reference.REGIONS[name](run(at_convolution(model), photos))
        assert_same_descriptors(run(model, photos), reference.descriptor(regions, whiten))

    @pytest.mark.parametrize("name", methods.OF_RECTIFIED_MAPS)
    def test_whitening_is_learned_on_the_methods_own_region_vectors(self, learned, draw, name):
        model, found = learned(name)
        features = run(at_convolution(model), np.stack([draw(seed) for seed in range(100, 130)]))
        vectors = reference.unit(method_reference.REGIONS[name](features)).reshape(-1, 12)
        mean, _, variances = reference.principal_axes(vectors)
        np.testing.assert_allclose(found.mean, mean, atol=1e-6)
        np.testing.assert_allclose(found.eigenvalues, variances, rtol=1e-3, atol=1e-7)
        assert whitening_layer(model).count == len(vectors)

    @pytest.mark.parametrize("name", methods.OF_RECTIFIED_MAPS)
    def test_saved_model_and_whitening_load_and_give_the_same_digits(self, learned, build, photos, tmp_path, name):
        model, _ = learned(name)
        expected = run(model, photos)
        model.save(tmp_path / "model.keras")
        loaded = rw_keras.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(run(loaded, photos), expected)
        assert recipe(loaded) == recipe(model)

        rw_keras.save_whitening(model, tmp_path / "learned.npz")
        again = build(method=name, whitening=tmp_path / "learned.npz")
        np.testing.assert_array_equal(run(again, photos), expected)
        assert recipe(again)["method"] == name
        others = [other for other in methods.OF_RECTIFIED_MAPS if other != name]
        with pytest.raises(ValueError, match=f"its method is '{name}', the model's '{others[0]}'"):
            build(method=others[0], whitening=tmp_path / "learned.npz")

    def test_no_two_are_the_same(self, build, photos):
        found = {name: run(build(method=name), photos) for name in methods.OF_RECTIFIED_MAPS}
        for one, other in itertools.combinations(found, 2):
            assert np.abs(found[one] - found[other]).max() > 1e-3, (one, other)

    @pytest.mark.parametrize("name", methods.OF_RECTIFIED_MAPS)
    def test_recipe_has_levels_where_the_method_has_regions(self, build, name):
        found = build(method=name, levels=2).recipe
        assert (found["method"], found["levels"]) == (name, 2 if name in ("rw", "root_rw", "rmac") else None)

    @pytest.mark.parametrize("name", ["rw", "root_rw", "rmac"])
    def test_levels_are_those_of_the_grid(self, build, photos, name):
        model = build(method=name, levels=2)
        regions = functools.partial(method_reference.rmac, levels=2)
        if name != "rmac":
            regions = functools.partial(method_reference.rw, levels=2)
        vectors = regions(run(at_convolution(model), photos))
        vectors = reference.signed_power(vectors) if name == "root_rw" else vectors
        assert_same_descriptors(run(model, photos), reference.descriptor(vectors))

    @pytest.mark.parametrize("name", methods.OF_RECTIFIED_MAPS)
    def test_shrinkage_is_the_methods_own_unless_it_is_given(self, build, name):
        own = 0.2 if name == "root_rw" else 0.0
        for arguments, expected in (({}, own), ({"shrinkage": None}, own), ({"shrinkage": 0.0}, 0.0), ({"shrinkage": 0.4}, 0.4)):
            assert whitening_layer(build(method=name, **arguments)).shrinkage == expected
        assert whitening_layer(build(method=methods.METHODS[name])).shrinkage == own
        if name == "root_rw":
            assert whitening_layer(build(method=functools.partial(methods.root_rw, alpha=1.0))).shrinkage == own

    def test_ablation_is_another_method(self, build, photos):
        parts = {"spatial_weight": False, "channel_weight": "proportions", "pooling": "max"}
        model = build(method=functools.partial(methods.rw, **parts))
        regions = method_reference.rw(run(at_convolution(model), photos), **parts)
        assert_same_descriptors(run(model, photos), reference.descriptor(regions))
        for name, value in parts.items():
            assert f"{name}={value!r}" in model.recipe["method"]
        assert whitening_layer(model).shrinkage == 0.0


class TestVGG16:
    def test_is_the_default(self, vgg16):
        assert vgg16.output_shape == (None, 512)
        assert vgg16.input_shape == (None, None, None, 3)
        expected = {"backbone": "vgg16", "layer": "block5_conv3", "method": "rw", "levels": 3, "min_side": 16, "whitening": None}
        assert vgg16.recipe == {**expected, "weights": vgg16.recipe.weights}

    def test_value(self, vgg16, draw):
        photo = draw(1, 96, 64)[None]
        features = run(keras.Model(vgg16.input, vgg16.get_layer("block5_conv3").output), photo)
        assert features.shape == (1, 4, 6, 512)
        assert features.any()
        assert_same_descriptors(run(vgg16, photo), expected_descriptor(features))

    @pytest.mark.slow
    def test_smallest_photo(self, vgg16, draw):
        np.testing.assert_allclose(np.linalg.norm(rw_keras.describe(vgg16, draw(1, 16, 16))), 1, rtol=1e-6)
        with pytest.raises(ImageError, match="each side needs 16 or more"):
            rw_keras.describe(vgg16, draw(1, 64, 15))

    def test_cut_at_another_layer(self):
        model = rw_keras.build_descriptor(weights=None, layer="block3_pool", components=64, whitening=None, name="short")
        assert model.name == "short"
        assert model.output_shape == (None, 64)
        assert (model.recipe["layer"], model.recipe["min_side"]) == ("block3_pool", 8)
        assert "block4_conv1" not in [layer.name for layer in model.layers]

    def test_unknown_layer_is_refused_with_the_known_ones(self):
        with pytest.raises(ValueError, match=r"no layer 'conv9'.*block1_conv1, .*block5_conv3"):
            rw_keras.build_descriptor(weights=None, layer="conv9")

    def test_takes_red_green_blue(self, vgg16):
        preprocessing = vgg16.get_layer("preprocessing")
        assert isinstance(preprocessing, layers.ImageNetPreprocessing)
        assert preprocessing.get_config()["means"] == [103.939, 116.779, 123.68]


class TestRefusedArguments:
    def test_unknown_backbone(self):
        with pytest.raises(ValueError, match=r"no backbone 'vgg15'; choose one of .*vgg16"):
            rw_keras.build_descriptor("vgg15")

    @pytest.mark.parametrize("backbone", [None, 16, keras.layers.Conv2D(4, 3)])
    def test_no_backbone(self, backbone):
        with pytest.raises(ValueError, match=r"A backbone is a name or a keras\.Model, but got "):
            rw_keras.build_descriptor(backbone)

    def test_weights_for_a_network_that_has_its_own(self):
        for weights in (None, "vgg16.h5"):
            with pytest.raises(ValueError, match=f"weights={weights!r} does not go with a keras.Model"):
                rw_keras.build_descriptor(functional(), weights=weights)

    def test_unknown_layer(self):
        with pytest.raises(ValueError, match="third"):
            rw_keras.build_descriptor(functional(), layer="third")
        with pytest.raises(ValueError, match=r"'network' is no functional model, .* layer='second'"):
            rw_keras.build_descriptor(Subclassed(), layer="second")

    def test_network_that_ends_in_no_map(self):
        network = keras.Sequential([keras.Input((None, None, 3)), *tiny_stages(), keras.layers.GlobalMaxPooling2D()], name="flat")
        with pytest.raises(ValueError, match=r"'flat' ends in the shape \(None, 12\), not in a feature map"):
            rw_keras.build_descriptor(network)

    @pytest.mark.parametrize("shape", [(24, 24, 3), (None, None, 1), (None, 24, 3)])
    def test_network_that_does_not_take_photos_of_any_size(self, shape):
        photos = keras.Input(shape)
        network = keras.Model(photos, keras.layers.Conv2D(4, 3)(photos), name="narrow")
        with pytest.raises(ValueError, match=r"'narrow' takes .*it has to take photos of any size"):
            rw_keras.build_descriptor(network, whitening=None)

    def test_network_of_several_inputs_or_outputs(self):
        photos, others = keras.Input((None, None, 3)), keras.Input((None, None, 3))
        features = keras.layers.Conv2D(4, 3)(photos)
        with pytest.raises(ValueError, match=r"'two' has 2 outputs"):
            rw_keras.build_descriptor(keras.Model(photos, [features, photos], name="two"), whitening=None)
        both = keras.layers.Add()([features, keras.layers.Conv2D(4, 3)(others)])
        with pytest.raises(ValueError, match=r"'two' takes .*alone"):
            rw_keras.build_descriptor(keras.Model([photos, others], both, name="two"), whitening=None)

    @pytest.mark.parametrize("name", ["my model", "", "a/b", "_a"])
    def test_name_that_no_model_can_have(self, build, name):
        with pytest.raises(ValueError, match=f"made of letters, digits.* but got {name!r}"):
            build(name=name)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"levels": 0},
            {"levels": 17},
            {"levels": 2.5},
            {"components": 0},
            {"components": 13},
            {"shrinkage": -0.5},
            {"shrinkage": 2},
        ],
    )
    def test_number_out_of_range(self, build, arguments):
        ((name, value),) = arguments.items()
        with pytest.raises(ValueError, match=f"{name}.*{value}"):
            build(**arguments)

    def test_missing_whitening_and_file_that_is_none(self, build, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no whitening file .*learned\.npz"):
            build(whitening=tmp_path / "learned.npz")
        (tmp_path / "learned.npz").write_bytes(b"PK\3\4 and no more")
        with pytest.raises(ValueError, match=r"learned\.npz is not a whitening"):
            build(whitening=tmp_path / "learned.npz")
        np.savez(tmp_path / "other.npz", mean=np.zeros(3))
        with pytest.raises(ValueError, match=r"other\.npz is not a whitening"):
            build(whitening=str(tmp_path / "other.npz"))


class TestRecipe:
    def test_says_what_the_model_is_made_of(self, build):
        found = recipe(build(levels=2))
        weights = found.pop("weights")
        assert re.fullmatch(r"tiny [0-9a-f]{12}", found.pop("backbone"))
        expected = {"layer": "convolution", "method": "rw", "levels": 2, "min_side": 8, "whitening": None}
        assert found == expected
        kernel = keras.ops.convert_to_numpy(build().get_layer("convolution").kernel)
        assert weights == hashlib.sha256(kernel.astype("<f4").tobytes()).hexdigest()

    @pytest.mark.slow
    def test_is_the_same_for_the_same_model_only(self, build, tiny_model, fitted, photos):
        variants = [
            build(),
            tiny_model(seed=1),
            build(levels=2),
            build(method="sum"),
            build(method=functools.partial(methods.rw, alpha=1)),
            fitted,
        ]
        others = [build(shrinkage=shrinkage, components=components) for shrinkage, components in ((0.1, None), (0, 5))]
        for model in others:
            rw_keras.fit_whitening(model, list(photos), progress=False)
        found = [recipe(model) for model in (*variants, *others)]
        for one, other in itertools.combinations(found, 2):
            assert one != other
        assert recipe(build()) == found[0]

    def test_functions_of_one_name_that_do_different_things_differ(self, build):
        found = [recipe(build(method=lambda features, root=root: methods.rw(features, 2, beta=root))) for root in (1, 2, 2)]
        assert found[0] != found[1] == found[2]

    def test_networks_of_one_name_and_the_same_weights_that_do_different_things_differ(self):
        networks = [functional(), functional(), functional(padding="same")]
        networks[1].get_layer("second").activation = keras.activations.softplus
        for network in networks[1:]:
            network.set_weights(networks[0].get_weights())
        found = [recipe(rw_keras.build_descriptor(network, whitening=None)) for network in networks]
        assert len({made["weights"] for made in found}) == 1
        for one, other in itertools.combinations(found, 2):
            assert one["backbone"] != other["backbone"]
        assert recipe(rw_keras.build_descriptor(functional(), whitening=None)) == found[0]

    def test_a_network_of_ones_own_is_none_of_the_package(self, capsys):
        """Keras' own VGG16 is called vgg16 too, and does no preprocessing: the shipped whitening is not for it."""
        own = keras.applications.VGG16(include_top=False, weights=None)
        model = rw_keras.build_descriptor(own, layer="block5_conv3")
        assert recipe(model)["backbone"] != "vgg16"
        for shipped in whitening.shipped():
            assert any("backbone" in difference for difference in shipped.differences(recipe(model)))
        assert "is not whitened" in capsys.readouterr().err

    def test_whitening_in_it_is_the_provenance_without_the_photos(self, fitted):
        found = dict(recipe(fitted)["whitening"])
        assert (
            found.pop("digest")
            == hashlib.sha256(b"".join(a.tobytes() for a in [*learned_arrays(fitted), np.float32(126)])).hexdigest()
        )
        assert found == {"name": "unnamed", "photos": 6, "regions": 126, "max_side": 1024, "components": None, "shrinkage": 0.0}

    def test_learning_a_whitening_changes_the_whitening_alone(self, build, fitted):
        without = {**recipe(fitted), "whitening": None}
        assert without == recipe(build())

    def test_of_any_model(self, photos):
        network = functional()
        found = recipe(network)
        assert found["backbone"].startswith("network ")
        assert found["whitening"] is None
        assert found["weights"] != recipe(keras.Sequential([keras.Input((None, None, 3)), *tiny_stages()[:2]]))["weights"]


class TestWhitenGlobal:
    @pytest.fixture
    def model(self, build, draw):
        model = build(whiten_on="global", shrinkage=0.1)
        rw_keras.fit_whitening(model, [draw(seed) for seed in range(100, 130)], progress=False)
        return model

    @pytest.fixture
    def sums(self, model):
        """A function (photos) -> the unit sums of their unit region vectors, in float64."""
        return lambda photos: reference.descriptor(reference.region_sums(reference.weighted(run(at_convolution(model), photos))))

    def test_value(self, model, sums, photos, draw):
        for batch in (photos, draw(5, 33, 17)[None], draw(6, 16, 16)[None]):
            assert_same_descriptors(run(model, batch), reference.unit(learned_whitening(model, 0.1)(sums(batch))))

    def test_is_learned_on_one_vector_a_photo(self, model, sums, draw):
        mean, _, variances = reference.principal_axes(sums(np.stack([draw(seed) for seed in range(100, 130)])))
        np.testing.assert_allclose(learned_arrays(model)[0], mean, atol=1e-6)
        np.testing.assert_allclose(learned_arrays(model)[2], variances, rtol=1e-3, atol=1e-7)
        assert whitening_layer(model).count == 30

    def test_black_photo_is_zero_and_fewer_components(self, build, photos, draw):
        model = build(whiten_on="global", components=5)
        rw_keras.fit_whitening(model, [draw(seed) for seed in range(20)], progress=False)
        found = run(model, np.concatenate([photos, 0 * photos[:1]]))
        assert found.shape == (7, 5)
        np.testing.assert_allclose(np.linalg.norm(found[:-1], axis=-1), 1, rtol=1e-6)
        assert not found[-1].any()

    def test_without_a_whitening_is_the_same_as_regions(self, build, photos):
        np.testing.assert_allclose(run(build(whiten_on="global"), photos), run(build(), photos), atol=1e-6)

    def test_provenance_counts_vectors(self, model, build, tmp_path, capsys):
        known = model.recipe["whitening"]
        assert (known["photos"], known["vectors"]) == (30, 30)
        assert "regions" not in known
        rw_keras.save_whitening(model, tmp_path / "learned.npz")
        found = Whitening.load(tmp_path / "learned.npz")
        assert found.describe() == "unnamed (30 photos, 30 vectors, max_side 1024)"
        assert whitening_layer(build(whiten_on="global", whitening=tmp_path / "learned.npz")).count == 30
        assert "rw_tiny is whitened as learned on unnamed (30 photos, 30 vectors, max_side 1024)" in capsys.readouterr().err
        by_hand = build(whiten_on="global")
        whitening_layer(by_hand).adapt(np.random.default_rng(0).normal(size=(50, 12)))
        rw_keras.save_whitening(by_hand, tmp_path / "by_hand.npz")
        assert Whitening.load(tmp_path / "by_hand.npz").provenance["vectors"] == 50

    def test_a_whitening_of_the_other_kind_is_refused(self, model, fitted, build, tmp_path):
        rw_keras.save_whitening(model, tmp_path / "global.npz")
        rw_keras.save_whitening(fitted, tmp_path / "regions.npz")
        with pytest.raises(ValueError, match="does not fit this model: its whiten is 'global', the model's 'regions'"):
            build(whitening=tmp_path / "global.npz")
        with pytest.raises(ValueError, match="does not fit this model: its whiten is 'regions', the model's 'global'"):
            build(whiten_on="global", whitening=tmp_path / "regions.npz")
        assert "whiten" not in Whitening.load(tmp_path / "regions.npz").recipe

    def test_recipe_has_the_key_only_then(self, model, build, photos, tmp_path):
        assert recipe(model)["whiten"] == "global"
        assert "whiten" not in recipe(build()) | recipe(build(whiten_on="regions"))
        model.save(tmp_path / "model.keras")
        loaded = rw_keras.load_model(tmp_path / "model.keras")
        assert recipe(loaded) == recipe(model)
        np.testing.assert_array_equal(run(loaded, photos), run(model, photos))

    @pytest.mark.parametrize("whiten", ["Global", "region", None, True])
    def test_another_word_is_refused(self, build, whiten):
        with pytest.raises(ValueError, match=re.escape(f"whiten_on is one of 'regions', 'global', but got {whiten!r}")):
            build(whiten_on=whiten)


class TestMultiScale:
    SCALES = (1, 2**-0.5, 0.5)

    def expected(self, model, photos, scales=SCALES):
        """The unit sum of descriptors of photos resized in float64; no side below the 8 pixels of the tiny network."""

        def side(before, scale):
            return max(int(np.floor(before * scale + 0.5)), min(before, 8))

        sizes = [[side(before, scale) for before in photos.shape[1:3]] for scale in scales]
        return reference.unit(sum(run(model, reference.resized(photos, *size)).astype("float64") for size in sizes))

    @pytest.mark.slow
    @pytest.mark.parametrize("scales", [SCALES, (0.3, 1.5, 2), (1, 0.5), (0.7,), [1]])
    def test_value(self, fitted, draw, scales):
        several = rw_keras.multi_scale(fitted, scales)
        assert several.output_shape == (None, 12)
        for height, width in ((16, 16), (17, 33), (64, 48), (8, 200)):
            batch = np.stack([draw(seed, width, height) for seed in (3, 4)])
            assert_same_descriptors(run(several, batch), self.expected(fitted, batch, scales))

    def test_default_scales(self, fitted, photos):
        several = rw_keras.multi_scale(fitted)
        assert several.recipe["scales"] == list(self.SCALES)
        np.testing.assert_array_equal(run(several, photos), run(rw_keras.multi_scale(fitted, np.array(self.SCALES)), photos))

    def test_whole_numbers_black_photos_and_low_precision_policies(self, fitted, photos):
        before = keras.config.dtype_policy()
        expected = run(rw_keras.multi_scale(fitted), photos)
        try:
            for policy in ("mixed_float16", "mixed_bfloat16"):
                keras.config.set_dtype_policy(policy)
                found = keras.ops.convert_to_numpy(rw_keras.multi_scale(fitted)(np.concatenate([photos, 0 * photos[:1]])))
                assert found.dtype == "float32"
                np.testing.assert_allclose(found[:-1], expected, atol=1e-6)
                assert not found[-1].any()
        finally:
            keras.config.set_dtype_policy(before)

    @pytest.mark.slow
    def test_describes_what_a_single_scale_describes(self, fitted, photo_folder, draw):
        several = rw_keras.multi_scale(fitted)
        photo = read_image(photo_folder / "a.png")
        for box in (None, (3, 5, 40, 47)):
            found = rw_keras.describe(several, photo_folder / "a.png", box=box)
            cut = photo if box is None else photo[box[1] : box[3], box[0] : box[2]]
            assert_same_descriptors(found[None], self.expected(fitted, cut[None]))
        assert rw_keras.describe(several, draw(1, 8, 8)).any()
        with pytest.raises(ImageError, match=r"needs 8 or more"):
            rw_keras.describe(several, draw(1, 7, 30))

    def test_the_network_is_there_once(self, fitted):
        several = rw_keras.multi_scale(fitted)
        assert several.count_params() == fitted.count_params()
        assert [variable.path for variable in several.variables] == [variable.path for variable in fitted.variables]
        assert whitening_layer(several) is whitening_layer(fitted)

    def test_recipe_is_the_models_with_the_scales(self, fitted):
        several = rw_keras.multi_scale(fitted, (1, 0.5))
        assert recipe(several) == {**recipe(fitted), "scales": [1.0, 0.5]}
        assert "scales" not in recipe(fitted)

    @pytest.mark.slow
    @pytest.mark.parametrize("whiten_on", ["regions", "global"])
    def test_whitening_is_learned_at_all_scales(self, build, photos, tmp_path, whiten_on):
        model = build(whiten_on=whiten_on)
        several = rw_keras.multi_scale(model, self.SCALES)
        layer = whitening_layer(model)
        before = keras.Model(model.input, layer.input)
        resized = [rw_keras.layers.ImageScale(scale, model.min_side)(photo[None]) for photo in photos for scale in self.SCALES]
        vectors = np.concatenate([np.asarray(before(one)).reshape(-1, before.output.shape[-1]) for one in resized])
        vectors = vectors[vectors.any(axis=1)].astype("float64")
        learned = rw_keras.fit_whitening(several, list(photos), name="spots", progress=False)
        np.testing.assert_allclose(learned.mean, vectors.mean(axis=0), atol=1e-6)
        spectrum = np.linalg.eigvalsh(np.cov(vectors.T))[::-1]
        np.testing.assert_allclose(learned.eigenvalues, spectrum, atol=1e-5)
        assert learned.provenance["scales"] == list(self.SCALES)
        assert learned.describe().endswith(f"{len(self.SCALES)} scales)")
        # It is that of the model within, too, and another model of its kind takes it.
        assert recipe(several) == {**recipe(model), "scales": list(self.SCALES)}
        assert_same_descriptors(run(several, photos), self.expected(model, photos))
        rw_keras.save_whitening(several, tmp_path / "learned.npz")
        again = build(whitening=tmp_path / "learned.npz", whiten_on=whiten_on)
        assert recipe(again) == recipe(model)
        learned.apply(rw_keras.multi_scale(again))
        np.testing.assert_array_equal(run(again, photos), run(model, photos))

    def test_whitening_of_the_single_scale_holds_for_several(self, build, photos):
        model = build()
        several = rw_keras.multi_scale(model)
        learned = rw_keras.fit_whitening(model, list(photos), progress=False)
        assert "scales" not in learned.provenance
        assert recipe(several) == {**recipe(model), "scales": list(self.SCALES)}
        assert_same_descriptors(run(several, photos), self.expected(model, photos))

    def test_saved_model_loads(self, fitted, photos, tmp_path):
        several = rw_keras.multi_scale(fitted, (1, 0.6))
        several.save(tmp_path / "model.keras")
        loaded = rw_keras.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(run(loaded, photos), run(several, photos))
        assert (recipe(loaded), loaded.recipe, loaded.name) == (recipe(several), several.recipe, several.name)
        copy = type(several).from_config(several.get_config())
        copy.set_weights(several.get_weights())
        np.testing.assert_array_equal(run(copy, photos), run(several, photos))

    @pytest.mark.slow
    def test_of_a_loaded_model_and_of_global_vectors(self, build, photos, draw, tmp_path):
        model = build(whiten_on="global")
        rw_keras.fit_whitening(model, [draw(seed) for seed in range(100, 130)], progress=False)
        model.save(tmp_path / "model.keras")
        several = rw_keras.multi_scale(rw_keras.load_model(tmp_path / "model.keras"))
        assert_same_descriptors(run(several, photos), self.expected(model, photos))
        assert (several.recipe["whiten"], several.recipe["scales"]) == ("global", list(self.SCALES))

    @pytest.mark.slow
    def test_index_on_disk(self, fitted, photo_folder, tmp_path):
        several = rw_keras.multi_scale(fitted)
        rw_keras.extract(several, photo_folder, tmp_path / "index", runtime="tensorflow", progress=False)
        index = rw_keras.retrieval.Index.load(tmp_path / "index")
        np.testing.assert_allclose(index.descriptors, rw_keras.describe(several, list_photos(photo_folder)), atol=2e-6)
        assert index.search_photo(several, photo_folder / "d.png")[0][0] == "d.png"
        with pytest.raises(ValueError, match=r"its scales is \[1\.0, .*\], the one asked for None"):
            rw_keras.extract(fitted, photo_folder, tmp_path / "index", runtime="tensorflow", progress=False)

    @pytest.mark.parametrize("scales", [(0,), (1, -0.5), (1, float("nan")), (2.1,), ("1",), (True,), (None,), 0.5, None])
    def test_scale_out_of_range_is_refused(self, model, scales):
        with pytest.raises(ValueError, match=r"takes numbers above 0, up to 2, as `scales`, such as .*, but got") as refused:
            rw_keras.multi_scale(model, scales)
        assert repr(list(scales) if isinstance(scales, tuple) else scales) in str(refused.value)

    @pytest.mark.parametrize("scales", [(), (1, 0.5, 1), (0.5, 0.5)])
    def test_no_scale_or_one_twice_is_refused(self, model, scales):
        with pytest.raises(
            ValueError, match=re.escape(f"one or more `scales`, all different, such as (1, 0.7071, 0.5), but got {list(scales)}")
        ):
            rw_keras.multi_scale(model, scales)

    def test_what_is_no_model_of_one_scale_is_refused(self, model):
        with pytest.raises(
            ValueError, match="'multi_scale_rw_tiny' is multi-scale already; pass the model that it was made of, 'rw_tiny'"
        ):
            rw_keras.multi_scale(rw_keras.multi_scale(model))
        for other in (functional(), DescriptorModel(model.input, model.output), "vgg16"):
            with pytest.raises(ValueError, match=r"takes a model of rw_keras\.build_descriptor, but got"):
                rw_keras.multi_scale(other)


class TestSaving:
    def test_loaded_model_gives_the_same_digits_and_recipe(self, fitted, photos, tmp_path):
        fitted.save(tmp_path / "model.keras")
        loaded = rw_keras.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(run(loaded, photos), run(fitted, photos))
        assert loaded.recipe == fitted.recipe
        assert recipe(loaded) == recipe(fitted)
        assert loaded.name == fitted.name

    @pytest.mark.slow
    def test_loaded_model_can_learn_and_be_saved_again(self, build, photos, tmp_path):
        model = build()
        model.save(tmp_path / "model.keras")
        loaded = rw_keras.load_model(tmp_path / "model.keras")
        assert not whitening_layer(loaded).adapted
        for one in (model, loaded):
            rw_keras.fit_whitening(one, list(photos), progress=False)
        np.testing.assert_allclose(run(loaded, photos), run(model, photos), atol=1e-6)
        loaded.save(tmp_path / "again.keras")
        np.testing.assert_array_equal(run(rw_keras.load_model(tmp_path / "again.keras"), photos), run(loaded, photos))

    @pytest.mark.parametrize("kind", [kind for kind in BACKBONES if kind != "subclassed"])  # that class Keras cannot know
    def test_of_a_network_of_ones_own(self, kind, photos, tmp_path):
        model = rw_keras.build_descriptor(BACKBONES[kind](), whitening=None)
        model.save(tmp_path / "model.keras")
        np.testing.assert_array_equal(run(rw_keras.load_model(tmp_path / "model.keras"), photos), run(model, photos))

    @pytest.mark.slow
    def test_process_that_has_imported_the_layers_alone_loads_it(self, fitted, photos, tmp_path):
        fitted.save(tmp_path / "model.keras")
        np.save(tmp_path / "photos.npy", photos)
        program = (
            "import sys, keras, numpy, rw_keras.layers\n"
            "model = keras.saving.load_model('model.keras', safe_mode=True)\n"
            "assert 'rw_keras.model.build' not in sys.modules\n"
            "found = model(numpy.load('photos.npy').astype('float32'), training=False)\n"
            "numpy.save('found.npy', keras.ops.convert_to_numpy(found))\n"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        np.testing.assert_allclose(np.load(tmp_path / "found.npy"), run(fitted, photos), atol=1e-6)


class Counting(keras.layers.Layer):
    """Hands its input on, and counts how often Python came by."""

    def __init__(self):
        super().__init__()
        self.times = 0

    def call(self, inputs):
        self.times += 1
        return inputs


class TestTraces:
    @pytest.mark.slow
    @pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason=f"{keras.backend.backend()} compiles for each size")
    def test_describing_photos_of_20_sizes_traces_the_model_once(self, draw):
        counting = Counting()
        photos = keras.Input((None, None, 3))
        features = photos
        for stage in [counting, *tiny_stages()]:
            features = stage(features)
        model = rw_keras.build_descriptor(keras.Model(photos, features), whitening=None)
        counting.times = 0
        for number in range(20):
            photo = draw(number, 20 + 7 * number, 90 - 3 * number)
            assert_same_descriptors(rw_keras.describe(model, photo), run(model, photo[None])[0])
            counting.times -= 1  # the run that is compared with
        assert counting.times == 1


class TestFitWhitening:
    def test_is_learned_from_unit_region_vectors(self, fitted, photos):
        regions = reference.region_sums(reference.weighted(run(at_convolution(fitted), photos)))
        mean, axes, variances = reference.principal_axes(reference.unit(regions).reshape(-1, 12))
        found = learned_arrays(fitted)
        np.testing.assert_allclose(found[0], mean, atol=1e-6)
        np.testing.assert_allclose(found[2], variances, rtol=1e-4)
        np.testing.assert_allclose(np.abs((found[1] * axes).sum(axis=0)), 1, rtol=1e-4)
        assert whitening_layer(fitted).count == 6 * 21

    @pytest.mark.slow
    def test_all_forms_of_photos_learn_the_same(self, fitted, build, photos):
        tf = pytest.importorskip("tensorflow")
        dataset = tf.data.Dataset.from_tensor_slices(photos)
        labelled = tf.data.Dataset.from_tensor_slices((photos, np.arange(6)))
        floats = dataset.map(lambda photo: tf.cast(photo, tf.float32))
        model = build()
        for form in (photos, dataset, dataset.batch(4), labelled, labelled.batch(4), floats, floats.batch(4)):
            whitening_layer(model).mean.assign(np.zeros(12))
            learned = rw_keras.fit_whitening(model, form, progress=False)
            assert (learned.provenance["photos"], learned.provenance["regions"]) == (6, 126)
            for found, expected in zip(learned_arrays(model), learned_arrays(fitted)):
                np.testing.assert_array_equal(found, expected)

    @pytest.mark.slow
    def test_folder_paths_and_arrays_learn_the_same(self, build, photo_folder):
        paths = list_photos(photo_folder)
        forms = (photo_folder, str(photo_folder), paths, [str(path) for path in paths], [read_image(path) for path in paths])
        model, learned = build(), []
        for form in forms:
            assert rw_keras.fit_whitening(model, form, progress=False).provenance["photos"] == 6
            learned.append(learned_arrays(model))
            whitening_layer(model).mean.assign(np.zeros(12))
        for arrays in learned:
            for found, expected in zip(arrays, learned[0]):
                np.testing.assert_array_equal(found, expected)

    def test_returns_what_was_learned_with_its_provenance(self, build, photo_folder):
        model = build()
        learned = rw_keras.fit_whitening(model, photo_folder, max_side=48, progress=False)
        for name, found in zip(("mean", "eigenvectors", "eigenvalues"), learned_arrays(model)):
            np.testing.assert_array_equal(getattr(learned, name), found)
        assert learned.provenance["name"] == "photos"
        assert learned.provenance["max_side"] == 48
        assert learned.provenance["photos"] == 6
        assert learned.provenance["regions"] == whitening_layer(model).count
        assert learned.recipe == {name: recipe(model)[name] for name in ("backbone", "layer", "method", "levels", "weights")}
        assert learned.failures == []
        assert model.whitening_provenance == learned.provenance
        assert f"photos (6 photos, {learned.provenance['regions']} regions, max_side 48)" in learned.describe()

    def test_name_is_what_it_is_called(self, build, photo_folder):
        learned = rw_keras.fit_whitening(build(), photo_folder, name="paris", progress=False)
        assert learned.provenance["name"] == "paris"

    @pytest.mark.filterwarnings("ignore:PCAWhiten")  # so few photos leave an axis flat
    def test_max_side_is_that_of_describe(self, build, draw):
        photo = draw(1, 200, 160)
        models = [build(), build()]
        rw_keras.fit_whitening(models[0], [photo, draw(2, 200, 160)], max_side=64, progress=False)
        small = [read_image(one, max_side=64) for one in (photo, draw(2, 200, 160))]
        rw_keras.fit_whitening(models[1], small, progress=False)
        for found, expected in zip(*map(learned_arrays, models)):
            np.testing.assert_array_equal(found, expected)

    @pytest.mark.slow
    def test_learning_again_forgets_the_first(self, build, photos, draw):
        others = [draw(seed) for seed in range(20, 24)]
        again, fresh = build(), build()
        rw_keras.fit_whitening(again, list(photos), progress=False)
        for model in (again, fresh):
            rw_keras.fit_whitening(model, others, name="again", progress=False)
        for found, expected in zip(learned_arrays(again), learned_arrays(fresh)):
            np.testing.assert_array_equal(found, expected)
        assert again.recipe == fresh.recipe

    def test_empty_windows_are_not_learned_from(self, build, photos):
        half = photos.copy()
        half[0, :, 32:] = 0
        half[1] = 0
        model = build()
        learned = rw_keras.fit_whitening(model, list(half), progress=False)
        regions = reference.region_sums(reference.weighted(run(at_convolution(model), half)))
        assert learned.provenance["regions"] == np.count_nonzero(regions.any(axis=-1))
        assert learned.provenance["regions"] < 5 * 21
        assert learned.provenance["photos"] == 6

    @pytest.mark.slow
    def test_photo_that_cannot_be_read_is_left_out_with_a_warning(self, build, photo_folder):
        expected = build()
        rw_keras.fit_whitening(expected, photo_folder, progress=False)
        (photo_folder / "b_spoilt.jpg").write_text("no photo")
        model = build()
        with pytest.warns(UserWarning, match=r"(?s)1 of 7 photos were left out:.*b_spoilt.jpg") as warned:
            learned = rw_keras.fit_whitening(model, photo_folder, progress=False)
        assert sum("left out" in str(warning.message) for warning in warned) == 1
        ((path, reason),) = learned.failures
        assert pathlib.Path(path).name == "b_spoilt.jpg"
        assert "b_spoilt.jpg is not an image" in reason
        for found, wanted in zip(learned_arrays(model), learned_arrays(expected)):
            np.testing.assert_array_equal(found, wanted)

    def test_without_any_photo_is_refused_and_leaves_what_was_learned(self, fitted, tmp_path):
        before, known = learned_arrays(fitted), dict(fitted.recipe["whitening"])
        with pytest.raises(ValueError, match="no photo that a whitening could be learned from"):
            rw_keras.fit_whitening(fitted, [], progress=False)
        with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
            rw_keras.fit_whitening(fitted, tmp_path / "nowhere", progress=False)
        with pytest.raises(ImageError, match="no photo in"):
            rw_keras.fit_whitening(fitted, tmp_path, progress=False)
        (tmp_path / "spoilt.jpg").write_text("no photo")
        with (
            pytest.raises(ValueError, match=r"no photo that a whitening could.*spoilt\.jpg is not an image"),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            rw_keras.fit_whitening(fitted, tmp_path, progress=False)
        with pytest.raises(ValueError, match="has seen no vector to learn from that is not zero"):
            rw_keras.fit_whitening(fitted, [np.zeros((48, 64, 3), "uint8")], progress=False)
        for found, expected in zip(learned_arrays(fitted), before):
            np.testing.assert_array_equal(found, expected)
        assert fitted.recipe["whitening"] == known

    def test_model_without_whitening_is_refused(self, photos):
        with pytest.raises(ValueError, match="'network' has no PCAWhiten layer"):
            rw_keras.fit_whitening(functional(), photos, progress=False)


class TestWhiteningFile:
    def test_model_that_reads_it_gives_the_same_digits(self, fitted, build, photos, tmp_path, capsys):
        rw_keras.save_whitening(fitted, tmp_path / "below" / "learned.npz")
        for path in (tmp_path / "below" / "learned.npz", str(tmp_path / "below" / "learned.npz")):
            model = build(whitening=path)
            np.testing.assert_array_equal(run(model, photos), run(fitted, photos))
            assert model.recipe == fitted.recipe
            assert recipe(model) == recipe(fitted)
            assert whitening_layer(model).adapted
            assert "rw_tiny is whitened as learned on unnamed (6 photos, 126 regions, max_side 1024)" in capsys.readouterr().err

    def test_holds_what_was_learned(self, build, photo_folder, tmp_path):
        model = build()
        learned = rw_keras.fit_whitening(model, photo_folder, progress=False)
        rw_keras.save_whitening(model, tmp_path / "learned.npz")
        found = Whitening.load(tmp_path / "learned.npz")
        for name in ("mean", "eigenvectors", "eigenvalues"):
            np.testing.assert_array_equal(getattr(found, name), getattr(learned, name))
        assert (found.recipe, found.provenance) == (learned.recipe, learned.provenance)

    def test_saving_what_was_read_writes_the_same(self, fitted, build, tmp_path):
        rw_keras.save_whitening(fitted, tmp_path / "first.npz")
        rw_keras.save_whitening(build(whitening=tmp_path / "first.npz"), tmp_path / "second.npz")
        first, second = (Whitening.load(tmp_path / name) for name in ("first.npz", "second.npz"))
        np.testing.assert_array_equal(first.eigenvectors, second.eigenvectors)
        assert (first.recipe, first.provenance) == (second.recipe, second.provenance)

    def test_fewer_components_and_shrinkage_read_the_whole_one(self, fitted, build, photos, tmp_path):
        rw_keras.save_whitening(fitted, tmp_path / "learned.npz")
        model = build(whitening=tmp_path / "learned.npz", components=4, shrinkage=0.5)
        mean, axes, variances = learned_arrays(fitted)
        whiten = functools.partial(reference.whitened, mean=mean, axes=axes[:, :4], variances=variances, shrinkage=0.5)
        assert_same_descriptors(run(model, photos), expected_descriptor(run(at_convolution(fitted), photos), whiten))

    def test_with_too_few_components_is_refused(self, build, photos, tmp_path):
        model = build(components=4)
        rw_keras.fit_whitening(model, list(photos), progress=False)
        rw_keras.save_whitening(model, tmp_path / "learned.npz")
        with pytest.raises(ValueError, match="has 4 components, fewer than the model's 12"):
            build(whitening=tmp_path / "learned.npz")

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:PCAWhiten")  # so few photos leave an axis flat
    def test_misfit_is_refused_naming_the_field(self, tmp_path, photos):
        def network(name="network", stages=slice(None), seed=0):
            keras.utils.set_random_seed(seed)
            images = keras.Input((None, None, 3))
            last = keras.layers.Conv2D(12, 1, activation="relu", name="third")
            features = images
            for stage in [*tiny_stages(), last][stages]:
                features = stage(features)
            return keras.Model(images, features, name=name)

        fitted = rw_keras.build_descriptor(network(), whitening=None)
        rw_keras.fit_whitening(fitted, list(photos), progress=False)
        rw_keras.save_whitening(fitted, tmp_path / "learned.npz")
        assert rw_keras.build_descriptor(network(), whitening=tmp_path / "learned.npz").recipe == fitted.recipe
        for field, backbone, arguments in (
            ("levels", network(), {"levels": 2}),
            ("method", network(), {"method": functools.partial(methods.rw, alpha=1)}),
            ("backbone", network("another"), {}),
            ("weights", network(seed=1), {}),
            ("layer", network(stages=slice(3)), {}),
        ):
            with pytest.raises(ValueError, match=f"learned.npz does not fit this model: .*its {field} is '?[^;]*, the model's "):
                rw_keras.build_descriptor(backbone, whitening=tmp_path / "learned.npz", **arguments)

    def test_is_not_written_without_a_whitening_or_under_another_ending(self, model, fitted, tmp_path):
        with pytest.raises(ValueError, match="'rw_tiny' has no whitening to save"):
            rw_keras.save_whitening(model, tmp_path / "learned.npz")
        with pytest.raises(ValueError, match=r"learned.h5; call it .*learned.npz"):
            rw_keras.save_whitening(fitted, tmp_path / "learned.h5")
        assert list(tmp_path.iterdir()) == []

    def test_of_a_layer_that_was_adapted_by_hand(self, build, tmp_path):
        model = build()
        whitening_layer(model).adapt(np.random.default_rng(0).normal(size=(50, 12)))
        rw_keras.save_whitening(model, tmp_path / "learned.npz")
        found = Whitening.load(tmp_path / "learned.npz")
        assert (found.provenance["name"], found.provenance["regions"]) == ("unnamed", 50)


class TestPhotosInCommon:
    def test_counts_names_whatever_their_folder_and_ending(self, build, photo_folder):
        learned = rw_keras.fit_whitening(build(), photo_folder, progress=False)
        names = ["a", "elsewhere/B.jpeg", "c.png", pathlib.Path("x/y/e.tif"), "f.png", "aa.png"]
        assert learned.photos_in_common(names) == 4
        assert learned.photos_in_common(["a.png", "more/a.png", "A"]) == 1
        assert learned.photos_in_common([]) == 0

    def test_is_kept_in_the_file_without_the_names(self, build, photo_folder, tmp_path):
        model = build()
        (photo_folder / "d.png").rename(photo_folder / "cathedral_000123.png")
        rw_keras.fit_whitening(model, photo_folder, progress=False)
        rw_keras.save_whitening(model, tmp_path / "learned.npz")
        found = Whitening.load(tmp_path / "learned.npz")
        assert found.photos_in_common(["cathedral_000123.jpg", "cathedral_000124.jpg"]) == 1
        assert "cathedral" not in str(found.provenance)

    def test_arrays_have_no_names(self, build, photos):
        learned = rw_keras.fit_whitening(build(), list(photos), progress=False)
        assert learned.provenance["photo_ids"] == []


FITS = {"backbone": "vgg16", "layer": "block5_conv3", "method": "rw", "levels": 3, "weights": PUBLISHED.digest}


class TestShippedWhitening:
    @pytest.mark.parametrize("method", ["rw", "root_rw"])
    def test_one_fits_the_default_model_of_a_method(self, method):
        assert [found.differences({**FITS, "method": method}) for found in whitening.shipped()].count([]) == 1

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("backbone", "alexnet"),
            ("layer", "block5_pool"),
            ("method", "sum"),
            ("method", "rw(alpha=1.0)"),
            ("levels", 2),
            ("weights", "0" * 64),
        ],
    )
    def test_none_fits_another(self, field, value):
        for found in whitening.shipped():
            differences = found.differences({**FITS, field: value})
            assert differences
            if len(differences) == 1:
                own, models = (
                    repr(one) if len(repr(one)) <= 50 else repr(one)[:24] + "..." for one in (found.recipe[field], value)
                )
                assert differences[0] == f"its {field} is {own}, the model's {models}"

    def test_is_a_whitening(self):
        dimensions = {"vgg16": 512, "alexnet": 256}
        made_of = {(found.recipe["backbone"], found.recipe["method"]) for found in whitening.shipped()}
        assert made_of == {(network, method) for network in ("alexnet", "vgg16") for method in ("rw", "root_rw")}
        for found in whitening.shipped():
            d = dimensions[found.recipe["backbone"]]
            assert found.mean.shape == found.eigenvalues.shape == (d,)
            assert found.eigenvectors.shape == (d, d)
            np.testing.assert_allclose(found.eigenvectors.T @ found.eigenvectors, np.eye(d), atol=1e-5)
            assert (np.diff(found.eigenvalues) <= 0).all()
            assert found.eigenvalues[-1] > 0
            assert {"name", "photos", "regions", "max_side", "photo_ids"} <= found.provenance.keys()

    def test_model_that_it_does_not_fit_is_not_whitened_and_says_so(self, capsys):
        keras.utils.set_random_seed(0)
        for make in (lambda: rw_keras.build_descriptor(functional()), lambda: rw_keras.build_descriptor(weights=None)):
            model = make()
            said = capsys.readouterr()
            assert f"{model.name} is not whitened" in said.err
            assert said.out == ""
            assert not whitening_layer(model).adapted
            assert recipe(model)["whitening"] is None

    def test_without_whitening_nothing_is_said(self, build, capsys):
        build(whitening=None)
        said = capsys.readouterr()
        assert (said.out, said.err) == ("", "")


@pytest.fixture(scope="module")
def built():
    """The default model."""
    return rw_keras.build_descriptor()


@pytest.fixture(scope="module")
def temple():
    """A real photo."""
    photo = pytest.importorskip("sklearn.datasets").load_sample_image("china.jpg")
    return read_image(photo, max_side=400)[None]


@pytest.mark.imagenet
class TestImageNetWeights:
    def test_weights_are_the_published_ones(self, built):
        sha = hashlib.sha256()
        for name in PUBLISHED.shapes:
            for array in built.get_layer(name).get_weights():
                sha.update(array.astype("<f4").tobytes())
        assert sha.hexdigest() == PUBLISHED.digest
        assert recipe(built)["weights"] == PUBLISHED.digest

    @pytest.mark.slow
    @pytest.mark.parametrize("shrinkage", [0.0, 0.2])
    def test_head_on_a_real_map_is_the_formulas(self, built, temple, shrinkage):
        features = run(keras.Model(built.input, built.get_layer("block5_conv3").output), temple)
        assert features.shape == (1, 16, 25, 512)
        assert (features == 0).mean() > 0.5  # a real one is sparse
        model = built if shrinkage == 0 else rw_keras.build_descriptor(shrinkage=shrinkage)
        expected = expected_descriptor(features, learned_whitening(built, shrinkage))
        assert_same_descriptors(run(model, temple), expected)

    @pytest.mark.slow
    def test_without_whitening(self, temple):
        model = rw_keras.build_descriptor(whitening=None)
        features = run(keras.Model(model.input, model.get_layer("block5_conv3").output), temple)
        assert_same_descriptors(run(model, temple), expected_descriptor(features))

    def test_root_rw_has_one_and_its_shrinkage(self, capsys):
        model = rw_keras.build_descriptor(method="root_rw")
        assert model.recipe["whitening"]["name"] == "paris6k_and_objects"
        assert whitening_layer(model).shrinkage == model.recipe["whitening"]["recommended_shrinkage"]
        assert ", shrinkage 0.2.\n" in capsys.readouterr().err

    def test_default_says_which_whitening(self, capsys):
        model = rw_keras.build_descriptor()
        said = capsys.readouterr()
        (known,) = (found.provenance for found in whitening.shipped() if not found.differences(recipe(model)))
        assert f"rw_vgg16 is whitened as learned on {known['name']} ({known['photos']} photos" in said.err
        assert said.err.endswith(", shrinkage 0.\n")  # the publication's
        assert said.out == ""
        assert model.whitening_provenance == known
        assert whitening_layer(model).count == known["regions"]
