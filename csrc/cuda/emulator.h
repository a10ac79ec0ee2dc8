// CUDA's execution model on the host, for tests without a GPU: what the kernels here use of it, and
// no more. Blocks run one after the other; a block's threads are fibers that change at barriers.
//
// It finds wrong indices, missing barriers (the order of blocks and threads is turned round from
// launch to launch), reads of shared memory that nobody wrote (it is filled with NaN) and barriers
// that not all threads reach. It cannot find what needs threads at the same time, or the memory
// model between blocks, and it says nothing about speed.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <ucontext.h>
#endif

#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#define __global__
#define __launch_bounds__(...)
#define FASTMLP_DEVICE inline
#define FASTMLP_PARAMETER const
#define FASTMLP_SHARED(type, name, size) \
  type* const name = ::fastmlp::cuda::emulator::shared<type>(__COUNTER__, size)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace fastmlp::cuda::emulator {

// A place where execution can go on: a stack with what was in the registers on top.
#if defined(__x86_64__)
// Twenty times as fast as swapcontext, which asks the system to change the signal mask.
extern "C" void fastmlp_switch_stacks(void** from, void* to);
asm(R"(
.text
.local fastmlp_switch_stacks
fastmlp_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
struct Place {
  void* top = nullptr;

  void start(char* stack, std::size_t bytes, void (*function)()) {
    constexpr int registers = 6;
    auto end = reinterpret_cast<std::uintptr_t>(stack + bytes) & ~std::uintptr_t(15);
    void** frame = reinterpret_cast<void**>(end) - 2;  // aligned as behind a call
    frame[0] = reinterpret_cast<void*>(function);
    top = frame - registers;
  }
  void go_to(Place& other) { fastmlp_switch_stacks(&top, other.top); }
};
#else
struct Place {
  ucontext_t context;

  void start(char* stack, std::size_t bytes, void (*function)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, function, 0);
  }
  void go_to(Place& other) { swapcontext(&context, &other.context); }
};
#endif

enum class Waits { nowhere, at_block, at_warp, at_end };

struct Fiber {
  Place place;
  std::unique_ptr<char[]> stack;
  Waits waits;
  std::uint64_t exchanged;
};

constexpr int most_threads = 256, warp_size = 32;
constexpr std::size_t stack_bytes = 128 << 10;

struct Machine {
  Place scheduler;
  Fiber fibers[most_threads];
  int current = 0;
  dim3 block, blocks;
  std::function<void()> kernel;
  // By the place in the source and the size, which tells apart the instances of a template.
  std::map<std::pair<int, std::size_t>, std::vector<char>> shared;
  bool backwards = false;
};

inline Machine& machine() {
  static thread_local Machine instance;
  return instance;
}

inline void wait(Waits where) {
  Machine& m = machine();
  Fiber& self = m.fibers[m.current];
  self.waits = where;
  self.place.go_to(m.scheduler);
}

inline void entry() {
  machine().kernel();
  wait(Waits::at_end);
}

template <class T>
T* shared(int place, std::size_t size) {
  std::vector<char>& memory = machine().shared[{place, size}];
  if (memory.empty()) memory.assign(size * sizeof(T) + 64, char(0xFF));  // NaN
  return reinterpret_cast<T*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) & ~63ull);
}

// Lets those go on that wait at a barrier which all have reached; false where nobody can.
inline bool release(Machine& m, int threads) {
  bool any = false;
  for (int first = 0; first < threads; first += warp_size) {
    int waiting = 0, alive = 0;
    for (int i = first; i < first + warp_size; ++i) {
      waiting += m.fibers[i].waits == Waits::at_warp;
      alive += m.fibers[i].waits != Waits::at_end;
    }
    if (waiting == 0 || waiting < alive) continue;
    for (int i = first; i < first + warp_size; ++i)
      if (m.fibers[i].waits == Waits::at_warp) m.fibers[i].waits = Waits::nowhere;
    any = true;
  }
  if (any) return true;
  for (int i = 0; i < threads; ++i)
    if (m.fibers[i].waits != Waits::at_block) return false;
  for (int i = 0; i < threads; ++i) m.fibers[i].waits = Waits::nowhere;
  return true;
}

inline void run_block(Machine& m, int threads) {
  m.shared.clear();
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = m.fibers[i];
    fiber.waits = Waits::nowhere;
    if (!fiber.stack) fiber.stack.reset(new char[stack_bytes]);
    fiber.place.start(fiber.stack.get(), stack_bytes, entry);
  }
  for (;;) {
    int ended = 0;
    for (int i = 0; i < threads; ++i) {
      m.current = m.backwards ? threads - 1 - i : i;
      if (m.fibers[m.current].waits == Waits::nowhere) m.scheduler.go_to(m.fibers[m.current].place);
    }
    for (int i = 0; i < threads; ++i) ended += m.fibers[i].waits == Waits::at_end;
    if (ended == threads) return;
    if (!release(m, threads)) throw std::logic_error("a barrier that not all threads reach");
  }
}

}  // namespace fastmlp::cuda::emulator

namespace fastmlp::cuda {

using Stream = void*;

// As nvcc's -ftz=true has it for floats: subnormal numbers are 0. Here those of doubles are too.
class FlushToZero {
#if defined(__x86_64__)
 public:
  FlushToZero() { _mm_setcsr(saved_ | 0x8040); }
  ~FlushToZero() { _mm_setcsr(saved_); }

 private:
  const unsigned saved_ = _mm_getcsr();
#endif
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, Stream, const Arguments&... arguments) {
  [[maybe_unused]] const FlushToZero flush;
  emulator::Machine& m = emulator::machine();
  m.kernel = [&] { kernel(arguments...); };
  m.blocks = blocks;
  m.backwards = !m.backwards;
  const unsigned count = blocks.x * blocks.y;
  for (unsigned i = 0; i < count; ++i) {
    const unsigned number = m.backwards ? count - 1 - i : i;
    m.block = dim3(number % blocks.x, number / blocks.x);
    emulator::run_block(m, emulator::most_threads);
  }
}

inline void read(void* host, const void* device, std::size_t bytes, Stream) {
  std::memcpy(host, device, bytes);
}

class DeviceCopy {
 public:
  DeviceCopy(const void* host, std::size_t bytes)
      : data_(static_cast<const char*>(host), static_cast<const char*>(host) + bytes) {}
  const void* data() const { return data_.data(); }

 private:
  std::vector<char> data_;
};

// Its launches are made anew each time, with what they were captured with.
class Graph {
 public:
  template <class F>
  void capture(F&& enqueue) {
    enqueue_ = [enqueue](Stream stream) { enqueue(stream); };
  }
  explicit operator bool() const { return bool(enqueue_); }
  void replay(Stream stream) { enqueue_(stream); }

 private:
  std::function<void(Stream)> enqueue_;
};

}  // namespace fastmlp::cuda

#define threadIdx (dim3(unsigned(::fastmlp::cuda::emulator::machine().current)))
#define blockIdx (::fastmlp::cuda::emulator::machine().block)
#define gridDim (::fastmlp::cuda::emulator::machine().blocks)

inline void __syncthreads() {
  ::fastmlp::cuda::emulator::wait(::fastmlp::cuda::emulator::Waits::at_block);
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  using namespace ::fastmlp::cuda::emulator;
  Machine& m = machine();
  std::memcpy(&m.fibers[m.current].exchanged, &value, sizeof value);
  wait(Waits::at_warp);
  T result;
  std::memcpy(&result, &m.fibers[m.current ^ mask].exchanged, sizeof result);
  wait(Waits::at_warp);
  return result;
}
