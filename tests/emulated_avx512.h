// AVX-512 on a machine that has AVX2: the intrinsics of csrc/cpu/isa as plain code, put in front of
// its sources by tests/emulated.py (-include). The compiler lowers the vectors themselves.
//
// An intrinsic that is missing here does not compile. Masked loads and stores touch the lanes of
// their mask and nothing else, so that test_bounds.py finds a wrong mask; an estimate is as wrong
// as the instruction's may be.
#pragma once

#include <immintrin.h>  // before the macros: its own functions are for sets that the compiler knows

#define __AVX512F__ 1
#define __AVX512VL__ 1
#define __AVX512DQ__ 1
#define __AVX512BW__ 1

namespace emulated {

#define EMULATED static inline __attribute__((always_inline))
// For what would take the compiler long wherever it is inlined.
#define EMULATED_CALL static __attribute__((noinline))

template <class Whole, class Half>
union Halves {
  Whole whole;
  Half half[2];
};

template <class Half, class Whole, class F, class... More>
EMULATED Whole by_halves(F f, Whole a, More... more) {
  using Two = Halves<Whole, Half>;
  Two result;
  for (int i = 0; i < 2; ++i) result.half[i] = f(Two{a}.half[i], Two{more}.half[i]...);
  return result.whole;
}

// Zero in the lanes outside the mask.
template <class Whole, class Mask>
EMULATED Whole kept(Mask mask, Whole x) {
  if (mask == Mask(-1)) return x;
  for (unsigned i = 0; i < sizeof(x) / sizeof(x[0]); ++i)
    if (!(mask >> i & 1)) x[i] = 0;
  return x;
}

template <class Whole, class Mask, class S>
EMULATED_CALL Whole load(Mask mask, const S* p) {
  Whole x{};
  for (unsigned i = 0; i < sizeof(x) / sizeof(S); ++i)
    if (mask >> i & 1) x[i] = p[i];
  return x;
}

template <class Whole, class Mask, class S>
EMULATED_CALL void store(S* p, Mask mask, Whole x) {
  for (unsigned i = 0; i < sizeof(x) / sizeof(S); ++i)
    if (mask >> i & 1) p[i] = x[i];
}

// The relative error is nearly 2^-14, the most that is allowed, upwards or downwards.
EMULATED_CALL __m512 rcp14(__m512 x) {
  constexpr float error = 0x1.fp-15f;
  for (int i = 0; i < 16; ++i) {
    const float exact = 1 / x[i];
    unsigned bits;
    __builtin_memcpy(&bits, &exact, sizeof bits);
    x[i] = exact * (bits & 1 ? 1 + error : 1 - error);
  }
  return x;
}

// By Intel's pseudocode: first the pair's second product, whatever MXCSR says, with subnormal
// numbers as 0 before and after. A product of two is exact in float32, so fused or not is the same.
EMULATED_CALL __m512 dpbf16(__m512 sum, __m512i a, __m512i b) {
  typedef unsigned Words __attribute__((vector_size(64)));
  auto flushed = [](__m512 x) {
    for (int i = 0; i < 16; ++i)
      if (__builtin_fabsf(x[i]) < 0x1p-126f) x[i] = __builtin_copysignf(0, x[i]);
    return x;
  };
  auto add = [&](Words x, Words y) {
    const __m512 left = flushed((__m512)x), right = flushed((__m512)y);
    for (int i = 0; i < 16; ++i) sum[i] = __builtin_fmaf(left[i], right[i], sum[i]);
    sum = flushed(sum);
  };
  const Words x = (Words)a, y = (Words)b;
  sum = flushed(sum);
  add(x & 0xFFFF0000u, y & 0xFFFF0000u);
  add(x << 16, y << 16);
  return sum;
}

EMULATED unsigned to_bfloat16(float x) {
  unsigned bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  if (x != x) return bits >> 16 | 0x40;
  if (__builtin_fabsf(x) < 0x1p-126f) return bits >> 31 << 15;
  return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
EMULATED_CALL __m512i cvtne2ps(__m512 high, __m512 low) {
  typedef unsigned short Halves __attribute__((vector_size(64)));
  Halves result;
  for (int i = 0; i < 16; ++i) {
    result[i] = to_bfloat16(low[i]);
    result[16 + i] = to_bfloat16(high[i]);
  }
  return (__m512i)result;
}

EMULATED_CALL __m512i permute16(__m512i index, __m512i x) {
  typedef unsigned short Halves __attribute__((vector_size(64)));
  const Halves from = (Halves)x, at = (Halves)index;
  Halves result;
  for (int i = 0; i < 32; ++i) result[i] = from[at[i] & 31];
  return (__m512i)result;
}
EMULATED_CALL __m512i permute32(__m512i a, __m512i index, __m512i b) {
  typedef unsigned Words __attribute__((vector_size(64)));
  const Words first = (Words)a, second = (Words)b, at = (Words)index;
  Words result;
  for (int i = 0; i < 16; ++i) result[i] = (at[i] & 16 ? second : first)[at[i] & 15];
  return (__m512i)result;
}

// AMX. A thread has eight tiles while it has a configuration, and here dies if it uses one without.
struct Tile {
  int rows, bytes;
  alignas(64) char row[16][64];
};
static thread_local Tile tiles[8];

EMULATED_CALL void configure(const void* config) {
  const unsigned char* const from = static_cast<const unsigned char*>(config);
  for (int i = 0; i < 8; ++i) {
    unsigned short bytes;
    __builtin_memcpy(&bytes, from + 16 + 2 * i, sizeof bytes);
    tiles[i] = Tile{from[48 + i], bytes, {}};
    if (from[0] != 1 || tiles[i].rows > 16 || bytes > 64) __builtin_trap();
  }
}
EMULATED_CALL void release() {
  for (Tile& tile : tiles) tile = Tile{};
}
EMULATED_CALL void load_tile(int number, const void* base, long stride) {
  Tile& tile = tiles[number];
  if (tile.rows == 0) __builtin_trap();
  for (int i = 0; i < tile.rows; ++i)
    __builtin_memcpy(tile.row[i], static_cast<const char*>(base) + i * stride, tile.bytes);
}
EMULATED_CALL void store_tile(int number, void* base, long stride) {
  const Tile& tile = tiles[number];
  if (tile.rows == 0) __builtin_trap();
  for (int i = 0; i < tile.rows; ++i)
    __builtin_memcpy(static_cast<char*>(base) + i * stride, tile.row[i], tile.bytes);
}

// By Intel's pseudocode, which an Emerald Rapids agreed with: the first numbers of all pairs and the
// second ones are two sums, which are added up and then to c. Whatever MXCSR says, subnormal numbers
// are 0 before and after.
EMULATED float flushed(float x) {
  return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0, x) : x;
}
EMULATED float from_bfloat16(const char* p) {
  unsigned short half;
  __builtin_memcpy(&half, p, sizeof half);
  const unsigned bits = unsigned(half) << 16;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return flushed(x);
}
EMULATED_CALL void multiply_tiles(int c, int a, int b) {
  Tile &sums = tiles[c], &left = tiles[a], &right = tiles[b];
  if (!sums.rows || sums.rows != left.rows || sums.bytes != right.bytes ||
      left.bytes != 4 * right.rows)
    __builtin_trap();
  for (int i = 0; i < sums.rows; ++i)
    for (int j = 0; j < sums.bytes; j += 4) {
      float part[2] = {0, 0}, sum;
      for (int k = 0; k < left.bytes; k += 4)
        for (int half = 0; half < 2; ++half)
          part[half] = flushed(__builtin_fmaf(from_bfloat16(left.row[i] + k + 2 * half),
                                              from_bfloat16(right.row[k / 4] + j + 2 * half),
                                              part[half]));
      __builtin_memcpy(&sum, sums.row[i] + j, sizeof sum);
      sum = flushed(flushed(sum) + flushed(part[0] + part[1]));
      __builtin_memcpy(sums.row[i] + j, &sum, sizeof sum);
    }
}

}  // namespace emulated

