# ruff: noqa: E501
"""Bad input ends in one line with status 2; what a user's own code raises keeps its traceback."""

import resource
import shlex
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
import wandb
import yaml
from lightning.pytorch.callbacks import EarlyStopping
from safetensors.torch import save_file

from interaction_train.callbacks import GeneralizationGap
from interaction_train.cli.main import MonitorCheck, main
from interaction_train.data import DigitsDataModule
from interaction_train.models import DigitsNet
from interaction_train.training.module import InteractionClassifier

TERM = "--model.losses.interaction.term"
SHORT = (
    "--trainer.limit_train_batches 1 --trainer.limit_val_batches 1 --trainer.max_epochs 1 "
    "--trainer.accelerator cpu --trainer.enable_progress_bar false --trainer.num_sanity_val_steps 0"
)
USER_CODE = """
import lightning as L
import torch
from torch import nn

from interaction_train.models import DigitsNet
from interaction_train.training.module import InteractionClassifier

NotModule = dict


class BadInit(nn.Module):
    def __init__(self):
        super().__init__()
        raise ValueError("my init")


class BadForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x)


class Plain(BadForward):
    def forward(self, x):
        return self.layer(x.flatten(1))


class BadModule(InteractionClassifier):
    def __init__(self):
        super().__init__(DigitsNet())
        raise RuntimeError("my module")


class BadStep(InteractionClassifier):
    def training_step(self, batch, batch_idx):
        self.log("x", {"a": object()})


class BadFile(InteractionClassifier):
    def on_fit_start(self):
        open("/none/of/mine")


class BadOptimizer(InteractionClassifier):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=-1.0)


class BadCallback(L.Callback):
    def on_train_start(self, trainer, module):
        raise OSError("my callback")


class BadData(L.LightningDataModule):
    def train_dataloader(self):
        raise TypeError("my data")
"""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Damaged files of all kinds, and a module of the user's own, in the current folder."""
    home = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(sys, "path", [str(home), *sys.path])
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.delenv("WANDB_MODE", raising=False)
        patch.setenv("NETRC", str(home / "no_netrc"))
        patch.setenv("HOME", str(home))
        Path("usermod.py").write_text(USER_CODE)
        Path("userbroken.py").write_text("raise ImportError('my import')\n")
        _configs()
        _checkpoints()
        yield home
    sys.modules.pop("usermod", None)
    wandb.teardown()  # else the next tests would meet W&B as it was set up in here, online


def _configs() -> None:
    Path("binary.yaml").write_bytes(bytes(range(128, 256)))
    Path("nul.yaml").write_bytes(b"name: \0")
    Path("empty.yaml").write_text("")
    Path("list.yaml").write_text("- 1\n- 2\n")
    Path("word.yaml").write_text("word\n")
    Path("torn.yaml").write_text("trainer: {max_epochs: 3\n")
    Path("tabs.yaml").write_text("trainer:\n\tmax_epochs: 3\n")
    Path("twice.yaml").write_text(
        "base: base_digits.yaml\ntrainer: {max_epochs: 3, max_epochs: 4}\n"
    )
    Path("unknown.yaml").write_text("trainor: {max_epochs: 3}\n")
    Path("deep.yaml").write_text("trainer: {max_epoch: 3}\n")
    Path("circle.yaml").write_text("base: circle.yaml\n")
    Path("nobase.yaml").write_text("base: nowhere.yaml\n")
    Path("numberbase.yaml").write_text("base: 3\n")
    Path("nomodel.yaml").write_text("name: x\n")
    Path("afile").write_text("in the way\n")
    Path("afolder").mkdir()
    for name, monitor in {"stop": "val/ac", "save": "val/lss", "plateau": "val/accc"}.items():
        config: dict = {"base": "base_digits.yaml", "name": name}
        if name == "stop":
            stop = {"class_path": "EarlyStopping", "init_args": {"monitor": monitor}}
            config["trainer"] = {"callbacks+": [stop]}
        elif name == "save":
            save = {"class_path": "ModelCheckpoint", "init_args": {"monitor": monitor}}
            config["trainer"] = {"callbacks": [save]}
        else:
            init = {"monitor": monitor}
            path = "lightning.pytorch.cli.ReduceLROnPlateau"
            scheduler = {"class_path": path, "init_args": init}
            config["model"] = {"init_args": {"lr_scheduler": scheduler}}
        Path(f"{name}.yaml").write_text(yaml.safe_dump(config))


