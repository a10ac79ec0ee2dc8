// Elementary functions as templates over a value type, vectorising without branches.
//
// A value type T brings: arithmetic and comparison operators, T(double), and the primitives
// fma(a, b, c), select(condition, a, b), sqrt(x), reciprocal(x) (to an ulp or so),
// scale_by_power(x, n) and split_power(x, e) (below, for scalars; cpu/isa/vec.h, for SIMD vectors).
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

// ---- primitives, for scalars ---------------------------------------------------------------

FASTMLP_FN float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FASTMLP_FN double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
FASTMLP_FN float select(bool condition, float a, float b) { return condition ? a : b; }
FASTMLP_FN double select(bool condition, double a, double b) { return condition ? a : b; }
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
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float round_magic = 12582912.0f;
};
template <>
struct Bits<double> {
  using Int = std::int64_t;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double round_magic = 6755399441055744.0;
};

// x * 2^n for the integer n held in the low bits of `magic` = n + round_magic, in two halves so
// that the largest and the smallest results do not overflow on the way.
template <class S, class = std::enable_if_t<std::is_floating_point_v<S>>>
FASTMLP_FN S scale_by_power(S x, S magic) {
  using Int = typename Bits<S>::Int;
  Int n, base;
  const S round_magic = Bits<S>::round_magic;
  std::memcpy(&n, &magic, sizeof n);
  std::memcpy(&base, &round_magic, sizeof base);
  n -= base;
  const Int half = n >> 1;
  const Int first = (half + Bits<S>::bias) << Bits<S>::mantissa;
  const Int second = (n - half + Bits<S>::bias) << Bits<S>::mantissa;
  S a, b;
  std::memcpy(&a, &first, sizeof a);
  std::memcpy(&b, &second, sizeof b);
  return x * a * b;
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

// exp(x) - 1 = 2^n (1 + p) - 1 with p = exp(r) - 1 for the reduced |r| <= ln(2) / 2. Returns p and
// leaves n + round_magic in `magic`.
template <class T>
FASTMLP_FN T exp_reduced(T x, T& magic) {
  using S = Scalar<T>;
  magic = fma(x, T(1.44269504088896340736), T(double(Bits<S>::round_magic)));
  const T n = magic - T(double(Bits<S>::round_magic));
  if constexpr (is_single<T>) {
    T r = fma(n, T(-0.693359375), x);
    r = fma(n, T(2.12194440e-4), r);
    T p = T(1.9875691500e-4);
    p = fma(p, r, T(1.3981999507e-3));
    p = fma(p, r, T(8.3334519073e-3));
    p = fma(p, r, T(4.1665795894e-2));
    p = fma(p, r, T(1.6666665459e-1));
    p = fma(p, r, T(5.0000001201e-1));
    return fma(p, r * r, r);
  } else {
    T r = fma(n, T(-6.93145751953125e-1), x);
    r = fma(n, T(-1.42860682030941723212e-6), r);
    const T r2 = r * r;
    T p = fma(T(1.26177193074810590878e-4), r2, T(3.02994407707441961300e-2));
    p = r * fma(p, r2, T(9.99999999999999999910e-1));
    T q = fma(T(3.00198505138664455042e-6), r2, T(2.52448340349684104192e-3));
    q = fma(q, r2, T(2.27265548208155028766e-1));
    q = fma(q, r2, T(2.00000000000000000005));
    return T(2) * p / (q - p);
  }
}

// Beyond these the result is inf or 0 (subnormal results count as 0: the core flushes them).
template <class T>
inline constexpr double exp_high = is_single<T> ? 88.72283935546875 : 709.782712893384;
template <class T>
inline constexpr double exp_low = is_single<T> ? -87.33654022216797 : -708.3964185322641;

template <class T>
FASTMLP_FN T exp(T x) {
  T magic;
  const T p = exp_reduced(select(x > T(exp_high<T>), T(exp_high<T>), x), magic);
  const T y = scale_by_power(T(1) + p, magic);
  return select(x < T(exp_low<T>), T(0), select(x > T(exp_high<T>), T(HUGE_VAL), y));
}

template <class T>
FASTMLP_FN T expm1(T x) {
  // Below -40 the result is -1 to the last bit; clamping keeps the scaling in range.
  T magic;
  T t = select(x > T(exp_high<T>), T(exp_high<T>), x);
  t = select(t < T(-40), T(-40), t);
  const T p = exp_reduced(t, magic);
  const T scale = scale_by_power(T(1), magic);
  const T y = fma(scale, p, scale - T(1));
  return select(x > T(exp_high<T>), T(HUGE_VAL), y);
}

template <class T>
FASTMLP_FN T log_of_split(T m, T e) {
  const T f = m - T(1);
  const T z = f * f;
  if constexpr (is_single<T>) {
    T p = T(7.0376836292e-2);
    p = fma(p, f, T(-1.1514610310e-1));
    p = fma(p, f, T(1.1676998740e-1));
    p = fma(p, f, T(-1.2420140846e-1));
    p = fma(p, f, T(1.4249322787e-1));
    p = fma(p, f, T(-1.6668057665e-1));
    p = fma(p, f, T(2.0000714765e-1));
    p = fma(p, f, T(-2.4999993993e-1));
    p = fma(p, f, T(3.3333331174e-1));
    p = p * f * z;
    p = fma(e, T(-2.12194440e-4), p);
    p = fma(z, T(-0.5), p);
    return fma(e, T(0.693359375), f + p);
  } else {
    T p = fma(T(1.01875663804580931796e-4), f, T(4.97494994976747001425e-1));
    p = fma(p, f, T(4.70579119878881725854));
    p = fma(p, f, T(1.44989225341610930846e1));
    p = fma(p, f, T(1.79368678507819816313e1));
    p = fma(p, f, T(7.70838733755885391666));
    T q = f + T(1.12873587189167450590e1);
    q = fma(q, f, T(4.52279145837532221105e1));
    q = fma(q, f, T(8.29875266912776603211e1));
    q = fma(q, f, T(7.11544750618563894466e1));
    q = fma(q, f, T(2.31251620126765340583e1));
    T y = f * (z * p / q);
    y = fma(e, T(-2.121944400546905827679e-4), y);
    y = fma(z, T(-0.5), y);
    return fma(e, T(0.693359375), f + y);
  }
}

// For x >= 0; subnormal x counts as 0.
template <class T>
FASTMLP_FN T log(T x) {
  const double smallest = is_single<T> ? 1.17549435082228751e-38 : 2.2250738585072014e-308;
  T e;
  const T m = split_power(x, e);
  const T y = log_of_split(m, e);
  const T low = select(x < T(0), T(__builtin_nan("")), T(-HUGE_VAL));
  return select(x < T(smallest), low, select(x == T(HUGE_VAL), x, select(x == x, y, x)));
}

// For x >= 0 (all that the losses need): log(1 + x), exact to rounding for small x too.
template <class T>
FASTMLP_FN T log1p(T x) {
  const T u = T(1) + x;
  // What rounding took from u, put back to first order (Kahan).
  const T y = log(u) + (x - (u - T(1))) / u;
  return select(u == T(HUGE_VAL), u, y);
}

template <class T>
FASTMLP_FN T sigmoid(T x) {
  return T(1) / (T(1) + exp(T(0) - x));
}

template <class T>
FASTMLP_FN T tanh(T x) {
  // expm1(2|x|) / (expm1(2|x|) + 2) keeps small x exact; beyond `top` the result rounds to 1.
  const double top = is_single<T> ? 9.1 : 19.1;
  const T magnitude = select(x < T(0), T(0) - x, x);
  const T e = expm1(T(2) * select(magnitude > T(top), T(top), magnitude));
  const T y = e / (e + T(2));
  return select(x < T(0), T(0) - y, select(x == T(0), x, y));
}

template <class T>
FASTMLP_FN T softplus(T x) {
  const T magnitude = select(x < T(0), T(0) - x, x);
  return select(x <= T(0), T(0), x) + log1p(exp(T(0) - magnitude));
}

}  // namespace fastmlp
