import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rw_keras
from rw_keras.description.learning import fit_whitening, learn_whitening
from rw_keras.layers import PCAWhiten
from rw_keras.model.build import head_stages

pytestmark = pytest.mark.filterwarnings("ignore:PCAWhiten")  # few vectors


@pytest.mark.slow
@given(cuts=st.sets(st.integers(1, 29), max_size=5), seed=st.integers(0, 9))
@settings(max_examples=20)
def test_batches_are_learned_from_as_one(cuts, seed):
    vectors = np.random.default_rng(seed).normal(size=(30, 2, 5)).astype("float32")
    whole, part = PCAWhiten(), PCAWhiten()
    whole.adapt(vectors)
    mean, axes, eigenvalues, count = learn_whitening(part, iter(np.split(vectors, sorted(cuts))))
    assert count == 60
    for found, expected in ((mean, whole.mean), (axes, whole.eigenvectors), (eigenvalues, whole.eigenvalues)):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    other = PCAWhiten(components=3)
    other.assign(mean, axes, eigenvalues, count)
    np.testing.assert_allclose(other(vectors), part(vectors)[..., :3], atol=1e-6)


def test_nothing_to_learn_from():
    layer = PCAWhiten()
    layer.build((None, 4))
    for batches in ([], [np.zeros((3, 4))]):
        with pytest.raises(ValueError, match="has seen no vector"):
            learn_whitening(layer, iter(batches))


@pytest.mark.parametrize("whiten", ["regions", "global"])
def test_a_models_whitening_is_that_of_its_vectors(tiny_model, draw, whiten):
    import keras

    photos = [draw(seed) for seed in range(8)]
    model = tiny_model(whiten=whiten)
    learned = fit_whitening(model, photos, progress=False)
    before = keras.Model(model.input, model.get_layer("whitening").input)
    layer = PCAWhiten()
    mean, axes, eigenvalues, count = learn_whitening(layer, (before(photo[None]) for photo in photos))
    assert learned.provenance["vectors" if whiten == "global" else "regions"] == count
    np.testing.assert_allclose(learned.mean, mean, atol=1e-6)
    np.testing.assert_allclose(learned.eigenvalues, eigenvalues, atol=1e-6)
    # Axes without variance may lie anywhere.
    spread = learned.eigenvectors * learned.eigenvalues @ learned.eigenvectors.T
    np.testing.assert_allclose(spread, axes * eigenvalues @ axes.T, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("whiten", ["regions", "global"])
def test_the_stages_of_a_head_are_the_models(tiny_model, draw, whiten):
    import keras

    model = tiny_model(whiten=whiten, components=7, shrinkage=0.25)
    fit_whitening(model, [draw(seed) for seed in range(8)], progress=False)
    stages = head_stages(PCAWhiten(7, 0.25, name="whitening"), whiten)
    assert [(type(stage), stage.name) for stage in stages] == [(type(layer), layer.name) for layer in model.layers[-5:]]
    vectors = keras.Model(model.input, model.get_layer("region_norm").input)(draw(3)[None])
    for stage, own in zip(stages, model.layers[-5:]):
        stage.build(own.input.shape)
        stage.set_weights(own.get_weights())
        vectors = stage(vectors)
    np.testing.assert_allclose(vectors[0], rw_keras.describe(model, draw(3)), atol=1e-6)
