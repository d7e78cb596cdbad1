"""The HTML report: it tells everything the ledger holds, nothing it doesn't, and needs nothing but itself."""

from __future__ import annotations

import html
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from flows import report as page
from flows.report import load, plots, tables, words
from tasks import params
from tasks.core.errors import UserError
from tasks.core.measure import Metrics, counted, measured, missing, modelled
from tasks.ledger import report

STAGES = tuple(params.STAGES)
NO_METER = "no energy meter readable"
NO_DEVICE = "no CUDA device"
VOID = {"meta", "meter", "br", "link", "img", "hr", "input"}


def ledger() -> dict[str, Metrics]:
    """Six stages with values of the size they really have."""
    wall = {"data": 21.4, "design": 1.9, "pretrain": 412.6, "finetune": 74.2, "compress": 38.9, "deploy_profile": 66.1}
    common = {
        stage: {
            "wall_seconds": measured(seconds),
            "cpu_seconds": measured(seconds * 1.8, "user and system, reaped child processes included"),
            "peak_memory_bytes": measured(int(4e8 + seconds * 3e6), "largest resident set of one process"),
            "attempts": counted(2 if stage == "pretrain" else 1),
            "peak_device_memory_bytes": missing(NO_DEVICE),
            "energy_joules": missing(NO_METER) if stage == "design" else modelled(seconds * 14.4, "cpu_seconds x 8 W per core"),
            "communication_bytes": counted(0, "one worker"),
        }
        for stage, seconds in wall.items()
    }
    quality = {"pretrain": 1.9312, "finetune": 1.9644, "compress": 1.9671}
    model = {"pretrain": 21_306_368, "finetune": 21_306_368, "compress": 8_912_896}
    own: dict[str, Metrics] = {
        "data": {
            "documents": counted(1731), "duplicates_dropped": counted(12), "train_bytes": counted(27_918_233),
            "bytes_per_token": counted(3.4127, "test split"),
            "gzip_bits_per_byte": measured(2.0717, "262144 held-out bytes"),
            "xz_bits_per_byte": measured(1.8125, "262144 held-out bytes"),
        },
        "design": {
            "parameters": counted(5_326_592), "training_flops_per_token": counted(41_811_968, "context of 1024 tokens"),
            "kv_cache_bytes_per_token": counted(3072), "model_bytes/float32": counted(21_306_368, "weights alone"),
        },
        "pretrain": {
            "parameters": counted(5_326_592), "tokens": counted(2_457_600), "flops": counted(9.13e13), "mfu": measured(0.4312),
            "training_seconds": measured(371.2), "train_loss": measured(2.4411), "validation_loss": measured(2.5127),
        },
        "finetune": {"trainable_parameters": counted(131_072), "adapter_bytes": counted(526_336), "flops": counted(6.4e12)},
        "compress": {"compression_ratio": counted(2.3905), "label_loyalty": measured(0.9817), "flops": counted(2.1e12)},
        "deploy_profile": {
            "time_to_first_token_seconds/transformers": measured(0.0391), "time_to_first_token_seconds/llama_cpp": measured(0.00481),
            "inter_token_latency_p50_seconds/transformers": measured(0.0112), "inter_token_latency_p50_seconds/llama_cpp": measured(0.000913),
            "inter_token_latency_p95_seconds/transformers": measured(0.0147), "inter_token_latency_p95_seconds/llama_cpp": measured(0.00118),
            "inter_token_latency_p99_seconds/transformers": measured(0.0203), "inter_token_latency_p99_seconds/llama_cpp": measured(0.00162),
            "decode_tokens_per_second/transformers": measured(88.91, "5 repeats, 87.2 to 90.4"),
            "decode_tokens_per_second/llama_cpp": measured(1052.3, "5 repeats, 1031 to 1071"),
            "peak_memory_bytes/transformers": measured(612_368_384), "peak_memory_bytes/llama_cpp": measured(71_303_168),
            "energy_per_token_joules/transformers": missing(NO_METER), "energy_per_token_joules/llama_cpp": missing(NO_METER),
            "speedup/llama_cpp": measured(11.836), "load_seconds/llama_cpp": measured(0.0312), "flops": counted(1.31e11),
            "model_bytes/safetensors": counted(8_912_896), "model_bytes/F16": counted(10_730_112),
            "model_bytes/Q8_0": counted(5_791_872, "written under /home/someone/leanlm/work/out"),
            "model_bytes/Q4_0": counted(3_401_216), "delivery_bytes": counted(5_791_872),
        },
    }  # fmt: skip
    after = {s: {"bits_per_byte": measured(quality[s]), "model_bytes": counted(model[s])} for s in quality}
    return {stage: {**common[stage], **own[stage], **after.get(stage, {})} for stage in STAGES}


