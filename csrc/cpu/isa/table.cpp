// The table of this instruction set's inner loops: the one thing of isa/ that the rest of cpu/
// sees.
#include "cpu/isa/elementwise.h"
#include "cpu/isa/loss.h"
#include "cpu/isa/reduce.h"
#include "cpu/isa/update.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

template <class T>
constexpr Kernels<T> table() {
  return {activation_forward<T>,
          activation_backward<T>,
          softmax<T>,
          softmax_backward<T>,
          loss<T>,
          metric<T>,
          column_sum<T>,
          sum_of_squares<T>,
          dropout<T>,
          update<T>};
}

extern const Kernels<float> kernels_float;
extern const Kernels<double> kernels_double;
constexpr Kernels<float> kernels_float = table<float>();
constexpr Kernels<double> kernels_double = table<double>();

}  // namespace fastmlp::cpu::FASTMLP_ISA
