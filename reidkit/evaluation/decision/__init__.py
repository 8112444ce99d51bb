"""Same or not, known or not: thresholds with a promise, probabilities, an "unknown" answer."""

from reidkit.evaluation.decision.decide import Decision, decide
from reidkit.evaluation.decision.open_set import Answer, OpenSet, identify, open_set
from reidkit.evaluation.decision.thresholds import TooFewPairs

__all__ = ["decide", "Decision", "TooFewPairs", "open_set", "OpenSet", "identify", "Answer"]
