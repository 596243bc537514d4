"""The arithmetic of processors: how many actors fit on the machines of a cluster."""

import pytest

from rw_keras.cluster.nodes import Fleet, Node, fleet_for

EIGHT, FOUR, GPUS = Node("a", "10.0.0.1", 8, 0.0), Node("b", "10.0.0.2", 4, 0.0), Node("c", "10.0.0.3", 8, 2.0)


@pytest.mark.parametrize(
    ("machines", "arguments", "expected"),
    [
        ([EIGHT], {}, Fleet(1, 8, 0)),
        ([EIGHT, FOUR], {}, Fleet(3, 4, 0)),
        ([EIGHT, FOUR], {"processors": 3}, Fleet(3, 3, 0)),
        ([EIGHT, FOUR], {"processors": 5}, Fleet(1, 5, 0)),
        ([EIGHT, FOUR], {"processors": 1, "most": 2}, Fleet(2, 1, 0)),
        ([EIGHT, FOUR], {"free": {"a": {"CPU": 3.5}, "b": {"CPU": 4.0}}}, Fleet(1, 4, 0)),
        ([EIGHT, FOUR], {"free": {"a": {"CPU": 4.0}, "b": {"CPU": 4.0}}, "most": 1}, Fleet(1, 4, 0)),
        ([EIGHT, GPUS], {"gpus": 1, "processors": 2, "free": {"c": {"CPU": 8.0, "GPU": 1.0}}}, Fleet(1, 2, 1)),
        ([EIGHT, GPUS], {"gpus": 1}, Fleet(1, 8, 1)),
        ([EIGHT, GPUS], {"gpus": 1, "processors": 2}, Fleet(2, 2, 1)),
        ([EIGHT, GPUS], {"gpus": 0.5, "processors": 2}, Fleet(4, 2, 0.5)),
    ],
)
def test_actors_that_fit(machines, arguments, expected):
    assert fleet_for(machines, **{"free": None, "processors": None, "gpus": 0, **arguments}) == expected


@pytest.mark.parametrize(
    ("machines", "arguments", "words"),
    [
        ([], {}, "No machine of the Ray cluster has a processor"),
        ([EIGHT, FOUR], {"processors": 9}, "takes 9 processors, and no machine .* 10.0.0.1 has 8, 10.0.0.2 has 4"),
        ([EIGHT], {"gpus": 1}, "takes 1 processor and 1 GPU, and no machine"),
        ([EIGHT, FOUR], {"processors": 3, "most": 4}, "3 actors fit on the cluster, and you asked for 4"),
        (
            [EIGHT, FOUR],
            {"free": {"a": {"CPU": 3.0}, "b": {"CPU": 3.0}}},
            "takes 4 processors, and no machine has as many free now: 10.0.0.1 has 3 of 8, 10.0.0.2 has 3 of 4; wait",
        ),
        (
            [EIGHT, GPUS],
            {"gpus": 1, "processors": 2, "free": {"a": {"CPU": 8.0}, "c": {"CPU": 8.0}}},
            "takes 2 processors and 1 GPU, and no machine has as many free now: 10.0.0.3 has 8 of 8 and 0 of 2 GPUs",
        ),
    ],
)
def test_what_ray_would_wait_for_for_ever_is_refused(machines, arguments, words):
    with pytest.raises(ValueError, match=words):
        fleet_for(machines, **{"free": None, "processors": None, "gpus": 0, **arguments})
