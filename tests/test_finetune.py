"""Stage finetune: loss on answers only, adapters that merge, techniques from the registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.evaluate import Evaluate
from tasks.finetune import Finetune, chats
from tasks.finetune.lora import Lora
from tasks.finetune.run import run
from tasks.models.chat import IGNORED, encode
from tasks.models.load import load_model, new_model, save_model, weight_bytes
from tests.models import TEXTS, adapted, config, job, tokenizer

CHAT = [
    {"role": "user", "content": "What is one and one?"},
    {"role": "assistant", "content": "It is two."},
    {"role": "user", "content": "And one more?"},
    {"role": "assistant", "content": "That is three."},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What data and pretrain leave, tiny."""
    return made(tmp_path_factory.mktemp("base"))


def made(root: Path) -> Path:
    """`root` with a tiny model and chats in it."""
    save_model(new_model(config(), seed=0), tokenizer(), root / "pretrain")
    (root / "data" / "instructions").mkdir(parents=True)
    for name in ("train", "validation", "test"):
        (root / "data" / "instructions" / f"{name}.jsonl").write_text((json.dumps({"messages": CHAT}) + "\n") * 3)
    (root / "data" / "heldout.jsonl").write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    return root


def finetuned(base: Path, out: Path, **changes: Any) -> Any:
    """Run the stage; returns its metrics."""
    values = {"steps": 4, "batch_size": 2, "context_length": 128, "precision": "fp32"} | changes
    evaluate = Evaluate(context_length=64, sample_tokens=4)
    out.mkdir(parents=True)
    places = {"data": base / "data", "pretrain": base / "pretrain"}
    return run(Finetune(**values), seed=0, evaluate=evaluate, out=out, job=job(out.parent), **places)


def test_labels_are_the_answers_token_by_token() -> None:
    """What is learned is exactly every assistant turn with the token that ends it, of every turn."""
    made = tokenizer()
    example = encode(CHAT, made)
    learned = [label for label in example.labels if label != IGNORED]
    assert made.decode(learned) == "It is two.<|im_end|>\nThat is three.<|im_end|>\n"
    assert made.decode(example.ids) == made.apply_chat_template(CHAT, tokenize=False)
    assert all(label in (IGNORED, token) for label, token in zip(example.labels, example.ids[1:], strict=True))


def test_chats_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    """A chat longer than the context and one with an empty answer are left out, each counted."""
    path = tmp_path / "chats.jsonl"
    empty = [CHAT[0], {"role": "assistant", "content": " "}]
    long = [CHAT[0], {"role": "assistant", "content": "word " * 200}]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in (CHAT, empty, long)))
    found = chats.read(path, tokenizer(), 100)
    assert (len(found.examples), found.without_answer, found.too_long) == (1, 1, 1)


LEARNING_RATES = {
    **dict.fromkeys(("vera", "ia3", "layer_norm", "p_tuning", "boft", "fourierft"), 3e-2),
    **dict.fromkeys(("prompt_tuning", "prefix_tuning", "llama_adapter", "bottleneck"), 5e-2),
}
"""Of methods that train few numbers, or small ones."""


@pytest.mark.parametrize("method", Finetune.techniques())
def test_every_technique_learns_and_reports_its_bytes(base: Path, tmp_path: Path, method: str) -> None:
    """The held-out loss falls, the merged folder loads, bytes reported are bytes on disk, two runs agree bit for bit."""
    outs = [tmp_path / "a" / "out", tmp_path / "b" / "out"]
    rate = LEARNING_RATES.get(method, 5e-3)
    metrics = [finetuned(base, out, method=method, learning_rate=rate) for out in outs]
    assert metrics[0]["validation_loss"].value < metrics[0]["validation_loss_before"].value
    assert metrics[0]["model_bytes"].value == weight_bytes(outs[0])
    assert load_model(outs[0]) is not None
    files = [{path.name: path.read_bytes() for path in out.rglob("*.safetensors")} for out in outs]
    assert files[0] == files[1]
    if (outs[0] / "adapter").exists():
        assert metrics[0]["adapter_bytes"].value == (outs[0] / "adapter" / "adapter_model.safetensors").stat().st_size


def test_merged_equals_unmerged(base: Path, tmp_path: Path) -> None:
    """The adapter on the base, as plain peft loads it, computes what the merged model computes."""
    import torch
    from peft import PeftModel

    out = tmp_path / "out"
    finetuned(base, out, method="lora", learning_rate=5e-2)
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        merged = load_model(out)(ids).logits
        plain = load_model(base / "pretrain")
        before = plain(ids).logits
        unmerged = PeftModel.from_pretrained(plain, out / "adapter")(ids).logits
    assert torch.allclose(merged, unmerged, atol=1e-4)
    assert not torch.allclose(merged, before, atol=1e-2)


def test_adapter_at_step_zero_is_the_identity(base: Path) -> None:
    """A fresh LoRA adapter changes nothing."""
    import torch

    ids = torch.arange(40)[None]
    model = load_model(base / "pretrain")
    with torch.inference_mode():
        before = model(ids).logits
        assert torch.equal(before, adapted(Lora(), model)(ids).logits)


def test_zero_steps_pass_the_model_through(base: Path, tmp_path: Path) -> None:
    """With no steps the weights are the base's, byte for byte."""
    out = tmp_path / "out"
    finetuned(base, out, steps=0)
    assert (out / "model.safetensors").read_bytes() == (base / "pretrain" / "model.safetensors").read_bytes()


def test_unknown_target_modules_list_those_there_are(base: Path, tmp_path: Path) -> None:
    """A layer name the model hasn't got: the error lists its linear layers."""
    with pytest.raises(UserError, match="q_proj"):
        finetuned(base, tmp_path / "out", lora=Lora(target_modules=["no_such_layer"]))


def test_nothing_to_train_on_is_refused(base: Path, tmp_path: Path) -> None:
    """Every chat too long: refused with the numbers, before anything is trained."""
    with pytest.raises(UserError, match="3 longer than"):
        finetuned(base, tmp_path / "out", context_length=8)


def test_a_template_that_rewrites_is_refused() -> None:
    """A template that changes what was said before can't be learned from: refused, not mislabelled."""
    made = tokenizer()
    made.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UserError, match="rewrites earlier turns"):
        encode(CHAT, made)
