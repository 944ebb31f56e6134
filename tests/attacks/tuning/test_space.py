"""What a search chooses from: ranges, names, and the attacks that YAML makes of a choice."""

import pytest
from jsonargparse import ArgumentError
from torch import nn

from interaction_train.attacks import Momentum, RandomNoise, TransferAttack
from interaction_train.attacks.objectives import InteractionObjective, MaskedObjective
from interaction_train.attacks.tuning.space import Space, read_attack, with_budget
from interaction_train.errors import InputError
from interaction_train.losses import GroupReduction


class Trial:
    """Answers as it is told, and by the first choice; notes what it was asked."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, {}

    def suggest_categorical(self, name, choices):
        self.asked[name] = choices
        return self.answers.get(name, choices[0])

    def suggest_float(self, name, low, high, log=False):
        self.asked[name] = float, low, high, log
        return self.answers.get(name, low)

    def suggest_int(self, name, low, high, log=False):
        self.asked[name] = int, low, high, log
        return self.answers.get(name, low)


def made(attack):
    return read_attack(with_budget(attack, 0.1, "L2", 8, 2.0))(nn.Linear(2, 2))


def test_ranges_choices_and_fixed_values():
    space = Space({
        "RandomNoise": {
            "radius": {"low": 0.5, "high": 2.0, "log": True},
            "kind": ["uniform", "normal"],
            "copies": {"low": 2, "high": 8},
        },
        "Momentum": {"normalize": "L2"},
        "alpha": {"low": 1.0, "high": 4.0},
    })  # fmt: skip
    trial = Trial(**{"RandomNoise.kind": "normal", "RandomNoise.copies": 5, "alpha": 3.0})
    attack, alpha = space.suggest(trial)
    assert alpha == 3
    assert trial.asked == {
        "RandomNoise": [True, False],
        "RandomNoise.radius": (float, 0.5, 2.0, True),
        "RandomNoise.kind": ["uniform", "normal"],
        "RandomNoise.copies": (int, 2, 8, False),
        "Momentum": [True, False],
        "alpha": (float, 1.0, 4.0, False),
    }
    found = made(attack)
    noise, momentum = found.parts
    assert isinstance(found, TransferAttack)
    assert (noise.radius, noise.kind, noise.copies) == (0.5, "normal", 5)
    assert (momentum.normalize, momentum.decay) == ("L2", 1.0)
    assert found.objective.loss == "cross_entropy"


def test_parts_are_used_or_not_and_objectives_one_of_several():
    space = Space({
        "Momentum": None,
        "interaction_train.attacks.parts.inputs.RandomNoise": {},
        "MaskedObjective": {"loss": "margin"},
        "InteractionObjective": {
            "reduction": {"class_path": "GroupReduction", "init_args": {"draws": 3}},
        },
    })  # fmt: skip
    first = made(space.suggest(Trial(Momentum=False))[0])
    assert [type(part) for part in first.parts] == [RandomNoise]
    assert type(first.objective) is MaskedObjective
    second = made(space.suggest(Trial(objective="InteractionObjective"))[0])
    assert [type(part) for part in second.parts] == [Momentum, RandomNoise]
    assert type(second.objective) is InteractionObjective
    assert isinstance(second.objective.reduction, GroupReduction)
    assert second.objective.reduction.draws == 3


def test_every_part_alone_then_none():
    space = Space({"Momentum": {}, "RandomNoise": {}})
    assert [space.alone(k) for k in range(4)] == [
        {"Momentum": True, "RandomNoise": False},
        {"Momentum": False, "RandomNoise": True},
        {"Momentum": False, "RandomNoise": False},
        None,
    ]


@pytest.mark.parametrize(("alpha", "size"), [(2.0, 0.1 * 2 / 8), (40.0, 0.1)])
def test_the_step_size_is_in_units_of_eps_over_steps(alpha, size):
    attack, _ = Space({"Momentum": {}}).suggest(Trial())
    found = read_attack(with_budget(attack, 0.1, "L2", 8, alpha))(nn.Linear(2, 2))
    assert (found.eps, found.alpha, found.steps, found.norm) == (0.1, size, 8, "L2")


def test_the_default_knows_all_its_settings():
    space = Space()
    assert {"RandomNoise", "InputDiversity", "Momentum"} <= space.parts.keys()
    made(space.suggest(Trial())[0])


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"Momentun": {}}, "a part or an objective: .*Momentum"),
        ({"torch.nn.Linear": {}}, "a part or an objective"),
        ({"Momentum": [1]}, "a mapping"),
        ({"Momentum": {"decay": []}}, "empty"),
        ({"Momentum": {"decay": {"low": 1, "high": 0}}}, "low ≤ high"),
        ({"Momentum": {"decay": {"low": 0, "high": 1, "log": True}}}, "positive"),
        ({"Momentum": {"decay": {"low": 0, "high": 1, "step": 1}}}, "low, high"),
        ({"alpha": {"low": "1", "high": 2}}, "space.alpha"),
        ({"alpha": {"low": -1.0, "high": 2.0}}, "space.alpha: .*positive"),
        ({"alpha": [2, 0]}, "space.alpha: .*positive"),
        ({"alpha": None}, "space.alpha: .*positive"),
        (["Momentum"], "^space: .*a mapping"),
        ({"RandomNoise": {"copies": {"low": 0, "high": 4}}}, "at least 1"),
    ],
)
def test_bad_spaces(space, said):
    with pytest.raises(InputError, match=said):
        Space(space)


@pytest.mark.parametrize("settings", [{"dekay": [1]}, {"decay": ["much"]}, {"decay": {"low": 1}}])
def test_settings_that_a_class_does_not_know(settings):
    with pytest.raises(ArgumentError, match=r"dekay|decay"):
        Space({"Momentum": settings})
