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

#include <cmath>
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
#define FASTMLP_DYNAMIC_SHARED(name)                          \
  char* const name = ::fastmlp::cuda::emulator::shared<char>( \
      __COUNTER__, ::fastmlp::cuda::emulator::machine().dynamic_shared)

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
  std::uint32_t exchanged[6];  // what it shows the other lanes of its warp
};

constexpr int most_threads = 256, warp_size = 32;
constexpr std::size_t stack_bytes = 128 << 10;

struct Machine {
  Place scheduler;
  Fiber fibers[most_threads];
  int current = 0;
  dim3 block, blocks;
  std::size_t dynamic_shared = 0;  // bytes
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

// Counts blocks, each a microsecond, in place of time.
inline double& clock() {
  static double seconds = 0;
  return seconds;
}

template <class... Parameters, class... Arguments>
void launch_with_shared(std::int64_t bytes, void (*kernel)(Parameters...), dim3 blocks, Stream,
                        const Arguments&... arguments) {
  [[maybe_unused]] const FlushToZero flush;
  emulator::Machine& m = emulator::machine();
  m.kernel = [&] { kernel(arguments...); };
  m.blocks = blocks;
  m.dynamic_shared = std::size_t(bytes);
  m.backwards = !m.backwards;
  const unsigned count = blocks.x * blocks.y;
  clock() += 1e-6 * count;
  for (unsigned i = 0; i < count; ++i) {
    const unsigned number = m.backwards ? count - 1 - i : i;
    m.block = dim3(number % blocks.x, number / blocks.x);
    emulator::run_block(m, emulator::most_threads);
  }
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, Stream stream,
            const Arguments&... arguments) {
  launch_with_shared(0, kernel, blocks, stream, arguments...);
}

// An H100's.
inline int multiprocessors() { return 132; }
template <class... Parameters>
std::int64_t most_dynamic_shared(void (*)(Parameters...)) {
  return (227 - 32) << 10;  // the kernel's own are some 30 KB
}

inline void read(void* host, const void* device, std::size_t bytes, Stream) {
  std::memcpy(host, device, bytes);
}

class Moments {
 public:
  explicit Moments(Stream) {}
  void mark() { moments_.push_back(clock()); }
  std::vector<float> seconds() const {
    std::vector<float> found(moments_.size() - 1);
    for (std::size_t i = 0; i < found.size(); ++i) found[i] = float(moments_[i + 1] - moments_[i]);
    return found;
  }

 private:
  std::vector<double> moments_;
};

class DeviceCopy {
 public:
  DeviceCopy(const void* host, std::size_t bytes)
      : data_(static_cast<const char*>(host), static_cast<const char*>(host) + bytes) {}
  const void* data() const { return data_.data(); }

 private:
  std::vector<char> data_;
};

class Scratch {
 public:
  explicit Scratch(std::size_t bytes) : data_(bytes, char(0xFF)) {}  // NaN
  void* data() { return data_.data(); }
  std::size_t bytes() const { return data_.size(); }

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
  std::memcpy(m.fibers[m.current].exchanged, &value, sizeof value);
  wait(Waits::at_warp);
  T result;
  std::memcpy(&result, m.fibers[m.current ^ mask].exchanged, sizeof result);
  wait(Waits::at_warp);
  return result;
}

namespace fastmlp::cuda {

// ---- tensor cores: what runtime.h says of each, by PTX's layout of fragments and rounding rules

inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float float_of(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline std::uint32_t to_tf32(float x) {
  return std::isnan(x) ? 0x7FFFFFFFu : (bits_of(x) + 0x1000u) & ~0x1FFFu;
}

inline std::uint32_t to_bfloat16(float first, float second) {
  auto rounded = [](float x) {
    const std::uint32_t bits = bits_of(x);
    return std::isnan(x) ? 0x7FFFu : (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  };
  return rounded(second) << 16 | rounded(first);
}

// A lane has of a the words (group, within), (group + 8, within), (group, within + 4) and
// (group + 8, within + 4), of b (within, group) and (within + 4, group), and of the sum the
// elements (group, 2 within), the next one, and these two 8 rows below; group is lane / 4, within
// lane % 4. product(a, b) multiplies two words and sums, exactly; the sum is rounded once.
template <class F>
void mma(float (&sum)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], F&& product) {
  using namespace emulator;
  Machine& m = machine();
  std::uint32_t* const own = m.fibers[m.current].exchanged;
  std::memcpy(own, a, sizeof a);
  std::memcpy(own + 4, b, sizeof b);
  wait(Waits::at_warp);
  const int lane = m.current % warp_size;
  const Fiber* const lanes = m.fibers + (m.current - lane);
  for (int c = 0; c < 4; ++c) {
    const int row = lane / 4 + c / 2 * 8, col = lane % 4 * 2 + c % 2;
    double total = sum[c];
    for (int word = 0; word < 8; ++word) {
      const std::uint32_t of_a = lanes[row % 8 * 4 + word % 4].exchanged[row / 8 + word / 4 * 2];
      const std::uint32_t of_b = lanes[col * 4 + word % 4].exchanged[4 + word / 4];
      total += product(of_a, of_b);
    }
    sum[c] = float(total);
  }
  wait(Waits::at_warp);
}

inline void mma_tf32(float (&sum)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  mma(sum, a, b, [](std::uint32_t x, std::uint32_t y) {
    constexpr std::uint32_t seen = ~0x1FFFu;  // the rest of a word is not looked at
    return double(float_of(x & seen)) * double(float_of(y & seen));
  });
}
inline void mma_bfloat16(float (&sum)[4], const std::uint32_t (&a)[4],
                         const std::uint32_t (&b)[2]) {
  mma(sum, a, b, [](std::uint32_t x, std::uint32_t y) {
    return double(float_of(x << 16)) * double(float_of(y << 16)) +
           double(float_of(x >> 16 << 16)) * double(float_of(y >> 16 << 16));
  });
}

}  // namespace fastmlp::cuda
