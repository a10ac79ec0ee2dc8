// All losses, each formula written once, as templates over a value type (see activation.h).
//
// An elementwise loss has `value(prediction, target)` and `derivative(prediction, target)`; a row's
// loss is the mean over its outputs. Cross-entropy couples the outputs of a row: the backend finds
// the row's maximum m and s = sum_j exp(z_j - m), and the formulas here do the rest, always from
// the logits and never as the logarithm of a probability.
#pragma once

#include "core/activation.h"
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

// On logits: max(z, 0) - z t + log(1 + exp(-|z|)).
struct BinaryCrossEntropy {
  static constexpr const char* name = "binary_cross_entropy";
  static constexpr bool elementwise = true;
  template <class T>
  static FASTMLP_FN T value(T z, T t) {
    // In this order nothing cancels where a confident answer is right.
    return (at_least(z, T(0)) - z * t) + log1p(exp_bounded(T(0) - absolute(z)));
  }
  // sigmoid(z) - t = (1 - t) sigmoid(z) - t sigmoid(-z), where again nothing cancels.
  template <class T>
  static FASTMLP_FN T derivative(T z, T t) {
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
  static FASTMLP_FN T value(T y, T t) {
    return (y - t) * (y - t);
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T t) {
    return T(2) * (y - t);
  }
};

// The derivative at 0 is 0, as in PyTorch.
struct MeanAbsoluteError {
  static constexpr const char* name = "mae";
  static constexpr bool elementwise = true;
  template <class T>
  static FASTMLP_FN T value(T y, T t) {
    const T e = y - t;
    return select(e < T(0), T(0) - e, e);
  }
  template <class T>
  static FASTMLP_FN T derivative(T y, T t) {
    const T e = y - t;
    return select(e > T(0), T(1), select(e < T(0), T(-1), e));
  }
};

using Losses = FormulaList<CrossEntropy, BinaryCrossEntropy, MeanSquaredError, MeanAbsoluteError>;

}  // namespace fastmlp
