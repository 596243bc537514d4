"""TF Serving as what computes, by the server of the tests of examples/serve that speaks its protocol."""

import asyncio
import pathlib
import sys

import numpy as np
import pytest

import rw_keras
from rw_keras.retrieval import Index
from rw_keras.service.photo_files import PhotoFiles
from rw_keras.service.tf_serving import TFServing

pytestmark = pytest.mark.slow
# A loaded machine takes as long to trace a graph.
SECONDS = 300


@pytest.fixture(scope="module", name="served")
def served_model():
    """A function (model, folder) -> a context of the address of TF Serving's stand-in for it."""
    import contextlib

    sys.path.append(str(pathlib.Path(__file__).parents[1] / "export"))
    from serving import served

    @contextlib.contextmanager
    def serve(model, folder, **options):
        rw_keras.export_saved_model(model, folder / "tiny" / "1", **options)
        with served(folder / "tiny" / "1", "tiny") as (_, address):
            yield address

    return serve


@pytest.fixture(scope="module")
def address(served, keras_made, tmp_path_factory):
    with served(keras_made[1], tmp_path_factory.mktemp("serving")) as address:
        yield address


class TestDescriber:
    def test_describes_as_the_model_does(self, address, keras_made, keras_index, draw):
        describer = TFServing(address, SECONDS).describer(keras_index)
        photos = [draw(seed, 90, 70) for seed in range(3)]
        for size in (None, 64):
            found = rw_keras.describe(describer, photos, max_side=size)
            np.testing.assert_allclose(found, rw_keras.describe(keras_made[1], photos, max_side=size), atol=2e-6)
        box = (8, 4, 60, 50)
        np.testing.assert_allclose(
            rw_keras.describe(describer, photos[0], box), rw_keras.describe(keras_made[1], photos[0], box, max_side=80), atol=2e-6
        )
        pixels = np.stack(photos)
        np.testing.assert_allclose(describer(pixels), rw_keras.describe(keras_made[1], photos), atol=2e-6)

    def test_regions(self, address, keras_made, keras_index, draw):
        describer = TFServing(address, SECONDS).describer(keras_index)
        found, expected = (
            rw_keras.describe(model, draw(5, 90, 70), max_side=80, regions=True) for model in (describer, keras_made[1])
        )
        np.testing.assert_allclose(found.regions.vectors, expected.regions.vectors, atol=2e-6)
        np.testing.assert_allclose(found.regions.boxes, expected.regions.boxes, atol=1e-6)

    def test_searches(self, address, serve, keras_index, keras_made, draw, encoded):
        photo = draw(40, 90, 70)

        async def run():
            async with serve(keras_made[0], describer=TFServing(address, SECONDS).describer(keras_index)) as client:
                return (await client.post("/v1/search", files={"file": encoded(photo)}, data={"rerank": "5"})).json()

        found = [(hit["name"], hit["score"] or hit["cosine"]) for hit in asyncio.run(run())["hits"]]
        expected = keras_index.search_photo(keras_made[1], photo, k=20, rerank=5)
        assert [name for name, _ in found[:8]] == [name for name, _ in expected[:8]]
        np.testing.assert_allclose([value for _, value in found], [value for _, value in expected], atol=2e-5)

    def test_the_index_may_have_no_regions(self, address, keras_made, shown):
        plain = Index.load(keras_made[0])
        plain.regions = None
        assert TFServing(address, SECONDS).describer(plain).dimensions == 12


class TestCompared:
    def photos(self, shown, tmp_path):
        return PhotoFiles(shown / "photos", tmp_path)

    def test_the_indexs_own_model(self, address, keras_index, shown, tmp_path):
        serving = TFServing(address, SECONDS)
        assert serving.compare(serving.describer(keras_index), keras_index, self.photos(shown, tmp_path)) is None

    def test_another_model(self, served, keras_index, shown, tiny_model, tmp_path):
        with served(tiny_model(seed=77), tmp_path) as address:
            serving = TFServing(address, SECONDS)
            with pytest.raises(ValueError, match="another model than the one that made the index"):
                serving.compare(serving.describer(keras_index), keras_index, self.photos(shown, tmp_path / "cache"))

    def test_one_that_makes_photos_smaller(self, served, keras_index, keras_made, shown, tmp_path):
        """Exported with a `max_side` below the index's, it describes other photos."""
        with served(keras_made[1], tmp_path, max_side=20) as address:
            serving = TFServing(address, SECONDS)
            with pytest.raises(ValueError, match="max_side=80 or more"):
                serving.compare(serving.describer(keras_index), keras_index, self.photos(shown, tmp_path / "cache"))

    def test_without_photos_it_is_told(self, address, keras_index, tmp_path):
        serving = TFServing(address, SECONDS)
        said = serving.compare(serving.describer(keras_index), keras_index, PhotoFiles(None, tmp_path))
        assert "was not checked" in said

    def test_other_dimensions(self, served, keras_index, tiny_model, tmp_path):
        with (
            served(tiny_model(components=8, whitening=None), tmp_path) as address,
            pytest.raises(ValueError, match="gives 8 dimensions, and the index has 12"),
        ):
            TFServing(address, SECONDS).describer(keras_index)


class TestAway:
    @pytest.mark.parametrize(
        "address",
        ["127.0.0.1:8501", "ftp://host/v1/models/a", "http://host", "http://host/v1/models/a?x=1", "", "file:///v1/models/a"],
    )
    def test_no_address(self, address):
        with pytest.raises(ValueError, match="TF Serving's address is"):
            TFServing(address, SECONDS)

    def test_nobody_answers(self, keras_index):
        with pytest.raises(OSError, match="could not be asked"):
            TFServing("http://127.0.0.1:9/v1/models/tiny").describer(keras_index)

    def test_another_name(self, address, keras_index):
        with pytest.raises(OSError, match="answered 404"):
            TFServing(address.replace("tiny", "other")).describer(keras_index)
