"""Instruction words as text, and what kind of work each does: told by LLVM's disassembler, never from the bits.

The classes are those of Arm's software optimization guides; which mnemonic belongs where is data, below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edge.errors import SetupError
from edge.targets.profile import Precision
from edge.toolchains import arm64

TRIPLE = "aarch64-linux-gnu"
EVERY_FEATURE = ("all",)

FMA_FP32 = "vector FMA fp32"
FMA_FP16 = "vector FMA fp16"
MULTIPLY_FP = "vector multiply fp"
OTHER_VECTOR_FP = "other vector fp"
DOT_PRODUCT = "integer dot product"
INTEGER_MULTIPLY = "integer vector multiply"
OTHER_VECTOR = "other vector integer and permute"
SCALAR_FP = "scalar fp"
VECTOR_LOAD = "vector load"
VECTOR_STORE = "vector store"
LOAD = "load"
STORE = "store"
PREFETCH = "prefetch"
BRANCH = "branch"
INTEGER = "integer"
OTHER = "other"

CLASSES = (
    FMA_FP32,
    FMA_FP16,
    MULTIPLY_FP,
    OTHER_VECTOR_FP,
    DOT_PRODUCT,
    INTEGER_MULTIPLY,
    OTHER_VECTOR,
    SCALAR_FP,
    VECTOR_LOAD,
    VECTOR_STORE,
    LOAD,
    STORE,
    PREFETCH,
    BRANCH,
    INTEGER,
    OTHER,
)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


BRANCHES = _names("b bl blr br ret cbz cbnz tbz tbnz")
PREFETCHES = _names("prfm prfum")
SYSTEM = _names(
    "nop hint yield bti mrs msr sys sysl dc ic at dmb dsb isb sb svc brk hlt udf clrex csdb wfe wfi sev sevl"
)
LOADS = re.compile(r"ld[1-4]r?|ld(n|t|u|ax|x|a|ap)?[rp][a-z]*|ldxp|ldaxp|ldapur[a-z]*")
STORES = re.compile(r"st[1-4]|st(n|t|u|lx|x|l)?[rp][a-z]*|stlur[a-z]*")

# Multiply-adds round once, or are one of a chain of sums; both names of an instruction that reads the upper half count.
FMA = _names("fmla fmls fmlal fmlal2 fmlsl fmlsl2 fcmla fmadd fmsub fnmadd fnmsub")
MULTIPLY = _names("fmul fmulx fnmul")
DOT = {"sdot": 4, "udot": 4, "usdot": 4, "sudot": 4, "smmla": 8, "ummla": 8, "usmmla": 8}
WIDENING = _names("smull umull smlal umlal smlsl umlsl sqdmull sqdmlal sqdmlsl")
MULTIPLY_INTEGER = (
    WIDENING | {f"{name}2" for name in WIDENING} | _names("mul mla mls sqdmulh sqrdmulh sqrdmlah sqrdmlsh")
)
# Floating point but for the leading f that all others have.
CONVERSIONS = _names("scvtf ucvtf")

LANES = {"16b": 16, "8b": 8, "8h": 8, "4h": 4, "4s": 4, "2s": 2, "2d": 2, "1d": 1}
FP32 = _names("4s 2s s")
FP16 = _names("8h 4h h")

PRECISION_OF: dict[str, Precision] = {
    "fp32 FMA": "fp32",
    "fp32 multiply": "fp32",
    "fp16 FMA": "fp16",
    "fp16 multiply": "fp16",
    "integer dot product": "int8",
    "integer multiply": "int8",
}
"""What multiplications can be executed as, and the precision whose peak each is held against."""

VECTOR_OPERAND = re.compile(r"\bv\d+\.(\d*[bhsdq])")
SCALAR_OPERAND = re.compile(r"[bhsdq]\d+")
GENERAL_OPERAND = re.compile(r"[xw](\d+|zr)|w?sp")


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        text: as the assembler writes it, one space between the mnemonic and the operands.
        kind: one of ``CLASSES``.
        multiplies: a key of ``PRECISION_OF`` if it multiplies elements, else empty.
        elements: how many multiplications it does.
    """

    text: str
    kind: str
    multiplies: str = ""
    elements: int = 0


