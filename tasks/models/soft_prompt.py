"""Virtual tokens that peft puts in front of every text, where the decoder is called and not peft's own forward pass."""

from __future__ import annotations

from typing import Any


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


def _prompt_config(model: Any) -> Any:
    """The config of a peft model with virtual tokens, or None."""
    config = getattr(model, "active_peft_config", None)
    return config if config is not None and config.is_prompt_learning else None
