#include "cpu/backend.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "cpu/blas.h"
#include "cpu/features.h"
#include "cpu/machine.h"
#include "cpu/matmul.h"
#include "cpu/records.h"
#include "cpu/schedule.h"
#include "cpu/team_choice.h"

namespace fastmlp::cpu {
namespace {

template <class T>
class CpuExecutable : public Executable {
 public:
  explicit CpuExecutable(Program program)
      : program_(std::move(program)), updates_(updates_of(program_)) {
    constexpr double packing_rows = 512;  // enough for kernels that each share packs anew
    if (program_.precision != Precision::full) rows_of_share_ = packing_rows;
    for (std::size_t i = 0; i < program_.records.size(); ++i) {
      const Record& record = program_.records[i];
      const Updates& updates = updates_[i];
      const auto* product = std::get_if<MatMul>(&record);
      steps_.push_back({execute_of<T>(record), &record, &updates,
                        product && !product->parts && !product->second_half && updates.empty()
                            ? product
                            : nullptr});
      shareable_ = shareable_ && updates.empty() && !involves_all_members(record);
      if (product) {
        const double fixed = ProductShape(*product, 0).operations(),
                     one_row = ProductShape(*product, 1).operations();
        operations_ += fixed * double(program_.replicas);
        operations_per_row_ += (one_row - fixed) * double(program_.replicas);
        // A kernel that no cache of a core holds is read from memory, which takes as long as some
        // operations on each element: for one row, far longer than the product's own.
        const double elements = double(product->b.rows) * double(product->b.cols);
        if (product->b.rows != Operand::batch && elements * sizeof(T) > 1 << 20) {
          operations_ += 24 * elements * double(program_.replicas);
          rows_of_share_ = packing_rows;
        }
      }
    }
  }

  const Program& program() const override { return program_; }

