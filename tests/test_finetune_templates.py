"""What is learned under the chat templates people have."""

from __future__ import annotations

import pytest

from tasks.models.chat import IGNORED, encode
from tests.finetuned import chat
from tests.models import tokenizer

TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "smollm2": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "zephyr": "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "llama2": "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}",
}


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
def test_only_answers_are_learned_under_every_template(name: str, system: bool) -> None:
    """Token by token: what is learned, put together, is every answer with what ends it, and nothing of anyone else's."""
    made = tokenizer()
    made.chat_template = TEMPLATES[name]
    turns = ([{"role": "system", "content": "Be brief."}] if system and name != "llama2" else []) + chat(2)
    example = encode(turns, made)
    assert made.decode(example.ids) == made.apply_chat_template(turns, tokenize=False)
    answers = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    runs: list[list[int]] = [[]]
    for label in example.labels:
        if label == IGNORED:
            runs.append([])
        else:
            runs[-1].append(label)
    said = [made.decode(run).strip() for run in runs if run]
    end = "<|im_end|>" if name in ("chatml", "smollm2") else made.eos_token
    assert [text.removesuffix(end).strip() for text in said] == answers
    assert all(text.endswith(end) for text in said)
