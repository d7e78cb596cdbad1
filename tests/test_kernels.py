"""The quick paths of a training step compute what the plain ones do."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.models.chat import IGNORED
from tasks.models.load import new_model
from tasks.training.flops import counting
from tasks.training.kernels import compiled as compiling
from tasks.training.loss import next_token_loss
from tasks.training.recompute import blocks_of
from tests.models import config


def gradients(model: Any, inputs: Any, labels: Any) -> tuple[float, dict[str, Any]]:
    """Loss and gradients by name."""
    loss = next_token_loss(model, inputs, labels)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return float(loss.detach()), found


def ids(rows: int, length: int) -> Any:
    """Random token ids."""
    import torch

    return torch.randint(0, 400, (rows, length), generator=torch.Generator().manual_seed(length))


def close(one: dict[str, Any], other: dict[str, Any], share: float = 1e-4) -> bool:
    """Whether all tensors agree within that share of their largest element."""
    return one.keys() == other.keys() and all(
        float((value - other[name]).abs().max()) <= share * float(other[name].abs().max())
        for name, value in one.items()
    )


@pytest.mark.parametrize("length", [2, 63, 64, 65, 200])
@pytest.mark.parametrize("groups", [1, 2])
def test_blockwise_attention_has_the_gradients_of_torchs(length: int, groups: int) -> None:
    """Blocks of queries, whole or cut short, of one group of heads or many: torch's gradients."""
    from tasks.training.kernels.attention import NAME, blockwise

    model = new_model(config(max_position_embeddings=256, num_key_value_heads=groups), 0).train()
    inputs = ids(2, length)
    loss, plain = gradients(model, inputs, inputs)
    with blockwise(model):
        assert model.config._attn_implementation == NAME
        again, quick = gradients(model, inputs, inputs)
    assert model.config._attn_implementation == "sdpa"
    assert again == pytest.approx(loss, rel=1e-6)
    assert close(quick, plain)


def test_keys_and_values_that_serve_several_heads_are_kept_once() -> None:
    """Grouped-query attention keeps what it was given, not what it made of it for every head."""
    import torch

    from tasks.training.kernels.attention import attend
    from tasks.training.saved import saving

    query, key, value = (torch.randn(2, heads, 70, 16, requires_grad=True) for heads in (6, 2, 2))
    module = torch.nn.Module()
    with saving(module) as kept:
        out, _ = attend(module, query, key, value)
    assert out.requires_grad
    assert kept.bytes == 4 * 2 * 70 * ((6 + 2 + 2 + 6) * 16 + 6)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_blockwise_attention_under_autocast(kind: str) -> None:
    """Rotated queries are float32 and values are not: both are cast as autocast casts them for torch's attention."""
    import torch

    from tasks.training.kernels.attention import blockwise

    model = new_model(config(max_position_embeddings=256), 0).train()
    inputs = ids(1, 80)
    with torch.autocast("cpu", getattr(torch, kind)):
        loss, plain = gradients(model, inputs, inputs)
        with blockwise(model):
            again, quick = gradients(model, inputs, inputs)
    assert again == pytest.approx(loss, rel=1e-3)
    assert close(quick, plain, 0.05)


def test_blockwise_attention_leaves_masks_to_torch() -> None:
    """Tokens that are to see their own document alone: the same loss and gradients inside and outside."""
    import torch

    from tasks.training.kernels.attention import blockwise

    model = new_model(config(), 0).train()
    inputs = ids(2, 48)
    documents = torch.arange(48).expand(2, 48) // 20

    def masked() -> float:
        loss = next_token_loss(model, inputs, inputs, documents)
        loss.backward()
        model.zero_grad(set_to_none=True)
        return float(loss.detach())

    plain = masked()
    with blockwise(model):
        assert masked() == pytest.approx(plain, rel=1e-6)
    assert plain != pytest.approx(gradients(model, inputs, inputs)[0], rel=1e-6)


