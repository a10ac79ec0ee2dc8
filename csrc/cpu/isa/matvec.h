// Products with few rows on the left: inference of single rows, whose time is that of reading b,
// and the gradients of small batches.
//
// A panel is a stretch of columns whose sums stay in registers while the rows of b stream by. Every
// element is the chain of multiply-adds in ascending k that isa/matmul.h computes, bit for bit.
#pragma once

#include <cstdint>

#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// The widest panel for each number of rows, in vectors: eight sums at least, for so many
// multiply-adds are under way at a time, and no more than the registers hold.
constexpr int few_rows_most = 4;
#if defined(__AVX512F__)
constexpr int widest_panel[few_rows_most + 1] = {0, 8, 8, 8, 6};
#else
constexpr int widest_panel[few_rows_most + 1] = {0, 8, 6, 4, 3};
#endif

// What all panels of a product share: which rows of b they go through, whether b is worth fetching
// ahead, as it is beyond the first-level cache, and whether sums start from c's values.
struct Sweep {
  std::int64_t first, depth;
  bool fetch, accumulate;
};

// c[i][j..] for all rows i. Of the last vector only `lanes` are touched, unless it is whole.
template <class T, int rows, int vectors, bool whole>
FASTMLP_FN void panel_of_few_rows(const Product<T>& p, const Sweep& sweep, std::int64_t j,
                                  int lanes) {
  using V = Vec<T>;
  const auto mask = V::before(whole ? V::lanes : lanes);
  auto load = [&](const T* from, int v) {
    from += v * V::lanes;
    return whole || v < vectors - 1 ? V::load(from) : V::load(from, mask);
  };
  V sum[rows][vectors];
#pragma GCC unroll 4
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v)
      sum[i][v] = sweep.accumulate ? load(p.c + i * p.c_stride + j, v)
                  : p.bias         ? load(p.bias + j, v)
                                   : V(0);
  const std::int64_t a_row = p.transpose_a ? 1 : p.a_stride, b_stride = p.b_stride;
  const std::int64_t a_next = p.transpose_a ? p.a_stride : 1;
  const T* a = p.a + sweep.first * a_next;
  const T* b = p.b + sweep.first * b_stride + j;
  for (std::int64_t k = sweep.depth; k > 0; --k, a += a_next, b += b_stride) {
    if (sweep.fetch) {
      constexpr int ahead = 16, vectors_of_line = 64 / vector_bytes;
#pragma GCC unroll 8
      for (int v = 0; v < vectors; v += vectors_of_line)
        __builtin_prefetch(b + ahead * b_stride + v * V::lanes);
    }
    // The fewer of the two stay in registers.
    if constexpr (rows <= vectors) {
      V left[rows];
#pragma GCC unroll 4
      for (int i = 0; i < rows; ++i) left[i] = V::broadcast(a[i * a_row]);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) {
        const V right = load(b, v);
#pragma GCC unroll 4
        for (int i = 0; i < rows; ++i) sum[i][v] = fma(left[i], right, sum[i][v]);
      }
    } else {
      V right[vectors];
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) right[v] = load(b, v);
#pragma GCC unroll 4
      for (int i = 0; i < rows; ++i) {
        const V left = V::broadcast(a[i * a_row]);
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) sum[i][v] = fma(left, right[v], sum[i][v]);
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < rows; ++i) {
    T* c = p.c + i * p.c_stride + j;
#pragma GCC unroll 8
    for (int v = 0; v < vectors - 1; ++v) sum[i][v].store(c + v * V::lanes);
    c += (vectors - 1) * V::lanes;
    sum[i][vectors - 1].store(c, whole ? V::lanes : lanes);
  }
}

// The panel kernel for a width known only now, 1 to `vectors`.
template <class T, int rows, int vectors>
FASTMLP_FN void panel_of_width(const Product<T>& p, const Sweep& sweep, std::int64_t j,
                               std::int64_t width, int lanes) {
  if constexpr (vectors > 1)
    if (width < vectors) return panel_of_width<T, rows, vectors - 1>(p, sweep, j, width, lanes);
  if (lanes == Vec<T>::lanes)
    panel_of_few_rows<T, rows, vectors, true>(p, sweep, j, lanes);
  else
    panel_of_few_rows<T, rows, vectors, false>(p, sweep, j, lanes);
}

