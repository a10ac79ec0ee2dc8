// The CUDA backend on the emulator (csrc/cuda/emulator.h), for tests/emulated.py.
#include <string>

#include "cuda/backend.h"
#include "cuda/machine.h"
#include "cuda/runtime.h"

namespace fastmlp::cuda {

int current_device() { return 0; }
std::string device_name() { return "emulator"; }

}  // namespace fastmlp::cuda

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void* fastmlp_backend() { return &fastmlp::cuda::backend(); }

EXPORTED double* fastmlp_clock() { return &fastmlp::cuda::clock(); }

EXPORTED void fastmlp_use_blas(const char* library, const char* choices) {
  fastmlp::cuda::use_blas({library}, choices);
}

EXPORTED const char* fastmlp_blas_version() {
  static std::string version;
  version = fastmlp::cuda::blas_version();
  return version.c_str();
}

// Lines "product: way".
EXPORTED const char* fastmlp_large_products() {
  static std::string lines;
  lines.clear();
  for (const auto& [product, way] : fastmlp::cuda::large_products())
    lines += product + ": " + way + "\n";
  return lines.c_str();
}
