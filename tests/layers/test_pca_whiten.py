import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import reference
from layers.habits import LayerHabits, RefusesArguments, not_counting, run

from rw_keras.layers import PCAWhiten

STATE = ("mean", "eigenvectors", "eigenvalues")


def correlated(count=200, dimensions=6, seed=0, mean=1.0, spread=1.0):
    """Vectors `(count, dimensions)` float64 whose axes have standard deviations from `spread` down to a tenth of it."""
    random = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(random.normal(size=(dimensions, dimensions)))
    scales = spread * np.geomspace(1, 0.1, dimensions)
    return mean + (random.normal(size=(count, dimensions)) * scales) @ turned.T


def state(layer):
    return {name: keras.ops.convert_to_numpy(getattr(layer, name)) for name in STATE} | {"count": layer.count}


def assert_same_state(layer, other, rtol=1e-6):
    found, expected = state(layer), state(other)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=rtol, err_msg=name)


def adapted(data, matching=None, **arguments):
    layer = PCAWhiten(**arguments)
    layer.adapt(data, matching)
    return layer


def sign_of(axes):
    """1 or -1 for each column: the sign of its largest element."""
    return np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])


class TestPCAWhiten(LayerHabits, RefusesArguments):
    layer = PCAWhiten
    arguments = {"components": 4, "shrinkage": 0.25, "mask_zero": False}  # noqa: RUF012
    sample = np.round(correlated(10, seed=1, spread=20)).astype("float32").reshape(2, 5, 6)
    shapes = {  # noqa: RUF012
        (None, None, 6): (None, None, 4),
        (None, 6): (None, 4),
        (2, 21, 6): (2, 21, 4),
    }
    wrong_arguments = not_counting("components") + tuple(
        ("shrinkage", value) for value in (-0.1, 1.1, float("nan"), "0.2", None, True)
    )

    def make(self, **others):
        layer = super().make(**others)
        layer.adapt(correlated())
        return layer

    def test_mask_is_passed_on(self):
        vectors, mask = keras.ops.ones((1, 3, 6)), keras.ops.convert_to_tensor([[True, True, False]])
        assert PCAWhiten().supports_masking
        assert PCAWhiten().compute_mask(vectors, mask) is mask

    def test_nothing_in_it_is_trained(self):
        layer = self.make()
        assert layer.trainable_weights == []
        assert len(layer.weights) == 4


class TestShape:
    def test_unknown_last_axis_is_refused(self):
        with pytest.raises(ValueError, match=r"PCAWhiten 'stage' .* \(None, 21, None\)"):
            PCAWhiten(name="stage")(keras.Input(batch_shape=(None, 21, None)))

    def test_more_components_than_dimensions_are_refused(self):
        with pytest.raises(ValueError, match=r"PCAWhiten 'stage' has components=7, .* only 6"):
            PCAWhiten(7, name="stage")(keras.ops.ones((2, 6)))
        assert run(PCAWhiten(6), np.ones((2, 6), "float32")).shape == (2, 6)

    def test_single_vector_and_any_leading_axes(self):
        data = correlated()
        layer = adapted(data)
        expected = run(layer, data.astype("float32"))
        np.testing.assert_allclose(run(layer, data[0].astype("float32")), expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            run(layer, data.astype("float32").reshape(2, 5, 20, 6)).reshape(200, 6), expected, rtol=1e-5, atol=1e-6
        )


class TestBeforeAdapt:
    def test_is_the_identity_and_says_so(self):
        layer = PCAWhiten()
        assert (layer.adapted, layer.count) == (False, 0)
        vectors = correlated().astype("float32")
        np.testing.assert_array_equal(run(layer, vectors), vectors)
        assert (layer.adapted, layer.count) == (False, 0)

    def test_fewer_components_are_the_first_elements(self):
        vectors = correlated().astype("float32")
        np.testing.assert_array_equal(run(PCAWhiten(4), vectors), vectors[:, :4])

    def test_shrinkage_changes_nothing(self):
        vectors = correlated().astype("float32")
        np.testing.assert_allclose(run(PCAWhiten(shrinkage=0.3), vectors), vectors, rtol=1e-6)


