"""Carries out STORE: from the O scratchpad through the epilogue, and N:M reducers, to memory."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..arithmetic.formats import HALF
from ..config import Config
from ..control.commands import Fault, StoreBody
from ..control.fault import FaultReport
from ..delay import delayed
from ..engine.epilogue import Epilogue
from ..sparsity.compressor import TileCompressor
from ..sparsity.packer import ChunkOrder
from ..sparsity.pattern import supported_patterns
from .descriptor import Descriptor
from .ports import O_READ_LATENCY, AuxWriteSignature, OReadSignature
from .products import PRODUCT_BITS, Products
from .result_walk import ResultWalk

__all__ = ["StoreUnit"]

_READY_BEATS = 32
"""Room behind the epilogue; more than the words that travel in front of it."""


class StoreUnit(wiring.Component):
    """Checks each STORE and streams its O words through the epilogue, one a cycle.

    With `Config.epilogue_slices` a word takes as many cycles. The check takes 14. Words are read
    only when there is room for their beats, so that nothing in the pipeline ever stalls; a result
    that is compressed waits for room once a tile.
    Holds the auxiliary scratchpad (biases, masks and what is added).

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
        ``MALFORMED`` (a count of zero, an odd number of words to convert, an addition, mask or
        compression without conversion, rows that don't fill the tiles, a descriptor of another
        number of beats than the result has; address 0), ``PATTERN`` (address 0; any, without
        `Config.compressed_stores`) or
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
        Infinities and NaNs among results, before they are pruned.
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
                "nonfinite": Out(range(config.epilogue_lanes + 1)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()

        config = self._config
        cols_shift = exact_log2(config.cols)
        body = Signal(StoreBody)

        compressor, supported = None, Const(0, 1)
        if config.compressed_stores:
            compressor = TileCompressor(config, ChunkOrder.ROW_MAJOR, config.floats // config.group)
            m.submodules.compressor = compressor
            m.d.comb += [compressor.pattern.eq(body.pattern), compressor.rows.eq(config.elements)]
            supported = Cat(body.pattern == pattern for pattern in supported_patterns(config)).any()

        # Beats that the descriptor names, beats of the result, beats of its mask and of what is
        # added, words from the first row of an O bank to the last.
        m.submodules.products = products = Products([4, 3, 2, 2])
        block_shift = exact_log2(config.elements)
        factors = [
            *body.descriptor.counts,
            Mux(body.compress, body.rows >> block_shift, body.rows),
            Mux(body.convert, body.words >> 1, body.words),
            Mux(body.compress, compressor.beats, 1) if compressor is not None else Const(1),
            body.rows,
            body.words >> 1,
            (body.rows - 1) >> cols_shift,
            body.o_stride,
        ]
        m.d.comb += [products.factors[i].eq(factor) for i, factor in enumerate(factors)]
        named_beats, beats, tensor_beats, span = products.products

        verdict = Signal(FaultReport)
        malformed = (
            (body.rows == 0)
            | (body.words == 0)
            | (body.convert & body.words[0])
            | ((body.add | body.mask | body.compress) & ~body.convert)
            | (body.compress & body.rows[:block_shift].any())
        )
        with m.If(malformed):
            m.d.comb += verdict.code.eq(Fault.MALFORMED)
        with m.Elif(body.compress & ~supported):
            m.d.comb += verdict.code.eq(Fault.PATTERN)
        with m.Elif(named_beats != beats):
            m.d.comb += verdict.code.eq(Fault.MALFORMED)
        with m.Elif(body.o_base + span + body.words > config.o_depth):
            m.d.comb += [verdict.code.eq(Fault.SCRATCHPAD_RANGE), verdict.address.eq(body.o_base)]
        with m.Elif(body.bias & (body.bias_base + ((body.words + 1) >> 1) > config.aux_depth)):
            m.d.comb += [
                verdict.code.eq(Fault.SCRATCHPAD_RANGE),
                verdict.address.eq(body.bias_base),
            ]
        for step, base in ((body.add, body.add_base), (body.mask, body.mask_base)):
            with m.Elif(step & (base + tensor_beats > config.aux_depth)):
                m.d.comb += [verdict.code.eq(Fault.SCRATCHPAD_RANGE), verdict.address.eq(base)]

        m.submodules.walk = walk = ResultWalk(config)
        m.d.comb += walk.body.eq(body)
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
                    m.d.comb += walk.start.eq(1)
                    m.d.sync += beats_left.eq(beats)
                    m.next = "Stream"
            with m.State("Stream"), m.If(self.data.valid & self.data.ready):
                m.d.sync += beats_left.eq(beats_left - 1)
                with m.If(beats_left == 1):
                    m.d.sync += self.done.eq(1)
                    m.next = "Wait-For-Command"
            with m.State("Stopped"):
                pass

        # Read O words, each beat's or tile's first one only when there's room for all of it.
        m.submodules.ready_beats = ready_beats = fifo.SyncFIFOBuffered(
            width=config.beat_bits, depth=_READY_BEATS
        )
        reserved = Signal(range(_READY_BEATS + 1))
        slices = config.epilogue_slices
        slice_ = Signal(range(slices))
        begins_word = slice_ == 0
        begins_beat = ~body.compress & (~body.convert | ~walk.upper) & begins_word
        begins_tile = walk.begins_tile & begins_word
        room = ~begins_beat | (reserved != _READY_BEATS)
        read = Signal()
        if compressor is not None:
            room &= ~begins_tile | compressor.free
            m.d.comb += compressor.begin.eq(read & begins_tile)
        m.d.comb += [
            read.eq(walk.valid & room & self.o_read.ready),
            walk.take.eq(read & (slice_ == slices - 1)),
            self.o_read.bank.eq(walk.bank),
            self.o_read.address.eq(walk.address),
        ]
        with m.If(read):
            m.d.sync += slice_.eq(slice_ + 1)
        m.d.sync += reserved.eq(
            reserved + (read & begins_beat) - (ready_beats.r_rdy & ready_beats.r_en)
        )

        # The bias meets its word as that comes out of the O scratchpad, what is added and the mask
        # further down.
        aux_shape = data.ArrayLayout(HALF, config.elements)
        m.submodules.aux = aux = Memory(shape=aux_shape, depth=config.aux_depth, init=[])
        aux_write = aux.write_port()
        bias_read, add_read, mask_read = aux.read_port(), aux.read_port(), aux.read_port()
        to_addend = Epilogue.ADDEND_LATENCY
        m.d.comb += [
            aux_write.en.eq(self.aux_write.enable),
            aux_write.addr.eq(self.aux_write.address),
            aux_write.data.eq(self.aux_write.data),
            bias_read.addr.eq(walk.bias_address),
            add_read.addr.eq(delayed(m, walk.add_address, to_addend)),
            mask_read.addr.eq(
                delayed(m, walk.mask_address, O_READ_LATENCY + Epilogue.MASK_LATENCY - 1)
            ),
        ]

        # Of a beat of AUX a word takes its half, a slice its part of that.
        bias, addend = (Signal(data.ArrayLayout(HALF, config.epilogue_lanes)) for _ in range(2))
        bias_place = delayed(m, Cat(slice_, walk.upper))
        addend_place = delayed(m, bias_place, to_addend)
        slice_bits = bias.shape().size
        m.d.sync += [
            bias.eq(bias_read.data.as_value().word_select(bias_place, slice_bits)),
            addend.eq(add_read.data.as_value().word_select(addend_place, slice_bits)),
        ]
        fetched = Signal(O_READ_LATENCY)
        m.d.sync += fetched.eq(Cat(read, fetched))

        m.submodules.epilogue = epilogue = Epilogue(config)
        m.d.comb += [
            epilogue.valid.eq(fetched[-1]),
            epilogue.word.eq(
                self.o_read.data.as_value().word_select(
                    delayed(m, slice_, O_READ_LATENCY), epilogue.word.shape().size
                )
            ),
            epilogue.bias.eq(bias),
            epilogue.addend.eq(addend),
            epilogue.mask.eq(mask_read.data),
            epilogue.add_bias.eq(body.bias),
            epilogue.add.eq(body.add),
            epilogue.relu.eq(body.relu),
            epilogue.convert.eq(body.convert),
            epilogue.apply_mask.eq(body.mask),
            self.nonfinite.eq(epilogue.nonfinite),
        ]

        # Out: beats as they are, or tiles.
        m.d.comb += [
            ready_beats.w_data.eq(epilogue.beat),
            ready_beats.w_en.eq(epilogue.beat_valid & ~body.compress),
            ready_beats.r_en.eq(self.data.ready & ~body.compress),
            self.data.payload.eq(ready_beats.r_data),
            self.data.valid.eq(ready_beats.r_rdy),
        ]
        if compressor is not None:
            m.d.comb += [
                compressor.i.payload.eq(epilogue.halves),
                compressor.i.valid.eq(epilogue.halves_valid & body.compress),
                compressor.o.ready.eq(self.data.ready & body.compress),
            ]
            with m.If(body.compress):
                m.d.comb += [
                    self.data.payload.eq(compressor.o.payload),
                    self.data.valid.eq(compressor.o.valid),
                ]

        return m
