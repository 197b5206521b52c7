"""How far a slot's stream to the journal is, whichever of its batches are durable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockring.core.node.next_batch import JournalStream, NextBatch
from lockring.ids import NEEDS_SNAPSHOT, NO_INDEX, MutationIndex

STEPS = st.lists(
    st.sampled_from(["reach", "reach", "hand out", "hand out", "sync", "sync one", "lose"]), max_size=60
)


@given(STEPS)
def test_a_stream_is_acknowledged_up_to_its_last_mutation_in_a_durable_batch(steps: list[str]) -> None:
    batch = NextBatch()
    stream = JournalStream(batch)
    index = NO_INDEX
    reached: dict[int, MutationIndex] = {}
    acked = NEEDS_SNAPSHOT
    for step in steps:
        match step:
            case "reach":
                stream.reach(index)
                reached[batch.number] = index
                index = MutationIndex(index + 1)
            case "hand out":
                batch.number += 1
            case "sync" | "sync one":
                batch.durable = (
                    batch.number - 1 if step == "sync" else min(batch.durable + 1, batch.number - 1)
                )
            case "lose":
                stream.is_begun = True
                stream.lost()
                assert not stream.is_begun
                reached = {number: at for number, at in reached.items() if number <= batch.durable}
        acked = max([acked, *(at for number, at in reached.items() if number <= batch.durable)])
        assert stream.acked == acked
