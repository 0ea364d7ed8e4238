"""What the Arm architecture and KVM say: geometry, descriptors, break-before-make. Integers in, integers out."""
