"""TVM's MetaSchedule, without the tensor instructions of GPUs: importing those takes a quarter of a minute."""

from __future__ import annotations

import sys
from types import ModuleType

sys.modules.setdefault("tvm.s_tir.tensor_intrin", ModuleType("tvm.s_tir.tensor_intrin"))
from tvm.s_tir import meta_schedule as ms  # noqa: E402

__all__ = ["ms"]
