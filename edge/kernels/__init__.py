"""Kernels for TVM: how an operator is computed and how its loops are arranged."""
