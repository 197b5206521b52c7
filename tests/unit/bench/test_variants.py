"""The names of lockring's own figures say how its servers are built and set up."""

from __future__ import annotations

import pytest

from bench.peers import PEERS
from bench.peers.variants import VARIANTS, Variant


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_variant_is_found_by_its_name(variant: Variant) -> None:
    assert Variant.of(variant.name) == variant
    assert PEERS[variant.name].is_compiled == variant.is_compiled


def test_each_part_of_a_name_is_heeded() -> None:
    assert Variant.of("lockring") == Variant(1, False, "")
    assert Variant.of("lockring-3+compiled+process").durability == "process"
    assert Variant.of("lockring+disk").durability == "disk"
    assert Variant.of("lockring+compiled+rights").has_tls
    assert Variant.of("lockring+compiled+rights").has_rights
    assert not Variant.of("lockring+tls").has_rights


def test_all_titles_differ() -> None:
    titles = [peer.title for peer in PEERS.values()]
    assert len(set(titles)) == len(titles)
