// All elementwise activations, each formula written once.
//
// An activation is a struct: its name, its forward formula and its derivative, as templates over a
// value type T (float, double, a SIMD vector, a device scalar). `from_output` says what the
// derivative is taken from: the output y, or the input x, which the plan then keeps. A formula may
// have one parameter `a`, not below `least_parameter`. Add a struct, add it to `Activations`, and
// it exists everywhere: in both backends, in Python and in the tests.
//
// `select(condition, a, b)` takes the place of branches. NaN must come out as NaN, so a comparison
// is always written such that NaN falls on the side that passes it on.
#pragma once

#include "core/formula_list.h"
#include "core/math.h"
#include "core/portable.h"

namespace fastmlp {

// What an activation is unless it says otherwise: its derivative is taken from y, and it has no
// parameter.
struct FromOutput {
  static constexpr bool from_output = true;
  static constexpr const char* parameter = nullptr;
  static constexpr double default_parameter = 0, least_parameter = 0;
};
struct FromInput : FromOutput { static constexpr bool from_output = false; };

struct Identity : FromOutput {
  static constexpr const char* name = "identity";
  template <class T>
  static FASTMLP_FN T forward(T x, T) {
    return x;
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T) {
    return select(y == y, T(1), y);
  }
};

struct Relu : FromOutput {
  static constexpr const char* name = "relu";
  template <class T>
  static FASTMLP_FN T forward(T x, T) {
    return select(x <= T(0), T(0), x);
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T) {
    return select(y > T(0), T(1), y * T(0));
  }
};

// The slope is not negative, so y has the sign of x.
struct LeakyRelu : FromOutput {
  static constexpr const char* name = "leaky_relu";
  static constexpr const char* parameter = "negative_slope";
  static constexpr double default_parameter = 0.01, least_parameter = 0;
  template <class T>
  static FASTMLP_FN T forward(T x, T a) {
    return select(x > T(0), x, a * x);
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T a) {
    return select(y > T(0), T(1), select(y <= T(0), a, y));
  }
};

// Clevert, Unterthiner, Hochreiter 2016, arXiv:1511.07289.
struct Elu : FromOutput {
  static constexpr const char* name = "elu";
  static constexpr const char* parameter = "alpha";
  static constexpr double default_parameter = 1, least_parameter = 0;
  template <class T>
  static FASTMLP_FN T forward(T x, T a) {
    return select(x > T(0), x, a * expm1(x));
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T a) {
    return select(y > T(0), T(1), y + a);
  }
};

// Klambauer, Unterthiner, Mayr, Hochreiter 2017, arXiv:1706.02515.
struct Selu : FromOutput {
  static constexpr const char* name = "selu";
  static constexpr double scale = 1.0507009873554804934193349852946;
  static constexpr double alpha = 1.6732632423543772848170429916717;
  template <class T>
  static FASTMLP_FN T forward(T x, T) {
    return select(x > T(0), T(scale) * x, T(scale * alpha) * expm1(x));
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T) {
    return select(y > T(0), T(scale), y + T(scale * alpha));
  }
};

struct Sigmoid : FromOutput {
  static constexpr const char* name = "sigmoid";
  template <class T>
  static FASTMLP_FN T forward(T x, T) {
    return sigmoid(x);
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T) {
    return y * (T(1) - y);
  }
};

struct Tanh : FromOutput {
  static constexpr const char* name = "tanh";
  template <class T>
  static FASTMLP_FN T forward(T x, T) {
    return tanh(x);
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T) {
    return T(1) - y * y;
  }
};

// log(1 + exp(x)); its derivative, sigmoid(x), is 1 - exp(-y).
struct Softplus : FromOutput {
  static constexpr const char* name = "softplus";
  template <class T>
  static FASTMLP_FN T forward(T x, T) {
    return softplus(x);
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T) {
    return T(0) - expm1(T(0) - y);
  }
};

// x sigmoid(a x): Ramachandran, Zoph, Le 2017, arXiv:1710.05941. With a = 1 it is SiLU.
struct Swish : FromInput {
  static constexpr const char* name = "swish";
  static constexpr const char* parameter = "beta";
  static constexpr double default_parameter = 1, least_parameter = -HUGE_VAL;
  template <class T>
  static FASTMLP_FN T forward(T x, T a) {
    const T s = sigmoid(a * x);
    // 0 where the sigmoid has vanished, so that -inf does not become NaN.
    return select(s == T(0), T(0), x * s);
  }
  template <class T>
  static FASTMLP_FN T derivative(T x, T a) {
    const T s = sigmoid(a * x);
    const T slope = a * x * (T(1) - s);
    return select(s == T(0), T(0), select(s == T(1), T(1), s + s * slope));
  }
};

struct Silu : FromInput {
  static constexpr const char* name = "silu";
  template <class T>
  static FASTMLP_FN T forward(T x, T) {
    return Swish::forward(x, T(1));
  }
  template <class T>
  static FASTMLP_FN T derivative(T x, T) {
    return Swish::derivative(x, T(1));
  }
};

// x Phi(x), with Phi the normal distribution: Hendrycks, Gimpel 2016, arXiv:1606.08415.
struct Gelu : FromInput {
  static constexpr const char* name = "gelu";
  template <class T>
  static FASTMLP_FN T distribution(T x) {
    return fma(T(0.5), erf(T(0.70710678118654752440) * x), T(0.5));
  }
  template <class T>
  static FASTMLP_FN T forward(T x, T) {
    const T phi = distribution(x);
    // 0 where the distribution has vanished, so that -inf does not become NaN.
    return select(phi == T(0), T(0), x * phi);
  }
  template <class T>
  static FASTMLP_FN T derivative(T x, T) {
    const T density = T(0.39894228040143267794) * exp_bounded(T(-0.5) * x * x);
    return select(density == T(0), distribution(x), fma(x, density, distribution(x)));
  }
};

using Activations =
    FormulaList<Identity, Relu, LeakyRelu, Elu, Selu, Sigmoid, Tanh, Softplus, Swish, Silu, Gelu>;

// He, Zhang, Ren, Sun 2015, arXiv:1502.01852: the slope is learned, so it comes with the element
// and may be negative. It has records of its own (Prelu) and is not in the list.
struct ParametricRelu {
  template <class T>
  static FASTMLP_FN T forward(T x, T slope) {
    return select(x > T(0), x, slope * x);
  }
  template <class T>
  static FASTMLP_FN T derivative(T x, T slope) {
    return select(x > T(0), T(1), select(x <= T(0), slope, x));
  }
  template <class T>
  static FASTMLP_FN T slope_derivative(T x) {
    return select(x > T(0), T(0), x);
  }
};

// Elementary functions that fm.kernels offers as they are: no layer has them, and no derivative.
struct Exp {
  static constexpr const char* name = "exp";
  template <class T>
  static FASTMLP_FN T forward(T x, T) {
    return exp(x);
  }
};

struct Log {
  static constexpr const char* name = "log";
  template <class T>
  static FASTMLP_FN T forward(T x, T) {
    return log(x);
  }
};

struct Erf {
  static constexpr const char* name = "erf";
  template <class T>
  static FASTMLP_FN T forward(T x, T) {
    return erf(x);
  }
};

// Whatever goes element by element, numbered such that an activation has the same place in both.
using Functions = Activations::With<Exp, Log, Erf>;

// An activation, or another function, as data: its place in `Functions` and its parameter.
struct Activation {
  int index = 0;  // identity
  double parameter = 0;

  bool is_identity() const { return index == 0; }
};

inline bool derivative_from_output(const Activation& activation) {
  bool result = true;
  Activations::visit(activation.index, [&](auto kind) { result = decltype(kind)::from_output; });
  return result;
}

}  // namespace fastmlp
