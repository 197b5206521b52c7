"""The empty-folder cleaner: removes folders that became empty, together with workers on other machines.

How the parts work together:

- `core` decides and does nothing: a queue of folders that must stay empty for a delay, rough counts of what is in
  folders, the policy of what is kept. No clock and no I/O: time comes in as `now_ns`.
- A *storage* (`storage.Storage`: a local file system, a bucket) is scanned, looked at, and carries removals out. It removes
  atomically, or puts back what it removed: nothing that is written meanwhile is lost.
- An *ownership* (`ownership.Ownership`) says which folders are this worker's: all, or what a group's ring gives it.
- The *worker* (`worker.Worker`) turns: takes events, scans a little, removes what is due, sleeps until there is more to do.

A folder is named by its path relative to the root, with "/" between its parts, on every machine the same.
The root itself is "".
"""
