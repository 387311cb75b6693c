"""From tiles of images to tiles of tokens, and back."""

from __future__ import annotations

from typing import Any

from rtl.control.commands import Stage, VectorTarget

from ..program import descriptor
from ..tensor import Activations
from ..tokens import TokenActivations
from .assembly import Assembly
from .pieces import Needs, Steps, Written
from .vectors import Gather, Vectors

__all__ = ["RelayoutSchedule"]


class RelayoutSchedule:
    """Adds copies of activations, or of gradients, in another layout to a program.

    Tiles are put together by the LOADs: each of their rows is a beat, which lies in a tile of its
    own. What isn't there, images of the last block or tokens of an image's last tile, becomes zero.

    Parameters
    ----------
    assembly
        The program.
    stage
        Part of a training step that it belongs to.
    """

    def __init__(self, assembly: Assembly, stage: Stage) -> None:
        self._config = assembly.config
        self._vectors = Vectors(assembly, stage)

    def copy(self, source: Activations, target: Activations) -> Steps:
        """Add ``target = source``; one of them has tiles of tokens, the other tiles of images."""
        if isinstance(target, TokenActivations):
            return self._to_tokens(source, target)
        assert isinstance(source, TokenActivations)
        return self._to_images(source, target)

    def _to_tokens(self, source: Activations, target: TokenActivations) -> Steps:
        config, words, tile = self._config, source.words, source.tile_bytes
        g, tokens = config.elements, target.tokens
        whole = tokens // g
        for image in range(target.batch):
            block, row = divmod(image, g)
            if not row:
                yield Needs(source, block, source.shape.height)
            first = source.tile(block, 0, 0, 0) + row * config.beat_bytes
            position = source.position_bytes
            if whole:
                loops = [(g, position), (words, tile), (whole, g * position)]
                self._gather(first, loops, target.tile(0, image, 0, 0))
            if tokens % g:
                loops = [(tokens % g, position), (words, tile)]
                result = target.tile(0, image, whole, 0)
                self._gather(first + whole * g * position, loops, result)
            yield target.line_bytes // config.beat_bytes
            yield Written(target, target.line_tiles(0, range(image, image + 1)))

    def _to_images(self, source: TokenActivations, target: Activations) -> Steps:
        config, words, tile = self._config, source.words, source.tile_bytes
        g, beat = config.elements, config.beat_bytes
        for block in range(target.batch_blocks):
            images = min(g, source.batch - block * g)
            yield Needs(source, 0, block * g + images)
            for column in range(source.shape.width):
                first_token = column * g
                tokens = min(g, source.tokens - first_token)
                loops = [(images, source.line_bytes), (words, tile), (tokens, beat)]
                result = target.tile(block, 0, 0, 0) + first_token * target.position_bytes
                self._gather(source.tile(0, block * g, column, 0), loops, result)
                yield tokens * words * g
            yield Written(target, target.line_tiles(block, range(target.shape.height)))

    def _gather(self, first: int, loops: list[tuple[int, int]], result: int) -> None:
        """Add a copy of the beats that `loops` name, the innermost of which is that of a tile.

        The tiles follow each other from `result` on.
        """
        g, (rows, _) = self._config.elements, loops[0]
        tiles = 1
        for count, _ in loops[1:]:
            tiles *= count
        fields: dict[str, Any] = {
            "rows": g,
            "d_words": tiles,
            "descriptor": descriptor(self._config, first, 1, *loops),
        }
        if rows < g:
            fields["frame"] = {"images": 1, "lines": tiles, "beats": rows, "after": g - rows}
        size = g * self._config.beat_bytes
        self._vectors.stream(
            [Gather(fields)],
            groups=tiles,
            rows=g,
            a=1.0,
            target=VectorTarget.NARROW,
            results=range(result, result + tiles * size, size),
        )
