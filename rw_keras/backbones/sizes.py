"""How small a photo a network takes."""

import keras

from rw_keras.layers import PhotoModel


def photo_model(photos: keras.KerasTensor, features: keras.KerasTensor, name: str) -> PhotoModel:
    """The network between two symbolic tensors, which refuses photos that it would shrink to nothing."""
    return PhotoModel(photos, features, name=name, min_side=smallest_side(keras.Model(photos, features)))


def smallest_side(network: keras.Model, largest: int = 1024) -> int:
    """The fewest pixels a side that leave the network a map of at least one cell.

    Args:
        network: photos `(B, None, None, 3)` in, one map out.
        largest: how far to look, a power of 2; it is returned where no smaller side will do.
    """

    def fits(side):
        try:
            shape = network.compute_output_shape((1, side, side, 3))
        except ValueError:  # Keras refuses a size that a layer would shrink to nothing
            return False
        return min(shape[1:3]) >= 1

    low, high = 0, 1
    while not fits(high) and high < largest:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
