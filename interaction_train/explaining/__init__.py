"""Explaining single predictions: what each part of an input, and each pair of parts, adds."""

from interaction_train.explaining.explain import explain as explain
from interaction_train.explaining.explanation import Explanation as Explanation
from interaction_train.explaining.texts import explain_texts as explain_texts