def disassemble(words: Iterable[int], features: Iterable[str] = EVERY_FEATURE) -> dict[int, str | None]:
    """Each word as text, None where it is no instruction.

    Args:
        words: instructions, 32 bits each.
        features: instruction-set extensions, in LLVM's names; on top of Armv8.0 with floating point and NEON.

    Raises:
        SetupError: the disassembler failed.
    """
    unique = list(dict.fromkeys(words))
    lines = "\n".join(" ".join(f"0x{byte:02x}" for byte in word.to_bytes(4, "little")) for word in unique)
    attributes = ",".join(f"+{feature}" for feature in features)
    result = arm64.program("llvm-mc-19").run(
        "--disassemble", f"-triple={TRIPLE}", f"-mattr={attributes}", input=lines + "\n"
    )
    faults = re.findall(r"^<stdin>:(\d+):\d+: warning: invalid instruction encoding$", result.stderr, re.MULTILINE)
    invalid = {int(line) - 1 for line in faults}
    texts = [clean(line) for line in result.stdout.splitlines() if line.strip() and not line.strip().startswith(".")]
    valid = [word for index, word in enumerate(unique) if index not in invalid]
    if result.returncode or len(texts) != len(valid):
        raise SetupError(
            f"llvm-mc read {len(texts)} instructions of {len(valid)}: {result.stderr.strip()[-200:]}",
            stage="cost",
            next_step="remove .edge/tools/arm64, so that LLVM is unpacked again",
        )
    return {**dict.fromkeys(unique), **dict(zip(valid, texts, strict=True))}


def clean(line: str) -> str:
    """A line of LLVM's assembly without its comment, one space between words."""
    return " ".join(line.split("//")[0].split())


def decode(words: Iterable[int]) -> dict[int, Instruction]:
    """Each word as an instruction; what LLVM knows of no core at all is ``.inst`` and of class "other"."""
    texts = disassemble(words)
    return {word: describe(text) if text else Instruction(f".inst 0x{word:08x}", OTHER) for word, text in texts.items()}


def describe(text: str) -> Instruction:
    """Class and multiplications of an instruction in LLVM's assembly language."""
    mnemonic, _, operands = text.partition(" ")
    arrangement = VECTOR_OPERAND.search(operands)
    vector = arrangement[1] if arrangement else ""
    scalar = SCALAR_OPERAND.match(operands.lstrip("{ "))
    kind = _kind(mnemonic, operands, vector, scalar is not None)
    multiplies = _multiplies(mnemonic, vector or (operands[0] if scalar else ""))
    elements = LANES.get(vector, 1) * DOT.get(mnemonic, 1) if multiplies else 0
    return Instruction(text, kind, multiplies, elements)


def _kind(mnemonic: str, operands: str, vector: str, scalar: bool) -> str:
    if mnemonic in BRANCHES or mnemonic.startswith("b."):
        return BRANCH
    if mnemonic in PREFETCHES:
        return PREFETCH
    if mnemonic in SYSTEM:
        return OTHER
    if LOADS.fullmatch(mnemonic):
        return VECTOR_LOAD if vector or scalar else LOAD
    if STORES.fullmatch(mnemonic):
        return VECTOR_STORE if vector or scalar else STORE
    if mnemonic.startswith("f") or mnemonic in CONVERSIONS:
        return _floating_point(mnemonic, vector)
    if vector or scalar:
        if mnemonic in DOT:
            return DOT_PRODUCT
        return INTEGER_MULTIPLY if mnemonic in MULTIPLY_INTEGER else OTHER_VECTOR
    return INTEGER if GENERAL_OPERAND.match(operands) else OTHER


def _floating_point(mnemonic: str, vector: str) -> str:
    if not vector:
        return SCALAR_FP
    if mnemonic in MULTIPLY:
        return MULTIPLY_FP
    if mnemonic in FMA and (vector in FP16 or mnemonic.startswith(("fmlal", "fmlsl"))):
        return FMA_FP16
    return FMA_FP32 if mnemonic in FMA and vector in FP32 else OTHER_VECTOR_FP


def _multiplies(mnemonic: str, register: str) -> str:
    """A key of ``PRECISION_OF``, by the mnemonic and the arrangement or the letter of the register it writes."""
    if mnemonic in DOT:
        return "integer dot product"
    if mnemonic in MULTIPLY_INTEGER:
        return "integer multiply" if register else ""
    if mnemonic not in FMA | MULTIPLY:
        return ""
    half = register in FP16 or mnemonic.startswith(("fmlal", "fmlsl"))
    precision = "fp16" if half else "fp32" if register in FP32 else ""
    return f"{precision} {'FMA' if mnemonic in FMA else 'multiply'}" if precision else ""
