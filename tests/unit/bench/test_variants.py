"""The names of lockring's own figures say how its servers are built and set up."""

from __future__ import annotations

import click
import pytest

from bench.cli import variants_in
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


def test_the_variants_to_measure_may_have_commas_in_their_names() -> None:
    assert variants_in("") == ()
    assert variants_in("one core, 100,000,32") == ("one core", "100,000", "32")
    assert variants_in("1,000,000,100,000") == ("1,000,000", "100,000")
    assert variants_in("lockring lock, SIGKILL,holder") == ("lockring lock, SIGKILL", "holder")


def test_a_variant_that_no_workload_has_is_refused_rather_than_left_out() -> None:
    with pytest.raises(click.BadParameter, match="there is no variant '100'"):
        variants_in("32,100")
