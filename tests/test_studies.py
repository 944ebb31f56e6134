"""The studies run, judge by their numbers, and the documents say what the committed results say."""

import importlib
import json
import logging
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STUDIES = ROOT / "studies"
sys.path.insert(0, str(STUDIES))

import common  # noqa: E402
import dropout  # noqa: E402
import representation_bottleneck as bottleneck  # noqa: E402
import robustness  # noqa: E402
import run_all  # noqa: E402
import tables  # noqa: E402
import transferability  # noqa: E402

KINDS = ("holds", "holds in part", "does not hold here")
FIRST = {  # the data that need no file; of the others digits
    "text": "grammar",
    "visual_concepts": "textures",
}
SECOND = {
    "absence": "census",
    "loss_settings": "mnist_1000",
    "taylor": "mnist_5000",
    "text": "sst2",
}
SIDECARS = sorted((STUDIES / "results").glob("*/*.json"))


@pytest.fixture
def study(monkeypatch, capsys):
    """Runs a study in this process, without the files of CIFAR-10; gives what it prints."""
    logger = logging.getLogger("lightning.pytorch")
    monkeypatch.setattr(logger, "level", logger.level)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # which Lightning sets: put back afterwards
    monkeypatch.setenv("PL_SEED_WORKERS", "0")
    monkeypatch.delenv(common.DATA_VARIABLE, raising=False)

    def run(name: str, *args: str) -> str:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *args])
        importlib.import_module(name).main()
        return capsys.readouterr().out

    return run


@pytest.mark.filterwarnings("ignore::UserWarning")  # networks of one epoch give cause for some
@pytest.mark.parametrize("name", run_all.STUDIES)
def test_smallest_setting_runs_and_is_not_repeated(name, study, tmp_path):
    data = FIRST.get(name, "digits")
    args = ["--scale", "smoke", "--only", data, "--out", str(tmp_path)]
    shown = study(name, *args)
    results = tmp_path / "studies" / "results" / "smoke"
    record = json.loads((results / f"{name}_{data}.json").read_text())
    assert record["kind"] in KINDS
    assert record["verdict"] in shown
    assert record["hardware"]
    assert record["command"].startswith(f"python studies/{name}.py --scale smoke")
    assert list(results.glob(f"{name}_{data}*.csv"))
    assert list((tmp_path / "docs" / "images" / "studies").glob(f"{name}_{data}*.png"))
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.json")}
    assert written
    again = study(name, *args)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.json")} == written
    assert record["verdict"] in again


@pytest.mark.parametrize("name", run_all.STUDIES)
def test_full_scale_prints_its_plan(name, study, tmp_path):
    shown = study(name, "--scale", "full", "--dry_run", "--out", str(tmp_path))
    for data in (FIRST.get(name, "digits"), SECOND.get(name, "cifar10")):
        assert f"{name}_{data}, full: " in shown
    assert not list(tmp_path.iterdir())


def test_without_the_files_a_line_says_what_to_do(study, tmp_path):
    shown = study("dropout", "--scale", "smoke", "--only", "cifar10", "--out", str(tmp_path))
    assert "Set INTERACTION_TRAIN_DATA" in shown
    assert len(shown.splitlines()) == 1


def test_a_run_with_other_settings_is_repeated(tmp_path):
    study = common.Study("x", "smoke", ("digits",), None, False, tmp_path)
    part = common.Part(study, "digits", (0,))
    work = lambda value: {"twice": 2 * value}  # noqa: E731
    assert part.runs({"a": {"value": 1}}, work)["a"] == {"twice": 2}
    assert part.runs({"a": {"value": 1}}, None)["a"] == {"twice": 2}
    assert part.runs({"a": {"value": 3}}, work)["a"] == {"twice": 6}


