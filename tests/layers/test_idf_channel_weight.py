import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import reference
from layers.habits import LayerHabits, RefusesArguments, RefusesShapes, not_above_zero, run

from rw_keras.layers import IDFChannelWeight


class TestIDFChannelWeight(LayerHabits, RefusesShapes, RefusesArguments):
    layer = IDFChannelWeight
    arguments = {"epsilon": 0.25}  # noqa: RUF012
    sample = np.round(reference.sparse_map(3, 4)).clip(0, 127)
    shapes = {  # noqa: RUF012
        (None, None, None, 8): (None, None, None, 8),
        (2, 24, None, 8): (2, 24, None, 8),
        (2, 24, 32, 8): (2, 24, 32, 8),
    }
    wrong_shapes = ((2, 3, 8), (8,), (1, 2, 3, 4, 8))
    wrong_arguments = not_above_zero("epsilon")

    @pytest.mark.parametrize("kind", reference.MAPS)
    @pytest.mark.parametrize("size", reference.SIZES)
    def test_value(self, size, kind):
        features = reference.MAPS[kind](*size)
        expected = reference.channel_weight(features) * features
        np.testing.assert_allclose(run(IDFChannelWeight(), features), expected, rtol=reference.RELATIVE_ERROR)

    @pytest.mark.parametrize("epsilon", [1e-6, 0.01, 0.5, 1, 10, 1e6])
    def test_value_with_another_epsilon(self, epsilon):
        features = reference.sparse_map(7, 9)
        expected = reference.channel_weight(features, epsilon) * features
        np.testing.assert_allclose(run(IDFChannelWeight(epsilon), features), expected, rtol=reference.RELATIVE_ERROR)

    def test_default_epsilon_is_the_published_one(self):
        assert IDFChannelWeight().epsilon == 1.0

    def test_a_map_worked_out_by_hand(self):
        features = np.array([[[[5, 0.1, 0], [2, 0, 0], [1, 0, 0]]]], "float32")  # counts 3, 1, 0
        expected = np.log([4 / 4, 4 / 2, 4 / 1]) * features
        np.testing.assert_allclose(run(IDFChannelWeight(), features), expected, rtol=1e-6)

    def test_counts_are_no_proportions(self):
        # With proportions, as in CroW, the weight would hardly depend on how often the map is repeated.
        once = np.array([[[[1, 1], [1, 0]]]], "float32")
        twice = np.concatenate([once, once], axis=1)
        weights = [run(IDFChannelWeight(), features)[0, 0, 0] for features in (once, twice)]
        np.testing.assert_allclose(weights, np.log([[3 / 3, 3 / 2], [6 / 5, 6 / 3]]), rtol=1e-6)

    def test_weight_of_the_only_channel_that_fires_is_slightly_negative(self):
        features = np.zeros((1, 24, 32, 5), "float32")
        features[..., 2] = 1
        found = run(IDFChannelWeight(), features)[..., 2]
        np.testing.assert_allclose(found, np.log(768 / 769), rtol=reference.RELATIVE_ERROR)

    def test_each_photo_of_a_batch_is_counted_by_itself(self):
        maps = [reference.sparse_map(3, 4, batch=1, seed=1), reference.dense_map(3, 4, batch=1), np.zeros((1, 3, 4, 8), "float32")]
        together = run(IDFChannelWeight(), np.concatenate(maps))
        np.testing.assert_allclose(together, np.concatenate([run(IDFChannelWeight(), one) for one in maps]), rtol=1e-6)

    def test_counts_leave_the_integers_of_float16_and_bfloat16(self, set_policy):
        features = np.zeros((1, 64, 48, 4), "float16")
        features[..., 0], features[0, :43, :, 1], features[0, 0, 0, 2] = 1, 1, 1  # 3072, 2064 and 1; 4097 is no bfloat16
        expected = reference.channel_weight(features) * features
        for policy in ("mixed_float16", "mixed_bfloat16"):
            set_policy(policy)
            np.testing.assert_allclose(run(IDFChannelWeight(), features), expected, rtol=reference.RELATIVE_ERROR)

    @settings(max_examples=30)
    @given(st.sampled_from([(1, 1), (2, 5), (3, 4)]), st.integers(0, 10**6), st.floats(1e-6, 1e6))
    def test_weights_do_not_depend_on_how_strongly_a_channel_fires(self, size, seed, factor):
        features = reference.sparse_map(*size, seed=seed)
        found = run(IDFChannelWeight(), np.where(features > 0, np.float32(factor), 0).astype("float32"))
        expected = np.where(features > 0, reference.channel_weight(features) * np.float64(np.float32(factor)), 0)
        np.testing.assert_allclose(found, expected, rtol=reference.RELATIVE_ERROR)
