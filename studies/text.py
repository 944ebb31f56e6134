"""Which phrases a network for sentences builds, and whether losses on interactions work on words.

Interaction trees (survey, 2.2.2, and its ref. 18), players are the words, payoffs exact log-odds
unless said otherwise. On the packaged grammar: (a) how often a negation with its adjective is a
node of the tree, for which neither of the words may join another before, how often it is the first
merge of all, and the same of intensifiers and idioms; beside it trees of the grammar's own meaning,
of merges at random, and of fixed shapes; how much of Σ|ψ| lies between nodes that are no
neighbours, which the paper neglects. (b) J(m), the strength of the orders. (c) Whether order and
interaction losses do on words what they are for, from few sentences. On SST-2: the share of the
trees' spans that are constituents of the parse, and J(m).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import common
import numpy as np
import torch
import torch.nn.functional as F
from common import Check, Mean, Part, Study, Summary, paired
from matplotlib.figure import Figure
from torch import Tensor, nn

import interaction_train as it
from interaction_train.callbacks.samples import spread
from interaction_train.concepts import control_spans, interaction_tree, span_agreement, tree_spans
from interaction_train.data.grammar import (
    ADJECTIVES,
    IDIOMS,
    INTENSIFIERS,
    NEGATIONS,
    Sentence,
    grammar_sentences,
)
from interaction_train.indices import all_coalitions, shapley_interactions
from interaction_train.tracking.figures import new_panels
from interaction_train.tracking.style import styled

Spans = Sequence[tuple[int, ...]]
RULES: tuple[Literal["density", "strength"], ...] = ("density", "strength")
SHAPES = ("random", "left", "right", "balanced")
DRAWS = 20  # trees at random for each sentence
NEGATED, DEEP, FIRST = "not + adjective", "not + very + adjective", "first of all"
PHRASES = (NEGATED, DEEP, FIRST, "very + adjective", "idiom")
NONE, LOSS, LOW, HIGH = "none", "interaction loss", "low orders", "high orders"
SAMPLED = "sampled, density"
PLAIN, BARE = "all tokens", "no punctuation"


def trained(data: it.TextDataModule, seed: int, size: Mapping[str, Any], **more: Any) -> nn.Module:
    """A transformer as the packaged jobs train it, in eval mode."""
    data.setup()
    build = partial(
        it.models.TextTransformer, data.max_vocabulary, 2, data.max_length, **size["network"]
    )
    adam = partial(torch.optim.AdamW, lr=size["lr"], weight_decay=size["decay"])
    return common.fit(
        build, data, seed=seed, epochs=size["epochs"], lr=size["lr"], classes=2, optimizer=adam,
        gradient_clip_val=None, **more,
    )  # fmt: skip


def grammar(size: Mapping[str, Any], seed: int) -> it.TextDataModule:
    """The grammar's data module."""
    return it.TextDataModule(
        "grammar", sentences=size["sentences"], train_fraction=size["part"], max_vocabulary=128,
        max_length=24, seed=seed,
    )  # fmt: skip


def some_sentences(data: it.TextDataModule, size: Mapping[str, Any]) -> list[Sentence]:
    """Test sentences that are short enough, each once, with their phrases."""
    known = {one.text: one for one in grammar_sentences(size["sentences"])}
    own = [known[text] for text in dict.fromkeys(data.texts["test"])]
    return [one for one in own if 4 <= len(one.tokens) <= size["longest"]][: size["trees"]]


def game(net: nn.Module, ids: Sequence[int], label: int) -> it.MaskedGame:
    """The words of a sentence as players; the payoff is the log-odds of its label."""
    x = torch.tensor([ids])
    absent = it.input_baseline(net, None, x)
    return it.MaskedGame(net, x, absent, it.TokenPlayers(), "log_odds", torch.tensor([label]))


def values(net: nn.Module, texts: Iterable[tuple[Sequence[int], int]]) -> list[Tensor]:
    """All values of each sentence, ``(2^n,)`` float64."""
    games = [game(net, ids, label) for ids, label in texts]
    batch = it.GameBatch(games, pad=0)
    return [v[0].double() for v in it.exact_values(batch)]


