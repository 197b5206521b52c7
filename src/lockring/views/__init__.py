"""The read model: a cluster, its locks, groups and events as people look at them, on pages and in a terminal.

- `cluster`, `ring_arcs`, `locks`, `groups`, `events`: plain values, and pure functions that make them of the answers of
  servers. What a viewer may not see is not in these answers: the nodes leave it out.
- `filters`: which locks and events are wanted, as the parameters of a page or a command say it.
- `words`: durations, numbers and sentences.
- `reader`: asks the servers of a cluster on behalf of a viewer.
"""