// Columns are split evenly among the fewest panels, so none is left too thin to hide latencies.
template <class T, int rows>
void panels_of_few_rows(const Product<T>& p, bool accumulate) {
  constexpr std::int64_t lanes = Vec<T>::lanes, widest = widest_panel[rows];
  const std::int64_t vectors = (p.n + lanes - 1) / lanes, parts = (vectors + widest - 1) / widest;
  const std::int64_t each = parts <= 1 ? vectors : vectors / parts, longer = vectors - parts * each;

  // A panel goes down all of b where the TLB holds the pages that it passes. A larger b is read a
  // few rows at a time, as it lies in memory and as the processor prefetches it by itself.
  const std::int64_t bytes = p.k * p.b_stride * std::int64_t(sizeof(T)), pages = bytes / 4096;
  const bool large = p.k > 1024 && pages > 1024;
  constexpr std::int64_t first_level_cache = 16384, few = 8;
  Sweep sweep{0, large ? few : p.k, !large && bytes > first_level_cache, accumulate};
  do {
    if (sweep.depth > p.k - sweep.first) sweep.depth = p.k - sweep.first;
    std::int64_t j = 0;
    for (std::int64_t part = 0; part < parts; ++part) {
      const std::int64_t width = each + (part < longer), last = p.n - j - (width - 1) * lanes;
      panel_of_width<T, rows, widest>(p, sweep, j, width, int(last < lanes ? last : lanes));
      j += width * lanes;
    }
    sweep.first += sweep.depth;
    sweep.accumulate = true;
  } while (sweep.first < p.k);
}

// For m up to few_rows_most, and b not transposed; from c's values on if `accumulate` is set.
template <class T>
FASTMLP_FN void few_rows(const Product<T>& p, bool accumulate = false) {
  if (p.m == 1) return panels_of_few_rows<T, 1>(p, accumulate);
  if (p.m == 2) return panels_of_few_rows<T, 2>(p, accumulate);
  if (p.m == 3) return panels_of_few_rows<T, 3>(p, accumulate);
  return panels_of_few_rows<T, 4>(p, accumulate);
}

// Some rows of c, one vector of each after the other.
template <class T, int depth, int rows>
FASTMLP_FN void rows_of_few_products(T* c, std::int64_t c_stride, const T* a, std::int64_t a_stride,
                                     const T* b, std::int64_t b_stride, std::int64_t n) {
  using V = Vec<T>;
  V left[rows][depth];
#pragma GCC unroll 4
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int k = 0; k < depth; ++k) left[i][k] = V::broadcast(a[k * a_stride + i]);
  for_columns<T>(n, [=](std::int64_t j, auto lanes) {
    V right[depth];
#pragma GCC unroll 4
    for (int k = 0; k < depth; ++k) right[k] = V::load(b + k * b_stride + j, lanes);
#pragma GCC unroll 4
    for (int i = 0; i < rows; ++i) {
      V sum(0);
#pragma GCC unroll 4
      for (int k = 0; k < depth; ++k) sum = fma(left[i][k], right[k], sum);
      sum.store(c + i * c_stride + j, lanes);
    }
  });
}

template <class T, int depth>
void products_of_depth(const Product<T>& p) {
  constexpr int rows = 2;
  const std::int64_t m = p.m, n = p.n, c_stride = p.c_stride, a_stride = p.a_stride;
  const T* const b = p.b;
  std::int64_t i = 0;
  for (; i + rows <= m; i += rows)
    rows_of_few_products<T, depth, rows>(p.c + i * c_stride, c_stride, p.a + i, a_stride, b,
                                         p.b_stride, n);
  if (i < m)
    rows_of_few_products<T, depth, 1>(p.c + i * c_stride, c_stride, p.a + i, a_stride, b,
                                      p.b_stride, n);
}

// For k up to few_rows_most, a transposed a, and no bias: gradients of a kernel from a few rows,
// whose time is that of writing c.
template <class T>
FASTMLP_FN void few_products(const Product<T>& p) {
  if (p.k == 1) return products_of_depth<T, 1>(p);
  if (p.k == 2) return products_of_depth<T, 2>(p);
  if (p.k == 3) return products_of_depth<T, 3>(p);
  return products_of_depth<T, 4>(p);
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
