"""Which engine is taken, and that it is measured once."""

import importlib.util

import pytest

from rw_keras import runtimes as engines
from rw_keras.runtimes import choice, describer


@pytest.fixture
def pretend(monkeypatch):
    """A function (checks, seconds): engines are taken to be as exact, and as fast, as these say, by "engine variant"."""

    def set_up(cosines, seconds):
        def check(self, engine, variant):
            if cosines[f"{engine} {variant}"] is None:
                raise ImportError("not there")
            cosine = cosines[f"{engine} {variant}"]
            return {"cosine": cosine, "mean": 1 - (1 - cosine) / 2, "seconds": seconds[f"{engine} {variant}"]}

        def measure(prepared, rows, size):
            runs.append([f"{row['runtime']} {row['variant']}" for row in rows])
            for row in rows:
                row["seconds"] = seconds[f"{row['runtime']} {row['variant']}"]

        runs = []
        monkeypatch.setattr(describer.ModelRuntimes, "check", check)
        monkeypatch.setattr(choice, "_measure", measure)
        return runs

    return set_up


NAMES = ["tensorflow float32", "tensorflow bfloat16", "openvino float32", "openvino bfloat16", "ncnn float32", "ncnn bfloat16"]


def values(default, **others):
    return dict.fromkeys(NAMES, default) | {name.replace("_", " "): value for name, value in others.items()}


class TestChoose:
    def test_the_fastest_that_keeps_the_promise(self, known, pretend):
        pretend(values(1.0, openvino_bfloat16=0.99999), values(0.5, openvino_bfloat16=0.1, ncnn_float32=0.3))
        exact, fast = engines.choose(known), engines.choose(known, "fast")
        assert (exact.runtime, exact.variant) == ("ncnn", "float32")
        assert (fast.runtime, fast.variant) == ("openvino", "bfloat16")
        assert "taken: the fastest" in str(fast) and "0.100" in str(fast)

    def test_one_that_breaks_it_is_not_measured(self, known, pretend):
        runs = pretend(values(1.0, ncnn_float32=0.9, tensorflow_bfloat16=float("nan")), values(0.5, ncnn_float32=0.1))
        chosen = engines.choose(known, "fast")
        assert chosen.runtime == "tensorflow"
        assert "ncnn float32" not in runs[0] and "tensorflow bfloat16" not in runs[0]
        assert str(chosen).count("cosine too low") == 2

    def test_a_margin_is_left(self, known, pretend):
        pretend(
            values(1.0, openvino_bfloat16=0.99996, ncnn_bfloat16=0.999985), values(0.5, openvino_bfloat16=0.1, ncnn_bfloat16=0.2)
        )
        assert (engines.choose(known, "fast").runtime, engines.choose(known).runtime) == ("ncnn", "tensorflow")

    def test_one_that_is_hopeless_is_not_measured(self, known, pretend):
        runs = pretend(values(1.0), values(0.5, tensorflow_bfloat16=9.0))
        engines.choose(known, "fast")
        assert "tensorflow bfloat16" not in runs[0]

    def test_a_gain_of_chance_changes_nothing(self, known, pretend):
        pretend(values(1.0), values(0.5, ncnn_float32=0.49))
        assert engines.choose(known).runtime == "tensorflow"

    def test_one_that_is_not_installed_is_named(self, known, pretend):
        pretend(values(1.0, openvino_float32=None), values(0.5, ncnn_float32=0.3))
        assert 'not installed: pip install "rw_keras[openvino]"' in str(engines.choose(known))

    def test_none(self, known, pretend):
        pretend(values(0.5), values(0.5))
        with pytest.raises(ValueError, match=r'None of tensorflow, openvino, ncnn keeps precision="exact".*cosine too low'):
            engines.choose(known)

    def test_measured_once(self, known, pretend):
        runs = pretend(values(1.0), values(0.5))
        first = engines.choose(known)
        assert engines.choose(known) == first and len(runs) == 1
        engines.choose(known, size=(96, 128))
        engines.choose(known, anew=True)
        assert len(runs) == 3

    @pytest.mark.slow
    def test_for_real(self, known):
        chosen = engines.choose(known, "exact", (48, 64))
        installed = [name for name in engines.usable() if importlib.util.find_spec(name)]
        assert [row["runtime"] for row in chosen.rows if row["seconds"] is not None or "small photo" in row["note"]] == installed
        assert all(row["cosine"] >= 0.999999 for row in chosen.rows if row["cosine"] is not None)

    @pytest.mark.slow
    def test_xla_where_sizes_are_few(self, known):
        chosen = engines.choose(known, "exact", (32, 32), runtimes=("tensorflow",), few_sizes=True)
        assert [row["variant"] for row in chosen.rows] == ["float32", "float32 xla"]
        assert chosen.rows[1]["cosine"] >= 0.999999


@pytest.mark.parametrize(
    ("max_side", "min_side", "size"), [(1024, 16, (384, 512)), (None, 16, (384, 512)), (256, 16, (192, 256)), (32, 30, (30, 32))]
)
def test_usual_size(max_side, min_side, size):
    assert engines.usual_size(max_side, min_side) == size
