"""A journal on real files: whether a new life may vouch for the former ones on this machine, in this boot."""

from __future__ import annotations

import pytest

from lockring.core.journal import JournalBatch
from lockring.journal.host import Host
from lockring.journal.journal import Durability
from lockring.journal.reading import segment_name
from tests.unit.journal.batches import CLUSTER, LIFE, batch, names_in
from tests.unit.journal.place import ELSEWHERE, HERE, IN_A_CONTAINER, REBOOTED, Place, sync


@pytest.mark.parametrize(
    ("durability", "host", "reason"),
    [
        ("process", HERE, ""),
        ("disk", HERE, ""),
        ("disk", REBOOTED, ""),
        (
            "process",
            REBOOTED,
            "was last written before this boot of the machine, with the durability process, which does not outlive",
        ),
        ("process", ELSEWHERE, "was last written on another machine"),
        ("disk", ELSEWHERE, "was last written on another machine"),
    ],
)
def test_what_a_lock_proves_depends_on_machine_boot_and_durability(
    place: Place, durability: Durability, host: Host, reason: str
) -> None:
    journal = place.start(durability=durability)
    journal.append(JournalBatch(1, [CLUSTER], True, False))
    sync(journal)
    place.crash()
    again = place.start(durability="disk", host=host)
    assert again.found.is_complete == (not reason)
    assert reason in again.reason
    assert again.found.entries == [CLUSTER], "the cluster is known in any case"


def test_a_container_without_an_id_of_its_machine_is_trusted_within_one_boot_only(place: Place) -> None:
    place.start(durability="disk", host=IN_A_CONTAINER).append(batch(1))
    place.crash()
    assert place.start(durability="disk", host=IN_A_CONTAINER).found.is_complete
    place.crash()
    assert not place.start(durability="disk", host=IN_A_CONTAINER._replace(boot="boot-4")).found.is_complete


def test_an_unknown_boot_proves_nothing(place: Place) -> None:
    place.start(host=Host("", "")).append(batch(1))
    place.crash()
    assert not place.start(host=Host("", "")).found.is_complete


@pytest.mark.parametrize("host", [HERE, REBOOTED, ELSEWHERE, Host("", "")])
def test_a_life_that_ended_in_order_says_so_itself(place: Place, host: Host) -> None:
    journal = place.start()
    journal.append(batch(1))
    journal.close()
    journal.close()
    again = place.start(host=host)
    assert again.found.is_complete
    assert names_in(again.found.entries) == [1]


def test_the_word_of_one_life_that_it_is_over_does_not_count_for_the_next(place: Place) -> None:
    place.start().close()
    place.start(host=REBOOTED)
    place.crash()
    assert not place.start(host=HERE).found.is_complete


def test_a_life_that_cannot_vouch_begins_the_journal_afresh(place: Place) -> None:
    """Otherwise the life after it, in the same boot, would vouch for content that may be incomplete."""
    journal = place.start()
    journal.append(JournalBatch(1, [LIFE, CLUSTER], True, False))
    place.crash()
    unsure = place.start(host=REBOOTED)
    assert unsure.found.entries == [LIFE, CLUSTER]
    place.crash()
    again = place.start(host=REBOOTED)
    assert again.found.is_complete
    assert again.found.entries == [CLUSTER]


def test_a_failure_before_the_first_batch_still_begins_the_journal_afresh(place: Place) -> None:
    place.start().append(JournalBatch(1, [LIFE, CLUSTER], True, False))
    place.crash()
    unsure = place.start(host=REBOOTED, durability="disk")
    unsure.begin_rewrite()
    assert place.segments() == [segment_name(1), segment_name(2)], "an empty segment is used again"
    unsure.append(batch(1))
    unsure.fail(OSError(5, "a sync failed"))
    unsure.begin_rewrite()
    place.crash()
    assert place.start(host=REBOOTED).found.entries == [CLUSTER]
