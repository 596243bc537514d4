"""An index and the model that made it: photos described into it, and searched for."""

import numpy as np
import pytest

import rw_keras
from rw_keras.retrieval import Index


def collection(count, dimensions, seed=0):
    """Names and rows of unit length, float32."""
    rows = np.random.default_rng(seed).standard_normal((count, dimensions))
    return [f"photo {number}" for number in range(count)], (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")


class TestModel:
    @pytest.fixture
    def index(self, model, photo_folder):
        return Index.from_folder(model, photo_folder, max_side=40, runtime="tensorflow", progress=False)

    def test_from_folder(self, index, model, photo_folder):
        assert index.names == ["a.png", "b.png", "c.jpg", "d.png", "more/a.png", "more/e.png"]
        paths = [photo_folder / name for name in index.names]
        np.testing.assert_array_equal(index.descriptors, rw_keras.describe(model, paths, max_side=40))
        assert index.failures == []
        assert index.recipe["max_side"] == 40

    def test_from_folder_leaves_out_what_cannot_be_read(self, model, photo_folder):
        (photo_folder / "text.jpg").write_text("no photo")
        with pytest.warns(UserWarning, match="1 of 7 photos were left out") as caught:
            index = Index.from_folder(model, photo_folder, runtime="tensorflow", progress=False)
        assert [one.filename for one in caught if one.category is UserWarning] == [__file__]
        assert [name for name, _ in index.failures] == ["text.jpg"]
        assert len(index) == 6

    def test_search_photo_describes_as_the_index_was(self, index, model, photo_folder, tmp_path):
        index.save(tmp_path / "index")
        for opened in (index, Index.load(tmp_path / "index")):
            for box in (None, (10, 5, 60, 40)):
                query = rw_keras.describe(model, photo_folder / "a.png", box, max_side=40)
                found = opened.search_photo(model, photo_folder / "a.png", box, k=4, expand=2)
                assert found == opened.search(query, 4, expand=2)
        (name, cosine), *_ = index.search_photo(model, photo_folder / "d.png")
        assert name == "d.png"
        assert cosine == pytest.approx(1, abs=1e-6)

    def test_an_equal_model_is_taken(self, index, tiny_model, tmp_path):
        index.check_model(tiny_model())
        index.save(tmp_path / "index")
        Index.load(tmp_path / "index").check_model(tiny_model())

    @pytest.mark.parametrize(
        ("field", "arguments"),
        [
            ("weights", {"seed": 1}),
            ("levels", {"levels": 2}),
            ("method", {"method": "sum"}),
            ("layer", {"layer": "photos"}),
            ("whiten", {"whiten": "global"}),
        ],
    )
    def test_another_model_is_refused(self, index, tiny_model, photo_folder, tmp_path, field, arguments):
        other = tiny_model(**arguments)
        index.save(tmp_path / "index")
        for opened in (index, Index.load(tmp_path / "index")):
            with pytest.raises(ValueError, match=f"its {field} is .*, the model's "):
                opened.check_model(other)
            with pytest.raises(ValueError, match=f"its {field} is .*, the model's "):
                opened.search_photo(other, photo_folder / "a.png")

    @pytest.mark.slow
    def test_other_scales_are_refused(self, index, model, photo_folder):
        several = rw_keras.multi_scale(model, (1, 0.5))
        with pytest.raises(ValueError, match=r"another model: its scales is None, the model's \[1\.0, 0\.5\]\. Use"):
            index.check_model(several)
        made = Index.from_folder(several, photo_folder, runtime="tensorflow", progress=False)
        made.check_model(rw_keras.multi_scale(model, (1, 0.5)))
        for other in (model, rw_keras.multi_scale(model, (1, 0.7)), rw_keras.multi_scale(model, (0.5, 1))):
            with pytest.raises(ValueError, match=r"its scales is \[1\.0, 0\.5\], the model's "):
                made.check_model(other)

    @pytest.mark.slow
    def test_another_whitening_is_refused(self, index, tiny_model, photo_folder, tmp_path):
        whitened = tiny_model(shrinkage=0.2)
        rw_keras.fit_whitening(whitened, photo_folder, progress=False)
        with pytest.raises(ValueError, match=r"its whitening name is None, the model's 'photos'\. Use"):
            index.check_model(whitened)
        made = Index.from_folder(whitened, photo_folder, runtime="tensorflow", progress=False)
        made.save(tmp_path / "index")
        for opened in (made, Index.load(tmp_path / "index")):
            opened.check_model(whitened)
            with pytest.raises(ValueError, match=r"its whitening name is 'photos', the model's None\. Use"):
                opened.check_model(tiny_model())

    def test_an_index_that_does_not_say_what_made_it(self, model, photo_folder):
        index = Index(["a"], np.ones((1, 12)))
        with pytest.raises(ValueError, match="does not say what made it"):
            index.search_photo(model, photo_folder / "a.png")
