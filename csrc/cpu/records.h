// What each record does on the CPU.
#pragma once

#include "cpu/execution.h"
#include "cpu/schedule.h"

namespace fastmlp::cpu {

// Does one member's share of a record, and of the updates that it makes. Returns false where the
// rest of the step is not to be made: every member of a team returns the same.
using Execute = bool (*)(const Record& record, const Updates& updates, const Run& run);

// For a program of this type. Looked up once, when a program is compiled.
template <class T>
Execute execute_of(const Record& record);

}  // namespace fastmlp::cpu
