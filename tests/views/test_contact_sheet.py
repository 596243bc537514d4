import numpy as np
import pytest

from rw_keras.files import printable
from rw_keras.views.contact_sheet import Hit, Row, contact_sheet

GREEN, YELLOW, WHITE = (22, 132, 74), (245, 180, 0), (255, 255, 255)


def grey(width=90, height=60, value=128):
    return np.full((height, width, 3), value, "uint8")


def count(sheet, colour):
    """How many pixels have a colour."""
    return int((np.asarray(sheet) == colour).all(axis=-1).sum())


def hits(*right):
    return [Hit(grey(), f"hit {number}", 0.9 - number / 10, one) for number, one in enumerate(right)]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("columns", [0, 1, 5])
def test_size(rows, columns):
    def size(rows, columns):
        return contact_sheet([Row(grey(), "query", None, hits(*[False] * columns))] * rows, "title").size

    width, height = size(rows, columns)
    tile_width = size(1, 2)[0] - size(1, 1)[0]
    tile_height = size(2, 1)[1] - size(1, 1)[1]
    assert (width, height) == (size(1, 0)[0] + columns * tile_width, size(1, 1)[1] + (rows - 1) * tile_height)
    assert min(tile_width, tile_height) > 180


def test_is_as_wide_as_the_longest_row():
    short, long = Row(grey(), "short", None, hits(False)), Row(grey(), "long", None, hits(*[False] * 4))
    assert contact_sheet([short, long], "").width == contact_sheet([long], "").width


def test_right_hits_are_framed_in_green():
    without = contact_sheet([Row(grey(), "query", None, hits(False, False))], "")
    one = contact_sheet([Row(grey(), "query", None, hits(False, True))], "")
    two = contact_sheet([Row(grey(), "query", None, hits(True, True))], "")
    assert count(without, GREEN) == count(without, YELLOW) == 0
    assert count(one, GREEN) > 0
    assert count(two, GREEN) == 2 * count(one, GREEN)


def test_the_frame_lies_around_the_photo():
    sheet = np.asarray(contact_sheet([Row(grey(value=0), "query", None, hits(True))], ""))
    rows, columns = np.nonzero((sheet == GREEN).all(axis=-1))
    inside = sheet[rows.min() + 4 : rows.max() - 3, columns.min() + 4 : columns.max() - 3]
    assert inside.shape == (120, 180, 3)
    assert (inside == 128).all()


def test_the_box_of_the_query_is_yellow_and_in_its_place():
    plain = contact_sheet([Row(grey(), "query", None, hits(False))], "")
    boxed = contact_sheet([Row(grey(), "query", (45, 0, 90, 30), hits(False))], "")  # the upper right quarter
    assert boxed.size == plain.size
    rows, columns = np.nonzero((np.asarray(boxed) == YELLOW).all(axis=-1))
    changed = np.nonzero((np.asarray(boxed) != np.asarray(plain)).any(axis=-1))
    assert {*zip(*changed)} == {*zip(rows, columns)}
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (90, 60)
    photo_rows, photo_columns = np.nonzero((np.asarray(plain)[:, :200] == 128).all(axis=-1))
    assert (rows.min(), columns.max()) == (photo_rows.min(), photo_columns.max())


@pytest.mark.parametrize("shape", [(400, 3), (3, 400), (1, 1), (2000, 1), (1, 2000), (180, 180)])
def test_photos_of_any_shape_stay_in_their_tiles(shape):
    usual = contact_sheet([Row(grey(), "query", None, hits(True))], "")
    row = Row(grey(*shape), "query", None, [Hit(grey(*shape), "hit 0", 0.9, True)])
    sheet = contact_sheet([row], "")
    assert sheet.size == usual.size
    rows, columns = np.nonzero((np.asarray(sheet) == GREEN).all(axis=-1))
    assert np.ptp(rows) <= 180 + 8
    assert np.ptp(columns) <= 180 + 8


