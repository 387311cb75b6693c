"""The order in which a STORE reads the O scratchpad."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from ..config import Config
from ..control.commands import StoreBody

__all__ = ["ResultWalk"]


class ResultWalk(wiring.Component):
    """Names the O words of a STORE one by one, with the AUX words that belong to each.

    Row after row, each with all its words; with `compress` tile after tile of G rows by two words,
    within a block of G rows all its words.

    Parameters
    ----------
    config
        Sets all shapes.

    Attributes
    ----------
    body : In(StoreBody)
        The command, checked and constant from `start` on.
    start : In(1)
        Go to the first word, which is there in the next cycle.
    take : In(1)
        Go on to the next word; only while `valid`.
    valid : Out(1)
        There is a word, not the end.
    bank, address : Out
        Where it is in the O scratchpad.
    upper : Out(1)
        It is the second one of a pair, which make a beat if they are converted.
    begins_tile : Out(1)
        It is the first one of a tile (with `compress`).
    bias_address, add_address, mask_address : Out
        Where the AUX words of its pair are: those of a vector along the rows, and of two tensors of
        the result's shape, row after row.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        super().__init__(
            {
                "body": In(StoreBody),
                "start": In(1),
                "take": In(1),
                "valid": Out(1),
                "bank": Out(range(config.cols)),
                "address": Out(range(config.o_depth)),
                "upper": Out(1),
                "begins_tile": Out(1),
                "bias_address": Out(range(config.aux_depth)),
                "add_address": Out(range(config.aux_depth)),
                "mask_address": Out(range(config.aux_depth)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config, body = self._config, self.body
        block_shift = exact_log2(config.elements // config.cols)

        # `word` counts along the whole row; of a tile's rows two words are taken at a time.
        rows_left, word = Signal(16), Signal(16)
        tile_row = Signal(range(config.elements))
        row_ends, turns, tile_ends = Signal(), Signal(), Signal()
        m.d.comb += [
            row_ends.eq(word == body.words - 1),
            turns.eq(Mux(body.compress, word[0], row_ends)),
            tile_ends.eq(turns & body.compress & tile_row.all()),
            self.upper.eq(word[0]),
            self.begins_tile.eq(body.compress & (tile_row == 0) & ~word[0]),
        ]

        # Where the words taken of this row, of this tile and of this block of G rows begin. All
        # addresses are within their scratchpad, so that carries beyond it mean nothing.
        row_start, tile_start, block_start = (
            Signal(range(config.o_depth), name=f"{part}_start") for part in ("row", "tile", "block")
        )
        pair, tile_pair = Signal(range(config.aux_depth)), Signal(range(config.aux_depth))
        """Of two words, in the result row after row."""
        row_pairs = body.words >> 1
        m.d.comb += [
            self.add_address.eq(body.add_base + pair),
            self.mask_address.eq(body.mask_base + pair),
        ]

        def go_to(*starts: Signal, address: Any) -> None:
            m.d.sync += [register.eq(address) for register in (self.address, *starts)]

        with m.If(self.take):
            with m.If(~turns):
                m.d.sync += word.eq(word + 1)
                go_to(address=self.address + 1)
            with m.Else():
                m.d.sync += [self.bank.eq(self.bank + 1), tile_row.eq(tile_row + 1)]
                with m.If(row_ends):
                    m.d.sync += rows_left.eq(rows_left - 1)
                    with m.If(rows_left == 1):
                        m.d.sync += self.valid.eq(0)
                with m.If(~tile_ends):
                    m.d.sync += word.eq(Mux(body.compress, word - 1, 0))
                    next_bank_row = Mux(self.bank == config.cols - 1, body.o_stride, 0)
                    go_to(row_start, address=row_start + next_bank_row)
                with m.Elif(~row_ends):
                    m.d.sync += word.eq(word + 1)
                    go_to(row_start, tile_start, address=tile_start + 2)
                with m.Else():
                    m.d.sync += word.eq(0)
                    next_block = block_start + (body.o_stride << block_shift)
                    go_to(row_start, tile_start, block_start, address=next_block)

            # The AUX words: pair by pair along a row; tensors have one row after the other.
            with m.If(tile_ends & ~row_ends):
                m.d.sync += [
                    self.bias_address.eq(self.bias_address + 1),
                    pair.eq(tile_pair + 1),
                    tile_pair.eq(tile_pair + 1),
                ]
            with m.Elif(turns & ~tile_ends & body.compress):
                m.d.sync += pair.eq(pair + row_pairs)
            with m.Elif(turns):
                m.d.sync += [
                    self.bias_address.eq(body.bias_base),
                    pair.eq(pair + 1),
                    tile_pair.eq(pair + 1),
                ]
            with m.Elif(word[0]):
                m.d.sync += [self.bias_address.eq(self.bias_address + 1), pair.eq(pair + 1)]

        with m.If(self.start):
            m.d.sync += [
                self.valid.eq(1),
                rows_left.eq(body.rows),
                word.eq(0),
                tile_row.eq(0),
                self.bank.eq(0),
                self.bias_address.eq(body.bias_base),
                pair.eq(0),
                tile_pair.eq(0),
            ]
            go_to(row_start, tile_start, block_start, address=body.o_base)

        return m
