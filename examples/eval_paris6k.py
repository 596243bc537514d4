"""mAP on Paris6k, by its own protocol.

    python examples/eval_paris6k.py --photos paris6k/jpg --ground_truth paris6k/gt \\
        --whitening oxford5k/jpg

Photos and ground truth lie as in the original archives. The 20 photos that are damaged in them are left out, as everywhere
in the literature. The whitening has to be learned on another set, such as Oxford5k: the one that ships with the package
was learned on Paris photos, and is refused.
"""

from rw_keras.commands.evaluation_program import evaluation_program
from rw_keras.datasets.oxford import PARIS6K_CORRUPT

if __name__ == "__main__":
    evaluation_program(__doc__, "Paris6k", qe=[1, 10], corrupt=PARIS6K_CORRUPT)
