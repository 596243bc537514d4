"""Finished fragments -> the index, in the order of the plan."""

from __future__ import annotations

from typing import Any

from rw_keras.cluster.plan import Plan
from rw_keras.description import batcher
from rw_keras.description.job import made_elsewhere, note
from rw_keras.description.update import Update
from rw_keras.retrieval.writer import Writer


def gather(plan: Plan, writer: Writer, update: Update, bar: Any) -> float:
    """Takes all fragments of a plan into an index, a window at a time; goes on where a run was killed.

    What the index no longer asks for, because it was deleted from it or described meanwhile, is left out, and so is what the source
    lists no longer, or in another state than the plan has.

    Args:
        plan: of which all fragments are finished that have a photo which the source still lists.
        writer, update: of the index.
        bar: the progress, which counts each photo.

    Returns:
        How many seconds the network worked on them.

    Raises:
        ValueError: when a fragment is damaged, or is not of the photos of the plan; it names the file.
    """
    seconds = 0.0
    for number in range(plan.count):
        todo = plan.todo(number)
        if not update.still_listed([item for item, _ in todo]):
            bar.advance(0, new=False, count=len(todo))
            continue
        fragment = plan.fragment(number)
        if fragment.names != [item.name for item, _ in todo]:
            raise ValueError(f"Fragment {number} of {plan.place.shown} is of other photos than its plan; remove it, and run again.")
        seconds += fragment.about["network_seconds"]
        for start in range(0, len(todo), batcher.WINDOW):
            stop = min(start + batcher.WINDOW, len(todo))
            window = fragment.window(start, stop, list(update.still_todo([item for item, _ in todo[start:stop]])))
            if window.places:
                note(writer, made_elsewhere(writer.about, fragment.about["described_with"], fragment.about["versions"]))
            update.take(window)
            failed = sum(fault is not None for fault in fragment.faults[start:stop])
            bar.advance(failed, count=stop - start)
    return seconds
