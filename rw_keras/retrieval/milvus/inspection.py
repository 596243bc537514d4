"""What an index in Milvus holds, in numbers, and whether its collections agree."""

from __future__ import annotations

import contextlib
import json
import time

import numpy as np

from rw_keras.retrieval.milvus.index import missing, opened
from rw_keras.retrieval.milvus.layout import LEASE, PARTS
from rw_keras.retrieval.milvus.ledger import Ledger
from rw_keras.retrieval.milvus.pages import MilvusPages
from rw_keras.retrieval.milvus.repair import differing
from rw_keras.retrieval.milvus.views import View, widened
from rw_keras.retrieval.store import Damage
from rw_keras.retrieval.summary import Summary


@contextlib.contextmanager
def _ledger(place):
    with contextlib.closing(opened(place)) as connection:
        ledger = Ledger(connection)
        about = ledger.about()
        if about is None:
            raise missing(place)
        yield ledger, about


def summary(place: str) -> Summary:
    """Counts what an index holds; errors as for `rw_keras.retrieval.milvus.MilvusIndex`."""
    with _ledger(place) as (ledger, about):
        left_out = unread = by_hand = 0
        for known, _ in ledger.records(about["next_id"]):
            left_out += not known.described
            unread += known.described and known.fault is not None
            by_hand += known.described and known.listed is False
        columns = dict.fromkeys(about["columns"], 0)
        view = View(ledger, about)
        pages = ledger.connection.pages(ledger.collections.vectors, about["next_id"], ["metadata"]) if columns else ()
        for page in pages:
            for own in view.metadata_in(page):
                for column, value in own.items():
                    columns[column] += value is not None
        photos = ledger.count("described == true")
        told = {**about, "kept_by": ledger.connection.kind}
        return Summary(told, photos, left_out, unread, by_hand, len(ledger.excluded()), columns, {})


def check(place: str) -> list[Damage]:
    """Reads all of an index, and says where its collections do not agree; errors as for `summary`. There are no checksums."""
    found: list[Damage] = []
    with _ledger(place) as (ledger, about):
        own, stop = ledger.collections, about["next_id"]
        stray, _ = differing(ledger, stop)
        if stray:
            found.append(Damage(own.vectors, f"it holds {len(stray)} vectors of photos that are not described", []))
        outside = 0 if _is_written(ledger) else ledger.connection.count(own.vectors, f"id < 0 or id >= {stop}")
        if outside:
            what = f"it holds {outside} vectors that are no part of the index: an unfinished writer's, or another client's"
            found.append(Damage(own.vectors, what, []))
        known: set[str] = set()
        damaged: dict[str, list[str]] = {}
        for page in MilvusPages(ledger, about).read():
            known |= {name for _, name in page.names}
            for name, what in page.damaged.items():
                damaged.setdefault(what, []).append(name)
            found += _strange(own.vectors, [photo for photo in page.photos if photo.known.described])
        found += [Damage(own.ledger, f"it names {len(names)} {what}", sorted(names)) for what, names in damaged.items()]
        both = sorted(known & ledger.excluded())
        if both:
            found.append(Damage(own.ledger, f"it holds {len(both)} photos whose names are excluded", both))
        if about.get("regions"):
            found += _without_regions(ledger, stop)
    return found


def _is_written(ledger):
    """Whether a process writes it now, so that there are vectors that it has not committed yet."""
    found = ledger.connection.find(ledger.collections.ledger, f"kind == {LEASE}", ["value"])
    return any(json.loads(row["value"])["until"] > time.time() for row in found)


def _strange(collection, photos):
    if not photos:
        return
    lengths = np.linalg.norm(widened(np.stack([photo.row for photo in photos])), axis=1)
    good = (np.abs(lengths - 1) < 2e-3) | (lengths == 0)
    if not good.all():
        names = [photo.name for photo, own in zip(photos, good) if not own]
        yield Damage(collection, f"{len(names)} vectors are not of unit length", names)


def _without_regions(ledger, stop):
    connection, own = ledger.connection, ledger.collections
    ids = {row["id"] for page in connection.pages(own.vectors, stop, []) for row in page}
    pages = connection.pages(own.regions, stop * PARTS, [], step=PARTS * 4096)
    with_some = {row["id"] // PARTS for page in pages for row in page}
    lacking = sorted(ids - with_some)
    if lacking:
        names = sorted(ledger.named(lacking).values())
        yield Damage(own.regions, f"it has no entry of the region vectors of {len(lacking)} photos", names)
