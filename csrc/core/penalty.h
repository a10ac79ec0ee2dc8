// What a layer's weights add to the loss: l1 |w| + l2 w^2 each, as Keras's regularizers; and the
// derivative of that, as a template over a value type.
#pragma once

#include "core/math.h"
#include "core/portable.h"

namespace fastmlp {

struct Penalty {
  double l1 = 0, l2 = 0;

  explicit operator bool() const { return l1 != 0 || l2 != 0; }

  // Of weights whose sizes and squares have these sums. What is off adds nothing, even to infinity.
  FASTMLP_FN double operator()(double sizes, double squares) const {
    return (l1 != 0 ? l1 * sizes : 0) + (l2 != 0 ? l2 * squares : 0);
  }
};

template <class T>
struct PenaltyGradient {
  T l1, twice_l2;

  FASTMLP_FN explicit PenaltyGradient(const Penalty& penalty)
      : l1(penalty.l1), twice_l2(2 * penalty.l2) {}

  // The derivative of |w| is taken as 0 at 0, so weights of 0, and padding, stay 0.
  FASTMLP_FN T operator()(T w) const {
    const T sign = select(w > T(0), l1, select(w < T(0), T(0) - l1, w));
    return fma(twice_l2, w, sign);
  }
};

}  // namespace fastmlp
