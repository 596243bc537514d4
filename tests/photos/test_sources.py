import errno
import importlib
import io
import os
import pathlib
import re
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rw_keras.photos import formats
from rw_keras.photos.reading import ImageError, read_image
from rw_keras.photos.sources import folder_items, list_photos, photo_items


def names(photos):
    return [item.name for item in photo_items(photos)]


def make(folder, *files):
    for name in files:
        path = pathlib.Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"photo " + os.fsencode(name))
    return folder


def make_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for number, (name, content) in enumerate(files.items()):
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            else:
                member.size, member.mtime = len(content), 1000 + number
                archive.addfile(member, io.BytesIO(content))
    return path


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


FOLDERS = ("p", "p/q", "r")


class TestFolder:
    FILES = ("b.jpg", "a.PNG", "a/z.jpg", "a.b/y.jpg", "a b/x.jpg", "a/b/c.jpeg", "a-/w.jpg", "Z.webp", "é.tiff", "10.jpg", "9.jpg")

    def test_photos_in_the_order_of_list_photos(self, tmp_path):
        make(tmp_path, *self.FILES, "notes.txt", "a/.jpg", "jpg", "a.jpg.part")
        expected = [path.relative_to(tmp_path).as_posix() for path in list_photos(tmp_path)]
        assert sorted(expected) == sorted(self.FILES)
        assert names(tmp_path) == names(str(tmp_path)) == names(f"{tmp_path}/") == expected
        assert expected == [path.as_posix() for path in sorted(map(pathlib.PurePosixPath, self.FILES))]

    def test_items(self, tmp_path):
        make(tmp_path, "b.jpg", "a/z.jpg")
        os.utime(tmp_path / "b.jpg", ns=(5, 123_456_789_012_345_678))
        first, second = photo_items(tmp_path)
        assert (second.name, second.stamp, second.fault) == ("b.jpg", [11, 123_456_789_012_345_678], None)
        assert pathlib.Path(first.open()).read_bytes() == b"photo a/z.jpg"

    def test_a_folder_named_like_a_photo_has_a_fault(self, tmp_path):
        make(tmp_path, "x.jpg/inside.jpg")
        folder, inside = photo_items(tmp_path)
        assert (folder.name, folder.stamp, inside.name) == ("x.jpg", None, "x.jpg/inside.jpg")
        with pytest.raises(ImageError, match=r"x\.jpg is a folder; pass the path of a photo"):
            folder.open()

    @pytest.mark.parametrize("ending", ["heic", "HEIF", "avif", "cr2", "NEF", "dng"])
    def test_photos_of_an_extra_are_found_and_have_a_stamp_once_it_is_there(self, tmp_path, ending, monkeypatch):
        """Without a stamp an update takes the photo up as soon as there is one."""
        make(tmp_path, f"a.{ending}", "b.jpg")
        monkeypatch.setattr(formats, "_installed", lambda package: False)
        monkeypatch.setattr(formats, "pillow_reads_avif", lambda: False)
        assert [(item.name, item.stamp is None) for item in photo_items(tmp_path)] == [(f"a.{ending}", True), ("b.jpg", False)]
        monkeypatch.setattr(formats, "_installed", lambda package: True)
        monkeypatch.setattr(formats, "pillow_reads_avif", lambda: True)
        assert [item.stamp is None for item in photo_items(tmp_path)] == [False, False]
        with pytest.raises(ImageError, match="is one photo"):
            photo_items(tmp_path / f"a.{ending}")

    def test_a_link_to_nothing_is_an_item_without_a_stamp(self, tmp_path):
        (tmp_path / "a.jpg").symlink_to("none.jpg")
        (item,) = photo_items(tmp_path)
        assert (item.name, item.stamp) == ("a.jpg", None)

    @pytest.mark.parametrize("name", ["a b.jpg", "new\nline.jpg", "東京.jpg", os.fsdecode(b"\xff.jpg"), " .jpg", "a[1]*.jpg"])
    def test_names(self, tmp_path, name):
        make(tmp_path / "p", name)
        (item,) = photo_items(tmp_path / "p")
        assert item.name == name
        assert pathlib.Path(item.open()).read_bytes() == b"photo " + os.fsencode(name)

    def test_a_folder_with_signs_of_a_pattern_in_its_name(self, tmp_path):
        assert names(make(tmp_path / "holiday [2020]*", "a.jpg")) == ["a.jpg"]

    def test_nothing_in_it(self, tmp_path):
        make(tmp_path, "notes.txt")
        with pytest.raises(ImageError, match=f"no photo in {re.escape(str(tmp_path))}.*jpg"):
            photo_items(tmp_path)

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=f"{re.escape(str(tmp_path / 'none'))}; pass one that holds the photos"):
            photo_items(tmp_path / "none")

    def test_a_name_with_a_nul_byte(self):
        with pytest.raises(FileNotFoundError, match="no folder, list file or archive"):
            photo_items("photos\0")

    def test_one_photo_is_no_source(self, tmp_path):
        make(tmp_path, "a.jpg")
        with pytest.raises(ImageError, match=r"a\.jpg is one photo; pass a folder"):
            photo_items(tmp_path / "a.jpg")


