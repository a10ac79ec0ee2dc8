// The CUDA backend on the emulator (csrc/cuda/emulator.h), for tests/emulated.py.
#include "cuda/backend.h"

extern "C" __attribute__((visibility("default"))) void* fastmlp_backend() {
  return &fastmlp::cuda::backend();
}
