"""The arithmetic of processors: how many actors fit on the machines of a cluster."""

import math

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
        ([EIGHT, FOUR], {"free": 5}, Fleet(1, 4, 0)),
        ([EIGHT, GPUS], {"gpus": 1}, Fleet(1, 8, 1)),
        ([EIGHT, GPUS], {"gpus": 1, "processors": 2}, Fleet(2, 2, 1)),
        ([EIGHT, GPUS], {"gpus": 0.5, "processors": 2}, Fleet(4, 2, 0.5)),
    ],
)
def test_actors_that_fit(machines, arguments, expected):
    assert fleet_for(machines, **{"free": math.inf, "processors": None, "gpus": 0, **arguments}) == expected


@pytest.mark.parametrize(
    ("machines", "arguments", "words"),
    [
        ([], {}, "No machine of the Ray cluster has a processor"),
        ([EIGHT, FOUR], {"processors": 9}, "takes 9 processors, and no machine .* 10.0.0.1 has 8, 10.0.0.2 has 4"),
        ([EIGHT], {"gpus": 1}, "takes 1 processor and 1 GPU, and no machine"),
        ([EIGHT, FOUR], {"processors": 3, "most": 4}, "3 actors fit on the cluster, and you asked for 4"),
        ([EIGHT, FOUR], {"free": 3}, "takes 4 processors, and of the cluster's 12 only 3 are free"),
    ],
)
def test_what_ray_would_wait_for_for_ever_is_refused(machines, arguments, words):
    with pytest.raises(ValueError, match=words):
        fleet_for(machines, **{"free": math.inf, "processors": None, "gpus": 0, **arguments})
