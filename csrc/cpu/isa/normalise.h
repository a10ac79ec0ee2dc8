// Batch and layer normalisation. Sums over rows are taken in blocks of rows, so that the error of a
// sum does not grow with the length of the batch.
#pragma once

#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

constexpr std::int64_t row_block = 64, column_block = 256;

// Calls f(first, count) for each block of up to `block` out of n.
template <class F>
FASTMLP_FN void for_blocks(std::int64_t n, std::int64_t block, F&& f) {
  for (std::int64_t i = 0; i < n; i += block) f(i, n - i < block ? n - i : block);
}

// The mean of f(i) over the rows i.
template <class T, class F>
FASTMLP_FN Vec<T> mean_over_rows(std::int64_t rows, F&& f) {
  using V = Vec<T>;
  V sum(0);
  for_blocks(rows, row_block, [&](std::int64_t first, std::int64_t count) {
    V part(0);
    for (std::int64_t i = first; i < first + count; ++i) part = part + f(i);
    sum = sum + part;
  });
  return sum / V(double(rows));
}

// The mean over a row of what f(column, lanes) gives.
template <class T, class F>
FASTMLP_FN T mean_over_columns(std::int64_t cols, F&& f) {
  using V = Vec<T>;
  V sum(0);
  for_columns<T>(cols, [&](std::int64_t j, auto n) { sum = sum + f(j, n).first(n, T(0)); });
  return sum.sum() / T(cols);
}

template <class T>
void statistics(T* mean, T* variance, Rows<const T> x, std::int64_t rows, std::int64_t cols,
                bool by_row) {
  using V = Vec<T>;
  if (by_row) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const T* row = x[i];
      mean[i] = mean_over_columns<T>(cols, [&](auto j, auto n) { return V::load(row + j, n); });
      const V m = V::broadcast(mean[i]);
      variance[i] = mean_over_columns<T>(cols, [&](auto j, auto n) {
        const V d = V::load(row + j, n) - m;
        return d * d;
      });
    }
  } else {
    for_columns<T>(cols, [&](std::int64_t j, auto n) {
      const V m = mean_over_rows<T>(rows, [&](auto i) { return V::load(x[i] + j, n); });
      m.store(mean + j, n);
      mean_over_rows<T>(rows, [&](auto i) {
        const V d = V::load(x[i] + j, n) - m;
        return d * d;
      }).store(variance + j, n);
    });
  }
}

// Of a row's or a column's variance.
template <class V>
FASTMLP_FN V inverse_deviation(V variance, double epsilon) {
  return V(1) / sqrt(variance + V(epsilon));
}

template <class T>
void normalise(Rows<T> y, Rows<const T> x, const T* mean, const T* variance, const T* gamma,
               const T* beta, double epsilon, std::int64_t rows, std::int64_t cols, bool by_row) {
  using V = Vec<T>;
  if (by_row) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const V m = V::broadcast(mean[i]),
              inverse = inverse_deviation(V::broadcast(variance[i]), epsilon);
      const T* in = x[i];
      T* out = y[i];
      for_columns<T>(cols, [&](std::int64_t j, auto n) {
        V value = (V::load(in + j, n) - m) * inverse;
        if (gamma) value = fma(value, V::load(gamma + j, n), V::load(beta + j, n));
        value.store(out + j, n);
      });
    }
    return;
  }
  for_blocks(cols, column_block, [&](std::int64_t first, std::int64_t count) {
    T factor[column_block + V::lanes];
    for_columns<T>(count, [&](std::int64_t j, auto n) {
      V f = inverse_deviation(V::load(variance + first + j, n), epsilon);
      if (gamma) f = f * V::load(gamma + first + j, n);
      f.store(factor + j);
    });
    const T *m = mean + first, *shift = beta ? beta + first : nullptr;
    for_block<T>(rows, count, [&](std::int64_t i, std::int64_t j, auto n) {
      const V d = V::load(x[i] + first + j, n) - V::load(m + j, n), f = V::load(factor + j, n);
      (shift ? fma(d, f, V::load(shift + j, n)) : d * f).store(y[i] + first + j, n);
    });
  });
}

