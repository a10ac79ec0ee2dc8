#include "cpu/backend.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/random.h"
#include "cpu/blas.h"
#include "cpu/execution.h"
#include "cpu/machine.h"
#include "cpu/matmul.h"
#include "cpu/team_choice.h"

namespace fastmlp::cpu {
namespace {

// ---- records: each does this member's share ------------------------------------------------

// One of the arrays that a Gather takes rows from, in bytes.
struct RowCopy {
  const char* from;
  char* to;
  std::int64_t from_stride, to_stride;
  std::size_t bytes;

  RowCopy(const Run& run, const Operand& out, const Operand& in, std::int64_t replica)
      : from(address(run, in, replica)),
        to(address(run, out, replica)),
        from_stride(in.row_stride * size_of(in.dtype)),
        to_stride(out.row_stride * size_of(out.dtype)),
        bytes(std::size_t(out.cols * size_of(out.dtype))) {}

  static char* address(const Run& run, const Operand& operand, std::int64_t replica) {
    if (!operand) return nullptr;
    return static_cast<char*>(run.launch.buffers[operand.buffer]) +
           (operand.offset + replica * operand.batch_stride) * size_of(operand.dtype);
  }
  void copy(std::int64_t row, std::int64_t source) const {
    if (to) std::memcpy(to + row * to_stride, from + source * from_stride, bytes);
  }
};

template <class T>
void execute(const Gather& record, const Run& run) {
  run.each_block(
      run.launch.rows, record.x.cols, [&](std::int64_t r, std::int64_t first, std::int64_t n) {
        const StepState& state = run.state(r);
        const Permutation order(std::uint64_t(run.launch.total_rows), state.seed,
                                std::uint64_t(state.epoch));
        const RowCopy x(run, record.x, record.from_x, r),
            target(run, record.target, record.from_target, r),
            weight(run, record.weight, record.from_weight, r);
        // Shuffled rows are far apart, and the processor cannot guess where: it is told some rows
        // ahead.
        constexpr std::int64_t ahead = 8;
        std::int64_t source[ahead];
        for (std::int64_t i = first; i < first + n + ahead; ++i) {
          const std::int64_t slot = i % ahead, row = i - ahead;
          if (row >= first) {
            x.copy(row, source[slot]);
            target.copy(row, source[slot]);
            weight.copy(row, source[slot]);
          }
          if (i < first + n) {
            const std::int64_t place = state.row + i;
            source[slot] = record.shuffled ? std::int64_t(order(std::uint64_t(place))) : place;
            __builtin_prefetch(x.from + source[slot] * x.from_stride);
            __builtin_prefetch(target.from + source[slot] * target.from_stride);
          }
        }
      });
}

template <class T>
void execute(const Copy& record, const Run& run) {
  run.each_block(run.rows(record.out), record.out.cols,
                 [&](std::int64_t r, std::int64_t first, std::int64_t n) {
                   const auto out = run.matrix<T>(record.out, r, first);
                   const auto in = run.matrix<const T>(record.in, r, first);
                   for (std::int64_t i = 0; i < n; ++i)
                     std::memcpy(out[i], in[i], std::size_t(record.out.cols) * sizeof(T));
                 });
}

template <class T>
void execute(const ColumnSum& record, const Run& run) {
  constexpr std::int64_t block = 256;  // columns
  const std::int64_t rows = run.rows(record.in), cols = record.in.cols;
  run.each_task((cols + block - 1) / block, [&](std::int64_t r, std::int64_t task) {
    Operand in = record.in, out = record.out;
    in.offset += task * block;
    out.offset += task * block;
    kernels<T>().column_sum(run.data<T>(out, r), run.matrix<const T>(in, r), rows,
                            std::min(block, cols - task * block));
  });
}

template <class T>
void execute(const BiasAdd& record, const Run& run) {
  run.each_block(
      run.rows(record.in), record.in.cols, [&](std::int64_t r, std::int64_t first, std::int64_t n) {
        kernels<T>().activation_forward(
            run.matrix<T>(record.out, r, first), {}, run.matrix<const T>(record.in, r, first),
            run.data<const T>(record.bias, r), n, record.in.cols, Activation{});
      });
}

template <class T>
void execute(const ActivationForward& record, const Run& run) {
  run.each_block(run.rows(record.in), record.in.cols,
                 [&](std::int64_t r, std::int64_t first, std::int64_t n) {
                   kernels<T>().activation_forward(run.matrix<T>(record.out, r, first), {},
                                                   run.matrix<const T>(record.in, r, first),
                                                   nullptr, n, record.in.cols, record.activation);
                 });
}

template <class T>
void execute(const ActivationBackward& record, const Run& run) {
  run.each_block(run.rows(record.gradient), record.gradient.cols,
                 [&](std::int64_t r, std::int64_t first, std::int64_t n) {
                   kernels<T>().activation_backward(run.matrix<T>(record.out, r, first),
                                                    run.matrix<const T>(record.gradient, r, first),
                                                    run.matrix<const T>(record.kept, r, first), n,
                                                    record.gradient.cols, record.activation);
                 });
}

template <class T>
void execute(const Softmax& record, const Run& run) {
  run.each_block(
      run.rows(record.in), record.in.cols, [&](std::int64_t r, std::int64_t first, std::int64_t n) {
        kernels<T>().softmax(run.matrix<T>(record.out, r, first),
                             run.matrix<const T>(record.in, r, first), n, record.in.cols);
      });
}

template <class T>
void execute(const SoftmaxBackward& record, const Run& run) {
  run.each_block(run.rows(record.gradient), record.gradient.cols,
                 [&](std::int64_t r, std::int64_t first, std::int64_t n) {
                   kernels<T>().softmax_backward(run.matrix<T>(record.out, r, first),
                                                 run.matrix<const T>(record.gradient, r, first),
                                                 run.matrix<const T>(record.y, r, first), n,
                                                 record.gradient.cols);
                 });
}

template <class T>
void execute(const Dropout& record, const Run& run) {
  run.each_block(
      run.rows(record.in), record.in.cols, [&](std::int64_t r, std::int64_t first, std::int64_t n) {
        const StepState& state = run.state(r);
        kernels<T>().dropout(run.matrix<T>(record.out, r, first),
                             run.matrix<const T>(record.in, r, first), first, n, record.in.cols,
                             {state.seed, std::uint64_t(state.forward), record.layer, record.rate});
      });
}

template <class T>
Targets<T> targets(const Run& run, const Operand& target, std::int64_t replica,
                   std::int64_t first) {
  Targets<T> result;
  if (target.dtype == DType::int32)
    result.labels = run.matrix<const std::int32_t>(target, replica, first).data;
  else
    result.values = run.matrix<const T>(target, replica, first);
  return result;
}

template <class T>
void execute(const Loss& record, const Run& run) {
  const std::int64_t rows = run.rows(record.prediction);
  const double divisor = record.divisor != 0 ? record.divisor : double(rows);
  run.each_block(rows, record.prediction.cols,
                 [&](std::int64_t r, std::int64_t first, std::int64_t n) {
                   const T* weight = run.matrix<const T>(record.weight, r, first).data;
                   kernels<T>().loss(run.matrix<T>(record.row_loss, r, first).data,
                                     run.matrix<T>(record.gradient, r, first),
                                     run.matrix<const T>(record.prediction, r, first),
                                     targets<T>(run, record.target, r, first), weight, n,
                                     record.prediction.cols, record.loss, divisor);
                 });
}

template <class T>
void execute(const Metric& record, const Run& run) {
  run.each_block(run.rows(record.prediction), record.prediction.cols,
                 [&](std::int64_t r, std::int64_t first, std::int64_t n) {
                   kernels<T>().metric(run.matrix<T>(record.row_value, r, first).data,
                                       run.matrix<const T>(record.prediction, r, first),
                                       targets<T>(run, record.target, r, first), n,
                                       record.prediction.cols, record);
                 });
}

template <class T>
void execute(const Accumulate& record, const Run& run) {
  run.each_replica([&](std::int64_t r) {
    const T* value = run.data<const T>(record.in, r);
    double sum = 0;
    for (std::int64_t i = 0; i < run.rows(record.in); ++i) sum += double(value[i]);
    StepState& state = run.state(r);
    if (record.check && !std::isfinite(sum))
      state.not_finite = 1;
    else
      state.sums[record.slot] += sum;
  });
}

template <class T>
void execute(const BeginForward&, const Run& run) {
  run.each_replica([&](std::int64_t r) { ++run.state(r).forward; });
}

template <class T>
void execute(const BeginUpdate& record, const Run& run) {
  const double* rates = static_cast<const double*>(run.launch.buffers[learning_rates]);
  run.each_replica([&](std::int64_t r) {
    StepState& state = run.state(r);
    begin_update(record.update, rates[state.schedule_index], state);
    if (state.schedule_index + 1 < state.schedule_length) ++state.schedule_index;
  });
}

template <class T>
void execute(const ClipNorm& record, const Run& run) {
  const std::int64_t size = record.gradient.cols, blocks = record.partial.cols;
  run.each_task(blocks, [&](std::int64_t r, std::int64_t task) {
    const std::int64_t first = task * norm_block;
    run.data<double>(record.partial, r)[task] = kernels<T>().sum_of_squares(
        run.data<const T>(record.gradient, r) + first, std::min(norm_block, size - first));
  });
  run.barrier.wait();
  run.each_replica([&](std::int64_t r) {
    double sum = 0;
    for (std::int64_t i = 0; i < blocks; ++i) sum += run.data<double>(record.partial, r)[i];
    const double scale = record.limit / (std::sqrt(sum) + 1e-6);  // as PyTorch's clip_grad_norm_
    run.state(r).gradient_scale = scale < 1 ? scale : 1;
  });
}

template <class T>
void execute(const ApplyUpdate& record, const Run& run) {
  // A flat array is one long row, cut into blocks; a matrix of a user's own goes row by row.
  constexpr std::int64_t block = 8192;
  const std::int64_t cols = record.parameter.cols, blocks = (cols + block - 1) / block;
  run.each_task(record.parameter.rows * blocks, [&](std::int64_t r, std::int64_t task) {
    const std::int64_t row = task / blocks, first = task % blocks * block;
    T* moments[3];
    for (int i = 0; i < 3; ++i)
      moments[i] = record.moment[i] ? run.matrix<T>(record.moment[i], r)[row] + first : nullptr;
    kernels<T>().update(run.matrix<T>(record.parameter, r)[row] + first,
                        run.matrix<const T>(record.gradient, r)[row] + first, moments,
                        std::min(block, cols - first), record.update, run.state(r));
  });
}

template <class T>
void execute(const EndStep&, const Run& run) {
  run.each_replica([&](std::int64_t r) {
    run.state(r).row += run.launch.rows;
    ++run.state(r).step;
  });
}

// ---- programs ------------------------------------------------------------------------------

template <class T>
class CpuExecutable : public Executable {
 public:
  explicit CpuExecutable(Program program) : program_(std::move(program)) {}

