"""The job of ``interaction-train explain``: samples in, figures, tables and graphs out."""

from __future__ import annotations

import difflib
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import lightning as L
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from interaction_train.errors import InputError, at_least, in_range
from interaction_train.explaining.explain import explain
from interaction_train.explaining.explanation import Explanation
from interaction_train.explaining.files import FewConcepts, check_folder, few_concepts, write_files
from interaction_train.explaining.pictures import Fitting, channels_of
from interaction_train.explaining.preset import Preset, find_preset
from interaction_train.explaining.subjects import (
    GRID,
    Input,
    first_samples,
    image_file,
    load_data,
    sentences,
)
from interaction_train.explaining.summary import print_files, print_summary
from interaction_train.game.absence import Baseline, default_baseline, read_baseline
from interaction_train.game.evaluation import eval_logits, logits_of, unwrap
from interaction_train.game.normalize import Normalize
from interaction_train.game.tokens import TokenPlayers
from interaction_train.models.weights import load_weights
from interaction_train.recovery import Recovered

_QUICK = 12  # players, whose concepts are found in seconds; those of 16 take a minute or two


class Normalization(TypedDict):
    """Of pixels in [0, 1], one number per channel: what a network was trained with."""

    mean: list[float]
    std: list[float]


def explain_samples(
    model: nn.Module,
    image: list[str] | str | None = None,
    text: list[str] | str | None = None,
    data: L.LightningDataModule | None = None,
    samples: int = 3,
    ckpt_path: str | None = None,
    preset: str | None = None,
    normalization: Normalization | None = None,
    size: int | None = None,
    channels: int | None = None,
    classes: list[str] | str | None = None,
    label: int | str | None = None,
    players: str | None = None,
    payoff: str = "log_odds",
    baseline: Baseline | None = None,
    budget: int = 2**16,
    count: int = 12,
    noise: float = 0.04,
    network: str | None = None,
    out: str | Path = "explained",
    overwrite: bool = False,
    seed: int = 0,
    accelerator: str = "auto",
) -> list[Explanation]:
    """Explain what a network says about samples: which parts count, which count together.

    Samples are images, sentences or rows of columns. ``out`` gets a folder per sample, named as the
    image's file, or ``sentence0``, ``sample0``, ….
    In it: ``heatmap``, ``pairs``, ``matrix``, ``spectrum``, ``network`` and ``concepts`` as PNG and
    SVG; ``explanation.json``, ``players.csv``, ``pairs.csv``; ``concepts.csv``, ``graph.dot`` and
    ``graph.json``; of sentences ``tree``, as a figure too. Where all coalitions are above the
    budget the concepts are found among all sets of players (``Explanation.strongest``), as a table
    alone, with R² on coalitions that took no part.

    Args:
        model: images ``(B, C, H, W)``, token ids ``(B, L)`` or features ``(B, F)`` → logits: a
            class by ``class_path``, or a function annotated to return a module
            (``def net() -> nn.Module``).
        image: a file, or several; PNG, JPEG and whatever else PIL reads. Transparency is dropped.
        text: a sentence, several, or a text file with one in a line; with the data module whose
            tokenizer and vocabulary the network was trained with.
        data: instead, a data module, of whose test samples the first are explained.
        samples: how many of them.
        ckpt_path: weights of the network: a checkpoint of Lightning, a state dict or a
            ``.safetensors`` file.
        preset: torchvision's weights, as ``ResNet18_Weights.IMAGENET1K_V1``, of which
            normalisation, size and classes are taken where they are not given here. On the command
            line by default the ``weights`` that the model itself is made with.
        normalization: ``mean`` and ``std`` that the network expects of pixels in [0, 1]; for
            ImageNet [0.485, 0.456, 0.406] and [0.229, 0.224, 0.225]. Leave it out where the network
            normalises by itself.
        size: what the shorter side becomes; the square in the middle is taken.
        channels: 1, 3 or 4; default: those of the network's normalisation or first convolution.
        classes: names, or a text file with one in a line; default: those that data knows.
        label: the class to explain, a number or a name; default: the predicted one.
        players: of images, cells of a grid, by default 3 x 3, or a file with a label map, of the
            image's size or the input's: an image, or ``.npy`` with integers ``(H, W)``. Of
            sentences the words, of rows the columns.
        payoff: of the explained class, ``log_odds``, ``log_prob``, ``logit`` or ``margin``.
        baseline: what absent parts show, a pixel value in [0, 1] or one per channel, a token's id,
            a value per column, or the file of a learned baseline; default: the mean of the
            normalisation, or the mask's id.
        budget: coalitions to evaluate per sample, at most.
        count: how many concepts the graph shows, at most.
        noise: of the concepts, as in :func:`~interaction_train.concepts.sparse.sparse_concepts`.
        network: a name for titles; default: the model's type.
        out: where the folders go.
        overwrite: replace results that are there.
        seed: of the draws where the budget allows only a part.
        accelerator: as the Trainer's.

    Returns:
        An explanation of each sample.

    Raises:
        InputError: arguments that do not fit, unreadable images, or results that are there already.
    """
    at_least("count", count, 1)
    at_least("samples", samples, 1)
    in_range("noise", noise, 0, 1, below=True)
    if image is not None and data is not None:
        raise InputError("image", "image and data", "one of them")
    known = None if preset is None else find_preset(preset)
    title = network or type(unwrap(model)).__name__
    model = _network(model, ckpt_path, normalization, known)
    if data is not None:
        for argument, value in (("size", size), ("channels", channels)):
            if value is not None:
                raise InputError(argument, value, "none with data, where the module sees to it")
        load_data(data, ckpt_path)
        own = getattr(data, "class_names", None)
        classes = classes or list(own or ()) or None
    if data is None and (text is not None or image is None):
        got = "neither image nor data" if text is None else "text without data"
        raise InputError("image", got, "image, or data, perhaps with text")
    if text is not None:
        inputs = list(sentences(_lines("text", text), data, players))
    elif data is not None:
        inputs = first_samples(data, samples, players)
    else:
        if isinstance(baseline, str):
            pixels = read_baseline(baseline).flatten().tolist()
        else:
            pixels = baseline if isinstance(baseline, list) else [baseline or 0.0]
        if not all(0 <= value <= 1 for value in pixels):
            raise InputError("baseline", baseline, "pixel values in [0, 1]")
        fitting = _fitting(model, channels, size, known)
        files = [image] if isinstance(image, str | Path) else list(image or ())
        inputs = [image_file(path, fitting, players or GRID) for path in files]
    folders = [Path(out, item.name) for item in inputs]
    if not folders or len(set(folders)) < len(folders):
        raise InputError("image", [item.name for item in inputs], "files of different names")

    device = Fabric(accelerator=accelerator, devices=1).device
    model = model.to(device)
    logits = [_logits(model, item, device) for item in inputs]
    names = _classes(classes, known, len(logits[0]))
    y = _label(label, names, len(logits[0]))
    for folder in folders:
        check_folder(folder, overwrite)
    explanations = []
    for item, folder, row in zip(inputs, folders, logits, strict=True):
        explanation = explain(
            model, item.x[None].to(device), y, item.players, baseline=baseline, payoff=payoff,
            names=item.names, classes=names, network=title, budget=budget, seed=seed,
        )  # fmt: skip
        if explanation.exact and explanation.n > _QUICK:
            print(f"{item.name}: concepts of {explanation.n} players …", file=sys.stderr)
        concepts = _found(explanation, count, noise)
        tree = explanation.tree() if isinstance(item.players, TokenPlayers) else None
        print_summary(item.name, explanation, row, concepts, tree)
        print_files(folder, write_files(folder, explanation, concepts, tree))
        explanations.append(explanation)
    return explanations


