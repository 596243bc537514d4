import base64
import hashlib
import html.parser
import io
import os
import pathlib
import re
import sys
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from rw_keras.files import inside
from rw_keras.photos.reading import ImageError, read_image
from rw_keras.views.result_page import result_page, search_sheet

VOID = {"meta", "link", "img", "wbr", "path", "rect"}
YELLOW = (245, 180, 0)
# As Linux has them; other systems and file systems refuse some.
WEIRD = [
    "two words.png",
    "line\nbreak.png",
    "tab\tand\rreturn.png",
    "Ünïcødé 写真 🏛.png",
    os.fsdecode(b"latin-\xe9\xff.png"),
    "hash#query?per%20cent%.png",
    "quote\"apostrophe'.png",
    "<script>alert(1)<",
    "<img src=x onerror=alert(1)>&amp;.png",
    "javascript:alert(1).png",
    "back\\slash.png",
    "-leading;semi:colon.png",
    "\u202egnp.spoofed.png",
    "שלום.png",
]


class Node:
    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent, self.inside = tag, attributes, parent, []

    def __getitem__(self, name):
        return self.attributes[name]

    def walk(self):
        yield self
        for one in self.inside:
            if isinstance(one, Node):
                yield from one.walk()

    def all(self, tag, name=None):
        return [one for one in self.walk() if one.tag == tag and name in (None, *one.attributes.get("class", "").split())]

    def one(self, tag, name=None):
        (found,) = self.all(tag, name)
        return found

    def text(self):
        return "".join(one.text() if isinstance(one, Node) else one for one in self.inside)


class Tree(html.parser.HTMLParser):
    """A page as nodes. It insists that every tag is closed, in order, so a name that breaks out of its place is seen."""

    def __init__(self, page):
        super().__init__()
        self.root = self.at = Node("", {}, None)
        self.feed(page)
        self.close()
        assert self.at is self.root

    def handle_starttag(self, tag, attributes):
        assert len(attributes) == len(dict(attributes))
        node = Node(tag, dict(attributes), self.at)
        self.at.inside.append(node)
        if tag not in VOID:
            self.at = node

    def handle_startendtag(self, tag, attributes):
        self.at.inside.append(Node(tag, dict(attributes), self.at))

    def handle_endtag(self, tag):
        assert tag == self.at.tag
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.inside.append(data)


def parse(page):
    return Tree(page).root


def tiles(page):
    return parse(page).one("ol").all("li")


def shown(image):
    """A picture of the page, decoded."""
    kind, _, data = image["src"].partition(",")
    assert kind == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert picture.format == "JPEG"
    assert picture.size == (int(image["width"]), int(image["height"]))
    return picture


def target(link, folder):
    """The file that a browser opens, when the page lies in `folder`."""
    url = urllib.parse.urlsplit(urllib.parse.urljoin(pathlib.Path(folder, "page.html").as_uri(), link))
    assert (url.scheme, url.netloc, url.query, url.fragment) == ("file", "", "", "")
    return os.fsdecode(urllib.parse.unquote_to_bytes(url.path))


@pytest.fixture
def search(photo_folder):
    """A query, a box of it, and two hits."""
    hits = [(1, "a.png", 0.98765, photo_folder / "a.png"), (2, "more/a.png", 0.5, str(photo_folder / "more" / "a.png"))]
    return photo_folder / "c.jpg", (10, 5, 50, 35), hits


@pytest.fixture
def many(photo_folder):
    return [(rank, f"photo {rank}", 1 - rank / 100, photo_folder / "a.png") for rank in range(1, 31)]


def test_a_hit_says_what_it_is(search):
    page = result_page(*search)
    first, second = tiles(page)
    assert first.one("span", "rank").text() == "1"
    assert first.one("span", "name").text() == "a.png"
    assert first.one("p", "cosine").one("b").text() == "0.988"
    assert first.one("p", "facts").text() == f"64 × 48 px · {os.path.getsize(search[2][0][3]) / 1000:.1f} kB"
    assert second.one("span", "name").text() == "more/a.png"
    assert second.one("p", "cosine").one("b").text() == "0.500"
    assert second.one("p", "facts").text().startswith("96 × 64 px · ")
    assert [one.text() for one in parse(page).all("h2")] == ["Query", "2 hits"]