def test_run_all_goes_on_after_a_failure(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in ("common.py", "run_all.py"):
        shutil.copy(STUDIES / name, folder)
    (folder / "settings.yaml").write_text("b_good: {digits: {smoke: {}}}")
    (folder / "a_bad.py").write_text("def f():\n    study = Study.from_command_line()\n1/0\n")
    (folder / "b_good.py").write_text(
        "from common import Check, Study\n"
        "def main():\n"
        "    study = Study.from_command_line(__file__, 'x')\n"
        "    for part in study.parts():\n"
        "        with part:\n"
        "            part.verdict([Check('one is 1', True, '1')])\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, folder / "run_all.py", "--scale", "smoke", "--jobs", "2"],
        capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "failed with exit status 1" in done.stdout
    assert "Holds, 1 of 1 checks: one is 1 (1)." in done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.stem)
def test_documents_say_what_the_results_say(path):
    text = path.read_text()
    assert tables.filled(text) == text, "run python studies/tables.py"


@pytest.mark.parametrize("path", SIDECARS, ids=lambda p: p.stem)
def test_committed_results_are_complete_and_shown(path):
    record = json.loads(path.read_text())
    assert record["kind"] in KINDS
    assert record["verdict"].startswith(record["kind"].capitalize() + ", ")
    for key in ("command", "seeds", "hardware", "threads", "torch", "wall_time_s", "date"):
        assert record[key] is not None
    scale = "" if path.parent.name == "quick" else f"{path.parent.name}/"
    document = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert f"<!-- {scale}{path.stem} -->" in document
    assert record["verdict"] in document


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs/images/studies").rglob("*.png")), ids=lambda p: p.stem
)
def test_figures_are_small(path):
    assert path.stat().st_size <= 150_000


def test_tables_join_errors_and_intervals_to_their_numbers(tmp_path):
    results = tmp_path / "studies" / "results" / "quick"
    results.mkdir(parents=True)
    header = "who,a,a_stderr,b,b_low,b_high,c,c_stderr"
    (results / "x_digits.csv").write_text(f"{header}\nme | you,0.51234,0.0123,2,1,3,7,\n")
    text = "before\n<!-- x_digits -->\nold\n<!-- end -->\nafter\n"
    found = tables.filled(text, tmp_path)
    assert "| who | a | b | c |" in found
    assert "| me \\| you | 0.512 ± 0.012 | 2 [1, 3] | 7 |" in found
    assert "old" not in found
    assert tables.filled(found, tmp_path) == found
    (results / "x_digits.csv").write_text(f"{header}\nme,0.6,0.0123,2,1,3,7,\n")
    assert tables.filled(found, tmp_path) != found
    with pytest.raises(FileNotFoundError):
        tables.filled(text.replace("x_digits", "y_digits"), tmp_path)


def test_mean_has_students_interval():
    mean = common.Mean.of([1.0, 2.0, 3.0])
    assert mean.value == 2
    assert mean.stderr == pytest.approx(1 / math.sqrt(3))
    assert mean.high - mean.value == pytest.approx(4.302653 / math.sqrt(3))  # t, 2 degrees
    assert common.paired([3, 5], [1, 1]).value == 3
    assert math.isnan(common.Mean.of([1.0]).low)


@pytest.mark.parametrize(
    ("holds", "left", "sentence"),
    [
        ((True, True), "", "Holds, 2 of 2 checks: a (1); b (1)."),
        ((True, False), "", "Holds in part, 1 of 2 checks: a (1); these fail: b (0)."),
        ((False, False), "", "Does not hold here, 0 of 2 checks; these fail: a (0); b (0)."),
        ((True, True), "c", "Holds in part, 2 of 2 checks: a (1); b (1) (c)."),
    ],
)
def test_verdict_follows_from_the_checks(holds, left, sentence, capsys):
    study = common.Study("x", "smoke", ("digits",), None, False, Path("unused"))
    part = common.Part(study, "digits", (0,))
    checks = [common.Check(says, h, f"{h:d}") for says, h in zip("ab", holds, strict=True)]
    part.verdict(checks, left)
    assert part._verdict == {"kind": sentence.split(",")[0].lower(), "verdict": sentence}
    assert capsys.readouterr().out == f"x_digits: {sentence}\n"


