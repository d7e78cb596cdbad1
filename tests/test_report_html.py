"""The HTML report: it tells everything the ledger holds, nothing it doesn't, and needs nothing but itself."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path

import pytest

from flows import report as page
from flows.report import load, tables
from tasks import params
from tasks.core.errors import UserError
from tasks.core.measure import Value, counted, measured, missing, modelled
from tasks.ledger import report
from tests.balanced_html import parsed
from tests.report_ledger import LOCK, NO_DEVICE, NO_METER, QUESTION, STAGES, document, history, ledger, samples


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
                cell = tables.shown(name, Value(value.value, value.method, load.cleared(value.note)))
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
    assert re.search(r"Wall time</th><td>.*495\.12.*412\.6.*0\.83×", written())


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
def test_answers_stand_beside_what_was_answered() -> None:
    """A question once, then the answer that was given, the base model's, the finetuned one's, in this order."""
    text = html.unescape(written())
    assert text.count(QUESTION) == 1
    told = [
        QUESTION,
        "Reference",
        "Two. ",
        "Base model",
        "Answered after pretrain.",
        "Finetuned model",
        "Answered after finetune.",
    ]
    places = [text.index(words, text.index(QUESTION)) for words in told]
    assert places == sorted(places)
    assert text.index("Before and after finetuning") < places[0] < text.index("Text continued")


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
    for part in (
        "Llama model of 5.33 M parameters",
        "2.46 M tokens",
        "lora",
        "int8",
        "Q8_0",
        "transformers and llama_cpp",
    ):
        assert part in text
    assert "9% above xz\N{NO-BREAK SPACE}−9e" in text
    assert "5% below gzip\N{NO-BREAK SPACE}−9" in text


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
    with pytest.raises(UserError, match="reports/: no stage has written a report yet\n  `leanlm run`"):
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
    predicted = {"wall_seconds": modelled(0, "x"), "flops": modelled(5, "x"), "mfu": missing("y")}
    report.write("pretrain", {**entry, "predicted": report.to_json(predicted)})
    parsed(written())
    assert [one.ratio for one in page.predicted.comparisons(load.read())] == [1.0, 0.0, None]
