import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import reference
from layers.habits import only_on_tensorflow

from rw_keras.regions import MOST_LEVELS, count_regions, region_axes, region_windows, window_masks

# Maps so long that the R-MAC grid's customary floating-point floors slip by one on some.
LONG = [(1, 1000), (1000, 1), (3, 10007), (10007, 3), (49, 4099), (7, 99999), (1, 5_000_000), (123, 1_000_003)]

sides = st.integers(1, 3000)
scales = st.integers(1, 8)


class TestRegionWindows:
    @pytest.mark.parametrize("levels", [0, MOST_LEVELS + 1, 99999999, 2.0, True, "3", None])
    def test_levels_out_of_range(self, levels):
        for grid in (region_windows, region_axes, count_regions):
            with pytest.raises(ValueError, match=f"takes a whole number from 1 to 16 as `levels`, but got {levels!r}"):
                grid(24, 32, levels)

    def test_the_most_levels_there_can_be(self):
        assert len(region_windows(64, 64, MOST_LEVELS)) == 1 + sum(level**2 for level in range(1, MOST_LEVELS + 1))

    @pytest.mark.parametrize("levels", [3, *(pytest.param(levels, marks=pytest.mark.slow) for levels in (1, 2, 4, 7))])
    def test_every_size_up_to_40_is_as_the_reference(self, levels):
        for height, width in itertools.product(range(1, 41), repeat=2):
            found = region_windows(height, width, levels)
            assert [tuple(window) for window in found.tolist()] == reference.windows(height, width, levels), (height, width)

    @pytest.mark.parametrize(("height", "width"), LONG)
    def test_very_long_map_is_as_the_reference(self, height, width):
        for levels in (1, 3, 6):
            found = region_windows(height, width, levels)
            assert [tuple(window) for window in found.tolist()] == reference.windows(height, width, levels)

    @pytest.mark.parametrize(
        ("height", "width", "windows"),
        [(14, 14, 1 + 4 + 9), (24, 32, 2 + 6 + 12), (32, 24, 20), (48, 64, 20), (64, 48, 20), (1, 1, 14)],
    )
    def test_published_number_of_windows_at_three_scales(self, height, width, windows):
        assert len(region_windows(height, width, 3, include_whole_map=False)) == windows
        assert len(region_windows(height, width, 3)) == windows + 1

    @pytest.mark.parametrize(
        ("height", "width", "longer"),
        [
            (5, 9, 1),  # the overlap is as far from 0.4 with one more window as with two: the fewer are taken
            (25, 61, 2),
            (35, 107, 3),
            (5, 10, 2),  # past the first tie
            (10, 11, 1),  # hardly longer than wide still has one more window
            (10, 10, 0),
            (1, 50, 6),  # never more than six
        ],
    )
    def test_number_of_extra_windows(self, height, width, longer):
        assert len(region_windows(height, width, 1, include_whole_map=False)) == 1 + longer
        assert len(region_windows(width, height, 1, include_whole_map=False)) == 1 + longer

    def test_one_square_map_written_out(self):
        # Sides 2*4//2 = 4, 2*4//3 = 2, 2*4//4 = 2.
        tops_and_lefts = [(0, 0), (0, 2), (2, 0), (2, 2)], [(top, left) for top in (0, 1, 2) for left in (0, 1, 2)]
        expected = [(0, 0, 4, 4), (0, 0, 4, 4)]
        expected += [(top, left, top + 2, left + 2) for scale in tops_and_lefts for top, left in scale]
        assert region_windows(4, 4).tolist() == [list(window) for window in expected]

    def test_whole_map_comes_first_and_can_be_left_out(self):
        whole, *others = region_windows(24, 32).tolist()
        assert whole == [0, 0, 24, 32]
        assert region_windows(24, 32, include_whole_map=False).tolist() == others

    def test_each_scale_runs_row_by_row_and_follows_the_larger_one(self):
        found = region_windows(17, 29, 4, include_whole_map=False)
        order = [(-(bottom - top), top, left) for top, left, bottom, _ in found.tolist()]
        assert order == sorted(order)
        assert len({side for side, _, _ in order}) == 4

    def test_whole_numbers_of_any_kind_give_a_numpy_array_of_int32(self):
        for kind in (int, np.int64, np.int32):
            found = region_windows(kind(24), kind(32))
            assert isinstance(found, np.ndarray)
            assert found.dtype == "int32"
            np.testing.assert_array_equal(found, reference.windows(24, 32))

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 4), (14, 14), (24, 32), (90, 17), (5, 9)])
    def test_sides_as_tensors_give_the_same_windows(self, height, width):
        tensors = (keras.ops.convert_to_tensor(side, dtype="int32") for side in (height, width))
        found = keras.ops.convert_to_numpy(region_windows(*tensors))
        np.testing.assert_array_equal(found, reference.windows(height, width))

    @pytest.mark.slow
    @only_on_tensorflow("sides that are known only at run time are TensorFlow's")
    def test_sides_known_only_at_run_time_give_the_same_windows_at_every_size_up_to_40(self):
        import tensorflow as tf

        scalar = tf.TensorSpec((), tf.int32)
        graph = tf.function(lambda height, width: region_windows(height, width), input_signature=[scalar, scalar])
        for height, width in [*itertools.product(range(1, 41), repeat=2), *LONG]:
            found = graph(height, width).numpy()
            assert [tuple(window) for window in found.tolist()] == reference.windows(height, width), (height, width)
        assert graph.experimental_get_tracing_count() == 1

    @settings(max_examples=50)
    @given(sides, sides, scales)
    def test_no_window_is_empty_or_leaves_the_map(self, height, width, levels):
        top, left, bottom, right = region_windows(height, width, levels).T
        assert (top >= 0).all() and (left >= 0).all()
        assert (bottom <= height).all() and (right <= width).all()
        assert (bottom > top).all() and (right > left).all()

    @settings(max_examples=50)
    @given(sides, sides, scales)
    def test_windows_of_all_scales_but_the_whole_map_are_square(self, height, width, levels):
        top, left, bottom, right = region_windows(height, width, levels, include_whole_map=False).T
        np.testing.assert_array_equal(bottom - top, right - left)

    @settings(max_examples=50)
    @given(sides, sides, scales)
    def test_windows_of_each_scale_reach_from_edge_to_edge(self, height, width, levels):
        windows = region_windows(height, width, levels, include_whole_map=False)
        for side in np.unique(windows[:, 2] - windows[:, 0]):
            top, left, bottom, right = windows[windows[:, 2] - windows[:, 0] == side].T
            assert (top.min(), left.min(), bottom.max(), right.max()) == (0, 0, height, width)

    @settings(max_examples=50)
    @given(sides, sides, scales)
    def test_a_turned_map_has_the_turned_windows(self, height, width, levels):
        turned = region_windows(width, height, levels)[:, [1, 0, 3, 2]]
        assert sorted(turned.tolist()) == sorted(region_windows(height, width, levels).tolist())

    @settings(max_examples=50)
    @given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 9))
    def test_extra_windows_depend_on_the_ratio_of_the_sides_alone(self, height, width, factor):
        assert count_regions(height, width) == count_regions(height * factor, width * factor)


class TestCountRegions:
    def test_is_the_number_of_windows(self):
        for height, width, levels, whole in itertools.product((1, 9, 24), (1, 14, 90), (1, 3, 5), (True, False)):
            assert count_regions(height, width, levels, whole) == len(reference.windows(height, width, levels, whole))

    def test_is_unknown_where_a_side_is(self):
        assert count_regions(None, 32) is None
        assert count_regions(24, None) is None


class TestWindowMasks:
    def test_marks_the_cells_of_each_window(self):
        found = window_masks(np.array([0, 1, 3]), np.array([2, 2, 5]), 5)
        assert found.astype(int).tolist() == [[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 1]]