def _checkpoints() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["interaction-train"])
        main(
            f"fit --config base_digits.yaml --name good --wandb disabled {SHORT} "
            "--test_after_fit false".split()
        )
    good = Path("runs/good/version_0/checkpoints/last.ckpt")
    data = good.read_bytes()
    state = torch.load(good, weights_only=True)
    Path("good.ckpt").write_bytes(data)
    Path("void.ckpt").write_bytes(b"")
    Path("text.ckpt").write_text("no checkpoint\n")
    Path("torn.ckpt").write_bytes(data[: len(data) // 2])
    Path("flipped.ckpt").write_bytes(data[:100] + b"\0" * 400 + data[500:])
    torch.save([1, 2], "list.ckpt")
    torch.save(DigitsNet().state_dict(), "bare.ckpt")
    torch.save({**state, "state_dict": 3}, "number.ckpt")
    torch.save({**state, "extra": Path("x")}, "objects.ckpt")
    torch.save({k: v for k, v in state.items() if k != "state_dict"}, "stateless.ckpt")
    torch.save({k: v for k, v in state.items() if k != "optimizer_states"}, "weights.ckpt")
    torch.save({k: v for k, v in state.items() if k != "loops"}, "loopless.ckpt")
    wide = {f"model.{k}": v for k, v in DigitsNet(width=4).state_dict().items()}
    torch.save({**state, "state_dict": wide}, "wide.ckpt")
    torch.save({**state, "state_dict": {}}, "nothing.ckpt")
    surplus = {**state["state_dict"], "surplus": torch.zeros(1)}
    torch.save({**state, "state_dict": surplus}, "surplus.ckpt")
    save_file({"a": torch.zeros(2)}, "other.safetensors")
    Path("torn.safetensors").write_bytes(Path("other.safetensors").read_bytes()[:20])
    Path("text.safetensors").write_text("no weights")
    Path("void.safetensors").write_bytes(b"")


# A command, its arguments, and what the line has to name.
TABLE = """
fit --config none.yaml | none.yaml
fit --config binary.yaml | binary.yaml
fit --config nul.yaml | nul.yaml
fit --config list.yaml | list.yaml
fit --config word.yaml | word.yaml
fit --config empty.yaml | empty.yaml
fit --config torn.yaml | torn.yaml
fit --config tabs.yaml | tabs.yaml
fit --config twice.yaml | 'max_epochs' comes twice
fit --config afolder | afolder
fit --config unknown.yaml | trainor
fit --config deep.yaml | max_epoch
fit --config circle.yaml | circle.yaml
fit --config nobase.yaml | nowhere.yaml
fit --config numberbase.yaml | '3'
fit --config nomodel.yaml | model
fit --config | config
validate --config binary.yaml | binary.yaml
test --config none.yaml | none.yaml
predict --config torn.yaml | torn.yaml
| subcommand
fitt | fitt
fit | model
fit -x | -x
fit --config=base_digits.yaml --base other.yaml | base
D --frobnicate 3 | frobnicate
D surplus | surplus
D --name | name
D --name "" | name
D --name / | name
D --name a/../../b | name
D --name /tmp/run | '/tmp/run'
D --name . | name
D --wandb maybe | wandb
D --wandb | wandb
D --test_after_fit perhaps | test_after_fit
D --seed_everything -1 | seed
D --seed_everything 99999999999 | seed
D --seed_everything abc | seed_everything
D --seed_everything 1.5 | seed_everything
D --trainer.max_epochs -7 | max_epochs
D --trainer.max_epochs abc | max_epochs
D --trainer.max_epochs 1.5 | max_epochs
D --trainer.max_steps -3 | max_steps
D --trainer.min_epochs x | min_epochs
D --trainer.strategy none | none
D --trainer.strategy 3 | 3
D --trainer.accelerator tpuu | tpuu
D --trainer.accelerator cuda | CUDA
D --trainer.accelerator mps | MPS
D --trainer.devices 0 | devices
D --trainer.devices -3 | devices
D --trainer.devices abc | devices
D --trainer.devices [] | devices
D --trainer.num_nodes 0 | num_nodes
D --trainer.num_nodes x | num_nodes
D --trainer.precision 17 | precision
D --trainer.precision double | precision
D --trainer.gradient_clip_val x | gradient_clip_val
D --trainer.gradient_clip_algorithm cube | gradient_clip_algorithm
D --trainer.accumulate_grad_batches 0 | accumulate_grad_batches
D --trainer.accumulate_grad_batches x | accumulate_grad_batches
D --trainer.check_val_every_n_epoch x | check_val_every_n_epoch
D --trainer.check_val_every_n_epoch 0 | check_val_every_n_epoch
D --trainer.val_check_interval -1 | val_check_interval
D --trainer.val_check_interval 7.5 | val_check_interval
D --trainer.limit_train_batches -1 | limit_train_batches
D --trainer.limit_train_batches 1.5 | limit_train_batches
D --trainer.limit_val_batches x | limit_val_batches
D --trainer.limit_val_batches -2 | limit_val_batches
D --trainer.limit_test_batches 3.5 | limit_test_batches
D --trainer.log_every_n_steps x | log_every_n_steps
D --trainer.log_every_n_steps -1 | log_every_n_steps
D --trainer.gradient_clip_val -1 | gradient_clip_val
D --model.init_args.lr_scheduler.init_args.T_max 0 | lr_scheduler
D --trainer.num_sanity_val_steps -2 | num_sanity_val_steps
D --trainer.overfit_batches -1 | overfit_batches
D --trainer.fast_dev_run -1 | fast_dev_run
D --trainer.fast_dev_run x | fast_dev_run
D --trainer.profiler none | profiler
D --trainer.max_time forever | forever
D --trainer.logger nologger | logger
D --trainer.logger.class_path NoLogger | NoLogger
D --trainer.callbacks NoCallback | NoCallback
D --trainer.callbacks+ NoCallback | NoCallback
D --trainer.callbacks+ EarlyStopping | monitor
D --trainer.callbacks+ EarlyStopping --trainer.callbacks.monitr val/loss | monitr
D --trainer.callbacks+ EarlyStopping --trainer.callbacks.monitor val/loss --trainer.callbacks.mode up | mode
D --trainer.callbacks+ EarlyStopping --trainer.callbacks.monitor val/loss --trainer.callbacks.patience x | patience
D --trainer.callbacks+ ModelCheckpoint --trainer.callbacks.save_top_k -7 | save_top_k
D --trainer.callbacks+ ModelCheckpoint --trainer.callbacks.save_top_k 2 | save_top_k
D --trainer.callbacks+ ModelCheckpoint --trainer.callbacks.mode up --trainer.callbacks.monitor val/acc | mode
D --trainer.callbacks+ ModelCheckpoint --trainer.callbacks.every_n_epochs -2 | every_n_epochs
D --trainer.callbacks+ ExactInteractions --trainer.callbacks.rows 0 | rows
D --trainer.callbacks+ ExactInteractions --trainer.callbacks.rows 9 | 9 x 4 cells
D --trainer.callbacks+ ExactInteractions --trainer.callbacks.samples 0 | samples
D --trainer.callbacks+ SpectrumMonitor --trainer.callbacks.every 0 | every
D --trainer.callbacks+ SpectrumMonitor --trainer.callbacks.ratios [2] | ratio
D --trainer.callbacks+ SpectrumMonitor --trainer.callbacks.contexts 0 | contexts
D --trainer.callbacks+ GeneralizationGap --trainer.callbacks.every -1 | every
D --trainer.callbacks+ LearningRateMonitor --trainer.callbacks.logging_interval never | logging_interval
D --trainer.callbacks+ Timer --trainer.callbacks.duration forever | duration
D --trainer.default_root_dir afile | afile
D --trainer.default_root_dir afile/runs | afile
D --trainer.default_root_dir /proc/none | /proc/none
D --trainer.default_root_dir /dev/null/runs | /dev/null
D --trainer.default_root_dir /sys/none | /sys/none
D --trainer.default_root_dir afolder --name ../afile | afile
D --trainer.enable_checkpointing maybe | enable_checkpointing
D --trainer.deterministic x | deterministic
D --trainer.benchmark x | benchmark
D --trainer.reload_dataloaders_every_n_epochs -1 | reload_dataloaders_every_n_epochs
D --trainer.plugins none | plugins
D --trainer.inference_mode x | inference_mode
D --trainer.epochs 3 | epochs
D --model InteractionClasifier | InteractionClasifier
D --model usermod.NotModule | usermod.NotModule
D --model usermod.None | usermod
D --model nomod.Net | nomod.Net
D --model DigitsNet | DigitsNet
D --model 3 | model
D --model.num_classes 5 | num_classes
D --model.num_classes 1 | num_classes
D --model.num_classes 20 | num_classes
D --model.num_classes 99999999 | num_classes
D --model.num_classes x | num_classes
D --model.num_class 3 | num_class
D --model.label_smoothing 2 | label_smoothing
D --model.label_smoothing x | label_smoothing
D --model.model DigitNet | DigitNet
D --model.model usermod.NotModule | usermod.NotModule
D --model.model DigitsNet --model.model.width 0 | width
D --model.model DigitsNet --model.model.width x | width
D --model.model DigitsNet --model.model.widht 3 | widht
D --model.model DigitsNet --model.model.dropout 1.5 | dropout
D --model.model DigitsNet --model.model.num_classes 0 | num_classes
D --model.model DigitsNet --model.model.image_size 4 | image_size
D --model.model DigitsNet --model.model.mean [1,2] | mean
D --model.model DigitsNet --model.model.std [0] | std
D --model.model DigitsNet --model.model.in_channels 3 | mean
D --model.model DigitsNet --model.model.image_size 16 | shape
D --model.model DigitsMLP --model.model.hidden [] | hidden
D --model.model CIFARAlexNet --model.model.hidden 0 | hidden
D --model.model CIFARAlexNet | (B, C, 32, 32)
D --model.model CIFARVGG --model.model.depth 12 | depth
D --model.model CIFARResNet --model.model.depth 19 | depth
D --model.model CIFARThinResNet --model.model.depth 18 | depth
D --model.model CIFARThinResNet --model.model.width 3 | width
D --model.model CIFARThinResNet --model.model.weights none.safetensors | none.safetensors
D --model.model CIFARThinResNet --model.model.weights torn.safetensors | torn.safetensors
D --model.model CIFARThinResNet --model.model.weights text.safetensors | text.safetensors
D --model.model CIFARThinResNet --model.model.weights void.safetensors | void.safetensors
D --model.model CIFARThinResNet --model.model.weights other.safetensors | other.safetensors
D --model.model CIFARThinResNet --model.model.weights afolder | afolder
D --model.model interaction_train.models.pretrained --model.model.model DigitsNet --model.model.weights digit_cnn | digit_cnn
D --model.model interaction_train.models.pretrained --model.model.model DigitsNet --model.model.weights torn.safetensors | torn.safetensors
D --model.model interaction_train.models.pretrained --model.model.model DigitsNet --model.model.weights void.ckpt | void.ckpt
D --model.model interaction_train.models.pretrained --model.model.model DigitsNet --model.model.weights list.ckpt | list.ckpt
D --model.model interaction_train.models.pretrained --model.model.model DigitsMLP --model.model.weights digits_cnn | digits_cnn
D --model.optimizer NoOptimizer | NoOptimizer
D --model.optimizer 3 | optimizer
D --model.optimizer.lr -0.1 | learning rate
D --model.optimizer.lr x | lr
D --model.optimizer.lrr 0.1 | lrr
D --model.optimizer.momentum -1 | momentum
D --model.optimizer.weight_decay -1 | weight_decay
D --model.optimizer AdamW --model.optimizer.lr -1 | learning rate
D --model.optimizer AdamW --model.optimizer.betas [2,2] | beta
D --model.optimizer AdamW --model.optimizer.eps -1 | epsilon
D --model.lr_scheduler NoScheduler | NoScheduler
D --model.lr_scheduler StepLR | step_size
D --model.lr_scheduler.T_max x | T_max
D --model.lr_scheduler.Tmax 3 | Tmax
D --model.lr_scheduler lightning.pytorch.cli.ReduceLROnPlateau | monitor
I --model.losses.interaction.weight -1 | weight
I --model.losses.interaction.weight abc | weight
I --model.losses.interaction.weight nan | weight
I --model.losses.interaction.ramp cubic | ramp
I --model.losses.interaction.warmup_epochs -1 | warmup_epochs
I TERM.init_args.layer feature.2 | feature.2
I TERM.init_args.layr x | layr
I TERM.init_args.groups 0 | groups
I TERM.init_args.groups x | groups
I TERM.group_fraction 0.6 | group_fraction
I TERM.group_fraction -1 | group_fraction
I TERM NoLoss | NoLoss
I TERM BandLoss TERM.center 0.5 TERM.half_width 3 | half_width
I TERM OrderLoss TERM.r1 2 TERM.r2 1 | r1
D --data ImageDataModul | ImageDataModul
D --data usermod.NotModule | usermod.NotModule
D --data ImageDataModule | source
D --data ImageDataModule --data.source none.npz | none.npz
D --data ImageDataModule --data.source afile | afile
D --data ImageDataModule --data.source binary.yaml | binary.yaml
D --data.batch_size 0 | batch_size
D --data.batch_size x | batch_size
D --data.batchsize 3 | batchsize
D --data.num_workers -1 | num_workers
D --data.train_fraction 0 | train_fraction
D --data.train_fraction 2 | train_fraction
D --data.augment perhaps | augment
D --ckpt_path none.ckpt | none.ckpt
D --ckpt_path best --name never | best
D --ckpt_path afolder | afolder
D --ckpt_path void.ckpt | void.ckpt
D --ckpt_path text.ckpt | text.ckpt
D --ckpt_path torn.ckpt | torn.ckpt
D --ckpt_path list.ckpt | list.ckpt
D --ckpt_path bare.ckpt | bare.ckpt
D --ckpt_path weights.ckpt | weights.ckpt
D --ckpt_path loopless.ckpt | loopless.ckpt
D --ckpt_path wide.ckpt | wide.ckpt
D --ckpt_path objects.ckpt | objects.ckpt
D --ckpt_path good.ckpt --model.optimizer AdamW --trainer.max_epochs 3 | good.ckpt
D --ckpt_path hpc | hpc
V --ckpt_path none.ckpt | none.ckpt
V --ckpt_path last --name never | last
V --ckpt_path best --name never | best
V --ckpt_path afolder | afolder
V --ckpt_path void.ckpt | void.ckpt
V --ckpt_path text.ckpt | text.ckpt
V --ckpt_path torn.ckpt | torn.ckpt
V --ckpt_path flipped.ckpt | flipped.ckpt
V --ckpt_path list.ckpt | list.ckpt
V --ckpt_path bare.ckpt | bare.ckpt
V --ckpt_path number.ckpt | number.ckpt
V --ckpt_path stateless.ckpt | stateless.ckpt
V --ckpt_path wide.ckpt | wide.ckpt
V --ckpt_path nothing.ckpt | nothing.ckpt
V --ckpt_path surplus.ckpt | surplus.ckpt
V --ckpt_path registry | registry
V --trainer.default_root_dir afile | afile
fit --config stop.yaml SHORT --wandb disabled | val/ac
fit --config save.yaml SHORT --wandb disabled | val/lss
fit --config plateau.yaml SHORT --wandb disabled | val/accc
fit --config base_digits.yaml --wandb online SHORT | API key
"""
START = {
    "D": f"fit --config base_digits.yaml --wandb disabled {SHORT}",
    "V": f"validate --config base_digits.yaml --wandb disabled {SHORT}",
    "I": f"fit --config digits.yaml --wandb disabled {SHORT}",
}


def arguments(line: str) -> list[str]:
    words = [START.get(line[:1], "") if line[1:2] == " " else "", line[2:]]
    text = " ".join(words) if words[0] else line
    return shlex.split(text.replace("SHORT", SHORT).replace("TERM", TERM))


CASES = [tuple(part.strip() for part in line.rsplit("|", 1)) for line in TABLE.strip().split("\n")]


@pytest.mark.parametrize(("line", "named"), CASES, ids=[line for line, _ in CASES])
def test_one_line_names_the_argument_or_the_file(line, named, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments(line))
    assert exit_.value.code == 2
    errors = [x for x in capsys.readouterr().err.splitlines() if "error:" in x]
    assert len(errors) == 1
    assert errors[0].startswith("interaction-train: error: ")
    assert named in errors[0]
    assert len(errors[0]) < 400


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ("--data.class_path DigitsNet", "DigitsDataModule"),
        ("--data DigitsNet", "DigitsDataModule, ImageDataModule"),
        ("--data ImageDataModul", "ImageDataModule, TableDataModule"),
        ("--model DigitsDataModule", "UniversalPerturbation, TransferEvaluation"),
        ("--model.optimizer SGDD", "SGD, ASGD"),
        ("--model.model DigitNet", "DigitsNet"),
        (f"{TERM} InteractionLos", "InteractionLoss"),
    ],
)
def test_names_that_are_near_are_of_the_kind_that_is_wanted(option, near, capsys):
    with pytest.raises(SystemExit):
        main(arguments(f"D {option}"))
    said = capsys.readouterr().err
    assert f"expected the name or path of a class, such as {near}" in said