class TestLinks:
    def test_to_folders_and_photos_are_followed(self, tmp_path):
        make(tmp_path / "elsewhere", "a.jpg", "deep/b.jpg", "notes.txt")
        make(tmp_path / "photos", "c.jpg")
        (tmp_path / "photos" / "album").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "photos" / "d.jpg").symlink_to("../elsewhere/a.jpg")
        assert names(tmp_path / "photos") == ["album/a.jpg", "album/deep/b.jpg", "c.jpg", "d.jpg"]
        item = folder_items(tmp_path / "photos")[0]
        assert pathlib.Path(item.open()).read_bytes() == b"photo a.jpg"
        assert item.stamp == [11, (tmp_path / "elsewhere" / "a.jpg").stat().st_mtime_ns]

    def test_the_folder_itself_may_be_one(self, tmp_path):
        make(tmp_path / "elsewhere", "a.jpg", "below/b.jpg")
        (tmp_path / "elsewhere" / "below" / "again").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "photos").symlink_to("elsewhere")
        assert names(tmp_path / "photos") == ["a.jpg", "below/b.jpg"]

    @pytest.mark.parametrize("target", [".", "..", "../album", "../../photos"])
    def test_a_loop_is_not_entered(self, tmp_path, target):
        make(tmp_path / "photos", "a.jpg", "album/b.jpg")
        (tmp_path / "photos" / "album" / "loop").symlink_to(target)
        assert names(tmp_path / "photos") == ["a.jpg", "album/b.jpg"]

    def test_two_that_lead_to_each_other_give_each_photo_one_name_a_way(self, tmp_path):
        make(tmp_path, "one/a.jpg", "two/b.jpg")
        (tmp_path / "one" / "to").symlink_to("../two")
        (tmp_path / "two" / "to").symlink_to("../one")
        assert names(tmp_path) == ["one/a.jpg", "one/to/b.jpg", "two/b.jpg", "two/to/a.jpg"]

    def test_above_the_folder_lead_to_its_neighbours(self, tmp_path):
        make(tmp_path, "photos/a.jpg", "others/b.jpg", "c.jpg")
        (tmp_path / "photos" / "up").symlink_to("..")
        assert names(tmp_path / "photos") == ["a.jpg", "up/c.jpg", "up/others/b.jpg"]

    @pytest.mark.parametrize(("name", "listed"), [("self.jpg", "self.jpg"), ("self", "self/")])
    def test_to_itself(self, tmp_path, name, listed):
        make(tmp_path, "a.jpg")
        (tmp_path / name).symlink_to(name)
        good, bad = photo_items(tmp_path)
        assert (good.name, bad.name, bad.stamp) == ("a.jpg", listed, None)
        with pytest.raises((ImageError, OSError), match=f"{name} (is a link to {name}, which is not there|cannot be looked at: )"):
            read_image(bad.open())

    @pytest.mark.parametrize(("name", "listed"), [("gone.jpg", "gone.jpg"), ("gone", "gone/")])
    def test_a_broken_one_is_named_as_what_it_is(self, tmp_path, name, listed):
        """Whatever lay behind it, such as an album on a disk that is away: its rows of an index stay."""
        make(tmp_path, "a.jpg")
        (tmp_path / name).symlink_to("/nowhere/album")
        good, bad = photo_items(tmp_path)
        assert (good.name, bad.name, bad.stamp) == ("a.jpg", listed, None)
        with pytest.raises(
            (ImageError, FileNotFoundError), match=f"{name} is a link to /nowhere/album, which is not there; restore"
        ):
            read_image(bad.open())

    @given(
        links=st.lists(st.tuples(st.sampled_from(FOLDERS), st.sampled_from(FOLDERS)), unique=True, max_size=4),
    )
    @settings(deadline=None, max_examples=40)
    def test_any_links_end(self, links, tmp_path_factory):
        """Each photo has every name that enters no folder twice, and no other."""
        top = tmp_path_factory.mktemp("tree")
        make(top, *(f"{folder}/{place}.jpg" for place, folder in enumerate(FOLDERS)))
        for number, (holder, target) in enumerate(links):
            (top / holder / f"link{number}").symlink_to(top / target)
        expected, waiting = set(), [(top, "", [top.resolve()])]
        while waiting:
            folder, name, above = waiting.pop()
            for path in folder.iterdir():
                if path.is_file():
                    expected.add(f"{name}{path.name}")
                elif path.resolve() not in above:
                    waiting.append((path, f"{name}{path.name}/", [*above, path.resolve()]))
        found = names(top)
        assert set(found) == expected
        assert len(found) == len(expected)
        assert found == [path.as_posix() for path in sorted(map(pathlib.PurePosixPath, found))]


