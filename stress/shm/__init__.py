"""The shared segment: its layout and life cycle, and the atomics that make sharing it safe."""