def test_the_pictures_are_those_of_the_files(search):
    root = parse(result_page(*search))
    query, *found = [np.asarray(shown(image), int) for image in root.all("img")]
    for picture, path in zip([query, *found], [search[0], *(hit[3] for hit in search[2])]):
        original = read_image(path).astype(int)
        assert picture.shape == original.shape
        assert np.abs(picture - original).mean() < 8


def test_pictures_are_reduced_and_upright(tmp_path, draw):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the right
    Image.fromarray(draw(1, 900, 600)).save(tmp_path / "turned.jpg", exif=exif)
    root = parse(result_page(tmp_path / "turned.jpg", (0, 0, 600, 900), [(1, "turned", 0.5, tmp_path / "turned.jpg")]))
    query, hit = root.all("img")
    assert shown(query).size == (427, 640)
    assert shown(hit).size == (320, 480)
    assert "600 × 900 px" in root.one("li").text()


@pytest.mark.parametrize(
    "size, words",
    [
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_951, "10 kB"),
        (212_345, "212 kB"),
        (999_499, "999 kB"),
        (999_600, "1.0 MB"),
        (1_234_567, "1.2 MB"),
    ],
)
def test_file_sizes_in_words(tmp_path, draw, size, words):
    Image.fromarray(draw(1, 8, 8)).save(tmp_path / "photo.png")
    with open(tmp_path / "photo.png", "ab") as file:
        file.truncate(size)  # what follows a picture's end is passed over
    (tile,) = tiles(result_page(tmp_path / "photo.png", None, [(1, "photo", 0.5, tmp_path / "photo.png")]))
    assert tile.one("p", "facts").text() == f"8 × 8 px · {words}"


@pytest.mark.parametrize("cosine, digits, width", [(0.753, "0.753", 75.3), (1.0000001, "1.000", 100), (-0.2, "-0.200", 0)])
def test_the_bar_is_as_long_as_the_cosine(search, cosine, digits, width):
    (tile,) = tiles(result_page(search[0], None, [(1, "a", cosine, search[2][0][3])]))
    assert tile.one("b").text() == digits
    assert float(tile.one("rect", "bar")["width"]) == width
    assert float(tile.one("rect", "track")["width"]) == 100


def test_the_box_lies_over_the_query(search):
    query, box, hits = search
    section = parse(result_page(query, box, hits)).one("section", "query")
    overlay = section.one("span", "boxed").one("svg")
    assert overlay["viewbox"] == "0 0 80 40"  # html.parser writes attributes small
    for part in ("halo", "box"):
        rectangle = overlay.one("rect", part)
        assert [float(rectangle[side]) for side in ("x", "y", "width", "height")] == [10, 5, 40, 30]
    assert "box 10, 5, 50, 35" in section.text()
    assert "yellow box" in section.one("img")["alt"]
    without = parse(result_page(query, None, hits)).one("section", "query")
    assert not without.all("svg")
    assert "box" not in without.text() + without.one("img")["alt"]


def test_a_box_that_leaves_the_photo_by_rounding_is_cut_off(search):
    query, _, hits = search
    rectangle = parse(result_page(query, (-0.5, -0.25, 80.4, 40.5), hits)).one("rect", "box")
    assert [float(rectangle[side]) for side in ("x", "y", "width", "height")] == [0, 0, 80, 40]


@pytest.mark.parametrize("function", [result_page, search_sheet])
def test_a_query_that_cannot_be_used_is_refused(function, search, tmp_path):
    query, _, hits = search
    with pytest.raises(ImageError, match="leaves"):
        function(query, (10, 5, 500, 35), hits)
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        function(tmp_path / "none.jpg", None, hits)


