"""Adapters beside LoRA: what peft trains, stores and computes is what is predicted, delivered and scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.finetune import Finetune
from tasks.finetune.boft import Boft
from tasks.finetune.bottleneck import Bottleneck
from tasks.finetune.fourierft import FourierFT
from tasks.finetune.ia3 import Ia3
from tasks.finetune.layer_norm import LayerNorm
from tasks.finetune.llama_adapter import LlamaAdapter
from tasks.finetune.oft import Oft
from tasks.finetune.p_tuning import PTuning
from tasks.finetune.prefix_tuning import PrefixTuning
from tasks.finetune.prompt_tuning import PromptTuning
from tasks.finetune.technique import FinetuneTechnique, Tuning
from tasks.finetune.vera import Vera
from tasks.models.adapter import MARK, mark_unmerged, positions_taken
from tasks.models.chat import IGNORED
from tasks.models.load import copy_model, load_model, new_model, save_model, weight_bytes
from tasks.models.soft_prompt import virtual_tokens
from tests.models import config, plan, tokenizer

MADE: list[FinetuneTechnique] = [
    Vera(r=24),
    Vera(save_projection=False, target_modules=["v_proj", "o_proj"], d_initial=0.3),
    Ia3(),
    Ia3(target_modules=["q_proj", "up_proj"], feedforward_modules=["up_proj"]),
    Oft(oft_block_size=16),
    Oft(target_modules=["v_proj", "down_proj"], block_share=True, num_cayley_neumann_terms=7),
    Oft(use_cayley_neumann=False, target_modules=["o_proj"]),
    Boft(),
    Boft(target_modules=["k_proj", "gate_proj"], boft_block_size=8),
    FourierFT(),
    FourierFT(target_modules=["o_proj"], n_frequency=64, init_weights=False),
    LayerNorm(),
    LayerNorm(target_modules=["post_attention_layernorm"]),
    PromptTuning(num_virtual_tokens=5),
    PromptTuning(prompt_tuning_init="TEXT", prompt_tuning_init_text="Answer in one word."),
    PrefixTuning(num_virtual_tokens=6),
    PrefixTuning(prefix_projection=True, encoder_hidden_size=16, init_weights=None),
    PTuning(num_virtual_tokens=7, encoder_hidden_size=24),
    LlamaAdapter(adapter_layers=1),
    LlamaAdapter(adapter_len=3, adapter_layers=3),
    Bottleneck(),
    Bottleneck(reduction_factor=4, non_linearity="gelu", mh_adapter=False),
]
SHAPE = {"num_hidden_layers": 3, "vocab_size": 400}
IDENTITY = (Vera, Ia3, Oft, Boft, LayerNorm, LlamaAdapter, Bottleneck)
"""Those that change nothing before the first step; and FourierFT where it begins with zeros."""


def name(technique: FinetuneTechnique) -> str:
    """Its method and what is set."""
    return f"{technique.method}-{json.dumps(technique.model_dump(exclude_defaults=True))}"


def test_every_method_of_this_file_is_in_the_registry() -> None:
    """A person can choose each."""
    assert {technique.method for technique in MADE} <= Finetune.techniques().keys()


@pytest.fixture(params=MADE, ids=name)
def technique(request: pytest.FixtureRequest) -> FinetuneTechnique:
    """Each technique, in more than one setting where its arithmetic differs."""
    made: FinetuneTechnique = request.param
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with grouped queries."""
    folder = tmp_path_factory.mktemp("base")
    save_model(new_model(config(**SHAPE), seed=0), tokenizer(), folder)
    return folder


def begun(technique: FinetuneTechnique, base: Path, moved: bool = True) -> Tuning:
    """The technique on the base; moved away from where it begins, as training would."""
    import torch

    torch.manual_seed(3)
    tuning = technique.begin(load_model(base), plan(base=base))
    if moved:
        with torch.no_grad():
            for _, parameter in trained(tuning):
                parameter += 0.05 * torch.randn_like(parameter)
    return tuning


def trained(tuning: Tuning) -> list[tuple[str, Any]]:
    """What has a gradient."""
    return [(name, one) for name, one in tuning.model.named_parameters() if one.requires_grad]


def logits(model: Any) -> Any:
    """Of forty tokens, virtual ones left out."""
    import torch

    ids = torch.arange(40)[None]
    with torch.inference_mode():
        return model.eval()(input_ids=ids).logits[:, -40:]


def test_what_is_trained_is_what_was_predicted(technique: FinetuneTechnique, base: Path) -> None:
    """Shape by shape, by arithmetic alone."""
    shapes = sorted(tuple(one.shape) for _, one in trained(begun(technique, base)))
    assert shapes == sorted(technique.trained_shapes(config(**SHAPE)))
    assert technique.refuse(config(**SHAPE)) == ""


