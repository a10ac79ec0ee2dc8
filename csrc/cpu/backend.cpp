#include "cpu/backend.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "cpu/blas.h"
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
  explicit CpuExecutable(Program program) : program_(std::move(program)) {
    for (const Record& record : program_.records)
      steps_.push_back({execute_of<T>(record), &record});
  }

  void run(const Launch& launch) override {
    if (!worth_asking(launch)) {
      run_alone(launch);
      return;
    }
    // In segments, so that the choice can follow a machine that gets busy or idle.
    Launch segment = launch;
    for (std::int64_t left = launch.repeat; left > 0; left -= segment.repeat) {
      const TeamChoice::Plan plan = choice_.next();
      segment.repeat = std::min(left, plan.steps);
      const auto start = std::chrono::steady_clock::now();
      const bool completed = plan.team ? run_with_team(segment) : run_alone(segment);
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
      choice_.took(plan, elapsed.count() / double(segment.repeat));
      if (!completed) return;
    }
  }

 private:
  // Below this many operations a step, meeting the others at every record cannot pay.
  static constexpr double worth_barriers = 5e5;

  bool worth_asking(const Launch& launch) const {
    if (num_threads() == 1) return false;
    double work = 0;
    for (const Record& record : program_.records)
      if (const auto* product = std::get_if<MatMul>(&record))
        work += operations(*product, launch.rows) * double(program_.replicas);
    return work >= worth_barriers;
  }

  bool run_alone(const Launch& launch) const {
    const FlushToZero flush;
    Barrier alone(1);
    const Run run{launch, program_.replicas, 0, 1, alone, Memory::own()};
    for (std::int64_t step = 0; step < launch.repeat; ++step)
      for (const Step& s : steps_)
        if (!s.execute(*s.record, run)) return false;
    return true;
  }

  bool run_with_team(const Launch& launch) {
    const int members = num_threads();
    Barrier barrier(members);
    const std::shared_ptr<const Meetings> meetings = meet(launch.rows, members);
    struct Job {
      const CpuExecutable* self;
      const Launch& launch;
      Barrier& barrier;
      const std::vector<bool>& before;
      int members;
      bool completed;
    } job{this, launch, barrier, meetings->before, members, true};
    const auto body = [](void* context, int member) {
      Job& j = *static_cast<Job*>(context);
      const FlushToZero flush;
      const Run run{j.launch,     j.self->program_.replicas, member, j.members, j.barrier,
                    Memory::own()};
      const bool completed = j.self->work(run, j.before);
      if (member == 0) j.completed = completed;
    };
    return run_on_team(members, body, &job) ? job.completed : run_alone(launch);
  }

  bool work(const Run& run, const std::vector<bool>& meet_before) const {
    for (std::int64_t step = 0; step < run.launch.repeat; ++step) {
      for (std::size_t i = 0; i < steps_.size(); ++i) {
        if (meet_before[i]) run.barrier.wait();
        if (!steps_[i].execute(*steps_[i].record, run)) return false;
      }
      run.barrier.wait();
    }
    return true;
  }

  // Where a team meets, which depends on how the work is shared out.
  struct Meetings {
    std::int64_t rows;
    int members;
    std::vector<bool> before;  // each record
  };

  std::shared_ptr<const Meetings> meet(std::int64_t rows, int members) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!meetings_ || meetings_->rows != rows || meetings_->members != members)
      meetings_ =
          std::make_shared<Meetings>(Meetings{rows, members, barriers(program_, rows, members)});
    return meetings_;
  }

  struct Step {
    Execute execute;
    const Record* record;
  };

  const Program program_;
  std::vector<Step> steps_;
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
