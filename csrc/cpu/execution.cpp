#include "cpu/execution.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

namespace fastmlp::cpu {

Memory& Memory::own() {
  constexpr std::size_t bytes =
      std::max(matmul_scratch<float> * sizeof(float), matmul_scratch<double> * sizeof(double));
  struct Owned : Memory {
    Owned() : Memory{std::aligned_alloc(64, bytes), {}} {
      if (!scratch) throw std::bad_alloc();
    }
    ~Owned() { std::free(scratch); }
  };
  static thread_local Owned memory;
  return memory;
}

}  // namespace fastmlp::cpu
