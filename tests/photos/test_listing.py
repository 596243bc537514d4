import os
import pathlib
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rw_keras.photos.items import Item
from rw_keras.photos.listing import Listing, names_of
from rw_keras.photos.reading import ImageError
from rw_keras.photos.remote import Remote

FOLDER = Remote("s3://bucket/photos", below=True)
ITEMS = [
    Item("b.jpg", FOLDER, [10, 20]),
    Item("a/é ü.jpg", FOLDER, [0, -5]),
    Item(os.fsdecode(b"\xff\xfe.jpg"), os.fsdecode(b"/photos/\xff\xfe.jpg"), [2**40, 2**62]),
    Item("c.jpg", ("photos.tar", 512, 1000), None),
    Item("d.jpg", "/photos/d.jpg", None, "It is a folder."),
    Item("e\0f/g.jpg", pathlib.Path("e"), [1, 1]),
    Item("", Remote("s3://bucket/photos.tar", False, 512, 1000), [1000, 0]),
]


def test_is_a_sequence_of_its_items():
    listing = Listing.spooled(iter(ITEMS))
    assert len(listing) == 7 and list(listing) == ITEMS
    assert [listing[place] for place in range(-7, 7)] == ITEMS * 2
    for part in (slice(2, 5), slice(None), slice(5, 2), slice(-2, None), slice(None, None, -2), slice(3, 100)):
        assert listing[part] == ITEMS[part]
    for place in (7, -8):
        with pytest.raises(IndexError):
            listing[place]
    assert list(reversed(listing)) == ITEMS[::-1]


def test_names_are_looked_up():
    listing = Listing.spooled(ITEMS)
    names = [item.name for item in ITEMS]
    assert all(name in listing and name in listing.names for name in names)
    assert ITEMS[0] in listing and ITEMS[0] not in listing.names
    assert not any(name in listing for name in ("a", "a\0é ü.jpg", "B.jpg", None, 3, "e/f\0g.jpg"))
    assert list(listing.names) == names and len(listing.names) == 7
    assert names_of(listing) is not None and names_of(ITEMS) == set(names) and names_of(iter(ITEMS)) is None


def test_items_are_found_by_their_names():
    listing = Listing.spooled(ITEMS)
    assert listing.find([item.name for item in ITEMS[::-1]] + ["none.jpg"]) == {item.name: item for item in ITEMS}
    many = Listing.spooled(Item(f"{number}.jpg", FOLDER, [number, number]) for number in range(1001))
    found = many.find([f"{number}.jpg" for number in range(1, 2000)])
    assert len(found) == 1000 and found["1000.jpg"].stamp == [1000, 1000] and many.find([]) == {}


def test_nothing():
    listing = Listing.spooled([])
    assert len(listing) == 0 and not listing and list(listing) == [] and listing[:] == [] and "" not in listing


@pytest.mark.parametrize("count", [4095, 4096, 4097, 9000])
def test_more_than_are_written_at_once(count):
    listing = Listing.spooled(Item(f"{number:05d}.jpg", FOLDER, [number, number]) for number in range(count))
    assert len(listing) == count and [item.stamp[0] for item in listing] == list(range(count))
    assert listing[4094:4098] == list(listing)[4094:4098]


def test_more_places_than_are_remembered():
    items = [Item(f"{number}.jpg", Remote(f"s3://bucket/{number}.jpg")) for number in range(3000)]
    assert list(Listing.spooled(items)) == items


@pytest.mark.parametrize("in_order", [False, True])
def test_a_name_that_is_given_twice(in_order):
    items = [*ITEMS, Item("z.jpg", FOLDER), Item("b.jpg", FOLDER), Item("z.jpg", FOLDER)]
    with pytest.raises(ImageError, match=r"s3://bucket/photos names 'b.jpg' twice"):
        Listing.spooled(items, "s3://bucket/photos", in_order=in_order)


@given(st.lists(st.text(st.sampled_from("ab-./é\U0001f600\udcff"), min_size=1, max_size=8), unique=True))
def test_the_order_of_a_folder(names):
    plain = [name for name in names if name[0] != "/" and "/".join(pathlib.PurePosixPath(name).parts) == name]
    listing = Listing.spooled((Item(name, FOLDER) for name in plain), in_order=True)
    assert [item.name for item in listing] == sorted(plain, key=lambda name: pathlib.PurePosixPath(name).parts)
    assert [item.name for item in Listing.spooled(Item(name, FOLDER) for name in names)] == names


def test_an_error_of_the_source_is_its_own():
    def items():
        yield ITEMS[0]
        raise ConnectionError("away")

    with pytest.raises(ConnectionError, match="away"):
        Listing.spooled(items())


def test_several_threads():
    listing = Listing.spooled(Item(f"{number:05d}.jpg", FOLDER) for number in range(5000))
    found = []
    threads = [threading.Thread(target=lambda: found.append([item.name for item in listing])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(names == found[0] for names in found)


def test_items_are_pickled_and_the_listing_is_not():
    listing = Listing.spooled(ITEMS)
    assert pickle.loads(pickle.dumps(listing[:])) == ITEMS
    with pytest.raises(TypeError, match="send its items"):
        pickle.dumps(listing)


def test_arrays():
    listing = Listing.spooled([Item("a", np.arange(12).reshape(2, 2, 3))])
    np.testing.assert_array_equal(listing[0].place, np.arange(12).reshape(2, 2, 3))
