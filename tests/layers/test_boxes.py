import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import reference
from layers.habits import only_on_tensorflow, run

from rw_keras.layers import RegionalSumPooling
from rw_keras.regions import region_windows


def overlaps(start, stop, length):
    """How much of each cell of an axis lies between two places."""
    return np.array([max(0.0, min(stop, cell + 1.0) - max(start, cell)) for cell in range(length)])


def box_sums(features, boxes):
    """The sum over each box `(R, 4)`, or `(B, R, 4)`, a cell counting by its share: `(B, R, C)` float64."""
    features, boxes = np.asarray(features, "float64"), np.asarray(boxes, "float64")
    batch, height, width, _ = features.shape
    boxes = np.broadcast_to(boxes, (batch, *boxes.shape[-2:]))
    return np.stack(
        [
            np.stack(
                [
                    np.einsum("hwc,h,w", photo, overlaps(top, bottom, height), overlaps(left, right, width))
                    for top, left, bottom, right in of_photo
                ]
            )
            for photo, of_photo in zip(features, boxes)
        ]
    )


def pooled(features, boxes, **arguments):
    return keras.ops.convert_to_numpy(RegionalSumPooling(**arguments)(features, boxes=boxes))


def assert_same_sums(found, expected, features):
    """Where a box cuts a sliver off a cell, float32 leaves so much of the whole map's sum."""
    assert found.shape == expected.shape
    tolerance = 1e-6 * np.abs(features).sum(axis=(1, 2, 3), dtype="float64").max()
    np.testing.assert_allclose(found, expected, rtol=reference.RELATIVE_ERROR, atol=tolerance)


FRACTIONAL = np.array(
    [
        [0, 0, 5, 7],
        [0.5, 1.25, 4.75, 6.5],
        [2.25, 3.5, 2.75, 3.75],  # within one cell
        [-3, -2.5, 1.5, 20],  # over three edges
        [6, 8, 9, 10],  # outside
        [4, 1, 2, 5],  # upside down
        [3, 5, 4, 2],  # the wrong way round
        [4, 5, 2, 1],  # both
        [1.5, 2, 1.5, 4],  # no area
        [0, 0, 0, 0],
    ],
    "float32",
)
EMPTY = slice(4, None)

places = st.floats(-3, 10, width=32)
boxes_of_a_photo = st.lists(st.tuples(places, places, places, places), min_size=4, max_size=4)