def _found(explanation: Explanation, count: int, noise: float) -> FewConcepts | Recovered | str:
    """The concepts, of a sampled explanation those found among all sets, or why there are none."""
    if explanation.exact:
        return few_concepts(explanation, count, noise)
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # the summary says it
            return explanation.strongest(count)
    except InputError as error:
        return str(error)


def _network(
    model: nn.Module, ckpt_path: str | None, given: Normalization | None, known: Preset | None
) -> nn.Module:
    """The network with its weights, for pixels in [0, 1]."""
    if ckpt_path is not None:
        try:
            load_weights(model, ckpt_path)
        except InputError as error:
            raise InputError("ckpt_path", error.got, error.expected) from error
    own = default_baseline(model) is not None
    if given is not None and own:
        expected = "none: the network has a Normalize layer of its own"
        raise InputError("normalization", given, expected)
    if given is None and (known is None or own):
        return model
    mean, std = (given["mean"], given["std"]) if given else (known.mean, known.std)  # type: ignore[union-attr]
    return nn.Sequential(Normalize(mean, std), logits_of(model))


def _fitting(
    model: nn.Module, channels: int | None, size: int | None, known: Preset | None
) -> Fitting:
    own = channels_of(model)
    if None not in (own, channels) and own != channels:
        raise InputError("channels", channels, f"{own}, as the network takes")
    if size is None and known is not None:
        return replace(known.fitting, channels=own or channels)
    return Fitting(own or channels, size, size)


def _classes(classes: list[str] | str | None, known: Preset | None, count: int) -> list[str] | None:
    """Names of as many classes as the network has; those of a preset only where they fit."""
    if classes is None:
        return known.classes if known is not None and len(known.classes) == count else None
    classes = _lines("classes", classes)
    if len(classes) != count:
        raise InputError("classes", f"{len(classes)} names", f"{count}, one per class")
    return [str(name) for name in classes]


def _lines(argument: str, given: list[str] | str) -> list[str]:
    """The texts given, the single one, or the lines of a file of that name."""
    if not isinstance(given, str | Path):
        return list(given)
    if argument == "text" and not Path(given).is_file():
        return [str(given)]
    try:
        lines = Path(given).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        expected = "names, or a text file with one in a line"
        raise InputError(argument, repr(str(given)), f"{expected} ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def _label(label: int | str | None, names: list[str] | None, count: int) -> int | None:
    if isinstance(label, str):
        if names is None:
            raise InputError("label", repr(label), "a number, or names in classes")
        if label not in names:
            near = difflib.get_close_matches(label, names, cutoff=0)
            expected = f"one of the classes, such as {', '.join(near)}"
            raise InputError("label", repr(label), expected)
        return names.index(label)
    if label is not None and not 0 <= label < count:
        raise InputError("label", label, f"a class from 0 to {count - 1}")
    return label


def _logits(model: nn.Module, item: Input, device: torch.device) -> Tensor:
    """Of one image, before all the masked ones; what torch refuses is told in a line."""
    try:
        return eval_logits(logits_of(model), item.x[None].to(device))[0].cpu()
    except (RuntimeError, InputError) as error:
        if isinstance(error, InputError) and error.argument != "x":
            raise
        reason = " ".join(str(error).split())
        got = f"{item.name!r} of shape {tuple(item.x.shape)}"
        expected = f"what the network takes; for images see size and channels ({reason})"
        raise InputError("image", got, expected) from error
