"""The read ports of the core at the channels over which memory is striped."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import Config
from .axi import AXI4ReadSignature
from .read_arbiter import ReadArbiter
from .read_striper import BEATS, ReadStriper

__all__ = ["StripedReads"]


class StripedReads(wiring.Component):
    """A `ReadStriper` for each port; if there are several, they share each channel.

    Stripers have room for all that they ask for, so that a port that holds its data up never stands
    in the way of another. Each has a beat a cycle, if the channels do.

    Parameters
    ----------
    config
        Sets ports, channels, beat width and the size of memory.

    Attributes
    ----------
    core : In(array of AXI4ReadSignature)
        The ports, as a `ReadStriper` has them.
    channels : Out(array of AXI4ReadSignature)
        The channels.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        signature = AXI4ReadSignature(config.beat_bits)
        super().__init__(
            {
                "core": In(signature).array(config.read_ports),
                "channels": Out(signature).array(config.channels),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self._config
        stripers = []
        for number, port in enumerate(self.core):
            m.submodules[f"port_{number}"] = striper = ReadStriper(config)
            wiring.connect(m, wiring.flipped(port), striper.core)
            stripers.append(striper)
        for number, channel in enumerate(self.channels):
            if len(stripers) == 1:
                wiring.connect(m, stripers[0].channels[number], wiring.flipped(channel))
                continue
            # As many bursts as there may be beats.
            arbiter = ReadArbiter(
                config, masters=len(stripers), bursts=len(stripers) * BEATS // config.channels
            )
            m.submodules[f"channel_{number}"] = arbiter
            for striper, master in zip(stripers, arbiter.masters, strict=True):
                wiring.connect(m, striper.channels[number], master)
            wiring.connect(m, arbiter.axi, wiring.flipped(channel))
        return m