def meaning(sentence: Sentence) -> Tensor:
    """The sum of a sentence's clauses by the words present, ``(2^n,)``: the grammar's truth."""
    tokens = sentence.tokens
    who = all_coalitions(len(tokens))
    v = torch.zeros(len(who), dtype=torch.float64)
    idioms = {p.start: p for p in sentence.phrases if p.kind == "idiom"}
    for predicate in (p for p in sentence.phrases if p.kind == "predicate"):
        opinion, last = predicate.start + 1, predicate.stop - 1
        if idiom := idioms.get(opinion):
            sign = 1 if " ".join(tokens[opinion : idiom.stop]) in IDIOMS[1] else -1
            v += sign * who[:, idiom.start : idiom.stop].all(1)
            continue
        worth = who[:, last] * (1.0 if tokens[last] in ADJECTIVES[1] else -1.0)
        for k in range(opinion, last):
            if tokens[k] in INTENSIFIERS:
                worth = worth * (1 + who[:, k].double())
            elif tokens[k] in NEGATIONS:
                worth = worth * (1 - 2 * who[:, k].double())
        v += worth
    return v


def joined(sentences: Sequence[Sentence], trees: Sequence[Spans]) -> dict[str, float]:
    """The share of phrases that are nodes, by kind; NaN where there are none."""
    found: dict[str, list[bool]] = {name: [] for name in PHRASES}
    for sentence, spans in zip(sentences, trees, strict=True):
        phrases: dict[str, list[tuple[int, ...]]] = {"negation": [], "intensified": [], "idiom": []}
        for phrase in sentence.phrases:
            if phrase.kind in phrases:
                phrases[phrase.kind].append(tuple(range(phrase.start, phrase.stop)))
        for span in phrases["negation"]:
            found[NEGATED if len(span) == 2 else DEEP].append(span in spans)
        pairs = [span for span in phrases["negation"] if len(span) == 2]
        if pairs:
            found[FIRST].append(spans[0] in pairs)
        inside = {span[1:] for span in phrases["negation"]}
        found["very + adjective"] += [s in spans for s in phrases["intensified"] if s not in inside]
        found["idiom"] += [span in spans for span in phrases["idiom"]]
    return {name: float(np.mean(some)) if some else math.nan for name, some in found.items()}


def control(n: int, shape: str, number: int) -> list[Spans]:
    """A fixed tree, or those of merging at random."""
    seeds = range(number * DRAWS, (number + 1) * DRAWS) if shape == "random" else range(1)
    return [control_spans(n, shape, seed) for seed in seeds]


def controls(sentences: Sequence[Sentence]) -> dict[str, Any]:
    """What trees that know no network join."""
    found = {}
    for shape in SHAPES:
        trees = [control(len(one.tokens), shape, k) for k, one in enumerate(sentences)]
        repeated = [one for one, own in zip(sentences, trees, strict=True) for _ in own]
        found[shape] = joined(repeated, [spans for own in trees for spans in own])
    return found


def trees_of(sentences: Sequence[Sentence], v: Sequence[Tensor], name: str) -> dict[str, Any]:
    """What the trees of games join: by rule, of neighbours and of any nodes."""
    found = {}
    for rule in RULES:
        for adjacent in (True, False):
            made = [interaction_tree(one, rule, adjacent=adjacent, measure=False) for one in v]
            title = f"{name}, {rule}" + ", any nodes" * (not adjacent)
            apart = float(np.mean([tree.neglected for tree in made]))
            found[title] = {
                **joined(sentences, [tree.spans() for tree in made]), "apart": apart
            }  # fmt: skip
    return found


def orders(v: Sequence[Tensor], words: int) -> list[list[float]]:
    """E_ij |I^(m)(i,j)| of every sentence of so many words, ``(sentences, orders)``."""
    same = [one for one in v if len(one) == 1 << words]
    return [it.indices.order_strengths(it.multi_order_interactions(one)).tolist() for one in same]


def term(of: str, setting: Mapping[str, Any]) -> dict[str, it.WeightedTerm]:
    """The loss of a training."""
    words = it.TokenPlayers()
    loss: Any
    if of == LOSS:
        layer = setting.get("layer")
        loss = it.InteractionLoss(layer, None if layer else words)
    else:
        ratios = (0.7, 1.0) if of == LOW else (0.0, 0.5)
        loss = it.OrderLoss(*ratios, "penalize", words, batch_fraction=0.5)
    return {of: it.WeightedTerm(loss, setting["weight"])}


def quality(net: nn.Module, data: it.TextDataModule, split: common.Split) -> Summary:
    """Accuracy and NLL."""
    part = data.parts[split]
    x, y = part.__getitems__(range(len(part)))
    z = common.logits(net, x)
    accuracy = float((z.argmax(1) == y).double().mean())
    return {"accuracy": accuracy, "NLL": float(F.cross_entropy(z, y))}


