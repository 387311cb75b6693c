"""Carries out STORE: from the O scratchpad through the epilogue to memory."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..arithmetic.formats import HALF
from ..config import Config
from ..control.commands import Fault, StoreBody
from ..control.fault import FaultReport
from ..engine.epilogue import Epilogue
from .descriptor import Descriptor
from .ports import O_READ_LATENCY, AuxWriteSignature, OReadSignature
from .products import PRODUCT_BITS, Products

__all__ = ["StoreUnit"]

_READY_BEATS = 32
"""Room behind the epilogue; more than the words that travel in front of it."""


class StoreUnit(wiring.Component):
    """Checks each STORE and streams its O words through the epilogue, one a cycle.

    The check takes 11 cycles. Words are read only when there is room for their beats, so that
    nothing in the pipeline ever stalls. Holds the auxiliary scratchpad (biases and masks).

    Parameters
    ----------
    config
        Sets all shapes.

    Attributes
    ----------
    command : In(stream of StoreBody)
        Commands.
    done : Out(1)
        One pulse per command, in order, after its last beat was handed over.
    fault : Out(FaultReport)
        ``MALFORMED`` (a count of zero, an odd number of words to convert, a mask without
        conversion, a descriptor of another number of beats than the result has; address 0) or
        ``SCRATCHPAD_RANGE`` with the base concerned. Stays until reset.
    o_read : Out(OReadSignature)
        O scratchpad.
    aux_write : In(AuxWriteSignature)
        Fills the auxiliary scratchpad.
    descriptor : Out(stream of Descriptor)
        To the write DMA.
    data : Out(stream of beats)
        To the write DMA.
    nonfinite : Out(range)
        Infinities and NaNs that went out in the cycle before.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "command": In(stream.Signature(StoreBody)),
                "done": Out(1),
                "fault": Out(FaultReport),
                "o_read": Out(OReadSignature(config)),
                "aux_write": In(AuxWriteSignature(config)),
                "descriptor": Out(stream.Signature(Descriptor)),
                "data": Out(stream.Signature(unsigned(config.beat_bits))),
                "nonfinite": Out(range(config.elements + 1)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        config = self._config
        cols_shift = exact_log2(config.cols)
        body = Signal(StoreBody)

        # Beats that the descriptor names, words of the result, words from the first row of an O
        # bank to the last.
        m.submodules.products = products = Products([4, 2, 2])
        factors = [
            *body.descriptor.counts,
            body.rows,
            body.words,
            (body.rows - 1) >> cols_shift,
            body.o_stride,
        ]
        m.d.comb += [products.factors[i].eq(factor) for i, factor in enumerate(factors)]
        named_beats, words, span = products.products
        beats = Signal(PRODUCT_BITS)
        m.d.comb += beats.eq(Mux(body.convert, words >> 1, words))

        verdict = Signal(FaultReport)
        malformed = (
            (body.rows == 0)
            | (body.words == 0)
            | (body.convert & body.words[0])
            | (body.mask & ~body.convert)
            | (named_beats != beats)
        )
        with m.If(malformed):
            m.d.comb += verdict.code.eq(Fault.MALFORMED)
        with m.Elif(body.o_base + span + body.words > config.o_depth):
            m.d.comb += [verdict.code.eq(Fault.SCRATCHPAD_RANGE), verdict.address.eq(body.o_base)]
        with m.Elif(body.bias & (body.bias_base + ((body.words + 1) >> 1) > config.aux_depth)):
            m.d.comb += [
                verdict.code.eq(Fault.SCRATCHPAD_RANGE),
                verdict.address.eq(body.bias_base),
            ]
        with m.Elif(body.mask & (body.mask_base + beats > config.aux_depth)):
            m.d.comb += [
                verdict.code.eq(Fault.SCRATCHPAD_RANGE),
                verdict.address.eq(body.mask_base),
            ]

        # Position of the word that is read next.
        reading = Signal()
        rows_left, word = Signal(16), Signal(16)
        bank = Signal(range(config.cols))
        origin, address, bias_address = Signal(16), Signal(16), Signal(16)
        mask_address = Signal(16)
        beats_left = Signal(PRODUCT_BITS)
        """Beats not handed over yet."""

        m.d.comb += self.descriptor.payload.eq(body.descriptor)
        m.d.sync += self.done.eq(0)
        with m.FSM():
            with m.State("Wait-For-Command"):
                m.d.comb += self.command.ready.eq(1)
                with m.If(self.command.valid):
                    m.d.sync += body.eq(self.command.payload)
                    m.next = "Start-Check"
            with m.State("Start-Check"):
                m.d.comb += products.start.eq(1)
                m.next = "Check"
            with m.State("Check"), m.If(products.done):
                m.next = "Issue-Descriptor"
                with m.If(verdict.code != Fault.NONE):
                    m.d.sync += self.fault.eq(verdict)
                    m.next = "Stopped"
            with m.State("Issue-Descriptor"):
                m.d.comb += self.descriptor.valid.eq(1)
                with m.If(self.descriptor.ready):
                    m.d.sync += [
                        reading.eq(1),
                        rows_left.eq(body.rows),
                        word.eq(0),
                        bank.eq(0),
                        origin.eq(body.o_base),
                        address.eq(body.o_base),
                        bias_address.eq(body.bias_base),
                        mask_address.eq(body.mask_base),
                        beats_left.eq(beats),
                    ]
                    m.next = "Stream"
            with m.State("Stream"), m.If(self.data.valid & self.data.ready):
                m.d.sync += beats_left.eq(beats_left - 1)
                with m.If(beats_left == 1):
                    m.d.sync += self.done.eq(1)
                    m.next = "Wait-For-Command"
            with m.State("Stopped"):
                pass

        # Read O words, each beat's first one only when there's room for the beat.
        m.submodules.ready_beats = ready_beats = fifo.SyncFIFOBuffered(
            width=config.beat_bits, depth=_READY_BEATS
        )
        reserved = Signal(range(_READY_BEATS + 1))
        starts_beat = ~body.convert | ~word[0]
        read, reserve = Signal(), Signal()
        m.d.comb += [
            read.eq(reading & (~starts_beat | (reserved != _READY_BEATS))),
            reserve.eq(read & starts_beat),
            self.o_read.bank.eq(bank),
            self.o_read.address.eq(address),
        ]
        m.d.sync += reserved.eq(reserved + reserve - (self.data.valid & self.data.ready))
        with m.If(read):
            with m.If(word != body.words - 1):
                m.d.sync += [
                    word.eq(word + 1),
                    address.eq(address + 1),
                    bias_address.eq(bias_address + word[0]),
                ]
            with m.Else():
                next_origin = origin + Mux(bank == config.cols - 1, body.o_stride, 0)
                m.d.sync += [
                    word.eq(0),
                    bank.eq(bank + 1),
                    origin.eq(next_origin),
                    address.eq(next_origin),
                    bias_address.eq(body.bias_base),
                    rows_left.eq(rows_left - 1),
                ]
                with m.If(rows_left == 1):
                    m.d.sync += reading.eq(0)

        # The bias meets its word as that comes out of the O scratchpad.
        aux_shape = data.ArrayLayout(HALF, config.elements)
        m.submodules.aux = aux = Memory(shape=aux_shape, depth=config.aux_depth, init=[])
        aux_write, bias_read, mask_read = aux.write_port(), aux.read_port(), aux.read_port()
        m.d.comb += [
            aux_write.en.eq(self.aux_write.enable),
            aux_write.addr.eq(self.aux_write.address),
            aux_write.data.eq(self.aux_write.data),
            bias_read.addr.eq(bias_address),
            mask_read.addr.eq(mask_address),
        ]
        upper = Signal()
        bias = Signal(data.ArrayLayout(HALF, config.floats))
        m.d.sync += [
            upper.eq(word[0]),
            bias.eq(bias_read.data.as_value().word_select(upper, config.beat_bits // 2)),
        ]
        fetched = Signal(O_READ_LATENCY)
        m.d.sync += fetched.eq(Cat(read, fetched))

        m.submodules.epilogue = epilogue = Epilogue(config)
        m.d.comb += [
            epilogue.valid.eq(fetched[-1]),
            epilogue.word.eq(self.o_read.data),
            epilogue.bias.eq(bias),
            epilogue.mask.eq(mask_read.data),
            epilogue.add_bias.eq(body.bias),
            epilogue.relu.eq(body.relu),
            epilogue.convert.eq(body.convert),
            epilogue.apply_mask.eq(body.mask),
            self.nonfinite.eq(epilogue.nonfinite),
            ready_beats.w_data.eq(epilogue.beat),
            ready_beats.w_en.eq(epilogue.beat_valid),
            self.data.payload.eq(ready_beats.r_data),
            self.data.valid.eq(ready_beats.r_rdy),
            ready_beats.r_en.eq(self.data.ready),
        ]
        with m.If(epilogue.mask_taken):
            m.d.sync += mask_address.eq(mask_address + 1)

        return m
