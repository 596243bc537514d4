from typing import Any

import keras


@keras.saving.register_keras_serializable(package="rw_keras")
class DescriptorModel(keras.Model):
    """A functional `keras.Model` that remembers how its descriptors come about.

    `recipe` is a dictionary of plain values, saved with the model: backbone, layer, method, levels, what
    the whitening was learned on. It lets an index refuse a query described in another way. It stands
    beside the layers so that `import rw_keras.layers` registers all that a saved model needs.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        self._recipe = kwargs.pop("recipe", None) or {}
        super().__init__(inputs, outputs, name=name, **kwargs)

    @property
    def recipe(self) -> dict[str, Any]:
        return self._recipe

    def get_config(self):
        # By way of a plain functional model: whether Keras takes a subclass for one differs between its versions.
        plain = keras.Model(self.input, self.output, name=self.name, trainable=self.trainable)
        return {**plain.get_config(), "recipe": dict(self._recipe)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        recipe = config.pop("recipe", None)
        plain = keras.Model.from_config(config, custom_objects)
        return cls(plain.input, plain.output, name=plain.name, trainable=plain.trainable, recipe=recipe)
