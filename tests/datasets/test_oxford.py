import re

import pytest

from rw_keras.datasets import oxford
from rw_keras.datasets.oxford import Query, photos_by_name, read_ground_truth
from rw_keras.photos.reading import ImageError


@pytest.fixture
def folder(tmp_path):
    """The ground truth of two queries: one as Oxford5k writes it, one as Paris6k does."""
    files = {
        "all_souls_1_query": "oxc1_all_souls_000013 136.5 34.1 648.5 955.7",
        "all_souls_1_good": "all_souls_000013\nall_souls_000026\n",
        "all_souls_1_ok": "all_souls_000051\r\noxford_002904\r\n",
        "all_souls_1_junk": "all_souls_000103",
        "defense_1_query": "paris_defense_000605.jpg 0 1 2 3\n",
        "defense_1_good": "paris_defense_000605\n",
        "defense_1_ok": "",
        "defense_1_junk": "\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.txt").write_text(text, newline="")
    (tmp_path / "README.md").write_text("not a list")
    return tmp_path


class TestGroundTruth:
    def test_is_read(self, folder):
        queries = read_ground_truth(str(folder))
        assert list(queries) == ["all_souls_1", "defense_1"]
        assert queries["all_souls_1"] == Query(
            photo="all_souls_000013",
            box=(136.5, 34.1, 648.5, 955.7),
            good=frozenset({"all_souls_000013", "all_souls_000026"}),
            ok=frozenset({"all_souls_000051", "oxford_002904"}),
            junk=frozenset({"all_souls_000103"}),
        )
        assert queries["all_souls_1"].positives == {"all_souls_000013", "all_souls_000026", "all_souls_000051", "oxford_002904"}
        defense = queries["defense_1"]
        assert (defense.photo, defense.box) == ("paris_defense_000605", (0, 1, 2, 3))
        assert (defense.positives, defense.junk) == ({"paris_defense_000605"}, frozenset())

    def test_no_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "gt"))):
            read_ground_truth(tmp_path / "gt")

    def test_no_query(self, tmp_path):
        with pytest.raises(ValueError, match=r"no \*_query\.txt in " + re.escape(str(tmp_path))):
            read_ground_truth(tmp_path)

    @pytest.mark.parametrize("kind", ["good", "ok", "junk"])
    def test_a_missing_list_is_named(self, folder, kind):
        (folder / f"defense_1_{kind}.txt").unlink()
        with pytest.raises(FileNotFoundError, match=f"defense_1_{kind}\\.txt; the ground truth of the query defense_1"):
            read_ground_truth(folder)

    @pytest.mark.parametrize("text", ["", "photo", "photo 1 2 3", "photo 1 2 3 4 5", "photo 1 two 3 4", "1 2 3 4"])
    def test_a_query_that_cannot_be_read_is_named(self, folder, text):
        (folder / "defense_1_query.txt").write_text(text)
        with pytest.raises(ValueError, match=r"defense_1_query\.txt is not a photo's name and its box x1 y1 x2 y2"):
            read_ground_truth(folder)


class TestPhotosByName:
    def test_with_those_below(self, tmp_path):
        for name in ("b.jpg", "paris/a.JPG", "paris/deep/c.d.png", "notes.txt"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        paths = {"b": "b.jpg", "a": "paris/a.JPG", "c.d": "paris/deep/c.d.png"}
        assert photos_by_name(tmp_path) == {name: tmp_path / path for name, path in paths.items()}

    def test_refuses_two_of_one_name(self, tmp_path):
        (tmp_path / "x").mkdir()
        for name in ("a.jpg", "x/a.png"):
            (tmp_path / name).touch()
        with pytest.raises(ValueError, match=r"a\.jpg and .*a\.png have the same name"):
            photos_by_name(tmp_path)

    def test_no_photos(self, tmp_path):
        with pytest.raises(ImageError, match="no photo in"):
            photos_by_name(tmp_path)


def test_20_photos_of_paris6k_are_known_to_be_damaged():
    assert len(oxford.PARIS6K_CORRUPT) == 20
    assert all(re.fullmatch(r"paris_[a-z]+_\d{6}", name) for name in oxford.PARIS6K_CORRUPT)


@pytest.mark.photos
def test_the_part_of_oxford5k(data_folder):
    queries = read_ground_truth(data_folder / "oxford5k_part" / "gt")
    photos = photos_by_name(data_folder / "oxford5k_part" / "jpg")
    landmarks = ("all_souls", "balliol", "bodleian", "christ_church", "cornmarket", "keble")
    assert sorted(queries) == sorted(f"{landmark}_{number}" for landmark in landmarks for number in range(1, 6))
    for query in queries.values():
        assert query.photo in query.positives
        assert query.positives | query.junk <= set(photos)
        assert not query.positives & query.junk