#define EMULATED_BY_HALVES(half, f, ...) \
  emulated::by_halves<half>([](auto... x) { return f(x...); }, __VA_ARGS__)

#define _mm512_fmadd_ps(a, b, c) EMULATED_BY_HALVES(__m256, _mm256_fmadd_ps, a, b, c)
#define _mm512_fmadd_pd(a, b, c) EMULATED_BY_HALVES(__m256d, _mm256_fmadd_pd, a, b, c)
#define _mm512_maskz_max_ps(k, a, b) \
  emulated::kept(k, EMULATED_BY_HALVES(__m256, _mm256_max_ps, a, b))
#define _mm512_maskz_max_pd(k, a, b) \
  emulated::kept(k, EMULATED_BY_HALVES(__m256d, _mm256_max_pd, a, b))
#define _mm512_maskz_min_ps(k, a, b) \
  emulated::kept(k, EMULATED_BY_HALVES(__m256, _mm256_min_ps, a, b))
#define _mm512_maskz_min_pd(k, a, b) \
  emulated::kept(k, EMULATED_BY_HALVES(__m256d, _mm256_min_pd, a, b))
#define _mm512_maskz_sqrt_ps(k, a) emulated::kept(k, EMULATED_BY_HALVES(__m256, _mm256_sqrt_ps, a))
#define _mm512_maskz_sqrt_pd(k, a) emulated::kept(k, EMULATED_BY_HALVES(__m256d, _mm256_sqrt_pd, a))
#define _mm512_maskz_mul_epu32(k, a, b) \
  emulated::kept(k, EMULATED_BY_HALVES(__m256i, _mm256_mul_epu32, a, b))
#define _mm512_maskz_rcp14_ps(k, a) emulated::kept(k, emulated::rcp14(a))
#define _mm512_maskz_loadu_ps(k, p) emulated::load<__m512>(k, p)
#define _mm512_maskz_loadu_pd(k, p) emulated::load<__m512d>(k, p)
#define _mm512_mask_storeu_ps(p, k, x) emulated::store<__m512>(p, k, x)
#define _mm512_mask_storeu_pd(p, k, x) emulated::store<__m512d>(p, k, x)
#define _mm256_mask_storeu_ps(p, k, x) emulated::store<__m256>(p, k, x)
#define _mm256_mask_storeu_pd(p, k, x) emulated::store<__m256d>(p, k, x)
#define __m512bh __m512i
#define _mm512_dpbf16_ps(sum, a, b) emulated::dpbf16(sum, a, b)
#define _mm512_cvtne2ps_pbh(high, low) emulated::cvtne2ps(high, low)
#define _mm512_permutexvar_epi16(index, x) emulated::permute16(index, x)
#define _mm512_permutex2var_epi32(a, index, b) emulated::permute32(a, index, b)
// In GCC's headers some of these are macros.
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) emulated::configure(config)
#define _tile_release() emulated::release()
#define _tile_loadd(tile, base, stride) emulated::load_tile(tile, base, stride)
#define _tile_stream_loadd(tile, base, stride) emulated::load_tile(tile, base, stride)
#define _tile_stored(tile, base, stride) emulated::store_tile(tile, base, stride)
#define _tile_dpbf16ps(c, a, b) emulated::multiply_tiles(c, a, b)