  void run(const Launch& launch) override {
    // The number of threads is asked for last: that is a call of the system.
    const double operations = step_operations(launch);
    const int most = operations < worth_barriers ? 1 : num_threads();
    if (most == 1) {
      run_alone(launch);
      return;
    }
    // In segments, so that the choice can follow a machine that gets busy or idle.
    Launch segment = launch;
    for (std::int64_t left = launch.repeat; left > 0; left -= segment.repeat) {
      const TeamChoice::Plan plan =
          choice_.next(most, operations, double(program_.records.size()), left);
      segment.repeat = std::min(left, plan.steps);
      const bool more = segment.repeat < left;
      const auto start = std::chrono::steady_clock::now();
      const bool completed =
          plan.members > 1 ? run_with_team(segment, plan.members, more) : run_alone(segment);
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      choice_.took(plan, elapsed.count() / double(segment.repeat));
      if (!completed) return;
    }
  }

 private:
  // Below this many operations a step, meeting the others at every record cannot pay.
  static constexpr double worth_barriers = 5e5;

  double step_operations(const Launch& launch) const {
    double work = 0;
    for (const Record& record : program_.records)
      if (const auto* product = std::get_if<MatMul>(&record))
        work += operations(*product, launch.rows) * double(program_.replicas);
    return work;
  }

