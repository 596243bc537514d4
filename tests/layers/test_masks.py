import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import reference
from layers.habits import only_on_tensorflow, run

from rw_keras.layers import (
    CenterPrior,
    CroWChannelWeight,
    GeMPooling,
    IDFChannelWeight,
    L2Norm,
    PCAWhiten,
    PowerNorm,
    RegionalMaxPooling,
    RegionalSumPooling,
    RegionSum,
    SpatialWeight,
)
from rw_keras.regions import region_windows

OF_MAPS = {
    "places": SpatialWeight,
    "places by other norms": lambda: SpatialWeight(1, 3),
    "channels": IDFChannelWeight,
    "channels by proportions": CroWChannelWeight,
    "centre": CenterPrior,
    "regions": RegionalSumPooling,
    "maxima of regions": RegionalMaxPooling,
}
# With the one for which a masked place is not a zero, but none: see its own tests.
WITH_MEANS = {**OF_MAPS, "generalised mean": GeMPooling}


def masked(layer, features, mask):
    return keras.ops.convert_to_numpy(layer(features, mask=mask))


def random_mask(shape, seed=0):
    mask = np.random.default_rng(seed).random(shape) < 0.6
    mask[(slice(None), *[0] * (len(shape) - 1))] = True
    return mask


@keras.saving.register_keras_serializable(package="test_masks")
class Padding(keras.layers.Layer):
    """Takes what is below 0 in the first channel for padding, and hands all on as it is."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.supports_masking = True

    def call(self, inputs):
        return inputs

    def compute_mask(self, inputs, mask=None):
        return inputs[..., 0] >= 0


def padded(features, mask):
    """The map with values that have no business in it at places that are padding, and -1 in their first channel."""
    features = np.where(mask[..., None], features, np.float32(7))
    features[..., 0] = np.where(mask, features[..., 0], -1)
    return features


@keras.saving.register_keras_serializable(package="test_masks")
class Asks(keras.layers.Layer):
    """1 where it is given a mask, else 0."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return keras.ops.zeros_like(inputs) + (0 if mask is None else 1)


