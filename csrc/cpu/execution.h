// How a program runs on the CPU: every member of the team walks through the records, does its share
// of each, and meets the others at a barrier where one needs what another did.
//
// However the work is shared out, each element is computed by one member in one fixed order, so the
// number of threads does not change a bit.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.h"
#include "cpu/kernels.h"
#include "cpu/row_order.h"
#include "cpu/team.h"

namespace fastmlp::cpu {

// What a thread keeps from record to record, and from run to run.
struct Memory {
  void* scratch;                 // for products: aligned, as large as those of either type ask for
  std::vector<RowOrder> orders;  // of the replicas met so far

  RowOrder& order(std::int64_t replica) {
    if (std::int64_t(orders.size()) <= replica) orders.resize(std::size_t(replica) + 1);
    return orders[std::size_t(replica)];
  }

  // Of the calling thread; made once.
  static Memory& own();
};

// Whether a team that shares out the parts of a sum over the batch has each member take its own
// rows.
inline bool follow_rows(const BatchParts& parts, std::int64_t rows, std::int64_t replicas,
                        int members) {
  return parts && parts.count(rows) * replicas % members == 0;
}

// Columns that are shared out go to members in multiples of these: at least a cache line.
constexpr std::int64_t line_columns = 16;

// How many of a product's sums are the first of two halves: what `each_lines` gives the first of
// two members, or all the first half of the members.
inline std::int64_t first_half(std::int64_t k) {
  return (k + line_columns - 1) / line_columns / 2 * line_columns;
}

// Whether each member of a team that shares out halves works on the columns that it has gathered.
inline bool follow_halves(std::int64_t replicas, int members) {
  return 2 * replicas % members == 0;
}

// One run of a program, as one member sees it.
struct Run {
  const Launch& launch;
  std::int64_t replicas;
  int member, members;
  Barrier& barrier;
  Memory& memory;
  Precision precision;

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

  // Calls f(replica, first_row, rows) for this member's rows. Of equally many rows a member always
  // has the same ones, so what it did to them before needs no barrier.
  template <class F>
  void each_rows(std::int64_t rows, F&& f) const {
    if (members == 1) {
      for (std::int64_t r = 0; r < replicas; ++r) f(r, std::int64_t(0), rows);
      return;
    }
    const std::int64_t all = replicas * rows, end = all * (member + 1) / members;
    for (std::int64_t i = all * member / members; i < end;) {
      const std::int64_t replica = i / rows, first = i % rows;
      const std::int64_t n = end - i < rows - first ? end - i : rows - first;
      f(replica, first, n);
      i += n;
    }
  }

  // Calls f(replica, first, count) for this member's share of columns, of cache lines of these.
  template <class F>
  void each_lines(std::int64_t cols, F&& f) const {
    each_rows((cols + line_columns - 1) / line_columns,
              [&](std::int64_t replica, std::int64_t line, std::int64_t lines) {
                const std::int64_t first = line * line_columns, left = cols - first;
                f(replica, first, lines * line_columns < left ? lines * line_columns : left);
              });
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

  // Calls f(replica) on one member only, for what has nothing to share.
  template <class F>
  void each_replica(F&& f) const {
    if (member == 0)
      for (std::int64_t r = 0; r < replicas; ++r) f(r);
  }
};

}  // namespace fastmlp::cpu
