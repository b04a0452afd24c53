"""What scripts/kernels runs: stock kernels in an emulator, with the NIC drivers that this machine lacks."""
