import functools
import itertools

import keras
import method_reference
import numpy as np
import pytest
from layers import reference

from rw_keras import layers, methods
from rw_keras.methods import METHODS, resolve
from rw_keras.regions import region_windows


def run(method, features):
    """The region vectors that a method makes of a feature map of any size."""
    maps = keras.Input((None, None, features.shape[-1]), dtype=features.dtype.name)
    return keras.ops.convert_to_numpy(keras.Model(maps, method(maps))(features))


def assert_same_directions(found, expected):
    """Of region vectors, element by element; and zero where they are."""
    assert found.shape == expected.shape
    found, expected = reference.unit(found), reference.unit(expected)
    np.testing.assert_allclose(found, expected, rtol=reference.RELATIVE_ERROR, atol=1e-9)


# Maps of photos of usual shapes, of which the customary arithmetic in floating point and ours in whole numbers make one grid.
USUAL_SIZES = [(7, 7), (12, 16), (14, 14), (16, 25), (24, 32), (32, 24), (32, 32), (36, 64), (43, 64), (64, 43), (48, 64), (64, 48)]


def two_scales(features):
    return layers.RegionalSumPooling(2)(features)


class Maximum:
    """A method that is an object, and has a number of scales of its own."""

    def __call__(self, features):
        return keras.layers.Reshape((1, features.shape[-1]))(keras.layers.GlobalMaxPooling2D()(features))


class TestRW:
    @pytest.mark.parametrize("size", reference.SIZES)
    def test_value(self, size):
        features = reference.sparse_map(*size)
        expected = reference.region_sums(reference.weighted(features))
        np.testing.assert_allclose(run(methods.rw, features), expected, rtol=reference.RELATIVE_ERROR)

    @pytest.mark.parametrize(
        "arguments",
        [{"levels": 1}, {"levels": 5}, {"alpha": 1.0}, {"beta": 1.0}, {"epsilon": 0.1}, {"levels": 2, "alpha": 3, "beta": 4}],
    )
    def test_value_for_other_arguments(self, arguments):
        features = reference.sparse_map(7, 10)
        weights = {name: value for name, value in arguments.items() if name != "levels"}
        expected = reference.region_sums(reference.weighted(features, **weights), arguments.get("levels", 3))
        found = run(functools.partial(methods.rw, **arguments), features)
        np.testing.assert_allclose(found, expected, rtol=reference.RELATIVE_ERROR)

    PARTS = tuple(itertools.product([True, False], ["counts", "proportions", None], [True, False], ["sum", "max"]))

    @pytest.mark.parametrize(("spatial_weight", "channel_weight", "regions", "pooling"), PARTS)
    def test_value_without_parts_of_it(self, spatial_weight, channel_weight, regions, pooling):
        parts = {"spatial_weight": spatial_weight, "channel_weight": channel_weight, "regions": regions, "pooling": pooling}
        for features in (reference.sparse_map(7, 10), reference.dense_map(9, 6)):
            found = run(functools.partial(methods.rw, **parts), features)
            assert_same_directions(found, method_reference.rw(features, **parts))

    def test_no_two_of_its_ablations_are_the_same(self):
        features = reference.sparse_map(7, 10)
        names = ("spatial_weight", "channel_weight", "regions", "pooling")
        found = [run(functools.partial(methods.rw, **dict(zip(names, parts))), features) for parts in self.PARTS]
        sums = [reference.unit(reference.unit(regions).sum(axis=1)) for regions in found]
        for one, other in itertools.combinations(sums, 2):
            assert np.abs(one - other).max() > 1e-3

    def test_its_parts_take_its_other_arguments(self):
        features = reference.sparse_map(7, 10)
        found = run(functools.partial(methods.rw, levels=2, alpha=1.0, beta=3.0, channel_weight=None, pooling="max"), features)
        expected = method_reference.rw(features, 2, channel_weight=None, pooling="max", alpha=1.0, beta=3.0)
        np.testing.assert_allclose(found, expected, rtol=reference.RELATIVE_ERROR)

    def test_default_is_the_whole_method(self):
        features = reference.sparse_map(7, 10)
        whole = functools.partial(methods.rw, spatial_weight=True, channel_weight="counts", regions=True, pooling="sum")
        np.testing.assert_array_equal(run(methods.rw, features), run(whole, features))

    @pytest.mark.parametrize("value", ["count", "", "None", True, False, 0, 1.5, ["counts"], {"sum": 1}])
    @pytest.mark.parametrize(
        ("argument", "known"),
        [("channel_weight", "'counts' or 'proportions' or None"), ("pooling", "'sum' or 'max'")],
    )
    def test_unknown_value_is_refused_with_the_known_ones(self, argument, known, value):
        with pytest.raises(ValueError) as refused:
            methods.rw(keras.Input((None, None, 8)), **{argument: value})
        assert str(refused.value) == f"The method rw takes {known} as {argument}, but got {value!r}."

    @pytest.mark.parametrize("value", [None, "mean"])
    def test_pooling_of_none_is_refused(self, value):
        with pytest.raises(ValueError, match=f"'sum' or 'max' as pooling, but got {value!r}"):
            methods.rw(keras.Input((None, None, 8)), regions=False, pooling=value)


