"""Model of memory channels, each with a pace of its own, for the tests of striped memory."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge

from rtl.config import PAGE_BYTES, Config
from rtl.interface.axi import Address, ReadData, Response, WriteData, WriteResponse
from tests.harness import config, pack, unpack

__all__ = ["Memory", "Pace", "card_address", "random_paces", "streamed", "striped"]


def striped(config: Config, address: int) -> tuple[int, int]:
    """Return the channel of a byte of the card, and its address there."""
    page, offset = divmod(address, PAGE_BYTES)
    row, channel = divmod(page, config.channels)
    return channel, row * PAGE_BYTES + offset


def card_address(config: Config, channel: int, address: int) -> int:
    """Return the address in the card of a channel's byte."""
    row, offset = divmod(address, PAGE_BYTES)
    return (row * config.channels + channel) * PAGE_BYTES + offset


@dataclass
class Pace:
    """How a channel answers.

    Parameters
    ----------
    latency
        Fewest and most cycles from a burst's address to its first beat, or from its last beat to
        its response.
    bandwidth
        Beats in a cycle.
    pause
        Probability of a pause of AR, R, AW, W or B in a cycle.
    """

    latency: tuple[int, int] = (20, 20)
    bandwidth: float = 1.0
    pause: float = 0.0


def random_paces(random: np.random.Generator) -> list[Pace]:
    """Return for each channel other latencies, rates and pauses."""
    return [
        Pace(
            latency=(int(random.integers(20)), int(random.integers(20, 100))),
            bandwidth=float(random.choice([0.1, 0.5, 1.0])),
            pause=float(random.choice([0, 0.3])),
        )
        for _ in range(config().channels)
    ]


def streamed(first: int, beats: int) -> list[tuple[int, int]]:
    """Return bursts, as (beat, beats), over `beats` beats in a row from an aligned one."""
    longest = config().burst_beats
    return [(beat, longest) for beat in range(first, first + beats, longest)]


@dataclass
class _Burst:
    """A burst under way."""

    address: int
    """Of the next beat, in the card."""
    beats: int
    due: int
    """Cycle of its first beat, or of its response."""
    response: Response = Response.OKAY


