"""What the tests of indices share."""

import pytest


@pytest.fixture
def folder(tmp_path):
    """Where an index may come to lie."""
    return tmp_path / "index"
