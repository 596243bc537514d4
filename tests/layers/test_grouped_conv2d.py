import keras
import numpy as np
import pytest
from layers.habits import run

from rw_keras.layers import GroupedConv2D


def reference(x, kernel, bias, groups, stride):
    """Grouped convolution without padding, in float64: filter by filter, cell by cell."""
    height, width, inside, outside = kernel.shape
    rows, columns = (x.shape[1] - height) // stride + 1, (x.shape[2] - width) // stride + 1
    found = np.zeros((len(x), rows, columns, outside))
    for k in range(outside):
        first = k // (outside // groups) * inside
        for i in range(rows):
            for j in range(columns):
                cell = x[:, i * stride : i * stride + height, j * stride : j * stride + width, first : first + inside]
                found[:, i, j, k] = (cell * kernel[..., k]).sum(axis=(1, 2, 3)) + bias[k]
    return found


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_formula(groups, stride):
    rng = np.random.default_rng(groups)
    x = rng.standard_normal((2, 6, 7, 6)).astype("float32")
    layer = GroupedConv2D(12, (3, 2), strides=stride, groups=groups)
    layer.build(x.shape)
    kernel = rng.standard_normal((3, 2, 6 // groups, 12)).astype("float32")
    bias = rng.standard_normal(12).astype("float32")
    layer.set_weights([kernel, bias])
    expected = reference(x.astype("float64"), kernel.astype("float64"), bias, groups, stride)
    np.testing.assert_allclose(run(layer, x), expected, atol=1e-5)


def test_is_keras_own_with_other_words(tmp_path):
    photos = keras.Input((None, None, 6))
    own = keras.Model(photos, GroupedConv2D(8, 5, padding="same", groups=2, activation="relu", name="conv")(photos))
    theirs = keras.Model(photos, keras.layers.Conv2D(8, 5, padding="same", groups=2, activation="relu", name="conv")(photos))
    theirs.set_weights(own.get_weights())
    x = np.random.default_rng(0).standard_normal((1, 9, 11, 6)).astype("float32")
    np.testing.assert_allclose(run(own, x), run(theirs, x), atol=1e-5)
    own.save(tmp_path / "own.keras")
    np.testing.assert_array_equal(run(keras.saving.load_model(tmp_path / "own.keras"), x), run(own, x))
