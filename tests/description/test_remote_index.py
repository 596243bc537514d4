"""Photos in object storage give the index that the same photos in a folder give, and its updates do what those of a folder do."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image
from servers import s3_of_module, web_server, web_server_of_parts  # noqa: F401 (a fixture)
from small_indices import held, quiet, save

import rw_keras
from rw_keras import storage
from rw_keras.commands.main import main
from rw_keras.retrieval import Index, exchange, store

pytestmark = pytest.mark.cloud


@pytest.fixture(autouse=True)
def impatient_storage(monkeypatch):
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.01)


@pytest.fixture
def remote(s3, photo_folder):
    """A folder, and a URL with the same photos."""
    (photo_folder / "a b +#%20.png").write_bytes((photo_folder / "a.png").read_bytes())
    url = f"s3://{s3.bucket()}/photos"
    s3.put(photo_folder, url)
    return photo_folder, url


def files_of(index):
    """The bytes of an index's rows, and its table of photos without their stamps."""
    rows = b"".join(path.read_bytes() for path in sorted(index.glob("rows-*.bin")))
    return rows, [(photo.name, photo.described, photo.listed) for photo in store.photos(index)]


def test_byte_for_byte_that_of_a_folder(model, remote, tmp_path):
    folder, url = remote
    quiet(model, folder, tmp_path / "local")
    done = quiet(model, url, tmp_path / "index", regions="int8")
    assert (done.described, done.failures) == (7, [])
    quiet(model, folder, tmp_path / "local", regions="int8", resume=False)
    assert files_of(tmp_path / "index") == files_of(tmp_path / "local")
    assert store.about(tmp_path / "index")["source"] == url


@pytest.mark.photos
def test_real_photos(model, s3, data_folder, tmp_path):
    url = f"s3://{s3.bucket()}"
    (tmp_path / "photos").mkdir()
    for photo in sorted((data_folder / "oxford5k_part" / "jpg").iterdir())[:60]:
        (tmp_path / "photos" / photo.name).symlink_to(photo)
        s3.files.pipe_file(f"{url}/{photo.name}", photo.read_bytes())
    s3.faults.plan(503, 2, ".jpg", "GET")
    s3.faults.plan("cut", 2, ".jpg", "GET")
    quiet(model, tmp_path / "photos", tmp_path / "local", max_side=256)
    done = quiet(model, url, tmp_path / "index", max_side=256)
    assert (done.described, done.failures) == (60, [])
    assert files_of(tmp_path / "index") == files_of(tmp_path / "local")


@pytest.mark.parametrize("server", ["s3", "parts", "stream"])
def test_an_archive(model, remote, s3, tmp_path, server, draw):
    folder, _ = remote
    path = tmp_path / "served" / "photos.tar"
    path.parent.mkdir()

    def pack():
        with tarfile.open(path, "w") as archive:
            for photo in sorted(folder.rglob("*.*")):
                archive.add(photo, photo.relative_to(folder).as_posix())
        return path

    def run(url):
        first = quiet(model, url, tmp_path / "index")
        quiet(model, path, tmp_path / "local")
        assert first.described == 7 and files_of(tmp_path / "index") == files_of(tmp_path / "local")
        again = quiet(model, url, tmp_path / "index")
        assert (again.described, again.kept, again.removed) == (0, 7, 0)
        (folder / "b.png").unlink()
        save(folder / "new.png", draw(77))
        pack()
        upload()
        changed = quiet(model, url, tmp_path / "index")
        assert (changed.described, changed.kept, changed.removed) == (1, 6, 1)
        quiet(model, path, tmp_path / "local")
        assert held(tmp_path / "index").keys() == held(tmp_path / "local").keys()

    pack()
    if server == "s3":
        url = f"s3://{s3.bucket()}/photos.tar"

        def upload():
            s3.files.pipe_file(url, path.read_bytes())

        upload()
        run(url)
    else:

        def upload():
            pass

        with (web_server_of_parts if server == "parts" else web_server)(path.parent) as (url, _):
            run(f"{url}/photos.tar")


