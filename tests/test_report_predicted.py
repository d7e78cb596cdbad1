"""Predicted beside measured: bands, scores and the words for them, on the page, in the plan and at the end of a run."""

from __future__ import annotations

import html
import math
import re
from pathlib import Path

import pytest

from flows import ending, forecast
from flows import report as page
from flows.report import load, plots, predicted, words
from flows.report.predicted import Comparison
from flows.report.tables import Cell
from tasks import params
from tasks.core.measure import Metrics, counted, measured, missing, modelled
from tasks.core.schema import validate
from tasks.ledger import report
from tasks.ledger.machine import Machine
from tests.balanced_html import parsed
from tests.report_ledger import document, ledger


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project: only params.yaml."""
    monkeypatch.chdir(tmp_path)
    params.PATH.write_text(params.render(params.Params()), encoding="utf-8")
    return tmp_path


@pytest.fixture
def full(folder: Path) -> Path:
    """A project whose six stages have run; of each, time and memory were predicted with a band."""
    for stage, metrics in ledger().items():
        report.write(stage, document(stage, metrics))
    return folder


def one(
    ratio: float | None, low: float | None = None, high: float | None = None, name: str = "wall_seconds"
) -> Comparison:
    """A comparison."""
    return Comparison("pretrain", name, Cell(), Cell(), ratio, "", low, high)


def stage(predicted: Metrics, metrics: Metrics) -> list[Comparison]:
    """The comparisons of one stage with these figures."""
    report.write("pretrain", {**document("pretrain", metrics), "predicted": report.to_json(predicted)})
    return page.predicted.comparisons(load.read())


@pytest.mark.parametrize(
    ("ratio", "low", "high", "place"),
    [
        (1.0, 0.8, 1.2, "inside"), (1.2, 0.8, 1.2, "inside"), (1.3, 0.8, 1.2, "outside"), (0.7, 0.8, 1.2, "outside"),
        (1.0, None, None, ""), (None, 0.8, 1.2, ""), (1.0, 1.0, 1.0, "inside"), (0.0, 0.8, 1.2, "outside"),
    ],
)  # fmt: skip
def test_inside_is_between_the_bounds(ratio: float | None, low: float | None, high: float | None, place: str) -> None:
    """Bounds belong to the band; without a band or a measurement nothing is said."""
    assert one(ratio, low, high).place == place


@pytest.mark.usefixtures("folder")
def test_bounds_are_read_from_the_report() -> None:
    """Low and high survive the ledger on disk, and become multiples of the prediction; a null leaves no band."""
    guess: Metrics = {
        "wall_seconds": modelled(100.0, "f", 80.0, 130.0),
        "flops": modelled(1e12, "f"),
        "peak_memory_bytes": modelled(10, "f", 9, 11),
        "tokens": missing("no text yet"),
    }
    facts: Metrics = {"wall_seconds": measured(125.0), "flops": counted(10**12), "peak_memory_bytes": measured(20)}
    found = {each.name: each for each in stage(guess, facts)}
    assert (found["wall_seconds"].low, found["wall_seconds"].high) == pytest.approx((0.8, 1.3))
    assert found["wall_seconds"].band == "80.0–130 s"
    assert [found[name].place for name in guess] == ["inside", "", "outside", ""]


def test_the_score_counts_bands_and_averages_factors() -> None:
    """Twice too high and twice too low are off by 2, not by 1; kinds are kept apart; the sentence has the counts."""
    found = [one(2.0, 0.5, 1.5), one(0.5, 0.4, 1.5), one(1.0, 0.9, 1.1, "peak_memory_bytes")]
    found += [one(1.0, None, None, "flops"), one(1.0, None, None, "model_bytes"), one(None, 0.9, 1.1)]
    found += [one(3.0, None, None, "dollars")]
    assert predicted.typical(each for each in found if each.kind == "time") == pytest.approx(2.0)
    said = predicted.score(found)
    assert said == (
        "Of 3 predictions with a band, 2 fell inside; off by a geometric mean of "
        "2.00× for time, 1.000× for memory and 1.000× for FLOPs and bytes."
    )
    assert predicted.score([one(1.1), one(3.0)]).startswith("1 of 2 predictions within a factor of 1.25; off by")
    assert predicted.typical([one(None), one(0.0)]) is None
    assert predicted.summary([one(None)]) == ""


@pytest.mark.usefixtures("full")
def test_the_page_shows_bands_places_and_the_score_of_each_stage() -> None:
    """Every band stands under its prediction, inside or outside under its ratio, and a factor beside each stage."""
    text = html.unescape(page.write().read_text(encoding="utf-8"))
    parsed(text)
    found = predicted.comparisons(load.read())
    bands = [each for each in found if each.band]
    assert len(bands) == 12
    assert {each.place for each in bands} == {"inside", "outside"}
    for each in bands:
        assert f'<br><span class="q band">{each.band}</span>' in text
    for place in ("inside", "outside"):
        assert text.count(f'<span class="q {place}">') == sum(each.place == place for each in found)
    assert predicted.score(found) in text
    for name in load.read().stages:
        factor = predicted.typical(each for each in found if each.stage == name and each.kind)
        assert factor is not None
        assert f'{words.title(name)} <span class="q">off by {words.ratio(factor)} (geometric mean)</span>' in text


@pytest.mark.usefixtures("full")
def test_the_table_fits_a_phone() -> None:
    """Four columns, and no cell that can't be broken is longer than 18 characters: readable at 400 pixels."""
    text = html.unescape(page.write().read_text(encoding="utf-8"))
    section = text[text.index('id="predictions"') : text.index('id="training"')]
    table = section[section.index("<table") : section.index("</table>")]
    assert table.count('<th scope="col">') == 4
    cells = re.findall(r"<td[^>]*>(.*?)</td>", table)
    pieces = [re.sub(r"<[^>]+>", "", piece) for cell in cells for piece in cell.split("<br>")]
    assert pieces
    assert max(map(len, pieces)) <= 18


