// What works on whole rows: softmax, the losses with their gradients, and metrics.
#pragma once

#include "cpu/isa/transpose.h"
#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// NaN may be passed over: it comes back with exp(x - max).
template <class T>
FASTMLP_FN T row_max(const T* x, std::int64_t cols) {
  using V = Vec<T>;
  V top(-HUGE_VAL);
  for_columns<T>(cols, [&](std::int64_t j, auto n) {
    top = at_least(V::load(x + j, n).first(n, T(-HUGE_VAL)), top);
  });
  return top.max();
}

// The sum of exp(x - max), which y receives where it is wanted.
template <class T>
FASTMLP_FN T shifted_exp(T* y, const T* x, T max, std::int64_t cols) {
  using V = Vec<T>;
  V sum(0);
  for_columns<T>(cols, [&](std::int64_t j, auto n) {
    const V e = exp_bounded(V::load(x + j, n) - V::broadcast(max));
    if (y) e.store(y + j, n);
    sum = sum + e.first(n, T(0));
  });
  return sum.sum();
}

// Rows are taken by the vector, stage by stage: one logarithm or division serves them all, and a
// row does not wait for the end of the one before.
template <class T>
struct SoftmaxRows {
  static constexpr int lanes = Vec<T>::lanes;
  T max[lanes], sum[lanes], inverse[lanes];

  // `count` rows from x on; exp(x - max) goes to y where that is there.
  FASTMLP_FN SoftmaxRows(Rows<T> y, Rows<const T> x, int count, std::int64_t cols) {
    for (int i = 0; i < count; ++i) max[i] = row_max(x[i], cols);
    for (int i = 0; i < count; ++i) sum[i] = shifted_exp(y ? y[i] : nullptr, x[i], max[i], cols);
    for (int i = count; i < lanes; ++i) sum[i] = T(1);
    (Vec<T>(1) / Vec<T>::load(sum)).store(inverse);
  }
};

// Calls f(first row, number of rows) for each vector's worth of rows.
template <class T, class F>
FASTMLP_FN void for_rows(std::int64_t rows, F&& f) {
  constexpr int lanes = Vec<T>::lanes;
  for (std::int64_t i = 0; i < rows; i += lanes) f(i, rows - i < lanes ? int(rows - i) : lanes);
}

template <class T>
void softmax(Rows<T> y, Rows<const T> x, std::int64_t rows, std::int64_t cols, bool logarithm) {
  using V = Vec<T>;
  for_rows<T>(rows, [&](std::int64_t first, int count) {
    const SoftmaxRows<T> row(logarithm ? Rows<T>{} : Rows<T>{y[first], y.stride},
                             {x[first], x.stride}, count, cols);
    T log_sum[V::lanes];
    if (logarithm) log(V::load(row.sum)).store(log_sum);
    for (int i = 0; i < count; ++i) {
      const T* in = x[first + i];
      T* out = y[first + i];
      for_columns<T>(cols, [&](std::int64_t j, auto n) {
        const V value =
            logarithm ? V::load(in + j, n) - V::broadcast(row.max[i]) - V::broadcast(log_sum[i])
                      : V::load(out + j, n) * V::broadcast(row.inverse[i]);
        value.store(out + j, n);
      });
    }
  });
}

template <class T>
void softmax_backward(Rows<T> dx, Rows<const T> dy, Rows<const T> y, std::int64_t rows,
                      std::int64_t cols, bool logarithm) {
  using V = Vec<T>;
  for (std::int64_t i = 0; i < rows; ++i) {
    V sum(0);
    for_columns<T>(cols, [&](std::int64_t j, auto n) {
      const V g = V::load(dy[i] + j, n);
      sum = logarithm ? sum + g : fma(g, V::load(y[i] + j, n), sum);
    });
    const V all(sum.sum());
    for_columns<T>(cols, [&](std::int64_t j, auto n) {
      const V g = V::load(dy[i] + j, n), value = V::load(y[i] + j, n);
      (logarithm ? g - exp(value) * all : value * (g - all)).store(dx[i] + j, n);
    });
  }
}

// Rows of few columns side by side, a lane for each: no vector is partly empty, and nothing has to
// be added up across lanes. Of fewer rows than lanes the last one is there several times.
template <class T>
struct NarrowRows {
  using V = Vec<T>;
  static constexpr std::int64_t most_columns = 12;
  static constexpr bool by_strips = V::lanes % strip_rows<T> == 0;
  alignas(64) T column[most_columns][V::lanes];

  FASTMLP_FN NarrowRows(Rows<const T> x, int count, std::int64_t cols) {
    const T* row[V::lanes];
    for (int i = 0; i < V::lanes; ++i) row[i] = x[i < count ? i : count - 1];
    std::int64_t j = 0;
    for (; by_strips && j + strip_depth<T> <= cols; j += strip_depth<T>)
      for (int i = 0; i < V::lanes; i += strip_rows<T>)
        transpose_strip(column[j] + i, V::lanes, row + i, j);
    for (; j < cols; ++j)
      for (int i = 0; i < V::lanes; ++i) column[j][i] = row[i][j];
  }
  FASTMLP_FN V operator[](std::int64_t j) const { return V::load(column[j]); }

