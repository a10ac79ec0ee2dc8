// What works on whole rows, a warp to a row: softmax, the losses with their gradients, metrics.
#pragma once

#include "core/loss.h"
#include "cuda/execution.cuh"

namespace fastmlp::cuda {

template <class T>
FASTMLP_DEVICE T row_max(const Block& block, const T* x, std::int64_t cols) {
  T top = T(-HUGE_VAL);
  block.each_column(cols, [&](std::int64_t j) { top = at_least(x[j], top); });
  return over_warp(top, [](T a, T b) { return at_least(a, b); });
}

// The sum of exp(x - max), which y receives where it is wanted.
template <class T>
FASTMLP_DEVICE T shifted_exp(const Block& block, T* y, const T* x, T max, std::int64_t cols) {
  T sum = T(0);
  block.each_column(cols, [&](std::int64_t j) {
    const T e = exp_bounded(x[j] - max);
    if (y) y[j] = e;
    sum += e;
  });
  return warp_sum(sum);
}

template <class T>
FASTMLP_DEVICE void execute(const Softmax& record, const Block& block) {
  const auto y = block.matrix<T>(record.out);
  const auto x = block.matrix<const T>(record.in);
  const std::int64_t cols = record.in.cols;
  block.each_row(block.rows(record.in), [&](std::int64_t i) {
    const T max = row_max(block, x[i], cols);
    T* const exponentials = record.logarithm ? nullptr : y[i];
    const T sum = shifted_exp(block, exponentials, x[i], max, cols);
    const T inverse = T(1) / sum, log_sum = log(sum);
    block.each_column(cols, [&](std::int64_t j) {
      y[i][j] = record.logarithm ? x[i][j] - max - log_sum : y[i][j] * inverse;
    });
  });
}

template <class T>
FASTMLP_DEVICE void execute(const SoftmaxBackward& record, const Block& block) {
  const auto dx = block.matrix<T>(record.out);
  const auto dy = block.matrix<const T>(record.gradient), y = block.matrix<const T>(record.y);
  const std::int64_t cols = record.gradient.cols;
  const bool logarithm = record.logarithm;
  block.each_row(block.rows(record.gradient), [&](std::int64_t i) {
    T sum = T(0);
    block.each_column(cols, [&](std::int64_t j) {
      sum = logarithm ? sum + dy[i][j] : fma(dy[i][j], y[i][j], sum);
    });
    sum = warp_sum(sum);
    block.each_column(cols, [&](std::int64_t j) {
      dx[i][j] = logarithm ? dy[i][j] - exp(y[i][j]) * sum : y[i][j] * (dy[i][j] - sum);
    });
  });
}

// One row of cross-entropy; `t` is its row of probabilities, or null where there is a label.
template <class T>
FASTMLP_DEVICE T cross_entropy_row(const Block& block, T* g, const T* z, const T* t,
                                   std::int32_t label, T scale, std::int64_t cols) {
  const T max = row_max(block, z, cols);
  const T sum = shifted_exp<T>(block, nullptr, z, max, cols);
  const T log_sum = log(sum), inverse = T(1) / sum;
  T loss = T(0), targets = T(0);
  block.each_column(cols, [&](std::int64_t j) {
    const T target = t ? t[j] : T(j == label);
    loss += CrossEntropy::value(z[j] - max, log_sum, target);
    targets += target;
  });
  loss = warp_sum(loss);
  targets = warp_sum(targets);
  if (g) {
    block.each_column(cols, [&](std::int64_t j) {
      const T p = exp_bounded(z[j] - max) * inverse;
      g[j] = scale * CrossEntropy::derivative(p, t ? t[j] : T(j == label), targets);
    });
  }
  return loss;
}

template <class T, class Kind>
FASTMLP_DEVICE T elementwise_row(const Block& block, T* g, const T* y, const T* t, T scale,
                                 std::int64_t cols) {
  T sum = T(0);
  block.each_column(cols, [&](std::int64_t j) {
    const T prediction = y[j], target = t[j];  // g may be y
    sum += Kind::value(prediction, target);
    if (g) g[j] = scale * Kind::derivative(prediction, target);
  });
  return warp_sum(sum) / T(cols);
}

// Of the losses in core/loss.h, by its number; an argument that is not needed is null.
template <class T>
FASTMLP_DEVICE void losses(const Block& block, int index, T* row_loss, Rows<T> gradient,
                           Rows<const T> prediction, const std::int32_t* labels,
                           Rows<const T> values, const T* weight, double divisor, std::int64_t rows,
                           std::int64_t cols) {
  block.each_row(rows, [&](std::int64_t i) {
    const T w = weight ? weight[i] : T(1);
    T* const g = gradient ? gradient[i] : nullptr;
    T loss = T(0);
    Losses::visit(index, [&](auto kind) {
      using Kind = decltype(kind);
      if constexpr (Kind::elementwise)
        loss = elementwise_row<T, Kind>(block, g, prediction[i], values[i],
                                        T(double(w) / (divisor * double(cols))), cols);
      else
        loss = cross_entropy_row<T>(block, g, prediction[i], labels ? nullptr : values[i],
                                    labels ? labels[i] : -1, T(double(w) / divisor), cols);
    });
    if (block.lane() == 0) row_loss[i] = w * loss;
  });
}

template <class T>
FASTMLP_DEVICE const std::int32_t* labels_of(const Block& block, const Operand& target) {
  return target.dtype == DType::int32 ? block.data<const std::int32_t>(target) : nullptr;
}

template <class T>
FASTMLP_DEVICE void execute(const Loss& record, const Block& block) {
  const std::int64_t rows = block.rows(record.prediction);
  losses<T>(block, record.loss, block.data<T>(record.row_loss), block.matrix<T>(record.gradient),
            block.matrix<const T>(record.prediction), labels_of<T>(block, record.target),
            block.matrix<const T>(record.target), block.data<const T>(record.weight),
            record.divisor != 0 ? record.divisor : double(rows), rows, record.prediction.cols);
}

// Of the first largest element; -1 where there is NaN, which predicts nothing.
template <class T>
FASTMLP_DEVICE std::int64_t argmax(const Block& block, const T* x, std::int64_t cols) {
  T top = T(-HUGE_VAL), nan = T(0);
  block.each_column(cols, [&](std::int64_t j) {
    top = at_least(x[j], top);
    nan += T(x[j] != x[j]);
  });
  top = over_warp(top, [](T a, T b) { return at_least(a, b); });
  std::int64_t first = cols;
  block.each_column(cols, [&](std::int64_t j) {
    if (x[j] == top && j < first) first = j;
  });
  first = over_warp(first, [](std::int64_t a, std::int64_t b) { return a < b ? a : b; });
  return warp_sum(nan) != T(0) ? -1 : first;
}

template <class T>
FASTMLP_DEVICE T accuracy_row(const Block& block, const Metric& record, const T* y,
                              const std::int32_t* label, const T* values, std::int64_t cols) {
  if (!record.elementwise) {
    const std::int64_t best = argmax(block, y, cols);
    return T(best == (label ? std::int64_t(*label) : argmax(block, values, cols)));
  }
  T right = T(0);
  block.each_column(cols, [&](std::int64_t j) {
    right += T(y[j] == y[j] && (y[j] > T(record.threshold)) == (values[j] > T(0.5)));
  });
  return warp_sum(right) / T(cols);
}

template <class T>
FASTMLP_DEVICE void execute(const Metric& record, const Block& block) {
  const std::int64_t rows = block.rows(record.prediction), cols = record.prediction.cols;
  T* const out = block.data<T>(record.row_value);
  const auto y = block.matrix<const T>(record.prediction);
  const std::int32_t* const labels = labels_of<T>(block, record.target);
  const auto values = block.matrix<const T>(record.target);
  if (record.kind != MetricKind::accuracy) {
    const int index = record.kind == MetricKind::mse ? Losses::index_of<MeanSquaredError>()
                                                     : Losses::index_of<MeanAbsoluteError>();
    return losses<T>(block, index, out, Rows<T>{}, y, nullptr, values, nullptr, 1, rows, cols);
  }
  block.each_row(rows, [&](std::int64_t i) {
    const T value = accuracy_row<T>(block, record, y[i], labels ? labels + i : nullptr,
                                    labels ? nullptr : values[i], cols);
    if (block.lane() == 0) out[i] = value;
  });
}

}  // namespace fastmlp::cuda
