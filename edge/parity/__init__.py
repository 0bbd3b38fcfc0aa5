"""Whether an artifact computes what the network computes: the oracle, the metrics, the gates."""