def test_title_note_and_options(search):
    def page(**given):
        return parse(result_page(*search, **given))

    usual = page()
    assert usual.one("title").text() == usual.one("h1").text() == "Photos like c.jpg"
    assert not usual.all("dl") + usual.all("p", "note")
    root = page(title="<b>A&B</b>", note="<i>quick</i>", options={"index": "my <photos>", "k": 10, "expand": None})
    assert root.one("title").text() == root.one("h1").text() == "<b>A&B</b>"
    assert root.one("p", "note").text() == "<i>quick</i>"
    assert [one.text() for one in root.one("dl").all("dt")] == ["index", "k", "expand"]
    assert [one.text() for one in root.one("dl").all("dd")] == ["my <photos>", "10", "None"]


def test_no_hits(search):
    root = parse(result_page(search[0], None, []))
    assert root.all("h2")[1].text() == "No hits"
    assert not root.all("li")
    assert parse(result_page(search[0], None, search[2][:1])).all("h2")[1].text() == "1 hit"


def test_many_hits_are_listed_by_name(search, monkeypatch):
    """With a picture each, a page of 2 000 took minutes and had 87 MB."""
    monkeypatch.setattr(sys.modules[result_page.__module__], "PICTURES", 3)
    photos = search[0].parent
    names = ["a.png", "b.png", "c.jpg", "d.png", "more/a.png", "gone.png", "<b>.png"]
    hits = [(rank, name, 1 - rank / 10, photos / name) for rank, name in enumerate(names, 1)]
    root = parse(result_page(search[0], None, hits, folder=photos))
    assert [one.text() for one in root.all("h2")] == ["Query", "7 hits", "4 more, by name, with the cosine"]
    assert root.one("p", "few").text() == "The first 3 with their pictures; the others by name."
    assert root.one("p", "few").one("a")["href"] == "#rest"
    assert len(root.all("img")) == 1 + 3
    pictures, rest = root.all("ol")
    assert [tile.one("span", "rank").text() for tile in pictures.all("li")] == ["1", "2", "3"]
    assert [line.text() for line in rest.all("li")] == [
        "4 d.png 0.600",
        "5 more/a.png 0.500",
        "6 gone.png 0.400",
        "7 <b>.png 0.300",
    ]
    assert [[link["href"] for link in line.all("a")] for line in rest.all("li")] == [["d.png"], ["more/a.png"], [], []]


def test_a_sheet_of_many_hits_holds_the_first(search, many, monkeypatch):
    module = sys.modules[result_page.__module__]
    monkeypatch.setattr(module, "PICTURES", 8)
    titles = []
    real = module.contact_sheet
    monkeypatch.setattr(module, "contact_sheet", lambda rows, title, columns: titles.append(title) or real(rows, title, columns))
    assert search_sheet(search[0], None, many).size == search_sheet(search[0], None, many[:8]).size
    assert titles == ["Photos like c.jpg: the first 8 of 30 hits", "Photos like c.jpg"]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "more/../../secret.png"])
def test_a_name_that_climbs_is_text_without_a_picture(search, name):
    """As `rw_keras.files.inside` finds no path for it."""
    (tile,) = tiles(result_page(search[0], None, [(1, name, 0.5, inside(search[0].parent, name))], folder=search[0].parent))
    assert tile.one("span", "name").text() == name
    assert tile.one("span", "gone").text() == "This name leads out of the photos’ folder, so its photo is not shown."
    assert not tile.all("img") + tile.all("a")


def test_nothing_is_asked_of_any_host(search):
    page = result_page(*search, folder=search[0].parent, options={"index": "https://example.org"}, note="//example.org/x.js")
    root = parse(page)
    loads = [(one.tag, name) for one in root.walk() for name in one.attributes if name in ("src", "srcset", "data", "poster")]
    assert set(loads) == {("img", "src")}
    assert all(image["src"].startswith("data:") for image in root.all("img"))
    assert [(one["rel"], one["href"]) for one in root.all("link")] == [("icon", "data:,")]
    assert not {"iframe", "object", "embed", "base", "form", "audio", "video", "use", "image"} & {one.tag for one in root.walk()}
    assert not re.search(r"url\(|@import|@font-face|https?:", root.one("style").text())
    assert not re.search(r"fetch|XMLHttp|import|https?:|innerHTML|eval", root.one("script").text())