class TestUpdate:
    def test_describes_what_has_changed_and_nothing_else(self, model, remote, s3, tmp_path, draw, computed):
        folder, url = remote
        quiet(model, url, tmp_path / "index")
        before = held(tmp_path / "index")
        done = quiet(model, url, tmp_path / "index")
        assert (done.described, done.kept) == (0, 7)
        runs = sum(shape[0] for shape in computed)
        for name, seed in (("a.png", 50), ("new/n.png", 51)):
            save(folder / name, draw(seed))
            s3.files.pipe_file(f"{url}/{name}", (folder / name).read_bytes())
        s3.files.rm_file(f"{url}/more/e.png")
        done = quiet(model, url, tmp_path / "index")
        assert (done.described, done.changed, done.kept, done.removed) == (2, 1, 5, 1)
        after = held(tmp_path / "index")
        assert after.keys() == before.keys() - {"more/e.png"} | {"new/n.png"}
        assert not np.array_equal(after["a.png"], before["a.png"]) and np.array_equal(after["b.png"], before["b.png"])
        assert sum(shape[0] for shape in computed) == runs + 2
        assert quiet(model, url, tmp_path / "index").described == 0

    def test_a_photo_that_is_away_keeps_its_row(self, model, remote, s3, tmp_path, draw):
        folder, url = remote
        quiet(model, url, tmp_path / "index")
        before = held(tmp_path / "index")
        save(folder / "a.png", draw(50))
        s3.files.pipe_file(f"{url}/a.png", (folder / "a.png").read_bytes())
        for fault in (503, 404, 403, "cut"):
            s3.faults.plan(fault, 10_000, "photos/a.png", "GET")
            try:
                done = quiet(model, url, tmp_path / "index")
            finally:
                s3.faults._planned.clear()
            assert [name for name, _ in done.unread] == ["a.png"] and done.failures == []
            np.testing.assert_array_equal(held(tmp_path / "index")["a.png"], before["a.png"])
        done = quiet(model, url, tmp_path / "index")
        assert (done.described, done.changed, done.unread) == (1, 1, [])
        assert not np.array_equal(held(tmp_path / "index")["a.png"], before["a.png"])

    def test_a_new_photo_that_is_away_is_described_once_it_is_back(self, model, remote, s3, tmp_path):
        _, url = remote
        s3.faults.plan(503, 10_000, "photos/a.png", "GET")
        try:
            done = quiet(model, url, tmp_path / "index")
        finally:
            s3.faults._planned.clear()
        assert [name for name, _ in done.failures] == ["a.png"] and "HTTP 503" in done.failures[0][1]
        done = quiet(model, url, tmp_path / "index")
        assert (done.described, done.failures) == (1, [])

    def test_a_listing_that_fails_changes_nothing(self, model, remote, s3, tmp_path):
        _, url = remote
        quiet(model, url, tmp_path / "index")
        before = files_of(tmp_path / "index")
        s3.faults.plan(500, 10_000, "list-type=2", "GET")
        try:
            for prune in (False, True):
                with pytest.raises(OSError, match="HTTP 500"):
                    quiet(model, url, tmp_path / "index", prune=prune)
        finally:
            s3.faults._planned.clear()
        assert files_of(tmp_path / "index") == before

    def test_a_missing_or_empty_prefix_is_refused(self, model, remote, s3, tmp_path):
        _, url = remote
        quiet(model, url, tmp_path / "index")
        with pytest.raises(ValueError, match="There is no photo in"):
            quiet(model, f"{url}/none/", tmp_path / "index")
        with pytest.raises(FileNotFoundError, match="There is no folder"):
            quiet(model, f"{url}/none", tmp_path / "index")
        assert len(held(tmp_path / "index")) == 7

    def test_more_than_half_of_it_does_not_leave(self, model, remote, s3, tmp_path):
        folder, url = remote
        quiet(model, url, tmp_path / "index")
        for name in ("a.png", "b.png", "c.jpg", "d.png"):
            s3.files.rm_file(f"{url}/{name}")
        with pytest.raises(ValueError, match="4 of the 7 photos"):
            quiet(model, url, tmp_path / "index")
        assert quiet(model, url, tmp_path / "index", prune=True).removed == 4
        quiet(model, folder, tmp_path / "local")
        assert quiet(model, url, tmp_path / "local", prune=True).removed == 4

    def test_killed_it_goes_on(self, model, remote, tmp_path, computed):
        _, url = remote
        computed.interrupt(3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            quiet(model, url, tmp_path / "index", batch_size=1)
        quiet(model, url, tmp_path / "index", batch_size=1)
        quiet(model, url, tmp_path / "whole", batch_size=1)
        assert files_of(tmp_path / "index") == files_of(tmp_path / "whole")

    def test_merge_and_copies_in_memory(self, model, remote, s3, tmp_path, draw):
        _, url = remote
        other = f"s3://{s3.bucket()}/more"
        s3.files.pipe_file(f"{other}/other.png", encoded(draw(9)))
        quiet(model, url, tmp_path / "index")
        quiet(model, other, tmp_path / "other")
        assert exchange.merge([tmp_path / "index", tmp_path / "other"], tmp_path / "both") == 8
        assert quiet(model, url, tmp_path / "both").kept == 8


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


class TestOnePhoto:
    def test_describe_and_search_photo_take_a_url(self, model, remote, tmp_path):
        folder, url = remote
        np.testing.assert_array_equal(rw_keras.describe(model, f"{url}/b.png"), rw_keras.describe(model, folder / "b.png"))
        several = rw_keras.describe(model, [f"{url}/b.png", folder / "c.jpg"], box=[(1, 2, 30, 40), None])
        assert np.array_equal(several, rw_keras.describe(model, [folder / "b.png", folder / "c.jpg"], box=[(1, 2, 30, 40), None]))
        quiet(model, url, tmp_path / "index")
        index = Index.load(tmp_path / "index")
        assert index.search_photo(model, f"{url}/b.png", k=3) == index.search_photo(model, folder / "b.png", k=3)
        with pytest.raises(FileNotFoundError, match=f"There is no {url}/none.png"):
            rw_keras.describe(model, f"{url}/none.png")


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["rw-keras", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.photos
def test_commands(remote, tmp_path, capsys, alexnet_weights, monkeypatch):
    folder, url = remote
    arguments = [*"--backbone alexnet --max_side 128 --runtime tensorflow --quiet --weights".split(), alexnet_weights]
    for photo in folder.rglob("*.*"):  # AlexNet needs more pixels
        with Image.open(photo) as opened:
            larger = opened.resize((200, 160))
        larger.save(photo)
    files, _ = storage.filesystem(url)
    for photo in folder.rglob("*.*"):
        files.pipe_file(f"{url}/{photo.relative_to(folder).as_posix()}", photo.read_bytes())
    assert command(monkeypatch, "index", url, "-o", tmp_path / "index", *arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["described"] == 7
    page = tmp_path / "hits.html"
    shown = ["--html", page, "--sheet", tmp_path / "hits.png", "--json"]
    assert command(monkeypatch, "search", tmp_path / "index", f"{url}/b.png", *shown) == 0
    hits = json.loads(capsys.readouterr().out)
    assert hits[0]["name"] == "b.png" and len(hits) == 7
    assert page.read_text().count("data:image/jpeg") == 8
    assert command(monkeypatch, "index", f"{url}/none", "-o", tmp_path / "none", *arguments) == 1
    assert "There is no folder, list file or archive" in capsys.readouterr().err
    assert command(monkeypatch, "search", url, folder / "b.png") == 1
    assert "rw-keras pull" in capsys.readouterr().err
    assert not os.path.exists(tmp_path / "none")