class TestLearning:
    def test_state_and_value_are_the_reference(self):
        data = correlated()
        layer = adapted(data)
        mean, axes, variances = reference.principal_axes(data)
        np.testing.assert_allclose(layer.mean, mean, rtol=reference.RELATIVE_ERROR)
        np.testing.assert_allclose(layer.eigenvalues, variances, rtol=reference.RELATIVE_ERROR)
        np.testing.assert_allclose(layer.eigenvectors, axes * sign_of(axes), atol=reference.RELATIVE_ERROR)
        assert layer.adapted
        assert layer.count == 200

        others = correlated(seed=5).astype("float32")
        expected = reference.whitened(others, mean, axes * sign_of(axes), variances)
        np.testing.assert_allclose(run(layer, others), expected, atol=reference.RELATIVE_ERROR * np.abs(expected).max())

    def test_what_it_learned_from_comes_out_white(self):
        data = correlated(1000)
        white = run(adapted(data), data.astype("float32")).astype("float64")
        np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(np.cov(white, rowvar=False), np.eye(6), atol=1e-4)

    @pytest.mark.parametrize("components", [None, 3])
    def test_agrees_with_scikit_learn(self, components):
        decomposition = pytest.importorskip("sklearn.decomposition")
        data, others = correlated(seed=3), correlated(seed=4)
        layer = adapted(data, components=components)
        theirs = decomposition.PCA(components, whiten=True, svd_solver="full").fit(data)
        kept = components or 6
        np.testing.assert_allclose(layer.eigenvalues[:kept], theirs.explained_variance_, rtol=reference.RELATIVE_ERROR)
        found, expected = run(layer, others.astype("float32")), theirs.transform(others)
        signs = sign_of(theirs.components_.T)
        np.testing.assert_allclose(found, expected * signs, atol=reference.RELATIVE_ERROR * np.abs(expected).max())

    def test_mean_far_larger_than_the_spread_costs_no_digits(self):
        data = correlated(300, mean=1e4, spread=1e-2)
        mean, axes, variances = reference.principal_axes(data)
        for layer in (adapted(data), adapted([data[:7], data[7:100], data[100:101], data[101:]])):
            np.testing.assert_allclose(layer.mean, mean, rtol=1e-7)
            np.testing.assert_allclose(layer.eigenvalues, variances, rtol=reference.RELATIVE_ERROR)
            np.testing.assert_allclose(layer.eigenvectors, axes * sign_of(axes), atol=reference.RELATIVE_ERROR)

    def test_axes_have_the_same_signs_whatever_the_order(self):
        data = correlated()
        layer = adapted(data)
        axes = keras.ops.convert_to_numpy(layer.eigenvectors)
        np.testing.assert_array_equal(sign_of(axes), 1)
        assert_same_state(adapted(data[::-1]), layer)
        for name, values in state(adapted(data)).items():
            np.testing.assert_array_equal(values, state(layer)[name])

    def test_components_keep_the_strongest_axes_and_the_whole_spectrum(self):
        data = correlated()
        layer, full = adapted(data, components=2), adapted(data)
        assert layer.eigenvectors.shape == (6, 2)
        np.testing.assert_array_equal(layer.eigenvectors, full.eigenvectors[:, :2])
        np.testing.assert_array_equal(layer.eigenvalues, full.eigenvalues)
        others = correlated(seed=5).astype("float32")
        np.testing.assert_allclose(run(layer, others), run(full, others)[:, :2], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("shrinkage", [0, 0.2, 0.5, 1, 1.0])
    @pytest.mark.parametrize("components", [None, 4])
    def test_shrinkage_draws_eigenvalues_towards_the_mean_of_all(self, shrinkage, components):
        data, others = correlated(), correlated(seed=5).astype("float32")
        layer = adapted(data, components=components, shrinkage=shrinkage)
        mean, axes, variances = reference.principal_axes(data)
        np.testing.assert_allclose(layer.eigenvalues, variances, rtol=reference.RELATIVE_ERROR)  # kept as found
        expected = reference.whitened(others, mean, (axes * sign_of(axes))[:, :components], variances, shrinkage)
        np.testing.assert_allclose(run(layer, others), expected, atol=reference.RELATIVE_ERROR * np.abs(expected).max())

    def test_adapting_again_forgets_the_first(self):
        layer = adapted(correlated(seed=1))
        layer.adapt(correlated(seed=2))
        assert_same_state(layer, adapted(correlated(seed=2)), rtol=0)

    def test_low_precision_policy_learns_in_full_precision(self, set_policy):
        expected = adapted(correlated())
        set_policy("mixed_float16")
        assert_same_state(adapted(correlated()), expected, rtol=0)


class TestFormsOfData:
    def forms(self, data):
        return {
            "float32 array": data.astype("float32"),
            "tensor": keras.ops.convert_to_tensor(data.astype("float32")),
            "rank 3": data.reshape(10, 20, 6),
            "list of batches": [data[:50], data[50:51], data[51:]],
            "list of batches of rank 3": [data[:100].reshape(5, 20, 6), data[100:].reshape(25, 4, 6)],
            "generator of batches": (part for part in np.split(data, 4)),
            "batches with labels": ((part, np.zeros(len(part))) for part in np.split(data, 4)),
            "list of vectors": list(data),
            "nested lists": data.tolist(),
        }

    def test_all_forms_learn_the_same(self):
        data = correlated().astype("float32").astype("float64")
        expected = adapted(data)
        for name, form in self.forms(data).items():
            found = adapted(form)
            assert found.count == 200, name
            assert_same_state(found, expected)

    def test_tf_data_of_batches_of_vectors_and_with_labels(self):
        tf = pytest.importorskip("tensorflow")
        data = correlated().astype("float32")
        expected = adapted(data)
        vectors, labels = tf.data.Dataset.from_tensor_slices(data), tf.data.Dataset.range(200)
        regions = tf.data.Dataset.from_tensor_slices(data.reshape(10, 20, 6))
        for dataset in (
            vectors,
            vectors.batch(64),
            tf.data.Dataset.zip(vectors, labels),
            tf.data.Dataset.zip(vectors, labels).batch(64),
            regions,
            regions.batch(3),
        ):
            assert_same_state(adapted(dataset), expected)

    def test_many_batches_learn_the_same_as_one(self):
        data = correlated(997, mean=30)
        assert_same_state(adapted(np.split(data, [1, 2, 40, 500])), adapted(data))

    def test_updates_by_hand(self):
        data = correlated()
        layer = PCAWhiten()
        layer.update_state(correlated(seed=9))
        layer.reset_state()
        for part in np.split(data, 5):
            layer.update_state(part)
            assert not layer.adapted  # nothing is learned before it is finalized
        layer.finalize_state()
        assert_same_state(layer, adapted(data))

    def test_reset_forgets_the_running_state_and_not_what_was_learned(self):
        layer = adapted(correlated())
        before = state(layer)
        layer.reset_state()
        with pytest.raises(ValueError, match="has seen no vector"):
            layer.finalize_state()
        for name, values in state(layer).items():
            np.testing.assert_array_equal(values, before[name])

    def test_updates_after_adapt_go_on_from_it(self):
        data = correlated()
        layer = adapted(data[:150])
        layer.update_state(data[150:])
        layer.finalize_state()
        assert_same_state(layer, adapted(data))


class TestZeroVectors:
    def test_are_not_learned_from(self):
        data = correlated()
        with_zeros = np.insert(data, [0, 3, 3, 150, 200], 0.0, axis=0)
        assert with_zeros.shape == (205, 6)
        assert_same_state(adapted(with_zeros), adapted(data))
        assert_same_state(adapted([np.zeros((4, 6)), with_zeros[:100], np.zeros((1, 6)), with_zeros[100:]]), adapted(data))

    def test_stay_zero_and_leave_others_as_they_are(self):
        layer = adapted(correlated())
        regions = correlated(12, seed=5).astype("float32").reshape(2, 6, 6)
        expected = run(layer, regions)
        regions[0, 2], regions[1, 5], expected[0, 2], expected[1, 5] = 0, 0, 0, 0  # two empty windows
        found = run(layer, regions)
        np.testing.assert_array_equal(found, expected)
        assert np.count_nonzero(found.any(axis=-1)) == 10

    def test_an_empty_window_in_a_photo_of_nothing_else(self):
        assert not run(adapted(correlated()), np.zeros((2, 21, 6), "float32")).any()

    def test_hardly_above_zero_is_a_vector(self):
        layer = adapted(correlated())
        assert run(layer, np.eye(1, 6, dtype="float32") * 1e-30).any()

    def test_count_as_vectors_without_the_mask(self):
        data = correlated()
        with_zeros = np.insert(data, [0, 3, 3, 150, 200], 0.0, axis=0)
        layer = adapted(with_zeros, mask_zero=False)
        mean, axes, variances = reference.principal_axes(with_zeros)
        assert layer.count == 205
        np.testing.assert_allclose(layer.eigenvalues, variances, rtol=reference.RELATIVE_ERROR)
        expected = -mean @ axes * sign_of(axes) / np.sqrt(variances)
        # A sum of either sign may be far smaller than its 6 products, and these decide how far float32 is off.
        products = np.abs(mean) @ np.abs(axes) / np.sqrt(variances)
        error = np.abs(run(layer, np.zeros((1, 6), "float32"))[0] - expected)
        assert (error <= reference.RELATIVE_ERROR * products).all()


class TestTooLittleData:
    def test_fewer_vectors_than_dimensions_warn_and_stay_finite(self):
        data = correlated(4)
        layer = PCAWhiten(name="stage")
        with pytest.warns(UserWarning, match="'stage' has learned 6 dimensions from 4 vectors: 3 of the 6 axes it keeps"):
            layer.adapt(data)
        for vectors in (data, correlated(50, seed=3)):
            assert np.isfinite(run(layer, vectors.astype("float32"))).all()

    def test_a_single_vector_warns_and_stays_finite(self):
        with pytest.warns(UserWarning, match="from 1 vectors"):
            layer = adapted(correlated(1))
        assert np.isfinite(run(layer, correlated().astype("float32"))).all()

    def test_axis_without_variance_is_scaled_by_the_floor(self):
        data = np.random.default_rng(0).normal(size=(100, 3)) * [2, 1, 0] + [1, 1, 5]
        with pytest.warns(UserWarning, match="1 of the 3 axes"):
            layer = adapted(data)
        _, _, variances = reference.principal_axes(data)
        found = run(layer, np.array([[1, 1, 6]], "float32"))[0, 2]
        np.testing.assert_allclose(found, 1 / np.sqrt(np.finfo("float32").eps * variances[0]), rtol=1e-4)

    def test_enough_vectors_fewer_components_or_shrinkage_do_not_warn(self):
        flat = np.random.default_rng(0).normal(size=(100, 3)) * [2, 1, 0] + [1, 1, 5]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            adapted(correlated(50))
            adapted(flat, components=2)
            adapted(flat, shrinkage=0.2)

    @pytest.mark.parametrize("vector", [[1, 2, 4], [0.1, 0.7, 1 / 3], [1e-8, 3e6, 0.3]])
    @pytest.mark.parametrize("copies", [1, 5, 7, 100])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])  # the mean of float64's 0.1 is not quite 0.1
    @pytest.mark.filterwarnings("ignore:PCAWhiten")
    def test_identical_vectors_are_only_centred(self, vector, copies, dtype):
        data = np.tile(np.array(vector, dtype), (copies, 1))
        layer = adapted(data)
        same = data[:1].astype("float32")
        np.testing.assert_allclose(run(layer, same), 0, atol=1e-6)
        others = same * np.float32([2, 1, 3])
        length = np.linalg.norm(others - same)
        np.testing.assert_allclose(np.linalg.norm(run(layer, others)), length, rtol=1e-5)