  FASTMLP_FN void write(Rows<T> y, int count, std::int64_t cols) const {
    std::int64_t j = 0;
    if (by_strips && count == V::lanes) {
      T* row[V::lanes];
      for (int i = 0; i < V::lanes; ++i) row[i] = y[i];
      for (; j + strip_depth<T> <= cols; j += strip_depth<T>)
        for (int i = 0; i < V::lanes; i += strip_rows<T>)
          transpose_back(column[j] + i, V::lanes, row + i, j);
    }
    for (; j < cols; ++j)
      for (int i = 0; i < count; ++i) y[i][j] = column[j][i];
  }
};

// Cross-entropy against labels, of few columns.
template <class T>
FASTMLP_FN void narrow_cross_entropy(T* row_loss, Rows<T> gradient, Rows<const T> prediction,
                                     const std::int32_t* label, const T* weight, std::int64_t rows,
                                     std::int64_t cols, double divisor) {
  using V = Vec<T>;
  for_rows<T>(rows, [&](std::int64_t first, int count) {
    NarrowRows<T> z({prediction[first], prediction.stride}, count, cols);
    T right[V::lanes], right_exp[V::lanes], scale[V::lanes], weights[V::lanes];
    for (int i = 0; i < V::lanes; ++i) {
      const std::int64_t at = first + (i < count ? i : count - 1);
      right[i] = prediction[at][label[at]];
      weights[i] = weight ? weight[at] : T(1);
      scale[i] = T(double(weights[i]) / divisor);
    }
    V max(-HUGE_VAL), sum(0);
    for (std::int64_t j = 0; j < cols; ++j) max = at_least(z[j], max);
    for (std::int64_t j = 0; j < cols; ++j) {
      const V e = exp_bounded(z[j] - max);
      e.store(z.column[j]);
      sum = sum + e;
    }
    const V loss = V::load(weights) * CrossEntropy::value(V::load(right) - max, log(sum), V(1));
    T losses[V::lanes];
    loss.store(losses);
    for (int i = 0; i < count; ++i) row_loss[first + i] = losses[i];
    if (!gradient) return;
    for (int i = 0; i < count; ++i) right_exp[i] = z.column[label[first + i]][i];
    const V inverse = V(1) / sum, scales = V::load(scale);
    for (std::int64_t j = 0; j < cols; ++j)
      (scales * CrossEntropy::derivative(z[j] * inverse, V(0), V(1))).store(z.column[j]);
    T inverses[V::lanes];
    inverse.store(inverses);
    for (int i = 0; i < count; ++i)
      z.column[label[first + i]][i] =
          scale[i] * CrossEntropy::derivative(right_exp[i] * inverses[i], T(1), T(1));
    z.write({gradient[first], gradient.stride}, count, cols);
  });
}

// One row's loss against a row of probabilities t, 0 where that is not there, and their sum, once
// they are smoothed.
template <class T>
FASTMLP_FN T cross_entropy_row(const T* z, const T* t, LabelSmoothing<Vec<T>> smoothed, T max,
                               T log_sum, T& target_sum, std::int64_t cols) {
  using V = Vec<T>;
  V loss(0), targets(0);
  for_columns<T>(cols, [&](std::int64_t j, auto n) {
    const V target = smoothed(t ? V::load(t + j, n) : V(0)),
            shifted = V::load(z + j, n) - V::broadcast(max);
    loss = loss + CrossEntropy::value(shifted, V::broadcast(log_sum), target).first(n, T(0));
    targets = targets + target.first(n, T(0));
  });
  target_sum = targets.sum();
  return loss.sum();
}

template <class T>
FASTMLP_FN void cross_entropy(T* row_loss, Rows<T> gradient, Rows<const T> prediction,
                              Targets<T> target, const T* weight, std::int64_t rows,
                              std::int64_t cols, double smoothing, double divisor) {
  using V = Vec<T>;
  if (target.labels && smoothing == 0 && cols <= NarrowRows<T>::most_columns)
    return narrow_cross_entropy(row_loss, gradient, prediction, target.labels, weight, rows, cols,
                                divisor);
  const LabelSmoothing<V> smoothed(smoothing, cols);
  const LabelSmoothing<T> of_label(smoothing, cols);
  for_rows<T>(rows, [&](std::int64_t first, int count) {
    const Rows<const T> z{prediction[first], prediction.stride};
    const Rows<T> g{gradient ? gradient[first] : nullptr, gradient.stride};
    const SoftmaxRows<T> row(g, z, count, cols);
    T log_sum[V::lanes];
    log(V::load(row.sum)).store(log_sum);
    for (int i = 0; i < count; ++i) {
      const T w = weight ? weight[first + i] : T(1);
      const std::int32_t label = target.labels ? target.labels[first + i] : -1;
      const T* t = target.labels ? nullptr : target.values[first + i];
      T loss(0), target_sum(1);
      if (t || smoothing != 0)
        loss = cross_entropy_row(z[i], t, smoothed, row.max[i], log_sum[i], target_sum, cols);
      if (!t) {
        loss += CrossEntropy::value(z[i][label] - row.max[i], log_sum[i], of_label.keep);
        target_sum = T(1);
      }
      row_loss[first + i] = w * loss;
      if (!g) continue;
      const T scale = T(double(w) / divisor), right = t ? T(0) : g[i][label] * row.inverse[i];
      for_columns<T>(cols, [&](std::int64_t j, auto n) {
        const V p = V::load(g[i] + j, n) * V::broadcast(row.inverse[i]);
        const V target = smoothed(t ? V::load(t + j, n) : V(0));
        const V d = CrossEntropy::derivative(p, target, V(target_sum));
        (V::broadcast(scale) * d).store(g[i] + j, n);
      });
      if (!t) g[i][label] = scale * CrossEntropy::derivative(right, of_label(T(1)), T(1));
    }
  });
}

