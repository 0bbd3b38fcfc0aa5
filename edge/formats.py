"""The one table of formats: the command line's choices, the argument checks and the report's columns come from it."""

from __future__ import annotations

from dataclasses import dataclass, field

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Converter:
    """One way to make a format's artifacts.

    Attributes:
        backend: a module, see ``edge.backends``.
        environment: that it runs in.
        forms: rewrites it is served best with, on top of those that everybody gets; see ``edge.lowering.forms``.
    """

    backend: str
    environment: str
    forms: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Format:
    """One artifact family.

    Attributes:
        name: on the command line and in the manifest.
        title: for people.
        runs_with: what executes it on the device.
        precisions: those the family offers here, and what each means.
        converters: by name; the first is the default.
        limit_s: a worker that says nothing for longer is ended.
        target_section: table of the target's profile the backend cannot do without, "" if it needs none.
    """

    name: str
    title: str
    runs_with: str
    precisions: dict[str, str]
    converters: dict[str, Converter]
    limit_s: int = 3600
    target_section: str = ""
    suffixes: tuple[str, ...] = field(default=())

    @property
    def default(self) -> Converter:
        """The converter that is used unless another is asked for."""
        return next(iter(self.converters.values()))


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(
            name="tvm",
            title="TVM",
            runs_with="TVM runtime (libtvm_runtime, libtvm_ffi)",
            precisions={"fp32": "float32 throughout"},
            converters={
                "relax": Converter("edge.backends.tvm", "base", forms=("transposed_product", "mixing_as_product"))
            },
            target_section="tvm",
            suffixes=(".so",),
        ),
        Format(
            name="tflite",
            title="TFLite",
            runs_with="LiteRT",
            precisions={
                "fp32": "float32 throughout",
                "fp16": "float16 weights; a CPU computes in float32, a GPU in float16",
                "int8": "int8 weights per channel and int8 activations, float input and output",
            },
            converters={
                "litert": Converter(
                    "edge.backends.tflite_litert", "litert", forms=("channels_first", "split_depthwise")
                ),
                "onnx2tf": Converter("edge.backends.tflite_onnx2tf", "onnx2tf"),
            },
            suffixes=(".tflite",),
        ),
        Format(
            name="executorch",
            title="ExecuTorch",
            runs_with="ExecuTorch runtime with XNNPACK",
            precisions={
                "fp32": "float32 throughout",
                "int8": "int8 weights per channel and int8 activations (PT2E), float input and output",
            },
            converters={
                "xnnpack": Converter(
                    "edge.backends.executorch",
                    "base",
                    forms=(
                        "channels_first",
                        "mean_as_convolution",
                        "split_depthwise",
                        "transposed_product",
                        "softmax_over_rows",
                        "batched_product",
                    ),
                )
            },
            suffixes=(".pte", ".bpte"),
        ),
        Format(
            name="coreml",
            title="Core ML",
            runs_with="Core ML (iOS 16 and later)",
            precisions={
                "fp32": "float32 throughout",
                "fp16": "float16 weights and activations",
                "int8": "int8 weights per channel, float16 activations",
            },
            converters={"mlprogram": Converter("edge.backends.coreml", "base", forms=("channels_first",))},
            suffixes=(".mlpackage",),
        ),
        Format(
            name="gpu",
            title="GPU kernels",
            runs_with="the GPU's driver, with our host in C for OpenCL",
            precisions={
                "fp32": "float32 throughout",
                "fp16": "float16 weights and activations in memory, float32 in registers",
            },
            converters={"tvm": Converter("edge.backends.gpu", "base")},
            target_section="gpu",
            suffixes=(".opencl", ".metal"),
        ),
    )
}
