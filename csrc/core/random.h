// Counter-based random numbers: a number is a pure function of a seed and a place, so it is the
// same on every device, in every order and after every restart.
//
// Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/portable.h"

namespace fastmlp {

struct Philox {
  std::uint32_t word[4];

  FASTMLP_FN Philox(std::uint64_t seed, std::uint64_t low, std::uint64_t high)
      : word{std::uint32_t(low), std::uint32_t(low >> 32), std::uint32_t(high),
             std::uint32_t(high >> 32)} {
    std::uint32_t k0 = std::uint32_t(seed), k1 = std::uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t a = 0xD2511F53ull * word[0], b = 0xCD9E8D57ull * word[2];
      const std::uint32_t w1 = word[1], w3 = word[3];
      word[0] = std::uint32_t(b >> 32) ^ w1 ^ k0;
      word[1] = std::uint32_t(b);
      word[2] = std::uint32_t(a >> 32) ^ w3 ^ k1;
      word[3] = std::uint32_t(a);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
  }

  FASTMLP_FN std::uint64_t pair(int i) const {
    return std::uint64_t(word[2 * i]) << 32 | word[2 * i + 1];
  }
};

// The high counter word says what a number is for, so that no two uses share one.
enum class Purpose : std::uint64_t { initial = 0, order = 1, dropout = 2 };

FASTMLP_FN std::uint64_t random_stream(Purpose purpose, std::uint64_t index) {
  return std::uint64_t(purpose) << 60 | index;
}

// Two doubles in [0, 1), with 53 bits.
FASTMLP_FN void uniform_pair(const Philox& random, double& a, double& b) {
  a = double(random.pair(0) >> 11) * 0x1p-53;
  b = double(random.pair(1) >> 11) * 0x1p-53;
}

// Two independent standard normal numbers (Box and Muller 1958).
inline void normal_pair(const Philox& random, double& a, double& b) {
  double u, v;
  uniform_pair(random, u, v);
  const double radius = std::sqrt(-2 * std::log(1 - u)), angle = 6.283185307179586477 * v;
  a = radius * std::cos(angle);
  b = radius * std::sin(angle);
}

// A permutation of 0..n-1 that needs no memory: element i of it is a function of the key alone.
//
// A Feistel network over the smallest 2^bits >= n permutes 0..2^bits-1; walking along its cycle
// until the value is below n restricts that to 0..n-1 (Black and Rogaway 2002), in under two steps
// on average.
class Permutation {
 public:
  FASTMLP_FN Permutation(std::uint64_t n, std::uint64_t seed, std::uint64_t epoch) : n_(n) {
    int bits = 2;
    while (bits < 62 && (std::uint64_t(1) << bits) < n) ++bits;
    left_ = bits / 2;
    right_ = bits - left_;
    for (int i = 0; i < rounds; i += 4) {
      const Philox key(seed, std::uint64_t(i), random_stream(Purpose::order, epoch));
      for (int j = 0; j < 4; ++j) key_[i + j] = key.word[j];
    }
  }

  FASTMLP_FN std::uint64_t operator()(std::uint64_t i) const {
    do {
      std::uint32_t left = std::uint32_t(i >> right_), right = std::uint32_t(i & mask(right_));
      encrypt(left, right);
      i = std::uint64_t(left) << right_ | right;
    } while (i >= n_);
    return i;
  }

  FASTMLP_FN std::uint64_t size() const { return n_; }
  // Whether every number it meets on its walks has 32 bits: then `step` may be used.
  FASTMLP_FN bool is_narrow() const { return left_ + right_ <= 32; }
  // One step of the walk, for a number of 32 bits or a vector of them.
  template <class U>
  FASTMLP_FN U step(U i) const {
    U left = i >> right_, right = i & mask(right_);
    encrypt(left, right);
    return left << right_ | right;
  }

 private:
  static constexpr int rounds = 8;

  // murmur3's finalizer: every input bit reaches every output bit.
  template <class U>
  static FASTMLP_FN U mix(U h) {
    h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
    h = (h ^ (h >> 13)) * 0xC2B2AE35u;
    return h ^ (h >> 16);
  }

  template <class U>
  FASTMLP_FN void encrypt(U& left, U& right) const {
    for (int round = 0; round < rounds; round += 2) {
      left = (left ^ mix(right + key_[round])) & mask(left_);
      right = (right ^ mix(left + key_[round + 1])) & mask(right_);
    }
  }

  static FASTMLP_FN std::uint32_t mask(int bits) {
    return std::uint32_t((std::uint64_t(1) << bits) - 1);
  }

  std::uint64_t n_;
  int left_, right_;
  std::uint32_t key_[rounds];
};

// Dropout keeps an element where its 32 random bits are below this.
FASTMLP_FN std::uint32_t keep_threshold(double rate) {
  const double threshold = (1 - rate) * 4294967296.0;
  return threshold >= 4294967295.0 ? 4294967295u : std::uint32_t(threshold);
}

}  // namespace fastmlp
