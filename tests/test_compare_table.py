"""What a comparison shows: the table, the fronts, the texts, the page, MLflow."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from flows import track
from flows.compare import page, published, record, table, text
from flows.compare.points import Point
from tasks.core.errors import UserError
from tasks.core.measure import counted, measured
from tasks.ledger.vocabulary import VOCABULARY
from tasks.params import Params
from tests.balanced_html import parsed
from tests.toy_ledger import runs as runs_of

FIGURES = {  # quality, trained, memory, seconds, joules, delivered
    "a": (1.0, 1000, 9e8, 60.0, 900.0, 5e8),
    "b": (1.01, 10, 5e8, 30.0, 400.0, 4e4),
    "c": (1.5, 10, 6e8, 31.0, 410.0, 5e4),
    "d": (1.6, 5, 4e8, 90.0, 990.0, 2e4),
}


def outcomes() -> list[record.Outcome]:
    """Four points with figures, one that failed and one that was refused."""
    bare = Params()
    found = []
    for name, (loss, trained, memory, seconds, joules, delivered) in FIGURES.items():
        metrics = {
            "validation_loss": measured(loss, "note of /home/somebody/private/file"),
            "trainable_parameters": counted(trained),
            "peak_memory_bytes": measured(memory),
            "wall_seconds": measured(seconds),
            "energy_joules": measured(joules),
            "delivery_bytes": counted(delivered),
            "activation_bytes/none": counted(77),
        }
        rows = [{"step": float(i), "loss": loss + 3 / (i + 1), "seconds": float(i)} for i in range(400)]
        report = {
            "metrics": metrics,
            "predicted": {},
            "machine": {"name": "m"},
            "versions": {"torch": "1"},
            "key": name,
        }
        found.append(record.done(Point(name, {"finetune.method": name}, bare), report, rows, computed=True))
    return [
        *reversed(found),
        record.failed(Point("e", {}, bare), "failed", "loss is <nan> & gone, see /var/log/private/x.log"),
        record.failed(Point("f", {}, bare), "refused", "does not fit"),
    ]


def test_rows_are_ranked_and_fronts_are_what_nothing_beats() -> None:
    """Best first; a point is on the front of a cost if no other is at least as good in both and better in one."""
    made = table.made("finetune", "steps", outcomes())
    assert [row.point.name for row in made.rows] == ["a", "b", "c", "d"]
    assert [one.point.name for one in made.others] == ["e", "f"]
    assert made.columns[0] == "validation_loss"
    assert made.fronts == {
        "trainable_parameters": ["a", "b", "d"],
        "peak_memory_bytes": ["a", "b", "d"],
        "wall_seconds": ["a", "b"],
        "energy_joules": ["a", "b"],
        "delivery_bytes": ["a", "b", "d"],
    }
    assert made.best("trainable_parameters") == ["d"]
    assert made.best("activation_bytes") == []  # all alike
    assert "a has the best validation loss" in text.sentence(made)
    assert "b with 10 trained parameters instead of 1,000" in text.sentence(made)
    assert text.sentence(made).count("b with") == 1  # all that it saves in one breath


def test_higher_is_better_where_the_vocabulary_says_so() -> None:
    """The order follows the metric's direction."""
    better = [
        record.done(Point(name, {}, Params()), {"metrics": {"greedy_agreement": measured(value)}}, [], True)
        for name, value in {"low": 0.1, "high": 0.9}.items()
    ]
    made = table.made("compress", "steps", better, "greedy_agreement")
    assert [row.point.name for row in made.rows] == ["high", "low"]
    assert made.best("greedy_agreement") == ["high"]


def test_every_column_is_a_metric() -> None:
    """A name that isn't in the vocabulary would silently never be shown; forgetting and every task's score are."""
    assert {*table.ORDER, *table.SCORES, *table.COSTS, *table.QUALITY, *text.SHORT} <= set(VOCABULARY)
    assert set(text.SHORT) | set(table.COSTS) <= set(table.ORDER)
    figures = {
        "a": {"forgetting_bits_per_byte": measured(0.5), "task_score/chats/rouge_l": measured(0.25)},
        "b": {"task_loss/chats/nll": measured(1.5), "task_score_before/chats/rouge_l": measured(0.125)},
    }
    found = [
        record.done(Point(name, {}, Params()), {"metrics": {"validation_loss": measured(1.0)} | more}, [], True)
        for name, more in figures.items()
    ]
    made = table.made("finetune", "steps", found)
    expected = ["forgetting_bits_per_byte", "task_loss/chats/nll", "task_score/chats/rouge_l"]
    assert made.columns == ["validation_loss", *expected]
    assert "forgetting" in text.terminal(made).splitlines()[0]
    assert "Task score (chats/rouge_l)" in text.markdown(made)
    chosen = table.made("finetune", "steps", found, "task_score/chats/rouge_l")
    assert chosen.columns == ["task_score/chats/rouge_l", *expected[:2]]


