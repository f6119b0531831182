"""The embedded text world: multi-step arithmetic with worked chains and an exact checker. Needs no download."""

from .chains import check
from .problems import Problem, dataset, problem
from .questions import negative

__all__ = ["Problem", "check", "dataset", "negative", "problem"]
