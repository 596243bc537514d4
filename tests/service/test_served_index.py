"""An index that changes while it is served."""

import shutil

import numpy as np
import pytest
from numpy_describer import numpy_describer

from rw_keras.retrieval import Index, store
from rw_keras.service.served import ServedIndex


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def served(folder, describer, tmp_path):
    return ServedIndex("index", folder, describer, cache=tmp_path / "cache")


def remove(folder, name):
    index = Index.load(folder)
    index.remove([name])
    index.save(folder)


def test_what_changes_is_taken_up(served, folder):
    state = served.state
    assert not served.refresh(at_once=True)
    remove(folder, "00.png")
    assert served.refresh(at_once=True)
    assert "00.png" not in served.index.names
    assert served.state.mark != state.mark


def test_the_state_before_stays_as_it_was(served, folder):
    state = served.state
    query = np.asarray(state.index.descriptors[3])
    hits = state.index.search(query, 16)
    remove(folder, "00.png")
    served.refresh(at_once=True)
    assert state.index.search(query, 16) == hits


def test_it_is_looked_at_once_a_second(served, folder):
    remove(folder, "00.png")
    served.refresh(at_once=True)
    remove(folder, "01.png")
    assert not served.refresh()
    assert served.refresh(at_once=True)


@pytest.mark.parametrize("harm", ["no database", "half a database", "half the rows", "nothing", "another model"])
def test_a_state_that_cannot_be_loaded_changes_nothing(served, folder, made, caplog, harm):
    state, kept = served.state, folder.with_name("kept")
    remove(folder, "00.png")
    shutil.copytree(folder, kept)
    if harm == "no database":
        (folder / store.DATABASE).unlink()
    elif harm == "half a database":
        content = (folder / store.DATABASE).read_bytes()
        (folder / store.DATABASE).write_bytes(content[: len(content) // 2])
    elif harm == "half the rows":
        (rows,) = folder.glob("rows-*.bin")
        rows.rename(folder / "rows-0.bin")
    elif harm == "nothing":
        shutil.rmtree(folder)
    else:
        shutil.rmtree(folder)
        Index.from_folder(numpy_describer(9), made[0].parent / "photos", progress=False).save(folder)
    for _ in range(3):
        assert not served.refresh(at_once=True)
    assert served.state is state
    assert served.stale
    assert len([record for record in caplog.records if "served as it was" in record.message]) == 1
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(kept, folder)
    assert served.refresh(at_once=True)
    assert served.stale is None
    assert "00.png" not in served.index.names


@pytest.mark.slow
def test_a_stale_one_is_told(serve, folder):
    import asyncio

    async def run():
        async with serve(folder) as client:
            (folder / store.DATABASE).rename(folder / "away")
            client.served.refresh(at_once=True)
            await asyncio.sleep(1.2)
            ready = (await client.get("/v2/health/ready")).json()
            search = (await client.post("/v1/search", json={"name": "00.png"})).status_code
            return ready, search, (await client.get("/metrics")).text

    ready, search, metrics = asyncio.run(run())
    assert (ready, search) == ({"ready": True, "stale": ["index"]}, 200)
    assert 'rw_keras_index_is_stale{index="index"} 1.0' in metrics


def test_another_model_is_refused(made, tmp_path):
    with pytest.raises(ValueError, match="another model"):
        ServedIndex("index", made[0], numpy_describer(8), cache=tmp_path)
