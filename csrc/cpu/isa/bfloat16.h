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
  const auto mask = V::before(block.last_lanes);
  auto load = [&](const float* p, int j) {
    return j == vectors - 1 ? V::load(p + j * V::lanes, mask) : V::load(p + j * V::lanes);
  };
  start_sums(sum, block, load);
  const float *a = block.a, *b = block.b;
  for (std::int64_t k = block.k; k > 0; k -= 2, a += rows, b += block.b_stride) {
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
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) {
      float* c = block.c + i * block.c_stride + j * V::lanes;
      j == vectors - 1 ? sum[i][j].store(c, mask) : sum[i][j].store(c);
    }
}

template <int vectors>
struct PairKernels {
  MicroKernel<float> of[most_rows[vectors] + 1];

  template <int... i>
  constexpr explicit PairKernels(std::integer_sequence<int, i...>)
      : of{nullptr, pair_kernel<i + 1, vectors>...} {}
};

// c's columns of one panel, for all groups of rows.
template <int vectors>
FASTMLP_FN void all_pairs(Block<float> block, const Groups& groups) {
  static constexpr PairKernels<vectors> kernels{
      std::make_integer_sequence<int, most_rows[vectors]>{}};
  for (std::int64_t group = 0; group < groups.count; ++group) {
    const std::int64_t n = groups.rows(group);
    kernels.of[n](block);
    block.a += n * ((block.k + 1) / 2);
    block.c += n * block.c_stride;
  }
}

// As `matmul`, of rounded operands and for any number of rows.
inline void matmul_bfloat16(const Product<float>& p) {
  constexpr std::int64_t lanes = Vec<float>::lanes, columns = panel_columns<float>;
  static_assert(depth % 2 == 0 && panel_vectors == 4);
  auto vectors_of = [](std::int64_t n) { return (n + lanes - 1) / lanes; };
  float* const packed_b = p.scratch;
  float* const packed_a = p.scratch + depth / 2 * columns;
  const Groups blocks(p.m, int(matmul_rows<float>));
  std::int64_t i = 0;
  for (std::int64_t number = 0; number < blocks.count; ++number) {
    const std::int64_t m = blocks.rows(number);
    // The first panel is the widest, and what holds it holds the last.
    const Groups groups(m, most_rows[p.n < columns ? vectors_of(p.n) : panel_vectors]);
    for (std::int64_t k = 0; k == 0 || k < p.k; k += depth) {
      Block<float> block{};
      block.k = p.k - k < depth ? p.k - k : depth;
      block.c_stride = p.c_stride;
      block.accumulate = k > 0;
      const float* a = p.a + (p.transpose_a ? k * p.a_stride + i : i * p.a_stride + k);
      float* to = packed_a;
      for (std::int64_t group = 0; group < groups.count; ++group) {
        const std::int64_t rows = groups.rows(group);
        if (p.transpose_a)
          pack_pairs(to, rows, a, p.a_stride, block.k, rows);
        else
          pack_transposed_pairs(to, rows, a, p.a_stride, block.k, rows);
        to += rows * ((block.k + 1) / 2);
        a += p.transpose_a ? rows : rows * p.a_stride;
      }
      block.a = packed_a;
      block.b = packed_b;
      block.b_stride = columns;
      for (std::int64_t j = 0; j < p.n; j += columns) {
        const std::int64_t n = p.n - j < columns ? p.n - j : columns, vectors = vectors_of(n);
        if (p.transpose_b)
          pack_transposed_pairs(packed_b, columns, p.b + j * p.b_stride + k, p.b_stride, block.k,
                                n);
        else
          pack_pairs(packed_b, columns, p.b + k * p.b_stride + j, p.b_stride, block.k, n);
        block.bias = p.bias ? p.bias + j : nullptr;
        block.last_lanes = int(n - (vectors - 1) * lanes);
        block.c = p.c + i * p.c_stride + j;
        if (vectors == 1) all_pairs<1>(block, groups);
        if (vectors == 2) all_pairs<2>(block, groups);
        if (vectors == 3) all_pairs<3>(block, groups);
        if (vectors == 4) all_pairs<4>(block, groups);
        if (k + block.k >= p.k) finish(p, i, j, m, n);
      }
    }
    i += m;
  }
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
