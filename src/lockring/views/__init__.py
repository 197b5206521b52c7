"""The read model: a cluster, its locks, groups and events as people look at them, on pages and in a terminal.

- `cluster`, `ring_arcs`, `locks`, `groups`, `events`: plain values, and pure functions that make them of the answers of
  servers. The nodes leave out of these answers the things that a viewer may not see.
- `filters`: which locks and events are wanted, as the parameters of a page or a command say it.
- `words`: durations, numbers and sentences.
- `reader`: asks the servers of a cluster on behalf of a viewer.
"""
