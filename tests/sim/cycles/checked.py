"""A driver that runs each program on the gateware and in the cycle model, and compares them."""

from firmware.cards.verilated import VerilatedCard
from firmware.driver import Driver
from rtl.control.commands import Stage
from sim.cycles.model import Outcome, measure
from sim.cycles.report import side_by_side

__all__ = ["CheckedDriver"]

_TIMEOUT = 1_000_000


class CheckedDriver(Driver):
    """Fails where the model's counters aren't those of the Verilated card.

    Parameters
    ----------
    card
        Programs of another than a Verilated one are only run.
    timing
        That of its memory, at first.

    Attributes
    ----------
    cycles
        Of all programs that were compared.
    """

    def __init__(self, card, timing):
        super().__init__(card)
        self._stage = Stage.FF
        self.cycles = 0
        if isinstance(card, VerilatedCard):
            # A reset that has to wait asks again after a hundredth of that.
            card.default_timeout = _TIMEOUT
            self.reset()
            self.set_timing(timing)

    def set_timing(self, timing):
        """Change the memory of both."""
        self._timing = timing
        self.card.model.set_timing(timing)

    def run(self, program, timeout=None):
        result = super().run(program, timeout)
        if not isinstance(self.card, VerilatedCard):
            return result
        model = measure(
            self.config, self._timing, program.encode(), address=program.address, stage=self._stage
        )
        assert model.outcome is Outcome.FINISHED, program.name
        self._stage = model.stage
        # The one counter that depends on values.
        expected = {name: n for name, n in result.counters.items() if name != "NONFINITE"}
        predicted = {name: model.counters[name] for name in expected}
        assert predicted == expected, "\n".join(
            [
                f"{program.name} on {self.config.name}, {self._timing}:",
                side_by_side(expected, predicted),
                program.listing(),
            ]
        )
        self.cycles += result.cycles
        return result