def predictions(metrics: Metrics) -> Metrics:
    """A guess for every value that has one, off by a factor that grows with the name."""
    names = [n for n in ("wall_seconds", "cpu_seconds", "peak_memory_bytes", "flops", "model_bytes") if n in metrics]
    return {n: modelled(float(metrics[n].value or 0) * (0.6 + len(n) / 20), "a formula") for n in names}


def document(stage: str, metrics: Metrics) -> dict[str, Any]:
    """A report as the runner writes it."""
    return {
        "stage": stage, "key": f"{stage}-3f9a1c20b7", "invocation": None, "finished": f"2025-03-0{STAGES.index(stage) + 1}T12:30:05+00:00",
        "machine": {"cpu": "A processor of two cores", "cores": 2, "memory_bytes": 8_254_390_272, "hostname": "secret-box", "gpu": []},
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
        "metrics": report.to_json(metrics), "predicted": report.to_json(predictions(metrics)),
    }  # fmt: skip


def history(stage: str, steps: int) -> None:
    """A falling, jittering loss, evaluated now and then."""
    lines = ["step,loss,learning_rate,grad_norm,tokens_per_second,seconds,validation_loss"]
    for step in range(steps):
        loss = 2.4 + 5.9 * math.exp(-step / (steps / 7)) + 0.12 * math.sin(step * 12.9898) * math.cos(step * 78.233)
        validation = f"{loss + 0.08:.4f}" if step % 100 == 99 else ""
        lines.append(f"{step},{loss:.4f},0.003,1.1,6600,{step * 0.62:.2f},{validation}")
    folder = report.FOLDER / "history"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stage}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


PROMPTS = ('def read_text(path):\n    """', "import os\n")
HOSTILE = "</pre><script>alert('x')</script>\x00\x1b[31m & <b>\ud800"


def samples(stage: str) -> None:
    """Continuations as a stage leaves them; one tries to break out of the page."""
    folder = load.ARTIFACTS / stage
    folder.mkdir(parents=True, exist_ok=True)
    texts = [f'Return the text of a file, {stage}."""\n    return open(path).read()\n', HOSTILE]
    entries = [{"prompt": prompt, "text": text} for prompt, text in zip(PROMPTS, texts, strict=True)]
    (folder / "samples.json").write_text(json.dumps(entries), encoding="utf-8")


LOCK = """schema: '2.0'
stages:
  finetune:
    cmd: python -m tasks finetune
    params:
      params.yaml:
        finetune.method: lora
        finetune.lora:
          r: 16
    outs:
    - path: artifacts/finetune
      hash: md5
      md5: 0123456789abcdef0123456789abcdef.dir
      size: 22000000
      nfiles: 9
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project: only params.yaml."""
    monkeypatch.chdir(tmp_path)
    params.PATH.write_text(params.render(params.Params()), encoding="utf-8")
    return tmp_path


@pytest.fixture
def full(folder: Path) -> Path:
    """A project whose six stages have run."""
    for stage, metrics in ledger().items():
        report.write(stage, document(stage, metrics))
    history("pretrain", 2000)
    history("finetune", 100)
    for stage in STAGES[2:]:
        samples(stage)
    load.LOCK.write_text(LOCK, encoding="utf-8")
    return folder