class TestValue:
    @pytest.mark.parametrize("kind", reference.MAPS)
    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 4), (14, 14), (24, 32), (17, 90)])
    def test_the_grids_windows_give_the_grids_sums(self, size, kind):
        features = reference.MAPS[kind](*size)
        found = pooled(features, region_windows(*size, 3).astype("float32"))
        np.testing.assert_allclose(found, run(RegionalSumPooling(3), features), rtol=1e-6)
        np.testing.assert_allclose(found, reference.region_sums(features), rtol=reference.RELATIVE_ERROR)

    def test_whole_numbers_of_every_kind(self):
        features = reference.dense_map(24, 32)
        windows = region_windows(24, 32, 2)
        for dtype in ("int32", "int64", "uint8", "float32", "float64"):
            np.testing.assert_allclose(pooled(features, windows.astype(dtype)), reference.region_sums(features, 2), rtol=1e-5)

    def test_levels_and_the_whole_map_have_no_say(self):
        features = reference.dense_map(5, 7)
        expected = pooled(features, FRACTIONAL)
        np.testing.assert_array_equal(pooled(features, FRACTIONAL, levels=1, include_whole_map=False), expected)

    @pytest.mark.parametrize("kind", ["sparse", "dense", "one loud element", "zero"])
    def test_fractional_ones(self, kind):
        features = reference.MAPS[kind](5, 7)
        found = pooled(features, FRACTIONAL)
        assert_same_sums(found, box_sums(features, FRACTIONAL), features)
        assert not found[:, EMPTY].any()

    def test_one_worked_out_by_hand(self):
        features = np.arange(1, 7, dtype="float32").reshape(1, 2, 3, 1)  # 1 2 3 / 4 5 6
        # Half of the upper row and a quarter of the lower one; of the columns all of the second, half of the third.
        box = np.array([[0.5, 1, 1.25, 2.5]], "float32")
        expected = 0.5 * (2 + 0.5 * 3) + 0.25 * (5 + 0.5 * 6)
        np.testing.assert_allclose(pooled(features, box), [[[expected]]], rtol=1e-6)

    def test_without_end_is_the_whole_map(self):
        features = reference.dense_map(5, 7)
        box = np.array([[-np.inf, -np.inf, np.inf, np.inf]], "float32")
        np.testing.assert_allclose(pooled(features, box)[:, 0], features.sum(axis=(1, 2), dtype="float64"), rtol=1e-6)

    def test_each_photo_has_its_own(self):
        features = reference.dense_map(5, 7, batch=3)
        boxes = np.stack([FRACTIONAL, FRACTIONAL[::-1], FRACTIONAL / 2])
        assert_same_sums(pooled(features, boxes), box_sums(features, boxes), features)
        for number in range(3):
            shared = pooled(features[number : number + 1], boxes[number])
            np.testing.assert_allclose(pooled(features, boxes)[number], shared[0], rtol=1e-6)

    def test_shared_ones_are_the_same_for_every_photo(self):
        features = reference.dense_map(5, 7, batch=3)
        repeated = np.repeat(FRACTIONAL[None], 3, axis=0)
        np.testing.assert_allclose(pooled(features, FRACTIONAL), pooled(features, repeated), rtol=1e-6)

    def test_none_at_all_give_no_regions(self):
        for boxes in (np.zeros((0, 4), "float32"), np.zeros((2, 0, 4), "float32")):
            assert pooled(reference.dense_map(5, 7), boxes).shape == (2, 0, 8)

    @pytest.mark.slow
    @settings(max_examples=60)
    @given(st.integers(0, 10**6), boxes_of_a_photo, boxes_of_a_photo)
    def test_any_ones(self, seed, first, second):
        features = reference.dense_map(5, 7, seed=seed)
        boxes = np.array([first, second], "float32")
        assert_same_sums(pooled(features, boxes), box_sums(features, boxes), features)

    @settings(max_examples=60)
    @given(st.integers(0, 10**6), st.tuples(places, places, places, places), st.floats(0, 1), st.booleans())
    def test_halves_of_a_box_add_up_to_it(self, seed, box, share, across):
        box = np.array(box, "float32")
        box = np.concatenate([np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])])
        first, second = box.copy(), box.copy()
        start, stop = (0, 2) if across else (1, 3)
        first[stop] = second[start] = np.clip(box[start] + share * (box[stop] - box[start]), box[start], box[stop])
        features = reference.dense_map(5, 7, seed=seed)
        found = pooled(features, np.stack([box, first, second])).astype("float64")
        assert_same_sums(found[:, 1:].sum(axis=1), found[:, 0], features)

    @settings(max_examples=30)
    @given(st.integers(0, 10**6), boxes_of_a_photo, st.permutations(range(4)))
    def test_order_of_boxes_is_that_of_regions(self, seed, boxes, order):
        features = reference.dense_map(5, 7, seed=seed)
        boxes = np.array(boxes, "float32")
        assert_same_sums(pooled(features, boxes[order]), pooled(features, boxes)[:, order], features)

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_are_not_rounded_under_a_policy_of_low_precision(self, policy, set_policy):
        features = np.ones((1, 40, 60, 2), "float32")
        boxes = np.array([[0.001, 33.337, 39.999, 50.011]], "float32")
        expected = pooled(features, boxes)
        np.testing.assert_allclose(expected, box_sums(features, boxes), rtol=1e-5)
        set_policy(policy)
        found = pooled(features, boxes)
        assert found.dtype == "float32"
        np.testing.assert_array_equal(found, expected)