class TestOfMaps:
    @pytest.mark.parametrize("kind", reference.MAPS)
    @pytest.mark.parametrize("make", OF_MAPS.values(), ids=OF_MAPS)
    def test_masked_place_counts_as_zero(self, make, kind):
        for size in ((3, 4), (14, 14), (7, 30)):
            features = reference.MAPS[kind](*size)
            mask = random_mask(features.shape[:3])
            expected = run(make(), np.where(mask[..., None], features, 0))
            np.testing.assert_array_equal(masked(make(), features, mask), expected)
            if kind in ("sparse", "dense"):
                assert (run(make(), features) != expected).any()

    @pytest.mark.parametrize("make", WITH_MEANS.values(), ids=WITH_MEANS)
    def test_what_stands_at_a_masked_place_has_no_say(self, make):
        features = reference.sparse_map(7, 9)
        mask = random_mask(features.shape[:3])
        expected = masked(make(), features, mask)
        for value in (1e30, -5, np.nan, np.inf):
            found = masked(make(), np.where(mask[..., None], features, np.float32(value)), mask)
            np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("make", WITH_MEANS.values(), ids=WITH_MEANS)
    def test_mask_of_all_places_or_of_none(self, make):
        features = reference.sparse_map(7, 9)
        every = np.ones(features.shape[:3], bool)
        np.testing.assert_array_equal(masked(make(), features, every), run(make(), features))
        assert not masked(make(), features, ~every).any()

    @pytest.mark.parametrize("make", WITH_MEANS.values(), ids=WITH_MEANS)
    def test_mask_of_numbers(self, make):
        features = reference.sparse_map(7, 9)
        mask = random_mask(features.shape[:3])
        for kept, dtype in ((1, "int32"), (1, "float32"), (1, "uint8"), (255, "uint8"), (-1, "int32"), (0.5, "float32")):
            numbers = np.where(mask, kept, 0).astype(dtype)
            np.testing.assert_array_equal(masked(make(), features, numbers), masked(make(), features, mask))

    def test_boxes_leave_masked_places_out(self):
        features = reference.dense_map(5, 7)
        mask = random_mask(features.shape[:3])
        boxes = np.array([[0.5, 1.25, 4.75, 6.5], [0, 0, 5, 7]], "float32")
        found = keras.ops.convert_to_numpy(RegionalSumPooling()(features, boxes=boxes, mask=mask))
        expected = keras.ops.convert_to_numpy(RegionalSumPooling()(np.where(mask[..., None], features, 0), boxes=boxes))
        np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    @pytest.mark.parametrize("make", WITH_MEANS.values(), ids=WITH_MEANS)
    def test_low_precision_policy_changes_no_digit(self, make, policy, set_policy):
        features = np.round(reference.sparse_map(3, 4)).clip(0, 127)
        mask = random_mask(features.shape[:3])
        expected = masked(make(), features, mask)
        set_policy(policy)
        found = masked(make(), features, mask)
        assert found.dtype == "float32"
        np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 1), (2, 3, 4, 8), (2,)])
    @pytest.mark.parametrize(
        "layer",
        [SpatialWeight, IDFChannelWeight, CroWChannelWeight, CenterPrior, RegionalSumPooling, RegionalMaxPooling, GeMPooling],
    )
    def test_wrong_rank_is_refused_by_name_and_shape(self, layer, shape):
        with pytest.raises(ValueError) as refused:
            layer(name="stage")(reference.sparse_map(3, 4), mask=np.ones(shape, bool))
        for words in (layer.__name__, "'stage'", "a mask (batch, height, width)", str(shape)):
            assert words in str(refused.value)

    @settings(max_examples=30)
    @given(st.sampled_from(list(OF_MAPS)), st.integers(0, 10**6))
    def test_any_mask(self, name, seed):
        features = reference.sparse_map(3, 4, seed=seed)
        mask = np.random.default_rng(seed).random(features.shape[:3]) < 0.5
        expected = run(OF_MAPS[name](), np.where(mask[..., None], features, 0))
        np.testing.assert_array_equal(masked(OF_MAPS[name](), features, mask), expected)

    @pytest.mark.slow
    @only_on_tensorflow("tf.function is TensorFlow's")
    @pytest.mark.parametrize("make", WITH_MEANS.values(), ids=WITH_MEANS)
    def test_one_trace_serves_every_size(self, make):
        import tensorflow as tf

        layer = make()
        signature = [tf.TensorSpec((None, None, None, 8)), tf.TensorSpec((None, None, None), tf.bool)]
        graph = tf.function(lambda features, mask: layer(features, mask=mask), input_signature=signature)
        for size in reference.SIZES:
            features = reference.sparse_map(*size)
            mask = random_mask(features.shape[:3])
            np.testing.assert_allclose(graph(features, mask).numpy(), masked(layer, features, mask), rtol=1e-5, atol=1e-6)
        assert graph.experimental_get_tracing_count() == 1