class Memory:
    """Memory striped over the ports ``channels__0`` and so on, which `serve` answers.

    Parameters
    ----------
    dut
        The simulated striper.
    random
        Source of content, latencies and pauses.
    paces
        Of each channel; may be replaced while it runs.

    Attributes
    ----------
    beats
        Content of the card's memory.
    errors
        What beats at certain addresses of the card are answered with.
    bursts, sent
        Of each channel, how many addresses it took, and how many beats of reads it sent.
    """

    def __init__(self, dut: Any, random: np.random.Generator, paces: list[Pace]) -> None:
        self.config = config()
        self.dut = dut
        self.random = random
        self.paces = paces
        size = self.config.beat_bytes
        content = random.bytes(self.config.memory_bytes)
        self.beats = [
            int.from_bytes(content[i : i + size], "little") for i in range(0, len(content), size)
        ]
        self.errors: dict[int, Response] = {}
        self.bursts = [0] * self.config.channels
        self.sent = [0] * self.config.channels

    def serve(self, *, reads: bool) -> None:
        """Answer reads or writes from now on."""
        for number in range(self.config.channels):
            cocotb.start_soon(self._reads(number) if reads else self._writes(number))

    def _latency(self, number: int) -> int:
        low, high = self.paces[number].latency
        return int(self.random.integers(low, high + 1))

    def _pauses(self, number: int) -> bool:
        return bool(self.random.random() < self.paces[number].pause)

    def _accept(self, number: int, address: Any, now: int) -> _Burst:
        """Return the burst that a channel takes, which must be a proper one."""
        burst = unpack(Address, address)
        size = self.config.beat_bytes
        assert burst.addr % size == 0
        assert burst.addr % PAGE_BYTES + (burst.len + 1) * size <= PAGE_BYTES
        self.bursts[number] += 1
        first = card_address(self.config, number, burst.addr)
        assert first < self.config.memory_bytes
        return _Burst(first, burst.len + 1, now + self._latency(number))

    async def _reads(self, number: int) -> None:
        ar = _Taker(self.dut, f"channels__{number}__ar")
        r = _Giver(self.dut, f"channels__{number}__r")
        layout = ReadData(self.config.beat_bits)
        bursts: deque[_Burst] = deque()
        credit, now = 0.0, 0
        while True:
            await RisingEdge(self.dut.clk)
            now += 1
            if (address := ar.taken()) is not None:
                bursts.append(self._accept(number, address, now))
            r.taken()
            credit = min(credit + self.paces[number].bandwidth, 1.0)
            ar.set_ready(not self._pauses(number))
            ready = bursts and bursts[0].due <= now and credit >= 1 and not self._pauses(number)
            if ready and not r.offers:
                burst = bursts[0]
                burst.beats -= 1
                beat = {
                    "data": self.beats[burst.address // self.config.beat_bytes],
                    "resp": self.errors.get(burst.address, Response.OKAY),
                    "last": burst.beats == 0,
                }
                r.offer(pack(layout, beat))
                self.sent[number] += 1
                credit -= 1
                burst.address += self.config.beat_bytes
                if not burst.beats:
                    bursts.popleft()

    async def _writes(self, number: int) -> None:
        aw = _Taker(self.dut, f"channels__{number}__aw")
        w = _Taker(self.dut, f"channels__{number}__w")
        b = _Giver(self.dut, f"channels__{number}__b")
        layout = WriteData(self.config.beat_bits)
        bursts: deque[_Burst] = deque()
        beats: deque[Any] = deque()
        answers: deque[_Burst] = deque()
        credit, now = 0.0, 0
        while True:
            await RisingEdge(self.dut.clk)
            now += 1
            if (address := aw.taken()) is not None:
                bursts.append(self._accept(number, address, now))
            if (beat := w.taken()) is not None:
                beats.append(unpack(layout, beat))
                credit -= 1
            b.taken()
            # Beats may come before the address of their burst.
            while bursts and beats:
                burst, beat = bursts[0], beats.popleft()
                burst.beats -= 1
                assert beat.last == (burst.beats == 0)
                if beat.strb:
                    self.beats[burst.address // self.config.beat_bytes] = beat.data
                burst.response = max(
                    burst.response,
                    self.errors.get(burst.address, Response.OKAY),
                    key=lambda response: response.value,
                )
                burst.address += self.config.beat_bytes
                if beat.last:
                    burst.due = now + self._latency(number)
                    answers.append(bursts.popleft())
            credit = min(credit + self.paces[number].bandwidth, 1.0)
            aw.set_ready(not self._pauses(number))
            w.set_ready(credit >= 1 and not self._pauses(number))
            if answers and answers[0].due <= now and not b.offers and not self._pauses(number):
                b.offer(pack(WriteResponse, {"resp": answers.popleft().response}))


@dataclass
class _Giver:
    """Offers items on a stream into the simulated component."""

    dut: Any
    port: str
    offers: bool = False

    def __post_init__(self) -> None:
        self._valid = getattr(self.dut, f"{self.port}__valid")
        self._ready = getattr(self.dut, f"{self.port}__ready")
        self._payload = getattr(self.dut, f"{self.port}__payload")

    def taken(self) -> None:
        """Note at a rising edge whether the item on offer was taken."""
        if self.offers and self._ready.value:
            self.offers = False
            self._valid.value = 0

    def offer(self, item: int) -> None:
        """Offer an item until it's taken."""
        self.offers = True
        self._valid.value = 1
        self._payload.value = item


@dataclass
class _Taker:
    """Takes items from a stream of the simulated component, and checks that it keeps the rules."""

    dut: Any
    port: str
    _ready_now: bool = False
    _offered: int | None = field(default=None)

    def __post_init__(self) -> None:
        self._valid = getattr(self.dut, f"{self.port}__valid")
        self._ready = getattr(self.dut, f"{self.port}__ready")
        self._payload = getattr(self.dut, f"{self.port}__payload")

    def taken(self) -> int | None:
        """Return at a rising edge the item that was taken at it."""
        item = int(self._payload.value) if self._valid.value else None
        if self._offered is not None:
            assert item == self._offered, f"{self.port}: an item was changed or withdrawn"
        self._offered = None if self._ready_now else item
        return item if self._ready_now else None

    def set_ready(self, ready: bool) -> None:
        """Take an item at the next rising edge, or not."""
        self._ready_now = ready
        self._ready.value = int(ready)