class TestShapes:
    @pytest.mark.parametrize(
        ("of_map", "of_boxes", "expected"),
        [
            ((None, None, None, 8), (None, None, 4), (None, None, 8)),
            ((None, None, None, 8), (None, 5, 4), (None, 5, 8)),
            ((2, 24, 32, 8), (2, 5, 4), (2, 5, 8)),
            ((None, 24, 32, 8), (5, 4), (None, 5, 8)),
            ((2, None, 32, 8), (None, 4), (2, None, 8)),
        ],
    )
    def test_symbolic(self, of_map, of_boxes, expected):
        layer = RegionalSumPooling()
        found = layer(keras.Input(batch_shape=of_map), boxes=keras.Input(batch_shape=of_boxes))
        assert found.shape == expected
        assert found.dtype == "float32"
        assert layer.compute_output_shape(of_map, of_boxes) == expected

    @pytest.mark.parametrize("shape", [(4,), (2, 5, 3), (5, 5), (1, 2, 5, 4), (2, 4, 1)])
    def test_wrong_one_is_refused(self, shape):
        for boxes in (np.zeros(shape, "float32"), keras.Input(batch_shape=shape)):
            features = reference.dense_map(5, 7) if isinstance(boxes, np.ndarray) else keras.Input((None, None, 8))
            with pytest.raises(ValueError) as refused:
                RegionalSumPooling(name="stage")(features, boxes=boxes)
            for words in ("RegionalSumPooling 'stage'", "(batch, regions, 4) or (regions, 4)", str(shape)):
                assert words in str(refused.value)

    def test_one_layer_takes_the_grid_and_boxes_in_turn(self):
        layer, features = RegionalSumPooling(), reference.dense_map(5, 7)
        for _ in range(2):
            np.testing.assert_allclose(run(layer, features), reference.region_sums(features), rtol=reference.RELATIVE_ERROR)
            found = keras.ops.convert_to_numpy(layer(features, boxes=FRACTIONAL))
            assert_same_sums(found, box_sums(features, FRACTIONAL), features)


class TestModel:
    def model(self):
        features, boxes = keras.Input((None, None, 8)), keras.Input((None, 4))
        return keras.Model([features, boxes], RegionalSumPooling(name="regions")(features, boxes=boxes))

    def test_takes_maps_and_boxes_of_any_number_and_size(self):
        model = self.model()
        for count, size in ((1, (5, 7)), (10, (5, 7)), (4, (9, 3))):
            features = reference.dense_map(*size)
            boxes = np.stack([FRACTIONAL[:count], FRACTIONAL[-count:]])
            found = keras.ops.convert_to_numpy(model([features, boxes]))
            assert_same_sums(found, box_sums(features, boxes), features)

    def test_loads_in_safe_mode_and_gives_the_same_digits(self, tmp_path):
        model, features = self.model(), reference.dense_map(5, 7)
        boxes = np.stack([FRACTIONAL, FRACTIONAL / 3])
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        found, expected = (keras.ops.convert_to_numpy(one([features, boxes])) for one in (loaded, model))
        np.testing.assert_array_equal(found, expected)

    def test_with_boxes_of_its_own_loads_in_safe_mode(self, tmp_path):
        inputs, features = keras.Input((None, None, 8)), reference.dense_map(5, 7)
        model = keras.Model(inputs, RegionalSumPooling()(inputs, boxes=FRACTIONAL))
        assert model.output_shape == (None, len(FRACTIONAL), 8)
        assert_same_sums(run(model, features), box_sums(features, FRACTIONAL), features)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        np.testing.assert_array_equal(run(loaded, features), run(model, features))

    def test_predicts_in_batches(self):
        features = reference.dense_map(5, 7, batch=5)
        boxes = np.stack([FRACTIONAL / number for number in range(1, 6)])
        found = self.model().predict([features, boxes], batch_size=2, verbose=0)
        assert_same_sums(found, box_sums(features, boxes), features)

    @only_on_tensorflow("tf.function is TensorFlow's")
    @pytest.mark.parametrize("shared", [True, False])
    def test_one_trace_serves_every_size(self, shared):
        import tensorflow as tf

        signature = [tf.TensorSpec((None, None, None, 8)), tf.TensorSpec((None, 4) if shared else (None, None, 4))]
        layer = RegionalSumPooling()
        graph = tf.function(lambda features, boxes: layer(features, boxes=boxes), input_signature=signature)
        for number, size in enumerate(reference.SIZES):
            features = reference.sparse_map(*size)
            boxes = FRACTIONAL[number % 5 :]
            boxes = boxes if shared else np.stack([boxes, boxes * 2])
            assert_same_sums(graph(features, boxes).numpy(), box_sums(features, boxes), features)
        assert graph.experimental_get_tracing_count() == 1