def measured(v: Sequence[Tensor], words: int) -> Summary:
    """How strong interactions of words are, alone and beside the payoff, and of what orders."""
    same = torch.stack([one for one in v if len(one) == 1 << words])
    strength = float(shapley_interactions(same).abs().sum() / len(same) / words / (words - 1))
    by_order = np.mean(orders(v, words), 0)
    payoff = float((same[:, -1] - same[:, 0]).abs().mean())
    mean = float(by_order @ np.arange(len(by_order)) / by_order.sum())
    share = {"mean |I|": strength, "mean |I| / |v(N) − v(∅)|": strength / payoff}
    return {**share, "mean order": mean, "J": (by_order / by_order.mean()).tolist()}


def of_grammar(kind: str, of: str, seed: int, setting: Mapping[str, Any], **size: Any) -> Summary:
    """Trees of the truth, of a network (``kind`` trees), or what a training does (val, test)."""
    data = grammar(size, seed)
    if kind == "truth":
        data.setup()
        sentences = some_sentences(data, size)
        own = trees_of(sentences, [meaning(one) for one in sentences], "truth")
        return {"joins": own | controls(sentences)}
    losses = None if of == NONE else term(of, setting)
    net = trained(data, seed, size, losses=losses)
    if kind == "val":
        return quality(net, data, "val")
    vocabulary, sentences = data.vocabulary, some_sentences(data, size)
    assert vocabulary is not None
    if kind == "test":
        sentences = [one for one in sentences if len(one.tokens) == size["words"]]
    v = values(net, [(vocabulary.encode(one.tokens), one.label) for one in sentences])
    found = {**quality(net, data, "test"), **measured(v, size["words"])}
    return found | ({"joins": trees_of(sentences, v, "network")} if kind == "trees" else {})


