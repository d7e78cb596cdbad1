"""Optimizers, one file each; pretrain and finetune choose one by name."""

from __future__ import annotations

from tasks.core.schema import Choice
from tasks.optimizers.adafactor import Adafactor
from tasks.optimizers.adalomo import AdaLomo
from tasks.optimizers.adam_mini import AdamMini
from tasks.optimizers.adamw import AdamW
from tasks.optimizers.adamw_4bit import AdamW4bit
from tasks.optimizers.adamw_8bit import AdamW8bit
from tasks.optimizers.apollo import Apollo
from tasks.optimizers.galore import GaLore
from tasks.optimizers.lion import Lion
from tasks.optimizers.lomo import Lomo
from tasks.optimizers.mezo import MeZO
from tasks.optimizers.muon import Muon
from tasks.optimizers.schedule_free import ScheduleFree
from tasks.optimizers.sgd import Sgd


class Optimizer(Choice):
    """How gradients become updates."""

    method: str = "adamw"
    """Optimizer by name."""
    adamw: AdamW = AdamW()
    adamw_8bit: AdamW8bit = AdamW8bit()
    adamw_4bit: AdamW4bit = AdamW4bit()
    adam_mini: AdamMini = AdamMini()
    adafactor: Adafactor = Adafactor()
    lion: Lion = Lion()
    muon: Muon = Muon()
    galore: GaLore = GaLore()
    apollo: Apollo = Apollo()
    schedule_free: ScheduleFree = ScheduleFree()
    lomo: Lomo = Lomo()
    adalomo: AdaLomo = AdaLomo()
    mezo: MeZO = MeZO()
    sgd: Sgd = Sgd()
