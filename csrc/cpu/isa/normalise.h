// Batch and layer normalisation. Sums over rows are taken in blocks of rows, so that the error of a
// sum does not grow with the length of the batch.
#pragma once

#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

constexpr std::int64_t row_block = 64, column_block = 256;
template <class T>
constexpr T zeros[column_block] = {};

// Calls f(first, count) for each block of up to `block` out of n.
template <class F>
FASTMLP_FN void for_blocks(std::int64_t n, std::int64_t block, F&& f) {
  for (std::int64_t i = 0; i < n; i += block) f(i, n - i < block ? n - i : block);
}

// Four sums side by side, since each addition waits for the one before it.
template <class T>
struct FourSums {
  using V = Vec<T>;
  V sum[4] = {V(0), V(0), V(0), V(0)};

  template <class F>  // adds f(i), f(i + step), f(i + 2 step), f(i + 3 step)
  FASTMLP_FN void add(std::int64_t i, std::int64_t step, F&& f) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) sum[k] = sum[k] + f(i + k * step);
  }
  FASTMLP_FN V together() const { return (sum[0] + sum[1]) + (sum[2] + sum[3]); }
};

// The mean of f(i) over the rows i.
template <class T, class F>
FASTMLP_FN Vec<T> mean_over_rows(std::int64_t rows, F&& f) {
  using V = Vec<T>;
  V sum(0);
  for_blocks(rows, row_block, [&](std::int64_t first, std::int64_t count) {
    FourSums<T> part;
    std::int64_t i = first;
    for (; i + 4 <= first + count; i += 4) part.add(i, 1, f);
    for (; i < first + count; ++i) part.sum[0] = part.sum[0] + f(i);
    sum = sum + part.together();
  });
  return sum / V(double(rows));
}

// The mean over a row of what f(column, lanes) gives.
template <class T, class F>
FASTMLP_FN T mean_over_columns(std::int64_t cols, F&& f) {
  using V = Vec<T>;
  constexpr std::integral_constant<int, V::lanes> all{};
  FourSums<T> part;
  std::int64_t j = 0;
  for (; j + 4 * V::lanes <= cols; j += 4 * V::lanes)
    part.add(j, V::lanes, [&](std::int64_t at) { return f(at, all); });
  for (; j + V::lanes <= cols; j += V::lanes) part.sum[0] = part.sum[0] + f(j, all);
  if (j < cols) {
    const int n = int(cols - j);
    part.sum[1] = part.sum[1] + f(j, n).first(n, T(0));
  }
  return part.together().sum() / T(cols);
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

// y = (x - mean) factor + shift, of columns. Here and below arguments are by value: what a lambda
// refers to would be read anew after every store.
template <class T>
FASTMLP_FN void scale_columns(Rows<T> y, Rows<const T> x, const T* mean, const T* factor,
                              const T* shift, std::int64_t rows, std::int64_t cols) {
  using V = Vec<T>;
  for_block<T>(rows, cols, [=](std::int64_t i, std::int64_t j, auto n) {
    const V d = V::load(x[i] + j, n) - V::load(mean + j, n), f = V::load(factor + j, n);
    (shift ? fma(d, f, V::load(shift + j, n)) : d * f).store(y[i] + j, n);
  });
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
      for_columns<T>(cols, [=](std::int64_t j, auto n) {
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
    scale_columns(Rows<T>{y.data + first, y.stride}, {x.data + first, x.stride}, mean + first,
                  factor, beta ? beta + first : nullptr, rows, count);
  });
}

template <class T>
void normalise_sums(T* gamma_sum, T* beta_sum, Rows<const T> dy, Rows<const T> x, const T* mean,
                    const T* variance, double epsilon, std::int64_t rows, std::int64_t cols,
                    bool by_row) {
  using V = Vec<T>;
  for_columns<T>(cols, [&](std::int64_t j, auto n) {
    V(0).store(gamma_sum + j, n);
    V(0).store(beta_sum + j, n);
  });
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
      (V::load(gamma_sum + j, n) + products).store(gamma_sum + j, n);
      (V::load(beta_sum + j, n) + sum).store(beta_sum + j, n);
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
    T* const out = dx[i];
    auto h = [=](std::int64_t j, auto n) {
      const V gradient = V::load(g + j, n);
      return gamma ? gradient * V::load(gamma + j, n) : gradient;
    };
    auto normal = [=](std::int64_t j, auto n) { return (V::load(in + j, n) - m) * inverse; };
    const V mean_h = V::broadcast(mean_over_columns<T>(cols, h));
    const V mean_product = V::broadcast(
        mean_over_columns<T>(cols, [&](std::int64_t j, auto n) { return h(j, n) * normal(j, n); }));
    for_columns<T>(cols, [=](std::int64_t j, auto n) {
      ((h(j, n) - mean_h - normal(j, n) * mean_product) * inverse).store(out + j, n);
    });
  }
}

// dx = dy factor - constant - (x - mean) slope, of columns
template <class T>
FASTMLP_FN void take_columns(Rows<T> dx, Rows<const T> dy, Rows<const T> x, const T* mean,
                             const T* factor, const T* constant, const T* slope, std::int64_t rows,
                             std::int64_t cols) {
  using V = Vec<T>;
  for_block<T>(rows, cols, [=](std::int64_t i, std::int64_t j, auto n) {
    const V d = V::load(x[i] + j, n) - V::load(mean + j, n);
    const V rest = fma(d, V::load(slope + j, n), V::load(constant + j, n));
    (V::load(dy[i] + j, n) * V::load(factor + j, n) - rest).store(dx[i] + j, n);
  });
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
    const Rows<T> out{dx.data + first, dx.stride};
    const Rows<const T> gradient{dy.data + first, dy.stride}, in{x.data + first, x.stride};
    if (batch)
      take_columns(out, gradient, in, mean + first, factor, constant, slope, rows, count);
    else
      scale_columns(out, gradient, zeros<T>, factor, static_cast<const T*>(nullptr), rows, count);
  });
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
