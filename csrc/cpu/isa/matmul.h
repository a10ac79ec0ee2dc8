// Matrix products in registers: c = a b, with an optional bias as the first value of every sum.
//
// Every element of c is one chain of multiply-adds in ascending k. Blocking only interrupts the
// chain to store and load it, so neither tiles nor threads change a bit.
//
// A micro-kernel holds `rows` x `vectors` of c in registers. It reads b by whole vectors and
// broadcasts single elements of a, so a may be transposed at no cost; a transposed b is first
// packed into a panel, and so is one whose rows would fight for a cache's sets. The last vector of
// a row may be partial: it is loaded and stored under a mask, and what lies behind it is never
// touched.
#pragma once

#include <cstdint>
#include <utility>

#include "cpu/isa/matvec.h"
#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// The most columns of c that a micro-kernel holds, in vectors, and the most rows for each number of
// vectors: accumulators, one row of b and one broadcast fill the 32 or 16 registers.
#if defined(__AVX512F__)
constexpr int panel_vectors = 4;
constexpr int most_rows[panel_vectors + 1] = {0, 16, 12, 8, 6};
#else
constexpr int panel_vectors = 2;
constexpr int most_rows[panel_vectors + 1] = {0, 12, 6};
#endif

template <class T>
constexpr std::int64_t panel_columns = panel_vectors * Vec<T>::lanes;

// One block of c as a micro-kernel sees it.
template <class T>
struct Block {
  T* c;
  std::int64_t c_stride;
  const T* a;
  std::int64_t a_stride;
  const T* b;
  std::int64_t b_stride;
  std::int64_t k;
  const T* bias;    // null: start from zero
  bool accumulate;  // start from what c holds
  int last_lanes;   // of c's last vector
};

template <class T, int rows, int vectors, bool transposed_a>
void micro_kernel(const Block<T>& block) {
  using V = Vec<T>;
  V sum[rows][vectors];
  const auto mask = V::before(block.last_lanes);
  auto load = [&](const T* p, int j) {
    return j == vectors - 1 ? V::load(p + j * V::lanes, mask) : V::load(p + j * V::lanes);
  };
#pragma GCC unroll 4
  for (int j = 0; j < vectors; ++j) {
    const V start = block.bias ? load(block.bias, j) : V(0);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
      sum[i][j] = block.accumulate ? load(block.c + i * block.c_stride, j) : start;
  }
  // Pointers to every fourth row: the others are small multiples of the stride away, which an
  // address can hold.
  const std::int64_t stride = block.a_stride;
  const T *a0 = block.a, *a1 = a0 + 4 * stride, *a2 = a0 + 8 * stride, *a3 = a0 + 12 * stride;
  const T* b = block.b;
  const std::int64_t b_stride = block.b_stride;
  for (std::int64_t k = block.k; k > 0; --k) {
    V right[vectors];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) right[j] = load(b, j);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const T* row = i < 4 ? a0 : i < 8 ? a1 : i < 12 ? a2 : a3;
      const V left = V::broadcast(transposed_a ? a0[i] : row[(i & 3) * stride]);
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) sum[i][j] = fma(left, right[j], sum[i][j]);
    }
    b += b_stride;
    if constexpr (transposed_a) {
      a0 += stride;
    } else {
      ++a0;
      if constexpr (rows > 4) ++a1;
      if constexpr (rows > 8) ++a2;
      if constexpr (rows > 12) ++a3;
    }
  }
  T* c = block.c;
  const std::int64_t c_stride = block.c_stride;  // a copy, which the stores cannot change
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i, c += c_stride) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors - 1; ++j) sum[i][j].store(c + j * V::lanes);
    sum[i][vectors - 1].store(c + (vectors - 1) * V::lanes, mask);
  }
}

template <class T>
using MicroKernel = void (*)(const Block<T>&);

// Micro-kernels for 1 to most_rows[vectors] rows.
template <class T, int vectors, bool transposed_a>
struct RowKernels {
  MicroKernel<T> of[most_rows[vectors] + 1];

  template <int... i>
  constexpr explicit RowKernels(std::integer_sequence<int, i...>)
      : of{nullptr, micro_kernel<T, i + 1, vectors, transposed_a>...} {}
};

// Rows are split evenly among the fewest micro-kernels, so none is left with a thin remainder.
template <class T, int vectors, bool transposed_a>
FASTMLP_FN void all_rows(Block<T> block, std::int64_t rows) {
  constexpr int most = most_rows[vectors];
  static constexpr RowKernels<T, vectors, transposed_a> kernels{
      std::make_integer_sequence<int, most>{}};
  const std::int64_t parts = (rows + most - 1) / most, each = rows / parts, longer = rows % parts;
  for (std::int64_t part = 0; part < parts; ++part) {
    const std::int64_t n = each + (part < longer);
    kernels.of[n](block);
    block.a += transposed_a ? n : n * block.a_stride;
    block.c += n * block.c_stride;
  }
}

