"""Turns the layers of a network into commands.

Every place in a scratchpad is taken in turn, so that the next operands are loaded while the array
computes; `firmware.program.Program` adds the tokens that keep all in order.
"""

from .addition import AdditionSchedule
from .assembly import Assembly, Step
from .attention import AttentionSchedule
from .convolution import ConvolutionSchedule
from .gelu import GELUSchedule
from .layer_norm import LayerNormSchedule
from .loss import LossSchedule, LossTensors
from .normalisation import NormalisationSchedule
from .pieces import Backlog, Interruptible, Needs, Pieces, Steps, Written, cycles_of, emit
from .pooling import PoolingSchedule, accumulate, clear_phase
from .positions import PositionSchedule
from .relayout import RelayoutSchedule
from .statistics import PartialSums, Statistics
from .support import require_support
from .weight_gradients import WeightGradientSchedule

__all__ = [
    "AdditionSchedule",
    "Assembly",
    "AttentionSchedule",
    "Backlog",
    "ConvolutionSchedule",
    "GELUSchedule",
    "Interruptible",
    "LayerNormSchedule",
    "LossSchedule",
    "LossTensors",
    "Needs",
    "NormalisationSchedule",
    "PartialSums",
    "Pieces",
    "PoolingSchedule",
    "PositionSchedule",
    "RelayoutSchedule",
    "Statistics",
    "Step",
    "Steps",
    "WeightGradientSchedule",
    "Written",
    "accumulate",
    "clear_phase",
    "cycles_of",
    "emit",
    "require_support",
]
