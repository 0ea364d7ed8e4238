"""Every order of a vocabulary: proved or refuted, the constraints that tell them apart, and the best on a platform."""
