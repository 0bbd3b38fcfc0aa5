"""The rows of a pointwise convolution's product: positions of an image, or its windows, read where they lie.

The windows of a convolution whose stride is its kernel (patch embedding, merging) do not overlap, and each is a row
(implicit im2col). After a partial convolution the first channels come from another tensor: the reduction goes over
both, and nothing is sliced or concatenated.
"""

from __future__ import annotations

from edge.kernels import product
from edge.kernels.pointwise_problem import PointwiseProblem
from edge.kernels.product import Expression, Stretch
from edge.kernels.template import Array


def arguments(problem: PointwiseProblem) -> list[Stretch]:
    """The next arguments of the function that is being built, and the reduction over them."""
    stretches: list[Stretch] = []
    if problem.partial:
        convolved = product.argument("convolved", problem.rows, problem.partial)
        stretches.append(Stretch(0, problem.partial, lambda row, _, step: convolved[row, step]))
    stretches.append(_window(problem) if problem.window > 1 else _row(problem))
    return stretches


def windows(problem: PointwiseProblem, image: Array) -> Array:
    """The windows of an image as rows (rows, reduction): what the kernel reads without making it."""
    side = problem.window
    down, across = problem.height // side, problem.width // side
    channels_last = problem.layout == "NHWC"
    image = image[: down * side, : across * side] if channels_last else image[:, : down * side, : across * side]
    if channels_last:
        cut = image.reshape(down, side, across, side, problem.inputs).transpose(0, 2, 1, 3, 4)
    else:
        cut = image.reshape(problem.inputs, down, side, across, side).transpose(1, 3, 0, 2, 4)
    return cut.reshape(problem.rows, problem.reduction)


def _row(problem: PointwiseProblem) -> Stretch:
    """All channels of a position, or those that the partial convolution left."""
    image = product.argument("input", problem.rows, problem.inputs)
    first = problem.partial
    return Stretch(first, problem.inputs - first, lambda row, _, step: image[row, first + step])


def _window(problem: PointwiseProblem) -> Stretch:
    """A window, in pieces that are contiguous in memory."""
    side, channels = problem.window, problem.inputs
    across = problem.width // side
    if problem.layout == "NHWC":
        image = product.argument("input", problem.height, problem.width, channels)

        def of_image(row: Expression, repeat: Expression, step: Expression) -> Expression:
            return image[row // across * side + repeat, row % across * side + step // channels, step % channels]

        return Stretch(0, side * channels, of_image, repeats=side, period=side * channels)

    planes = product.argument("input", channels, problem.height, problem.width)

    def of_planes(row: Expression, repeat: Expression, step: Expression) -> Expression:
        return planes[repeat // side, row // across * side + repeat % side, row % across * side + step]

    return Stretch(0, side, of_planes, repeats=channels * side, period=side)
