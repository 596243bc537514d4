"""mAP on Oxford5k, by its own protocol.

    python examples/eval_oxford5k.py --photos oxford5k/jpg --ground_truth oxford5k/gt

Photos and ground truth lie as in the original archives: `all_souls_000013.jpg`, and `all_souls_1_query.txt` with
`all_souls_1_good.txt`, `_ok.txt` and `_junk.txt`. The whitening that ships with the package was learned on Paris photos;
`--whitening paris6k/jpg` learns one from all of Paris6k.
"""

from rw_keras.commands.evaluation_program import evaluation_program

if __name__ == "__main__":
    evaluation_program(__doc__, "Oxford5k", qe=[1, 5])
