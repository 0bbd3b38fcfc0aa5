"""Mixed precision: which layers of an int8 artifact stay in float, because in int8 the network would miss its gate."""
