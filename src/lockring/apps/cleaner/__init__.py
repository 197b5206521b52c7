"""The empty-folder cleaner: removes folders that became empty, together with workers on other machines.

How the parts work together:

- `core` decides and does nothing else: a queue of folders that must stay empty for a delay, rough counts of the
  entries in folders, the policy of what to keep. No clock and no I/O: time comes in as `now_ns`.
- A *storage* (`storage.Storage`: a local file system, a bucket) scans, looks at folders, and removes them. It removes
  atomically, or restores what it removed: data written at the same time is never lost.
- An *ownership* (`ownership.Ownership`) says which folders belong to this worker: all, or those that a group's ring
  gives it.
- The *worker* (`worker.Worker`) takes turns: handles events, scans a little, removes what is due, sleeps until
  there is more.

A folder is named by its path relative to the root, with "/" between its parts, the same on every machine.
The root itself is "".
"""
