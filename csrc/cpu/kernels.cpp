#include "cpu/kernels.h"

#include "cpu/features.h"

namespace fastmlp::cpu {

// Each defined in isa/table.cpp, compiled for its instruction set.
namespace baseline {
extern const KernelSet kernel_set;
}
#if FASTMLP_X86
namespace avx2 {
extern const KernelSet kernel_set;
}
namespace avx512 {
extern const KernelSet kernel_set;
}
#endif

namespace {

const KernelSet& in_use() {
  static const KernelSet& set = []() -> const KernelSet& {
    switch (best_instruction_set()) {
#if FASTMLP_X86
      case InstructionSet::avx512: return avx512::kernel_set;
      case InstructionSet::avx2: return avx2::kernel_set;
#endif
      default: return baseline::kernel_set;
    }
  }();
  return set;
}

}  // namespace

template <>
const Kernels<float>& kernels<float>() {
  return in_use().single;
}

template <>
const Kernels<double>& kernels<double>() {
  return in_use().twofold;
}

}  // namespace fastmlp::cpu
