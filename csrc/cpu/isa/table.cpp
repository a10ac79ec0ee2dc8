// The table of this instruction set's inner loops: the one thing of isa/ that the rest of cpu/
// sees.
#include <cstddef>

#include "cpu/isa/elementwise.h"
#include "cpu/isa/loss.h"
#include "cpu/isa/normalise.h"
#include "cpu/isa/order.h"
#include "cpu/isa/peak.h"
#include "cpu/isa/reduce.h"
#include "cpu/isa/update.h"
#include "cpu/kernels.h"
#if FASTMLP_HAS_FMA
#include "cpu/isa/matmul.h"
#endif
#if defined(__AVX512F__)
#include "cpu/isa/amx.h"
#include "cpu/isa/bfloat16.h"
#endif

namespace fastmlp::cpu::FASTMLP_ISA {

template <class T>
constexpr auto product_of_bfloat16 = nullptr;
template <class T>
constexpr auto product_of_tiles = nullptr;
#if defined(__AVX512F__)
template <>
constexpr auto product_of_bfloat16<float> = matmul_bfloat16;
template <>
constexpr auto product_of_tiles<float> = matmul_tiles;
#endif

template <class T>
constexpr Kernels<T> table() {
#if FASTMLP_HAS_FMA
  constexpr auto product = matmul<T>;
#else
  constexpr std::nullptr_t product = nullptr;
#endif
  return {product,
          product_of_bfloat16<T>,
          product_of_tiles<T>,
          activation_forward<T>,
          activation_backward<T>,
          softmax<T>,
          softmax_backward<T>,
          prelu<T>,
          prelu_backward<T>,
          prelu_slope<T>,
          maxout<T>,
          maxout_backward<T>,
          statistics<T>,
          normalise<T>,
          normalise_sums<T>,
          normalise_backward<T>,
          loss<T>,
          metric<T>,
          column_sum<T>,
          sum_of_squares<T>,
          penalize<T>,
          dropout<T>,
          update<T>,
          permute,
          multiply_add<T>};
}

extern const KernelSet kernel_set;
constexpr KernelSet kernel_set = {table<float>(), table<double>()};

}  // namespace fastmlp::cpu::FASTMLP_ISA
