"""rw-keras pull URL NAME: write the index at URL into the new folder NAME, compared when all of it is there.

URL: what `rw-keras push` takes. Interrupted, it resumes where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace

from rw_keras.commands.moving import check_url, told
from rw_keras.commands.parser import Parser, UsageError
from rw_keras.commands.programs import DONE


def define(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.switch("json", "Print the summary as JSON.")
    parser.switch("quiet", "No progress bar.", short="q")


def run(values: Namespace) -> int:
    """Runs the command and returns its exit status."""
    if len(values.arguments) != 2:
        raise UsageError(f"pull takes where an index is and where it goes, URL NAME, but got {len(values.arguments)} arguments")
    url, name = values.arguments
    check_url("pull", url)
    from rw_keras.retrieval.places import is_milvus, shown

    if not is_milvus(url):
        from rw_keras import storage
        from rw_keras.retrieval import object_storage

        done = object_storage.pull(url, name)
        print(
            json.dumps({"index": name, "url": storage.shown(url), **dataclasses.asdict(done)}) if values.json else f"{name}: {done}"
        )
        return DONE
    from rw_keras.retrieval.milvus.transfer import pull

    with told(values.quiet) as progress:
        done = pull(url, name, progress=progress)
    if values.json:
        print(json.dumps({"index": name, "url": shown(url), **done._asdict()}))
    else:
        print(f"{name}: {done.photos} photos, {done.written} of them written; the same as {shown(url)} (digest {done.digest[:16]})")
    return DONE
