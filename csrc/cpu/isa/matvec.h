// Products with one or two rows on the left: inference of single rows.
#pragma once

#include <cstdint>

#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// For a few rows of c, whose time is that of reading b once: b is read row by row, as memory likes
// it, eight rows at a time, and c stays in the first-level cache. The same chain of multiply-adds.
template <class T>
FASTMLP_FN void few_rows(const Product<T>& p) {
  using V = Vec<T>;
  constexpr int deep = 8;
  for (std::int64_t i = 0; i < p.m; ++i) {
    T* c = p.c + i * p.c_stride;
    for_columns<T>(p.n, [&](std::int64_t j, auto n) {
      (p.bias ? V::load(p.bias + j, n) : V(0)).store(c + j, n);
    });
    for (std::int64_t k = 0; k < p.k; k += deep) {
      const int rows = p.k - k < deep ? int(p.k - k) : deep;
      V left[deep];
      for (int r = 0; r < rows; ++r)
        left[r] = V::broadcast(p.transpose_a ? p.a[(k + r) * p.a_stride + i]
                                             : p.a[i * p.a_stride + k + r]);
      const T* b = p.b + k * p.b_stride;
      for_columns<T>(p.n, [&](std::int64_t j, auto n) {
        V sum = V::load(c + j, n);
        if (rows == deep) {
#pragma GCC unroll 8
          for (int r = 0; r < deep; ++r)
            sum = fma(left[r], V::load(b + r * p.b_stride + j, n), sum);
        } else {
          for (int r = 0; r < rows; ++r)
            sum = fma(left[r], V::load(b + r * p.b_stride + j, n), sum);
        }
        sum.store(c + j, n);
      });
    }
  }
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