@pytest.mark.parametrize("chunk", [(1, 7), (1, 64), (1 << 22, 256)])
def test_chunked_cross_entropy_is_the_plain_one(chunk: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of a chunk: loss and both gradients of torch's cross-entropy, scaled by what comes in."""
    import torch

    from tasks.training.kernels import cross_entropy as kernel

    monkeypatch.setattr(kernel, "LOGITS", chunk[0])
    monkeypatch.setattr(kernel, "FEWEST", chunk[1])
    torch.manual_seed(0)
    hidden, weight = torch.randn(100, 32, requires_grad=True), torch.randn(50, 32, requires_grad=True)
    labels = torch.randint(0, 50, (100,))
    plain = torch.nn.functional.cross_entropy(hidden @ weight.t(), labels)
    expected = torch.autograd.grad(plain * 3, (hidden, weight))
    loss = kernel.chunked_cross_entropy(hidden, weight, labels)
    found = torch.autograd.grad(loss * 3, (hidden, weight))
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-6)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_small_slopes_survive_half_precision() -> None:
    """The gradient of a mean over many tokens doesn't vanish in float16: it is divided after it is made."""
    import torch

    from tasks.training.kernels.cross_entropy import chunked_cross_entropy

    torch.manual_seed(0)
    hidden = (torch.randn(4096, 16) * 0.1).half().requires_grad_()
    weight = (torch.randn(512, 16) * 0.1).requires_grad_()
    loss = chunked_cross_entropy(hidden, weight, torch.randint(0, 512, (4096,)))
    (loss * 1024).backward()
    reference = hidden.detach().float().requires_grad_()
    plain = torch.nn.functional.cross_entropy(reference @ weight.detach().t(), torch.zeros(4096, dtype=torch.long))
    plain.backward()
    assert weight.grad is not None
    assert hidden.grad is not None
    assert float((hidden.grad != 0).float().mean()) > 0.99


def test_a_frozen_output_layer_costs_no_gradient() -> None:
    """Two products a label instead of three, as the accounting of adapters says."""
    model = new_model(config(tie_word_embeddings=False), 0).train()
    inputs = ids(1, 32)

    def flops() -> float:
        with counting() as counter:
            next_token_loss(model, inputs, inputs).backward()
        return counter.total

    whole = flops()
    model.lm_head.requires_grad_(False)
    assert whole - flops() == 2 * 64 * 400 * 32


def test_some_labels_or_none() -> None:
    """Unlabelled positions change neither loss nor gradient; a batch without any label gives no number."""
    import math

    model = new_model(config(), 0).train()
    inputs = ids(2, 32)
    labels = inputs.clone()
    labels[:, 20:] = IGNORED
    loss, some = gradients(model, inputs, labels)
    shorter, same = gradients(model, inputs[:, :20], inputs[:, :20])
    assert loss == pytest.approx(shorter, rel=1e-6)
    assert close(some, same)
    labels[:] = IGNORED
    assert math.isnan(float(next_token_loss(model, inputs, labels).detach()))


@pytest.mark.slow
def test_compiled_blocks_compute_the_same() -> None:
    """Loss and gradients of compiled blocks are those of plain ones; afterwards the blocks are plain again."""
    model = new_model(config(), 0).train()
    inputs = ids(2, 32)
    loss, plain = gradients(model, inputs, inputs)
    with compiling.compiled(model):
        again, quick = gradients(model, inputs, inputs)
    assert again == pytest.approx(loss, rel=1e-5)
    assert close(quick, plain, 1e-3)
    assert all(block._compiled_call_impl is None for block in blocks_of(model))


def test_auto_compiles_long_runs_of_dense_models_alone() -> None:
    """A run must be long enough for what compiling saves; the quicker the products, the sooner. Experts never are."""
    rates = {"bfloat16": 1e12, "float32": 1e12}
    assert not compiling.pays("llama", 60e12, rates, "bfloat16")
    assert compiling.pays("llama", 600e12, rates, "bfloat16")
    assert not compiling.pays("llama", 600e12, rates, "float32")
    assert compiling.pays("llama", 6000e12, rates, "float32")
    assert not compiling.pays("mixtral", 1e24, rates, "bfloat16")
    assert not compiling.pays("llama", 1e24, {}, "bfloat16")


def test_no_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """`compile: on` without a compiler is refused with the parameter's name."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"pretrain\.compile.*C\+\+"):
        compiling.check_compiler("pretrain.compile")
