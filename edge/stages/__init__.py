"""The stages of an export, one a file. Data flows one way: define, lower (``edge.lowering``), emit, verify, write."""
