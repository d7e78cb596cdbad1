"""Chats that share rows: who lies where, what is computed, what it costs, and which models can."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tasks.accounting.packing import unpackable
from tasks.compatibility import problems
from tasks.core.schema import validate
from tasks.design import Design
from tasks.finetune import Finetune
from tasks.finetune.batches import batch
from tasks.finetune.conflicts import conflicts, packs
from tasks.models.chat import IGNORED, Example
from tasks.models.load import new_model
from tasks.models.packing import ROW, Dealer, pack
from tasks.training.flops import Flops
from tasks.training.kernels.attention import blockwise
from tasks.training.loss import next_token_loss
from tests.attention_families import VOCAB, blueprint
from tests.models import config
from tests.test_compatibility import chosen

LENGTHS = (5, 70, 33, 64, 1, 20, 12)


def chats(lengths: tuple[int, ...] = LENGTHS) -> list[Example]:
    """Random tokens; every third is no answer's, and the first of a chat never is."""
    import torch

    made = []
    for seed, length in enumerate(lengths):
        ids = torch.randint(0, VOCAB, (length + 1,), generator=torch.Generator().manual_seed(seed)).tolist()
        labels = [token if place % 3 or length == 1 else IGNORED for place, token in enumerate(ids[1:])]
        made.append(Example(ids, labels))
    return made


def learned(model: Any, parts: list[Any]) -> tuple[float, dict[str, Any]]:
    """Mean loss over all labelled tokens of batches, and its gradients."""
    whole, summed = sum(part.labelled for part in parts), 0.0
    for part in parts:
        loss = next_token_loss(model, part.inputs, part.labels, part.extras.get("documents")) * (part.labelled / whole)
        loss.backward()
        summed += float(loss.detach())
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return summed, found


FAMILIES = ("mobilellm", "deepseek_v3", "qwen2_moe", "qwen3_moe, some dense")


@pytest.mark.parametrize(("parts", "quick"), [(1, True), (3, True), (3, False)])
@pytest.mark.parametrize("case", FAMILIES)
def test_packed_chats_learn_what_each_learns_alone(case: str, parts: int, quick: bool) -> None:
    """Loss and gradients of packed rows are those of the chats one by one, with this project's attention and torch's."""
    import contextlib

    import torch

    blueprinted = blueprint(case) | {"max_position_embeddings": 128}
    model = new_model(blueprinted, 0).train()
    examples = chats()
    lengths = tuple(len(example.labels) for example in examples)
    alone = [batch(examples, Dealer(lengths, 1, 0).rows([chat]), "cpu") for chat in range(len(examples))]
    loss, expected = learned(model, alone)
    rows = Dealer(lengths, len(lengths), 0, packing=True, parts=parts).rows(list(range(len(examples))))
    assert len(rows.chats) == parts
    with blockwise(model) if quick else contextlib.nullcontext():
        again, found = learned(model, [batch(examples, rows, "cpu")])
    assert again == pytest.approx(loss, rel=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected[name], atol=1e-5 * float(expected[name].abs().max()) + 1e-7), name


def test_no_token_of_a_packed_row_knows_of_another_chat() -> None:
    """Token by token: hidden states are those of the chat alone, and don't move when the others' tokens do."""
    import torch

    from tasks.training.documents import own_documents

    model = new_model(config(vocab_size=VOCAB), 0).eval()
    examples = chats((20, 30, 9))
    made = batch(examples, Dealer((20, 30, 9), 3, 0, packing=True).rows([0, 1, 2]), "cpu")
    shown = own_documents(made.extras["documents"])
    assert shown["position_ids"][0].tolist() == [*range(20), *range(30), *range(9), *range(5)]
    other = made.inputs.clone()
    other[0, :20], other[0, 50:] = 7, 7
    for inside in (False, True):
        with torch.no_grad(), blockwise(model) if inside else torch.no_grad():
            states = model.model(input_ids=made.inputs, **shown).last_hidden_state[0, 20:50]
            moved = model.model(input_ids=other, **shown).last_hidden_state[0, 20:50]
            alone = model.model(input_ids=made.inputs[:, 20:50]).last_hidden_state[0]
        assert torch.equal(states, moved)
        assert torch.allclose(states, alone, atol=1e-5)


def test_labels_stay_with_their_tokens() -> None:
    """Token by token: every chat lies in its row whole, and the label of its last token is not the next chat's first."""
    examples = chats()
    rows = Dealer(LENGTHS, 7, 0, packing=True, parts=2).rows(list(range(7)))
    made = batch(examples, rows, "cpu")
    for number, row in enumerate(rows.chats):
        at = 0
        for place, chat in enumerate(row):
            end = at + LENGTHS[chat]
            assert made.inputs[number, at:end].tolist() == examples[chat].ids[:-1]
            assert made.labels[number, at:end].tolist() == examples[chat].labels
            assert set(made.extras["documents"][number, at:end].tolist()) == {place}
            at = end
        assert set(made.labels[number, at:].tolist()) <= {IGNORED}
    assert made.labelled == sum(example.labelled for example in examples)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("count", [1, 7, 50])
