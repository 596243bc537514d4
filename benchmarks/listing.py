"""What it takes to list millions of photos in object storage, by their number.

    python benchmarks/listing.py --photos 1000000 10000000

Items come as pages of a bucket give them, `2026/03/IMG_00000017.jpg` and so on, each with its size and time. They are spooled into
a `Listing`, gone through in order, and all of them looked up, as an update does with an index of as many photos. Each number of
photos runs in a process of its own, whose peak of memory is printed beside what Python and the package take before. The network
is left out: S3 gives a thousand names a request. To make the items is part of spooling them; its share is taken from the first
hundred thousand.
"""

import argparse
import datetime
import itertools
import json
import os
import resource
import subprocess
import sys
import time

from rw_keras.photos import pages
from rw_keras.photos.items import Item
from rw_keras.photos.listing import Listing
from rw_keras.photos.remote import Remote

_BEGIN = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def items(count, in_order):
    """Items of a bucket, in the order of their names or in another one."""
    place = Remote("s3://bucket/photos", below=True)
    for number in range(count):
        number = number if in_order else (number * 7_368_787) % count
        name = f"{2000 + number // 600_000}/{number // 50_000 % 12:02d}/IMG_{number:08d}.jpg"
        changed = _BEGIN + datetime.timedelta(seconds=number)
        about = {"size": 100_000 + number, "LastModified": changed, "ETag": '"0123abcd"'}
        yield Item(name, place, pages.stamp_of(name, about))


def measure(count, in_order):
    """Seconds and megabytes for one number of photos."""
    before = _peak()
    seconds = {}
    began = time.perf_counter()
    some = min(count, 100_000)
    for _ in itertools.islice(items(count, in_order), some):
        pass
    seconds["making the items"] = (time.perf_counter() - began) * count / some
    began = time.perf_counter()
    listing = Listing.spooled(items(count, in_order), in_order=True)
    seconds["spooling, items and all"] = time.perf_counter() - began
    began = time.perf_counter()
    assert sum(1 for _ in listing) == count
    seconds["going through"] = time.perf_counter() - began
    began = time.perf_counter()
    assert all(name in listing for name in listing.names)
    seconds["looking all names up"] = time.perf_counter() - began
    began = time.perf_counter()
    for start in range(0, count, max(1, count // 1000)):
        assert len(listing[start : start + 1024]) == min(1024, count - start)
    seconds["a slice of 1 024"] = (time.perf_counter() - began) / len(range(0, count, max(1, count // 1000)))
    return {"seconds": seconds, "peak": _peak(), "before": before, "bytes": listing.size_on_disk()}


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes, on Linux


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--shuffled", action="store_true", help="items come out of order, as from a list file that is to be sorted")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    values = parser.parse_args()
    if values.one:
        print(json.dumps(measure(values.one, not values.shuffled)))
        return
    for count in values.photos:
        command = [sys.executable, os.path.abspath(__file__), "--one", str(count), *(["--shuffled"] if values.shuffled else [])]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{count:>11,d} photos: peak {found['peak']:.0f} MB, {found['before']:.0f} MB of them before the first one;", end=" ")
        print(f"{found['bytes'] / 1e6:.0f} MB on the disk, {found['bytes'] / count:.0f} bytes a photo")
        for what, seconds in found["seconds"].items():
            print(f"{'':11s} {what:26s} {seconds:10.3f} s")


if __name__ == "__main__":
    main()