template <class T, bool transposed_a>
FASTMLP_FN void panel(const Block<T>& block, std::int64_t rows, std::int64_t vectors) {
  if (vectors == 1) return all_rows<T, 1, transposed_a>(block, rows);
  if (vectors == 2) return all_rows<T, 2, transposed_a>(block, rows);
#if defined(__AVX512F__)
  if (vectors == 3) return all_rows<T, 3, transposed_a>(block, rows);
  return all_rows<T, 4, transposed_a>(block, rows);
#endif
}

// to[i][j] = from[j][i] for a square of 16 bytes a side.
FASTMLP_FN void transpose_square(float* to, std::int64_t to_stride, const float* from,
                                 std::int64_t from_stride) {
  __m128 r0 = _mm_loadu_ps(from), r1 = _mm_loadu_ps(from + from_stride),
         r2 = _mm_loadu_ps(from + 2 * from_stride), r3 = _mm_loadu_ps(from + 3 * from_stride);
  _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
  _mm_storeu_ps(to, r0);
  _mm_storeu_ps(to + to_stride, r1);
  _mm_storeu_ps(to + 2 * to_stride, r2);
  _mm_storeu_ps(to + 3 * to_stride, r3);
}
FASTMLP_FN void transpose_square(double* to, std::int64_t to_stride, const double* from,
                                 std::int64_t from_stride) {
  const __m128d r0 = _mm_loadu_pd(from), r1 = _mm_loadu_pd(from + from_stride);
  _mm_storeu_pd(to, _mm_unpacklo_pd(r0, r1));
  _mm_storeu_pd(to + to_stride, _mm_unpackhi_pd(r0, r1));
}

// packed[i][j] = b[i][j] for i < k, j < n.
template <class T>
FASTMLP_FN void pack(T* packed, std::int64_t width, const T* b, std::int64_t stride, std::int64_t k,
                     std::int64_t n) {
  for (std::int64_t i = 0; i < k; ++i)
    for_columns<T>(n, [&](std::int64_t j, auto lanes) {
      Vec<T>::load(b + i * stride + j, lanes).store(packed + i * width + j, lanes);
    });
}

// packed[i][j] = b[j][i] for i < k, j < n.
template <class T>
FASTMLP_FN void pack_transposed(T* packed, std::int64_t width, const T* b, std::int64_t stride,
                                std::int64_t k, std::int64_t n) {
  constexpr std::int64_t side = 16 / sizeof(T);
  const std::int64_t whole_k = k / side * side, whole_n = n / side * side;
  for (std::int64_t j = 0; j < whole_n; j += side)
    for (std::int64_t i = 0; i < whole_k; i += side)
      transpose_square(packed + i * width + j, width, b + j * stride + i, stride);
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t i = j < whole_n ? whole_k : 0; i < k; ++i)
      packed[i * width + j] = b[j * stride + i];
}

// Rows at such a stride fall into the same few sets of a cache. Packing them costs less than that
// where they are read often enough.
template <class T>
FASTMLP_FN bool worth_packing(const Product<T>& p) {
  return p.m >= 64 && p.b_stride * std::int64_t(sizeof(T)) % 512 == 0;
}

template <class T>
void matmul(const Product<T>& p) {
  constexpr std::int64_t lanes = Vec<T>::lanes, columns = panel_columns<T>;
  if (p.m <= few_rows_most && !p.transpose_b) return few_rows(p);
  for (std::int64_t j = 0; j < p.n; j += columns) {
    const std::int64_t n = p.n - j < columns ? p.n - j : columns;
    const std::int64_t vectors = (n + lanes - 1) / lanes;
    Block<T> block;
    block.c_stride = p.c_stride;
    block.a_stride = p.a_stride;
    block.bias = p.bias ? p.bias + j : nullptr;
    block.last_lanes = int(n - (vectors - 1) * lanes);
    for (std::int64_t k = 0; k == 0 || k < p.k; k += matmul_depth) {
      block.k = p.k - k < matmul_depth ? p.k - k : matmul_depth;
      block.accumulate = k > 0;
      block.c = p.c + j;
      block.a = p.a + (p.transpose_a ? k * p.a_stride : k);
      if (p.transpose_b) {
        pack_transposed(p.scratch, columns, p.b + j * p.b_stride + k, p.b_stride, block.k, n);
        block.b = p.scratch;
        block.b_stride = columns;
      } else if (worth_packing(p)) {
        pack(p.scratch, columns, p.b + k * p.b_stride + j, p.b_stride, block.k, n);
        block.b = p.scratch;
        block.b_stride = columns;
      } else {
        block.b = p.b + k * p.b_stride + j;
        block.b_stride = p.b_stride;
      }
      if (p.transpose_a)
        panel<T, true>(block, p.m, vectors);
      else
        panel<T, false>(block, p.m, vectors);
    }
  }
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
