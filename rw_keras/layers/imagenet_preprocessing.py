from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import DescriptorLayer

# Mean of the ImageNet training photos in B, G, R, as the Caffe networks subtract it.
CAFFE_MEANS = (103.939, 116.779, 123.68)


@keras.saving.register_keras_serializable(package="rw_keras")
class ImageNetPreprocessing(DescriptorLayer):
    """Turns RGB pixels 0..255 into what a Caffe-trained ImageNet network takes: B, G, R minus means.

    It is a layer so that a model takes plain pixels, and nobody can get the order or the means wrong.

    Input: `(B, H, W, 3)`, R, G, B, 0..255, any dtype. Output: the same shape, float32 (also under a
    mixed-precision policy: 8 bits of mantissa would round the pixels).

    Args:
        means: three numbers subtracted from B, G, R. Default: those VGG16 was trained with.
    """

    input_rank = 4
    input_form = "photos (batch, height, width, 3)"

    def __init__(self, means: Sequence[float] = CAFFE_MEANS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.means = tuple(float(mean) for mean in means)

    def build(self, input_shape):
        super().build(input_shape)
        if input_shape[-1] != len(self.means):
            raise ValueError(
                f"ImageNetPreprocessing {self.name!r} takes {self.input_form}, but its input has the "
                f"shape {tuple(input_shape)}; give it RGB photos, channels last."
            )

    def call(self, inputs):
        pixels = self.to_result_dtype(inputs)
        return ops.flip(pixels, axis=-1) - ops.convert_to_tensor(self.means, dtype=self.result_dtype)

    def get_config(self):
        return {**super().get_config(), "means": list(self.means)}
