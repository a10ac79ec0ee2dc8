// All losses, each formula written once, as templates over a value type (see activation.h).
//
// An elementwise loss has `value(prediction, target, a)` and `derivative(prediction, target, a)`,
// where `a` is its one parameter, if any; a row's loss is the mean over its outputs. Cross-entropy
// couples the outputs of a row: the backend finds the row's maximum m and s = sum_j exp(z_j - m),
// and the formulas here do the rest, always from the logits and never as the logarithm of a
// probability.
#pragma once

#include <cstdint>

#include "core/formula_list.h"
#include "core/math.h"
#include "core/portable.h"

namespace fastmlp {

// Softmax and cross-entropy in one, on logits z; the target is a label or a row of probabilities t:
// loss = sum_j t_j (log s - (z_j - m)), gradient = p sum_j t_j - t with p_j = exp(z_j - m) / s.
struct CrossEntropy {
  static constexpr const char* name = "cross_entropy";
  static constexpr bool elementwise = false;
  // One output's share of the loss. A target of 0 contributes nothing, even where z is -inf.
  template <class T>
  static FASTMLP_FN T value(T shifted, T log_sum, T target) {
    return select(target == T(0), T(0), target * (log_sum - shifted));
  }
  template <class T>
  static FASTMLP_FN T derivative(T probability, T target, T target_sum) {
    return probability * target_sum - target;
  }
};

// Label smoothing (Szegedy et al. 2016, arXiv:1512.00567), the parameter of cross-entropy: each
// target gives up that share of itself, and the classes of a row get equal parts of it.
template <class T>
struct LabelSmoothing {
  T keep, part;

  FASTMLP_FN LabelSmoothing(double smoothing, std::int64_t classes)
      : keep(1 - smoothing), part(smoothing / double(classes)) {}

  FASTMLP_FN T operator()(T target) const { return fma(keep, target, part); }
};

// On logits: max(z, 0) - z t + log(1 + exp(-|z|)).
struct BinaryCrossEntropy {
  static constexpr const char* name = "binary_cross_entropy";
  static constexpr bool elementwise = true;
  template <class T>
  static FASTMLP_FN T value(T z, T t, T) {
    // In this order nothing cancels where a confident answer is right.
    return (at_least(z, T(0)) - z * t) + log1p(exp_bounded(T(0) - absolute(z)));
  }
  // sigmoid(z) - t = (1 - t) sigmoid(z) - t sigmoid(-z), where again nothing cancels.
  template <class T>
  static FASTMLP_FN T derivative(T z, T t, T) {
    const T e = exp_bounded(T(0) - absolute(z));
    const T larger = T(1) / (T(1) + e), smaller = e * larger;
    const T yes = select(z < T(0), smaller, larger), no = select(z < T(0), larger, smaller);
    return (T(1) - t) * yes - t * no;
  }
};

struct MeanSquaredError {
  static constexpr const char* name = "mse";
  static constexpr bool elementwise = true;
  template <class T>
  static FASTMLP_FN T value(T y, T t, T) {
    return (y - t) * (y - t);
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T t, T) {
    return T(2) * (y - t);
  }
};

// The derivative at 0 is 0, as in PyTorch.
struct MeanAbsoluteError {
  static constexpr const char* name = "mae";
  static constexpr bool elementwise = true;
  template <class T>
  static FASTMLP_FN T value(T y, T t, T) {
    const T e = y - t;
    return select(e < T(0), T(0) - e, e);
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T t, T) {
    const T e = y - t;
    return select(e > T(0), T(1), select(e < T(0), T(-1), e));
  }
};

// Quadratic up to an error of a, linear beyond: Huber 1964, in PyTorch's form.
struct Huber {
  static constexpr const char* name = "huber";
  static constexpr bool elementwise = true;
  template <class T>
  static FASTMLP_FN T value(T y, T t, T a) {
    const T e = absolute(y - t);
    return select(e <= a, T(0.5) * e * e, a * (e - T(0.5) * a));
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T t, T a) {
    const T e = y - t;
    return select(e > a, a, select(e < T(0) - a, T(0) - a, e));
  }
};

// max(0, 1 - t y) for targets of -1 and 1.
struct Hinge {
  static constexpr const char* name = "hinge";
  static constexpr bool elementwise = true;
  template <class T>
  static FASTMLP_FN T value(T y, T t, T) {
    return at_least(T(1) - t * y, T(0));
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T t, T) {
    const T missing = T(1) - t * y;
    return select(missing > T(0), T(0) - t, select(missing <= T(0), T(0), missing));
  }
};

// max(0, -t y) for targets of -1 and 1. On the line itself the derivative is -t, not 0, so that
// gradient descent on it is Rosenblatt's rule (1958): whatever is not right yet is learned.
struct Perceptron {
  static constexpr const char* name = "perceptron";
  static constexpr bool elementwise = true;
  template <class T>
  static FASTMLP_FN T value(T y, T t, T) {
    return at_least(T(0) - t * y, T(0));
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T t, T) {
    const T agreement = t * y;
    return select(agreement <= T(0), T(0) - t, select(agreement > T(0), T(0), agreement));
  }
};

using Losses = FormulaList<CrossEntropy, BinaryCrossEntropy, MeanSquaredError, MeanAbsoluteError,
                           Huber, Hinge, Perceptron>;

// A loss as data: its place in `Losses`, its parameter, and whether the losses of all elements are
// added up, where they are averaged otherwise.
struct LossFunction {
  int index = 0;
  double parameter = 0;
  bool sum = false;

  // What the sum over a row's outputs is divided by.
  FASTMLP_FN double row_divisor(std::int64_t outputs) const { return sum ? 1 : double(outputs); }
};

}  // namespace fastmlp