template <class T>
void normalise_sums(T* gamma_sum, T* beta_sum, Rows<const T> dy, Rows<const T> x, const T* mean,
                    const T* variance, double epsilon, std::int64_t rows, std::int64_t cols,
                    bool by_row) {
  using V = Vec<T>;
  for_blocks(rows, row_block, [&](std::int64_t first, std::int64_t count) {
    T inverse[row_block + V::lanes];  // of the rows
    if (by_row)
      for_columns<T>(count, [&](std::int64_t i, auto n) {
        inverse_deviation(V::load(variance + first + i, n), epsilon).store(inverse + i);
      });
    for_columns<T>(cols, [&](std::int64_t j, auto n) {
      V products(0), sum(0);
      const V m = by_row ? V(0) : V::load(mean + j, n);
      for (std::int64_t i = 0; i < count; ++i) {
        const V g = V::load(dy[first + i] + j, n);
        const V value = V::load(x[first + i] + j, n);
        const V d =
            by_row ? (value - V::broadcast(mean[first + i])) * V::broadcast(inverse[i]) : value - m;
        products = fma(g, d, products);
        sum = sum + g;
      }
      if (!by_row) products = products * inverse_deviation(V::load(variance + j, n), epsilon);
      if (first > 0) {
        products = products + V::load(gamma_sum + j, n);
        sum = sum + V::load(beta_sum + j, n);
      }
      products.store(gamma_sum + j, n);
      sum.store(beta_sum + j, n);
    });
  });
}

// With statistics of the row: h = gamma dy, dx = (h - mean(h) - x mean(h x)) / deviation, where x
// is what Normalise made of the row before gamma and beta.
template <class T>
void layer_normalise_backward(Rows<T> dx, Rows<const T> dy, Rows<const T> x, const T* mean,
                              const T* variance, const T* gamma, double epsilon, std::int64_t rows,
                              std::int64_t cols) {
  using V = Vec<T>;
  for (std::int64_t i = 0; i < rows; ++i) {
    const V m = V::broadcast(mean[i]),
            inverse = inverse_deviation(V::broadcast(variance[i]), epsilon);
    const T *in = x[i], *g = dy[i];
    auto h = [&](std::int64_t j, auto n) {
      const V gradient = V::load(g + j, n);
      return gamma ? gradient * V::load(gamma + j, n) : gradient;
    };
    auto normal = [&](std::int64_t j, auto n) { return (V::load(in + j, n) - m) * inverse; };
    const V mean_h = V::broadcast(mean_over_columns<T>(cols, h));
    const V mean_product = V::broadcast(
        mean_over_columns<T>(cols, [&](std::int64_t j, auto n) { return h(j, n) * normal(j, n); }));
    for_columns<T>(cols, [&](std::int64_t j, auto n) {
      ((h(j, n) - mean_h - normal(j, n) * mean_product) * inverse).store(dx[i] + j, n);
    });
  }
}

// With statistics of the column, over a batch of n rows: with f = gamma / deviation,
// dx = f (dy - beta_sum / n - x gamma_sum / n); of given statistics, dx = f dy.
template <class T>
void normalise_backward(Rows<T> dx, Rows<const T> dy, Rows<const T> x, const T* mean,
                        const T* variance, const T* gamma, const T* gamma_sum, const T* beta_sum,
                        double epsilon, std::int64_t rows, std::int64_t cols, std::int64_t batch,
                        bool by_row) {
  using V = Vec<T>;
  if (by_row)
    return layer_normalise_backward(dx, dy, x, mean, variance, gamma, epsilon, rows, cols);
  for_blocks(cols, column_block, [&](std::int64_t first, std::int64_t count) {
    T factor[column_block + V::lanes], constant[column_block + V::lanes],
        slope[column_block + V::lanes];
    for_columns<T>(count, [&](std::int64_t j, auto n) {
      const V inverse = inverse_deviation(V::load(variance + first + j, n), epsilon);
      const V f = gamma ? inverse * V::load(gamma + first + j, n) : inverse;
      f.store(factor + j);
      if (!batch) return;
      const V share = f / V(double(batch));
      (share * V::load(beta_sum + first + j, n)).store(constant + j);
      (share * inverse * V::load(gamma_sum + first + j, n)).store(slope + j);
    });
    for_block<T>(rows, count, [&](std::int64_t i, std::int64_t j, auto n) {
      V value = V::load(dy[i] + first + j, n) * V::load(factor + j, n);
      if (batch) {
        const V d = V::load(x[i] + first + j, n) - V::load(mean + first + j, n);
        value = value - V::load(constant + j, n) - d * V::load(slope + j, n);
      }
      value.store(dx[i] + first + j, n);
    });
  });
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
