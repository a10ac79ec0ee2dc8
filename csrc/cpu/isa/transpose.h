// Squares of a matrix turned round: 16 bytes of as many rows as a vector of AVX2 has lanes.
#pragma once

#include <cstdint>

#include "cpu/isa/vec.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// to[i][j] = rows[j][i] for 16 bytes of each row: squares are transposed, two side by side, after a
// vector has gathered 16 bytes from each of two rows, which costs no shuffles.
template <class T>
constexpr int strip_depth = 16 / sizeof(T);
template <class T>
constexpr int strip_rows = 2 * strip_depth<T>;

#if defined(__AVX2__)
FASTMLP_FN void transpose_strip(float* to, std::int64_t to_stride, const float* const* rows,
                                std::int64_t at) {
  __m256 row[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    row[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(rows[i] + at)),
                                  _mm_loadu_ps(rows[i + 4] + at), 1);
  const __m256 low01 = _mm256_unpacklo_ps(row[0], row[1]),
               high01 = _mm256_unpackhi_ps(row[0], row[1]),
               low23 = _mm256_unpacklo_ps(row[2], row[3]),
               high23 = _mm256_unpackhi_ps(row[2], row[3]);
  _mm256_storeu_ps(to, _mm256_shuffle_ps(low01, low23, 0x44));
  _mm256_storeu_ps(to + to_stride, _mm256_shuffle_ps(low01, low23, 0xEE));
  _mm256_storeu_ps(to + 2 * to_stride, _mm256_shuffle_ps(high01, high23, 0x44));
  _mm256_storeu_ps(to + 3 * to_stride, _mm256_shuffle_ps(high01, high23, 0xEE));
}
FASTMLP_FN void transpose_strip(double* to, std::int64_t to_stride, const double* const* rows,
                                std::int64_t at) {
  __m256d row[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    row[i] = _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(rows[i] + at)),
                                  _mm_loadu_pd(rows[i + 2] + at), 1);
  _mm256_storeu_pd(to, _mm256_unpacklo_pd(row[0], row[1]));
  _mm256_storeu_pd(to + to_stride, _mm256_unpackhi_pd(row[0], row[1]));
}
#else
template <class T>
FASTMLP_FN void transpose_strip(T* to, std::int64_t to_stride, const T* const* rows,
                                std::int64_t at) {
  for (int i = 0; i < strip_depth<T>; ++i)
    for (int j = 0; j < strip_rows<T>; ++j) to[i * to_stride + j] = rows[j][at + i];
}
#endif

// rows[j][at + i] = from[i][j], the way back.
#if defined(__AVX2__)
FASTMLP_FN void transpose_back(const float* from, std::int64_t from_stride, float* const* rows,
                               std::int64_t at) {
  __m256 column[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) column[i] = _mm256_loadu_ps(from + i * from_stride);
  const __m256 low01 = _mm256_unpacklo_ps(column[0], column[1]),
               high01 = _mm256_unpackhi_ps(column[0], column[1]),
               low23 = _mm256_unpacklo_ps(column[2], column[3]),
               high23 = _mm256_unpackhi_ps(column[2], column[3]);
  const __m256 row[4] = {
      _mm256_shuffle_ps(low01, low23, 0x44), _mm256_shuffle_ps(low01, low23, 0xEE),
      _mm256_shuffle_ps(high01, high23, 0x44), _mm256_shuffle_ps(high01, high23, 0xEE)};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm_storeu_ps(rows[i] + at, _mm256_castps256_ps128(row[i]));
    _mm_storeu_ps(rows[i + 4] + at, _mm256_extractf128_ps(row[i], 1));
  }
}
FASTMLP_FN void transpose_back(const double* from, std::int64_t from_stride, double* const* rows,
                               std::int64_t at) {
  const __m256d column[2] = {_mm256_loadu_pd(from), _mm256_loadu_pd(from + from_stride)},
                row[2] = {_mm256_unpacklo_pd(column[0], column[1]),
                          _mm256_unpackhi_pd(column[0], column[1])};
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    _mm_storeu_pd(rows[i] + at, _mm256_castpd256_pd128(row[i]));
    _mm_storeu_pd(rows[i + 2] + at, _mm256_extractf128_pd(row[i], 1));
  }
}
#else
template <class T>
FASTMLP_FN void transpose_back(const T* from, std::int64_t from_stride, T* const* rows,
                               std::int64_t at) {
  for (int i = 0; i < strip_depth<T>; ++i)
    for (int j = 0; j < strip_rows<T>; ++j) rows[j][at + i] = from[i * from_stride + j];
}
#endif

}  // namespace fastmlp::cpu::FASTMLP_ISA