class TestFoldersThatCannotBeListed:
    @pytest.mark.skipif(os.geteuid() == 0, reason="root may list any folder")
    def test_one_that_may_not(self, tmp_path):
        make(tmp_path, "a.jpg", "below/b.jpg")
        (tmp_path / "below").chmod(0)
        try:
            good, bad = folder_items(tmp_path)
        finally:
            (tmp_path / "below").chmod(0o755)
        assert (good.name, bad.name, bad.fault) == ("a.jpg", "below/", f"{tmp_path}/below cannot be listed: Permission denied.")

    def failing(self, monkeypatch, name):
        real = os.scandir

        def scandir(path):
            if os.path.basename(path) == name:
                raise OSError(errno.EIO, "Input/output error", os.fspath(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)

    def test_one_that_is_away(self, tmp_path, monkeypatch):
        make(tmp_path, "a.jpg", "below/b.jpg", "below/deep/c.jpg", "x/y/below/d.jpg")
        self.failing(monkeypatch, "below")
        assert names(tmp_path) == ["a.jpg", "below/", "x/y/below/"]
        with pytest.raises(ImageError, match=r"/below cannot be listed: Input/output error\.$"):
            folder_items(tmp_path)[1].open()

    def test_the_source_itself(self, tmp_path, monkeypatch):
        make(tmp_path / "photos", "a.jpg")
        self.failing(monkeypatch, "photos")
        with pytest.raises(OSError, match="Input/output error"):
            photo_items(tmp_path / "photos")


class TestGlob:
    def test_names_are_paths_in_order(self, tmp_path, monkeypatch):
        make(tmp_path, "b.jpg", "a.png", "sub/c.jpg", "sub/d.jpg/e.jpg")
        assert names(f"{tmp_path}/*.jpg") == [f"{tmp_path}/b.jpg"]
        found = [f"{tmp_path}/{name}" for name in ("b.jpg", "sub/c.jpg", "sub/d.jpg/e.jpg")]
        assert names(f"{tmp_path}/**/*.jpg") == found
        monkeypatch.chdir(tmp_path)
        assert names("sub/?.jpg") == ["sub/c.jpg"]
        assert photo_items("sub/?.jpg")[0].stamp == [15, (tmp_path / "sub/c.jpg").stat().st_mtime_ns]

    def test_nothing_found(self, tmp_path):
        with pytest.raises(ImageError, match=r"no photo in .*\*\.jpg"):
            photo_items(f"{tmp_path}/*.jpg")


class TestListFile:
    def test_lines(self, tmp_path):
        make(tmp_path / "photos", "b.jpg", "a b.jpg", "東京.jpg", "no ending")
        outside = make(tmp_path, "outside.jpg") / "outside.jpg"
        listed = [
            "photos/b.jpg",
            "",
            "photos/a b.jpg",
            "  ",
            str(outside),
            "photos/東京.jpg",
            "photos/no ending",
            "photos/none.jpg",
        ]
        for end in ("\n", "\r\n"):
            for last in ("", end):
                (tmp_path / "list.txt").write_bytes((end.join(listed) + last).encode())
                items = photo_items(tmp_path / "list.txt")
                assert [item.name for item in items] == [line for line in listed if line.strip()]
                assert [item.stamp is None for item in items] == [False] * 5 + [True]
                assert pathlib.Path(items[1].open()).read_bytes() == b"photo a b.jpg"

    def test_ended_by_zero_bytes(self, tmp_path):
        """As `find -print0` writes it: any name is possible."""
        listed = [b"new\nline.jpg", b"\xff.jpg", b"ends in return\r", b" a.jpg"]
        for name in listed:
            make(tmp_path, os.fsdecode(name))
        (tmp_path / "list").write_bytes(b"\0".join(listed) + b"\0")
        items = photo_items(tmp_path / "list")
        assert [os.fsencode(item.name) for item in items] == listed
        assert all(item.stamp for item in items)

    def test_one_name_without_an_end(self, tmp_path):
        make(tmp_path, "a.jpg")
        (tmp_path / "list.txt").write_text("a.jpg")
        assert names(tmp_path / "list.txt") == ["a.jpg"]

    def test_relative_to_its_own_folder(self, tmp_path, monkeypatch):
        make(tmp_path / "sub", "a.jpg")
        (tmp_path / "sub" / "list.txt").write_text("a.jpg\n")
        monkeypatch.chdir(tmp_path)
        (item,) = photo_items("sub/list.txt")
        assert item.stamp is not None
        monkeypatch.chdir(tmp_path / "sub")
        (item,) = photo_items("list.txt")
        assert item.stamp is not None

    def test_the_same_photo_twice(self, tmp_path):
        (tmp_path / "list.txt").write_text("a.jpg\nb.jpg\na.jpg\n")
        with pytest.raises(ImageError, match=r"list\.txt names 'a\.jpg' twice"):
            photo_items(tmp_path / "list.txt")

    @pytest.mark.parametrize("content", ["", "\n\n", " \r\n"])
    def test_empty(self, tmp_path, content):
        (tmp_path / "list.txt").write_text(content)
        with pytest.raises(ImageError, match=r"no photo in .*list\.txt"):
            photo_items(tmp_path / "list.txt")


class TestArchive:
    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_members(self, tmp_path, draw, form, monkeypatch):
        monkeypatch.setattr(tarfile, "DEFAULT_FORMAT", form)
        files = {
            "0002.jpg": encoded(draw(2)),
            "0002.json": b"{}",
            "sub": None,
            "x.jpg": None,
            "sub/0001.png": encoded(draw(1)),
            "sub/0001.cls": b"3",
            "0000.JPG": encoded(draw(0)),
        }
        items = photo_items(make_tar(tmp_path / "photos.tar", files))
        assert [item.name for item in items] == ["0002.jpg", "sub/0001.png", "0000.JPG"]
        assert [item.stamp for item in items] == [
            [len(files[name]), time * 10**9] for name, time in (("0002.jpg", 1000), ("sub/0001.png", 1004), ("0000.JPG", 1006))
        ]
        for item, seed in zip(items, (2, 1, 0)):
            np.testing.assert_array_equal(read_image(item.open()), draw(seed))

    @pytest.mark.parametrize("name", ["a b.jpg", "東京.jpg", os.fsdecode(b"\xff.jpg"), "long/" * 60 + "a.jpg"])
    def test_names(self, tmp_path, name):
        (item,) = photo_items(make_tar(tmp_path / "photos.tar", {name: b"photo"}))
        assert item.name == name
        assert item.open().read() == b"photo"

    def test_errors_name_member_and_archive(self, tmp_path):
        (item,) = photo_items(make_tar(tmp_path / "photos.tar", {"sub/a.jpg": b"no photo"}))
        with pytest.raises(ImageError, match=r"sub/a\.jpg in .*photos\.tar is not an image"):
            read_image(item.open())

    def odd(self, path, change, content=b"\xff\xd8 photo" * 200):
        """An archive of three photos, of which `change` alters the member of the second."""
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for name in ("a.jpg", "odd.jpg", "z.jpg"):
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(content), 1000
                if name == "odd.jpg":
                    change(member)
                archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
        return path

    @pytest.mark.parametrize("time", ["nan", "inf", "-inf", "1e300", "-1e30", "no number"])
    def test_a_time_that_is_none(self, tmp_path, time):
        items = photo_items(self.odd(tmp_path / "photos.tar", lambda member: member.pax_headers.update(mtime=time)))
        assert [item.name for item in items] == ["a.jpg", "odd.jpg", "z.jpg"]
        assert [item.stamp for item in items] == [[1600, 10**12], [1600, 0], [1600, 10**12]]
        assert items[1].open().read() == items[0].open().read()

    def link(self, kind):
        def change(member):
            member.type, member.size, member.linkname = kind, 0, "/etc/pass\nwd"

        return change

    @pytest.mark.parametrize(
        "kind, words",
        [
            (tarfile.SYMTYPE, r"is a link to /etc/pass\\nwd; put the photo itself"),
            (tarfile.LNKTYPE, r"is a link to /etc/pass\\nwd; put the photo itself"),
            (tarfile.FIFOTYPE, "is a pipe, a device or of an unknown kind"),
            (tarfile.CHRTYPE, "is a pipe, a device or of an unknown kind"),
        ],
    )
    def test_what_is_no_plain_file_is_named_and_left_out(self, tmp_path, kind, words):
        items = photo_items(self.odd(tmp_path / "photos.tar", self.link(kind)))
        assert [item.name for item in items] == ["a.jpg", "odd.jpg", "z.jpg"]
        assert [item.stamp is None for item in items] == [False, True, False]
        with pytest.raises(ImageError, match=rf"^odd\.jpg in .*photos\.tar {words}"):
            items[1].open()

    @pytest.mark.parametrize("fields", [{"GNU.sparse.map": "0,10", "GNU.sparse.size": "99"}, {"GNU.sparse.size": "1600"}])
    def test_a_sparse_member_is_named_and_left_out(self, tmp_path, fields):
        items = photo_items(self.odd(tmp_path / "photos.tar", lambda member: member.pax_headers.update(fields)))
        assert [item.name for item in items] == ["a.jpg", "odd.jpg", "z.jpg"]
        with pytest.raises(ImageError, match=r"^odd\.jpg in .*photos\.tar is stored as a sparse file"):
            items[1].open()

    @pytest.mark.parametrize("size", [10**30, 10**6, -512, -1536, -(10**30)])
    @pytest.mark.parametrize("content", [b"photo" * 200, bytes(5000)], ids=["bytes", "zeros"])
    def test_a_size_that_cannot_be_is_named_and_left_out(self, tmp_path, size, content):
        path = self.odd(tmp_path / "photos.tar", lambda member: member.pax_headers.update(size=str(size)), content)
        items = photo_items(path)
        assert [item.name for item in items] == ["a.jpg", "odd.jpg", "z.jpg"]
        assert items[2].open().read() == content
        with pytest.raises(ImageError, match=rf"^odd\.jpg in .*photos\.tar has {size} bytes by its header, of the archive's"):
            items[1].open()

    def test_an_odd_member_that_is_last(self, tmp_path):
        path = make_tar(tmp_path / "photos.tar", {"a.jpg": b"photo"})
        with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as archive:
            member = tarfile.TarInfo("odd.jpg")
            member.size, member.pax_headers = 600, {"size": str(10**12)}
            archive.addfile(member, io.BytesIO(b"x" * 600))
        assert [item.fault is None for item in photo_items(path)] == [True, False]

    def test_a_member_is_read_by_parts(self, tmp_path, draw):
        """Not more of it than is asked for: a member may have gigabytes."""
        files = {"a.jpg": b"before" * 999, "b.png": encoded(draw(1)), "c.jpg": b"behind" * 999}
        _, item, _ = photo_items(make_tar(tmp_path / "photos.tar", files))
        content = files["b.png"]
        with item.open() as file:
            assert file.read(3) == content[:3]
            assert file.seek(-7, os.SEEK_END) == len(content) - 7
            assert file.read(99) == content[-7:]
            assert file.read(99) == b""
            assert file.seek(10**9) == 10**9
            assert file.read() == b""
            assert (file.seek(5), file.read()) == (5, content[5:])

    @pytest.mark.parametrize("name", ["../../etc/a.jpg", "/etc/a.jpg", "a/../../b.jpg"])
    def test_a_name_that_climbs_is_a_name_and_no_more(self, tmp_path, name):
        (tmp_path / "sub").mkdir()
        path = make_tar(tmp_path / "sub" / "photos.tar", {name: b"photo"})
        (item,) = photo_items(path)
        assert (item.name, item.open().read()) == (name, b"photo")
        assert sorted(tmp_path.rglob("*")) == [tmp_path / "sub", path]

    @pytest.mark.parametrize("ending", [".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".TAR.GZ"])
    def test_compressed_is_refused(self, tmp_path, ending):
        path = tmp_path / f"photos{ending}"
        path.write_bytes(b"anything")
        with pytest.raises(ImageError, match=r"is compressed.*unpack it"):
            photo_items(path)

    @pytest.mark.parametrize("content", [b"", b"no archive" * 100, "gzip"], ids=["empty", "text", "gzip"])
    def test_no_archive(self, tmp_path, content):
        path = tmp_path / "photos.tar"
        if content == "gzip":
            make_tar(path, {"a.jpg": b"photo"}, "w:gz")
        else:
            path.write_bytes(content)
        with pytest.raises(ImageError, match=r"photos\.tar"):
            photo_items(path)

    def test_cut_short(self, tmp_path, draw):
        path = make_tar(tmp_path / "photos.tar", {f"{seed}.png": encoded(draw(seed)) for seed in range(5)})
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ImageError, match=r"photos\.tar cannot be read as a tar archive after its member 2\.png: .* within it"):
            photo_items(path)

    @pytest.mark.parametrize("cut", [0, 7, 511])
    def test_cut_between_two_members(self, tmp_path, cut):
        """`tarfile` gives the members before the cut, and an update would remove the others from an index."""
        path = make_tar(tmp_path / "photos.tar", {f"{number}.jpg": b"x" * 512 for number in range(4)})
        path.write_bytes(path.read_bytes()[: 2048 + cut])
        with pytest.raises(ImageError, match=r"photos\.tar .*after its member 1\.jpg: .*; make it again"):
            photo_items(path)

    def test_a_damaged_header(self, tmp_path):
        path = make_tar(tmp_path / "photos.tar", {f"{number}.jpg": b"x" * 512 for number in range(4)})
        content = bytearray(path.read_bytes())
        content[2048 + 3] ^= 1
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r"photos\.tar .*after its member 1\.jpg: its header is damaged"):
            photo_items(path)

    def test_the_same_member_twice(self, tmp_path):
        path = make_tar(tmp_path / "photos.tar", {"a.jpg": b"photo"})
        make_tar(path, {"a.jpg": b"later"}, "a")
        with pytest.raises(ImageError, match=r"photos\.tar names 'a\.jpg' twice"):
            photo_items(path)

    def test_no_photo_in_it(self, tmp_path):
        with pytest.raises(ImageError, match=r"no photo in .*photos\.tar"):
            photo_items(make_tar(tmp_path / "photos.tar", {"a.txt": b"text"}))


class TestList:
    def test_paths_and_arrays(self, tmp_path, draw):
        make(tmp_path, "b.jpg", "a.jpg")
        items = photo_items([tmp_path / "b.jpg", draw(1), str(tmp_path / "a.jpg"), draw(2), tmp_path / "none.jpg", tmp_path])
        assert [item.name for item in items] == [
            f"{tmp_path}/b.jpg",
            "00000001",
            f"{tmp_path}/a.jpg",
            "00000003",
            f"{tmp_path}/none.jpg",
            str(tmp_path),
        ]
        assert [item.stamp is None for item in items] == [False, True, False, True, True, True]
        np.testing.assert_array_equal(items[3].open(), draw(2))
        with pytest.raises(ImageError, match="is a folder"):
            items[5].open()

    def test_a_name_with_a_nul_byte(self, tmp_path):
        make(tmp_path, "a.jpg")
        bad, good = photo_items(["a\0b.jpg", tmp_path / "a.jpg"])
        assert good.stamp is not None
        with pytest.raises(ImageError, match=r"^a\\x00b\.jpg has a NUL byte in it"):
            bad.open()

    def test_an_array_of_photos_and_a_generator(self, draw):
        photos = np.stack([draw(1), draw(2)])
        for source in (photos, iter(photos)):
            items = photo_items(source)
            assert [item.name for item in items] == ["00000000", "00000001"]
            np.testing.assert_array_equal(items[1].open(), photos[1])

    def test_the_same_photo_twice(self, tmp_path):
        with pytest.raises(ImageError, match=r"names '.*a\.jpg' twice"):
            photo_items([tmp_path / "a.jpg", str(tmp_path / "a.jpg")])

    def test_empty(self):
        with pytest.raises(ImageError, match="no photo"):
            photo_items([])


class TestDataset:
    def dataset(self, draw, with_names, count=4):
        import tensorflow as tf

        def photos():
            for seed in range(count):
                yield (draw(seed, 40 + seed, 30), f"photo {seed} é") if with_names else draw(seed, 40 + seed, 30)

        pixels = tf.TensorSpec((None, None, 3), tf.uint8)
        signature = (pixels, tf.TensorSpec((), tf.string)) if with_names else pixels
        return tf.data.Dataset.from_generator(photos, output_signature=signature)

    @pytest.mark.parametrize("with_names", [False, True])
    def test_photos(self, draw, with_names):
        items = list(photo_items(self.dataset(draw, with_names)))
        assert [item.name for item in items] == [f"photo {seed} é" if with_names else f"{seed:08d}" for seed in range(4)]
        assert [item.stamp for item in items] == [None] * 4
        for seed, item in enumerate(items):
            np.testing.assert_array_equal(item.open(), draw(seed, 40 + seed, 30))

    def test_is_read_as_it_goes(self, draw):
        items = photo_items(self.dataset(draw, True, count=10**9))
        assert [next(items).name for _ in range(2)] == ["photo 0 é", "photo 1 é"]

    def test_a_name_that_is_no_text_does_not_count(self, draw):
        import tensorflow as tf

        labelled = tf.data.Dataset.from_tensor_slices((np.stack([draw(1), draw(2)]), [7, 7]))
        assert names(labelled) == ["00000000", "00000001"]

    def test_the_same_name_twice(self, draw):
        import tensorflow as tf

        twice = tf.data.Dataset.from_tensor_slices((np.stack([draw(1), draw(2), draw(3)]), ["a", "b", "a"]))
        with pytest.raises(ImageError, match="'a' twice"):
            list(photo_items(twice))

    def test_empty(self, draw):
        with pytest.raises(ImageError, match="no photo"):
            list(photo_items(self.dataset(draw, True, count=0)))


class TestListPhotos:
    def test_nested_and_sorted(self, tmp_path):
        names = ["b.JPG", "a.png", "z/a.webp", "z/deep/er/x.tiff", "c/1.jpeg", "c.gif", "Ä ö.bmp"]
        for name in [*names, "notes.txt", "z/movie.mp4", "jpg", "z/.hidden"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        assert list_photos(tmp_path) == sorted(tmp_path / name for name in names)
        assert list_photos(str(tmp_path)) == list_photos(tmp_path)

    def test_what_cannot_be_read_is_left_out_and_named(self, tmp_path):
        (tmp_path / "a.jpg").touch()
        (tmp_path / "folder.jpg").mkdir()
        (tmp_path / "away").symlink_to("none")
        with pytest.warns(
            UserWarning, match=r"(?s)2 entries of .* were left out:.*away is a link to none, which is not there.*r\.jpg"
        ):
            assert list_photos(tmp_path) == [tmp_path / "a.jpg"]
        (tmp_path / "a.jpg").unlink()
        with pytest.raises(ImageError, match=r"no photo in .* that can be read:\n  .*away is a link"):
            list_photos(tmp_path)

    @pytest.mark.parametrize("module", ["rw_keras.photos.reading", "rw_keras.images"])
    def test_earlier_homes(self, module):
        with pytest.warns(FutureWarning, match=r"reading\.list_photos is rw_keras\.photos\.sources\.list_photos now"):
            assert importlib.import_module(module).list_photos is list_photos
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            importlib.import_module("rw_keras.photos.reading").nothing  # noqa: B018

    def test_no_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none"))):
            list_photos(tmp_path / "none")

    def test_a_file(self, tmp_path):
        (tmp_path / "photo.jpg").touch()
        with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "photo.jpg"))):
            list_photos(tmp_path / "photo.jpg")

    def test_no_photo(self, tmp_path):
        (tmp_path / "notes.txt").touch()
        with pytest.raises(ImageError, match=re.escape(str(tmp_path)) + r".*\.jpg"):
            list_photos(tmp_path)
