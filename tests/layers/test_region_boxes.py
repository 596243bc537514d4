import keras
import numpy as np
import pytest
from layers.habits import LayerHabits, RefusesShapes, run

from rw_keras.layers import RegionBoxes
from rw_keras.regions import region_windows


def boxes_of(layer, count, height, width):
    """The layer's boxes of the first of two photos, after a check that both have the same."""
    ones = keras.ops.ones
    found = keras.ops.convert_to_numpy(layer(ones((2, count, 5)), features=ones((2, height, width, 3))))
    assert found.shape == (2, count, 4)
    np.testing.assert_array_equal(found[0], found[1])
    return found[0]


class TestRegionBoxes(LayerHabits, RefusesShapes):
    layer = RegionBoxes
    arguments = {"levels": 2, "include_whole_map": False}  # noqa: RUF012
    sample = np.ones((2, 1, 3), "float32")
    shapes = {(None, None, 8): (None, None, 4), (None, 21, 8): (None, 21, 4), (2, 21, 8): (2, 21, 4)}  # noqa: RUF012
    wrong_shapes = ((2, 8), (8,), (1, 2, 3, 8))

    @pytest.mark.parametrize("include_whole_map", [True, False])
    @pytest.mark.parametrize(("height", "width"), [(24, 32), (7, 3), (1, 1), (5, 5)])
    def test_value(self, height, width, include_whole_map):
        windows = region_windows(height, width, 3, include_whole_map).astype("float64")
        expected = windows[:, [1, 0, 3, 2]] / [width, height, width, height]
        found = boxes_of(RegionBoxes(3, include_whole_map), len(windows), height, width)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        if include_whole_map:
            assert found[0].tolist() == [0, 0, 1, 1]

    @pytest.mark.parametrize("count", [1, 20, 22])
    def test_another_number_of_regions_than_the_grids_is_not_known_where(self, count):
        assert not boxes_of(RegionBoxes(3), count, 24, 32).any()

    def test_without_a_map_one_region_is_the_whole_photo(self):
        assert run(RegionBoxes(), np.ones((2, 1, 5), "float32")).tolist() == [[[0, 0, 1, 1]]] * 2
        assert not run(RegionBoxes(), np.ones((2, 3, 5), "float32")).any()

    def test_levels_are_checked(self):
        with pytest.raises(ValueError, match="RegionBoxes takes a whole number from 1 to 16 as `levels`, but got 0"):
            RegionBoxes(levels=0)
