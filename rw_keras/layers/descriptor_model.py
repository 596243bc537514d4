from typing import Any

import keras

from rw_keras.layers.photo_model import PhotoModel, check_min_side


@keras.saving.register_keras_serializable(package="rw_keras")
class DescriptorModel(PhotoModel):
    """A functional `keras.Model` that remembers how its descriptors come about.

    `recipe` is a dictionary of plain values, saved with the model: backbone, layer, method, levels, what
    the whitening was learned on. It lets an index refuse a query described in another way. A model around
    another descriptor model has that one's recipe, with what it adds. It stands beside the layers so that
    `import rw_keras.layers` registers all that a saved model needs.
    """

    OWN_ARGUMENTS = ("recipe",)

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        self._recipe = kwargs.pop("recipe", None) or {}
        if not isinstance(self._recipe, dict):
            raise ValueError(f"A model's `recipe` is a dictionary, but got {self._recipe!r}.")
        check_min_side(self._recipe.get("min_side", 1))
        super().__init__(inputs, outputs, name=name, **kwargs)

    @property
    def inner(self) -> "DescriptorModel | None":
        """The descriptor model that this one is built around, such as the one of a multi-scale model."""
        return next((stage for stage in self.layers if isinstance(stage, DescriptorModel)), None)

    @property
    def recipe(self) -> dict[str, Any]:
        # The inner one's as it is now: a whitening may be learned after.
        return self._recipe if self.inner is None else {**self.inner.recipe, **self._recipe}

    @property
    def min_side(self) -> int:
        return self.recipe.get("min_side", 1)

    def get_config(self):
        config = super().get_config()
        del config["min_side"]  # it is the recipe's
        return {**config, "recipe": dict(self._recipe)}
