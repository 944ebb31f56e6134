"""The report: what it says, in a real browser, after a kill, and from one of two processes."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import lightning as L
import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from matplotlib.colors import to_rgb
from PIL import Image

from interaction_train import __version__
from interaction_train.callbacks import RunReport
from interaction_train.data import DigitsDataModule
from interaction_train.models import DigitsNet
from interaction_train.tracking.history import History, read_history
from interaction_train.tracking.report import write_report
from interaction_train.tracking.report.material import Run
from interaction_train.training.module import InteractionClassifier
from tests.metrics.watch import loader, network, trainer

pytestmark = pytest.mark.filterwarnings("ignore")
HOSTILE = '<script>alert("x")</script>&</pre>'
VOID = {"meta", "img", "br", "wbr", "link", "hr", "input", "source"}


class Outline(HTMLParser):
    """Tags of a page, and whether they close as they opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.open, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def make_run(folder: Path) -> Path:
    """A run's folder with all kinds of things in it, hostile names among them."""
    run = folder / "name <b>" / "version_0"
    (run / "figures").mkdir(parents=True)
    history = History(run)
    for k in range(5):
        values = {"train/loss": 1 / (k + 1), "val/acc": 0.1 * k, "val/robust_acc/PGD": 0.05 * k}
        history.log_metrics({"epoch": k, **values, "<i>odd</i>": k}, step=10 * k)
    (run / "config.yaml").write_text(f"name: '{HOSTILE}'\n")
    (run / "summary.json").write_text(json.dumps({"note": HOSTILE, "x": {"value": 1, "stderr": 2}}))
    (run / "transfer.csv").write_text(f"source,target\n{HOSTILE},0.25\n")
    for name in ("interactions.png", "figures/val_robust_acc.png", "figures/copy_interactions.png"):
        colour = "red" if "robust" in name else "blue"
        Image.new("RGB", (12, 8), colour).save(run / name)
    start = {
        "stage": "fit", "time": "2026-01-01", "step": 0, "processes": 1,
        "command": f"train {HOSTILE}", "machine": {}, "versions": {"torch": "2"},
    }  # fmt: skip
    (run / "starts.json").write_text(json.dumps([start, {**start, "step": 20}]))
    return run


def test_page_is_whole_escaped_and_on_its_own(tmp_path):
    run = make_run(tmp_path)
    page = write_report(run).read_text()
    outline = Outline(page)
    assert outline.open == []
    assert "<script" not in page
    assert page.count("alert(&#34;x&#34;)") == 4  # config, note, table, command
    for tag, attributes in outline.tags:
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, value)
        if tag == "img":
            assert attributes["alt"]
    assert "url(http" not in page
    identities = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    drawn = "data:image/png"
    sources = [a["src"] for tag, a in outline.tags if tag == "img"]
    images = [src.partition(",")[2] for src in sources if src.startswith(drawn)]
    colours = [decode(data).getpixel((0, 0)) for data in images]
    assert sorted(colours) == [(0, 0, 255), (255, 0, 0)]  # the copy is shown once
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert "5 epochs, 41 steps" in page
    assert "resumed at step 20" in page


def decode(data: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(data)))


