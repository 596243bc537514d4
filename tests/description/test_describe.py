import pathlib
import re

import numpy as np
import pytest

import rw_keras
from rw_keras.description.describe import describe, describe_each
from rw_keras.description.folder import describe_folder
from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.photos.reading import ImageError, read_image
from rw_keras.photos.sources import list_photos


def spoil(folder):
    """Adds two photos that cannot be read."""
    (folder / "b_text.jpg").write_text("no photo")
    (folder / "more" / "empty.png").touch()


class TestDescribe:
    def test_a_path(self, model, photo_folder):
        vector = describe(model, photo_folder / "a.png")
        assert vector.shape == (12,)
        assert vector.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-6)
        np.testing.assert_array_equal(describe(model, str(photo_folder / "a.png")), vector)

    def test_is_the_model_on_the_photo_as_read(self, model, photo_folder):
        for box, max_side in ((None, 1024), (None, 40), ((3, 2, 60, 44), 50)):
            pixels = read_image(photo_folder / "a.png", box, max_side)
            expected = model(pixels[None].astype("float32"), training=False).numpy()[0]
            np.testing.assert_allclose(describe(model, photo_folder / "a.png", box, max_side), expected, atol=1e-6)

    def test_an_array(self, model, photo_folder):
        pixels = read_image(photo_folder / "a.png")
        np.testing.assert_array_equal(describe(model, pixels), describe(model, photo_folder / "a.png"))
        np.testing.assert_array_equal(describe(model, pixels.astype("float64")), describe(model, pixels))

    def test_a_grey_array_is_one_photo(self, model, draw):
        assert describe(model, draw(1)[..., 0]).shape == (12,)

    def test_a_list_keeps_its_order(self, model, photo_folder):
        paths = list_photos(photo_folder)
        mixed = [*paths, *reversed(paths), read_image(paths[1]), paths[2]]
        together = describe(model, mixed)
        assert together.shape == (2 * len(paths) + 2, 12)
        assert together.dtype == np.float32
        np.testing.assert_array_equal(together, np.stack([describe(model, one) for one in mixed]))
        assert len(np.unique(together, axis=0)) == len(paths)

    def test_a_list_of_one(self, model, draw):
        assert describe(model, [draw(1)]).shape == (1, 12)

    def test_an_array_of_photos(self, model, draw):
        photos = np.stack([draw(seed) for seed in range(3)])
        np.testing.assert_array_equal(describe(model, photos), describe(model, list(photos)))

    def test_a_generator(self, model, photo_folder):
        paths = list_photos(photo_folder)
        np.testing.assert_array_equal(describe(model, (path for path in paths)), describe(model, paths))

    def test_no_photos(self, model):
        nothing = describe(model, [])
        assert nothing.shape == (0, 12)
        assert nothing.dtype == np.float32

    def test_max_side_and_box_change_the_descriptor(self, model, photo_folder):
        described = [
            describe(model, photo_folder / "a.png"),
            describe(model, photo_folder / "a.png", max_side=32),
            describe(model, photo_folder / "a.png", box=(0, 0, 32, 32)),
        ]
        assert len(np.unique(described, axis=0)) == 3

    def test_boxes(self, model, draw):
        photos, boxes = [draw(1), draw(2), draw(3)], [(0, 0, 30, 30), None, (10, 12, 64, 48)]
        expected = np.stack([describe(model, photo, box) for photo, box in zip(photos, boxes)])
        np.testing.assert_array_equal(describe(model, photos, boxes), expected)
        np.testing.assert_array_equal(describe(model, np.stack(photos), boxes), expected)

    @pytest.mark.parametrize("boxes", [[None], [(0, 0, 30, 30)] * 3, (0, 0, 30, 30), (0, 30), []])
    def test_refuses_another_number_of_boxes(self, model, draw, boxes):
        with pytest.raises(ImageError, match=f"2 images.*2 boxes.*{re.escape(repr(boxes))}"):
            describe(model, [draw(1), draw(2)], boxes)

    def test_one_box_is_not_a_list_of_four(self, model, draw):
        with pytest.raises(ImageError, match="4 images"):
            describe(model, [draw(1)] * 4, (0, 0, 30, 30))

    def test_errors_name_the_photo(self, model, photo_folder, tmp_path):
        spoil(photo_folder)
        with pytest.raises(ImageError, match=r"b_text\.jpg"):
            describe(model, [photo_folder / "a.png", photo_folder / "b_text.jpg"])
        with pytest.raises(FileNotFoundError, match=r"none\.png"):
            describe(model, tmp_path / "none.png")
        with pytest.raises(ImageError, match=r"\(0, 0, 99, 30\).*a\.png"):
            describe(model, [photo_folder / "a.png"], [(0, 0, 99, 30)])

    def test_refuses_photos_that_leave_no_map(self, model, draw):
        with pytest.raises(ImageError, match=r"7 x 40 pixels.*8 or more"):
            describe(model, draw(1, 7, 40))
        with pytest.raises(ImageError, match="10 x 5 pixels at max_side=10"):
            describe(model, draw(1, 80, 40), max_side=10)

    def test_black_has_no_features(self, model):
        assert not describe(model, np.zeros((40, 50, 3), "uint8")).any()


