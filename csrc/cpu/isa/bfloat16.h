// Matrix products of operands rounded to bfloat16, with sums in float32: isa/matmul.h's blocks and
// panels, with k in pairs.
//
// Both operands are packed: b as panels of (k/2, columns, 2), so that a vector holds a pair for
// each of its columns, and a as groups of (k/2, rows, 2), so that a broadcast of 32 bits is a row's
// pair. An odd k ends in a pair with 0. Every element is one chain in ascending pairs, and blocks
// have whole pairs: neither tiles nor threads change a bit.
#pragma once

#include "cpu/isa/matmul.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// On the micro-kernels alone: not every CPU with AVX-512 has it. Where that is emulated
// (tests/emulated_avx512.h) the attribute would bring the real one.
#if defined(FASTMLP_EMULATE_AVX512)
#define FASTMLP_BFLOAT16
#else
#define FASTMLP_BFLOAT16 __attribute__((target("avx512bf16")))
#endif

typedef std::uint32_t Words __attribute__((vector_size(vector_bytes)));
typedef std::uint64_t LongWords __attribute__((vector_size(vector_bytes)));

// Of each number the upper half of its bits is rounded: to the nearest, of two equally near ones to
// the even one. NaN stays NaN.
FASTMLP_FN Words to_bfloat16(Vec<float> x) {
  const Words bits = (Words)x.v;
  const Words nearest = bits + 0x7FFFu + (bits >> 16 & 1u), quiet = bits | 0x400000u;
  return (bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : nearest;
}

// packed[i / 2][j] = the pair x[i][j], x[i + 1][j], the first in the lower half.
FASTMLP_FN void pack_pairs(float* packed, std::int64_t width, const float* x, std::int64_t stride,
                           std::int64_t k, std::int64_t n) {
  using V = Vec<float>;
  for (std::int64_t i = 0; i < k; i += 2, packed += width)
    for_columns<float>(n, [&](std::int64_t j, auto lanes) {
      const float* from = x + i * stride + j;
      const Words first = to_bfloat16(V::load(from, lanes)),
                  second = i + 1 < k ? to_bfloat16(V::load(from + stride, lanes)) : Words{};
      V(V::Native(first >> 16 | (second & 0xFFFF0000u))).store(packed + j, lanes);
    });
}
// The pair x[j][i], x[j][i + 1], which lies in one long word.
FASTMLP_FN void pack_transposed_pairs(float* packed, std::int64_t width, const float* x,
                                      std::int64_t stride, std::int64_t k, std::int64_t n) {
  for_columns<float>(k, [&](std::int64_t i, auto lanes) {
    for (std::int64_t j = 0; j < n; ++j) {
      const auto both = (LongWords)to_bfloat16(Vec<float>::load(x + j * stride + i, lanes));
      const Words pairs = (Words)((both >> 16 & 0xFFFFu) | (both >> 32 & 0xFFFF0000u));
      float* to = packed + i / 2 * width + j;
      for (int lane = 0; lane < lanes; lane += 2, to += width)
        __builtin_memcpy(to, reinterpret_cast<const char*>(&pairs) + 4 * lane, 4);
    }
  });
}

template <int rows, int vectors>
FASTMLP_BFLOAT16 void pair_kernel(const Block<float>& block) {
  using V = Vec<float>;
  V sum[rows][vectors];
  start_sums(sum, block);
  Ahead<float, vectors> ahead(block, rows);
  const float *a = block.a, *b = block.b;
  for (std::int64_t k = block.k; k > 0; k -= 2, a += rows, b += panel_columns<float>) {
    if (k / 2 % ahead.every == 0) ahead.fetch_some();
    V right[vectors];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) right[j] = V::load(b + j * V::lanes);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      std::int32_t two;
      __builtin_memcpy(&two, a + i, sizeof two);
      const V::NativeInt left = two - V::NativeInt{};
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j)
        sum[i][j] =
            V(V::Native(_mm512_dpbf16_ps(sum[i][j].v, (__m512bh)left, (__m512bh)right[j].v)));
    }
  }
  store_sums(sum, block);
}

template <int vectors, int... i>
constexpr Table<float, vectors> of_pairs(std::integer_sequence<int, i...>) {
  return {nullptr, pair_kernel<i + 1, vectors>...};
}
template <int vectors>
constexpr Table<float, vectors> pair_kernels =
    of_pairs<vectors>(std::make_integer_sequence<int, most_rows[vectors]>{});

// In the place of `Whole`.
struct Pairs {
  static constexpr int depth_of_row = 2;

  static FASTMLP_FN void pack(float* packed, std::int64_t width, const float* x,
                              std::int64_t stride, bool transposed, std::int64_t k,
                              std::int64_t n) {
    if (transposed)
      pack_transposed_pairs(packed, width, x, stride, k, n);
    else
      pack_pairs(packed, width, x, stride, k, n);
  }
  template <int vectors>
  static constexpr const Table<float, vectors>& kernels() {
    return pair_kernels<vectors>;
  }
};

// As `matmul`, of rounded operands and for any number of rows.
inline void matmul_bfloat16(const Product<float>& p) { multiply_packed<Pairs>(p); }

}  // namespace fastmlp::cpu::FASTMLP_ISA