def test_every_chat_comes_once_an_epoch(count: int, grouped: bool, packing: bool) -> None:
    """Whatever is packed or grouped: after n epochs every chat was seen n times, 8 a step; another seed, another order."""
    lengths = tuple(1 + place * 7 % 60 for place in range(count))
    dealt = Dealer(lengths, 8, 1, packing, grouped)
    steps = [[chat for row in dealt.step(step).chats for chat in row] for step in range(count)]
    assert all(len(step) == 8 for step in steps)
    assert Counter(chat for step in steps for chat in step) == dict.fromkeys(range(count), 8)
    if count > 7:
        assert steps[0] != [chat for row in Dealer(lengths, 8, 2, packing, grouped).step(0).chats for chat in row]


def test_grouped_steps_are_of_like_length() -> None:
    """Half the padding at most of what chance leaves, and steps come in no order of length."""
    import numpy as np

    lengths = tuple(np.random.default_rng(0).integers(10, 500, 400).tolist())

    def padding(grouped: bool) -> int:
        dealt = Dealer(lengths, 8, 0, False, grouped)
        return sum(dealt.step(step).length * 8 for step in range(50)) - int(sum(lengths))

    assert padding(True) < padding(False) / 2
    longest = [Dealer(lengths, 8, 0, False, True).step(step).length for step in range(50)]
    assert longest != sorted(longest, reverse=True)


def test_rows_are_few_and_even() -> None:
    """As few as hold the chats within the longest row there is, at least as many as parts, evenly filled."""
    assert pack([10, 20, 30]) == [[0, 1, 2]]
    assert pack([10, 20, 30], 2) == [[2], [0, 1]]
    assert len(pack([ROW // 2] * 5)) == 3
    assert [sum(row) for row in pack([ROW + 7, 5])] != [ROW + 12]
    assert pack([3], 4) == [[0]]
    lengths = [160, 90, 200, 170, 150, 250, 130, 140]
    rows = Dealer(tuple(lengths), 8, 0, packing=True).rows(list(range(8)))
    assert len(rows.chats) * rows.length - sum(lengths) < 32


def test_documents_cost_what_they_cost_alone() -> None:
    """FLOPs of packed rows, told from two short sequences, are those of sequences of these lengths, to the last one."""
    model = new_model(config(), 0).train()

    def one_sequence(length: int, labelled: int, sequences: int = 1) -> None:
        import torch

        ids = torch.arange(length).expand(sequences, -1)
        next_token_loss(model, ids, ids.where(torch.arange(length) < labelled, IGNORED)).backward()

    flops = Flops(one_sequence)
    for length in (40, 100):
        assert flops.of_documents([[length]], 3) == flops.of(1, length, 3)
    assert flops.of_documents([[40, 60], [100]], 9) == pytest.approx(
        sum(flops.of(1, n, 0) for n in (40, 60, 100)) + 9 * (flops.of(1, 40, 1) - flops.of(1, 40, 0))
    )


@pytest.mark.parametrize("method", [name for name in Design.techniques() if name != "existing"])
def test_what_can_t_pack_is_said(method: str) -> None:
    """Recurrences and windows that a chat outgrows: `auto` leaves them alone, `on` is refused in words."""
    from pathlib import Path

    made = validate(Design, {"method": method}).technique.blueprint(512, Path("none"))
    recurrent = method in ("mamba2", "bamba", "qwen3_next", "rwkv")
    why = unpackable(made, 100_000)
    narrow = method in ("mistral", "olmo3")
    assert ("recurrent" in why, "window" in why) == (recurrent, narrow)
    assert packs(Finetune(context_length=16), made) != recurrent
    said = [line for line in conflicts(Finetune(packing="on", context_length=16), made) if "packing" in line]
    assert len(said) == recurrent
    assert not packs(Finetune(packing="off"), made)


@pytest.mark.parametrize("method", [name for name in Design.techniques() if name != "existing"])
def test_masked_documents_learn_what_each_learns_alone_or_are_refused(method: str) -> None:
    """In pretraining, of every family: the loss of a row of two documents is theirs, or the choice is refused beforehand."""
    import torch

    design = validate(Design, {"method": method, method: {"parameters": 1_500_000}})
    made = design.technique.blueprint(VOCAB, Path("none"))
    params = chosen(pretrain__sampling__document_mask=True, pretrain__context_length=32)
    refused = [said for said in problems(params, made) if said.startswith("pretrain.sampling.document_mask")]
    model = new_model(made, 0).train()
    ids = torch.randint(0, VOCAB, (1, 33), generator=torch.Generator().manual_seed(0))
    inputs, labels = ids[:, :-1], ids[:, 1:]
    documents = (torch.arange(32) >= 13).long()[None]
    with torch.no_grad():
        apart = [float(next_token_loss(model, inputs[:, part], labels[:, part])) for part in (slice(13), slice(13, 32))]
        together = float(next_token_loss(model, inputs, labels, None if refused else documents))
    mean = (13 * apart[0] + 19 * apart[1]) / 32
    assert (together == pytest.approx(mean, rel=1e-5)) != bool(refused), "neither refused without need nor let through"