def test_a_quality_nobody_has_is_refused() -> None:
    """Before anything runs where it is no quality at all, afterwards where nobody was judged by it."""
    for wrong in ("nothing", "tokens"):
        with pytest.raises(UserError, match="not a metric that says what is better"):
            table.check(wrong)
    with pytest.raises(UserError, match="no contender was judged by it") as raised:
        table.made("finetune", "steps", outcomes(), "perplexity")
    assert "validation_loss" in raised.value.hint


def test_the_texts_say_the_same() -> None:
    """Terminal, Markdown, CSV and JSON name every point, and CSV has every digit."""
    made = table.made("finetune", "steps", outcomes())
    texts = [text.terminal(made), text.markdown(made), table.as_csv(made), table.as_json(made)]
    for name in (*FIGURES, "e", "f"):
        assert all(re.search(rf"\b{name}\b", one) for one in texts)
    rows = list(csv.DictReader(table.as_csv(made).splitlines()))
    assert [float(row["validation_loss"]) for row in rows[:4]] == [1.0, 1.01, 1.5, 1.6]
    assert rows[4]["reason"].startswith("loss is <nan>")
    lines = text.terminal(made).splitlines()
    assert len({line.rstrip().find("900 MB") for line in lines if "900 MB" in line}) == 1
    assert json.loads(table.as_json(made))["points"][0]["metrics"]["validation_loss"]["method"] == "measured"


def test_the_page_needs_nothing_but_itself_and_says_everything() -> None:
    """Balanced, ids unique, no address of any host, no absolute path; every point, front and reason is there."""
    html = page.render(table.made("finetune", "steps", outcomes()))
    found = parsed(html)
    assert len(found.ids) == len(set(found.ids))
    assert all(one.startswith("#") and one[1:] in found.ids for one in found.references)
    assert found.tags.isdisjoint({"link", "iframe", "img", "object", "embed"})
    assert not re.search(r"https?:|@import|url\((?!#)|/home/|/var/", html)
    assert html.count("<svg viewBox") == len(table.COSTS) + 1
    assert "loss is &lt;nan&gt; &amp; gone" in html
    for name in FIGURES:
        assert f'<span class="wide">{name}</span>' in html


def test_a_page_without_figures_is_a_page() -> None:
    """All contenders failed: their reasons, no picture, no table."""
    html = page.render(table.made("finetune", "steps", outcomes()[4:]))
    parsed(html)
    assert "does not fit" in html
    assert "<svg viewBox" not in html


@pytest.mark.slow
def test_a_heading_sorts(tmp_path: Path) -> None:
    """In a browser: a click sorts by the column's figures, another turns it round; nothing is wider than a phone."""
    api = pytest.importorskip("playwright.sync_api")
    path = tmp_path / "page.html"
    path.write_text(page.render(table.made("finetune", "steps", outcomes())), encoding="utf-8")
    with api.sync_playwright() as play:
        try:
            browser = play.chromium.launch()
        except api.Error as error:
            pytest.skip(f"no browser: {error}")
        tab = browser.new_page(viewport={"width": 390, "height": 800})
        tab.goto(path.as_uri())

        def order() -> list[str]:
            return [str(one) for one in tab.locator("#contenders tbody .wide").all_inner_texts()]

        assert order() == ["a", "b", "c", "d"]
        heading = tab.get_by_role("button", name="Wall time")
        heading.click()
        assert order() == ["b", "c", "a", "d"]
        heading.click()
        assert order() == ["d", "a", "c", "b"]
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()


def test_what_is_published_appears_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run for the comparison, a child per point with its figures and curve; publishing again adds nothing."""
    monkeypatch.chdir(tmp_path)
    made = table.made("finetune", "steps", outcomes())
    for _ in range(2):
        track.hand_over(list(published.identities(made).values()), lambda runs: published.publish(runs, made))
    (parent,) = runs_of("comparison")
    children = {run.data.tags["leanlm.point"]: run for run in runs_of("point")}
    assert sorted(children) == [*FIGURES, "e", "f"]
    assert parent.info.run_name == "compare finetune"
    for name, run in children.items():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == ("FINISHED" if name in FIGURES else "FAILED")
    assert children["b"].data.metrics["trainable_parameters"] == 10
    assert children["b"].data.params["finetune.method"] == "lora"
    assert "finetune.full" not in children["b"].data.params
