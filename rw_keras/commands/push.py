"""rw-keras push NAME URL: bring what is at URL to what the index NAME holds; what is there and alike is not written again.
Photos that NAME does not hold leave the copy.

URL: milvus://HOST:19530/COLLECTION or milvus:///PATH/FILE.db, where the index can be searched;
or the address of object storage, such as s3://BUCKET/INDEX, where its files go.
"""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace

from rw_keras.commands.moving import check_url, told
from rw_keras.commands.parser import Parser, UsageError, one_of, text, whole_number
from rw_keras.commands.programs import DONE

_PARAMETERS = ("m", "ef_construction", "ef_search", "nlist", "nprobe", "search_list")


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.switch("prune", "Let any number of photos leave a collection of Milvus, also more than half of it.")
    parser.switch("json", "Print the summary as JSON.")
    parser.switch("quiet", "No progress bar.", short="q")
    parser.switch("replace", "In object storage, take the place of a copy of another index, or of a later state.")
    parser.section("A collection of Milvus that is not there yet")
    words = "What descriptors are kept as: float32, float16 or int8. Default: as the index has them."
    parser.flag("dtype", words, one_of(("float32", "float16", "int8")))
    words = "What it is searched by: milvus-flat, milvus-hnsw, milvus-ivf-flat, milvus-ivf-sq8, milvus-diskann."
    parser.flag("searcher", words, text("NAME"), "milvus-flat")
    words = {
        "m": "Neighbours of a node of the graph of milvus-hnsw.",
        "ef_construction": "Nodes that are looked at when one is added to it.",
        "ef_search": "Nodes that a search of it keeps.",
        "nlist": "Lists of milvus-ivf-flat and milvus-ivf-sq8.",
        "nprobe": "Lists that a search looks at.",
        "search_list": "Nodes that a search of milvus-diskann keeps.",
    }
    for name in _PARAMETERS:
        parser.flag(name, words[name], whole_number(1))


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    if len(values.arguments) != 2:
        raise UsageError(f"push takes an index and where it goes, NAME URL, but got {len(values.arguments)} arguments")
    name, url = values.arguments
    check_url("push", url)
    from rw_keras.retrieval.places import is_milvus, shown

    if not is_milvus(url):
        return _to_storage(name, url, values)
    from rw_keras.retrieval.milvus.layout import Structure
    from rw_keras.retrieval.milvus.transfer import push

    if values.replace:
        raise UsageError(f"--replace is of a copy in object storage, and {shown(url)} is a collection of Milvus; leave it out")
    given = {parameter: getattr(values, parameter) for parameter in _PARAMETERS if parameter in values.given}
    searcher = Structure.of(values.searcher, **given) if given or "searcher" in values.given else None
    with told(values.quiet) as progress:
        done = push(name, url, dtype=values.dtype, searcher=searcher, prune=values.prune, progress=progress)
    if values.json:
        print(json.dumps({"index": name, "url": shown(url), **done._asdict()}))
    else:
        print(f"{shown(url)}: {done.photos} photos, {done.written} of them written; the same as {name} (digest {done.digest[:16]})")
    return DONE


def _to_storage(name, url, values):
    from rw_keras import storage

    shown = storage.shown(url)
    for flag in ("prune", "dtype", "searcher", *_PARAMETERS):
        if flag in values.given:
            raise UsageError(f"--{flag} is of a collection of Milvus, and {shown} is none; leave it out")
    from rw_keras.retrieval import object_storage

    done = object_storage.push(name, url, values.replace)
    told = {"index": name, "url": shown, **dataclasses.asdict(done)}
    print(json.dumps(told) if values.json else f"{shown}: {done}")
    return DONE