class TestRefusedData:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, bad):
        data = correlated()
        data[3, 2] = data[7, 0] = bad
        with pytest.raises(ValueError, match="'stage' learns from finite vectors, but 2 elements are NaN or infinite"):
            PCAWhiten(name="stage").adapt(data)

    def test_another_number_of_elements(self):
        layer = PCAWhiten(name="stage")
        with pytest.raises(ValueError, match=r"'stage' learns from vectors of 6 elements, .* \(10, 5\)"):
            layer.adapt([correlated(10), correlated(10, 5)])

    def test_a_single_number(self):
        with pytest.raises(ValueError, match=r"'stage' learns from vectors, but got the single value 3\.5"):
            PCAWhiten(name="stage").adapt(3.5)

    @pytest.mark.parametrize("data", [[], np.zeros((0, 6)), np.zeros((5, 6)), [np.zeros((5, 6)), np.zeros((0, 6))], iter(())])
    def test_none_at_all_or_only_zeros(self, data):
        with pytest.raises(ValueError, match="'stage' has seen no vector to learn from that is not zero"):
            PCAWhiten(name="stage").adapt(data)

    def test_none_at_all_without_the_mask(self):
        with pytest.raises(ValueError, match="'stage' has seen no vector to learn from;"):
            PCAWhiten(mask_zero=False, name="stage").adapt(np.zeros((0, 6)))

    def test_leaves_what_was_learned_before(self):
        layer = adapted(correlated())
        before = state(layer)
        for data in ([correlated(seed=1), np.full((3, 6), np.nan)], [correlated(seed=1), np.ones((3, 5))], np.zeros((0, 6))):
            with pytest.raises(ValueError):
                layer.adapt(data)
            for name, values in state(layer).items():
                np.testing.assert_array_equal(values, before[name])


