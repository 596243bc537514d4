"""A digest is computed again where the weights have changed, however they were changed, and only there."""

import keras
import numpy as np
import pytest

import rw_keras
from rw_keras.model import digests
from rw_keras.model.recipe import Recipe, digests_of, whitening_layer

TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="changes TensorFlow's own variables")


def afresh(model):
    """The digests of a model without what is known of it."""
    digests._known.pop(model, None)
    return digests_of(model)


def kernel(model):
    return model.get_layer("convolution").kernel


def fit(model):
    model.compile("sgd", "mse")
    model.fit(np.random.default_rng(0).random((2, 32, 32, 3)) * 255, np.ones((2, 12)), verbose=0)


def in_a_graph(model, **arguments):
    import tensorflow as tf

    tf.function(lambda: kernel(model).value.assign_add(tf.ones_like(kernel(model).value)), **arguments)()


def load_weights(model, tmp_path):
    other = keras.models.clone_model(model)
    other.set_weights([weights + 1 for weights in model.get_weights()])
    other.save_weights(tmp_path / "other.weights.h5")
    model.load_weights(tmp_path / "other.weights.h5")


def one_value(model):
    """The smallest change, whose sum and first values are what they were."""
    values = np.array(kernel(model))
    values[4, 4, 1, 5] += 1
    values[4, 4, 1, 6] -= 1
    kernel(model).assign(values)


WAYS = {
    "assign": lambda model, _: kernel(model).assign(np.ones(kernel(model).shape)),
    "assign_add": lambda model, _: kernel(model).assign_add(np.ones(kernel(model).shape)),
    "one value": lambda model, _: one_value(model),
    "set_weights of the model": lambda model, _: model.set_weights([weights + 1 for weights in model.get_weights()]),
    "set_weights of a layer": lambda model, _: model.get_layer("convolution").set_weights([np.ones(kernel(model).shape)]),
    "load_weights": load_weights,
    "fit": lambda model, _: fit(model),
}
TENSORFLOWS_WAYS = {
    "a TensorFlow variable": lambda model, _: kernel(model).value.assign_sub(np.ones(kernel(model).shape, "float32")),
    "a part of it": lambda model, _: kernel(model).value[0, 0, 0, 0].assign(7.0),
    "a scatter": lambda model, _: kernel(model).value.scatter_nd_update([[0, 0, 0, 0]], [9.0]),
    "a graph": lambda model, _: in_a_graph(model),
    "a graph compiled by XLA": lambda model, _: in_a_graph(model, jit_compile=True),
}


class TestChanges:
    @pytest.mark.parametrize(
        "change",
        [*WAYS.values(), *(pytest.param(way, marks=TENSORFLOW) for way in TENSORFLOWS_WAYS.values())],
        ids=[*WAYS, *TENSORFLOWS_WAYS],
    )
    def test_of_the_weights(self, tiny_model, tmp_path, change):
        model = tiny_model()
        seen = [model.recipe.weights]
        for way in (change, WAYS["assign_add"], WAYS["one value"]):
            way(model, tmp_path)
            assert model.recipe.weights not in seen
            seen.append(model.recipe.weights)
            assert seen[-1] == afresh(model)[0]

    @pytest.mark.parametrize("multi_scale", [False, True])
    def test_of_the_whitening(self, tiny_model, photo_folder, tmp_path, multi_scale):
        inner = tiny_model()
        model = rw_keras.multi_scale(inner) if multi_scale else inner
        layer, seen = whitening_layer(model), [model.recipe]
        random = np.random.default_rng(0)

        def look():
            seen.append(model.recipe)
            assert digests_of(model) == afresh(model)
            assert seen[-1].weights == seen[0].weights
            assert seen[-1] != seen[-2]

        rw_keras.fit_whitening(inner, photo_folder, progress=False)
        look()
        layer.adapt(random.normal(size=(40, 12)))
        look()
        layer.mean.assign_add(np.ones(12))
        look()
        layer.assign(np.zeros(12), np.eye(12), np.ones(12), 5)
        look()
        layer.assign(np.zeros(12), np.eye(12), np.ones(12), 6)
        look()
        layer.shrinkage = 0.5
        look()

    def test_of_a_number_alone(self, tiny_model):
        model = tiny_model()
        before = digests_of(model)
        whitening_layer(model)._count.assign(3)
        assert digests_of(model)[1] != before[1]


@TENSORFLOW
def test_is_computed_once(tiny_model, draw, monkeypatch):
    made, real = [], digests.digest
    monkeypatch.setattr(digests, "digest", lambda arrays: made.append(1) or real(arrays))
    model = tiny_model()
    index = rw_keras.retrieval.Index(["a"], np.eye(1, 12), recipe=Recipe.of(model).at(64))
    for seed in range(4):
        index.search_photo(model, draw(seed))
        rw_keras.describe(model, draw(seed))
    assert len(made) == 2  # of the network, and of the whitening
    kernel(model).assign_add(np.ones(kernel(model).shape))
    with pytest.raises(ValueError, match="made by another model: its weights"):
        index.search_photo(model, draw(1))
    assert len(made) == 3


def test_two_models_and_one_that_is_gone(tiny_model):
    one, other = tiny_model(seed=1), tiny_model(seed=2)
    assert one.recipe.weights != other.recipe.weights
    assert one.recipe.weights == tiny_model(seed=1).recipe.weights
    known = len(digests._known)
    digests_of(one)
    assert len(digests._known) == known


@TENSORFLOW
def test_bits_on_another_device(tiny_model, monkeypatch):
    """As a GPU's memory is compared, of which Python sees no place: values of any kind, NaN and the sign of 0 among them."""
    import tensorflow as tf

    monkeypatch.setattr(digests, "_held", lambda variable: variable.value.value())
    made, real = [], digests.digest
    monkeypatch.setattr(digests, "digest", lambda arrays: made.append(1) or real(arrays))
    model = tiny_model()
    for number, value in enumerate((0.0, -0.0, np.nan, 1.0), 1):
        values = np.zeros(kernel(model).shape, "float32")
        values[1, 2, 0, 3] = value
        kernel(model).assign(values)
        assert digests_of(model) == digests_of(model) and len(made) == number + 2
    for dtype in ("float16", "bfloat16", "int32", "uint8", "float64"):
        assert digests._have_the_same_bits(tf.ones(3, dtype), tf.ones(3, dtype))
        assert not digests._have_the_same_bits(tf.ones(3, dtype), tf.zeros(3, dtype))