class TestEveryMethod:
    def test_has_a_reference(self):
        of_tokens = ["class_token", "class_rw", "joint"]
        assert [*method_reference.REGIONS, *of_tokens] == list(METHODS)
        assert [*methods.OF_RECTIFIED_MAPS, *methods.OF_SIGNED_MAPS] == list(METHODS)

    @pytest.mark.parametrize("size", USUAL_SIZES)
    @pytest.mark.parametrize("name", method_reference.REGIONS)
    def test_value(self, name, size):
        for make in (reference.sparse_map, reference.dense_map):
            features = make(*size)
            assert_same_directions(run(METHODS[name], features), method_reference.REGIONS[name](features))

    @pytest.mark.parametrize("name", method_reference.REGIONS)
    def test_zero_map_gives_zero(self, name):
        assert not run(METHODS[name], np.zeros((1, 3, 4, 8), "float32")).any()

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    @pytest.mark.parametrize("name", method_reference.REGIONS)
    def test_low_precision_policy_leaves_it_in_float32(self, name, policy):
        features = reference.dense_map(64, 48).astype("float16")
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            found = run(METHODS[name], features)
        finally:
            keras.config.set_dtype_policy(before)
        assert found.dtype == "float32"
        assert_same_directions(found, method_reference.REGIONS[name](features))

    @pytest.mark.parametrize("name", method_reference.REGIONS)
    def test_model_of_one_size_of_map_predicts(self, name):
        features = reference.sparse_map(7, 10, batch=3)
        maps = keras.Input(features.shape[1:])
        model = keras.Model(maps, METHODS[name](maps))
        assert model.output_shape == (None, *run(METHODS[name], features).shape[1:])
        found = model.predict(features, batch_size=2, verbose=0)
        assert_same_directions(found, method_reference.REGIONS[name](features))


def tokens_to_map(prefix_tokens, channels=8):
    """Symbolic tokens and pixels, and the map that is made of them."""
    tokens, pixels = keras.Input((None, channels)), keras.Input((None, None, 3))
    return [tokens, pixels], layers.TokensToMap(4, prefix_tokens)(tokens, pixels)


