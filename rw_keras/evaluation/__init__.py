"""How good a search is: of an index, by a user's own labels, and the publication's evaluation (examples/reproduce_tables.py)."""

from rw_keras.evaluation.index_evaluation import IndexEvaluation, evaluate_index

__all__ = ["IndexEvaluation", "evaluate_index"]
