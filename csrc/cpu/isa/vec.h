// A SIMD vector as a value type for the formulas of core/, for the instruction set that this file
// is compiled for. Arithmetic and comparison are the compiler's own (GCC's and Clang's vector
// extensions); the few things they lack are intrinsics with a plain fallback.
//
// Everything lies in a namespace of the instruction set and is always inlined: see the trap in
// docs/architecture.md.
#pragma once

#include <cstdint>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/math.h"

// Vectors of fused multiply-adds: what our own matrix products need to beat a BLAS.
#if defined(__AVX2__) || defined(__aarch64__)
#define FASTMLP_HAS_FMA 1
#else
#define FASTMLP_HAS_FMA 0
#endif

namespace fastmlp::cpu::FASTMLP_ISA {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class S>
struct Vec {
  using Scalar = S;
  using Int = typename Bits<S>::Int;
  static constexpr int lanes = vector_bytes / int(sizeof(S));
  typedef S Native __attribute__((vector_size(vector_bytes)));
  typedef Int NativeInt __attribute__((vector_size(vector_bytes)));
  typedef S Unaligned __attribute__((vector_size(vector_bytes), aligned(alignof(S)), may_alias));

  Native v;

  Vec() = default;
  FASTMLP_FN Vec(Native native) : v(native) {}
  // Subtracting zero keeps the sign of -0.
  FASTMLP_FN explicit Vec(double x) : v(S(x) - Native{}) {}

  static FASTMLP_FN Vec broadcast(S x) { return Vec(x - Native{}); }

  static FASTMLP_FN Vec load(const S* p) {
    return Vec(Native(*reinterpret_cast<const Unaligned*>(p)));
  }
  FASTMLP_FN void store(S* p) const { *reinterpret_cast<Unaligned*>(p) = v; }

  // The first n lanes, 0 < n <= lanes. Memory behind them is not touched; they load as 0.
  static FASTMLP_FN Vec load(const S* p, int n) {
    return n == lanes ? load(p) : load(p, before(n));
  }
  FASTMLP_FN void store(S* p, int n) const {
    if (n == lanes) return store(p);
#if defined(__AVX2__) && !defined(__AVX512F__)
    // In pieces: a masked store to the same line as the one before takes 20 cycles on AMD's Zen.
    if constexpr (sizeof(S) == 4) {
      __m128 rest = _mm256_castps256_ps128(v);
      if (n & 4) {
        _mm_storeu_ps(p, rest);
        rest = _mm256_extractf128_ps(v, 1);
        p += 4;
      }
      if (n & 2) {
        _mm_storel_pi(reinterpret_cast<__m64*>(p), rest);
        rest = _mm_movehl_ps(rest, rest);
        p += 2;
      }
      if (n & 1) _mm_store_ss(p, rest);
    } else {
      __m128d rest = _mm256_castpd256_pd128(v);
      if (n & 2) {
        _mm_storeu_pd(p, rest);
        rest = _mm256_extractf128_pd(v, 1);
        p += 2;
      }
      if (n & 1) _mm_store_sd(p, rest);
    }
#else
    store(p, before(n));
#endif
  }

