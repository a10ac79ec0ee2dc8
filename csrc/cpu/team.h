// The project's own threads: a persistent team that runs one job at a time.
//
// A job is a function that every member calls once; inside it, members meet at a barrier. Workers
// sleep between jobs, except where the caller says that another job follows at once: nothing spins
// while Python runs.
#pragma once

#include <atomic>
#include <memory>

namespace fastmlp::cpu {

// Sense by generation: the last to arrive starts the next one.
class Barrier {
 public:
  explicit Barrier(int members);
  void wait() {
    if (members_ > 1) wait_for_others();
  }

 private:
  void wait_for_others();

  const int members_, spins_;
  alignas(128) std::atomic<int> arrived_{0};
  alignas(128) std::atomic<unsigned> generation_{0};
};

// Calls job(context, member) for each member from 0 to members - 1, member 0 on the calling thread,
// and returns when all are done. Returns false, having called nothing, where another thread is
// using the team, or the system gives no more threads: run the job alone then. `more` promises that
// another job follows at once.
bool run_on_team(int members, void (*job)(void* context, int member), void* context,
                 bool more = false);

// What one barrier costs with so many members, measured when first asked for.
double barrier_seconds(int members);

// Flushes subnormal numbers to zero while it lives: they would slow the vector units a hundredfold.
class FlushToZero {
 public:
  FlushToZero();
  ~FlushToZero();
  FlushToZero(const FlushToZero&) = delete;
  FlushToZero& operator=(const FlushToZero&) = delete;

 private:
  unsigned long long saved_;
};

}  // namespace fastmlp::cpu
