"""Where multipliers and operands of a small array go on an LFE5U-85F.

Left to itself nextpnr puts the multipliers of all processing elements into one row of the FPGA, and
the block RAMs of a bank wherever some are left: every bus of the array then crosses the middle, and
can't be routed. So these are fixed, and draw the rest of the array with them. The columns of the
array lie along two rows of DSP blocks, one above the other, and the S banks of block RAM between
them, all in the left two thirds of the FPGA: the right third is for the vector and the update unit,
which come between the processing elements otherwise, where they can't be routed::

    y 22        D bank 0                O bank 0
    y 34    PE 0,0      PE 0,1      PE 0,2      PE 0,3
    y 46   S bank 0    S bank 1    S bank 2    S bank 3
    y 58    PE 1,0      PE 1,1      PE 1,2      PE 1,3
    y 70        D bank 1                O bank 1
"""

from rtl.block import block_name
from rtl.config import Config
from rtl.memory.scratchpad import DOperands, SOperands

__all__ = ["BLOCKS", "floorplan"]

BLOCKS = (4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114)
"""Where in a row blocks of four begin: of multipliers in some rows, of block RAMs in others."""

_MULTIPLIERS = (("MULT18_0", 0), ("MULT18_1", 1), ("MULT18_4", 4), ("MULT18_5", 5))
_RAMS = (("EBR0", 0), ("EBR1", 2), ("EBR2", 4), ("EBR3", 6))
"""What there is in a block, and where."""

_RAM_BITS, _RAM_WORDS = 36, 512
"""Of a block RAM with a read and a write port."""

_PE_BLOCKS = (1, 3, 5, 7)
"""The block of each row of the array: its S bank has the next one as well."""

_D_BLOCK, _O_BLOCK = 1, 6
_PE_Y, _S_Y, _DO_Y = (34, 58), 46, (22, 70)


def floorplan(config: Config, array: str) -> dict[str, str]:
    """Return the place of each cell that is fixed, as nextpnr names it (attribute ``BEL``).

    Arrays of another shape than 4 rows, 2 columns and 4 lanes have none, nor have scratchpads of
    other sizes than 512 words.

    Parameters
    ----------
    config
        Configuration of the accelerator.
    array
        Name of the systolic array in the flattened netlist.
    """
    shape = (config.rows, config.cols, config.lanes)
    if shape != (len(_PE_BLOCKS), len(_PE_Y), len(_MULTIPLIERS)) or config.ratio != 2:
        return {}
    if {config.s_depth, config.d_depth, config.o_depth} != {_RAM_WORDS}:
        return {}
    s_rams = -(-SOperands(config).size // _RAM_BITS)
    d_rams = -(-DOperands(config).size // _RAM_BITS)
    pe, s_bank = block_name(config, "pe"), block_name(config, "s_bank")
    places: dict[str, str] = {}
    for row, block in enumerate(_PE_BLOCKS):
        cells = [
            f"{array}.{s_bank}_{row}.words_{quarter}.0.{number}"
            for quarter in range(config.ratio)
            for number in range(s_rams)
        ]
        places |= _rams(cells, (block, block + 1), _S_Y)
    for number, (pe_y, bank_y) in enumerate(zip(_PE_Y, _DO_Y, strict=True)):
        column = f"{array}.{block_name(config, 'column')}_{number}"
        for row, block in enumerate(_PE_BLOCKS):
            for lane, (bel, x) in enumerate(_MULTIPLIERS):
                cell = f"{column}.{pe}_{row}.lane_{lane}.multiply_add.multiplier"
                places[cell] = f"X{BLOCKS[block] + x}/Y{pe_y}/{bel}"
        words = [f"{column}.d_bank.words.0.{ram}" for ram in range(d_rams)]
        elements = [f"{column}.o_bank.elements_{place}.0.0" for place in range(config.floats)]
        places |= _rams(words, (_D_BLOCK,), bank_y) | _rams(elements, (_O_BLOCK,), bank_y)
    return places


def _rams(cells: list[str], blocks: tuple[int, ...], y: int) -> dict[str, str]:
    """Return places of block RAMs, in as many of `blocks` as they need."""
    bels = [f"X{BLOCKS[block] + x}/Y{y}/{bel}" for block in blocks for bel, x in _RAMS]
    return dict(zip(cells, bels, strict=False))
