"""The digest of acquisitions that clients and nodes compare."""

from __future__ import annotations

from functools import reduce
from operator import xor

from hypothesis import given
from hypothesis import strategies as st

from lockring.core.digest import mix

ids = st.integers(min_value=1, max_value=2**53)


def test_mix_is_the_published_splitmix64() -> None:
    """The first outputs of splitmix64 seeded with 0, as its authors' reference code prints them."""
    assert [mix(n) for n in range(3)] == [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F]


@given(st.lists(ids, unique=True, max_size=30), st.randoms(use_true_random=False))
def test_a_digest_does_not_depend_on_the_order_of_changes(acquisitions: list[int], random) -> None:
    shuffled = list(acquisitions)
    random.shuffle(shuffled)
    assert reduce(xor, map(mix, acquisitions), 0) == reduce(xor, map(mix, shuffled), 0)


@given(st.lists(ids, unique=True, max_size=30), ids)
def test_adding_and_removing_an_acquisition_restores_the_digest(acquisitions: list[int], other: int) -> None:
    digest = reduce(xor, map(mix, acquisitions), 0)
    assert digest ^ mix(other) != digest
    assert digest ^ mix(other) ^ mix(other) == digest


@given(st.integers(min_value=0, max_value=2**64))
def test_a_digest_fits_the_64_bits_of_the_wire(acquisition: int) -> None:
    assert 0 <= mix(acquisition) < 2**64


def test_sequential_ids_mix_to_different_numbers_whose_small_sums_differ_too() -> None:
    """Ids are sequential, so it is their pairs that must not cancel each other out."""
    mixed = [mix(n) for n in range(1, 401)]
    pairs = {a ^ b for i, a in enumerate(mixed) for b in mixed[:i]}
    assert len(pairs) == 400 * 399 // 2
    assert 0 not in pairs
