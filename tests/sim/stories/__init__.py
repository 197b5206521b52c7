"""Golden stories: what the processes send each other in eleven scenarios, as text that people read and a test compares.

`python -m tests.sim.stories` writes them again after a change of the protocol; the difference is what to review.
"""
