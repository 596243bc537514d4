import keras
import pytest

pytest.register_assert_rewrite("layers.habits")


@pytest.fixture
def set_policy():
    """Sets Keras' global dtype policy for the rest of the test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)