@pytest.mark.filterwarnings(
    "ignore:Specified to not", "ignore:Failed to load the CUDA", "ignore:Setting boft", "ignore:Unsupported layer"
)
def test_the_adapter_alone_makes_the_base_what_was_trained(
    technique: FinetuneTechnique, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder holds what was predicted, loads on a fresh base, and merges where the technique says so."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    for variable in ("CC", "CXX"):  # which peft's BOFT leaves changed
        monkeypatch.setenv(variable, "gcc")
    tuning = begun(technique, base)
    learned, plain = logits(tuning.model), logits(load_model(base))
    assert not torch.allclose(learned, plain, atol=1e-3)
    assert tuning.write(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert sorted(tuple(one.shape) for one in stored.values()) == sorted(technique.adapter_shapes(config(**SHAPE)))
    if not isinstance(technique, Bottleneck):  # which no release of peft knows
        again = PeftModel.from_pretrained(load_model(base), tmp_path / "adapter")
        assert torch.allclose(logits(again), learned, atol=1e-5)
    merged = tuning.merged()
    assert (merged is not None) == technique.merges
    if merged is not None:
        assert not hasattr(merged, "peft_config") or not list(merged.active_adapters())
        assert torch.allclose(logits(merged), learned, atol=1e-4)


def test_an_unmerged_folder_is_the_model_with_its_adapter(
    technique: FinetuneTechnique, base: Path, tmp_path: Path
) -> None:
    """`load_model` gives what was trained; its bytes are those of both files, its text what its logits say."""
    import torch

    if technique.merges:
        return
    tuning = begun(technique, base)
    copy_model(base, tmp_path)
    tuning.write(tmp_path / "adapter")
    mark_unmerged(tmp_path)
    assert (tmp_path / MARK).exists()
    loaded = load_model(tmp_path)
    assert torch.allclose(logits(loaded), logits(tuning.model), atol=1e-5)
    assert weight_bytes(tmp_path) == weight_bytes(base) + weight_bytes(tmp_path / "adapter")
    assert positions_taken(tmp_path) == virtual_tokens(loaded) == technique.positions
    ids = torch.arange(9)[None]
    said = loaded.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=0)
    for _ in range(6):
        with torch.inference_mode():
            ids = torch.cat([ids, loaded(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    assert said.tolist() == ids.tolist()


def test_fresh_adapters_change_nothing(technique: FinetuneTechnique, base: Path) -> None:
    """Before the first step the model is the base."""
    import torch

    if isinstance(technique, IDENTITY) or (isinstance(technique, FourierFT) and technique.init_weights):
        fresh = begun(technique, base, moved=False).model
        assert torch.allclose(logits(fresh), logits(load_model(base)), atol=1e-5)


def test_the_loss_is_that_of_peft_s_own_forward_pass(technique: FinetuneTechnique, base: Path) -> None:
    """Logits at labelled positions alone, rows padded on the right: the number all logits give."""
    import torch
    from torch.nn.functional import cross_entropy

    from tasks.training.loss import next_token_loss

    model = begun(technique, base).model.eval()
    inputs, labels = torch.arange(48).reshape(2, 24), torch.arange(1, 49).reshape(2, 24)
    inputs[1, 15:], labels[1, 15:], labels[0, :7] = 0, IGNORED, IGNORED
    with torch.inference_mode():
        own = next_token_loss(model, inputs, labels)
        whole = model(input_ids=inputs, use_cache=False).logits[:, -24:]
    assert float(own) == pytest.approx(float(cross_entropy(whole.flatten(0, 1), labels.flatten())), rel=1e-5)


def test_packed_documents_see_the_adapter_and_not_each_other(technique: FinetuneTechnique, base: Path) -> None:
    """Two documents in a row: the hidden states of each are those it has alone."""
    import torch

    from tasks.training.loss import decoded

    model = begun(technique, base).model.eval()
    row = torch.arange(30)[None]
    documents = torch.tensor([[0] * 13 + [1] * 17])
    if not technique.packs:
        with pytest.raises(ValueError, match="virtual tokens"):
            decoded(model, row, row, documents)
        return
    with torch.inference_mode():
        together = decoded(model, row, row, documents)[0]
        apart = [decoded(model, part, part)[0] for part in (row[:, :13], row[:, 13:])]
    assert torch.allclose(together, torch.cat(apart, dim=1), atol=1e-5)


WIDE = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 2} | SHAPE


def test_flops_are_those_that_run(technique: FinetuneTechnique) -> None:
    """Forward and backward, within one percent: per token, and what is done once a step however many tokens there are."""
    import torch

    from tasks.training.flops import Flops, counting
    from tasks.training.loss import next_token_loss

    if isinstance(technique, PromptTuning) and technique.prompt_tuning_init == "TEXT":
        return  # costs what other prompts cost
    length, labelled, sequences = 40, 16, 3
    tuning = technique.begin(new_model(config(**WIDE), seed=0), plan())
    tuning.model.train()

    def step(length: int, labelled: int, rows: int) -> None:
        ids = torch.arange(length).expand(rows, length).contiguous()
        labels = torch.where(ids < labelled, ids, IGNORED)
        next_token_loss(tuning.model, ids, labels).backward()

    with counting() as counter:
        step(length, labelled, sequences)
    per_token = technique.flops_per_token(config(**WIDE), length, labelled / length)
    predicted = sequences * length * per_token + technique.flops_per_pass(config(**WIDE))
    assert counter.total == pytest.approx(predicted, rel=0.01)
    whole = Flops(step, fixed=tuning.fixed).of(sequences, length, sequences * labelled)
    assert whole == pytest.approx(counter.total, rel=1e-3)
