import re
import shutil

import fakes
import pytest

from rw_keras.datasets import read_folder
from rw_keras.datasets.oxford import PARIS6K_CORRUPT, read_ground_truth


@pytest.fixture
def oxford(tmp_path):
    fakes.write_oxford(tmp_path, fakes.oxford(), packed=False)
    return tmp_path / "oxford5k"


@pytest.fixture
def paris(tmp_path):
    fakes.write_paris(tmp_path, fakes.paris(), packed=False)
    return tmp_path / "paris6k"


def test_a_part_says_how_much_of_the_set_it_has(oxford):
    part = read_folder(str(oxford))
    assert sorted(part.photos) == sorted(fakes.oxford().names)
    assert part.photos["keble_000001"] == oxford / "jpg" / "keble_000001.jpg"
    assert part.queries == read_ground_truth(oxford / "gt")
    assert part.query_photos["landmark_1"] == oxford / "jpg" / "all_souls_000004.jpg"
    assert (part.full_count, part.full_queries, part.incomplete, part.dropped) == (5063, 55, (), 0)
    assert str(part) == "oxford5k: 20 of 5063 photos, 4 of 55 queries"


def test_a_whole_set(tmp_path):
    fake = fakes.oxford(5063, 55)
    fakes.write_files(tmp_path / "gt", fake.texts)
    fakes.write_files(tmp_path / "jpg", {f"{name}.jpg": b"" for name in fake.names})
    assert str(read_folder(tmp_path)) == "oxford5k: 5063 photos, 55 queries"


class TestAbsentPositives:
    @pytest.fixture(autouse=True)
    def part(self, oxford):
        for name in ("keble_000005", "all_souls_000008", "keble_000015"):  # a good one, a query's own photo, junk
            (oxford / "jpg" / f"{name}.jpg").unlink()

    def test_queries_are_kept_and_named(self, oxford):
        part = read_folder(oxford)
        assert part.queries == read_ground_truth(oxford / "gt")
        assert "landmark_2" not in part.query_photos
        assert (part.incomplete, part.dropped) == (("landmark_1", "landmark_2"), 0)
        assert str(part) == "oxford5k: 17 of 5063 photos, 4 of 55 queries, 2 of them without all their photos"

    def test_queries_are_dropped_when_asked_to(self, oxford):
        part = read_folder(oxford, drop_incomplete=True)
        assert list(part.queries) == list(part.query_photos) == ["landmark_0", "landmark_3"]
        assert (part.incomplete, part.dropped) == (("landmark_1", "landmark_2"), 2)
        assert str(part) == "oxford5k: 17 of 5063 photos, 2 of 55 queries, 2 more dropped for photos that are not there"

    def test_none_is_left(self, oxford):
        for path in list((oxford / "jpg").glob("all_souls_*")):
            path.unlink()
        with pytest.raises(ValueError, match=r"No query of .*gt has all its photos in .*jpg; pass drop_incomplete=False"):
            read_folder(oxford, drop_incomplete=True)


@pytest.mark.parametrize("home", ["paris", "jpg"])
def test_paris6k_without_what_is_corrupt(paris, home):
    if home != "paris":
        (paris / "paris").rename(paris / home)
    part = read_folder(paris, "paris6k")
    assert str(part) == "paris6k: 20 of 6392 photos, 4 of 55 queries"
    assert not PARIS6K_CORRUPT & set(part.photos)
    # One of them is among the positives as published: that is no reason to call a query incomplete.
    assert min(PARIS6K_CORRUPT) in read_ground_truth(paris / "gt")["landmark_0"].good
    assert min(PARIS6K_CORRUPT) not in part.queries["landmark_0"].good


@pytest.mark.parametrize("ending", ["pkl", "mat"])
def test_a_revisited_set(oxford, ending):
    shutil.rmtree(oxford / "gt")
    write = fakes.write_pickle if ending == "pkl" else fakes.write_mat
    write(oxford / f"gnd_roxford5k.{ending}", fakes.revisited(fakes.oxford().names, 4))
    part = read_folder(oxford, "roxford5k")
    assert str(part) == "roxford5k: 16 of 4993 photos, 4 of 70 queries"
    assert not set(part.photos) & set(part.queries)
    assert part.query_photos["all_souls_000016"] == oxford / "jpg" / "all_souls_000016.jpg"
    (oxford / "jpg" / "all_souls_000014.jpg").unlink()
    assert read_folder(oxford, "roxford5k", drop_incomplete=True).dropped == 2


class TestErrors:
    def test_no_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=f"There is no folder {re.escape(str(tmp_path / 'x'))}"):
            read_folder(tmp_path / "x")

    def test_no_photos(self, oxford):
        (oxford / "jpg").rename(oxford / "photos")
        with pytest.raises(FileNotFoundError, match=r"There is no jpg/ in .*; put the photos of oxford5k there"):
            read_folder(oxford)

    @pytest.mark.parametrize(("name", "expected"), [("oxford5k", "gt/ or gt_files"), ("roxford5k", "gnd_roxford5k.pkl or gnd_rox")])
    def test_no_ground_truth(self, oxford, name, expected):
        (oxford / "gt").rename(oxford / "lists")
        with pytest.raises(FileNotFoundError, match=f"There is no {expected}.*; put the ground truth of {name} there"):
            read_folder(oxford, name)

    def test_another_set(self, tmp_path):
        with pytest.raises(ValueError, match="dataset='oxford100k' is not a set that can be read from a folder; pass one"):
            read_folder(tmp_path, "oxford100k")


@pytest.mark.photos
def test_the_part_of_oxford5k(data_folder):
    part = read_folder(data_folder / "oxford5k_part", drop_incomplete=True)
    assert str(part) == "oxford5k: 735 of 5063 photos, 30 of 55 queries"
    assert part.dropped == 0