class TestKeeping:
    def test_saved_model_keeps_what_was_learned(self, tmp_path):
        inputs = keras.Input((None, 6))
        layer = PCAWhiten(components=4, shrinkage=0.1)
        model = keras.Model(inputs, layer(inputs))
        layer.adapt(correlated())
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        again = loaded.layers[-1]
        assert again.adapted
        assert_same_state(again, layer, rtol=0)
        vectors = correlated(20, seed=5).astype("float32").reshape(2, 10, 6)
        np.testing.assert_array_equal(run(loaded, vectors), run(model, vectors))

    def test_model_built_before_adapt_uses_what_was_learned(self):
        inputs = keras.Input((6,))
        layer = PCAWhiten()
        model = keras.Model(inputs, layer(inputs))
        vectors = correlated(seed=5).astype("float32")
        np.testing.assert_array_equal(run(model, vectors), vectors)
        layer.adapt(correlated())
        np.testing.assert_allclose(run(model, vectors), run(adapted(correlated()), vectors), rtol=1e-6)

    def test_assigned_state_is_what_was_learned_elsewhere(self):
        learned = adapted(correlated())
        found = state(learned)
        for components in (None, 2):
            layer = PCAWhiten(components)
            layer.assign(*(found[name] for name in STATE), count=200)
            assert layer.adapted
            assert_same_state(layer, adapted(correlated(), components=components), rtol=0)


