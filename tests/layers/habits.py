"""What the layers' tests share: the habits that every layer has, and how to run one on any backend."""

import typing

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()


def run(layer, inputs):
    """The layer's, or model's, output as a NumPy array."""
    return keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor(inputs)))


def only_on_tensorflow(reason):
    return pytest.mark.skipif(BACKEND != "tensorflow", reason=f"{reason}, and Keras runs on {BACKEND}")


class LayerHabits:
    """The tests of what a layer does whatever its formula. A test class of a layer inherits them.

    Attributes:
        layer: the class.
        arguments: one value that is not the default for each argument of the constructor.
        sample: an input, float32 and exact in float16 and bfloat16.
        shapes: symbolic input shape -> output shape, for `arguments`.
    """

    layer: type
    arguments: typing.ClassVar[dict]
    sample: np.ndarray
    shapes: typing.ClassVar[dict]

    def make(self, **others):
        return self.layer(**{**self.arguments, **others})

    def test_config_makes_the_same_layer_again(self):
        config = self.make(name="stage").get_config()
        again = self.layer.from_config(config)
        assert again.get_config() == config
        for name, value in {**self.arguments, "name": "stage"}.items():
            assert getattr(again, name) == value

    def test_saved_model_loads_in_safe_mode_and_gives_the_same_digits(self, tmp_path):
        inputs = keras.Input(self.sample.shape[1:])
        model = keras.Model(inputs, self.make()(inputs))
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        np.testing.assert_array_equal(run(loaded, self.sample), run(model, self.sample))

    def test_symbolic_shape(self):
        for given, expected in self.shapes.items():
            symbolic = self.make()(keras.Input(batch_shape=given))
            assert symbolic.shape == expected
            assert symbolic.dtype == "float32"
            assert self.make().compute_output_shape(given) == expected

    def test_concrete_shape_is_the_symbolic_one(self):
        expected = self.make()(keras.Input(batch_shape=self.sample.shape)).shape
        assert run(self.make(), self.sample).shape == expected

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
    def test_low_precision_policy_changes_no_digit(self, policy, set_policy):
        expected = run(self.make(), self.sample)
        set_policy(policy)
        layer = self.make()
        found = run(layer, self.sample)
        assert found.dtype == "float32"
        np.testing.assert_array_equal(found, expected)
        low = keras.ops.cast(self.sample, policy.removeprefix("mixed_"))
        np.testing.assert_array_equal(run(layer, low), expected)
        assert layer(keras.Input(batch_shape=self.sample.shape, dtype=policy.removeprefix("mixed_"))).dtype == "float32"


class RefusesShapes:
    """For a layer that looks at its input's shape.

    Attributes:
        wrong_shapes: input shapes that are refused.
    """

    wrong_shapes: tuple

    def test_wrong_shape_is_refused_by_name_and_value(self):
        for shape in self.wrong_shapes:
            with pytest.raises(ValueError) as refused:
                self.make(name="stage")(keras.ops.ones(shape))
            for words in (self.layer.__name__, "'stage'", str(shape)):
                assert words in str(refused.value)


class RefusesArguments:
    """For a layer whose constructor checks its arguments.

    Attributes:
        wrong_arguments: (argument, value) that are refused.
    """

    wrong_arguments: tuple

    def test_wrong_argument_is_refused_by_name_and_value(self):
        for name, value in self.wrong_arguments:
            with pytest.raises(ValueError) as refused:
                self.layer(**{name: value})
            for words in (self.layer.__name__, f"`{name}`", repr(value)):
                assert words in str(refused.value)


def not_above_zero(name):
    """Values that are refused by an argument which has to be a finite number above 0."""
    return tuple((name, value) for value in (0, 0.0, -1.5, float("nan"), float("inf"), "2", None, True))


def not_counting(name):
    """Values that are refused by an argument which has to be a whole number from 1 up."""
    return tuple((name, value) for value in (0, -1, 1.5, 2.0, "3", True))
