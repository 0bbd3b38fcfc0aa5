"""Native runners: small programs that run a saved artifact where there is no Python. See runner.h for what they do."""
