// How a program runs on the GPU: one kernel for each record, whose blocks of threads share out its
// tasks. Every task is done by one block in one fixed order, so the same program gives the same
// bits whatever the grid.
#pragma once

#include <cstdint>

#include "core/program.h"
#include "core/step_state.h"
#include "cuda/runtime.h"

namespace fastmlp::cuda {

// A run of a program, as every kernel gets it.
struct Context {
  static constexpr int most_buffers = 24;
  // The backend's own: parts of sums, and what is for products of the library (library.cuh).
  static constexpr int scratch = most_buffers - 1, for_library = most_buffers - 2;
  static_assert(buffer_count <= for_library);

  void* buffers[most_buffers];
  std::int64_t rows, total_rows, replicas;
  Precision precision;  // of products
  bool may_stop;        // the program looks whether its loss is finite
  // Not 0 once a network's loss was not. One network has that word in its state; of several it is
  // written behind each record that looks, so that all of them have made that record.
  std::int64_t* stopped;
};

template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t stride = 0;

  FASTMLP_DEVICE T* operator[](std::int64_t row) const { return data + row * stride; }
  FASTMLP_DEVICE explicit operator bool() const { return data != nullptr; }
};

// One block's view of a record: its place among those that share it, and the replica it works on.
struct Block {
  const Context& context;
  std::int64_t replica, index, count;

  FASTMLP_DEVICE int thread() const { return int(threadIdx.x); }
  FASTMLP_DEVICE int lane() const { return thread() % warp; }

  FASTMLP_DEVICE std::int64_t rows(const Operand& operand) const {
    return operand.rows == Operand::batch ? context.rows : operand.rows;
  }
  template <class T>
  FASTMLP_DEVICE T* data(const Operand& operand) const {
    if (operand.buffer < 0) return nullptr;
    return static_cast<T*>(context.buffers[operand.buffer]) + operand.offset +
           replica * operand.batch_stride;
  }
  template <class T>
  FASTMLP_DEVICE Rows<T> matrix(const Operand& operand) const {
    return {data<T>(operand), operand.row_stride};
  }
  FASTMLP_DEVICE StepState& state() const {
    return static_cast<StepState*>(context.buffers[step_state])[replica];
  }

  // Calls f(task) for this block's tasks.
  template <class F>
  FASTMLP_DEVICE void each_task(std::int64_t tasks, F&& f) const {
    for (std::int64_t task = index; task < tasks; task += count) f(task);
  }
  // Calls f(i) for this thread's elements of all.
  template <class F>
  FASTMLP_DEVICE void each_element(std::int64_t size, F&& f) const {
    for (std::int64_t i = index * threads + thread(); i < size; i += count * threads) f(i);
  }
  // Calls f(row) for this warp's rows; all its lanes take part.
  template <class F>
  FASTMLP_DEVICE void each_row(std::int64_t rows, F&& f) const {
    constexpr int warps = threads / warp;
    for (std::int64_t i = index * warps + thread() / warp; i < rows; i += count * warps) f(i);
  }
  // Calls f(column) for this lane's columns of a row.
  template <class F>
  FASTMLP_DEVICE void each_column(std::int64_t cols, F&& f) const {
    for (std::int64_t j = lane(); j < cols; j += warp) f(j);
  }
  // Calls f(row, column) for this thread's elements of a matrix: a warp to a row, or, of one long
  // row, a thread to an element. So there is no division by the number of columns.
  template <class F>
  FASTMLP_DEVICE void each_cell(std::int64_t rows, std::int64_t cols, F&& f) const {
    if (rows == 1)
      each_element(cols, [&](std::int64_t j) { f(std::int64_t(0), j); });
    else
      each_row(rows, [&](std::int64_t i) { each_column(cols, [&](std::int64_t j) { f(i, j); }); });
  }
  // Calls f() on one thread only.
  template <class F>
  FASTMLP_DEVICE void once(F&& f) const {
    if (index == 0 && thread() == 0) f();
  }
};

// Combines what the lanes of a warp hold, in one fixed order; every lane gets the result.
template <class T, class F>
FASTMLP_DEVICE T over_warp(T value, F&& combine) {
  for (int distance = warp / 2; distance > 0; distance /= 2)
    value = combine(value, __shfl_xor_sync(0xFFFFFFFFu, value, distance));
  return value;
}
template <class T>
FASTMLP_DEVICE T warp_sum(T value) {
  return over_warp(value, [](T a, T b) { return a + b; });
}

// The sum of what the threads of a block hold, in one fixed order; every thread gets it.
FASTMLP_DEVICE double block_sum(double value) {
  FASTMLP_SHARED(double, partial, threads / warp);
  value = warp_sum(value);
  __syncthreads();  // whoever still reads the last sum
  if (threadIdx.x % warp == 0) partial[threadIdx.x / warp] = value;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < threads / warp; ++i) sum += partial[i];
  return sum;
}

}  // namespace fastmlp::cuda