# The W3C's matrix of hue-rotate(180deg) on (red, green, blue), for sin 180° = 0.
TURN = np.array([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def contrast(first: np.ndarray, second: np.ndarray) -> float:
    """The W3C's contrast ratio of two colours (red, green, blue) in [0, 1]."""
    dark, light = sorted(
        float(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ LUMINANCE)
        for c in (first, second)
    )
    return (light + 0.05) / (dark + 0.05)


def test_charts_are_drawn_once_and_readable_on_light_and_dark_pages(tmp_path):
    """A dark page turns them by its style sheet; both colours of each line and text are checked."""
    run = make_run(tmp_path)
    history = History(run)
    for k in range(2):
        spectrum = {f"val/interaction/J/{m / 8}": 1.0 + m + k for m in range(9)}
        many = {f"many/{name}": k * i for i, name in enumerate("abcdefgh")}
        few = {f"few/{name}": k * i for i, name in enumerate("abcdef")}
        history.log_metrics({**spectrum, **many, **few}, step=10 * k)
    page = write_report(run).read_text()
    dark_page = page[page.index("@media (prefers-color-scheme: dark)") :]
    assert ".chart img { filter: invert(1) hue-rotate(180deg); }" in dark_page
    cards = [np.array(to_rgb(c)) for c in re.findall(r"--card: (#[0-9a-f]+)", page)]
    assert len(cards) == 2
    sources = [a["src"] for tag, a in Outline(page).tags if tag == "img"]
    drawn = [src.partition(",")[2] for src in sources if src.startswith("data:image/svg")]
    assert len(drawn) == 7
    colours = set()
    for svg in drawn:
        text = base64.b64decode(svg).decode()
        ElementTree.fromstring(text)
        colours |= set(re.findall(r"#[0-9a-f]{6}\b", text))
    faint = {"#b4bec8"}  # the grid
    assert faint < colours
    assert len(colours) > 20
    for colour in sorted(colours):
        rgb = np.array(to_rgb(colour))
        seen = (rgb, np.clip(TURN @ (1 - rgb), 0, 1))
        for shown, card in zip(seen, cards, strict=True):
            least = 1.5 if colour in faint else 4.5 if colour == "#1f2933" else 3
            assert contrast(shown, card) >= least, colour


def test_ticks_of_values_far_apart_are_numbers(tmp_path):
    run = make_run(tmp_path)
    history = History(run)
    for k in range(1, 3):
        history.log_metrics({"far/small": 0.01 * k, "far/large": 1000.0 * k}, step=10 * k)
    page = write_report(run).read_text()
    sources = [a["src"] for tag, a in Outline(page).tags if tag == "img"]
    drawn = [src.partition(",")[2] for src in sources if src.startswith("data:image/svg")]
    shown = ["".join(ElementTree.fromstring(base64.b64decode(svg)).itertext()) for svg in drawn]
    assert any("large" in text and "1000" in text for text in shown)
    assert not any("$" in text or "math" in text for text in shown)


def test_titles_are_words_and_keys_stand_beside(tmp_path):
    page = write_report(make_run(tmp_path)).read_text()
    for heading in ("Training", "Interactions", "Robustness", "Other metrics"):
        assert f">{heading}</h2>" in page
    assert "Robust accuracy, PGD (validation)" in page
    row = '<th scope="row">Robust accuracy, PGD (validation)</th><td>0.2</td><td>0</td><td>0.2</td>'
    assert f"{row}<td>5</td><td>val/robust_acc/PGD</td>" in page


def test_a_resumed_run_is_joined_with_those_before_and_later_values_win(tmp_path):
    first, second = make_run(tmp_path), tmp_path / "name <b>" / "version_1"
    history = History(second)
    for k in range(2, 6):
        history.log_metrics({"epoch": k, "train/loss": 7.0}, step=10 * k)
    origin = {"folder": str(first), "step": 20}
    start = json.loads((first / "starts.json").read_text())[0]
    started = {**start, "step": 20, "resumed_from": origin, "finished": False, "epochs": 9}
    (second / "starts.json").write_text(json.dumps([started]))
    with (second / "history.jsonl").open("a") as file:
        file.write('{"step": 60, "train/lo')  # torn by a kill
    series = Run(second).series
    assert series["train/loss"].steps == [0, 10, 20, 30, 40, 50]
    assert series["train/loss"].values == [1.0, 0.5, 7.0, 7.0, 7.0, 7.0]
    assert series["val/acc"].steps == [0, 10]
    page = write_report(second).read_text()
    assert "unfinished, epoch 6 of 9" in page
    assert "resumed at step 20" in page
    assert len(list(read_history(second))) == 4


def test_an_empty_folder_gets_a_report_that_says_so(tmp_path):
    assert "there are no curves" in write_report(tmp_path).read_text()


def fit(tmp_path: Path, *callbacks: L.Callback, epochs: int = 2, **options) -> torch.Tensor:
    L.seed_everything(0)
    module = InteractionClassifier(DigitsNet(width=4))
    run = trainer(
        tmp_path, max_epochs=epochs, limit_train_batches=3, limit_val_batches=2,
        log_every_n_steps=1, callbacks=list(callbacks), **options,
    )  # fmt: skip
    run.fit(module, datamodule=DigitsDataModule())
    return torch.cat([value.flatten() for value in module.parameters()])


def test_fit_ends_with_the_report_and_is_left_alone(tmp_path, capsys):
    plain = fit(tmp_path, logger=CSVLogger(tmp_path, "plain"))
    watched = fit(tmp_path, RunReport(), logger=CSVLogger(tmp_path, "watched"))
    assert torch.equal(plain, watched)
    run = tmp_path / "watched" / "version_0"
    assert capsys.readouterr().out.splitlines()[-1] == f"Report: {run / 'report.html'}"
    page = (run / "report.html").read_text()
    assert "2 epochs, 6 steps" in page
    assert __version__ in page
    (start,) = json.loads((run / "starts.json").read_text())
    assert start["stage"] == "fit"
    assert start["versions"]["torch"] == torch.__version__


def test_every_start_is_told_in_its_own_run(tmp_path):
    """One callback over two trainers, the second of which fits twice."""
    report, starts = RunReport(), []
    fit(tmp_path, report, epochs=1, logger=CSVLogger(tmp_path, "first"))
    module, data = InteractionClassifier(DigitsNet(width=4)), DigitsDataModule()
    logger = CSVLogger(tmp_path, "second")
    run = trainer(tmp_path, limit_train_batches=2, callbacks=[report], logger=logger)
    for epochs in (2, 3):
        run.fit_loop.max_epochs = epochs
        run.fit(module, datamodule=data)
    for name in ("first", "second"):
        path = tmp_path / name / "version_0" / "starts.json"
        starts.append(
            [(s["epochs"], s["step"], s["finished"]) for s in json.loads(path.read_text())]
        )
    assert starts == [[(1, 0, True)], [(2, 0, True), (3, 4, True)]]


@pytest.mark.parametrize("kind", [TensorBoardLogger, WandbLogger])
def test_curves_without_a_csv_logger_and_folders_of_their_own(kind, tmp_path):
    """Two runs with one save directory share no file."""
    options = {"offline": True} if kind is WandbLogger else {}
    for _ in range(2):
        fit(tmp_path, RunReport(), logger=kind(save_dir=tmp_path, name="run", **options))
        wandb.finish()
    pages = [path.read_text() for path in tmp_path.rglob("report.html")]
    assert len(pages) == len(list(tmp_path.rglob("history.jsonl"))) == 2
    for page in pages:
        assert "2 epochs, 6 steps" in page
        assert page.count('class="chart"') >= 2


def test_a_run_that_fails_is_reported_as_unfinished(tmp_path):
    class Failing(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fit(tmp_path, Failing(), RunReport(), epochs=3, logger=CSVLogger(tmp_path, "failed"))
    page = (tmp_path / "failed" / "version_0" / "report.html").read_text()
    assert "unfinished, epoch 1 of 3" in page


@pytest.mark.parametrize("crash", [False, True])
def test_one_report_of_fit_and_the_test_that_follows(tmp_path, crash, capsys):
    """As the command line does it; a test that fails leaves the report of what there is."""
    report = RunReport()
    report.test_follows = True
    run = trainer(
        tmp_path, max_epochs=1, limit_train_batches=2, log_every_n_steps=1, callbacks=[report],
        logger=CSVLogger(tmp_path, "run"),
    )  # fmt: skip
    module = InteractionClassifier(DigitsNet(width=4))
    run.fit(module, datamodule=DigitsDataModule())
    path = tmp_path / "run" / "version_0" / "report.html"
    assert not path.exists()
    if crash:
        with pytest.raises(FileNotFoundError):
            run.test(module, datamodule=DigitsDataModule(), ckpt_path="nowhere.ckpt")
    else:
        run.test(module, datamodule=DigitsDataModule(), verbose=False)
    assert ("Test accuracy" in path.read_text()) is not crash
    assert "1 epoch, 2 steps" in path.read_text()
    assert capsys.readouterr().out.count("Report: ") == 1


def test_no_report_where_nothing_is_kept(tmp_path):
    fit(tmp_path, RunReport(), logger=False)
    fit(tmp_path, RunReport(), fast_dev_run=1)
    assert not list(tmp_path.rglob("report*"))


def test_the_second_of_two_processes_writes_nothing(tmp_path, monkeypatch):
    run = trainer(
        tmp_path, callbacks=[RunReport(), Trace(tmp_path)],
        logger=CSVLogger(tmp_path, "two"), devices=2, strategy="ddp_spawn",
    )  # fmt: skip
    run.validate(InteractionClassifier(network()), loader(), verbose=False)
    (folder,) = (tmp_path / "two").iterdir()
    (start,) = json.loads((folder / "starts.json").read_text())
    assert start["processes"] == 2
    assert (folder / "report.html").is_file()
    assert {path.name for path in tmp_path.glob("rank_*")} == {"rank_0", "rank_1"}
    assert (tmp_path / "rank_0").read_text() == "report.html"
    assert (tmp_path / "rank_1").read_text() == ""


class Trace(L.Callback):
    """Notes which reports each process has written, by watching the function that does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer, pl_module, stage):
        import interaction_train.callbacks.run_report as module

        self.written, write = [], module.write_report

        def watched(folder):
            path = write(folder)
            self.written.append(path.name)
            return path

        module.write_report = watched

    def teardown(self, trainer, pl_module, stage):
        (self.folder / f"rank_{trainer.global_rank}").write_text(" ".join(self.written))


BROWSER = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
PROBE = """<script>
const pixels = [...document.querySelectorAll("img.paper")];
const images = pixels.map(x => [x.naturalWidth, x.naturalHeight]);
const drawn = [...document.querySelectorAll(".chart img")];
const charts = drawn.filter(x => x.naturalWidth).map(x => x.getBoundingClientRect());
document.documentElement.dataset.probe = JSON.stringify({
  images, charts: charts.map(x => [x.width, x.height]),
  requests: performance.getEntriesByType("resource").map(x => x.name),
  wide: document.documentElement.scrollWidth > innerWidth,
});</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH")
@pytest.mark.parametrize("width", [1100, 500])
def test_in_a_browser(tmp_path, width):
    """Figures have a size, nothing is asked for from outside, no error on the console."""
    run = make_run(tmp_path)
    path = write_report(run)
    probed = run / "probed.html"  # the policy forbids scripts: the copy does without it
    text = re.sub(r"<meta http-equiv[^>]*>", "", path.read_text())
    probed.write_text(text.replace("</body>", f"{PROBE}</body>"))
    dom, _ = browse(probed, width, tmp_path, "--dump-dom")
    found = Outline(dom).tags[0][1]["data-probe"]
    seen = json.loads(found)
    assert seen["images"] == [[12, 8], [12, 8]]
    assert len(seen["charts"]) == 4
    assert all(w > 200 and h > 100 for w, h in seen["charts"])
    assert [name for name in seen["requests"] if not name.startswith("data:")] == []
    assert not seen["wide"]

    shot, log = tmp_path / "shot.png", tmp_path / "net.json"
    _, said = browse(path, width, tmp_path, f"--screenshot={shot}", f"--log-net-log={log}")
    assert "CONSOLE" not in said
    assert len(Image.open(shot).convert("L").getcolors(256)) > 20
    # (The browser's own services ask for addresses too; none of them is named in the page.)
    hosts = set(re.findall(r'"url":"https?://([^/"]+)', log.read_text()))
    assert not any(host in path.read_text() for host in hosts)


def browse(path: Path, width: int, folder: Path, *options: str) -> tuple[str, str]:
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},1500"]
    command += ["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"]
    done = subprocess.run(
        [*command, *options, path.as_uri()], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout, done.stderr
