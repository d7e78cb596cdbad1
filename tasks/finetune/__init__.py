"""Stage finetune: base model and chat messages in, adapter and merged model out."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from tasks.core.schema import Choice
from tasks.finetune.adalora import AdaLora
from tasks.finetune.badam import Badam
from tasks.finetune.bitfit import Bitfit
from tasks.finetune.boft import Boft
from tasks.finetune.bottleneck import Bottleneck
from tasks.finetune.diff_pruning import DiffPruning
from tasks.finetune.dora import Dora
from tasks.finetune.fourierft import FourierFT
from tasks.finetune.full import Full
from tasks.finetune.ia3 import Ia3
from tasks.finetune.layer_norm import LayerNorm
from tasks.finetune.layers import Layers
from tasks.finetune.lisa import Lisa
from tasks.finetune.llama_adapter import LlamaAdapter
from tasks.finetune.loftq import LoftQ
from tasks.finetune.lora import Lora
from tasks.finetune.lora_plus import LoraPlus
from tasks.finetune.objective import FinetuneObjectiveChoice
from tasks.finetune.oft import Oft
from tasks.finetune.olora import Olora
from tasks.finetune.p_tuning import PTuning
from tasks.finetune.pissa import Pissa
from tasks.finetune.prefix_tuning import PrefixTuning
from tasks.finetune.prompt_tuning import PromptTuning
from tasks.finetune.qlora import QLora
from tasks.finetune.rslora import RsLora
from tasks.finetune.vera import Vera
from tasks.optimizers import Optimizer
from tasks.optimizers.adamw import AdamW
from tasks.training.schedule import Schedule


class Finetune(Choice):
    """Training on chat messages, with the loss on the answers only, or on what is preferred or rewarded."""

    method: str = "lora"
    """How the base model is adapted."""
    objective: FinetuneObjectiveChoice = FinetuneObjectiveChoice()
    steps: NonNegativeInt = 100
    """Optimizer steps; 0 passes the model through unchanged."""
    batch_size: PositiveInt = 8
    """Chats per step."""
    context_length: PositiveInt = 256
    """Longest chat in tokens; a longer one is left out and counted."""
    packing: str = Field(default="auto", pattern="^(auto|on|off)$")
    """Let a step's chats share rows without seeing each other, so that no padding is multiplied; auto: where the model can."""
    group_by_length: bool = False
    """Make steps of chats of like length, in an order that is drawn."""
    neftune_noise_alpha: PositiveFloat | None = None
    """Noise on the embeddings while training, at most this / sqrt(tokens x width) (arXiv:2310.05914); null: none."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate."""
    schedule: Schedule = Schedule(warmup_steps=10)
    optimizer: Optimizer = Optimizer(adamw=AdamW(beta2=0.999))
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of matrices."""
    max_grad_norm: PositiveFloat = 1.0
    """Clip the gradient's global norm to this."""
    precision: str = Field(default="auto", pattern="^(auto|fp32|bf16)$")
    """Arithmetic of the forward pass: auto takes bf16 where the machine multiplies it natively."""
    gradient_accumulation_steps: PositiveInt = 1
    """Parts a step's batch is computed in, one after the other: less memory, the same gradient."""
    gradient_checkpointing: str = Field(default="none", pattern="^(none|selective|full)$")
    """What is computed again in the backward pass instead of kept: nothing, all but matrix products, whole blocks (arXiv:1604.06174)."""
    checkpoint_every: PositiveInt = 50
    """Steps between checkpoints to resume from."""
    eval_every: PositiveInt = 100
    """Steps between validation losses."""
    early_stopping_patience: PositiveInt | None = None
    """Stop after so many validation losses without a better one, and go back to the best; null: train to the last step."""
    lora: Lora = Lora()
    rslora: RsLora = RsLora()
    lora_plus: LoraPlus = LoraPlus()
    dora: Dora = Dora()
    pissa: Pissa = Pissa()
    olora: Olora = Olora()
    adalora: AdaLora = AdaLora()
    qlora: QLora = QLora()
    loftq: LoftQ = LoftQ()
    vera: Vera = Vera()
    ia3: Ia3 = Ia3()
    oft: Oft = Oft()
    boft: Boft = Boft()
    fourierft: FourierFT = FourierFT()
    layer_norm: LayerNorm = LayerNorm()
    prompt_tuning: PromptTuning = PromptTuning()
    prefix_tuning: PrefixTuning = PrefixTuning()
    p_tuning: PTuning = PTuning()
    llama_adapter: LlamaAdapter = LlamaAdapter()
    bottleneck: Bottleneck = Bottleneck()
    full: Full = Full()
    layers: Layers = Layers()
    bitfit: Bitfit = Bitfit()
    lisa: Lisa = Lisa()
    badam: Badam = Badam()
    diff_pruning: DiffPruning = DiffPruning()
