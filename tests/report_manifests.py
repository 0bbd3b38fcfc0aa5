"""Manifests as a run writes them, for the page and the table: figures of the size that real runs measure."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

from edge.manifest import SCHEMA

Manifest = dict[str, Any]

GATES = {
    "fp32": {"sqnr_db": 100.0, "max_rel": 1e-5, "rms_vs_eager": 4.0},
    "fp16": {"sqnr_db": 50.0, "max_rel": 5e-3, "top1": 0.995},
    "int8": {"sqnr_db": 20.0, "max_rel": 0.2, "lowering_margin_db": 3.0},
}
TOOLS = {
    "tvm": ("apache-tvm", "0.27.0.post1"),
    "tflite": ("litert-torch", "0.10.0"),
    "executorch": ("executorch", "1.5.1"),
    "coreml": ("coremltools", "9.0"),
}
RUNTIMES = {"tvm": "tvm", "tflite": "litert", "executorch": "executorch", "coreml": "coreml"}
BEST = [  # file suffix, format, precision, bytes, worst SQNR, max rel, host seconds
    ("fp32.cortex-a72.so", "tvm", "fp32", 30_914_560, None, None, None),
    ("fp32.host.so", "tvm", "fp32", 30_921_728, 123.94, 5.1e-7, 0.0312),
    ("fp32.tflite", "tflite", "fp32", 30_402_112, 124.61, 4.7e-7, 0.0118),
    ("fp16.tflite", "tflite", "fp16", 15_220_736, 68.24, 3.5e-4, 0.0121),
    ("int8.tflite", "tflite", "int8", 7_890_944, 33.18, 2.1e-2, 0.0061),
    ("fp32.pte", "executorch", "fp32", 30_393_344, 125.42, 4.2e-7, 0.0093),
    ("fp32.bpte", "executorch", "fp32", 44_129_280, 125.42, 4.2e-7, 0.0093),
    ("int8.pte", "executorch", "int8", 7_741_696, 32.77, 2.2e-2, 0.0049),
    ("int8.bpte", "executorch", "int8", 21_477_632, 32.77, 2.2e-2, 0.0049),
    ("fp32.mlpackage", "coreml", "fp32", 30_398_976, 126.87, 3.6e-7, 0.482),
    ("fp16.mlpackage", "coreml", "fp16", 15_214_592, 57.93, 1.1e-3, 0.911),
    ("int8.mlpackage", "coreml", "int8", 7_712_256, 38.02, 1.2e-2, 0.907),
]


def digest(of: str) -> str:
    return hashlib.sha256(of.encode()).hexdigest()


def port(name: str, shape: list[int], layout: str, tensor: str) -> Manifest:
    return {"name": name, "shape": shape, "layout": layout, "tensor": tensor, "dtype": "float32"}


def check(
    precision: str, sqnr_db: float | None, max_rel: float | None, seconds: float | None, runtime: str
) -> Manifest:
    """A check that passed, or, without figures, one that only the target could do."""
    entry: Manifest = {
        "device": "host",
        "runtime": runtime,
        "status": "passed",
        "reason": "",
        "gate": GATES[precision],
        "seconds": seconds,
        "peak_memory_mb": 240,
    }
    if sqnr_db is None:
        return {**entry, "status": "skipped", "reason": "built for the target's core; this host is x86_64"}
    spread = random.Random(sqnr_db)
    samples = [round(sqnr_db + spread.uniform(0, 6) + (1.5 if index < 8 else 0), 2) for index in range(16)]
    samples[11] = sqnr_db
    simulated = precision == "int8" and runtime != "coreml"
    return entry | {
        "sqnr_db": sqnr_db,
        "max_rel": max_rel,
        "max_abs": 4.1e-5,
        "top1": 1.0 if precision != "int8" else 0.9375,
        "rms_vs_eager": 10 ** ((126.1 - sqnr_db) / 20),
        "samples": {"sqnr_db": samples, "kind": ["photograph"] * 8 + ["random"] * 8},
        "lowering": {
            "simulated_by": "torchao's fake-quantised graph",
            "sqnr_db": 60.13,
            "quantisation_sqnr_db": sqnr_db + 0.1,
            "within_one_quantum": 0.99994,
        }
        if simulated
        else None,
    }


def artifact(
    model: str,
    suffix: str,
    format: str,
    precision: str,
    size: int,
    sqnr_db: float | None = None,
    max_rel: float | None = None,
    seconds: float | None = None,
) -> Manifest:
    channels_last = format == "tflite"
    shape = [1, 224, 224, 3] if channels_last else [1, 3, 224, 224]
    name, version = TOOLS[format]
    return {
        "file": f"{model}.{suffix}",
        "format": format,
        "precision": precision,
        "sha256": digest(suffix),
        "bytes": size,
        "tool": {"name": name, "version": version},
        "seconds": 12.1,
        "peak_memory_mb": 3100,
        "inputs": [port("image", shape, "NHWC" if channels_last else "NCHW", "serving_default_args_0:0")],
        "outputs": [port("logits", [1, 1000], "", "StatefulPartitionedCall:0")],
        "notes": {"operators": 112, "transposes": 0, "operator_types": {"conv": 44, "add": 13}}
        if format != "coreml"
        else {},
        "runs_on": "target" if suffix.endswith(".so") else "anywhere",
        "key": digest(f"key {suffix}"),
        "checks": [check(precision, sqnr_db, max_rel, seconds, RUNTIMES[format])],
    }


def missing(format: str, precision: str, status: str, reason: str) -> Manifest:
    """A unit without a file: its exporter failed, or was skipped."""
    return {
        "file": None,
        "format": format,
        "precision": precision,
        "seconds": 3.2,
        "peak_memory_mb": 900,
        "key": digest("missing"),
        "checks": [{"device": "host", "runtime": RUNTIMES[format], "status": status, "reason": reason}],
    }


def manifest(model: str = "fasternet_t1", artifacts: list[Manifest] | None = None) -> Manifest:
    """A run as it should be: everything passed."""
    if artifacts is None:
        artifacts = [artifact(model, *row) for row in BEST if row[4] is not None]
    photographs = "astronaut.png brick.png camera.png chelsea.png china.jpg coffee.png coins.png flower.jpg grass.png"
    made = {
        "schema": SCHEMA,
        "model": model,
        "target": "cortex-a72",
        "profile": {
            "name": "cortex-a72",
            "title": "Raspberry Pi 4",
            "device": "Broadcom BCM2711, four Cortex-A72",
            "core": {"triple": "aarch64-linux-gnu", "cpu": "cortex-a72", "clock_ghz": 1.5},
        },
        "command": f"make export TARGET=cortex-a72 MODEL={model} FORMATS=all",
        "network": {
            "params": 7595368,
            "params_folded": 7587624,
            "macs": 850511872,
            "input_shape": [1, 3, 224, 224],
            "outputs": ["logits"],
            "source": "FasterNet (CVPR 2023), Table 8",
        },
        "weights": {
            "source": "seed 0, BN statistics from the calibration images",
            "digest": digest("weights"),
            "trained": False,
        },
        "calibration": {
            "name": "photographs of scikit-image and scikit-learn",
            "images": photographs.split(),
            "samples": 22,
            "rejected": [["page.png", "has no colours"]],
            "left_out": 0,
            "digest": digest("calibration"),
        },
        "rewrites": [
            {
                "name": "fold_batch_norm_backward",
                "algebra": "γ(Wx − μ)/σ + β = (γ/σ)W x + (β − γμ/σ)",
                "matches": 17,
                "refused": [
                    {"node": "batch_norm_3", "reason": "its input has another reader"},
                    {"node": "batch_norm_7", "reason": "its input has another reader"},
                ],
                "proof_db": 301.27,
                "formats": [],
            },
            {
                "name": "fold_batch_norm_forward",
                "algebra": "W(γ(x − μ)/σ + β) = (Wγ/σ)x + W(β − γμ/σ)",
                "matches": 0,
                "refused": [],
                "proof_db": None,
                "formats": ["Core ML"],
            },
            {
                "name": "partial_convolution",
                "algebra": "split, convolve, concatenate → slice, convolve, concatenate",
                "matches": 13,
                "refused": [],
                "proof_db": 999.0,
                "formats": [],
            },
        ],
        "eager": {"sqnr_db": 126.13, "seconds": 0.0301},
        "samples": 16,
        "artifacts": artifacts,
        "key": digest("run"),
        "environment": {
            "edge": "0.1.0",
            "sources": digest("sources"),
            "commit": "0123456789",
            "python": "3.11.7",
            "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
            "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            "packages": {"torch": "2.13.0", "numpy": "2.3.4", "apache-tvm": "0.27.0.post1", "ai-edge-litert": "2.3.0"},
            "locks": {"base": digest("base"), "litert": digest("litert")},
        },
        "seconds": 193.1,
    }
    return json.loads(json.dumps(made, allow_nan=False))


HOSTILE = '<script>alert("x")</script> & <img src=http://evil.example/x.png> \x1b[31mred\x1b[0m\x00 naïve ключ 画像 🚀'
CRASH = "died with SIGSEGV; last lines:\n  xnnpack: node 41 not delegated\n  Fatal Python error: Segmentation fault"


MIXED: Manifest = {
    "goal_db": 21.5,
    "before_db": 4.31,
    "after_db": 22.16,
    "layers": 74,
    "kept": [
        {"layer": "ChannelsLast;32;", "kind": "MEAN", "place": "operator 32", "alone_db": -999.0},
        {"layer": "ChannelsLast;50;", "kind": "MEAN", "place": "operator 50", "alone_db": -2.24},
        {"layer": "<b>;26;", "kind": "CONV_2D", "place": "", "alone_db": 23.3},
    ],
    "float_share": 0.0623,
    "bytes": [4_040_000, 4_664_000],
    "seconds": [0.00641, 0.00702],
}


def troubled() -> Manifest:
    """Everything that can happen: a miss, a crash, a missing tool, a file for the target's core only, hostile text."""
    made = manifest(artifacts=[artifact("fasternet_t1", *row) for row in BEST if row[0] != "fp32.bpte"])
    by_name = {entry["file"].removeprefix("fasternet_t1."): entry for entry in made["artifacts"]}
    low = by_name["int8.tflite"]["checks"][0]
    low |= {"status": "failed", "sqnr_db": 19.96, "reason": "SQNR 20.0 dB, at least 20 expected"}
    low["samples"]["sqnr_db"] = [value - 13.22 for value in low["samples"]["sqnr_db"]]
    by_name["int8.tflite"]["notes"]["mixed_precision"] = MIXED
    by_name["fp16.mlpackage"]["notes"]["mixed_precision"] = MIXED | {"bytes": [3_000_000, 3_100_000], "seconds": []}
    infinite = by_name["fp16.mlpackage"]["checks"][0]
    infinite |= {"status": "failed", "sqnr_db": -999.0, "max_rel": None, "reason": "an output is not finite"}
    infinite["samples"]["sqnr_db"][4] = -999.0
    by_name["fp32.mlpackage"]["checks"][0]["reason"] = "stage 3 reaches 17000, over a quarter of what float16 holds"
    position = made["artifacts"].index(by_name["int8.pte"])
    made["artifacts"][position : position + 2] = [
        missing("executorch", "int8", "failed", CRASH),
        missing("tflite", "fp16", "skipped", HOSTILE),
    ]
    made["calibration"]["rejected"].append(["<b>.jpg", HOSTILE])
    return made


