from typing import Any

import keras


@keras.saving.register_keras_serializable(package="rw_keras")
class DescriptorModel(keras.Model):
    """A functional `keras.Model` that remembers how its descriptors come about.

    `recipe` is a dictionary of plain values, saved with the model: backbone, layer, method, levels, what
    the whitening was learned on. It lets an index refuse a query described in another way. A model around
    another descriptor model has that one's recipe, with what it adds. It stands beside the layers so that
    `import rw_keras.layers` registers all that a saved model needs.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        self._recipe = kwargs.pop("recipe", None) or {}
        super().__init__(inputs, outputs, name=name, **kwargs)

    @property
    def inner(self) -> "DescriptorModel | None":
        """The descriptor model that this one is built around, such as the one of a multi-scale model."""
        return next((stage for stage in self.layers if isinstance(stage, DescriptorModel)), None)

    @property
    def recipe(self) -> dict[str, Any]:
        # The inner one's as it is now: a whitening may be learned after.
        return self._recipe if self.inner is None else {**self.inner.recipe, **self._recipe}

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
