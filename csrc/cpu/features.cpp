// What the CPU can run, from its feature bits.
#include "cpu/features.h"

#if FASTMLP_X86
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace fastmlp::cpu {

const char* name(InstructionSet set) {
  switch (set) {
    case InstructionSet::avx2: return "avx2";
    case InstructionSet::avx512: return "avx512";
    default: return "baseline";
  }
}

InstructionSet widest_instruction_set() {
#if FASTMLP_X86
  // The compiler's own check reads XCR0 as well: a feature counts only where the operating system
  // saves its registers.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
  if (avx2 && avx512) return InstructionSet::avx512;
  if (avx2) return InstructionSet::avx2;
#endif
  return InstructionSet::baseline;
}

InstructionSet best_instruction_set() {
  const InstructionSet widest = widest_instruction_set();
  const char* variable = std::getenv("FASTMLP_ISA");
  if (!variable || !*variable) return widest;

  const std::string wanted = variable;
  std::string choices;
  for (int i = 0; i <= static_cast<int>(widest); ++i) {
    const auto set = static_cast<InstructionSet>(i);
    if (wanted == name(set)) return set;
    choices += (i ? ", " : "") + std::string(name(set));
  }
  throw std::runtime_error("FASTMLP_ISA: this CPU can run " + choices + "; got '" + wanted + "'");
}

bool has_half_width_avx512() {
#if FASTMLP_X86
  // By family, since a virtual machine may hide the bit that tells the width (leaf 8000001Ah): 19h
  // is Zen 3, without AVX-512, and Zen 4.
  unsigned signature = 0, b, c, d;
  if (!__builtin_cpu_is("amd") || !__get_cpuid(1, &signature, &b, &c, &d)) return false;
  const unsigned family = (signature >> 8 & 0xf) + (signature >> 20 & 0xff);
  return widest_instruction_set() == InstructionSet::avx512 && family == 0x19;
#else
  return false;
#endif
}

bool has_bfloat16() {
#if defined(FASTMLP_EMULATE_AVX512)
  return true;
#elif FASTMLP_X86
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

bool gains_by_fetching_for_writing() {
#if FASTMLP_X86
  __builtin_cpu_init();
  return __builtin_cpu_is("intel");
#else
  return false;
#endif
}

namespace {

// Linux has to be asked, since tiles make a thread's state 8 KiB larger. What it grants holds for
// all threads of the process and for forked children. It refuses where a thread's stack for signals
// is too small, and an old kernel does not know the question.
bool may_use_tiles() {
#if defined(FASTMLP_EMULATE_AVX512)
  return true;
#elif FASTMLP_X86 && defined(__linux__)
  constexpr unsigned tile = 1u << 24, bfloat16 = 1u << 22;
  constexpr int request_permission = 0x1023, tile_data = 18;
  unsigned a, b, c, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & tile) || !(d & bfloat16)) return false;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

}  // namespace

bool has_tiles() {
  static const bool tiles = has_bfloat16() && !switched_off("amx") && may_use_tiles();
  return tiles;
}

bool switched_off(const char* technique) {
  const char* variable = std::getenv("FASTMLP_DISABLE");
  const std::string listed = "," + std::string(variable ? variable : "") + ",";
  return listed.find("," + std::string(technique) + ",") != std::string::npos;
}

}  // namespace fastmlp::cpu
