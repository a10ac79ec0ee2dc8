// What follows from how a program's records read and write: where parameters are updated, and where
// the members of a team have to meet.
#pragma once

#include <cstdint>
#include <vector>

#include "core/program.h"

namespace fastmlp::cpu {

using Updates = std::vector<ApplyUpdate>;

// For each record, the updates that it makes. A record that makes a gradient updates what that is
// the gradient of, at once, unless another needs either of them as it was or can still stop the
// step: then a gradient need not leave the cache, nor cross threads. An ApplyUpdate updates what is
// left of its arrays.
std::vector<Updates> updates_of(const Program& program);

// For each record, whether the members meet before it. They also meet at the end of a step.
//
// A record has to wait for another since the last barrier if one of the two writes what the other
// reads or writes, unless both are shared out by rows and touch the same rows: then a member only
// goes on with what it did itself.
std::vector<bool> barriers(const Program& program, const std::vector<Updates>& updates,
                           std::int64_t rows, int members);

}  // namespace fastmlp::cpu
