import os
import stat
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rw_keras.files import checked_path, file_to_write, inside, printable, written_whole

_WITH_UMASK = """
import os, sys
from rw_keras.files import written_whole
os.umask(int(sys.argv[2], 8))
with written_whole(sys.argv[1]) as file:
    file.write(b"whole")
"""


def mode(path):
    return oct(stat.S_IMODE(os.stat(path).st_mode))


@pytest.mark.parametrize(("umask", "expected"), [("022", "0o644"), ("077", "0o600"), ("002", "0o664"), ("0", "0o666")])
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path, umask, expected):
    """In a process of its own: a umask belongs to all threads."""
    subprocess.run([sys.executable, "-c", _WITH_UMASK, tmp_path / "new", umask], check=True)
    assert mode(tmp_path / "new") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("kept", [0o600, 0o644, 0o666, 0o440])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path, kept):
    (tmp_path / "there").write_text("before")
    (tmp_path / "there").chmod(kept)
    with written_whole(tmp_path / "there") as file:
        file.write(b"after")
    assert (tmp_path / "there").read_bytes() == b"after"
    assert mode(tmp_path / "there") == oct(kept)


def test_after_an_error_nothing_is_left(tmp_path):
    (tmp_path / "there").write_text("before")
    with pytest.raises(RuntimeError, match="amid"), written_whole(tmp_path / "there") as file:
        file.write(b"half")
        raise RuntimeError("amid")
    assert (tmp_path / "there").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("name", ["", "a\0b", "folder\0/b"])
def test_a_name_that_no_file_can_have(tmp_path, name):
    with pytest.raises(ValueError, match=r"No file can have the name '.*'; choose another one"):
        checked_path(name)
    with pytest.raises(ValueError, match="No file can have the name"), written_whole(name):
        pass


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


@pytest.mark.parametrize("name", ["new.png", "there.png", "folder/new"])
def test_a_file_that_can_be_written(tmp_path, monkeypatch, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "there.png").touch()
    assert file_to_write(tmp_path / name) == tmp_path / name
    monkeypatch.chdir(tmp_path)
    assert str(file_to_write(name)) == name
    assert not (tmp_path / "new.png").exists()


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    path = tmp_path / "new" / "a.png"
    for called in ("a.png", "--sheet a.png"):
        with pytest.raises(FileNotFoundError, match=f"^There is no folder {path.parent} to write {called} into; make it first.$"):
            file_to_write(path, None if called == "a.png" else called)
    with pytest.raises(ValueError, match=f"^{tmp_path} is a folder; give the name of a file.$"):
        file_to_write(tmp_path)
    with pytest.raises(ValueError, match="No file can have the name"):
        file_to_write("")


@given(st.text())
def test_printable_is_a_line_that_can_be_written(text):
    found = printable(text)
    assert found.isprintable()
    assert found == text or not text.isprintable()
    assert found.encode().decode() == found
