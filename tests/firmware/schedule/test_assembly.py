"""Nests of loops, places in scratchpads, and fields that change from step to step."""

import itertools

import numpy as np
import pytest

from firmware.errors import ScheduleError
from firmware.program import Program
from firmware.schedule.assembly import Assembly, Ring, Step, nests
from rtl.config import COMMAND_BYTES, PRESETS
from rtl.control.commands import Stage
from sim.golden.program import decode
from tests.harness import default_seed

TINY = PRESETS["tiny"]


def _addresses(first, loops):
    """Return the addresses of a nest, one by one."""
    places = np.array([first])
    for count, stride in loops:
        places = (np.arange(count)[:, None] * stride + places).ravel()
    return places.tolist()


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ([64], [(0, 1, [])]),
        ([0, 512, 1024], [(0, 3, [(3, 512)])]),
        # The same again and again, and backwards.
        ([7, 7, 7, 7], [(0, 4, [(4, 0)])]),
        ([96, 64, 32], [(0, 3, [(3, -32)])]),
        ([0, 1, 10, 11, 20, 21], [(0, 6, [(2, 1), (3, 10)])]),
        # A run that is broken off begins anew.
        ([0, 1, 2, 10, 11], [(0, 3, [(3, 1)]), (3, 2, [(2, 1)])]),
        ([0, 1, 10, 11, 5], [(0, 4, [(2, 1), (2, 10)]), (4, 1, [])]),
    ],
)
def test_nests_are_greedy(addresses, expected):
    assert nests(addresses) == expected


@pytest.mark.parametrize("halves", [False, True])
def test_a_place_is_untouched_until_a_whole_scratchpad_has_been_taken(halves):
    random, ring = np.random.default_rng(default_seed()), Ring("S", 64)
    owner = [-1] * ring.depth
    places = []
    for number in range(200):
        words = 32 if halves else int(random.integers(1, 30))
        base = ring.take_half() if halves else ring.take(words)
        assert 0 <= base <= ring.depth - words
        owner[base : base + words] = [number] * words
        places.append((ring.taken - words, base, words))
        for other, (start, first, count) in enumerate(places):
            if ring.taken - start <= ring.depth:
                assert owner[first : first + count] == [other] * count


def test_nests_have_as_many_loops_as_allowed():
    loops = [(2, 1), (3, 10), (2, 100), (5, 1000)]
    addresses = _addresses(0, loops)
    assert nests(addresses, 4) == [(0, 60, loops)]
    assert nests(addresses) == [(12 * i, 12, loops[:3]) for i in range(5)]


def test_nests_keep_counts_and_strides_in_their_fields():
    far = 1 << 31
    assert nests([0, far, 2 * far]) == [(0, 1, []), (1, 1, []), (2, 1, [])]
    assert nests([0, far - 32, 2 * far - 64]) == [(0, 3, [(3, far - 32)])]
    assert nests([far, 0]) == [(0, 1, []), (1, 1, [])]
    # 65,536 rounds are one too many for an innermost loop.
    (_, first, loops), (index, rest, _) = nests(range(0, 65537 * 32, 32))
    assert loops[0] == (65535, 32) and (first, index, rest) == (65535, 65535, 2)


def test_nests_name_every_address_once():
    """Whatever the order, and a part that is one nest is so on its own as well."""
    random = np.random.default_rng(default_seed())
    for _ in range(200):
        addresses = []
        for _ in range(random.integers(1, 4)):
            loops = [(int(random.integers(1, 4)), int(random.integers(-3, 4))) for _ in range(4)]
            addresses += _addresses(int(random.integers(10)), loops)
        found = nests(addresses)
        again = [_addresses(addresses[first], loops) for first, _, loops in found]
        message = f"{addresses}, SAT_SEED={default_seed()}"
        assert list(itertools.chain(*again)) == addresses, message
        for first, count, loops in found:
            assert nests(addresses[first : first + count]) == [(0, count, loops)], message


def test_places_follow_each_other_and_begin_again():
    assembly = Assembly(Program(TINY))
    depth = TINY.s_depth
    assert [assembly.s.take(depth // 2) for _ in range(3)] == [0, depth // 2, 0]
    assert assembly.s.take(depth // 2 - 1) == depth // 2
    assert assembly.s.take(2) == 0
    assert assembly.s.take(depth) == 0
    # Each scratchpad on its own.
    assert assembly.o.take(1) == assembly.d.take(1) == assembly.aux.take(1) == 0


def test_what_a_scratchpad_lacks_is_told():
    assembly = Assembly(Program(TINY))
    assembly.need("layer, FF", assembly.aux, TINY.aux_depth)
    message = "layer, FF: needs 129 words of the AUX scratchpad, configuration 'tiny' has 128"
    with pytest.raises(ScheduleError, match=message):
        assembly.need("layer, FF", assembly.aux, TINY.aux_depth + 1)


def test_steps_change_only_what_depends_on_them():
    program = Program(TINY)
    assembly = Assembly(program)
    for adjusted in (True, False):
        program.update(Stage.UPDATE, tiles=1, rows=16, o_stride=2, state_address=0)
        if adjusted:
            assembly.adjust(Step.fields)
    for rate, bits in ((0.5, 0x3F000000), (0.25, 0x3E800000)):
        assembly.set_step(Step(rate=rate, momentum=1, decay=2, scale=-3))
        first, second = (
            decode(program.encode()[index * COMMAND_BYTES :][:COMMAND_BYTES]).body
            for index in range(2)
        )
        assert (first.rate, first.momentum, first.decay) == (bits, 0x3F800000, 0x40000000)
        assert first.scale == -3
        assert (second.rate, second.momentum, second.decay, second.scale) == (0, 0, 0, 0)


def test_feeds_follow_the_addresses():
    """Tiles in a row are one LOAD; others one for each nest, in their order."""
    assembly = Assembly(Program(TINY))
    tile = 16 * TINY.beat_bytes
    (feed,) = assembly.feeds([0, tile, 2 * tile], 16, transpose=True)
    assert (feed["rows"], feed["d_words"], feed["transpose"]) == (16, 3, 1)
    assert feed["descriptor"]["counts"] == [48, 1, 1, 1]
    first, second = assembly.feeds([0, 3 * tile, tile], 16)
    assert first["descriptor"]["counts"] == [16, 2, 1, 1] and first["d_words"] == 2
    assert second["descriptor"]["address"] == tile and second["d_words"] == 1