  // The lanes before n, as masked loads and stores take them.
#if defined(__AVX512F__)
  using Mask = std::conditional_t<sizeof(S) == 4, __mmask16, __mmask8>;
  static FASTMLP_FN Mask before(int n) { return Mask((1u << n) - 1); }
  static FASTMLP_FN Vec load(const S* p, Mask mask) {
    if constexpr (sizeof(S) == 4)
      return Vec(Native(_mm512_maskz_loadu_ps(mask, p)));
    else
      return Vec(Native(_mm512_maskz_loadu_pd(mask, p)));
  }
  FASTMLP_FN void store(S* p, Mask mask) const {
    if constexpr (sizeof(S) == 4)
      _mm512_mask_storeu_ps(p, mask, v);
    else
      _mm512_mask_storeu_pd(p, mask, v);
  }
#elif defined(__AVX2__)
  using Mask = NativeInt;
  static FASTMLP_FN Mask before(int n) { return index() < NativeInt{} + Int(n); }
  static FASTMLP_FN Vec load(const S* p, Mask mask) {
    if constexpr (sizeof(S) == 4)
      return Vec(Native(_mm256_maskload_ps(p, (__m256i)mask)));
    else
      return Vec(Native(_mm256_maskload_pd(p, (__m256i)mask)));
  }
  FASTMLP_FN void store(S* p, Mask mask) const {
    if constexpr (sizeof(S) == 4)
      _mm256_maskstore_ps(p, (__m256i)mask, v);
    else
      _mm256_maskstore_pd(p, (__m256i)mask, v);
  }
#else
  struct Mask { int count; };
  static FASTMLP_FN Mask before(int n) { return {n}; }
  static FASTMLP_FN Vec load(const S* p, Mask mask) {
    Native r{};
    for (int i = 0; i < mask.count; ++i) r[i] = p[i];
    return Vec(r);
  }
  FASTMLP_FN void store(S* p, Mask mask) const {
    for (int i = 0; i < mask.count; ++i) p[i] = v[i];
  }
#endif

  static FASTMLP_FN NativeInt index() {
    NativeInt lane;
    for (int i = 0; i < lanes; ++i) lane[i] = i;
    return lane;
  }

  // Lanes from n on replaced by `fill`.
  FASTMLP_FN Vec first(int n, S fill) const {
    if (n == lanes) return *this;
    return Vec(index() < NativeInt{} + Int(n) ? v : fill - Native{});
  }

  friend FASTMLP_FN Vec operator+(Vec a, Vec b) { return Vec(a.v + b.v); }
  friend FASTMLP_FN Vec operator-(Vec a, Vec b) { return Vec(a.v - b.v); }
  friend FASTMLP_FN Vec operator-(Vec a) { return Vec(-a.v); }  // no instruction before an fma
  friend FASTMLP_FN Vec operator*(Vec a, Vec b) { return Vec(a.v * b.v); }
  friend FASTMLP_FN Vec operator/(Vec a, Vec b) { return Vec(a.v / b.v); }
  friend FASTMLP_FN NativeInt operator<(Vec a, Vec b) { return a.v < b.v; }
  friend FASTMLP_FN NativeInt operator<=(Vec a, Vec b) { return a.v <= b.v; }
  friend FASTMLP_FN NativeInt operator>(Vec a, Vec b) { return a.v > b.v; }
  friend FASTMLP_FN NativeInt operator>=(Vec a, Vec b) { return a.v >= b.v; }
  friend FASTMLP_FN NativeInt operator==(Vec a, Vec b) { return a.v == b.v; }
  friend FASTMLP_FN NativeInt operator!=(Vec a, Vec b) { return a.v != b.v; }

  friend FASTMLP_FN Vec select(NativeInt condition, Vec a, Vec b) {
    return Vec(condition ? a.v : b.v);
  }

  static FASTMLP_FN NativeInt sign_bit() { return (NativeInt)Vec(-0.0).v; }
  friend FASTMLP_FN Vec absolute(Vec x) { return Vec((Native)((NativeInt)x.v & ~sign_bit())); }
  friend FASTMLP_FN Vec copysign(Vec x, Vec sign) {
    return Vec((Native)(((NativeInt)x.v & ~sign_bit()) | ((NativeInt)sign.v & sign_bit())));
  }

