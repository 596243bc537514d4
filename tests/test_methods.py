import functools

import keras
import numpy as np
import pytest
from layers import reference

from rw_keras import layers, methods
from rw_keras.methods import METHODS, resolve


def run(method, features):
    """The region vectors that a method makes of a feature map of any size."""
    maps = keras.Input((None, None, features.shape[-1]), dtype=features.dtype.name)
    return keras.ops.convert_to_numpy(keras.Model(maps, method(maps))(features))


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


class TestPlainSum:
    def test_has_the_direction_of_the_sum_over_the_map(self):
        features = reference.sparse_map(7, 10)
        found = run(methods.plain_sum, features)
        assert found.shape == (2, 1, 8)
        expected = reference.unit(features.sum(axis=(1, 2), dtype="float64"))
        np.testing.assert_allclose(reference.unit(found[:, 0]), expected, rtol=reference.RELATIVE_ERROR)

    def test_low_precision_policy_leaves_it_in_float32(self):
        features = reference.dense_map(64, 48).astype("float16")
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_float16")
        try:
            found = run(methods.plain_sum, features)
        finally:
            keras.config.set_dtype_policy(before)
        assert found.dtype == "float32"
        expected = reference.unit(features.sum(axis=(1, 2), dtype="float64"))
        np.testing.assert_allclose(reference.unit(found[:, 0]), expected, rtol=reference.RELATIVE_ERROR)

    def test_zero_map_gives_zero(self):
        assert not run(methods.plain_sum, np.zeros((1, 3, 4, 8), "float32")).any()


class TestResolve:
    @pytest.mark.parametrize(("name", "levels"), [("rw", 2), ("sum", None)])
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
