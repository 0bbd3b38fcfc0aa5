"""What one inference costs on the target's core: counted on the emulated core, modelled with LLVM, never timed."""
