"""The metrics of a server process, put together when they are asked for.

- `names`: every metric, with its type, its labels and its meaning.
- `figures`: the values at one moment.
- `node`, `coordinator`, `process`: give their values.
- `loop_watch`, `slot_moves`, `exemplars`: measure what no core counts.
- `exposition`: the page that Prometheus reads, and the only module that needs its package.
"""