class TestSignedMaps:
    def features(self, seed=0):
        return np.random.default_rng(seed).normal(size=(2, 7, 10, 8)).astype("float32")

    @pytest.mark.parametrize("name", ["mean", "signed_gem", "signed_rmac", "signed_rw"])
    @pytest.mark.parametrize("scale", [1, 1e-30, 1e15])
    def test_value(self, name, scale):
        features = self.features() * np.float32(scale)
        found, expected = run(METHODS[name], features), method_reference.REGIONS[name](features)
        # Sums of values of both signs cancel, so that an element is as exact as the largest is.
        np.testing.assert_allclose(reference.unit(found), reference.unit(expected), atol=1e-5)

    @pytest.mark.parametrize("name", ["mean", "signed_gem", "signed_rw"])
    def test_turning_all_signs_turns_the_vectors(self, name):
        features = self.features()
        np.testing.assert_allclose(run(METHODS[name], -features), -run(METHODS[name], features), atol=1e-6)

    def test_of_a_map_that_is_nowhere_below_zero_signed_gem_is_gem(self):
        features = reference.sparse_map(7, 10)
        np.testing.assert_allclose(run(methods.signed_gem, features), run(methods.gem, features), rtol=1e-6)

    def test_class_token_and_the_regions(self):
        inputs, features = tokens_to_map(2)
        models = [keras.Model(inputs, METHODS[name](features)) for name in ("class_token", "class_rw", "signed_rw")]
        tokens = np.random.default_rng(0).normal(size=(3, 2 + 12, 8)).astype("float32")
        pixels = np.zeros((3, 12, 16, 3), "float32")
        found = [keras.ops.convert_to_numpy(model([tokens, pixels])) for model in models]
        np.testing.assert_array_equal(found[0], tokens[:, :1])
        np.testing.assert_array_equal(found[1], np.concatenate([found[0], found[2]], axis=1))

    @pytest.mark.parametrize("method", ["class_token", "class_rw"])
    def test_a_network_without_a_class_token_is_refused(self, method):
        for features in (keras.Input((None, None, 8)), tokens_to_map(0)[1]):
            with pytest.raises(ValueError, match=r"no class token.*take another method"):
                METHODS[method](features)

    def test_joint_takes_a_map_of_one_cell_alone(self):
        assert methods.joint(keras.Input((1, 1, 8))).shape == (None, 1, 8)
        with pytest.raises(ValueError, match=r"a map of one cell, but the network gives the shape \(None, None, "):
            methods.joint(keras.Input((None, None, 8)))

    def test_automatic(self):
        assert methods.automatic(keras.Input((None, None, 8))) == "rw"
        assert methods.automatic(keras.Input((1, 1, 8))) == "joint"
        assert methods.automatic(tokens_to_map(1)[1]) == "class_token"
        assert methods.automatic(tokens_to_map(0)[1]) == "signed_gem"

    def test_a_method_with_arguments_of_ones_own_takes_signed_maps_too(self):
        assert methods.is_for_signed_maps(functools.partial(methods.signed_gem, p=2))
        assert not methods.is_for_signed_maps(functools.partial(methods.gem, p=2))
        assert methods.is_for_signed_maps(methods.takes_signed(lambda features: methods.mean(features)))
        assert methods.is_for_signed_maps(
            methods.takes_signed(functools.partial(lambda features, p: methods.gem(features, p), p=2))
        )

    def test_a_method_of_the_package_is_not_changed(self):
        with pytest.raises(ValueError, match="gem is a method of the package; decorate a function of your own"):
            methods.takes_signed(methods.gem)
        assert not methods.is_for_signed_maps(methods.gem)


class TestAgainstPublicCode:
    @pytest.mark.parametrize("size", USUAL_SIZES)
    def test_rmac_has_its_regions(self, size):
        for levels in (1, 3):
            expected = [(top, left, top + side, left + side) for top, left, side in method_reference.rmac_grid(*size, levels)]
            found = region_windows(*size, levels, include_whole_map=False)
            assert [tuple(window) for window in found.tolist()] == expected

    @pytest.mark.parametrize("size", USUAL_SIZES)
    def test_rmac_is_the_maximum_over_each(self, size):
        for features in (reference.sparse_map(*size), reference.dense_map(*size)):
            np.testing.assert_array_equal(run(methods.rmac, features), method_reference.rmac(features).astype("float32"))

    @pytest.mark.parametrize("size", USUAL_SIZES)
    def test_crow_differs_by_the_number_of_places_alone(self, size):
        for features in (reference.sparse_map(*size), reference.dense_map(*size), reference.uneven_map(*size)):
            found = run(methods.crow, features) * np.float64(size[0] * size[1])
            np.testing.assert_allclose(found, method_reference.crow(features), rtol=reference.RELATIVE_ERROR)

    def test_crow_worked_out_by_hand(self):
        features = np.array([[[[3, 0, 0], [0, 4, 0]]]], "float32")  # sums 3 and 4, their norm 5; shares 1/2, 1/2 and 0
        expected = np.log(2) * np.array([[[3 * 0.6**0.5, 4 * 0.8**0.5, 0]]])
        np.testing.assert_allclose(run(methods.crow, features) * 2, expected, rtol=1e-6)

    def test_crow_of_one_channel_that_fires_is_zero(self):
        assert not run(methods.crow, reference.hot_map(7, 9)).any()