def parsed(path: Any) -> list[tuple[list[str], Spans, int]]:
    """Tokens, constituents and label of SST-2's dev sentences."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [
        (
            r["sentence"].split(" "),
            tree_spans([*map(int, r["parents"].split("|"))]),
            int(r["label"]),
        )
        for r in rows
    ]


def agreements(tokens: Sequence[str], tree: Spans, parse: Spans, number: int) -> dict[str, Any]:
    """Of a tree and the controls the share of spans that are constituents."""
    marks = [k for k, token in enumerate(tokens) if not any(map(str.isalnum, token))]
    every = {"tree": [tree]} | {s: control(len(tokens), s, number) for s in SHAPES}
    return {
        f"{name}, {which}": float(np.mean([span_agreement(t, parse, ignored) for t in trees]))
        for name, trees in every.items()
        for which, ignored in ((PLAIN, []), (BARE, marks))
    }


def of_sst2(study: Study, seed: int, **size: Any) -> Summary:
    """A network trained on a part of SST-2: agreement of its trees with the parses, and orders."""
    data = it.TextDataModule(
        study.file("sst2_train.tsv"), test=study.file("sst2_dev.tsv"), text="sentence",
        max_vocabulary=16384, max_length=64, batch_size=128, train_fraction=size["part"], seed=seed,
    )  # fmt: skip
    net = trained(data, seed, size)
    found = {**quality(net, data, "test"), "sentences": len(data.parts["train"])}
    vocabulary = data.vocabulary
    assert vocabulary is not None
    rows = [
        (tokens, parse, vocabulary.encode(map(str.lower, tokens)), label)
        for tokens, parse, label in parsed(study.file("sst2_dev_trees.tsv"))
    ]
    exact = [row for row in rows if 4 <= len(row[0]) <= size["longest"]]
    long = [row for row in rows if size["longest"] < len(row[0]) <= size["longest_sampled"]]
    long = [long[k] for k in spread(range(len(long)), size["sampled"])]
    v = values(net, [row[2:] for row in exact])
    for rule in RULES:
        made: list[Any] = [interaction_tree(one, rule, measure=False) for one in v]
        found[f"exact, {rule}, apart"] = [tree.neglected for tree in made]
        groups = {"exact": (exact, made)}
        if rule == "density":
            far = [interaction_tree(one, adjacent=False, measure=False) for one in v]
            groups["exact, any nodes"] = exact, far
            own = [
                interaction_tree(game(net, ids, label), rule, size["contexts"])
                for _, _, ids, label in long
            ]
            groups["sampled"] = long, own
        for name, (some, trees) in groups.items():
            found[f"{name}, {rule}"] = [
                agreements(row[0], tree.spans(), row[1], k)
                for k, (row, tree) in enumerate(zip(some, trees, strict=True))
            ]
    found["orders"] = orders(v, size["words"])
    ids = [k for row in rows for k in row[2]]
    return {**found, "unknown": ids.count(vocabulary.UNKNOWN) / len(ids)}


def mean_of(values: Iterable[float]) -> Mean:
    """Of those that are numbers: some trees have nothing to compare."""
    return Mean.of(value for value in values if not math.isnan(value))


def join_rows(found: Sequence[Summary]) -> list[dict[str, Any]]:
    """Shares in %, a row for each kind of tree."""
    result = []
    for title in found[0]["joins"]:
        row: dict[str, Any] = {"tree": title}
        for name in (*PHRASES, "apart"):
            several = [run["joins"][title].get(name, math.nan) for run in found]
            header = "Σ|ψ| apart (%)" if name == "apart" else f"{name} (%)"
            varied = title.startswith("network")
            mean = Mean.of(100 * value for value in (several if varied else several[:1]))
            row |= mean.columns(header)
        result.append(row)
    return result


def bottleneck(strengths: Sequence[Sequence[float]], of: str) -> list[Check]:
    """Whether the lowest and the highest order are stronger than the one between."""
    middle = [row[len(row) // 2] for row in strengths]
    result = []
    for name, at in (("lowest", 0), ("highest", -1)):
        gap = paired([row[at] for row in strengths], middle)
        says = f"{of}: the {name} order is stronger than the middle one"
        result.append(Check(says, gap.clearly(1), f"by {gap}"))
    return result


def join_checks(found: Sequence[Summary]) -> list[Check]:
    """The claims on trees over the grammar."""
    result = []

    def get(title: str, name: str) -> list[float]:
        return [100 * run["joins"][title][name] for run in found]

    for rule in RULES:
        ours = f"network, {rule}"
        for name in (NEGATED, DEEP):
            mean = Mean.of(get(ours, name))
            says = f"{rule}: {name!r} is a node in 90 % of cases"
            result.append(Check(says, mean.value >= 90, f"{mean} %"))
        for name in (NEGATED, DEEP, FIRST, "idiom"):
            gap = paired(get(ours, name), get("random", name))
            says = f"{rule}: {name!r} more often than merging at random"
            result.append(Check(says, gap.clearly(1), f"by {gap} points"))
        for name in (NEGATED, DEEP, "idiom"):
            gap = paired(get(ours, name), get("right", name))
            says = f"{rule}: {name!r} more often than branching right"
            result.append(Check(says, gap.clearly(1), f"by {gap} points"))
    apart = Mean.of(get("network, density", "apart"))
    result.append(Check("pairs apart hold less than 10 % of Σ|ψ|", apart.high < 10, f"{apart} %"))
    truth = get("truth, density", NEGATED)[0]
    says = f"trees of the grammar's own meaning have {NEGATED!r} in all cases"
    result.append(Check(says, truth == 100, f"{truth:.3g} %"))
    return result


def loss_rows(
    runs: Mapping[str, Sequence[Summary]], chosen: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What each training does, with its setting."""
    result = []
    for of, several in runs.items():
        setting = ", ".join(f"{key} {value}" for key, value in chosen[of].items())
        row = {"trained with": of, "setting": setting}
        keys = [key for key in several[0] if key not in ("J", "joins")]
        result.append(row | common.columns({key: [run[key] for run in several] for key in keys}))
    return result


def order_rows(runs: Mapping[str, Sequence[Summary]]) -> list[dict[str, Any]]:
    """J(m), a row for each training."""
    result = []
    for of, several in runs.items():
        by_order = zip(*(run["J"] for run in several), strict=True)
        found = {f"J({m})": column for m, column in enumerate(by_order)}
        result.append({"trained with": of} | common.columns(found))
    return result