def test_the_plot_draws_bands_and_hollow_dots() -> None:
    """A bar for each band within the axis, a hollow dot where it was missed, both said under the pointer."""
    drawn = plots.ratios([one(1.1, 0.9, 1.2), one(1.5, 0.9, 1.2), one(1.0)])
    assert drawn.count("expected 0.90–1.20×") == 2
    assert "expected 0.90–1.20×: outside" in drawn
    assert plots.ratios([one(None, 0.9, 1.2)]) == ""
    assert "nan" not in plots.ratios([one(1.0, 0.0, 5.0)]).lower()


@pytest.mark.parametrize(
    ("low", "high", "unit", "said"),
    [
        (80.0, 130.0, "s", "80.0–130 s"), (300.0, 900.0, "s", "5.00–15.0 min"), (3600.0, 9000.0, "s", "1.00–2.50 h"),
        (8e8, 1.2e9, "B", "800 MB–1.20 GB"), (8e8, 9e8, "B", "800–900 MB"), (None, 1.0, "s", ""), (1.0, math.inf, "s", ""),
        (0.01, 0.02, "$", "$0.0100–$0.0200"),
    ],
)  # fmt: skip
def test_a_span_says_its_unit_once(low: float | None, high: float, unit: str, said: str) -> None:
    """Two numbers and one unit where they share it; nothing without two finite bounds."""
    assert words.span(low, high, unit) == said


def test_the_plan_shows_bands_of_time_and_memory() -> None:
    """Bounds stand beside each stage that has them; time adds up, memory is the largest, a stage without has its value."""
    planned: dict[str, Metrics] = {
        "data": {"wall_seconds": modelled(10.0, "f"), "peak_memory_bytes": modelled(10**9, "f", 8e8, 1.2e9)},
        "pretrain": {
            "wall_seconds": modelled(100.0, "f", 80.0, 130.0),
            "peak_memory_bytes": modelled(10**8, "f", 9e7, 2e8),
        },
        "finetune": {"wall_seconds": missing("no text yet"), "flops": modelled(1e12, "f", 1e12, 1e12)},
    }
    lines = forecast.table(planned).splitlines()
    assert lines[0].count(forecast.BAND) == 2
    assert "80.0–130 s" in lines[2]
    assert "90.0–140 s" in lines[4]
    assert "800 MB–1.20 GB" in lines[4]
    assert lines[5] == "-: no text yet"
    assert len({len(line) for line in lines[:5]}) == 1
    plain: dict[str, Metrics] = {"data": {"wall_seconds": modelled(10.0, "f")}}
    assert forecast.BAND not in forecast.table(plain)


def test_the_plan_warns_of_the_design(folder: Path) -> None:
    """A width that later techniques can't divide is warned of before anything runs; a text that isn't there yet is not."""
    (folder / "text").mkdir()
    (folder / "text" / "a.txt").write_text("one two three\n" * 1000)
    start = {"data.source": "text", "design.llama.intermediate_size": 700}
    given = validate(params.Params, params.override(params.Params().model_dump(mode="json"), start))
    assert any("700" in sentence and "k-quants" in sentence for sentence in forecast.warnings(given, Machine()))
    start["data.source"] = "elsewhere"
    absent = validate(params.Params, params.override(params.Params().model_dump(mode="json"), start))
    assert forecast.warnings(absent, Machine()) == []


@pytest.mark.usefixtures("full")
def test_a_run_ends_with_the_score() -> None:
    """The line that a run ends with is the page's; a damaged report says nothing instead of failing the run."""
    assert ending._score() == predicted.score(predicted.comparisons(load.read()))
    report.path("data").write_text("{", encoding="utf-8")
    assert ending._score() == ""
