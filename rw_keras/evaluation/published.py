"""What the publication's tables print, and which row of this package stands beside each."""

import dataclasses

# Table 1, without query expansion: (network, scales) -> mAP; scales 0: CroW. Its text says Oxford5k; the numbers are Paris6k's, as
# Table 2 shows.
TABLE_1_SET = "paris6k"
TABLE_1 = {
    ("alexnet", 1): 0.710,
    ("alexnet", 2): 0.734,
    ("alexnet", 3): 0.743,
    ("alexnet", 4): 0.738,
    ("vgg16", 0): 0.797,
    ("vgg16", 1): 0.798,
    ("vgg16", 2): 0.809,
    ("vgg16", 3): 0.805,
    ("vgg16", 4): 0.797,
}

COLUMNS = ("paris6k", "oxford5k", "paris106k", "oxford105k")


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of Table 2.

    Attributes:
        name: the method, as printed.
        dimensions: of the descriptor.
        values: set -> mAP.
        values_30: set -> mAP with a query expansion of 30, where that is printed beside.
        network, method: what this package computes beside it; `None`: the row is quoted.
        expanded: whether it is with query expansion.
        note: what else is to be known.
    """

    name: str
    dimensions: int
    values: dict[str, float]
    values_30: dict[str, float] = dataclasses.field(default_factory=dict)
    network: str | None = None
    method: str | None = None
    expanded: bool = False
    note: str = ""


def _values(*numbers):
    return {name: number for name, number in zip(COLUMNS, numbers) if number is not None}


TABLE_2 = (
    Published("Triangulation embedding", 1024, _values(None, 0.560, None, 0.502)),
    Published("Neural codes", 256, _values(None, 0.435, None, None), note="Oxford105k is printed as 0.749, a misprint"),
    Published("Razavian et al.", 256, _values(0.670, 0.533, None, 0.489)),
    Published("SPoC", 256, _values(None, 0.531, None, 0.501), network="vgg16", method="spoc"),
    Published("R-MAC", 256, _values(0.729, 0.561, 0.601, 0.470), network="alexnet", method="rmac"),
    Published("RW (AlexNet)", 256, _values(0.743, 0.593, 0.614, 0.532), network="alexnet", method="rw"),
    Published("Neural codes", 512, _values(None, 0.435, None, 0.392)),
    Published("R-MAC", 512, _values(0.830, 0.669, 0.757, 0.616), network="vgg16", method="rmac"),
    Published("RW (VGG16)", 512, _values(0.805, 0.683, 0.733, 0.626), network="vgg16", method="rw"),
    Published(
        "RW + QE (AlexNet)",
        256,
        _values(0.812, 0.670, 0.702, 0.630),
        {"paris6k": 0.822, "paris106k": 0.720},
        network="alexnet",
        method="rw",
        expanded=True,
    ),
    Published("CroW + QE", 512, _values(0.848, 0.749, 0.794, 0.706), network="vgg16", method="crow", expanded=True),
    Published(
        "RW + QE (VGG16)",
        512,
        _values(0.860, 0.751, 0.813, 0.717),
        {"paris6k": 0.873, "paris106k": 0.822},
        network="vgg16",
        method="rw",
        expanded=True,
    ),
)

# How many vectors are averaged, the query among them.
QE = {"oxford5k": 5, "paris6k": 10}
