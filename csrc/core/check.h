// Every error of the native code: one sentence with the operation, what it needs and what it got.
#pragma once

#include <stdexcept>
#include <string>

namespace fastmlp {

// std::invalid_argument becomes Python's ValueError.
[[noreturn]] inline void fail(const std::string& operation, const std::string& expected,
                              const std::string& got) {
  throw std::invalid_argument(operation + ": needs " + expected + ", got " + got);
}

}  // namespace fastmlp
