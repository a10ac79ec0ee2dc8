#include "cpu/kernels.h"

#include "cpu/features.h"

namespace fastmlp::cpu {

#define FASTMLP_DECLARE_SET(set)               \
  namespace set {                              \
  extern const Kernels<float> kernels_float;   \
  extern const Kernels<double> kernels_double; \
  }

FASTMLP_DECLARE_SET(baseline)
#if FASTMLP_X86
FASTMLP_DECLARE_SET(avx2)
FASTMLP_DECLARE_SET(avx512)
#endif

#undef FASTMLP_DECLARE_SET

template <>
const Kernels<float>& kernels<float>() {
#if FASTMLP_X86
  static const InstructionSet set = best_instruction_set();
  if (set == InstructionSet::avx512) return avx512::kernels_float;
  if (set == InstructionSet::avx2) return avx2::kernels_float;
#endif
  return baseline::kernels_float;
}

template <>
const Kernels<double>& kernels<double>() {
#if FASTMLP_X86
  static const InstructionSet set = best_instruction_set();
  if (set == InstructionSet::avx512) return avx512::kernels_double;
  if (set == InstructionSet::avx2) return avx2::kernels_double;
#endif
  return baseline::kernels_double;
}

}  // namespace fastmlp::cpu