  // Of x86's two operands the second is the result where one is NaN.
  friend FASTMLP_FN Vec at_least(Vec x, Vec low) {
#if defined(__AVX512F__)
    if constexpr (sizeof(S) == 4)
      return Vec(Native(_mm512_maskz_max_ps(__mmask16(-1), low.v, x.v)));
    else
      return Vec(Native(_mm512_maskz_max_pd(__mmask8(-1), low.v, x.v)));
#elif defined(__AVX2__)
    if constexpr (sizeof(S) == 4)
      return Vec(Native(_mm256_max_ps(low.v, x.v)));
    else
      return Vec(Native(_mm256_max_pd(low.v, x.v)));
#elif defined(__x86_64__)
    if constexpr (sizeof(S) == 4)
      return Vec(Native(_mm_max_ps(low.v, x.v)));
    else
      return Vec(Native(_mm_max_pd(low.v, x.v)));
#else
    return select(x < low, low, x);
#endif
  }
  friend FASTMLP_FN Vec at_most(Vec x, Vec high) {
#if defined(__AVX512F__)
    if constexpr (sizeof(S) == 4)
      return Vec(Native(_mm512_maskz_min_ps(__mmask16(-1), high.v, x.v)));
    else
      return Vec(Native(_mm512_maskz_min_pd(__mmask8(-1), high.v, x.v)));
#elif defined(__AVX2__)
    if constexpr (sizeof(S) == 4)
      return Vec(Native(_mm256_min_ps(high.v, x.v)));
    else
      return Vec(Native(_mm256_min_pd(high.v, x.v)));
#elif defined(__x86_64__)
    if constexpr (sizeof(S) == 4)
      return Vec(Native(_mm_min_ps(high.v, x.v)));
    else
      return Vec(Native(_mm_min_pd(high.v, x.v)));
#else
    return select(x > high, high, x);
#endif
  }

  friend FASTMLP_FN Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
    if constexpr (sizeof(S) == 4)
      return Vec(Native(_mm512_fmadd_ps(a.v, b.v, c.v)));
    else
      return Vec(Native(_mm512_fmadd_pd(a.v, b.v, c.v)));
#elif defined(__FMA__)
    if constexpr (sizeof(S) == 4)
      return Vec(Native(_mm256_fmadd_ps(a.v, b.v, c.v)));
    else
      return Vec(Native(_mm256_fmadd_pd(a.v, b.v, c.v)));
#elif defined(__aarch64__)
    Native r;  // the compiler makes one vector instruction of it
    for (int i = 0; i < lanes; ++i) r[i] = fastmlp::fma(a.v[i], b.v[i], c.v[i]);
    return Vec(r);
#else
    return Vec(a.v * b.v + c.v);  // no such instruction: two roundings
#endif
  }