@pytest.mark.parametrize(
    "option", ["--model.model DigitsDataModule", "--model.model SGD", f"{TERM} DigitsNet"]
)
def test_a_class_of_another_kind_is_not_recommended(option, capsys):
    with pytest.raises(SystemExit):
        main(arguments(f"D {option}"))
    assert capsys.readouterr().err.endswith("expected the name or path of a class\n")


@pytest.mark.parametrize(
    "callback",
    [
        "AttributionReport",
        "ConceptMonitor",
        "ExactInteractions",
        "SpectrumMonitor",
        "GeneralizationGap",
    ],
)
def test_a_missing_baseline_is_refused_before_training(callback, monkeypatch, capsys):
    def trained(*args):
        raise AssertionError

    monkeypatch.setattr(InteractionClassifier, "training_step", trained)
    network = "--model.model usermod.Plain"
    with pytest.raises(SystemExit) as exit_:
        main(
            arguments(
                f"fit --config base_digits.yaml SHORT --wandb disabled {network} "
                f"--trainer.callbacks {callback}"
            )
        )
    assert exit_.value.code == 2
    assert f"error: baseline: got None for {callback}, expected numbers" in capsys.readouterr().err
    with pytest.raises(AssertionError):
        main(
            arguments(
                f"fit --config base_digits.yaml SHORT --wandb disabled {network} "
                f"--trainer.callbacks {callback} --trainer.callbacks.baseline 0.5"
            )
        )


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            "stop",
            "got 'val/ac' for EarlyStopping, expected a metric that is logged, such as val/acc",
        ),
        (
            "save",
            "got 'val/lss' for ModelCheckpoint, expected a metric that is logged, such as val/loss",
        ),
        (
            "plateau",
            "got 'val/accc' for lr_scheduler, expected a metric that is logged, such as val/acc",
        ),
    ],
)
def test_a_mistyped_monitor_is_refused_before_training(config, said, monkeypatch, capsys):
    def trained(*args):
        raise AssertionError

    monkeypatch.setattr(InteractionClassifier, "training_step", trained)
    with pytest.raises(SystemExit) as exit_:
        main(
            f"fit --config {config}.yaml --wandb disabled {SHORT} --trainer.num_sanity_val_steps 1".split()
        )
    assert exit_.value.code == 2
    assert f"error: monitor: {said}\n" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["mine", "val/mine/x", "train/loss", "val/gap/acc"])