def pyramid() -> Manifest:
    """Four feature maps: no classes, so no top-1; checked on two devices, the samples not kept on one."""
    model = "fasternet_t1_pyramid"
    made = manifest(model, [artifact(model, *row) for row in BEST[2:6]])
    made["network"]["outputs"] = [f"features_{stage}" for stage in range(4)]
    for entry in made["artifacts"]:
        entry["outputs"] = [
            port(f"features_{stage}", [1, 64 << stage, 56 >> stage, 56 >> stage], "NCHW", f"Identity_{stage}")
            for stage in range(4)
        ]
        host = entry["checks"][0]
        host["top1"] = None
        emulated = {k: v for k, v in host.items() if k not in ("samples", "lowering")} | {"device": "emulated core"}
        entry["checks"].append(emulated)
    absent = {"device": "emulated core", "status": "skipped", "reason": "the emulator is not installed"}
    made["artifacts"][-1]["checks"][1] = absent
    made["weights"] = {"source": "fasternet_t1.safetensors (authors' keys)", "digest": digest("w"), "trained": True}
    return made


def empty() -> Manifest:
    """A target that takes nothing of what was asked."""
    return manifest(artifacts=[])


ALL = {"passed": manifest, "troubled": troubled, "pyramid": pyramid, "empty": empty}
