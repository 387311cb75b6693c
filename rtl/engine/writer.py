"""Where the array's results go in the O banks."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from ..config import Config
from ..memory.scratchpad import OPlace
from .mapper import Product

__all__ = ["ResultWriter"]

_QUEUE_DEPTH = 4
"""Products that may be under way between the mapper and the O banks."""


class ResultWriter(wiring.Component):
    """Counts the results of the first way out of column 0 and says where each goes.

    They come in the order of the mapper: tiles, a innermost; in a tile contexts, and for each
    context its rows.

    Parameters
    ----------
    config
        Configuration of the accelerator.

    Attributes
    ----------
    product : In(stream)
        A product whose results will follow.
    valid : In(1)
        The next result is about to come.
    place : Out(OPlace)
        Its place, in the same cycle.
    accumulate : Out(1)
        It's to be added to what stands there.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "product": In(stream.Signature(Product)),
                "valid": In(1),
                "place": Out(OPlace(config)),
                "accumulate": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        config = self._config
        m = Module()

        m.submodules.queue = queue = SyncFIFO(width=Product.as_shape().size, depth=_QUEUE_DEPTH)
        m.d.comb += [
            queue.w_data.eq(self.product.payload),
            queue.w_en.eq(self.product.valid),
            self.product.ready.eq(queue.w_rdy),
        ]

        product = Signal(Product, reset_less=True)
        active = Signal()
        done = Signal()
        row = Signal(range(config.drain_rows))
        context = Signal(range(config.interleave))
        a_tile, b_tile = Signal(16), Signal(16)

        # The address of (b, a) is that of (b, 0) and a // (G/2).
        a_bits = 16 + (config.rows * config.interleave - 1).bit_length()
        a, a_base = Signal(a_bits), Signal(a_bits)
        b_address, b_base = Signal(16), Signal(16)
        position_bits = len(self.place.position)
        m.d.comb += [
            self.accumulate.eq(product.accumulate),
            self.place.enable.eq(self.valid),
            self.place.address.eq(b_address + (a >> position_bits)),
            self.place.position.eq(a[:position_bits]),
        ]

        with m.If(self.valid):
            m.d.sync += [row.eq(row + 1), a.eq(a + 1)]
            with m.If(row == config.drain_rows - 1):
                m.d.sync += [
                    row.eq(0),
                    a.eq(a_base),
                    context.eq(context + 1),
                    b_address.eq(b_address + product.o_stride),
                ]
                with m.If((context & product.b_contexts) == product.b_contexts):
                    m.d.sync += [
                        a.eq(a_base + config.rows),
                        a_base.eq(a_base + config.rows),
                        b_address.eq(b_base),
                    ]
                with m.If(context == config.interleave - 1):
                    m.d.sync += a_tile.eq(a_tile + 1)
                    with m.If(a_tile == product.last_a_tile):
                        m.d.sync += [
                            a_tile.eq(0),
                            a_base.eq(0),
                            a.eq(0),
                            b_tile.eq(b_tile + 1),
                            b_address.eq(b_address + product.o_stride),
                            b_base.eq(b_address + product.o_stride),
                        ]
                        m.d.comb += done.eq(b_tile == product.last_b_tile)

        # The next product's first result may come right after the last of this one.
        upcoming = Product(queue.r_data)
        with m.If(~active | done):
            m.d.comb += queue.r_en.eq(1)
            m.d.sync += [
                active.eq(queue.r_rdy),
                product.eq(upcoming),
                b_tile.eq(0),
                b_address.eq(upcoming.o_base),
                b_base.eq(upcoming.o_base),
            ]
        return m
