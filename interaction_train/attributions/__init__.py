"""Attribution methods, and what each does with the effects of players and sets of players."""

from interaction_train.attributions.allocation import allocation as allocation
from interaction_train.attributions.attribute import METHODS as METHODS, attribute as attribute
from interaction_train.attributions.principles import (
    PrincipleReport as PrincipleReport,
    check_principles as check_principles,
)
