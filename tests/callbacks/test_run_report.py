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

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from interaction_train import __version__
from interaction_train.callbacks import RunReport
from interaction_train.data import DigitsDataModule
from interaction_train.models import DigitsNet
from interaction_train.tracking.report import write_report
from interaction_train.training.module import InteractionClassifier
from tests.metrics.watch import loader, network, trainer

pytestmark = pytest.mark.filterwarnings("ignore")
HOSTILE = '<script>alert("x")</script>&</pre>'
VOID = {"meta", "img", "br", "wbr", "link", "hr", "input"}


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
    rows = ["epoch,step,train/loss,val/acc,val/robust_acc/PGD,<i>odd</i>"]
    rows += [f"{k},{10 * k},{1 / (k + 1)},{0.1 * k},{0.05 * k},{k}" for k in range(5)]
    (run / "metrics.csv").write_text("\n".join(rows) + "\n")
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
    assert page.count("alert(&quot;x&quot;)") == 4  # config, note, table, command
    for tag, attributes in outline.tags:
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, value)
        if tag in ("img", "svg"):
            assert attributes.get("alt") or attributes.get("aria-label")
    assert "url(http" not in page
    identities = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    images = [a["src"].partition(",")[2] for tag, a in outline.tags if tag == "img"]
    colours = [decode(data).getpixel((0, 0)) for data in images]
    assert sorted(colours) == [(0, 0, 255), (255, 0, 0)]  # the copy is shown once
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert "5 epochs, 41 steps" in page
    assert "resumed at step 20" in page


def decode(data: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(data)))


def test_markdown_s_figures_exist_and_say_the_same(tmp_path):
    run = make_run(tmp_path)
    page = write_report(run).read_text()
    text = (run / "report.md").read_text()
    files = re.findall(r"\]\(([^)]+)\)", text)
    assert len(files) == page.count("<figure>") == 6
    for name in files:
        assert (run / name).is_file()
    for heading in ("Training", "Interactions", "Robustness", "Other metrics"):
        assert f"## {heading}\n" in text
        assert f">{heading}</h2>" in page
    assert "| val/robust\\_acc/PGD | 0.2 | 0 | 0.2 | 5 |" in text


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
const images = [...document.images].map(x => [x.naturalWidth, x.naturalHeight]);
const charts = [...document.querySelectorAll("figure svg")].map(x => x.getBoundingClientRect());
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
