"""Raw inputs made once and then immutable: `python -m tasks.acquire NAME`, the commands of `data/dvc.yaml`."""

from __future__ import annotations

from tasks.core.schema import Section


class HubDataset(Section):
    """A data set of the Hugging Face hub, for `data/hub` (needs a network)."""

    path: str = "Salesforce/wikitext"
    """The data set's id."""
    name: str | None = "wikitext-2-raw-v1"
    """Its configuration, if it has several."""
    split: str = "train"
    """The split to take; it is split anew by the data stage."""
    revision: str = "main"
    """Commit, tag or branch; a commit pins it."""


class HubModel(Section):
    """A model of the Hugging Face hub, for `data/hub_model` (needs a network)."""

    repo_id: str = "HuggingFaceTB/SmolLM2-135M"
    """The model's id."""
    revision: str = "main"
    """Commit, tag or branch; a commit pins it."""


class Acquire(Section):
    """Where raw inputs come from; each is made only when something names its folder."""

    dataset: HubDataset = HubDataset()
    model: HubModel = HubModel()