// A row's loss is the mean over its outputs, or their sum.
template <class T, class Kind>
FASTMLP_FN void elementwise_loss(T* row_loss, Rows<T> gradient, Rows<const T> prediction,
                                 Rows<const T> target, const T* weight, std::int64_t rows,
                                 std::int64_t cols, const LossFunction& function, double divisor) {
  using V = Vec<T>;
  const V a(function.parameter);
  const double row_divisor = function.row_divisor(cols);
  for (std::int64_t i = 0; i < rows; ++i) {
    const T w = weight ? weight[i] : T(1);
    const V scale(double(w) / (divisor * row_divisor));
    V sum(0);
    for_columns<T>(cols, [&](std::int64_t j, auto n) {
      const V y = V::load(prediction[i] + j, n), t = V::load(target[i] + j, n);
      sum = sum + Kind::value(y, t, a).first(n, T(0));
      if (gradient) (scale * Kind::derivative(y, t, a)).store(gradient[i] + j, n);
    });
    row_loss[i] = w * sum.sum() / T(row_divisor);
  }
}

template <class T>
void loss(T* row_loss, Rows<T> gradient, Rows<const T> prediction, Targets<T> target,
          const T* weight, std::int64_t rows, std::int64_t cols, const LossFunction& function,
          double divisor) {
  Losses::visit(function.index, [&](auto kind) {
    using Kind = decltype(kind);
    if constexpr (Kind::elementwise)
      elementwise_loss<T, Kind>(row_loss, gradient, prediction, target.values, weight, rows, cols,
                                function, divisor);
    else
      cross_entropy(row_loss, gradient, prediction, target, weight, rows, cols, function.parameter,
                    divisor);
  });
}

// Of the first largest element; -1 where there is NaN, which predicts nothing.
template <class T>
FASTMLP_FN std::int64_t argmax(const T* x, std::int64_t cols) {
  using V = Vec<T>;
  V top(-HUGE_VAL), nan(0);
  for_columns<T>(cols, [&](std::int64_t j, auto n) {
    const V z = V::load(x + j, n).first(n, T(-HUGE_VAL));
    top = at_least(z, top);
    nan = select(z == z, nan, z);
  });
  if (nan.sum() != T(0)) return -1;
  const T max = top.max();
  std::int64_t best = 0;
  while (x[best] != max) ++best;
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

// Accuracy against labels, of few columns.
template <class T>
FASTMLP_FN void narrow_accuracy(T* row_value, Rows<const T> prediction, const std::int32_t* label,
                                std::int64_t rows, std::int64_t cols) {
  using V = Vec<T>;
  for_rows<T>(rows, [&](std::int64_t first, int count) {
    const NarrowRows<T> z({prediction[first], prediction.stride}, count, cols);
    T labels[V::lanes], right[V::lanes];
    for (int i = 0; i < V::lanes; ++i) labels[i] = T(label[first + (i < count ? i : count - 1)]);
    V top(-HUGE_VAL), best(0), known(1);
    for (std::int64_t j = 0; j < cols; ++j) {
      const auto larger = z[j] > top;
      top = select(larger, z[j], top);
      best = select(larger, V(double(j)), best);
      known = select(z[j] == z[j], known, V(0));
    }
    select(best == V::load(labels), known, V(0)).store(right);
    for (int i = 0; i < count; ++i) row_value[first + i] = right[i];
  });
}

template <class T>
void metric(T* row_value, Rows<const T> prediction, Targets<T> target, std::int64_t rows,
            std::int64_t cols, const Metric& metric) {
  const int index = metric.kind == MetricKind::mse ? Losses::index_of<MeanSquaredError>()
                                                   : Losses::index_of<MeanAbsoluteError>();
  if (metric.kind != MetricKind::accuracy)
    return loss<T>(row_value, {}, prediction, target, nullptr, rows, cols, LossFunction{index}, 1);
  if (!metric.elementwise && target.labels && cols <= NarrowRows<T>::most_columns)
    return narrow_accuracy(row_value, prediction, target.labels, rows, cols);
  for (std::int64_t i = 0; i < rows; ++i)
    row_value[i] = accuracy_row<T>(prediction[i], target.labels ? target.labels + i : nullptr,
                                   target.labels ? nullptr : target.values[i], cols, metric);
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
