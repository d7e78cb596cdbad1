"""Training on several workers: what params.yaml may say. Workers are started by torchrun."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from tasks.core.schema import Section


class Parallel(Section):
    """How training is spread over workers (torchrun)."""

    strategy: str = Field(default="ddp", pattern="^(ddp|zero1|zero2|zero3|fsdp)$")
    """ddp: every worker keeps everything; zero1, zero2, zero3 shard optimizer states, gradients, weights (arXiv:1910.02054); fsdp is zero3."""
    nproc_per_node: PositiveInt = 1
    """Workers on this machine."""
    nnodes: PositiveInt = 1
    """Machines."""
    node_rank: int = Field(default=0, ge=0)
    """Number of this machine among them."""
    rdzv_endpoint: str = "localhost:0"
    """host:port of the first machine, where all meet; whoever reaches it is trusted. One machine needs none: nothing listens."""
    comm_hook: str = Field(default="none", pattern="^(none|fp16|bf16|powersgd)$")
    """What ddp's gradients are sent as: half precision, or low rank with error feedback (arXiv:1905.13727)."""
    powersgd_rank: PositiveInt = 4
    """Rank of PowerSGD."""
    sync_every: PositiveInt = 1
    """Steps between exchanges; above 1 workers train apart and meet by an outer Nesterov step: DiLoCo (arXiv:2311.08105)."""
    outer_learning_rate: float = Field(default=0.7, gt=0)
    """Of the outer step."""
    outer_momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of the outer step."""
    max_restarts: int = Field(default=3, ge=0)
    """Times torchrun starts the workers again, from the last checkpoint, after one of them died."""

    @property
    def stays_here(self) -> bool:
        """Whether the workers talk over the loopback interface alone."""
        return self.nnodes == 1 or self.rdzv_endpoint.rpartition(":")[0] in ("localhost", "127.0.0.1")

    @property
    def workers(self) -> int:
        """All workers of all machines."""
        return self.nproc_per_node * self.nnodes
