"""Virtual tokens that peft puts in front of every text, where the decoder is called and not peft's own forward pass."""

from __future__ import annotations

import warnings
from typing import Any

PLACED = {"PeftType.PROMPT_TUNING", "PeftType.P_TUNING", "PeftType.PREFIX_TUNING", "PeftType.ADAPTION_PROMPT"}
"""What peft calls adapters of which something stands at fixed positions."""


def virtual_tokens(model: Any) -> int:
    """Tokens that stand in front of every text without being one: of soft prompts and prefixes."""
    config = _prompt_config(model)
    return int(config.num_virtual_tokens) if config else 0


def free_positions(model: Any) -> int:
    """Positions that are left for a text; a great many where the config names no limit."""
    return int(getattr(model.config, "max_position_embeddings", 0) or 1 << 20) - virtual_tokens(model)


def decode_prompted(model: Any, decoder: Any, inputs: Any, **more: Any) -> Any:
    """The decoder's output for token ids (B, T) behind a soft prompt, as peft itself calls it.

    Args:
        model: a peft model with virtual tokens.
        decoder: of its base.
        inputs: token ids (B, T).
        more: for the decoder.

    Returns:
        The output; its last hidden states are those of the T tokens alone.
    """
    import torch

    config = _prompt_config(model)
    count = int(config.num_virtual_tokens)
    prompt = model.get_prompt(len(inputs))
    if config.peft_type == "PREFIX_TUNING":
        return decoder(input_ids=inputs, past_key_values=prompt, use_cache=False, **more)
    embedded = model.get_base_model().get_input_embeddings()(inputs)
    embedded = torch.cat((prompt.to(embedded.dtype), embedded), dim=1)
    made = decoder(inputs_embeds=embedded, use_cache=False, **more)
    made.last_hidden_state = made.last_hidden_state[:, count:]
    return made


def place_texts(model: Any) -> None:
    """Have the base of a peft model count positions from what isn't padding, where something learned stands at fixed ones.

    Virtual tokens come before the padding of a batch that is padded on the left, and peft leaves the padding its positions:
    a text would be further from them the shorter it is. LLaMA-Adapter's prompts, too, are seen from where a text stands.

    Args:
        model: any; one without such a thing stays as it is, and so does one that counts already.
    """
    kinds = {str(getattr(config, "peft_type", "")) for config in getattr(model, "peft_config", {}).values()}
    if not kinds & PLACED or getattr(base := model.base_model, "places_texts", False):
        return
    # said of every text that is generated; the positions peft drops are counted again
    warnings.filterwarnings("ignore", message="Position ids are not supported for parameter efficient tuning")
    base.places_texts = True
    base.register_forward_pre_hook(_positions, with_kwargs=True)


def _positions(_module: Any, arguments: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The arguments of a forward pass; where it has a mask (B, T), with the positions that follow from it."""
    mask, inputs = given.get("attention_mask"), given.get("input_ids")
    inputs = given.get("inputs_embeds") if inputs is None else inputs
    if mask is None or getattr(mask, "ndim", 0) != 2 or inputs is None:
        return arguments, given
    counted = (mask.long().cumsum(1) - 1).clamp(min=0)
    return arguments, given | {"position_ids": counted[:, -inputs.shape[1] :]}


def _prompt_config(model: Any) -> Any:
    """The config of a peft model with virtual tokens, or None."""
    config = getattr(model, "active_peft_config", None)
    return config if config is not None and config.is_prompt_learning else None
