"""A whole cluster on one machine: `lockring up`, and the processes that it starts and watches."""
