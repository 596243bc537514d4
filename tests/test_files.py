import os

import pytest

from rw_keras.files import inside


@pytest.mark.parametrize(
    "name", ["a.jpg", "more/a.jpg", "more/../a.jpg", "./a.jpg", "..a.jpg", "a/...", " ", "a\nb.jpg", os.fsdecode(b"\xff.jpg")]
)
def test_names_inside_a_folder(name):
    assert inside("/photos", name) == os.path.normpath(f"/photos/{name}")
    assert inside("photos/", name) == os.path.normpath(os.path.join(os.getcwd(), "photos", name))


def test_absolute_names_below_the_folder(tmp_path):
    assert inside(tmp_path, f"{tmp_path}/more/a.jpg") == f"{tmp_path}/more/a.jpg"
    assert inside("/", "/a.jpg") == inside("/", "a.jpg") == "/a.jpg"


@pytest.mark.parametrize(
    "name", ["../a.jpg", "..", "", ".", "/a.jpg", "//a.jpg", "/photos2/a.jpg", "more/../../a.jpg", "../photos2/a.jpg", "a\0.jpg"]
)
def test_names_that_lead_out_of_it(name):
    assert inside("/photos", name) is None


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "link").symlink_to("/etc")
    assert inside(tmp_path, "link/../a.jpg") == f"{tmp_path}/a.jpg"