class TestOfRegions:
    def test_masked_region_is_not_added(self):
        vectors = np.random.default_rng(0).normal(size=(3, 21, 8)).astype("float32")
        mask = random_mask((3, 21))
        expected = np.where(mask[..., None], vectors, 0).sum(axis=1, dtype="float64")
        for kind in (mask, mask.astype("int32"), mask.astype("float32")):
            np.testing.assert_allclose(masked(RegionSum(), vectors, kind), expected, atol=1e-5)
        spoilt = np.where(mask[..., None], vectors, np.float32(np.nan))
        np.testing.assert_array_equal(masked(RegionSum(), spoilt, mask), masked(RegionSum(), vectors, mask))
        assert not masked(RegionSum(), vectors, np.zeros((3, 21), bool)).any()

    @pytest.mark.parametrize("shape", [(2,), (2, 5, 8), (2, 5, 1)])
    def test_wrong_rank_is_refused_by_name_and_shape(self, shape):
        with pytest.raises(ValueError) as refused:
            RegionSum(name="stage")(np.ones((2, 5, 8), "float32"), mask=np.ones(shape, bool))
        for words in ("RegionSum 'stage'", "a mask (batch, regions)", str(shape)):
            assert words in str(refused.value)

    def test_mask_reaches_the_sum_past_the_whitening(self):
        """Padding that is not zero would be whitened as any other vector."""
        whitening = PCAWhiten(mask_zero=False)
        whitening.adapt(np.random.default_rng(1).normal(1, 1, (100, 8)))
        inputs = keras.Input((None, 8))
        model = keras.Model(inputs, RegionSum()(L2Norm()(whitening(L2Norm()(Padding()(inputs))))))
        vectors = np.random.default_rng(0).uniform(0, 1, (2, 5, 8)).astype("float32")
        mask = np.array([[True] * 5, [True] * 3 + [False] * 2])
        found = run(model, padded(vectors, mask))
        np.testing.assert_allclose(found[1:], run(model, vectors[1:, :3]), atol=1e-6)
        np.testing.assert_allclose(found[:1], run(model, vectors[:1]), atol=1e-6)

    def test_mask_ends_there(self):
        inputs = keras.Input((None, 8))
        model = keras.Model(inputs, [Asks()(L2Norm()(Padding()(inputs))), Asks()(RegionSum()(Padding()(inputs)))])
        before, after = (keras.ops.convert_to_numpy(one) for one in model(np.ones((2, 5, 8), "float32")))
        assert before.all()
        assert not after.any()


def weighted_regions(features, **boxes):
    return RegionalSumPooling(name="regions")(IDFChannelWeight()(SpatialWeight()(features)), **boxes)


class TestPropagation:
    @pytest.mark.parametrize("chain", [*OF_MAPS.values(), lambda: weighted_regions], ids=[*OF_MAPS, "all three"])
    def test_mask_of_the_layer_before_is_taken(self, chain, tmp_path):
        inputs = keras.Input((None, None, 8))
        model = keras.Model(inputs, chain()(Padding()(inputs)))
        features = reference.sparse_map(7, 9)
        mask = random_mask(features.shape[:3])
        expected = run(chain(), np.where(mask[..., None], features, 0))
        found = run(model, padded(features, mask))
        np.testing.assert_allclose(found, expected, rtol=1e-6)

        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        np.testing.assert_array_equal(run(loaded, padded(features, mask)), found)

    def test_generalised_mean_takes_the_mask_of_the_layer_before(self):
        inputs = keras.Input((None, None, 8))
        model = keras.Model(inputs, GeMPooling()(Padding()(inputs)))
        features = reference.sparse_map(7, 9)
        mask = random_mask(features.shape[:3])
        np.testing.assert_allclose(run(model, padded(features, mask)), masked(GeMPooling(), features, mask), rtol=1e-6)

    def test_mask_of_the_layer_before_is_taken_beside_boxes(self):
        inputs, boxes = keras.Input((None, None, 8)), keras.Input((None, 4))
        model = keras.Model([inputs, boxes], RegionalSumPooling()(Padding()(inputs), boxes=boxes))
        features = reference.sparse_map(7, 9)
        mask = random_mask(features.shape[:3])
        given = np.array([[[0, 0, 7, 9], [1.5, 2, 6, 7.25]]] * 2, "float32")
        found = keras.ops.convert_to_numpy(model([padded(features, mask), given]))
        expected = keras.ops.convert_to_numpy(RegionalSumPooling()(np.where(mask[..., None], features, 0), boxes=given))
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_of_keras_own_masking(self):
        inputs = keras.Input((None, None, 8))
        model = keras.Model(inputs, weighted_regions(keras.layers.Masking(-1.0)(inputs)))
        features = reference.sparse_map(7, 9)
        mask = random_mask(features.shape[:3])
        expected = reference.region_sums(reference.weighted(np.where(mask[..., None], features, 0)))
        found = run(model, np.where(mask[..., None], features, np.float32(-1)))
        np.testing.assert_allclose(found, expected, rtol=reference.RELATIVE_ERROR)

    @pytest.mark.parametrize(
        ("make", "passed"),
        [
            (SpatialWeight, 1),
            (IDFChannelWeight, 1),
            (CroWChannelWeight, 1),
            (CenterPrior, 1),
            (PowerNorm, 1),
            (RegionalSumPooling, 0),
            (RegionalMaxPooling, 0),
            (GeMPooling, 0),
        ],
    )
    def test_mask_is_passed_on_while_there_are_places(self, make, passed):
        inputs = keras.Input((None, None, 8))
        model = keras.Model(inputs, Asks()(make()(Padding()(inputs))))
        assert (run(model, reference.sparse_map(3, 4)) == passed).all()