class TestRegions:
    def test_of_one_photo(self, model, draw):
        plain, found = describe(model, draw(1)), describe(model, draw(1), regions=True)
        np.testing.assert_array_equal(found, plain)
        assert plain.regions is None
        _, vectors, boxes = model.with_regions()(draw(1)[None])
        assert isinstance(found.regions, PhotoRegions)
        np.testing.assert_allclose(found.regions.vectors, vectors[0], atol=1e-6)
        np.testing.assert_array_equal(found.regions.boxes, boxes[0])
        total = found.regions.vectors.astype("float64").sum(axis=0)
        np.testing.assert_allclose(total / np.linalg.norm(total), found, atol=1e-6)

    def test_of_several_of_other_shapes_and_boxes(self, model, draw):
        photos, boxes = [draw(1), draw(2, 96, 32), np.zeros((40, 50, 3), "uint8")], [(3, 2, 60, 38), None, None]
        found = describe(model, photos, boxes, max_side=50, regions=True)
        assert [type(own) for own in found.regions] == [PhotoRegions] * 3
        assert len({len(own.vectors) for own in found.regions}) > 1
        for own, photo, box in zip(found, photos, boxes):
            one = describe(model, photo, box, max_side=50, regions=True)
            for kept, expected in zip(own.regions, one.regions):
                np.testing.assert_array_equal(kept, expected)
                assert kept.dtype == np.float32
            assert own.regions.vectors.shape == (len(own.regions.boxes), 12)
        assert not found.regions[2].vectors.any()

    def test_of_none(self, model):
        assert describe(model, [], regions=True).regions == []

    @pytest.mark.slow
    def test_of_several_scales(self, model, draw):
        several = rw_keras.multi_scale(model, (1, 0.5))
        found = describe(several, draw(1, 96, 64), regions=True).regions
        halves = [describe(model, draw(1, 96, 64), max_side=side, regions=True).regions for side in (96, 48)]
        assert len(found.vectors) == sum(len(half.vectors) for half in halves)
        np.testing.assert_array_equal(found.boxes, np.concatenate([half.boxes for half in halves]))

    def test_models_without_them_are_refused(self, tiny_model, draw):
        import keras

        with pytest.raises(ValueError, match='whiten_on="global"'):
            describe(tiny_model(whitening="auto", whiten_on="global"), draw(1), regions=True)
        photos = keras.Input((None, None, 3))
        own = keras.Model(photos, keras.layers.GlobalMaxPooling2D()(photos), name="own")
        with pytest.raises(ValueError, match="'own' has no RegionSum layer"):
            describe(own, draw(1), regions=True)


class TestDescribeEach:
    def test_goes_on_after_errors(self, model, photo_folder):
        spoil(photo_folder)
        paths = [*list_photos(photo_folder), photo_folder / "none.png"]
        results = list(describe_each(model, paths))
        assert [path for path, _, _ in results] == paths
        errors = {path.name: type(error) for path, _, error in results if error is not None}
        assert errors == {"b_text.jpg": ImageError, "empty.png": ImageError, "none.png": FileNotFoundError}
        for path, output, error in results:
            if error is None:
                np.testing.assert_array_equal(output, describe(model, path)[None])
            else:
                assert output is None

    def test_takes_an_iterator_and_yields_as_it_goes(self, model, draw, computed):
        endless = (draw(seed) for seed in iter(int, 1))
        each = describe_each(model, endless)
        next(each)
        next(each)
        assert len(computed) == 2
        each.close()

    def test_errors_of_the_caller_are_raised(self, model, draw):
        with pytest.raises(ValueError, match=r"max_side.*'big'"):
            list(describe_each(model, [draw(1)], max_side="big"))


class TestDescribeFolder:
    def test_names_vectors_and_recipe(self, model, photo_folder):
        found = describe_folder(model, photo_folder, max_side=48, runtime="tensorflow", progress=False)
        names, recipe = found.names, found.recipe
        assert names == ["a.png", "b.png", "c.jpg", "d.png", "more/a.png", "more/e.png"]
        np.testing.assert_array_equal(found.descriptors, describe(model, [photo_folder / name for name in names], max_side=48))
        assert (recipe["backbone"].partition(" ")[0], recipe["method"], recipe["levels"], recipe["max_side"]) == (
            "tiny",
            "rw",
            3,
            48,
        )
        assert (found.failures, found.regions, found.search) == ([], None, {})
        assert found.described_with["runtime"] == "tensorflow"
        assert found.stamps == [[path.stat().st_size, path.stat().st_mtime_ns] for path in (photo_folder / name for name in names)]

    def test_failures_are_warned_of_and_listed(self, model, photo_folder):
        spoil(photo_folder)
        with pytest.warns(UserWarning, match=r"2 of 8 photos were left out:\n.*b_text\.jpg.*\n.*more/empty\.png.*0 bytes"):
            found = describe_folder(model, photo_folder, runtime="tensorflow", progress=False)
        assert [name for name, _ in found.failures] == ["b_text.jpg", "more/empty.png"]
        assert len(found.names) == len(found.descriptors) == 6
        assert "b_text.jpg" not in found.names

    def test_nothing_readable(self, model, tmp_path):
        (tmp_path / "a.jpg").write_text("no photo")
        (tmp_path / "b.jpg").touch()
        with pytest.raises(ImageError, match=r"None of the 2 photos in .*\n.*a\.jpg.*\n.*b\.jpg"):
            describe_folder(model, tmp_path, runtime="tensorflow", progress=False)

    def test_no_folder(self, model, tmp_path):
        with pytest.raises(FileNotFoundError, match="none"):
            describe_folder(model, tmp_path / "none")

    def test_progress_goes_to_standard_error(self, model, photo_folder, capsys):
        describe_folder(model, pathlib.Path(photo_folder), runtime="tensorflow")
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "describing photos" in captured.err
        describe_folder(model, photo_folder, runtime="tensorflow", progress=False)
        assert capsys.readouterr().err == ""