def test_only_this_style_and_script_may_run(search):
    root = parse(result_page(*search))
    (policy,) = [one["content"] for one in root.all("meta") if one.attributes.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == rules.pop("base-uri") == rules.pop("form-action") == "'none'"
    assert rules.pop("img-src") == "data:"
    for tag in ("style", "script"):
        digest = hashlib.sha256(root.one(tag).text().encode()).digest()
        assert rules.pop(f"{tag}-src") == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert not rules
    assert not [one for one in root.walk() if any(name == "style" or name.startswith("on") for name in one.attributes)]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse some of these names")
@pytest.mark.parametrize("name", WEIRD, ids=ascii)
@pytest.mark.parametrize("beside", [True, False], ids=["relative", "absolute"])
def test_weird_names_are_shown_and_linked(tmp_path, draw, name, beside):
    path = tmp_path / "photos" / name
    path.parent.mkdir()
    Image.fromarray(draw(1)).save(path, "PNG")
    page = result_page(path, None, [(1, name, 0.5, path)], folder=tmp_path if beside else None, note=name, options={name: name})
    page.encode()  # no half characters
    root = parse(page)
    links = [one["href"] for one in root.all("a") if one["href"] != "#hits"]
    assert len(links) == 2
    for link in links:
        assert re.fullmatch(r"[A-Za-z0-9/._~%-]+", link.removeprefix("file://"))
        assert link.startswith("photos/" if beside else "file:///")
        assert target(link, tmp_path) == str(path)
    assert [len(root.all(tag)) for tag in ("script", "style", "img", "h1", "i")] == [1, 1, 2, 1, 0]
    words = root.one("li").one("span", "name").text()
    assert words.isprintable()
    if name.isprintable():
        assert words == name == root.one("p", "note").text() == root.one("dd").text()
        assert root.one("h1").text() == f"Photos like {name}"
    search_sheet(path, None, [(1, name, 0.5, path)])


def test_what_cannot_be_seen_in_a_name_stands_as_an_escape(search):
    names = {"a\nb\t": r"a\nb\t", os.fsdecode(b"\xe9"): r"\xe9", "\u202eb": r"\u202eb", "\ud800": r"\ud800", "\0": r"\x00"}
    page = result_page(search[0], None, [(1, name, 0.5, None) for name in names])
    assert [tile.one("span", "name").text() for tile in tiles(page)] == list(names.values())


def test_links_are_relative_where_page_and_photo_are_near(search, tmp_path, monkeypatch):
    query, _, hits = search

    def links(folder):
        return [tile.one("a")["href"] for tile in tiles(result_page(query, None, hits, folder=folder))]

    photos = query.parent
    assert links(photos) == ["a.png", "more/a.png"]
    assert links(photos / "more") == ["../a.png", "a.png"]
    assert links(tmp_path / "pages" / "new") == ["../../photos/a.png", "../../photos/more/a.png"]
    absolute = [f"file://{photos.as_posix()}/a.png", f"file://{photos.as_posix()}/more/a.png"]
    assert links("/elsewhere/pages") == absolute
    assert links(None) == absolute
    below_root = photos.relative_to("/").as_posix()
    assert links("/") == [f"{below_root}/a.png", f"{below_root}/more/a.png"]
    monkeypatch.chdir(photos)
    assert links("") == links(".") == ["a.png", "more/a.png"]
    relative = result_page("c.jpg", None, [(1, "a", 0.5, "a.png")], folder="more")
    assert tiles(relative)[0].one("a")["href"] == "../a.png"
    assert parse(relative).one("section", "query").one("a")["href"] == "../c.jpg"


def test_photos_that_are_gone_or_broken_are_said_to_be(search, tmp_path):
    broken, empty = tmp_path / "broken.jpg", tmp_path / "empty.jpg"
    broken.write_bytes(search[0].read_bytes()[:200])
    empty.touch()
    paths = {"gone": tmp_path / "gone.jpg", "unknown": None, "broken": broken, "empty": empty, "nul": "\0", "folder": tmp_path}
    page = result_page(search[0], None, [(rank, name, 0.5, path) for rank, (name, path) in enumerate(paths.items(), 1)] + search[2])
    found = {tile.one("span", "name").text(): tile for tile in tiles(page)}
    said = {name: found[name].one("span", "gone").text() for name in paths}
    assert "moved or removed" in said["gone"]
    assert "does not say where" in said["unknown"]
    assert said["broken"] == said["empty"] == said["folder"]
    assert "can no longer be read" in said["broken"]
    for rank, name in enumerate(paths, 1):
        tile = found[name]
        assert not tile.all("img") + tile.all("p", "facts")
        assert tile.one("span", "rank").text() == str(rank)
        assert "aria-hidden" not in tile.one("span", "rank").attributes
        assert tile.one("b").text() == "0.500"
    # What is no file is no link, but the keys reach it.
    for name in ("gone", "unknown", "nul"):
        assert not found[name].all("a")
        assert found[name].one("div", "hit")["tabindex"] == "-1"
    assert found["broken"].one("a", "hit")["href"] == broken.as_uri()
    assert len(found["a.png"].all("img")) == 1


def test_the_page_can_be_read_aloud(search):
    root = parse(result_page(*search))
    assert root.one("html")["lang"] == "en"
    assert [one.tag for one in root.one("body").inside if isinstance(one, Node)] == ["a", "header", "main", "script"]
    assert [image["alt"] for image in root.all("img")[1:]] == ["Photo at rank 1", "Photo at rank 2"]
    assert all(one["aria-hidden"] == "true" for one in root.all("span", "rank"))  # or the rank would be read twice
    assert all(one["aria-hidden"] == "true" for one in root.all("svg"))
    identities = [one["id"] for one in root.walk() if "id" in one.attributes]
    assert len(identities) == len(set(identities))
    assert {one["aria-labelledby"] for one in root.all("section")} <= set(identities)
    skip = root.one("body").all("a")[0]
    assert (skip.text(), skip["href"]) == ("Skip to the hits", "#hits")
    assert "hits" in identities
    # One stop a hit, in order, and no other order forced.
    assert [link.text().split()[-1] for link in root.one("ol").all("a")] == ["a.png", "more/a.png"]
    assert not [one for one in root.walk() if int(one.attributes.get("tabindex", 0)) > 0]
    assert "hidden" in next(one for one in root.all("p") if one.attributes.get("id") == "keys").attributes  # no script, no keys


def luminance(colour):
    digits = colour.lstrip("#")
    digits = "".join(2 * one for one in digits) if len(digits) == 3 else digits
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    return np.dot([0.2126, 0.7152, 0.0722], [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(search, scheme):
    """WCAG 2.2 AA: 4.5 for text, 3 for what else must be seen."""
    style = parse(result_page(*search)).one("style").text()
    place = ("light", "dark").index(scheme)
    colours = {name: pair[place] for name, *pair in re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", style)}
    assert len(colours) > 10
    for front, back, least in [
        *((front, back, 4.5) for front in ("ink", "quiet", "link", "alert") for back in ("paper", "card", "well")),
        ("on-accent", "accent", 4.5),
        *((front, back, 3) for front in ("accent", "edge") for back in ("paper", "card")),
        ("bar", "track", 3),
        ("bar", "card", 3),
        ("focus", "paper", 3),
        ("focus", "card", 3),
    ]:
        low, high = sorted((luminance(colours[front]), luminance(colours[back])))
        assert (high + 0.05) / (low + 0.05) >= least, (front, back)


@pytest.mark.slow
def test_twenty_hits_stay_below_a_megabyte(tmp_path):
    # As much detail as photos of buildings have: noise on every scale.
    chance = np.random.default_rng(0)
    total = np.zeros((768, 1024, 3))
    for exponent in range(1, 8):
        coarse = chance.normal(0, 256 / 2**exponent, (3 * 2**exponent, 4 * 2**exponent, 3)).astype("float32")
        for channel in range(3):
            total[..., channel] += np.asarray(Image.fromarray(coarse[..., channel]).resize((1024, 768)))
    Image.fromarray((128 + total).clip(0, 255).astype("uint8")).save(tmp_path / "photo.png")
    page = result_page(tmp_path / "photo.png", None, [(rank, "photo", 0.5, tmp_path / "photo.png") for rank in range(1, 21)])
    assert 200_000 < len(page.encode()) < 1_000_000


@pytest.mark.parametrize("hits, columns, lines", [(0, 0, 1), (1, 1, 1), (8, 8, 1), (9, 5, 2), (10, 5, 2), (20, 7, 3), (30, 8, 4)])
def test_the_sheet_wraps(search, many, hits, columns, lines):
    def size(count):
        return np.array(search_sheet(search[0], None, many[:count]).size)

    width, height = size(2)[0] - size(1)[0], size(9)[1] - size(1)[1]
    assert (size(hits) - size(0)).tolist() == [columns * width, (lines - 1) * height]


def test_the_sheet_shows_the_box_and_every_hit(search, many):
    query, box, _ = search
    sheet, without = (np.asarray(search_sheet(query, box, many[:count], title="title")) for count in (10, 9))
    rows, columns = np.nonzero((sheet == YELLOW).all(axis=-1))
    # The query is 80 wide and drawn 180 wide.
    assert np.allclose([np.ptp(columns) + 1, np.ptp(rows) + 1], [40 * 180 / 80, 30 * 180 / 80], atol=1.5)
    changed = np.nonzero((sheet != without).any(axis=-1))
    assert changed[1].min() > 4 * sheet.shape[1] / 6  # the last tile of the second line, and nothing else
    assert changed[0].min() > sheet.shape[0] / 2
    ranks = [np.asarray(search_sheet(query, None, [(rank, "a", 0.5, None)])) for rank in (1, 2)]
    assert (ranks[0] != ranks[1]).any()


def test_boxes_in_a_large_photo_are_drawn(tmp_path, draw):
    Image.fromarray(draw(1, 4000, 3000)).save(tmp_path / "large.jpg")

    def yellow(box):
        return np.nonzero((np.asarray(search_sheet(tmp_path / "large.jpg", box, [])) == YELLOW).all(axis=-1))

    assert len(yellow((100, 100, 104, 104))[0]) > 0
    rows, columns = yellow((1000, 1000, 3000, 2000))
    assert np.allclose([np.ptp(columns) + 1, np.ptp(rows) + 1], [180 / 2, 180 / 4], atol=1.5)


def test_the_sheet_has_a_place_for_what_cannot_be_shown(search, tmp_path):
    query, _, hits = search
    gone = [(1, "a.png", 0.98765, tmp_path / "gone.png"), hits[1]]
    whole, placeholder = search_sheet(query, None, hits), search_sheet(query, None, gone)
    assert whole.size == placeholder.size
    pixels = np.asarray(placeholder)
    grey = (pixels == (235, 235, 238)).all(axis=-1)
    assert grey.sum() > 0.9 * 180 * 180
    changed = np.nonzero((np.asarray(whole) != pixels).any(axis=-1))
    assert {*zip(*np.nonzero(grey))} <= {*zip(*changed)}
    assert (np.ptp(changed[0]) + 1, np.ptp(changed[1]) + 1) == (180, 180)


@pytest.fixture
def opened(chromium, photo_folder, many):
    """A function (width, script or not) -> the page of 11 hits in a browser, the fourth of them gone; and what it asked for."""
    contexts = []

    def open_page(width=1280, script=True, **options):
        hits = [*many[:11]]
        hits[3] = (4, "<script>document.title = 'broken'</script><img src=x onerror=\"document.title='broken'\">", 0.5, "gone")
        file = photo_folder / "page.html"
        file.write_text(result_page(photo_folder / "c.jpg", (10, 5, 50, 35), hits, folder=photo_folder), "utf-8")
        contexts.append(chromium.new_context(viewport={"width": width, "height": 700}, java_script_enabled=script, **options))
        page = contexts[-1].new_page()
        page.asked, page.said = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


def rank_in_focus(page):
    return page.evaluate(
        "document.activeElement.closest('.hit')?.querySelector('.rank').textContent ?? document.activeElement.tagName"
    )


@pytest.mark.slow
def test_keys_in_a_browser(opened):
    page = opened()
    columns = page.evaluate("getComputedStyle(document.querySelector('ol')).gridTemplateColumns.split(' ').length")
    assert 2 < columns < 5
    assert page.locator("#keys").is_visible()

    def after(*keys):
        for key in keys:
            page.keyboard.press(key)
        return rank_in_focus(page)

    assert after("k", "ArrowLeft", "/") == "BODY"
    assert after("j") == "1"
    assert after("j", "ArrowRight", "Shift+J") == "3"
    assert after("J") == "4"  # as Caps Lock types it; this hit is gone, but in its place
    assert after("ArrowRight", "k", "ArrowLeft") == "3"
    assert after("ArrowDown") == str(3 + columns)
    assert after("ArrowUp", "ArrowUp") == "3"
    assert after("Control+j", "Alt+ArrowLeft", "/", "x") == "3"
    assert after(*["ArrowDown"] * 9) == "11"
    assert after("j", "ArrowRight", "ArrowDown") == "11"
    assert page.evaluate(
        "(() => { const r = document.activeElement.closest('li').getBoundingClientRect(); "
        "return r.top >= 0 && r.bottom <= innerHeight })()"
    )
    assert page.evaluate("scrollY + innerHeight === document.documentElement.scrollHeight")
    assert after(*["ArrowUp"] * 9) == str((11 - 1) % columns + 1)
    assert page.evaluate("scrollY") == 0
    ring = page.evaluate("getComputedStyle(document.activeElement, '::after').outline")
    assert "solid" in ring
    assert "3px" in ring
    assert page.evaluate("getComputedStyle(document.activeElement, '::after').content") == '""'
    assert page.title() == "Photos like c.jpg"
    assert not page.said
    assert {url for url in page.asked if not url.startswith("data:")} == {page.url}
    page.keyboard.press("Enter")
    page.wait_for_url("**/a.png")


def test_up_and_down_scroll_without_a_focus_in_a_browser(opened):
    page = opened()
    for key, there in (("ArrowDown", "scrollY > 0"), ("ArrowUp", "scrollY === 0")):
        page.keyboard.press(key)
        for _ in range(100):  # `wait_for_function` would need what the page's policy forbids
            if page.evaluate(there):
                break
            page.wait_for_timeout(50)
        assert page.evaluate(there)
        assert rank_in_focus(page) == "BODY"


def test_tab_and_the_skip_link_in_a_browser(opened):
    page = opened()
    page.keyboard.press("Tab")
    box = page.locator(".skip").bounding_box()
    assert box["x"] >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert rank_in_focus(page) == "1"
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(rank_in_focus(page))
    assert reached == ["2", "3", "5", "6", "7", "8", "9", "10", "11"]


def test_without_javascript_in_a_browser(opened):
    page = opened(script=False)
    assert page.locator("li").count() == 11
    assert page.locator("#keys").is_hidden()
    page.locator("li a").first.click()
    page.wait_for_url("**/a.png")


@pytest.mark.parametrize("width, columns", [(390, 1), (320, 1), (1600, 4)])
def test_fits_screens_in_a_browser(opened, width, columns):
    page = opened(width)
    assert page.evaluate("getComputedStyle(document.querySelector('ol')).gridTemplateColumns.split(' ').length") == columns
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#keys").is_visible() == (columns > 1)  # a phone has no such keys
    image, overlay = page.locator(".boxed img").bounding_box(), page.locator(".boxed svg").bounding_box()
    assert overlay == pytest.approx(image, abs=0.1)


@pytest.mark.slow
def test_dark_in_a_browser(opened):
    background = [
        opened(color_scheme=scheme).evaluate("getComputedStyle(document.body).backgroundColor") for scheme in ("light", "dark")
    ]
    assert background == ["rgb(246, 246, 248)", "rgb(19, 20, 23)"]
