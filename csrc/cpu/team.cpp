#include "cpu/team.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "core/check.h"
#include "cpu/machine.h"
#include "cpu/quota.h"

#if defined(__linux__)
#include <sched.h>
#endif
#include <pthread.h>
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

// Spins while the partner is surely running, about 50 microseconds at most; gives the CPU away
// where it may be waiting for it.
constexpr int patience = 2048;

template <class Condition>
void spin_until(int patient_for, Condition&& condition) {
  for (int spins = 0; !condition(); ++spins) {
    if (spins < patient_for)
      relax();
    else
      std::this_thread::yield();
  }
}

int cpus_by_affinity() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return int(std::thread::hardware_concurrency());
}

// The quota is read once, for it rarely changes; the affinity each time.
int available_cpus() {
  static const int quota = quota_cpus();
  const int n = cpus_by_affinity();
  return std::max(quota > 0 ? std::min(n, quota) : n, 1);
}

// How long a member of so many spins: more members than CPUs stand in each other's way.
int spins_of(int members) { return members <= available_cpus() ? patience : 16; }

std::atomic<int> chosen_threads{0};  // 0: as many as there are CPUs

// What a worker has to know of a job, in one word, so that it can never be seen half changed: the
// number of the job, how many members it has, and whether another follows at once.
struct Ticket {
  std::uint64_t word = 0;

  int members() const { return int(word >> 1 & 0xffff); }
  bool more() const { return word & 1; }
  Ticket next(int members, bool more) const {
    return {((word >> 17) + 1) << 17 | std::uint64_t(members) << 1 | std::uint64_t(more)};
  }
};

class Team {
 public:
  bool run(int members, void (*job)(void*, int), void* context, bool more) {
    std::unique_lock<std::mutex> in_use(in_use_, std::try_to_lock);
    if (!in_use || !grow(members - 1)) return false;
    const int spins = spins_of(members);
    job_ = job;
    context_ = context;
    pending_.store(members - 1, std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);  // or a worker about to sleep would miss it
      const Ticket last{ticket_.load(std::memory_order_relaxed)};
      ticket_.store(last.next(members, more && spins == patience).word, std::memory_order_release);
    }
    wake_.notify_all();
    job(context, 0);
    spin_until(spins, [&] { return pending_.load(std::memory_order_acquire) == 0; });
    return true;
  }

 private:
  bool grow(int workers) {
    try {
      for (int i = int(workers_.size()); i < workers; ++i) {
        const Ticket seen{ticket_.load(std::memory_order_relaxed)};
        workers_.emplace_back([this, i, seen] { work(i + 1, seen); });
        workers_.back().detach();  // exit never waits for a worker
      }
    } catch (const std::system_error&) {
      return false;
    }
    return true;
  }

  void work(int member, Ticket seen) {
    const FlushToZero flush;
    for (;;) {
      seen = wait_for_news(seen);
      if (member >= seen.members()) continue;
      job_(context_, member);  // neither changes before this member is done
      pending_.fetch_sub(1, std::memory_order_release);
    }
  }

  Ticket wait_for_news(Ticket seen) {
    Ticket now;
    auto news = [&] {
      now.word = ticket_.load(std::memory_order_acquire);
      return now.word != seen.word;
    };
    for (int spins = seen.more() ? patience : 0; spins > 0; --spins) {
      if (news()) return now;
      relax();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, news);
    return now;
  }

  std::mutex in_use_, mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
  void (*job_)(void*, int) = nullptr;
  void* context_ = nullptr;
  alignas(128) std::atomic<std::uint64_t> ticket_{0};
  alignas(128) std::atomic<int> pending_{0};
};

// Never destroyed, because workers may outlive main(). A forked child, whose workers did not come
// along, and whose mutexes may be locked for good, gets a team of its own.
std::atomic<Team*> the_team{nullptr};
[[maybe_unused]] const int watched =
    pthread_atfork(nullptr, nullptr, [] { the_team.store(nullptr, std::memory_order_relaxed); });

Team& team() {
  Team* team = the_team.load(std::memory_order_acquire);
  if (team) return *team;
  Team* const made = new Team;
  if (the_team.compare_exchange_strong(team, made)) return *made;
  delete made;
  return *team;
}

}  // namespace

Barrier::Barrier(int members) : members_(members), spins_(members > 1 ? spins_of(members) : 0) {}

void Barrier::wait_for_others() {
  const unsigned generation = generation_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_) {
    arrived_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1, std::memory_order_release);
  } else {
    spin_until(spins_, [&] { return generation_.load(std::memory_order_acquire) != generation; });
  }
}

bool run_on_team(int members, void (*job)(void*, int), void* context, bool more) {
  return team().run(members, job, context, more);
}

// The median, which one interruption does not move. Where the team is in use there is a usual
// value.
double barrier_seconds(int members) {
  static std::atomic<float> known[1025];
  std::atomic<float>& seconds = known[std::min(members, 1024)];
  if (seconds.load(std::memory_order_relaxed) > 0) return seconds.load(std::memory_order_relaxed);
  struct Job {
    Barrier barrier;
    std::array<float, 32> seconds;
  } job{Barrier(members), {}};
  const bool ran = run_on_team(
      members,
      [](void* context, int member) {
        using Clock = std::chrono::steady_clock;
        Job& job = *static_cast<Job*>(context);
        job.barrier.wait();  // until all are awake
        for (float& seconds : job.seconds) {
          const auto start = Clock::now();
          job.barrier.wait();
          if (member == 0) seconds = std::chrono::duration<float>(Clock::now() - start).count();
        }
      },
      &job);
  if (!ran) return 1e-6;
  const auto median = job.seconds.begin() + job.seconds.size() / 2;
  std::nth_element(job.seconds.begin(), median, job.seconds.end());
  seconds.store(std::max(*median, 1e-9f), std::memory_order_relaxed);
  return *median;
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
