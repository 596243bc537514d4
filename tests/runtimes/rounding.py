"""How far apart two computations of a descriptor in float32 may lie, by their arithmetic and not by one machine's."""

import keras
import numpy as np

from rw_keras.runtimes import numpy_head

_UNIT = 2.0**-24  # of float32: a result is off by half a last place at most


def tolerance(model, height, width):
    """By value, of descriptors of unit length, for a photo of `height` x `width`.

    A sum of n products, in whatever order, is off by at most n units of the sum of their magnitudes, by about the root of n where
    errors fall at random; and where signs do, the sum is smaller than its magnitudes by a root of n. So a stage adds n units, and a
    descriptor has those of all its stages: each convolution's, the map's cells and channels, the whitening's. Two descriptors have
    twice as many.
    """
    network, _ = numpy_head.split(model)
    _, rows, columns, channels = network.compute_output_shape((1, height, width, 3))
    lengths = [rows * columns, channels, model.output_shape[-1]]
    for layer in network.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            lengths.append(np.prod(layer.kernel.shape[:2]))
        elif isinstance(layer, keras.layers.Conv2D):
            lengths.append(np.prod(layer.kernel.shape[:3]))
    return 2 * _UNIT * sum(lengths)


def assert_same(found, expected, model, height, width):
    """That descriptors of a photo of `height` x `width` differ by no more than `tolerance`."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance(model, height, width))