def test_long_names_are_shortened_to_their_tile():
    def ink(name):
        """The columns in which a sheet with this name differs from one without a name."""
        sheets = [contact_sheet([Row(grey(), text, None, hits(False))], "") for text in (name, "")]
        first, second = (np.asarray(sheet) for sheet in sheets)
        return np.nonzero((first != second).any(axis=(0, 2)))[0]

    short, long = ink("all souls"), ink("all souls, " * 40)
    assert len(short) > 0
    assert short.max() < long.max() < 14 + 180
    assert ink("写真 Ä " * 90).max() < 14 + 180
    assert ink("i").size > 0


def test_place_and_cosine_stand_below_a_hit():
    def sheet(score):
        return np.asarray(contact_sheet([Row(grey(), "query", None, [Hit(grey(), "hit", score, False)])], ""))

    assert (sheet(0.5) == sheet(0.5001)).all()  # three digits
    assert (sheet(0.5) != sheet(0.6)).any()


def test_the_title_is_drawn():
    row = Row(grey(), "query", None, hits(False))
    assert (np.asarray(contact_sheet([row], "a title")) != np.asarray(contact_sheet([row], ""))).any()
    assert contact_sheet([row], "").mode == "RGB"
    assert contact_sheet([row], "").getpixel((0, 0)) == WHITE
    narrow, wide = (contact_sheet([Row(grey(), "query", None, [])], "title " * count) for count in (9, 90))
    assert narrow.size == wide.size
    assert (np.asarray(wide)[:, -14:] == 255).all()  # cut to the sheet's width


@pytest.mark.parametrize("columns, across, lines", [(None, 7, 1), (9, 7, 1), (7, 7, 1), (6, 6, 2), (3, 3, 3), (1, 1, 7)])
def test_more_hits_than_columns_stand_below(columns, across, lines):
    def size(count, columns=None):
        return np.array(contact_sheet([Row(grey(), "query", None, hits(*[True] * count))], "", columns).size)

    step = size(2)[0] - size(1)[0], size(2, 1)[1] - size(1)[1]
    assert ((size(7, columns) - size(0)) / step).tolist() == [across, lines - 1]
    sheet = contact_sheet([Row(grey(), "query", None, hits(*[True] * 7))] * 2, "", columns)
    assert sheet.height - size(7, columns)[1] == lines * step[1]
    assert count(sheet, GREEN) == 14 * count(contact_sheet([Row(grey(), "query", None, hits(True))], ""), GREEN)


def test_a_hit_may_bring_its_rank():
    def sheet(rank):
        return np.asarray(contact_sheet([Row(grey(), "query", None, [Hit(grey(), "hit", 0.5, rank=rank)])], ""))

    assert (sheet(None) == sheet(1)).all()
    assert (sheet(2) != sheet(1)).any()


def test_a_hit_without_a_photo_has_a_tile():
    sheet = contact_sheet([Row(grey(), "query", None, [Hit(None, "hit", 0.5)])], "")
    assert sheet.size == contact_sheet([Row(grey(), "query", None, hits(False))], "").size
    assert count(sheet, (235, 235, 238)) > 0.9 * 180 * 180


def test_a_box_of_less_than_a_pixel_is_drawn():
    sheet = contact_sheet([Row(grey(1800, 1800), "query", (900, 900, 904, 904), [])], "")
    assert 0 < count(sheet, YELLOW) < 40  # a dot


@pytest.mark.parametrize(
    "text, words",
    [
        ("all souls 写真 Ä", "all souls 写真 Ä"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\udcff\udc80", r"\xff\x80"),
        ("\ud800", r"\ud800"),
        ("\u202e\0", r"\u202e\x00"),
    ],
    ids=ascii,
)
def test_printable(text, words):
    assert printable(text) == words
    sheets = [contact_sheet([Row(grey(), one, None, [Hit(grey(), one, 0.5)])], one) for one in (text, words)]
    assert (np.asarray(sheets[0]) == np.asarray(sheets[1])).all()