class Balance(HTMLParser):
    """Follows open elements, ids and everything that would be loaded or jumped to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID or tag == "meter":
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def parsed(text: str) -> Balance:
    """The page, checked for balance."""
    parser = Balance()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def written() -> str:
    """The page of the current folder."""
    return page.write().read_text(encoding="utf-8")


@pytest.mark.usefixtures("full")
def test_page_is_well_formed_and_needs_nothing_but_itself() -> None:
    """Elements are balanced, ids unique, every reference an anchor of this page, no script, no address of any host."""
    text = written()
    found = parsed(text)
    assert len(found.ids) == len(set(found.ids))
    assert all(reference.startswith("#") and reference[1:] in found.ids for reference in found.references)
    assert all(target in found.ids for target in re.findall(r"url\(#([^)]+)\)", text))
    assert found.tags.isdisjoint({"script", "link", "iframe", "img", "object", "embed"})
    assert not re.search(r"https?:|@import|url\((?!#)", text)


@pytest.mark.usefixtures("full")
def test_every_value_of_the_ledger_is_on_the_page() -> None:
    """Humanised in its cell, exact with unit and method in its title, at the prices of params.yaml."""
    text = html.unescape(written())
    for stage in STAGES:
        found = report.read(stage, params.load().prices)
        assert found is not None
        for name, value in (*found["metrics"].items(), *found["predicted"].items()):
            if value.value is not None:
                cell = tables.shown(name, load.Value(value.value, value.method, load.cleared(value.note)))
                assert f'title="{cell.title}">{cell.text}<' in text, name


@pytest.mark.usefixtures("full")
def test_missing_values_say_why() -> None:
    """A null is shown as n/a, refers to a footnote, and the footnote is its reason."""
    text = written()
    for reason in (NO_DEVICE, NO_METER):
        number = re.search(rf'<li id="(reason-\d+)">{reason}</li>', text)
        assert number
        assert f'title="{reason}">n/a</span><span class="k"><a href="#{number[1]}">' in text


@pytest.mark.usefixtures("full")
def test_totals_add_up_and_memory_peaks() -> None:
    """Seconds, energy, money and FLOPs are summed, memory is the largest, and a sum with a gap is a lower bound."""
    life = load.read()
    seconds = [life.value(stage, "wall_seconds") or 0 for stage in STAGES]
    total, peak = tables.total(life, "wall_seconds"), tables.total(life, "peak_memory_bytes")
    assert total is not None
    assert peak is not None
    assert total.value == pytest.approx(sum(seconds))
    assert peak.value == max(life.value(stage, "peak_memory_bytes") or 0 for stage in STAGES)
    assert tables.total(life, "bits_per_byte") is None
    life.reports["data"]["metrics"]["wall_seconds"] = missing("the clock stood still")
    assert tables.total_cell(life, "wall_seconds").text.startswith("≥ ")


@pytest.mark.usefixtures("full")
def test_ratio_is_measured_over_predicted() -> None:
    """412.6 s against 495.12 s is 0.83, and it stands in the row of that prediction."""
    life = load.read()
    one = next(c for c in page.predicted.comparisons(life) if (c.stage, c.name) == ("pretrain", "wall_seconds"))
    assert one.ratio == pytest.approx(412.6 / (412.6 * 1.2))
    assert one.ratio_text == "0.83×"
    assert re.search(r"Wall seconds</th><td>.*495\.12.*412\.6.*0\.83×", written())


@pytest.mark.usefixtures("full")
def test_samples_can_not_break_out() -> None:
    """Markup in a model's text is text; control characters and broken Unicode do no harm."""
    text = written()
    assert "<script" not in text
    assert html.escape("<script>alert('x')</script>", quote=False).replace("'", "&#39;") in text
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", text)
    for stage in STAGES[2:]:
        assert f"Return the text of a file, {stage}." in html.unescape(text)


@pytest.mark.usefixtures("full")
def test_page_gives_away_no_path_and_no_host() -> None:
    """Absolute paths are cut down to their last name, and the host's name is left out."""
    text = written()
    assert "/home/" not in text
    assert "…/out" in text
    assert "secret-box" not in text
    assert str(Path.cwd()) not in text


@pytest.mark.usefixtures("full")
def test_settings_are_those_the_stages_ran_with() -> None:
    """What dvc.lock recorded wins over params.yaml, the difference is said, and outputs carry their md5."""
    life = load.read()
    assert life.settings["finetune.lora.r"] == 16
    assert life.changed == ["finetune.lora.r"]
    text = written()
    assert "params.yaml has changed since: finetune.lora.r" in text
    assert "0123456789abcdef0123456789abcdef.dir" in text


@pytest.mark.usefixtures("full")
def test_headline_names_what_was_made() -> None:
    """Family, parameters, tokens and techniques are in the sentence; the floors stand beside the model."""
    text = html.unescape(written())
    for part in ("Llama model of 5.33 M parameters", "2.46 M tokens", "lora", "int8", "Q8_0", "transformers and llama_cpp"):
        assert part in text
    assert "9% above xz −9e" in text
    assert "5% below gzip −9" in text


@pytest.mark.usefixtures("full")
def test_same_files_same_bytes() -> None:
    """The page carries no time of its own, and nothing but the page is left behind."""
    first = page.write().read_bytes()
    assert page.write(Path("elsewhere/page.html")).read_bytes() == first
    assert [path.name for path in Path("elsewhere").iterdir()] == ["page.html"]


@pytest.mark.parametrize("count", range(1, 7))
def test_partial_ledger_degrades_to_sentences(folder: Path, count: int) -> None:
    """After any number of stages, without history, samples or dvc.lock, there is a page, and it says what is missing."""
    for stage, metrics in list(ledger().items())[:count]:
        report.write(stage, document(stage, metrics))
    text = written()
    parsed(text)
    assert ("No report yet from" in text) == (count < len(STAGES))
    assert "No stage has written samples here." in text
    assert (folder / "reports" / "report.html").exists()


