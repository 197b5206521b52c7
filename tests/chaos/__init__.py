"""Chaos over real processes: faults drawn from a seed, clients that work all the while, and a checker of what they saw.

`make chaos MINUTES=10`, or `python -m tests.chaos --help`. The parts:

    links.py netns.py proxy.py    the network between the processes, and how it is cut
    faults.py                     what is done to nodes, clients and links, and how it is undone
    coordinator_faults.py         the same of coordinators and of their store
    journal_faults.py             the same of nodes that keep journals
    kinds.py                      the list of all kinds, and their order
    store.py                      the store that coordinators share: servers of etcd or PostgreSQL
    worker.py register.py         client processes that hold locks, and the database that they guard
    sharing.py                    their memberships of groups
    visits.py                     how they write down what they hold
    prober.py                     a client process that looks how long a lock cannot be had
    history.py                    what all of them write down
    checker.py                    what must hold of that, whatever happened
    group_checker.py              and of groups
    starvation.py                 whether the machine gave the processes the time that leases rely on
    run.py report.py              one run, and what it came to
"""
