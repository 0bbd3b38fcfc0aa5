"""The tolerance that travels inside an ExecuTorch program: whoever runs its test cases knows how exact to be."""

TOLERANCE_METHOD = "bundled_atol"
"""Method without inputs that returns the max|a - b| allowed between an output and the bundled one."""