def test_a_monitor_that_is_logged_later_is_not_refused(key):
    class Logs(InteractionClassifier):
        def training_step(self, *args):
            self.log("mine", 1.0)
            self.log("val/mine/x", 1.0)
            return super().training_step(*args)

    trainer = L.Trainer(
        max_epochs=1, limit_train_batches=1, limit_val_batches=1, logger=False, accelerator="cpu",
        callbacks=[MonitorCheck(), GeneralizationGap(every=1, strength_samples=0), EarlyStopping(key)],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = Logs if "mine" in key else InteractionClassifier
    trainer.fit(module(DigitsNet()), DigitsDataModule())
    assert trainer.global_step == 1


def test_a_folder_that_takes_no_more(capsys):
    """As on a full disk: the checkpoint does not fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(SystemExit) as exit_:
            main(arguments("D --name full"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert exit_.value.code == 2
    assert "error: the run's folder: File too large" in capsys.readouterr().err


USER = {
    "--model usermod.BadModule": (ValueError, "my module"),  # the parser's, from the user's
    "--model.model usermod.BadInit": (ValueError, "my init"),
    "--model.model usermod.BadForward": (RuntimeError, "mat1 and mat2"),
    "--model usermod.BadStep --model.model DigitsNet": (Exception, "log"),
    "--model usermod.BadFile --model.model DigitsNet": (FileNotFoundError, "/none/of/mine"),
    "--model usermod.BadOptimizer --model.model DigitsNet": (ValueError, "learning rate"),
    "--trainer.callbacks+ usermod.BadCallback": (OSError, "my callback"),
    "--data usermod.BadData": (TypeError, "my data"),
    "--model userbroken.Net": (Exception, "my import"),
}


@pytest.mark.parametrize("line", USER)
def test_code_of_the_user_s_own_keeps_its_traceback(line):
    kind, message = USER[line]
    with pytest.raises(kind, match=message):
        main(arguments(f"D {line}"))


def test_the_table_is_long():
    assert len(set(CASES)) >= 200
    assert len(USER) <= 10