def matching(count=300, dimensions=6, seed=0, noise=0.2):
    """Two views `(count, dimensions)` float64 of the same, which differ more along some axes than along others."""
    random = np.random.default_rng(seed)
    one = correlated(count, dimensions, seed)
    turned, _ = np.linalg.qr(random.normal(size=(dimensions, dimensions)))
    return one, one + noise * (random.normal(size=(count, dimensions)) * np.geomspace(1, 0.2, dimensions)) @ turned


class TestMatching:
    """Whitening that is learned from matching vectors."""

    def white_differences(self, layer, one, other):
        found = [run(layer, each.astype("float32")).astype("float64") for each in (one, other)]
        return found[0] - found[1]

    @pytest.mark.slow
    @given(
        dimensions=st.integers(1, 8),
        more=st.integers(1, 60),
        seed=st.integers(0, 99),
        size=st.sampled_from([1e-3, 1.0, 1e3]),
        components=st.none() | st.integers(1, 8),
    )
    @settings(max_examples=30)
    def test_matching_vectors_differ_alike_and_all_are_uncorrelated(self, dimensions, more, seed, size, components):
        one, other = (size * view for view in matching(2 * dimensions + more, dimensions, seed))
        kept = min(components or dimensions, dimensions)
        data = np.concatenate([one, other])
        layer = adapted(data, components=kept, matching=(one, other))
        differences = self.white_differences(layer, one, other)
        np.testing.assert_allclose(differences.T @ differences / len(one), np.eye(kept), atol=2e-3)
        white = run(layer, data.astype("float32")).astype("float64")
        covariance = np.atleast_2d(np.cov(white, rowvar=False))
        spreads = np.diag(covariance)
        np.testing.assert_allclose(covariance / np.sqrt(np.outer(spreads, spreads)), np.eye(kept), atol=2e-2)
        assert (np.diff(spreads) <= 1e-3 * spreads[:-1]).all()
        np.testing.assert_allclose(white.mean(axis=0) / np.sqrt(spreads), 0, atol=1e-3)

    @pytest.mark.parametrize("shrinkage", [0, 0.05, 0.3, 0.9, 1])
    def test_is_the_statement_of_the_toolbox(self, shrinkage):
        """Any root of the inverse will do before the rotation: here that of Cholesky, as the PyTorch toolbox has it."""
        one, other = matching()
        data = np.concatenate([one, other, correlated(100, seed=8)])
        layer = adapted(data, matching=(one, other), shrinkage=shrinkage)
        differences = one - other
        within = differences.T @ differences / len(one)
        within = (1 - shrinkage) * within + shrinkage * np.diag(within).mean() * np.eye(6)
        root = np.linalg.inv(np.linalg.cholesky(within))
        _, turned = np.linalg.eigh(root @ np.cov(data, rowvar=False) @ root.T)
        projection = turned[:, ::-1].T @ root
        others = correlated(seed=5).astype("float32")
        expected = (others - data.mean(axis=0)) @ projection.T
        found = run(layer, others)
        signs = np.sign((found * expected).sum(axis=0))
        np.testing.assert_allclose(found, expected * signs, atol=reference.RELATIVE_ERROR * np.abs(expected).max())

    def test_solves_the_generalised_eigenproblem(self):
        linalg = pytest.importorskip("scipy.linalg")
        one, other = matching(seed=4)
        layer = adapted(one, matching=[(one[:100], other[:100]), (one[100:], other[100:])])
        assert_same_state(adapted(one, matching=((one[:100], other[:100]), (one[100:], other[100:]))), layer)
        with pytest.raises(ValueError, match=r"a tuple of two arrays \(n, d\), of which rows match, or an iterable of such tuples"):
            adapted(one, matching=[one[:2], other[:2]])
        differences = one - other
        _, axes = linalg.eigh(np.cov(one, rowvar=False), differences.T @ differences / len(one))
        axes = axes[:, ::-1]
        np.testing.assert_allclose(layer.eigenvalues, 1 / (axes**2).sum(axis=0), rtol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(layer.eigenvectors, axis=0), 1, rtol=1e-6)

    def test_with_shrinkage_few_pairs_do_not_warn(self):
        one, other = matching()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer = adapted(one, matching=(one[:3], other[:3]), shrinkage=0.1)
        assert np.abs(run(layer, one.astype("float32"))).max() < 1e3

    def test_order_of_a_pair_and_batches_change_nothing(self):
        one, other = matching()
        expected = adapted(one, matching=(one, other))
        swap = np.arange(len(one)) % 2 == 0
        swapped = [np.where(swap[:, None], *views) for views in ((other, one), (one, other))]
        assert_same_state(adapted(one, matching=tuple(swapped)), expected)
        batches = zip(np.split(one, [1, 50]), np.split(other, [1, 50]))
        assert_same_state(adapted(np.split(one, 3), matching=batches), expected)

    def test_adapting_again_forgets_the_pairs(self):
        one, other = matching()
        layer = adapted(one, matching=(one, other))
        layer.adapt(one)
        assert_same_state(layer, adapted(one), rtol=0)

    def test_zero_vectors_match_nothing(self):
        one, other = matching()
        expected = adapted(one, matching=(one, other))
        one_more = np.concatenate([one, np.zeros((1, 6)), other[:1]])
        other_more = np.concatenate([other, other[:1], np.zeros((1, 6))])
        assert_same_state(adapted(one, matching=(one_more, other_more)), expected, rtol=1e-5)

    def test_fewer_pairs_than_dimensions_warn_and_stay_finite(self):
        one, other = matching()
        with pytest.warns(UserWarning, match=r"from 4 pairs of matching vectors, which hardly differ in 2 directions"):
            layer = adapted(one, matching=(one[:4], other[:4]))
        assert np.isfinite(run(layer, one.astype("float32"))).all()

    def test_copies_are_refused_and_leave_what_was_learned(self):
        one, _ = matching()
        layer = adapted(one)
        before = state(layer)
        with pytest.raises(ValueError, match="the 300 pairs are each one vector twice"):
            layer.adapt(one, matching=(one, one))
        for none in ([], [(np.zeros((3, 6)), np.zeros((3, 6)))]):
            with pytest.raises(ValueError, match="was given no matching vectors"):
                layer.adapt(one, matching=none)
        with pytest.raises(ValueError, match="as many vectors as match, but got 300 and 299"):
            layer.adapt(one, matching=(one, one[:-1]))
        for name, values in state(layer).items():
            np.testing.assert_array_equal(values, before[name])
