"""Images revised until what a network takes for prototypical stands out."""

from interaction_train.revising.revise import revise_image as revise_image
from interaction_train.revising.revision import (
    Revision as Revision,
    revisions_figure as revisions_figure,
)