def loss_checks(runs: Mapping[str, Sequence[Summary]]) -> list[Check]:
    """The claims on losses."""
    result = []
    wanted: tuple[tuple[str, str, Literal[-1, 1]], ...] = (
        (LOSS, "mean |I|", -1),
        (LOSS, "mean |I| / |v(N) − v(∅)|", -1),
        (LOW, "mean order", -1),
        (HIGH, "mean order", 1),
    )

    def change(of: str, key: str) -> Mean:
        return paired(*([run[key] for run in runs[name]] for name in (of, NONE)))

    for of, key, sign in (one for one in wanted if one[0] in runs):
        gap = change(of, key)
        says = f"{of}: {'lowers' if sign < 0 else 'raises'} {key}"
        result.append(Check(says, gap.clearly(sign), f"by {gap}"))
    for of in (of for of in runs if of != NONE):
        accuracy, nll = change(of, "accuracy"), change(of, "NLL")
        harm = accuracy.clearly(-1) or nll.clearly(1)
        numbers = f"{accuracy.points()}, NLL by {nll}"
        result.append(Check(f"{of}: no clear cost in accuracy or NLL", not harm, numbers))
    return result


def relative(strengths: Sequence[Sequence[float]]) -> list[float]:
    """J(m)."""
    mean = np.mean(strengths, 0)
    return (mean / mean.mean()).tolist()


@styled()
def grammar_figure(found: Sequence[Summary], runs: Mapping[str, Sequence[Summary]]) -> Figure:
    """Shares of phrases by tree, and J(m) by training."""
    drawn, panels = new_panels(1, 2, 10.5, 4.0)
    left, right = panels[0]
    shown = ("network, density", "network, strength", "truth, density", "random", "right")
    names = (NEGATED, DEEP, FIRST, "idiom")
    for k, title in enumerate(shown):
        means = [Mean.of(100 * run["joins"][title][name] for run in found) for name in names]
        places = [at + 0.16 * (k - 2) for at in range(len(names))]
        heights = [0.0 if math.isnan(mean.value) else mean.value for mean in means]
        left.bar(places, heights, 0.15, label=title)
    left.set_xticks(range(len(names)), [name.replace(" + ", "\n+ ") for name in names])
    left.set(ylabel="% that are nodes", title="grammar: phrases in trees")
    left.set_ylim(top=125)
    left.legend(fontsize=7, ncol=3, loc="upper right")
    for of, several in runs.items():
        columns = zip(*(run["J"] for run in several), strict=True)
        means = [Mean.of(column) for column in columns]
        common.curve(right, list(range(len(means))), means, label=of)
    right.set(xlabel="order m", ylabel="J(m)", title="orders, by training (few sentences)")
    right.legend()
    return drawn


def report_grammar(part: Part) -> None:
    """Runs, tables, figure and verdict on the grammar."""
    size = {k: v for k, v in part.settings.items() if k not in ("losses", "few", "choosing_seeds")}
    few, choices = {**size, **part.settings["few"]}, part.settings["losses"]
    none: dict[str, Any] = {"setting": {}}
    plan = {"truth": {"kind": "truth", "of": NONE, "seed": 0, **none, **size}}
    plan |= {
        f"trees/seed_{s}": {"kind": "trees", "of": NONE, "seed": s, **none, **size}
        for s in part.seeds
    }
    plan |= {
        f"val/{of}_{k}/seed_{s}": {"kind": "val", "of": of, "seed": s, "setting": one, **few}
        for of, several in choices.items()
        for k, one in enumerate(several)
        for s in range(part.settings["choosing_seeds"])
    }
    found = part.runs(plan, of_grammar)
    chosen: dict[str, Mapping[str, Any]] = {NONE: {}}
    for of, several in choices.items():
        nll = [
            np.mean([r["NLL"] for name, r in found.items() if name.startswith(f"val/{of}_{k}/")])
            for k in range(len(several))
        ]
        chosen[of] = several[int(np.argmin(nll))]
    plan = {
        f"test/{of}/seed_{s}": {"kind": "test", "of": of, "seed": s, "setting": one, **few}
        for of, one in chosen.items()
        for s in (100 + seed for seed in part.seeds)  # none of those that chose
    }
    tested = part.runs(plan, of_grammar)
    runs = {of: [r for name, r in tested.items() if name.split("/")[1] == of] for of in chosen}
    trees = [found[f"trees/seed_{seed}"] for seed in part.seeds]
    trees = [{**run, "joins": run["joins"] | found["truth"]["joins"]} for run in trees]
    part.table(join_rows(trees))
    many = f"{NONE}, all sentences"
    every = {many: trees, **runs}
    part.table(loss_rows(every, {many: {}, **chosen}), "losses")
    part.table(order_rows(every), "orders")
    part.figure(grammar_figure(trees, runs))
    strengths = [run["J"] for run in trees]
    part.verdict([*join_checks(trees), *bottleneck(strengths, "J(m)"), *loss_checks(runs)])


