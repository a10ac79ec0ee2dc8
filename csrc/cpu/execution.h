// How a program runs on the CPU: every member of the team walks through the records, does its share
// of each one's tasks, and meets the others at a barrier before the next.
//
// However the tasks are cut, each element is computed by one task in one fixed order, so the number
// of threads does not change a bit.
#pragma once

#include <cstdint>

#include "core/backend.h"
#include "cpu/kernels.h"
#include "cpu/team.h"

namespace fastmlp::cpu {

// One run of a program, as one member sees it.
struct Run {
  const Launch& launch;
  std::int64_t replicas;
  int member, members;
  Barrier& barrier;

  std::int64_t rows(const Operand& operand) const {
    return operand.rows == Operand::batch ? launch.rows : operand.rows;
  }

  template <class T>
  T* data(const Operand& operand, std::int64_t replica) const {
    return static_cast<T*>(launch.buffers[operand.buffer]) + operand.offset +
           replica * operand.batch_stride;
  }

  template <class T>
  Rows<T> matrix(const Operand& operand, std::int64_t replica, std::int64_t first_row = 0) const {
    if (!operand) return {};
    return {data<T>(operand, replica) + first_row * operand.row_stride, operand.row_stride};
  }

  StepState& state(std::int64_t replica) const {
    return static_cast<StepState*>(launch.buffers[step_state])[replica];
  }

  // Calls f(replica, task) for this member's share of every replica's tasks.
  template <class F>
  void each_task(std::int64_t tasks, F&& f) const {
    if (members == 1) {  // no divisions: they would be felt in the smallest networks
      for (std::int64_t r = 0; r < replicas; ++r)
        for (std::int64_t t = 0; t < tasks; ++t) f(r, t);
      return;
    }
    const std::int64_t all = replicas * tasks;
    for (std::int64_t t = all * member / members; t < all * (member + 1) / members; ++t)
      f(t / tasks, t % tasks);
  }

  // Calls f(replica, first_row, rows) for this member's share of blocks of rows.
  template <class F>
  void each_block(std::int64_t rows, std::int64_t cols, F&& f) const {
    constexpr std::int64_t block_elements = 8192;
    if (members == 1 && replicas == 1) return f(0, 0, rows);
    const std::int64_t block = cols < block_elements ? block_elements / (cols ? cols : 1) : 1;
    each_task((rows + block - 1) / block, [&](std::int64_t replica, std::int64_t task) {
      const std::int64_t first = task * block;
      f(replica, first, rows - first < block ? rows - first : block);
    });
  }

  // Calls f(replica) on one member only, for what has nothing to share.
  template <class F>
  void each_replica(F&& f) const {
    if (member == 0)
      for (std::int64_t r = 0; r < replicas; ++r) f(r);
  }
};

}  // namespace fastmlp::cpu
