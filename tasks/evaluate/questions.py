"""What the local tasks ask: held-out chats, held-out answers that can be verified, and small programs to write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from tasks.evaluate import CHATS, CODE, VERIFIABLE
from tasks.models.chat import chat_text

PROGRAMS = Path(__file__).with_name("code_tasks.jsonl")
"""Problems written for this project: {"name", "prompt", "solution", "tests"}."""


@dataclass(frozen=True)
class Question:
    """One example of a task: what is asked, as chat turns; what should be answered; tests, where the answer is a program."""

    asked: list[dict[str, str]]
    answer: str
    tests: str = ""


def questions(task: str, data: Path) -> list[Question]:
    """Every example of a local task; none where the data holds none."""
    return list({CHATS: _chats, VERIFIABLE: _verifiable, CODE: _programs}[task](data / "instructions"))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def _chats(folder: Path) -> Iterator[Question]:
    for row in _rows(folder / "test.jsonl"):
        messages = row["messages"]
        while messages and messages[-1]["role"] != "assistant":
            messages = messages[:-1]
        if len(messages) > 1 and messages[-1]["content"].strip():
            yield Question(messages[:-1], messages[-1]["content"].strip())


def _verifiable(folder: Path) -> Iterator[Question]:
    for row in _rows(folder / "verifiable" / "test.jsonl"):
        yield Question(row["prompt"], row["answer"])


def _programs(_folder: Path) -> Iterator[Question]:
    for row in _rows(PROGRAMS):
        asked = f"{row['prompt']} Answer with the code alone."
        yield Question([{"role": "user", "content": asked}], row["solution"], row["tests"])


@dataclass(frozen=True)
class Written:
    """A question as the model is asked it: text and tokens of the prompt."""

    question: Question
    prompt: str
    tokens: int


def written(found: Iterable[Question], tokenizer: Any) -> list[Written]:
    """`found` in the model's chat template; those the template refuses are left out."""
    made = []
    for question in found:
        try:
            text = chat_text(tokenizer, question.asked, add_generation_prompt=True)
        except TemplateError:
            continue
        made.append(Written(question, text, len(tokenizer(text, add_special_tokens=False)["input_ids"])))
    return made


def spread(items: list[Written], count: int) -> list[Written]:
    """At most `count` of them, evenly spread: neighbours are often from one file."""
    if len(items) <= count:
        return items
    return [items[index * len(items) // count] for index in range(count)]


def closing(tokenizer: Any) -> str:
    """What the chat template writes behind an answer, e.g. "<|im_end|>"; "" if nothing."""
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "answer"}]
    return chat_text(tokenizer, turns, add_generation_prompt=False).rpartition("answer")[2].strip()


def stopping(tokenizer: Any) -> list[str]:
    """Texts that end an answer, where no single token does: looking for a text costs more than looking for a token."""
    return [] if len(ending(tokenizer)) > 1 else list(filter(None, [closing(tokenizer)]))


def ending(tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the end of the text, and of a turn where that is one token."""
    turn = tokenizer(closing(tokenizer), add_special_tokens=False)["input_ids"]
    return [tokenizer.eos_token_id, *(turn if len(turn) == 1 and turn[0] != tokenizer.eos_token_id else [])]
