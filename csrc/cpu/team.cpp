#include "cpu/team.h"

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/check.h"
#include "cpu/machine.h"

#if defined(__linux__)
#include <sched.h>
#endif
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastmlp::cpu {
namespace {

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins while the partner is surely running; gives the CPU away where it may be waiting for it.
template <class Condition>
void spin_until(Condition&& condition) {
  for (int spins = 0; !condition(); ++spins) {
    if (spins < 4096)
      relax();
    else
      std::this_thread::yield();
  }
}

int available_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n ? int(n) : 1;
}

std::atomic<int> chosen_threads{0};  // 0: as many as there are CPUs

class Team {
 public:
  bool run(int members, void (*job)(void*, int), void* context) {
    std::unique_lock<std::mutex> in_use(in_use_, std::try_to_lock);
    if (!in_use) return false;
    grow(members - 1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = job;
      context_ = context;
      members_ = members;
      pending_.store(members - 1, std::memory_order_relaxed);
      ++number_;
    }
    wake_.notify_all();
    job(context, 0);
    spin_until([&] { return pending_.load(std::memory_order_acquire) == 0; });
    return true;
  }

 private:
  void grow(int workers) {
    for (int i = int(workers_.size()); i < workers; ++i) {
      workers_.emplace_back([this, i, seen = number_] { work(i + 1, seen); });
      workers_.back().detach();  // exit never waits for a worker
    }
  }

  void work(int member, unsigned long seen) {
    const FlushToZero flush;
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return number_ != seen; });
      seen = number_;
      if (member >= members_) continue;
      const auto job = job_;
      void* const context = context_;
      lock.unlock();
      job(context, member);
      pending_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex in_use_, mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
  unsigned long number_ = 0;  // of jobs so far
  void (*job_)(void*, int) = nullptr;
  void* context_ = nullptr;
  int members_ = 0;
  std::atomic<int> pending_{0};
};

// Never destroyed, because workers may outlive main(); a forked child, whose workers did not come
// along, gets a team of its own.
Team& team() {
  static std::mutex mutex;
  static Team* instance = nullptr;
  static pid_t owner = 0;
  std::lock_guard<std::mutex> lock(mutex);
  if (owner != getpid()) {
    instance = new Team;
    owner = getpid();
  }
  return *instance;
}

}  // namespace

void Barrier::wait_for_others() {
  const unsigned generation = generation_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_) {
    arrived_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1, std::memory_order_release);
  } else {
    spin_until([&] { return generation_.load(std::memory_order_acquire) != generation; });
  }
}

bool run_on_team(int members, void (*job)(void*, int), void* context) {
  return team().run(members, job, context);
}

int num_threads() {
  const int n = chosen_threads.load(std::memory_order_relaxed);
  return n ? n : available_cpus();
}

void set_num_threads(int n) {
  if (n < 1 || n > 1024) fail("set_num_threads", "a number from 1 to 1024", std::to_string(n));
  chosen_threads.store(n, std::memory_order_relaxed);
}

#if defined(__x86_64__)
FlushToZero::FlushToZero() : saved_(_mm_getcsr()) {
  _mm_setcsr(unsigned(saved_) | 0x8040);  // flush results, treat inputs as zero
}
FlushToZero::~FlushToZero() { _mm_setcsr(unsigned(saved_)); }
#elif defined(__aarch64__)
FlushToZero::FlushToZero() {
  asm volatile("mrs %0, fpcr" : "=r"(saved_));
  asm volatile("msr fpcr, %0" : : "r"(saved_ | 1ull << 24));
}
FlushToZero::~FlushToZero() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }
#else
FlushToZero::FlushToZero() : saved_(0) {}
FlushToZero::~FlushToZero() {}
#endif

}  // namespace fastmlp::cpu
