"""Our artifacts beside other runtimes: the same network, the same core, the same counters."""