def test_a_single_value_is_clear_by_its_sign_and_a_mean_by_its_interval():
    assert common.Mean.of([0.01]).clearly(1)
    assert not common.Mean.of([0.01]).clearly(-1)
    assert common.Mean.of([-2.0, -2.1, -1.9]).clearly(-1)
    assert not common.Mean.of([-1.0, 1.0, -1.5]).clearly(-1)
    assert common.Mean.of([0.01]).points() == "+1.0 points"
    assert common.Mean.of([0.01, 0.01]).points() == "+1.0 [+1.0, +1.0] points"


def test_settings_are_chosen_by_the_validation_nll():
    nll = {0.2: (0.4, 0.1), 0.5: (0.2, 0.2), None: (0.9, 0.9)}

    def runs(plan, work):
        return {
            name: {"NLL": nll[run.get("dropout")][run["seed"]], "accuracy": 0.0}
            for name, run in plan.items()
        }

    choices = {"dropout": [{"dropout": 0.2}, {"dropout": 0.5}]}
    settings = {"bed": {"source": "digits"}, "choices": choices, "choosing_seeds": 2}
    part = common.Part(common.Study("x", "smoke", ("digits",), None, False, Path()), "digits", (0,))
    part.settings, part.runs = settings, runs
    chosen = dropout.choose(part)
    assert chosen[dropout.DROPOUT] == [{"dropout": 0.5}]
    assert chosen[dropout.EARLY] == [{"weight": 1.0}]
    assert chosen[dropout.LATE] == [{"weight": 1.0, "layer": "after"}]


def test_p_values_are_those_of_holm():
    # The smallest times 4, the next times 3 and so on, and never less than one before.
    assert dropout.holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert dropout.holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("lower", "gain", "nll", "kind"),
    [(0.5, 0.1, 0.0, 0), (0.5, 0.0, 0.1, 0), (0.5, -0.1, 0.1, 1), (2.0, -0.1, 0.1, 2)],
)
def test_dropouts_verdict_follows_from_the_numbers(lower, gain, nll, kind):
    chosen = {
        name: [{}] for name in (dropout.NONE, dropout.DROPOUT, dropout.DECAY, dropout.LOSS)
    } | {dropout.EARLY: [{}]}
    found = {}
    for seed in range(5):
        for name in chosen:
            ours = name in (dropout.LOSS, dropout.EARLY)
            noise = 0.001 * seed * (1 if ours else 2)
            found[f"{name}_0/seed_{seed}"] = {
                "test accuracy": 0.5 + (gain + noise) * ours,
                "test NLL": 0.5 - (nll + noise) * ours,
                "test mean |I|": lower + noise if name == dropout.DROPOUT else 1.0,
                "test strength": lower + noise if name == dropout.DROPOUT else 1.0,
            }
    assert _verdict(lambda part: dropout.report(part, chosen, found)) == KINDS[kind]


@pytest.mark.parametrize(
    ("curve", "robust", "kind"),
    [
        ([3, 1, 1, 0.2, 1, 1, 3], (0.8, 0.6, 0.4, 0.2), 0),
        ([3, 2, 1, 0.9, 0.8, 0.7, 0.6], (0.8, 0.6, 0.4, 0.2), 1),
        ([3.01, 1, 1, 1, 1, 1, 3.01], (0.8, 0.6, 0.4, 0.2), 1),  # no deeper than chance
        ([3, 1, 1, 0.2, 1, 1, 3], (0.2, 0.4, 0.6, 0.8), 1),
        ([3, 2, 1, 0.9, 0.8, 0.7, 0.6], (0.2, 0.4, 0.6, 0.8), 2),
    ],
)
def test_bottlenecks_verdict_follows_from_the_numbers(curve, robust, kind):
    orders = list(bottleneck.resolve_orders(64, ratios=bottleneck.RATIOS))
    found = {"net/8x8": {"orders": orders, "plug_in": [curve, [0.01] * 7]}}
    start = [3, 1, 1, 1, 1, 1, 3]  # before training
    training = {"epochs": [0, 1], "J": [start, curve], "stderr": [[0.01] * 7] * 2}
    models = {
        name: [{"PGD": [value + 0.001 * seed]} for seed in range(3)]
        for name, value in zip(bottleneck.LEAST_ROBUST_LAST, robust, strict=True)
    }
    said = _verdict(
        lambda part: bottleneck.judge(part, found, {"net/8x8": 64}, training, models),
        seeds=(0, 1, 2),
    )
    assert said == KINDS[kind]