class TestArguments:
    """Of the methods but rw."""

    def test_rmac(self):
        features = reference.sparse_map(14, 21)
        for levels, whole in ((2, True), (3, False), (1, False)):
            found = run(functools.partial(methods.rmac, levels=levels, include_whole_map=whole), features)
            np.testing.assert_array_equal(found, method_reference.rmac(features, levels, whole).astype("float32"))

    def test_spoc(self):
        features = reference.sparse_map(7, 10)
        for sigma in (0.2, 2.0):
            expected = reference.centred(features, sigma).sum(axis=(1, 2))[:, None]
            assert_same_directions(run(functools.partial(methods.spoc, sigma=sigma), features), expected)

    def test_gem(self):
        features = reference.sparse_map(7, 10)
        for p in (1.0, 2.5, 20.0):
            found = run(functools.partial(methods.gem, p=p), features)
            np.testing.assert_allclose(found[:, 0], reference.generalised_mean(features, p), rtol=reference.RELATIVE_ERROR)

    def test_root_rw(self):
        features = reference.sparse_map(7, 10)
        found = run(functools.partial(methods.root_rw, levels=2, alpha=1.0, beta=3.0, epsilon=0.1), features)
        expected = reference.signed_power(reference.region_sums(reference.weighted(features, 1.0, 3.0, 0.1), 2))
        np.testing.assert_allclose(found, expected, rtol=reference.RELATIVE_ERROR)

    def test_gem_of_one_is_the_direction_of_the_sum_and_of_many_that_of_the_maximum(self):
        features = reference.sparse_map(7, 10)
        assert_same_directions(run(functools.partial(methods.gem, p=1), features), method_reference.REGIONS["sum"](features))
        found = reference.unit(run(functools.partial(methods.gem, p=1e5), features))
        np.testing.assert_allclose(found, reference.unit(run(methods.mac, features)), rtol=1e-3)


class TestResolve:
    @pytest.mark.parametrize(
        ("name", "levels"),
        [("rw", 2), ("root_rw", 2), ("rmac", 2), *((name, None) for name in ("crow", "spoc", "mac", "gem", "sum"))],
    )
    def test_name(self, name, levels):
        features = reference.sparse_map(7, 10)
        function, found, used = resolve(name, 2)
        assert (found, used) == (name, levels)
        expected = METHODS[name] if levels is None else functools.partial(METHODS[name], levels=levels)
        np.testing.assert_array_equal(run(function, features), run(expected, features))

    @pytest.mark.parametrize(
        ("method", "name", "levels"),
        [
            (methods.rw, "rw", 4),  # the function and its name are one method
            (methods.plain_sum, "sum", None),
            (two_scales, f"{__name__}.two_scales", None),
            (Maximum(), f"{__name__}.Maximum", None),
            (functools.partial(methods.rw, alpha=1.0), "rw(alpha=1.0)", 4),
            (functools.partial(methods.rw, epsilon=2, alpha=1), "rw(alpha=1, epsilon=2)", 4),
            (functools.partial(two_scales), f"{__name__}.two_scales()", None),
        ],
    )
    def test_function(self, method, name, levels):
        function, found, used = resolve(method, 4)
        assert (found, used) == (name, levels)
        expected = method if levels is None else functools.partial(method, levels=levels)
        features = reference.sparse_map(7, 10)
        np.testing.assert_array_equal(run(function, features), run(expected, features))

    def test_scales_that_the_function_has_already_been_given_are_kept(self):
        function, _, used = resolve(functools.partial(methods.rw, levels=2), 3)
        features = reference.sparse_map(7, 10)
        assert run(function, features).shape == (2, len(reference.windows(7, 10, 2)), 8)
        assert used == 2

    def test_method_of_ones_own_by_name(self, monkeypatch):
        monkeypatch.setitem(METHODS, "two scales", two_scales)
        assert resolve("two scales", 3) == (two_scales, "two scales", None)
        assert resolve(two_scales, 3) == (two_scales, "two scales", None)

    def test_unknown_name_is_refused_with_the_known_ones(self):
        with pytest.raises(ValueError, match=r"no method 'rmax'; choose one of rw, root_rw, rmac, crow, spoc, mac, gem, sum"):
            resolve("rmax", 3)

    @pytest.mark.parametrize("method", [None, 3, ["rw"]])
    def test_neither_name_nor_function_is_refused(self, method):
        with pytest.raises(ValueError) as refused:
            resolve(method, 3)
        assert repr(method) in str(refused.value)
        assert "rw, root_rw" in str(refused.value)