  // The same of one number for all lanes, which AVX-512 can broadcast as it multiplies. A compiler
  // would rather broadcast it once for all that it is multiplied by, hence the assembly (which
  // tests/emulated_avx512.h cannot emulate).
  friend FASTMLP_FN Vec fma_broadcast(const S* a, Vec b, Vec c) {
#if defined(__AVX512F__) && !defined(FASTMLP_EMULATE_AVX512)
    if constexpr (sizeof(S) == 4)
      asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(c.v) : "v"(b.v), "m"(*a));
    else
      asm("vfmadd231pd %2%{1to8%}, %1, %0" : "+v"(c.v) : "v"(b.v), "m"(*a));
    return c;
#else
    return fma(broadcast(*a), b, c);
#endif
  }

  friend FASTMLP_FN Vec sqrt(Vec a) {
#if defined(__AVX512F__)  // masked by all ones: the plain form makes GCC 12 warn of its own header
    if constexpr (sizeof(S) == 4)
      return Vec(Native(_mm512_maskz_sqrt_ps(__mmask16(-1), a.v)));
    else
      return Vec(Native(_mm512_maskz_sqrt_pd(__mmask8(-1), a.v)));
#elif defined(__AVX2__)
    if constexpr (sizeof(S) == 4)
      return Vec(Native(_mm256_sqrt_ps(a.v)));
    else
      return Vec(Native(_mm256_sqrt_pd(a.v)));
#elif defined(__x86_64__)
    if constexpr (sizeof(S) == 4)
      return Vec(Native(_mm_sqrt_ps(a.v)));
    else
      return Vec(Native(_mm_sqrt_pd(a.v)));
#else
    Native r;
    for (int i = 0; i < lanes; ++i) r[i] = fastmlp::sqrt(a.v[i]);
    return Vec(r);
#endif
  }

  // For float an estimate and one step of Newton's, which takes half the time of a division.
  friend FASTMLP_FN Vec reciprocal(Vec a) {
#if defined(__AVX512F__)
    if constexpr (sizeof(S) == 4) {
      const Vec estimate = Vec(Native(_mm512_maskz_rcp14_ps(__mmask16(-1), a.v)));
      return fma(fma(-a, estimate, Vec(1)), estimate, estimate);
    }
#elif defined(__AVX2__)
    if constexpr (sizeof(S) == 4) {
      const Vec estimate = Vec(Native(_mm256_rcp_ps(a.v)));
      return fma(fma(-a, estimate, Vec(1)), estimate, estimate);
    }
#endif
    return Vec(1) / a;
  }

  // As their scalar forms in core/math.h.
  friend FASTMLP_FN Vec scale_by_power(Vec x, Vec magic) {
    return Vec((Native)((NativeInt)x.v + ((NativeInt)magic.v << Bits<S>::mantissa)));
  }
  friend FASTMLP_FN Vec split_power(Vec x, Vec& e) {
    const NativeInt root_half = (NativeInt)Vec(0.70710678118654752440).v;
    const NativeInt n = ((NativeInt)x.v - root_half) >> Bits<S>::mantissa;
    e = Vec(__builtin_convertvector(n, Native));
    return Vec((Native)((NativeInt)x.v - (n << Bits<S>::mantissa)));
  }

  // Horizontal, in one fixed order: halves are folded onto each other.
  FASTMLP_FN S sum() const {
    return folded<vector_bytes>(v, [](auto a, auto b) { return a + b; });
  }
  FASTMLP_FN S max() const {  // NaN may be passed over
    return folded<vector_bytes>(v, [](auto a, auto b) { return a > b ? a : b; });
  }

 private:
  template <int bytes>
  struct Part {
    typedef S Type __attribute__((vector_size(bytes)));
  };

  template <int bytes, class F>
  static FASTMLP_FN S folded(typename Part<bytes>::Type x, F f) {
    if constexpr (bytes == 2 * sizeof(S)) {
      return f(x[0], x[1]);
    } else {
      typename Part<bytes / 2>::Type low, high;
      __builtin_memcpy(&low, &x, bytes / 2);
      __builtin_memcpy(&high, reinterpret_cast<const char*>(&x) + bytes / 2, bytes / 2);
      return folded<bytes / 2>(f(low, high), f);
    }
  }
};

// Calls f(column, lanes) for each vector's worth of columns; the last may be partial.
template <class S, class F>
FASTMLP_FN void for_columns(std::int64_t cols, F&& f) {
  constexpr int lanes = Vec<S>::lanes;
  std::int64_t j = 0;
  for (; j + lanes <= cols; j += lanes) f(j, std::integral_constant<int, lanes>{});
  if (j < cols) f(j, int(cols - j));
}

// The same for each row: f(row, column, lanes). Narrow rows, of which there may be many, go without
// an inner loop.
template <class S, class F>
FASTMLP_FN void for_block(std::int64_t rows, std::int64_t cols, F&& f) {
  constexpr int lanes = Vec<S>::lanes;
  constexpr std::integral_constant<int, lanes> all{};
  if (cols == lanes) {
    for (std::int64_t i = 0; i < rows; ++i) f(i, 0, all);
  } else if (cols == 2 * lanes) {
    for (std::int64_t i = 0; i < rows; ++i) f(i, 0, all), f(i, lanes, all);
  } else {
    for (std::int64_t i = 0; i < rows; ++i)
      for_columns<S>(cols, [&](std::int64_t j, auto n) { f(i, j, n); });
  }
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