def agreement_rows(runs: Sequence[Summary]) -> list[dict[str, Any]]:
    """Agreement in %, over sentences: a row for each kind of tree and each control."""
    result = []
    for name in ("exact, density", "exact, strength", "exact, any nodes, density", SAMPLED):
        several = [one for run in runs for one in run[name]]
        who, _, rule = name.rpartition(", ")
        shown = ("tree", *(SHAPES if name in ("exact, strength", SAMPLED) else ()))
        for tree in shown:
            title = f"network, {rule}" if tree == "tree" else tree
            row: dict[str, Any] = {"sentences": f"{len(several)} {who}", "tree": title}
            for which in (PLAIN, BARE):
                mean = mean_of(100 * one[f"{tree}, {which}"] for one in several)
                row |= mean.columns(f"constituents, {which} (%)", interval=True)
            result.append(row)
    return result


def sst2_checks(runs: Sequence[Summary]) -> list[Check]:
    """The claims on SST-2; intervals are over sentences."""
    result = []
    for name in ("exact, density", "exact, strength", SAMPLED):
        several = [one for run in runs for one in run[name]]
        for which in (PLAIN, BARE) if name.startswith("exact") else (BARE,):
            for shape in SHAPES:
                both = [(one[f"tree, {which}"], one[f"{shape}, {which}"]) for one in several]
                gap = mean_of(100 * (a - b) for a, b in both)
                against = "merging at random" if shape == "random" else f"a {shape} tree"
                says = f"{name}, {which}: more constituents than {against}"
                result.append(Check(says, gap.clearly(1), f"by {gap} points"))
    apart = Mean.of(100 * share for run in runs for share in run["exact, density, apart"])
    says = "pairs apart hold less than 10 % of Σ|ψ|"
    result.append(Check(says, apart.high < 10, f"{apart} %"))
    strengths = [one for run in runs for one in run["orders"]]
    return result + bottleneck(strengths, f"I(m) of {len(strengths)} sentences")


@styled()
def sst2_figure(runs: Sequence[Summary]) -> Figure:
    """Agreement by tree, and J(m)."""
    drawn, panels = new_panels(1, 2, 10.5, 4.0)
    left, right = panels[0]
    rows = [row for row in agreement_rows(runs) if row["sentences"].endswith("exact")]
    for k, which in enumerate((PLAIN, BARE)):
        title = f"constituents, {which} (%)"
        heights = [row[title] for row in rows]
        errors = [row[f"{title}_high"] - row[title] for row in rows]
        places = [at + 0.4 * (k - 0.5) for at in range(len(rows))]
        left.bar(places, heights, 0.38, yerr=errors, label=which)
    left.set_xticks(range(len(rows)), [row["tree"].replace(", ", ",\n") for row in rows])
    left.set(ylabel="% of spans that are constituents", title="SST-2, dev sentences")
    left.legend()
    values = relative([one for run in runs for one in run["orders"]])
    right.plot(range(len(values)), values, "o-")
    right.set(xlabel="order m", ylabel="J(m)", title="SST-2: orders")
    right.set_ylim(bottom=0)
    return drawn


def report_sst2(part: Part) -> None:
    """Runs, tables, figure and verdict on SST-2."""
    plan = {f"seed_{seed}": {"seed": seed, **part.settings} for seed in part.seeds}
    runs = list(part.runs(plan, partial(of_sst2, part.study)).values())
    part.table(agreement_rows(runs))
    part.table([network_row(run) for run in runs], "network")
    part.figure(sst2_figure(runs))
    part.verdict(sst2_checks(runs))


def network_row(run: Summary) -> dict[str, Any]:
    """The network, how much its pairs apart hold, and J(m)."""
    row: dict[str, Any] = {"training phrases": run["sentences"]}
    row |= {f"test {key}": run[key] for key in ("accuracy", "NLL")}
    row |= {"unknown tokens (%)": 100 * run["unknown"]}
    row |= Mean.of(100 * a for a in run["exact, density, apart"]).columns("Σ|ψ| apart (%)")
    return row | {f"J({m})": value for m, value in enumerate(relative(run["orders"]))}


def main() -> None:
    """Run the study."""
    study = Study.from_command_line(__file__, __doc__)
    for part in study.parts():
        with part:
            {"grammar": report_grammar, "sst2": report_sst2}[part.data](part)


if __name__ == "__main__":
    main()
