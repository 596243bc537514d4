import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layers.habits import only_on_tensorflow, run

from rw_keras.layers import ClassToken, OneMoreRegion, TokensToMap


def tokens_of(count, channels=5, batch=2, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, count, channels)).astype("float32")


def laid_out(tokens, pixels, patch_size=4, prefix_tokens=1, **arguments):
    return keras.ops.convert_to_numpy(TokensToMap(patch_size, prefix_tokens)(tokens, pixels, **arguments))


def pixels_of(height, width, batch=2):
    return np.zeros((batch, height, width, 3), "float32")


class TestTokensToMap:
    @given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3), st.integers(0, 3), st.integers(0, 5))
    def test_each_token_lies_where_its_patch_does(self, rows, columns, below, right, prefix):
        tokens = tokens_of(prefix + rows * columns)
        found = laid_out(tokens, pixels_of(4 * rows + below, 4 * columns + right), 4, prefix)
        for row in range(rows):
            for column in range(columns):
                np.testing.assert_array_equal(found[:, row, column], tokens[:, prefix + row * columns + column])
        assert found.shape == (2, rows, columns, 5)

    def test_one_model_takes_every_size_and_loads_in_safe_mode(self, tmp_path):
        tokens, pixels = keras.Input((None, 5)), keras.Input((None, None, 3))
        model = keras.Model([tokens, pixels], TokensToMap(4, 1, name="map")(tokens, pixels))
        assert model.output_shape == (None, None, None, 5)
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        for rows, columns in ((1, 1), (2, 3), (4, 1)):
            values = tokens_of(1 + rows * columns)
            found = keras.ops.convert_to_numpy(model([values, pixels_of(4 * rows, 4 * columns)]))
            np.testing.assert_array_equal(found, values[:, 1:].reshape(2, rows, columns, 5))

    @only_on_tensorflow("tf.function is TensorFlow's")
    def test_one_trace_serves_every_size_and_fails_where_tokens_do_not_fit(self):
        import tensorflow as tf

        layer = TokensToMap(4, 1)
        specs = [tf.TensorSpec((None, None, 5)), tf.TensorSpec((None, None, None, 3))]
        graph = tf.function(lambda tokens, pixels: layer(tokens, pixels), input_signature=specs)
        assert graph(tokens_of(13), pixels_of(12, 16)).shape == (2, 3, 4, 5)
        # 2 photos of 12 patches are as many values as 3 of 8.
        with pytest.raises(tf.errors.InvalidArgumentError, match="reshape"):
            graph(tokens_of(13), pixels_of(8, 16))

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
    def test_low_precision_policy_changes_no_digit(self, policy, set_policy):
        tokens = np.round(tokens_of(13) * 4) / 4
        expected = laid_out(tokens, pixels_of(12, 16))
        set_policy(policy)
        low = keras.ops.cast(tokens, policy.removeprefix("mixed_"))
        found = laid_out(low, pixels_of(12, 16))
        assert found.dtype == "float32"
        np.testing.assert_array_equal(found, expected)

    def test_a_token_that_is_masked_out_gives_a_cell_of_zeros(self):
        tokens, mask = tokens_of(13), np.ones((2, 13), bool)
        mask[0, 5] = mask[1, 0] = False
        found = laid_out(tokens, pixels_of(12, 16), tokens_mask=mask)
        expected = tokens[:, 1:].reshape(2, 3, 4, 5).copy()
        expected[0, 1, 0] = 0
        np.testing.assert_array_equal(found, expected)

    def test_tokens_that_do_not_fit_are_refused_with_both_numbers(self):
        with pytest.raises(
            ValueError, match=r"13 tokens for pixels of 16 x 8, which are 4 x 2 patches of 4 and 1 prefix.*9 in all"
        ):
            laid_out(tokens_of(13), pixels_of(8, 16))
        with pytest.raises(ValueError, match="got 13 tokens"):
            TokensToMap(4)(keras.Input((13, 5)), keras.Input((12, 16, 3)))
        with pytest.raises(ValueError, match="pixels of 16 x 3, too few for one patch of 4"):
            laid_out(tokens_of(5), pixels_of(3, 16))

    @pytest.mark.parametrize(("name", "value"), [("patch_size", 0), ("patch_size", 2.0), ("prefix_tokens", -1)])
    def test_wrong_argument_is_refused(self, name, value):
        with pytest.raises(ValueError, match=f"TokensToMap takes a whole number of at least .* as `{name}`, but got {value!r}"):
            TokensToMap(**{"patch_size": 4, name: value})

    def test_wrong_ranks_are_refused(self):
        with pytest.raises(ValueError, match="takes tokens"):
            laid_out(pixels_of(2, 3), pixels_of(8, 16))
        with pytest.raises(ValueError, match="takes the pixels"):
            laid_out(tokens_of(9), tokens_of(9))


def test_class_token_is_the_first():
    tokens = tokens_of(7)
    np.testing.assert_array_equal(run(ClassToken(), tokens), tokens[:, :1, None])
    assert ClassToken()(keras.Input((None, 5))).shape == (None, 1, 1, 5)
    assert not keras.ops.convert_to_numpy(ClassToken()(tokens, mask=np.zeros((2, 7), bool))).any()


class TestOneMoreRegion:
    def test_it_comes_first(self):
        regions, whole = tokens_of(4), tokens_of(1, seed=1)[:, None]
        found = keras.ops.convert_to_numpy(OneMoreRegion()(regions, whole=whole))
        np.testing.assert_array_equal(found, np.concatenate([whole[:, 0], regions], axis=1))
        assert OneMoreRegion()(keras.Input((None, 5)), whole=keras.Input((1, 1, 5))).shape == (None, None, 5)

    @only_on_tensorflow("tf.function is TensorFlow's")
    def test_one_trace_serves_every_number_of_tokens(self):
        import tensorflow as tf

        specs = [tf.TensorSpec((None, None, 5)), tf.TensorSpec((None, None, 5))]
        more = OneMoreRegion()
        graph = tf.function(lambda regions, tokens: more(regions, whole=ClassToken()(tokens)), input_signature=specs)
        assert graph(tokens_of(4), tokens_of(7)).shape == (2, 5, 5)

    def test_a_map_of_more_cells_is_refused(self):
        with pytest.raises(ValueError, match=r"a map of one cell .*, but got the shape \(2, 8, 16, 3\)"):
            OneMoreRegion()(tokens_of(4), whole=pixels_of(8, 16))
