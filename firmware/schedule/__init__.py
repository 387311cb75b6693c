"""Turns the layers of a network into commands.

Every place in a scratchpad is taken in turn, so that the next operands are loaded while the array
computes; `firmware.program.Program` adds the tokens that keep all in order.
"""

from .addition import AdditionSchedule
from .assembly import Assembly, Step
from .convolution import ConvolutionSchedule
from .loss import LossSchedule, LossTensors
from .normalisation import NormalisationSchedule
from .pieces import Backlog, Lines, Pieces, Reach, emit
from .pooling import PoolingSchedule, accumulate, clear_phase
from .statistics import PartialSums, Statistics
from .support import require_support
from .weight_gradients import WeightGradientSchedule

__all__ = [
    "AdditionSchedule",
    "Assembly",
    "Backlog",
    "ConvolutionSchedule",
    "Lines",
    "LossSchedule",
    "LossTensors",
    "NormalisationSchedule",
    "PartialSums",
    "Pieces",
    "PoolingSchedule",
    "Reach",
    "Statistics",
    "Step",
    "WeightGradientSchedule",
    "accumulate",
    "clear_phase",
    "emit",
    "require_support",
]