  bool run_alone(const Launch& launch) const {
    const FlushToZero flush;
    Barrier alone(1);
    return work({launch, program_.replicas, 0, 1, alone});
  }

  bool run_with_team(const Launch& launch, int members, bool more) const {
    Barrier barrier(members);
    struct Job {
      const CpuExecutable* self;
      const Launch& launch;
      Barrier& barrier;
      int members;
      bool completed;
    } job{this, launch, barrier, members, true};
    const auto body = [](void* context, int member) {
      Job& j = *static_cast<Job*>(context);
      const FlushToZero flush;
      const bool completed =
          j.self->work({j.launch, j.self->program_.replicas, member, j.members, j.barrier});
      if (member == 0) j.completed = completed;
    };
    return run_on_team(members, body, &job, more) ? job.completed : run_alone(launch);
  }

  // Returns false where a step was given up.
  bool work(const Run& run) const {
    for (std::int64_t step = 0; step < run.launch.repeat; ++step) {
      for (const Record& record : program_.records) {
        std::visit([&](const auto& r) { execute<T>(r, run); }, record);
        run.barrier.wait();
        if (ends_step(record, run)) return false;
      }
    }
    return true;
  }

  // After a loss that is not finite nothing more is done. Looked at only behind the barrier that
  // follows the record which decides it, so that every member sees the same.
  static bool ends_step(const Record& record, const Run& run) {
    const auto* accumulate = std::get_if<Accumulate>(&record);
    if (!accumulate || !accumulate->check) return false;
    for (std::int64_t r = 0; r < run.replicas; ++r)
      if (run.state(r).not_finite) return true;
    return false;
  }

  const Program program_;
  TeamChoice choice_;
};

class CpuBackend : public Backend {
 public:
  Device device() const override { return Device::cpu; }

  // An odd multiple of 64 bytes: rows start on cache lines, and columns spread over the cache's
  // sets.
  std::int64_t leading_dimension(std::int64_t cols, DType dtype) const override {
    const std::int64_t lane = 64 / size_of(dtype);
    const std::int64_t lines = (cols + lane - 1) / lane;
    return (lines | 1) * lane;
  }

  std::unique_ptr<Executable> compile(Program program) override {
    if (uses_blas()) blas();  // opened here, where the caller holds the GIL
    if (program.dtype == DType::float64)
      return std::make_unique<CpuExecutable<double>>(std::move(program));
    return std::make_unique<CpuExecutable<float>>(std::move(program));
  }

  void read(void* host, const void* device, std::size_t bytes, void*) override {
    std::memcpy(host, device, bytes);
  }
};

}  // namespace

Backend& backend() {
  static CpuBackend instance;
  return instance;
}

}  // namespace fastmlp::cpu
