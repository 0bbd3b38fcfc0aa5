"""The pipeline that takes a PyTorch vision network to phones and boards, and proves what it ships.

This package imports nothing heavy: exporters run as ``python -m edge.worker`` in environments that hold only their
own tool, and ``edge --help`` must answer at once.
"""

__version__ = "0.1.0"
