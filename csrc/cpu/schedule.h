// Where the members of a team have to meet: barriers only where data crosses threads.
#pragma once

#include <cstdint>
#include <vector>

#include "core/program.h"

namespace fastmlp::cpu {

// For each record, whether the members meet before it. They also meet at the end of a step.
//
// A record has to wait for another since the last barrier if one of the two writes what the other
// reads or writes, unless both are shared out by rows and touch the same rows: then a member only
// goes on with what it did itself.
std::vector<bool> barriers(const Program& program, std::int64_t rows, int members);

}  // namespace fastmlp::cpu