  void run(const Launch& launch) override {
    // The number of threads is asked for last: that is a call of the system.
    const double work = operations_ + operations_per_row_ * double(launch.rows);
    const int most = work < worth_barriers && !launch.profile ? 1 : num_threads();
    if (launch.profile) {
      launch.profile->members = most;
      const std::size_t cells = std::size_t(launch.repeat) * std::size_t(most) * steps_.size();
      launch.profile->working.assign(cells, 0);
      launch.profile->waiting.assign(cells, 0);
      run_with_team(launch, most, false);
      return;
    }
    if (most == 1) {
      run_alone(launch);
      return;
    }
    const auto barriers = [&] { return meet(launch.rows, most)->count; };
    // In segments, so that the choice can follow a machine that gets busy or idle.
    Launch segment = launch;
    for (std::int64_t left = launch.repeat; left > 0; left -= segment.repeat) {
      const TeamChoice::Plan plan = choice_.next(most, work, barriers, left);
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

  bool run_alone(const Launch& launch) const {
    const FlushToZero flush;
    Barrier alone(1);
    const Run run{launch, program_.replicas, 0, 1, alone, Memory::own(), program_.precision};
    std::vector<Product<T>> products;  // bound, where there is more than one step to gain by it
    const bool bound = launch.repeat > 1 && bind_all(products, run);
    const auto multiply = kernel<T>(run);
    for (std::int64_t step = 0; step < launch.repeat; ++step) {
      const Product<T>* product = products.data();
      for (const Step& s : steps_) {
        if (bound && s.product)
          for (std::int64_t r = 0; r < program_.replicas; ++r) multiply(*product++);
        else if (!s.execute(*s.record, *s.updates, run))
          return false;
      }
    }
    return true;
  }

  bool bind_all(std::vector<Product<T>>& products, const Run& run) const {
    for (const Step& s : steps_)
      if (s.product && !bind(products, *s.product, run)) return false;
    return true;
  }

  bool run_with_team(const Launch& launch, int members, bool more) {
    Barrier barrier(members);
    const int shares = shares_of(launch, members);
    const std::shared_ptr<const Meetings> meetings = meet(launch.rows, shares);
    struct Job {
      const CpuExecutable* self;
      const Launch& launch;
      Barrier& barrier;
      const std::vector<bool>& before;
      int members, shares;
      std::atomic<std::int64_t> next;  // share
      bool completed;
    } job{this, launch, barrier, meetings->before, members, shares, {0}, true};
    const auto body = [](void* context, int member) {
      Job& j = *static_cast<Job*>(context);
      const FlushToZero flush;
      Run run{j.launch,      j.self->program_.replicas, member, j.shares, j.barrier,
              Memory::own(), j.self->program_.precision};
      if (j.shares > j.members) return j.self->take_shares(run, j.before, j.next);
      const bool completed = j.launch.profile ? j.self->work(run, j.before, Stopwatch(run))
                                              : j.self->work(run, j.before, NoClock());
      if (member == 0) j.completed = completed;
    };
    return run_on_team(members, body, &job, more) ? job.completed : run_alone(launch);
  }

  // Whether members meet within a record, or decide there whether the step goes on.
  static bool involves_all_members(const Record& record) {
    const auto* product = std::get_if<MatMul>(&record);
    const auto* sum = std::get_if<Accumulate>(&record);
    return (product && product->second_half) || (sum && sum->check) ||
           std::holds_alternative<ClipNorm>(record) || std::holds_alternative<Penalize>(record);
  }

  // How many shares a team makes of the work: one for each member, or of many rows more, and who is
  // done with one takes the next. Cores may be of two kinds, or busy; and what a share has computed
  // is still in the cache when its next record needs it. Not in training, whose steps are short and
  // whose parameters better stay with one member.
  int shares_of(const Launch& launch, int members) const {
    if (!shareable_ || launch.repeat > 1 || launch.profile) return members;
    constexpr double worth_taking = 1e6;  // operations
    const double rows = double(launch.rows) * double(program_.replicas),
                 most = std::min(rows / rows_of_share_,
                                 double(launch.rows) * operations_per_row_ / worth_taking);
    return std::max(members, int(std::min(most, 1e6)));
  }

  // Takes shares of what lies between two meetings until none is left, and goes on to the next.
  void take_shares(Run run, const std::vector<bool>& meet_before,
                   std::atomic<std::int64_t>& next) const {
    std::int64_t share = next++, first = 0;
    for (std::size_t begin = 0, end; begin < steps_.size(); begin = end, first += run.members) {
      if (begin > 0) run.barrier.wait();
      end = begin + 1;
      while (end < steps_.size() && !meet_before[end]) ++end;
      for (; share < first + run.members; share = next++) {
        run.member = int(share - first);
        for (std::size_t i = begin; i < end; ++i)
          steps_[i].execute(*steps_[i].record, *steps_[i].updates, run);
      }
    }
  }

  // What tells a profile where the time goes, and its absence.
  struct NoClock {
    void waited() {}
    void worked() {}
    void end_step() {}
  };
  class Stopwatch {
   public:
    explicit Stopwatch(const Run& run)
        : profile_(*run.launch.profile),
          records_(profile_.working.size() / std::size_t(run.launch.repeat * run.members)),
          to_next_step_(records_ * std::size_t(run.members - 1)),
          place_(records_ * std::size_t(run.member)) {}
    void waited() { profile_.waiting[place_] = lap(); }
    void worked() { profile_.working[place_++] = lap(); }
    void end_step() {
      profile_.waiting[place_ - 1] += lap();
      place_ += to_next_step_;
    }

   private:
    using Clock = std::chrono::steady_clock;

    float lap() {
      const Clock::time_point now = Clock::now();
      return std::chrono::duration<float>(now - std::exchange(last_, now)).count();
    }

    Profile& profile_;
    const std::size_t records_, to_next_step_;
    std::size_t place_;
    Clock::time_point last_ = Clock::now();
  };

  template <class Watch>
  bool work(const Run& run, const std::vector<bool>& meet_before, Watch watch) const {
    for (std::int64_t step = 0; step < run.launch.repeat; ++step) {
      for (std::size_t i = 0; i < steps_.size(); ++i) {
        if (meet_before[i]) run.barrier.wait();
        watch.waited();
        if (!steps_[i].execute(*steps_[i].record, *steps_[i].updates, run)) return false;
        watch.worked();
      }
      run.barrier.wait();
      watch.end_step();
    }
    return true;
  }

  // Where a team meets, which depends on how the work is shared out.
  struct Meetings {
    std::int64_t rows;
    int members;
    std::vector<bool> before;  // each record
    double count;              // in a step
  };

  std::shared_ptr<const Meetings> meet(std::int64_t rows, int members) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!meetings_ || meetings_->rows != rows || meetings_->members != members) {
      std::vector<bool> before = cpu::barriers(program_, updates_, rows, members);
      const double count = 1 + double(std::count(before.begin(), before.end(), true));
      meetings_ = std::make_shared<Meetings>(Meetings{rows, members, std::move(before), count});
    }
    return meetings_;
  }

  struct Step {
    Execute execute;
    const Record* record;
    const Updates* updates;
    const MatMul* product;  // that it is and no more, or null
  };

  const Program program_;
  const std::vector<Updates> updates_;  // of each record
  std::vector<Step> steps_;
  double operations_ = 0, operations_per_row_ = 0;  // that a step's products are worth
  bool shareable_ = true;
  double rows_of_share_ = 128;  // at least
  TeamChoice choice_;
  std::mutex mutex_;
  std::shared_ptr<const Meetings> meetings_;  // the last
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

  // The BLAS's sums are its own.
  bool takes_parts() const override {
    static const bool wanted = !switched_off("parts");
    return wanted && !uses_blas();
  }

  std::vector<Precision> precisions() const override {
    if (!multiplies_bfloat16()) return {};
    return {Precision::bfloat16};
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
