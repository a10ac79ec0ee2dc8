// The order of rows, many at a time.
#pragma once

#include "core/random.h"
#include "cpu/isa/vec.h"
#include "cpu/kernels.h"

namespace fastmlp::cpu::FASTMLP_ISA {

// All numbers take a step of their walks; those that are not there yet are written behind one
// another and take the next.
inline void permute(std::int64_t* rows, std::int64_t first, std::int64_t n,
                    const Permutation& permutation) {
  constexpr int lanes = vector_bytes / 4;
  typedef std::uint32_t Words __attribute__((vector_size(vector_bytes)));
  if (!permutation.is_narrow() || n < lanes) {
    for (std::int64_t i = 0; i < n; ++i)
      rows[i] = std::int64_t(permutation(std::uint64_t(first + i)));
    return;
  }
  constexpr std::int64_t most = 256;
  std::uint32_t walking[most + lanes];
  std::uint16_t place[most];
  for (; n > 0; rows += most, first += most, n -= most) {
    std::int64_t left = n < most ? n : most;
    for (std::int64_t i = 0; i < left; ++i) {
      walking[i] = std::uint32_t(first + i);
      place[i] = std::uint16_t(i);
    }
    while (left > 0) {
      for (std::int64_t i = 0; i < left; i += lanes) {
        Words w;
        __builtin_memcpy(&w, walking + i, sizeof w);
        w = permutation.step(w);
        __builtin_memcpy(walking + i, &w, sizeof w);
      }
      std::int64_t again = 0;
      for (std::int64_t i = 0; i < left; ++i) {
        const std::uint32_t w = walking[i];
        const std::uint16_t p = place[i];
        rows[p] = w;  // perhaps not for good
        walking[again] = w;
        place[again] = p;
        again += w >= permutation.size();
      }
      left = again;
    }
  }
}

}  // namespace fastmlp::cpu::FASTMLP_ISA
