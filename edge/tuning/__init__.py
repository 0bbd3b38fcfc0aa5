"""Which choice of a kernel is the fastest: measured on the host, on the emulated core or on boards, and recorded."""
