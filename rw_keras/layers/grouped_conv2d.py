import keras
from keras import ops


@keras.saving.register_keras_serializable(package="rw_keras")
class GroupedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D(groups=...)` as one ordinary convolution a group, so that it can be exported.

    On TensorFlow Keras compiles a grouped convolution with XLA by itself, and ONNX, OpenVINO, LiteRT and servers without
    XLA cannot run a model that holds such a piece. The weights are those of `Conv2D`: a kernel `(h, w, in / groups, out)`,
    whose first `out / groups` filters see the first `in / groups` channels, and so on. Arguments: those of `Conv2D`;
    channels last.
    """

    def convolution_op(self, inputs, kernel):
        convolve = super().convolution_op
        groups = zip(ops.split(inputs, self.groups, axis=-1), ops.split(kernel, self.groups, axis=-1))
        return ops.concatenate([convolve(channels, filters) for channels, filters in groups], axis=-1)
