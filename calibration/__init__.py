"""What networks are calibrated and checked with. To add photographs, name them in ``photographs.CALIBRATION``."""
