"""The machines of node, coordinator and client: state, rules and messages as values, no I/O, no clock."""
