// Squares of a matrix turned round: 16 bytes of as many rows as a vector of AVX2 has lanes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/isa/vec.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// How many columns and rows are turned round together: two squares side by side, of 16 bytes a row.
template <class T>
constexpr int strip_depth = 16 / sizeof(T);
template <class T>
constexpr int strip_rows = 2 * strip_depth<T>;
template <class T>
using AllColumns = std::integral_constant<int, strip_rows<T>>;

// transpose_strip: to[i][j] = rows[j][at + i], for j < columns: all, or so many. A vector gathers
// 16 bytes from each of two rows, which costs no shuffles. transpose_back: rows[j][at + i] =
// from[i][j].
#if defined(__AVX2__)
// Turns both squares round; that is its own inverse.
FASTMLP_FN void turn_squares(__m256 (&v)[4]) {
  const __m256 low01 = _mm256_unpacklo_ps(v[0], v[1]), high01 = _mm256_unpackhi_ps(v[0], v[1]),
               low23 = _mm256_unpacklo_ps(v[2], v[3]), high23 = _mm256_unpackhi_ps(v[2], v[3]);
  v[0] = _mm256_shuffle_ps(low01, low23, 0x44);
  v[1] = _mm256_shuffle_ps(low01, low23, 0xEE);
  v[2] = _mm256_shuffle_ps(high01, high23, 0x44);
  v[3] = _mm256_shuffle_ps(high01, high23, 0xEE);
}
FASTMLP_FN void turn_squares(__m256d (&v)[2]) {
  const __m256d first = v[0];
  v[0] = _mm256_unpacklo_pd(first, v[1]);
  v[1] = _mm256_unpackhi_pd(first, v[1]);
}

// The first n lanes, or all of them. In pieces without AVX-512: see Vec::store.
FASTMLP_FN void store_lanes(float* to, __m256 v, AllColumns<float>) { _mm256_storeu_ps(to, v); }
FASTMLP_FN void store_lanes(double* to, __m256d v, AllColumns<double>) { _mm256_storeu_pd(to, v); }
FASTMLP_FN void store_lanes(float* to, __m256 v, int n) {
#if defined(__AVX512F__)
  _mm256_mask_storeu_ps(to, __mmask8((1u << n) - 1), v);
#else
  Vec<float>(v).store(to, n);
#endif
}
FASTMLP_FN void store_lanes(double* to, __m256d v, int n) {
#if defined(__AVX512F__)
  _mm256_mask_storeu_pd(to, __mmask8((1u << n) - 1), v);
#else
  Vec<double>(v).store(to, n);
#endif
}

// 16 bytes of each of two rows.
FASTMLP_FN __m256 load_two(const float* low, const float* high) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
}
FASTMLP_FN __m256d load_two(const double* low, const double* high) {
  return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(low)), _mm_loadu_pd(high), 1);
}

template <class T, class Columns = AllColumns<T>>
FASTMLP_FN void transpose_strip(T* to, std::int64_t to_stride, const T* const* rows,
                                std::int64_t at, Columns columns = {}) {
  constexpr int deep = strip_depth<T>;
  decltype(load_two(*rows, *rows)) v[deep];
#pragma GCC unroll 4
  for (int i = 0; i < deep; ++i) v[i] = load_two(rows[i] + at, rows[i + deep] + at);
  turn_squares(v);
#pragma GCC unroll 4
  for (int i = 0; i < deep; ++i) store_lanes(to + i * to_stride, v[i], columns);
}
FASTMLP_FN void transpose_back(const float* from, std::int64_t from_stride, float* const* rows,
                               std::int64_t at) {
  __m256 v[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) v[i] = _mm256_loadu_ps(from + i * from_stride);
  turn_squares(v);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm_storeu_ps(rows[i] + at, _mm256_castps256_ps128(v[i]));
    _mm_storeu_ps(rows[i + 4] + at, _mm256_extractf128_ps(v[i], 1));
  }
}
FASTMLP_FN void transpose_back(const double* from, std::int64_t from_stride, double* const* rows,
                               std::int64_t at) {
  __m256d v[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) v[i] = _mm256_loadu_pd(from + i * from_stride);
  turn_squares(v);
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    _mm_storeu_pd(rows[i] + at, _mm256_castpd256_pd128(v[i]));
    _mm_storeu_pd(rows[i + 2] + at, _mm256_extractf128_pd(v[i], 1));
  }
}
#else
template <class T, class Columns = AllColumns<T>>
FASTMLP_FN void transpose_strip(T* to, std::int64_t to_stride, const T* const* rows,
                                std::int64_t at, Columns columns = {}) {
  for (int i = 0; i < strip_depth<T>; ++i)
    for (int j = 0; j < columns; ++j) to[i * to_stride + j] = rows[j][at + i];
}
template <class T>
FASTMLP_FN void transpose_back(const T* from, std::int64_t from_stride, T* const* rows,
                               std::int64_t at) {
  for (int i = 0; i < strip_depth<T>; ++i)
    for (int j = 0; j < strip_rows<T>; ++j) rows[j][at + i] = from[i * from_stride + j];
}
#endif

}  // namespace fastmlp::cpu::FASTMLP_ISA