def descriptors(features, whitening, mask=None, boxes=None):
    """All layers from a map to a descriptor."""
    features = IDFChannelWeight()(SpatialWeight()(features, mask=mask), mask=mask)
    vectors = L2Norm()(RegionalSumPooling()(features, boxes=boxes, mask=mask))
    return keras.ops.convert_to_numpy(L2Norm()(RegionSum()(L2Norm()(whitening(vectors)))))


class TestBatchOfPhotosOfManySizes:
    """Maps of any size in one batch: filled up to the largest, with a mask of their own places and their own grid as boxes."""

    SIZES = ((3, 4), (5, 5), (2, 7), (1, 1), (6, 2))

    def batch(self):
        maps = [reference.sparse_map(*size, batch=1, seed=seed)[0] for seed, size in enumerate(self.SIZES)]
        grids = [region_windows(*size) for size in self.SIZES]
        # Where a photo ends the next stands: what is left over from another is no zero.
        together = np.random.default_rng(9).uniform(1, 50, (len(maps), 6, 7, 8)).astype("float32")
        mask = np.zeros((len(maps), 6, 7), bool)
        boxes = np.zeros((len(maps), max(map(len, grids)), 4), "float32")
        for number, (one, grid) in enumerate(zip(maps, grids)):
            height, width, _ = one.shape
            together[number, :height, :width], mask[number, :height, :width] = one, True
            boxes[number, : len(grid)] = grid
        return maps, together, mask, boxes

    @pytest.mark.parametrize("shrinkage", [0.0, 0.2])
    def test_descriptors_are_those_of_the_photos_alone(self, shrinkage):
        vectors = reference.unit(np.random.default_rng(3).gamma(1, 1, (200, 8)))
        whitening = PCAWhiten(shrinkage=shrinkage)
        whitening.adapt(vectors)
        mean, axes, variances = reference.principal_axes(vectors)
        maps, together, mask, boxes = self.batch()
        found = descriptors(together, whitening, mask, boxes)
        for number, one in enumerate(maps):
            np.testing.assert_allclose(found[number], descriptors(one[None], whitening)[0], atol=2e-5)
            regions = reference.region_sums(reference.weighted(one[None]))
            expected = reference.descriptor(regions, lambda v: reference.whitened(v, mean, axes, variances, shrinkage))[0]
            # The sign of an axis is no part of the whitening.
            np.testing.assert_allclose(np.abs(found[number]), np.abs(expected), atol=1e-4)

    def test_without_the_mask_they_are_not(self):
        identity = PCAWhiten()
        maps, together, mask, boxes = self.batch()
        found = descriptors(together, identity, None, boxes)
        assert np.abs(found[0] - descriptors(maps[0][None], identity)[0]).max() > 0.01
        with_grid = descriptors(together, identity, mask)
        assert np.abs(with_grid[0] - descriptors(maps[0][None], identity)[0]).max() > 0.01