@pytest.mark.usefixtures("full")
def test_damaged_extras_are_named_and_do_no_harm() -> None:
    """A history or samples that can't be read cost a sentence, not the page."""
    (report.FOLDER / "history" / "pretrain.csv").write_text("step,loss\n1,abc\n", encoding="utf-8")
    (report.FOLDER / "history" / "finetune.csv").write_text("step,loss\n", encoding="utf-8")
    (load.ARTIFACTS / "compress" / "samples.json").write_text("[{", encoding="utf-8")
    text = written()
    parsed(text)
    assert "reports/history/pretrain.csv is damaged" in text
    assert "artifacts/compress/samples.json is damaged" in text
    assert "the stage took no steps" in text


@pytest.mark.usefixtures("folder")
def test_empty_ledger_is_the_users_to_mend() -> None:
    """Without any report there is nothing to write, and the error says what to do."""
    with pytest.raises(UserError, match="nothing to report yet: run `leanlm run`"):
        page.write()
    assert not (report.FOLDER / "report.html").exists()


@pytest.mark.usefixtures("full")
def test_damaged_report_and_unknown_metric_are_named() -> None:
    """A report that can't be read stops the page, and the error names the file."""
    document = json.loads(report.path("data").read_text(encoding="utf-8"))
    document["metrics"]["phlogiston"] = {"value": 1, "unit": "kg", "method": "measured"}
    report.path("data").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.json: metric 'phlogiston'"):
        page.write()
    report.path("data").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.json: damaged"):
        page.write()


@pytest.mark.usefixtures("full")
def test_unwritable_target_is_the_users_to_mend() -> None:
    """A path that can't be written is an error in words, and leaves nothing behind."""
    Path("file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="can't be written"):
        page.write(Path("file/report.html"))


@pytest.mark.usefixtures("folder")
def test_values_out_of_the_ordinary_are_drawn() -> None:
    """Zeros, NaN, infinities and predictions of 0 neither crash the page nor fake a ratio."""
    metrics = {
        "wall_seconds": measured(0.0), "flops": counted(0), "train_loss": measured(math.nan), "bits_per_byte": measured(0.0),
        "model_bytes": counted(0), "perplexity": measured(math.inf),
    }  # fmt: skip
    entry = document("pretrain", metrics)
    entry["predicted"] = report.to_json({"wall_seconds": modelled(0, "x"), "flops": modelled(5, "x"), "mfu": missing("y")})
    report.write("pretrain", entry)
    parsed(written())
    assert [one.ratio for one in page.predicted.comparisons(load.read())] == [1.0, 0.0, None]


def test_curves_are_thinned() -> None:
    """Of a long history at most 600 points are drawn, the first and last among them."""
    rows = [{"step": float(step), "loss": 1.0} for step in range(100_001)]
    thin = plots.decimated(rows)
    assert len(thin) == plots.MOST
    assert (thin[0], thin[-1]) == (rows[0], rows[-1])


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (5_312_345, "B", "5.31 MB"), (512, "B", "512 B"), (999_999, "B", "1.00 MB"), (3072, "B/token", "3.07 kB/token"),
        (9.13e13, "FLOP", "91.3 TFLOP"), (1.2e12, "FLOP/s", "1.20 TFLOP/s"), (0.000913, "s", "913 µs"), (0.0391, "s", "39.1 ms"),
        (74.2, "s", "74.2 s"), (412.6, "s", "6 min 53 s"), (8100, "s", "2 h 15 min"), (5941.4, "J", "5.94 kJ"),
        (0.0123, "J/token", "12.3 mJ/token"), (0.01234, "$", "$0.0123"), (12.3, "$", "$12.30"), (1.2e-10, "$", "$1.2 × 10⁻¹⁰"),
        (0.00078, "kg", "780 mg"), (5_326_592, "", "5.33 M"), (3421, "", "3,421"), (0.4312, "", "0.431"), (2_457_600, "token", "2.46 M tokens"),
        (88.91, "token/s", "88.9 tokens/s"), (2.3905, "x", "2.39×"), (1.9312, "bit/B", "1.931 bit/B"), (0, "J", "0 J"), (None, "J", "n/a"),
    ],
)  # fmt: skip
def test_figures_are_said_as_people_say_them(value: float | None, unit: str, said: str) -> None:
    """Three digits that matter, a prefix that fits, and the unit."""
    assert words.human(value, unit) == said
