"""Attribution methods, and what each does with the effects of players and sets of players."""

from interaction_train.attributions.allocation import allocation as allocation
from interaction_train.attributions.attribute import METHODS as METHODS, attribute as attribute
from interaction_train.attributions.distribute import distribute as distribute
from interaction_train.attributions.effects import (
    Effects as Effects,
    degree_effects as degree_effects,
    second_order_effects as second_order_effects,
)
from interaction_train.attributions.influence import influence_orders as influence_orders
from interaction_train.attributions.integrated_hessian import (
    integrated_hessian as integrated_hessian,
)
from interaction_train.attributions.principles import (
    PrincipleReport as PrincipleReport,
    check_principles as check_principles,
)
from interaction_train.attributions.rules import table_iv as table_iv
from interaction_train.attributions.scores import (
    box_overlap as box_overlap,
    infidelity as infidelity,
)
