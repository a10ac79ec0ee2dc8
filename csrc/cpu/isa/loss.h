// What works on whole rows: softmax, the losses with their gradients, and metrics.
#pragma once

#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// NaN wins, so that it is seen in the result.
template <class T>
FASTMLP_FN T row_max(const T* x, std::int64_t cols) {
  using V = Vec<T>;
  V top(-HUGE_VAL);
  for_columns<T>(cols, [&](std::int64_t j, auto n) {
    const V z = V::load(x + j, n).first(n, T(-HUGE_VAL));
    top = select(z <= top, top, select(top != top, top, z));
  });
  return top.max();
}

// y = exp(x - max), and its sum.
template <class T>
FASTMLP_FN T shifted_exp(T* y, const T* x, T max, std::int64_t cols) {
  using V = Vec<T>;
  V sum(0);
  for_columns<T>(cols, [&](std::int64_t j, auto n) {
    const V e = exp(V::load(x + j, n) - V(max));
    e.store(y + j, n);
    sum = sum + e.first(n, T(0));
  });
  return sum.sum();
}

template <class T>
void softmax(Rows<T> y, Rows<const T> x, std::int64_t rows, std::int64_t cols) {
  using V = Vec<T>;
  for (std::int64_t i = 0; i < rows; ++i) {
    const V sum(shifted_exp(y[i], x[i], row_max(x[i], cols), cols));
    for_columns<T>(
        cols, [&](std::int64_t j, auto n) { (V::load(y[i] + j, n) / sum).store(y[i] + j, n); });
  }
}

template <class T>
void softmax_backward(Rows<T> dx, Rows<const T> dy, Rows<const T> y, std::int64_t rows,
                      std::int64_t cols) {
  using V = Vec<T>;
  for (std::int64_t i = 0; i < rows; ++i) {
    V dot(0);
    for_columns<T>(cols, [&](std::int64_t j, auto n) {
      dot = fma(V::load(dy[i] + j, n), V::load(y[i] + j, n), dot);
    });
    const V mean(dot.sum());
    for_columns<T>(cols, [&](std::int64_t j, auto n) {
      (V::load(y[i] + j, n) * (V::load(dy[i] + j, n) - mean)).store(dx[i] + j, n);
    });
  }
}

// One row of softmax-cross-entropy on logits z. `gradient` (cols) is scratch where none is wanted.
template <class T>
FASTMLP_FN T cross_entropy_row(T* gradient, bool wanted, const T* z, const std::int32_t* label,
                               const T* values, T scale, std::int64_t cols) {
  using V = Vec<T>;
  const T max = row_max(z, cols);
  const T sum = wanted ? shifted_exp(gradient, z, max, cols) : [&] {
    V total(0);
    for_columns<T>(cols, [&](std::int64_t j, auto n) {
      total = total + exp(V::load(z + j, n) - V(max)).first(n, T(0));
    });
    return total.sum();
  }();
  const V log_sum = log(V(sum));
  T loss, target_sum = T(1);
  if (label) {
    const V shifted(z[*label] - max);
    loss = CrossEntropy::value(shifted, log_sum, V(1)).v[0];
  } else {
    V total(0), targets(0);
    for_columns<T>(cols, [&](std::int64_t j, auto n) {
      const V t = V::load(values + j, n);
      total = total + CrossEntropy::value(V::load(z + j, n) - V(max), log_sum, t).first(n, T(0));
      targets = targets + t;
    });
    loss = total.sum();
    target_sum = targets.sum();
  }
  if (wanted) {
    for_columns<T>(cols, [&](std::int64_t j, auto n) {
      const V p = V::load(gradient + j, n) / V(sum);
      const V t = label ? V(0) : V::load(values + j, n);
      (V(scale) * CrossEntropy::derivative(p, t, V(target_sum))).store(gradient + j, n);
    });
    if (label) gradient[*label] = scale * (exp(V(z[*label] - max)) / V(sum) - V(1)).v[0];
  }
  return loss;
}

template <class T>
void loss(T* row_loss, Rows<T> gradient, Rows<const T> prediction, Targets<T> target,
          const T* weight, std::int64_t rows, std::int64_t cols, int loss_index, double divisor) {
  using V = Vec<T>;
  Losses::visit(loss_index, [&](auto kind) {
    using Kind = decltype(kind);
    for (std::int64_t i = 0; i < rows; ++i) {
      const T w = weight ? weight[i] : T(1);
      if constexpr (Kind::elementwise) {
        const V scale(double(w) / (divisor * double(cols)));
        V sum(0);
        for_columns<T>(cols, [&](std::int64_t j, auto n) {
          const V y = V::load(prediction[i] + j, n), t = V::load(target.values[i] + j, n);
          sum = sum + Kind::value(y, t).first(n, T(0));
          if (gradient) (scale * Kind::derivative(y, t)).store(gradient[i] + j, n);
        });
        row_loss[i] = w * sum.sum() / T(cols);
      } else {
        row_loss[i] = w * cross_entropy_row<T>(gradient[i], bool(gradient), prediction[i],
                                               target.labels ? target.labels + i : nullptr,
                                               target.labels ? nullptr : target.values[i],
                                               T(double(w) / divisor), cols);
      }
    }
  });
}

// Of the first largest element; -1 where there is NaN, which predicts nothing.
template <class T>
FASTMLP_FN std::int64_t argmax(const T* x, std::int64_t cols) {
  std::int64_t best = 0;
  for (std::int64_t j = 0; j < cols; ++j) {
    if (x[j] != x[j]) return -1;
    if (x[j] > x[best]) best = j;
  }
  return best;
}

template <class T>
FASTMLP_FN T accuracy_row(const T* y, const std::int32_t* label, const T* values, std::int64_t cols,
                          const Metric& metric) {
  if (!metric.elementwise) return argmax(y, cols) == (label ? *label : argmax(values, cols));
  std::int64_t right = 0;
  for (std::int64_t j = 0; j < cols; ++j)
    right += y[j] == y[j] && (y[j] > T(metric.threshold)) == (values[j] > T(0.5));
  return T(right) / T(cols);
}

template <class T>
void metric(T* row_value, Rows<const T> prediction, Targets<T> target, std::int64_t rows,
            std::int64_t cols, const Metric& metric) {
  const int index = metric.kind == MetricKind::mse ? Losses::index_of<MeanSquaredError>()
                                                   : Losses::index_of<MeanAbsoluteError>();
  if (metric.kind != MetricKind::accuracy)
    return loss<T>(row_value, {}, prediction, target, nullptr, rows, cols, index, 1);
  for (std::int64_t i = 0; i < rows; ++i)
    row_value[i] = accuracy_row<T>(prediction[i], target.labels ? target.labels + i : nullptr,
                                   target.labels ? nullptr : target.values[i], cols, metric);
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