@pytest.mark.parametrize(
    ("better", "lower", "related", "kind"),
    [
        (True, True, -0.5, 0),
        (False, True, -0.5, 1),
        (True, False, -0.5, 1),
        (True, True, 0.5, 1),
        (False, False, 0.5, 2),
    ],
)
def test_transferabilitys_verdict_follows_from_the_numbers(better, lower, related, kind):
    attacks = [*transferability.Budget(0.1, 0.1, 1).as_published(), *transferability.COSTLY]

    def measured(name: str, seed: int) -> dict:
        gains = name in ("IR", "IR, published", "IR, margin", "HybridIR") and better
        falls = name in transferability.LOWERING and lower
        return {"fooled": [0.5 + 0.2 * gains + 0.001 * seed], "interaction": [1.0 - falls]}

    found = transferability.Findings(
        [{name: measured(name, seed) for name in attacks} for seed in range(3)]
    )
    row = {"spearman": related, "spearman_low": related - 0.1, "spearman_high": related + 0.1}
    rows = [{**row, "over": over} for over in ["attacks"] * 3 + ["images of an attack"] * 3]
    assert _verdict(lambda part: transferability.judge(part, found, rows)) == KINDS[kind]


@pytest.mark.parametrize(
    ("sharper", "hardened", "told", "kind"),
    [
        (True, True, True, 0),
        (False, True, True, 1),
        (True, False, True, 1),
        (False, False, False, 2),
    ],
)
def test_robustness_verdict_follows_from_the_numbers(sharper, hardened, told, kind):
    def run(training: str, seed: int) -> dict:
        noise, other = 0.001 * seed, training != "normal" and hardened
        change = [0.1, 0.2, (0.2 if other else 0.3) if sharper else 0.1]
        scores = {robustness.HIGH_ORDER: 0.9 if told else 0.6, robustness.SVD: 0.7}
        return {
            "accuracy": 1.0,
            "fooled": 0.5,
            "utility": [[1.0, 0.1, 0.1, 0.1]],
            "strength": [[1.0, 1.0, 0.5 if other else 1.0 + noise]],
            "change": [[(value + noise) * (0.5 if other else 1) for value in change]],
            "undone": [0.3 + noise + 0.1 * other],
            "D": {k: [0.5 + noise + 0.1 * other] * 9 for k in ("plug_in", "split_sign")},
            "auroc": {name: value + noise for name, value in scores.items()},
            "related": (0.5 if told else -0.5) + noise,
        }

    found = robustness.Findings(
        {f"{name}/seed_{seed}": run(name, seed) for name in robustness.NAMES for seed in range(3)}
    )
    assert _verdict(lambda part: robustness.judge(part, found)) == KINDS[kind]
    alone = robustness.Findings({f"normal/seed_{seed}": run("normal", seed) for seed in range(3)})
    seen = _verdict(lambda part: robustness.judge(part, alone))
    assert seen == ("does not hold here" if kind == 2 else "holds in part")


def test_theorys_curve_is_that_of_the_theorem():
    curve = bottleneck.theory(5, range(4))
    terms = [(4 - m) / 20 / math.sqrt(math.comb(3, m)) for m in range(4)]
    expected = [term * 4 / sum(terms) for term in terms]
    assert curve == pytest.approx(expected)
    long = bottleneck.theory(256, [0, 127, 254])
    assert long[0] / long[2] == pytest.approx(255)
    assert long[1] < 1e-30


def _verdict(judge, seeds=(0, 1, 2)) -> str:
    study = common.Study("x", "smoke", ("digits",), None, False, Path("unused"))
    part = common.Part(study, "digits", seeds, {"title": "x"})
    part.table = part.figure = lambda *_: None
    judge(part)
    return part._verdict["kind"]
