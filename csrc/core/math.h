// Elementary functions as templates over a value type, vectorising without branches.
//
// A value type T brings: arithmetic and comparison operators, T(double), and the primitives
// fma(a, b, c), select(condition, a, b), absolute(x), copysign(x, sign), at_least(x, low) and
// at_most(x, high) (where NaN stays NaN), sqrt(x), reciprocal(x) (to an ulp or so),
// scale_by_power(x, magic) and split_power(x, e) (below, for scalars; cpu/isa/vec.h, for SIMD
// vectors).
// `Scalar<T>` is its element type, which picks the polynomial. The polynomials are those of
// Moshier's Cephes library (netlib.org/cephes): about one unit in the last place on the reduced
// range.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/portable.h"

namespace fastmlp {

template <class T, class = void>
struct ScalarOf;
template <>
struct ScalarOf<float> {
  using type = float;
};
template <>
struct ScalarOf<double> {
  using type = double;
};
template <class T>
struct ScalarOf<T, std::void_t<typename T::Scalar>> {
  using type = typename T::Scalar;
};
template <class T>
using Scalar = typename ScalarOf<T>::type;
template <class T>
inline constexpr bool is_single = std::is_same_v<Scalar<T>, float>;

#if defined(__CUDA_ARCH__) || defined(FASTMLP_EMULATE_CUDA)
template <class T>
inline constexpr bool flushes_subnormals = is_single<T>;
#else
template <class T>
inline constexpr bool flushes_subnormals = true;
#endif

// ---- primitives, for scalars ---------------------------------------------------------------

FASTMLP_FN float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FASTMLP_FN double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
FASTMLP_FN float select(bool condition, float a, float b) { return condition ? a : b; }
FASTMLP_FN double select(bool condition, double a, double b) { return condition ? a : b; }
FASTMLP_FN float absolute(float x) { return __builtin_fabsf(x); }
FASTMLP_FN double absolute(double x) { return __builtin_fabs(x); }
FASTMLP_FN float copysign(float x, float sign) { return __builtin_copysignf(x, sign); }
FASTMLP_FN double copysign(double x, double sign) { return __builtin_copysign(x, sign); }
FASTMLP_FN float at_least(float x, float low) { return x < low ? low : x; }
FASTMLP_FN double at_least(double x, double low) { return x < low ? low : x; }
FASTMLP_FN float at_most(float x, float high) { return x > high ? high : x; }
FASTMLP_FN double at_most(double x, double high) { return x > high ? high : x; }
FASTMLP_FN float reciprocal(float x) { return 1 / x; }
FASTMLP_FN double reciprocal(double x) { return 1 / x; }
FASTMLP_FN float sqrt(float x) { return __builtin_sqrtf(x); }
FASTMLP_FN double sqrt(double x) { return __builtin_sqrt(x); }

// Adding 1.5 * 2^mantissa_bits rounds to the nearest integer and leaves it in the low bits.
template <class S>
struct Bits;
template <>
struct Bits<float> {
  using Int = std::int32_t;
  using UInt = std::uint32_t;
  static constexpr int mantissa = 23;
  static constexpr float round_magic = 12582912.0f;
};
template <>
struct Bits<double> {
  using Int = std::int64_t;
  using UInt = std::uint64_t;
  static constexpr int mantissa = 52;
  static constexpr double round_magic = 6755399441055744.0;
};

// x * 2^n for the integer n in the low bits of `magic` = n + round_magic: n is added to the
// exponent, so x and 2^n x must be normal. Where x is 1/2 or 1 and 2^n x too small, the result is
// 0.
template <class S, class = std::enable_if_t<std::is_floating_point_v<S>>>
FASTMLP_FN S scale_by_power(S x, S magic) {
  typename Bits<S>::UInt bits, n;
  std::memcpy(&bits, &x, sizeof bits);
  std::memcpy(&n, &magic, sizeof n);
  bits += n << Bits<S>::mantissa;  // the bits of round_magic itself are shifted out
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// x = m * 2^e with m in [sqrt(1/2), sqrt(2)), for normal x > 0; returns m.
template <class S, class = std::enable_if_t<std::is_floating_point_v<S>>>
FASTMLP_FN S split_power(S x, S& e) {
  using Int = typename Bits<S>::Int;
  const S root_half = S(0.70710678118654752440);
  Int bits, low;
  std::memcpy(&bits, &x, sizeof bits);
  std::memcpy(&low, &root_half, sizeof low);
  const Int n = (bits - low) >> Bits<S>::mantissa;
  bits -= n << Bits<S>::mantissa;
  e = S(n);
  S m;
  std::memcpy(&m, &bits, sizeof m);
  return m;
}

// ---- functions, for every value type -------------------------------------------------------

// Horner's rule, the highest power's coefficient first.
template <class T, class... Coefficients>
FASTMLP_FN T polynomial(T x, double highest, Coefficients... lower) {
  T p(highest);
  ((p = fma(p, x, T(double(lower)))), ...);
  return p;
}

template <class T>
FASTMLP_FN T clamp(T x, double low, double high) {
  return at_most(at_least(x, T(low)), T(high));
}

// exp(x) = 2^n (1 + p) with p = exp(r) - 1 for the reduced |r| <= ln(2) / 2. Returns p and leaves
// n + round_magic in `magic`.
template <class T>
FASTMLP_FN T exp_reduced(T x, T& magic) {
  const T round_magic = T(double(Bits<Scalar<T>>::round_magic));
  magic = fma(x, T(1.44269504088896340736), round_magic);
  const T n = magic - round_magic;
  if constexpr (is_single<T>) {
    const T r = fma(n, T(2.12194440e-4), fma(n, T(-0.693359375), x));
    const T p = polynomial(r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2,
                           1.6666665459e-1, 5.0000001201e-1);
    return fma(p, r * r, r);
  } else {
    const T r = fma(n, T(-1.42860682030941723212e-6), fma(n, T(-6.93145751953125e-1), x));
    const T r2 = r * r;
    const T p = r * polynomial(r2, 1.26177193074810590878e-4, 3.02994407707441961300e-2,
                               9.99999999999999999910e-1);
    const T q = polynomial(r2, 3.00198505138664455042e-6, 2.52448340349684104192e-3,
                           2.27265548208155028766e-1, 2.00000000000000000005);
    return T(2) * p / (q - p);
  }
}

// Results below the smallest normal number are 0: the core flushes subnormal numbers.
template <class T>
FASTMLP_FN T exp(T x) {
  const double high = is_single<T> ? 88.72283172607422 : 709.782712893384;
  const double low = is_single<T> ? -87.33654022216797 : -708.3964185322641;
  T magic;
  const T p = exp_reduced(x, magic);
  const T y = scale_by_power(T(1) + p, magic);
  return select(x < T(low), T(0), select(x <= T(high), y, x + T(HUGE_VAL)));
}

// exp(x) for x <= exp_bound, where 2^n is a number: half the care, and NaN passes by itself.
template <class T>
inline constexpr double exp_bound = is_single<T> ? 88 : 709;
template <class T>
FASTMLP_FN T exp_bounded(T x) {
  T magic;
  const T p = exp_reduced(at_least(x, T(-exp_bound<T>)), magic);
  return (T(1) + p) * scale_by_power(T(1), magic);
}

// exp(x) - 1; x above exp_bound counts as exp_bound.
template <class T>
FASTMLP_FN T expm1(T x) {
  T magic;
  const T p = exp_reduced(clamp(x, -40, exp_bound<T>), magic);  // -40: -1 to the last bit
  const T scale = scale_by_power(T(1), magic);
  return fma(scale, p, scale - T(1));
}

// log((1 + f) 2^e) for sqrt(1/2) <= 1 + f < sqrt(2).
template <class T>
FASTMLP_FN T log_of_split(T f, T e) {
  const T f2 = f * f;
  T tail;  // log(1 + f) - f + f^2 / 2
  if constexpr (is_single<T>) {
    tail = f * f2 *
           polynomial(f, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1,
                      1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1,
                      3.3333331174e-1);
  } else {
    const T p =
        polynomial(f, 1.01875663804580931796e-4, 4.97494994976747001425e-1, 4.70579119878881725854,
                   1.44989225341610930846e1, 1.79368678507819816313e1, 7.70838733755885391666);
    const T q =
        polynomial(f, 1, 1.12873587189167450590e1, 4.52279145837532221105e1,
                   8.29875266912776603211e1, 7.11544750618563894466e1, 2.31251620126765340583e1);
    tail = f * (f2 * p / q);
  }
  tail = fma(e, T(-2.121944400546905827679e-4), tail);
  return fma(e, T(0.693359375), f + fma(f2, T(-0.5), tail));
}

// NaN below 0; subnormal x counts as 0.
template <class T>
FASTMLP_FN T log(T x) {
  const double smallest = is_single<T> ? 1.17549435082228751e-38 : 2.2250738585072014e-308;
  T e;
  const T m = split_power(x, e);
  const T y = log_of_split(m - T(1), e);
  const T low = select(x < T(0), T(__builtin_nan("")), T(-HUGE_VAL));
  return select(x < T(smallest), low, select(x < T(HUGE_VAL), y, x));
}

// log(1 + x) for 0 <= x <= 1, which is what the losses need: then all it takes is one halving.
template <class T>
FASTMLP_FN T log1p(T x) {
  const auto large = x > T(0.41421356237309504880);
  return log_of_split(select(large, fma(T(0.5), x, T(-0.5)), x), select(large, T(1), T(0)));
}

template <class T>
FASTMLP_FN T sigmoid(T x) {
  // From the bound on the result is subnormal, so 0; a GPU does not flush those of doubles.
  const T y = T(1) / (T(1) + exp_bounded(at_most(T(0) - x, T(exp_bound<T>))));
  if constexpr (flushes_subnormals<T>)
    return y;
  else
    return select(x <= T(-exp_bound<T>), T(0), y);
}

// log(1 + exp(x))
template <class T>
FASTMLP_FN T softplus(T x) {
  return at_least(x, T(0)) + log1p(exp_bounded(T(0) - absolute(x)));
}

// (exp(2|x|) - 1) / (exp(2|x|) + 1), where the numerator, as in expm1, keeps small x exact. From 20
// on the result is 1.
template <class T>
FASTMLP_FN T tanh(T x) {
  const T magnitude = at_most(absolute(x), T(20));
  T magic;
  const T p = exp_reduced(magnitude + magnitude, magic), scale = scale_by_power(T(1), magic);
  return copysign(fma(scale, p, scale - T(1)) / fma(scale, p, scale + T(1)), x);
}

template <class T>
FASTMLP_FN T erf(T x) {
  if constexpr (is_single<T>) {
    // Below 1 a polynomial in x^2, above it 1 - 1 / p^8, both with the smallest relative error
    // (below 2^-26) that polynomials of this degree can have.
    const T magnitude = at_most(absolute(x), T(4.1)), x2 = magnitude * magnitude;
    const T small =
        magnitude * polynomial(x2, 7.853887e-5, -8.0102021e-4, 5.18832876e-3, -2.68538126e-2,
                               1.12835852e-1, -3.76126258e-1, 1.12837917);
    const T p = polynomial(magnitude, 5.43667198e-4, -4.00216026e-3, 1.77507338e-2, -3.30309854e-2,
                           7.37361371e-2, 4.94171746e-2, 1.59210559e-1, 9.96486969e-1);
    const T p2 = p * p, p4 = p2 * p2;
    const T large = T(1) - T(1) / (p4 * p4);
    return copysign(select(magnitude < T(1), small, large), x);
  } else {
    // Cephes' two forms, x t / u below 1 and 1 - exp(-x^2) p / q above, with one division.
    const T magnitude = at_most(absolute(x), T(6)), x2 = magnitude * magnitude;
    const T t =
        polynomial(x2, 9.60497373987051638749, 9.00260197203842689217e1, 2.23200534594684319226e3,
                   7.00332514112805075473e3, 5.55923013010394962768e4);
    const T u =
        polynomial(x2, 1, 3.35617141647503099647e1, 5.21357949780152679795e2,
                   4.59432382970980127987e3, 2.26290000613890934246e4, 4.92673942608635921086e4);
    const T p = polynomial(
        magnitude, 2.46196981473530512524e-10, 5.64189564831068821977e-1, 7.46321056442269912687,
        4.86371970985681366614e1, 1.96520832956077098242e2, 5.26445194995477358631e2,
        9.34528527171957607540e2, 1.02755188689515710272e3, 5.57535335369399327526e2);
    const T q =
        polynomial(magnitude, 1, 1.32281951154744992508e1, 8.67072140885989742329e1,
                   3.54937778887819891062e2, 9.75708501743205489753e2, 1.82390916687909736289e3,
                   2.24633760818710981792e3, 1.65666309194161350182e3, 5.57535340817727675546e2);
    const auto small = magnitude < T(1);
    const T above = select(small, magnitude * t, q - exp_bounded(T(0) - x2) * p);
    return copysign(above / select(small, u, q), x);
  }
}

}  // namespace fastmlp
